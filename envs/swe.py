"""``verigym/SWE-v0``: mend a repository so that hidden tests pass."""

import hashlib
import posixpath
import uuid
from collections.abc import Sequence
from typing import Any, ClassVar

from ..errors import SandboxError
from ..model.chat.messages import Message, ToolCall
from ..rewards.score import Score
from .checkout import HOST_BACKENDS, base_of, environment_of, open_workspace, placed, shell_env
from .core import Submission, ToolEnv
from .datasets.swe import row_of
from .datasets.swe_examples import example_tasks
from .grading import grade_patch, zero
from .patching import diff_of
from .sandbox.choose import make_backend
from .sandbox.types import Limits, Sandbox, SandboxBackend
from .task import Task
from .tools.files import decode, replace_lines, view_lines
from .tools.spec import ToolError, tool

_VERDICTS: dict[tuple[str, str, str], Score] = {}


class SWEEnv(ToolEnv):
    """The repository lies in the sandbox's working directory at its base commit, with git but without history.

    What is handed in, by ``submit`` or by a final message, is the difference between the work tree and the base
    commit; hidden tests run on it in a fresh sandbox of the same backend. The reward is 1 if all of them pass.
    """

    family: ClassVar[str] = "swe"

    def __init__(
        self,
        *,
        sandbox: str | SandboxBackend = "auto",
        reuse_verdicts: bool = False,
        limits: Limits | None = None,
        test_timeout_s: float = 600.0,
        tasks: Sequence[Task] | None = None,
        max_turns: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        """
        Args:
            sandbox: the backend, or its name ("auto", "local", "docker", "unsafe").
            reuse_verdicts: grade a patch of a task once a process. Grading is deterministic for validated tasks.
            limits: of the sandboxes; None takes the defaults.
            test_timeout_s: wall-clock seconds of one run of the hidden tests.
            tasks, max_turns, render_mode: as for every ToolEnv.
        """
        super().__init__(tasks=tasks, max_turns=max_turns, render_mode=render_mode)
        self._choice, self._backend = sandbox, None if isinstance(sandbox, str) else sandbox
        self._reuse_verdicts, self._limits, self._test_timeout_s = reuse_verdicts, limits or Limits(), test_timeout_s
        self._sandbox: Sandbox | None = None
        self.patch: str | None = None
        """What the last episode handed in; None where it handed in nothing."""

    def load(self) -> Sequence[Task]:
        return example_tasks()

    async def start(self, task: Task) -> None:
        row = row_of(task)
        self.patch = None
        if self._backend is None:
            assert isinstance(self._choice, str)
            self._backend = make_backend(self._choice)
        env = shell_env(row, await environment_of(row))
        self._sandbox = await open_checkout(self._backend, row, limits=self._limits, env=env)
        await prepare_shell(self._sandbox, row)

    async def stop(self) -> None:
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            await sandbox.aclose()

    async def score(self, task: Task, submission: Any) -> Score:
        """Grade the work tree; a final message's text is not looked at."""
        assert self._backend is not None
        patch = await diff_of(self._box, row_of(task))
        await self.stop()
        if patch is None:
            return zero("the difference from the base commit is larger than 16 MiB")
        self.patch = patch
        key = (task.id, str(task.hidden.get("archive")), hashlib.sha256(patch.encode()).hexdigest())
        if self._reuse_verdicts and key in _VERDICTS:
            return _VERDICTS[key]
        score, _ = await grade_patch(self._backend, task, patch, timeout_s=self._test_timeout_s, limits=self._limits)
        _VERDICTS[key] = score
        return score

    def gold(self, task: Task) -> Sequence[Message]:
        """Look, apply the gold patch, look again, submit."""
        end = f"END_{uuid.uuid5(uuid.NAMESPACE_OID, task.id).hex[:8]}"
        patch = row_of(task).patch
        apply = f"git apply --whitespace=nowarn - <<'{end}'\n{patch}{'' if patch.endswith(chr(10)) else chr(10)}{end}"
        return [
            _call("bash", command="ls"),
            _call("bash", command=apply),
            _call("bash", command="git diff --stat"),
            _call("submit"),
        ]

    def empty(self, task: Task) -> Sequence[Message]:
        return [_call("submit")]

    @tool
    async def bash(self, command: str) -> str:
        """Run a command in the repository's shell.

        Args:
            command: one or more lines for bash.
        """
        result = await self._box.aexec(command)
        lines = [result.output.rstrip("\n")] if result.output else []
        if result.killed:
            lines.append(f"[killed: {result.killed}]")
        elif result.exit_code:
            lines.append(f"[exit code {result.exit_code}]")
        return "\n".join(lines)

    @tool
    async def view(self, path: str, start: int = 1, end: int = 0) -> str:
        """Show lines of a file with their numbers.

        Args:
            path: of the file.
            start: first line.
            end: last line; 0 is the end of the file.
        """
        return view_lines(await self._read(path), path, start, end)

    @tool
    async def edit(self, path: str, search: str, replace: str) -> str:
        """Replace whole lines of a file; they must stand in it exactly once.

        Args:
            path: of the file.
            search: the lines as they are.
            replace: the lines as they shall be.
        """
        text = replace_lines(await self._read(path), search, replace, path)
        await self._write(path, text)
        return f"edited {path}"

    @tool
    async def create(self, path: str, content: str) -> str:
        """Write a new file.

        Args:
            path: of the file, which must not exist.
            content: all of it.
        """
        try:
            await self._box.read_file(_inside(path))
        except FileNotFoundError:
            await self._write(path, content)
            return f"created {path}"
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror or error}") from None
        raise ToolError(f"{path} exists; use edit")

    @tool
    async def submit(self) -> Submission:
        """Hand in the repository as it is now."""
        return Submission(value=None)

    @property
    def _box(self) -> Sandbox:
        if self._sandbox is None:
            raise SandboxError("the episode has no sandbox; reset() makes one")
        return self._sandbox

    async def _read(self, path: str) -> str:
        try:
            return decode(await self._box.read_file(_inside(path)), path)
        except FileNotFoundError:
            raise ToolError(f"{path}: no such file") from None
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror or error}") from None

    async def _write(self, path: str, text: str) -> None:
        try:
            await self._box.write_file(_inside(path), text.encode("utf-8"))
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror or error}") from None


def _inside(path: str) -> str:
    if not path or "\0" in path:
        raise ToolError("path is empty" if not path else "path holds a NUL character")
    return posixpath.normpath(posixpath.join(WORKDIR, path))


def _call(name: str, **arguments: str) -> Message:
    return Message(role="assistant", content="", calls=(ToolCall(name=name, arguments=arguments),))
