"""vLLM's servers as engines that are started here: their command, and their process."""

import importlib.util
import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import ConfigError
from ...model.server.process import WatchedProcess
from ..recipe.config import EnginesConfig
from .in_vllm.verigym_vllm_server import END_WITH
from .in_vllm.verigym_vllm_worker import BEGAN_WITH
from .sizes import Sizes

_INSIDE = Path(__file__).parent / "in_vllm"
_HOST = "127.0.0.1"
_ERROR = re.compile(r"(Error|Exception|error): ")


def interpreter(config: EnginesConfig) -> str:
    """The Python that has vLLM. Raises ConfigError where there is none."""
    if config.python is None:
        if importlib.util.find_spec("vllm") is None:
            raise ConfigError(
                "engines.kind is vllm, and this Python has no vLLM; pip install 'verigym[vllm]', or name in "
                "engines.python the interpreter of an environment that has it"
            )
        return sys.executable
    if not os.access(config.python, os.X_OK):
        raise ConfigError(f"engines.python is {config.python}, which is no program; name an interpreter that has vLLM")
    return str(config.python)


def vllm_options(config: EnginesConfig, sizes: Sizes, batch: int) -> list[str]:
    """Of a server's command.

    Args:
        batch: requests that it may have in work at once.
    """
    options = ["--served-model-name", "policy", "--logprobs-mode", "processed_logprobs", "--dtype", sizes.dtype]
    options += ["--max-num-seqs", str(batch), "--max-model-len", str(sizes.max_context), "--seed", str(sizes.seed)]
    options += ["--tensor-parallel-size", str(config.tensor_parallel), "--generation-config", "vllm"]
    options += ["--worker-extension-cls", "verigym_vllm_worker.FolderWeights"]
    return [*options, *config.options]


class VllmProcess(WatchedProcess):
    """vLLM's API server on a free port of this machine, with our part in its workers. It ends when this process does.

    It listens to this machine alone, for whoever reaches vLLM's development routes can change its weights: vLLM asks
    its key only below /v1 and /inference.
    """

    def __init__(
        self,
        python: str,
        weights: Path,
        *,
        log: Path,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        cuda: bool,
    ) -> None:
        """
        Args:
            python: interpreter that has vLLM.
            weights: checkpoint to begin with.
            log, environment: of ``WatchedProcess``.
            options: more of vLLM's command line.
            cuda: it runs on GPUs; else on one thread, for the trainer and the sandboxes need the other cores.
        """
        self._port, self._reserved = _reserved_port()
        command = [python, str(_INSIDE / "verigym_vllm_server.py"), "--model", str(weights), "--enable-scale-out"]
        command += ["--host", _HOST, "--port", str(self._port), *([] if cuda else ["--enforce-eager"]), *options]
        told = {
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(_INSIDE), os.environ.get("PYTHONPATH")))),
            END_WITH: str(os.getpid()),
            BEGAN_WITH: str(weights),
        }
        if not cuda:
            told |= {name: os.environ.get(name, value) for name, value in _ON_CPU.items()}
        super().__init__(command, log=log, environment={**told, **(environment or {})})

    def _address(self, line: str) -> str | None:
        return f"http://{_HOST}:{self._port}" if "Application startup complete" in line else None

    def _reason(self, lines: Sequence[str]) -> str:
        # After its error vLLM tells what it has leaked, and that its engine's process has failed.
        errors = [line for line in lines if _ERROR.search(line) and "Engine core initialization failed" not in line]
        return errors[-1] if errors else lines[-1]

    def _end(self) -> None:
        super()._end()
        self._reserved.close()


def _reserved_port() -> tuple[int, socket.socket]:
    """A free port, and what keeps it: bound and silent, it lets vLLM's server alone have the port too."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((_HOST, 0))
    return held.getsockname()[1], held


_ON_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else every server binds the same cores
    "OMP_NUM_THREADS": "1",
}
