"""Any command: in the environment's sandbox, or beside it on this machine."""

import asyncio
import os
import shlex
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .spec import OUTPUT_CHARS, Access, Done, Stage

PROMPT = "/tmp/verigym-prompt.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandHarness:
    """A shell's command in the sandbox. The prompt is in the file $VERIGYM_PROMPT; clients find the gateway and its key
    in the variables of ``Access``. Exit status 0 hands in what the sandbox holds; any other is a crash."""

    name: str
    command: str

    async def run(self, stage: Stage) -> Done:
        await stage.sandbox.write_file(PROMPT, stage.prompt.encode("utf-8", "replace"))
        async with stage.inside() as access:
            variables = access.variables | {"VERIGYM_PROMPT": PROMPT}
            exports = "".join(f"export {name}={shlex.quote(value)}; " for name, value in variables.items())
            command = f"({exports}exec bash -c {shlex.quote(self.command)})"
            result = await stage.sandbox.aexec(command, timeout_s=stage.seconds)
        ended = f"killed: {result.killed}" if result.killed else f"exit {result.exit_code}"
        output, timed_out = result.output[-OUTPUT_CHARS:], result.killed == "timeout"
        return Done(exit=ended, output=output, crashed=result.exit_code != 0, timed_out=timed_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class BesideHarness:
    """A shell's command on this machine, in a folder of its own. What it prints to standard output is what it hands
    in, where the environment takes a text. It is as free as whoever starts it: run no model's commands with it."""

    name: str
    command: str

    async def run(self, stage: Stage) -> Done:
        with tempfile.TemporaryDirectory(prefix="verigym-harness-") as folder:
            prompt = Path(folder, "prompt.txt")
            prompt.write_text(stage.prompt, encoding="utf-8", errors="replace")
            return await self._run(stage.beside, folder, prompt)

    async def _run(self, access: Access, folder: str, prompt: Path) -> Done:
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", self.command, cwd=folder, start_new_session=True, stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, **access.variables, "VERIGYM_PROMPT": str(prompt)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            said, complained = await process.communicate()
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            await process.wait()
        text = said.decode(errors="replace")
        output = (text + complained.decode(errors="replace"))[-OUTPUT_CHARS:]
        crashed = process.returncode != 0
        return Done(exit=f"exit {process.returncode}", output=output, crashed=crashed, submission=text.strip())
