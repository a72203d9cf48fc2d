"""``verigym/SWE-v0``: mend a repository so that hidden tests pass."""

import hashlib
import posixpath
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ...errors import SandboxError
from ...model.chat.encoding import to_bytes
from ...model.chat.messages import Message, ToolCall
from ...rewards.patch_rubrics import swe_rubric
from ...rewards.score import Score
from ...rewards.swe import TestReport, found_ids
from ..core import Submission, ToolEnv
from ..datasets.swe import SWERow, require_repository, require_tests, row_of
from ..datasets.swe_examples import example_tasks
from ..sandbox.background import on_thread
from ..sandbox.network.attach import granted, networked
from ..sandbox.network.policy import NetworkPolicy
from ..sandbox.types import Limits, Sandbox, SandboxBackend
from ..task import Task
from ..tools.files import MAX_FILE_BYTES, Edited, decode, edit_lines, view_lines
from ..tools.spec import ToolError, tool
from .checkout import backend_for, base_of, environment_of, open_workspace, placed, shell_env
from .grading import TEST_TIMEOUT_S, grade_patch, zero
from .tracebacks import feedback_of
from .trust import Untrusted
from .verdicts import Verdicts
from .worktree import Unusable, diff_of

_VERDICTS: Verdicts[tuple[Score, dict[str, str], str]] = Verdicts(most=10_000)
SHOWN_CHARS, SHOWN_TESTS = 200_000, 2_000
"""Most of a patch, and most tests, that are kept to look at."""


