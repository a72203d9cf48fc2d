"""mini-swe-agent, as it is published: its DefaultAgent and its LitellmModel, over the environment's sandbox."""

import asyncio
import logging
import os
import platform
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...envs.sandbox.background import on_own_thread, on_thread_to_its_end
from ...envs.sandbox.types import Sandbox
from ...errors import ConfigError
from ...model.chat.messages import Message, ToolCall
from .spec import Done, Stage

COMMAND_S = 60.0
SUBMIT = {"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}
HAND_IN = Message(role="assistant", content="", calls=(ToolCall(name="bash", arguments=SUBMIT),))


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniSweAgent:
    """mini-swe-agent 2. ``config``: a file of its own form or the name of one that it brings."""

    name: str
    config: str = "mini.yaml"
    hand_in: Message = HAND_IN

    async def run(self, stage: Stage) -> Done:
        # The first import takes seconds, in which other episodes go on.
        default, litellm_model, told = await on_thread_to_its_end(_installed, self.config)
        loop, access, sandbox = asyncio.get_running_loop(), stage.beside, stage.sandbox
        options = {**told["model"].get("model_kwargs", {}), "api_base": f"{access.root}/v1", "api_key": access.key}
        settings = {**told["model"], "model_kwargs": options, "cost_tracking": "ignore_errors"}
        model = litellm_model.LitellmModel(model_name=f"openai/{access.model}", **settings)
        box = _Box(sandbox, loop, told.get("environment", {}))
        wanted = {name: told["agent"][name] for name in default.AgentConfig.model_fields if name in told["agent"]}
        agent = default.DefaultAgent(model, box, **wanted)
        ended = await on_own_thread(agent.run, stage.prompt)
        status = str(ended.get("exit_status", ""))
        said = "\n".join(str(message.get("content") or "") for message in agent.messages[-2:])
        return Done(exit=status, output=said[-2000:], finished=status == "Submitted")


class _Box:
    """A sandbox as mini-swe-agent's environments are: each command in a shell of its own."""

    def __init__(self, sandbox: Sandbox, loop: asyncio.AbstractEventLoop, config: dict[str, Any]) -> None:
        self.config, self._sandbox, self._loop = config, sandbox, loop

    def execute(self, action: dict[str, Any], cwd: str = "", *, timeout: int | None = None) -> dict[str, Any]:
        """Run a command. Raises mini-swe-agent's Submitted, and SandboxError."""
        from minisweagent.environments.local import LocalEnvironment  # pyright: ignore[reportMissingImports]  # an extra

        variables = " ".join(shlex.quote(f"{name}={value}") for name, value in self.config.get("env", {}).items())
        where = cwd or self.config.get("cwd") or ""
        folder = f"cd {shlex.quote(where)} && " if where else ""
        command = f"({folder}env {variables} bash -c {shlex.quote(str(action.get('command', '')))})"
        limit = float(timeout or self.config.get("timeout") or COMMAND_S)
        asked = self._sandbox.aexec(command, timeout_s=limit)
        result = asyncio.run_coroutine_threadsafe(asked, self._loop).result()
        trouble = f"the command was killed: {result.killed}" if result.killed else ""
        code = -1 if result.exit_code is None else result.exit_code
        output = {"output": result.output, "returncode": code, "exception_info": trouble}
        LocalEnvironment._check_finished(self, output)  # type: ignore[arg-type]  # it reads the output alone
        return output

    def get_template_vars(self, **kwargs: Any) -> dict[str, Any]:
        """What its templates can name."""
        return {**self.config, **platform.uname()._asdict(), **kwargs}

    def serialize(self) -> dict[str, Any]:
        """Of its own trajectory file, which is not written."""
        return {}


def _installed(config: str) -> tuple[Any, Any, dict[str, Any]]:
    """(its agents, its models, its settings). Raises ConfigError where it is not installed, or has no such file."""
    os.environ.setdefault("MSWEA_SILENT_STARTUP", "1")
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else litellm fetches its prices when imported
    try:
        import litellm  # pyright: ignore[reportMissingImports]  # an extra
        import yaml
        from minisweagent.agents import default  # pyright: ignore[reportMissingImports]  # an extra
        from minisweagent.config import get_config_path  # pyright: ignore[reportMissingImports]  # an extra
        from minisweagent.models import litellm_model  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError as error:
        raise ConfigError(
            f"mini-swe-agent is not installed ({error}); pip install 'verigym[agents]', or 'mini-swe-agent>=2.4,<3'"
        ) from None
    logging.getLogger("LiteLLM").setLevel(logging.WARNING)
    litellm.suppress_debug_info = True  # else it prints a list of providers at each turn, whose price it does not know
    try:
        found = yaml.safe_load(Path(get_config_path(config)).read_text(encoding="utf-8"))
        return default, litellm_model, {"agent": found["agent"], **{"model": {}, "environment": {}}, **found}
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(f"mini-swe-agent has no settings {config!r} ({error}); name a file of its form") from None