class SWEEnv(ToolEnv):
    """The repository lies in the sandbox's working directory at its base commit; git holds its ancestors and no more.

    What is handed in, by ``submit`` or by a final message, is the difference between the work tree and the base
    commit; hidden tests run on it in a fresh sandbox of the same backend. The reward is 1 if all of them pass.
    """

    family: ClassVar[str] = "swe"
    hook_timeout_s = None  # its sandboxes have limits of their own, and wait their turn

    def __init__(
        self,
        *,
        sandbox: str | SandboxBackend = "auto",
        reuse_verdicts: bool = False,
        limits: Limits | None = None,
        test_timeout_s: float = TEST_TIMEOUT_S,
        untrusted: Untrusted = "fail",
        rubric: str = "tests",
        network: Mapping[str, Any] | NetworkPolicy | None = None,
        tasks: Sequence[Task] | None = None,
        max_turns: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        """
        Args:
            sandbox: the backend, or its name ("local", "docker", "unsafe"); "auto" takes Docker for rows with an
                image, else local.
            reuse_verdicts: grade a patch of a task once a process, also where samples hand it in at the same time.
                Grading is deterministic for validated tasks.
            limits: of the sandboxes; None takes the defaults.
            test_timeout_s: wall-clock seconds of one run of the hidden tests; an episode whose work takes longer ends
                with "test_timeout" and 0.
            untrusted: what a patch earns whose tests all pass while no twin can be made of some that decide
                (``trust.believed``): "fail" 0, "accept" 1, "drop" nothing: the sample is left out like one whose
                grading failed. The score's ``detail`` begins with "not trusted" in each case.
            rubric: what a patch earns, by name (``rewards.patch_rubrics.SWE_RUBRICS``).
            network: what tasks may be given of what they ask for under "network" (``NetworkPolicy.parse``); None:
                nothing. The hidden tests run without network whatever it says.
            tasks, max_turns, render_mode: as for every ToolEnv.
        """
        super().__init__(tasks=tasks, max_turns=max_turns, render_mode=render_mode)
        self._choice = sandbox if isinstance(sandbox, str) else "auto"
        self._backend = None if isinstance(sandbox, str) else sandbox
        self._rubric, self._network = swe_rubric(rubric), NetworkPolicy.parse(network)
        self._reuse_verdicts, self._limits, self._test_timeout_s = reuse_verdicts, limits or Limits(), test_timeout_s
        self._untrusted: Untrusted = untrusted
        self._sandbox: Sandbox | None = None
        self._row: SWERow | None = None
        self._told = ""
        """Tracebacks of the hidden tests that failed in the last episode."""
        self._used = self._backend

    def load(self) -> Sequence[Task]:
        return example_tasks()

    def check(self, task: Task) -> None:
        row = row_of(task)
        require_tests(row)
        require_repository(row)

    async def start(self, task: Task) -> None:
        self.patch, self._told = None, ""
        backend = self._backend or await on_thread(backend_for, row_of(task), self._choice)
        row = placed(row_of(task), backend)
        policy = granted(self._network, backend, task.id, **row.network)
        env = shell_env(row, await environment_of(row))
        sandbox = await open_workspace(backend, row, limits=self._limits, env=env)
        self._sandbox = await networked(sandbox, policy, task_id=task.id)
        self._row, self._used = row, backend

    async def stop(self) -> None:
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            await sandbox.aclose()

    async def score(self, task: Task, submission: Any) -> Score:
        """Grade the work tree; a final message's text is not looked at."""
        try:
            patch = await self.work()
        except Unusable as error:
            return zero(str(error))
        finally:
            await self.stop()
        if patch is None:
            return zero("the difference from the base commit is larger than 16 MiB")
        return await self.score_patch(task, patch)

    async def work(self) -> str | None:
        """What the work tree differs in from base, as a patch; None where that is larger than 16 MiB.

        Raises:
            Unusable: what the agent left cannot be compared.
        """
        assert self._row is not None
        base = await on_thread(base_of, self._row)
        return await diff_of(self._box, base, root=self._row.root, disk_mib=self._limits.disk_mib)

    async def score_patch(self, task: Task, patch: str) -> Score:
        """Grade a patch of the task by the environment's rubric, in fresh sandboxes."""
        self.patch = patch
        self.evidence["patch"] = patch[:SHOWN_CHARS]
        gold = row_of(task).patch
        if not self._rubric.needs_tests:
            return self._rubric.judge(None, patch, gold)
        if self._reuse_verdicts:
            settings = f"{self._untrusted} {self._limits} {self._test_timeout_s} {task.hidden.get('archive')}"
            key = (task.id, settings, hashlib.sha256(to_bytes(patch)).hexdigest())
            tests, outcomes, self._told = await _VERDICTS.once(key, lambda: self._verdict(task, patch))
        else:
            tests, outcomes, self._told = await self._verdict(task, patch)
        self.evidence["tests"] = outcomes
        return self._rubric.judge(tests, patch, gold)

    def feedback(self, task: Task, score: Score) -> str | None:
        """The tracebacks of the hidden tests that decide and failed."""
        return self._told or None

    async def _verdict(self, task: Task, patch: str) -> tuple[Score, dict[str, str], str]:
        """(what the hidden tests say, outcomes of those that decide, tracebacks of those that failed)."""
        backend = self._used or await on_thread(backend_for, row_of(task), self._choice)
        tests, report = await grade_patch(
            backend, task, patch, timeout_s=self._test_timeout_s, limits=self._limits, untrusted=self._untrusted
        )
        named = _deciding(row_of(task), report)
        outcomes = {test: report.statuses.get(test, "not run") for test in named[:SHOWN_TESTS]}
        return tests, outcomes, feedback_of(report, named)

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
        """Run a command in a bash that lasts: directory, variables, functions and jobs stay for the next one. stdin is
        empty. The answer is stdout and stderr as they came, at most 32768 bytes: of more, the beginning and the end.
        A last line tells a status other than 0, [exit code 1], or that everything that ran was killed, [killed:
        timeout]; then, and after `exit`, a new shell starts with the directory and the exported variables. What a
        background job prints after the command has ended is lost; let it write to a file.

        Args:
            command: one or more lines for bash.
        """
        return (await self._box.aexec(command)).shown

    @tool
    async def view(self, path: str, start: int = 1, end: int = 0) -> str:
        """Show lines of a text file with their numbers, those of `grep -n`: at most 200 lines and 30000 characters; a
        last line tells which are not shown. Of a line of more than 2000 characters the beginning and the end are shown.
        Characters that nobody sees are shown as <U+000C>.

        Args:
            path: of the file; a relative one begins at the repository's root, wherever the shell is.
            start: first line.
            end: last line; 0 is the end of the file.
        """
        data = await self._read(path)
        return await on_thread(lambda: view_lines(decode(data, path), path, start, end))

    @tool
    async def edit(self, path: str, search: str, replace: str) -> str:
        """Replace whole lines of a text file; they must stand in it exactly once, blanks included. Line ends, mode and
        owner of the file stay as they are. What view shows as <U+000C> may be written so.

        Args:
            path: of the file; a relative one begins at the repository's root, wherever the shell is.
            search: the lines as they are.
            replace: the lines as they shall be; nothing deletes them.
        """
        await self._edit(path, search, replace)
        return f"edited {path}"

    @tool
    async def create(self, path: str, content: str) -> str:
        """Write a new file, and the folders that it needs.

        Args:
            path: of the file, which must not exist; a relative one begins at the repository's root, wherever the
                shell is.
            content: all of it.
        """
        await self._create(path, content)
        return f"created {path}"

    @tool
    async def submit(self) -> Submission:
        """Hand in the repository as it is now."""
        return Submission(value=None)

    @property
    def sandbox(self) -> Sandbox:
        """Where the episode's work is done, for an agent that brings tools of its own. Raises SandboxError between
        episodes."""
        return self._box

    @property
    def _box(self) -> Sandbox:
        if self._sandbox is None:
            raise SandboxError("the episode has no sandbox; reset() makes one")
        return self._sandbox

    def _inside(self, path: str) -> str:
        if not path or "\0" in path:
            raise ToolError("path is empty" if not path else "path holds a NUL character")
        assert self._row is not None
        return posixpath.normpath(posixpath.join(self._row.root, path))

    async def _read(self, path: str) -> bytes:
        try:
            return await self._box.read_file(self._inside(path), most_bytes=MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            raise ToolError(f"{path}: no such file") from None
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror or error}") from None

    async def _edit(self, path: str, search: str, replace: str) -> Edited:
        """Edit a file and tell what has become of it."""
        data = await self._read(path)
        # Nothing here takes long, but all that depends on what a policy wrote is kept off the loop.
        edited = await on_thread(lambda: edit_lines(decode(data, path), search, replace, path))
        await self._write(path, edited.text, new=False)
        return edited

    async def _create(self, path: str, content: str) -> None:
        if path.endswith("/"):
            raise ToolError(f"{path} names a folder; give the path of a file")
        await self._write(path, content, new=True)

    async def _write(self, path: str, text: str, *, new: bool) -> None:
        mode = 0o644 if new else None
        try:
            await self._box.write_file(self._inside(path), to_bytes(text), mode=mode, new=new)
        except FileExistsError:
            raise ToolError(f"{path} exists; use edit") from None
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror or error}") from None


def _call(name: str, **arguments: str) -> Message:
    return Message(role="assistant", content="", calls=(ToolCall(name=name, arguments=arguments),))


def _deciding(row: SWERow, report: TestReport) -> tuple[str, ...]:
    """The tests that decide, as the report names them."""
    return found_ids(report.statuses, (*row.FAIL_TO_PASS, *row.PASS_TO_PASS))
