"""``verigym/SWE-CWM-v0``: the SWE environment with the Code World Model's tools, budget lines and rules of format.

Source: arXiv:2510.02387, and github.com/facebookresearch/cwm (``cwm/rl/envs/envs/swerl_tool.py``, ``cwm/rl/swerl``).
What differs: after a deadline the shell keeps its working directory, a truncated episode that had submitted is
graded (there it fails), and any patch that git or patch takes can be submitted (there it must begin with "diff").
"""

import posixpath
import shlex
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...model.chat.actions import Action
from ...model.chat.encoding import from_bytes
from ...model.chat.messages import Message, ToolCall
from ...rewards.patches import is_patch
from ...rewards.score import Score
from ..datasets.swe import row_of
from ..sandbox.background import on_thread
from ..task import Task
from ..tools.bounds import bounded
from ..tools.files import num_lines, view_lines
from ..tools.spec import ToolError, tool
from .env import SWEEnv
from .grading import zero

TURNS, TOKENS, COMMAND_S, SANDBOX_S = 128, 131_072, 120.0, 2_400.0
SNIPPET_LINES = 8
MAX_PATCH_BYTES = 16 << 20
"""As for the difference that ``verigym/SWE-v0`` hands in."""
MAX_SHOWN_CHARS = 32_768
"""Of a patch, in the answer to its submission."""
BYTES_A_TOKEN = 4
"""Guess for text whose tokens nobody has counted."""


@dataclass(frozen=True, slots=True)
class _Failed:
    """The submission of an episode that ended by the rules without one."""

    why: str


class CwmSWEEnv(SWEEnv):
    """One tool call a turn. ``submit`` names a patch file and may be called again; a closing message without a call
    ends the episode, and the last submission is graded.

    Strict: a turn without exactly one call, or a closing message without a heading ("##") or before a submission,
    ends the episode with 0. Lenient: it is answered, and the episode goes on.
    """

    view = None  # type: ignore[assignment]

    def __init__(
        self,
        *,
        strict: bool = True,
        budget_turns: int = TURNS,
        budget_tokens: int = TOKENS,
        command_s: float = COMMAND_S,
        sandbox_s: float = SANDBOX_S,
        **options: Any,
    ) -> None:
        """
        Args:
            strict: the rules of format; see above.
            budget_turns, budget_tokens: what the budget lines count down; turns also end the episode.
            command_s: seconds of one command.
            sandbox_s: seconds of a sandbox; the first turn after them ends the episode.
            options: as for SWEEnv.
        """
        options.setdefault("max_turns", budget_turns)
        super().__init__(**options)
        self._strict, self._budget_turns, self._budget_tokens = strict, budget_turns, budget_tokens
        self._command_s, self._sandbox_s = command_s, sandbox_s
        self.submitted: str | None = None
        """The last patch that ``submit`` took."""
        self._since = 0.0
        self._shell_at: str | None = None

    def prompt(self, task: Task) -> str:
        root = self._row.root if self._row is not None else "the working directory"
        return (
            f"Resolve this issue in the repository at {root}, where the shell has started:\n\n"
            f"<issue_description>\n{task.prompt}\n</issue_description>\n\n"
            "Write your changes to a file in git's diff format and hand its path to submit; you may submit again. Then "
            "close with a message that calls no tool and sums the work up under Markdown headings (##).\n\n"
            f"There are {self._budget_turns} turns, {self._budget_tokens} tokens of context and {self._command_s:g} "
            "seconds for each command. Call exactly one tool a turn until you have submitted."
        )

    async def start(self, task: Task) -> None:
        self.submitted = self._shell_at = None
        await super().start(task)
        self._since = time.monotonic()

    async def score(self, task: Task, submission: Any) -> Score:
        await self.stop()
        if isinstance(submission, _Failed):
            return zero(submission.why)
        return await self.score_patch(task, submission)

    def unfinished(self, task: Task) -> str | None:
        return self.submitted

    def gold(self, task: Task) -> Sequence[Message]:
        """Write the gold patch, submit it, close."""
        return self._script(row_of(task).patch)

    def empty(self, task: Task) -> Sequence[Message]:
        return self._script("diff\n")

    def _script(self, patch: str) -> list[Message]:
        end = f"END_{uuid.uuid5(uuid.NAMESPACE_OID, patch).hex[:8]}"
        text = patch if patch.endswith("\n") else f"{patch}\n"
        return [
            _call("bash", command=f"cat > /tmp/submission.patch <<'{end}'\n{text}{end}"),
            _call("submit", result="/tmp/submission.patch"),
            Message(role="assistant", content="## Summary\n\nThe patch is submitted."),
        ]

    async def _act(self, action: Action) -> tuple[list[Message], Any, Literal["submitted", "answered"] | None]:
        if time.monotonic() - self._since > self._sandbox_s:
            return [], self._last_or(f"the sandbox's {self._sandbox_s:g} seconds are over"), "answered"
        if action.format_error is None and len(action.calls) == 1:
            answers, submission, ending = await super()._act(action)
            return [self._framed(answer) for answer in answers], submission, ending
        if action.format_error is not None:
            problem = action.format_error
        elif action.calls:
            problem = f"{len(action.calls)} tools are called; call exactly one"
        elif self.submitted is None:
            problem = "no tool is called, and nothing was submitted yet"
        elif self._strict and "##" not in (action.final or ""):
            problem = "the closing message has no heading (##)"
        else:
            self._transcript.append(Message(role="assistant", content=action.final or ""))
            return [], self.submitted, "answered"
        if self._strict:
            return [], _Failed(f"format error: {problem}"), "answered"
        return [Message(role="user", content=f"format error: {problem}")], None, None

    def _last_or(self, why: str) -> Any:
        return self.submitted if self.submitted is not None else _Failed(why)

    def _framed(self, answer: Message) -> Message:
        text = f"<output>\n{answer.content}\n</output>"
        used = self.context_tokens
        if used is None:
            said = [m.content for m in self._transcript]
            said += [str(value) for m in self._transcript for one in m.calls for value in one.arguments.values()]
            used = sum(len(text.encode(errors="replace")) for text in said) // BYTES_A_TOKEN
        left = max(0, self._budget_tokens - used - len(text.encode(errors="replace")) // BYTES_A_TOKEN)
        turns = max(0, self._budget_turns - self._num_turns)
        budget = f"<budget>\n* Remaining turns: {turns}\n* Remaining tokens: {left}\n</budget>"
        return Message(role="tool", name=answer.name, call_id=answer.call_id, content=f"{text}\n\n{budget}")

    @tool
    async def bash(self, command: str) -> str:
        """Run one or more lines of bash, none of them interactive, in the session's shell. Directory, variables,
        functions and jobs stay for the next call. The answer is stdout and stderr as they came, at most 32768 bytes: of
        more, the beginning and the end. What a background job prints after the command has ended is lost. When a
        command's time is over everything that runs is ended, and a new shell starts with the directory and the exported
        variables.

        Args:
            command: the lines.
        """
        result = await self._box.aexec(command, timeout_s=self._command_s)
        self._shell_at = result.cwd or self._shell_at
        if not result.killed:
            return result.output
        return (
            f"{result.output}\nThe command was ended ({result.killed}) after {result.duration_s:.0f} seconds.".lstrip()
        )

    @tool
    async def edit(self, path: str, search: str, replace: str) -> str:
        """Replace whole consecutive lines of a text file, which must stand in it exactly once, blanks included. The
        lines around are shown. Line ends, mode and owner of the file stay as they are. Characters that nobody sees are
        shown, and may be written, as <U+000C>.

        Args:
            path: of the file; a relative one begins at the repository's root, wherever the shell is.
            search: the lines as they are.
            replace: the lines as they shall be; nothing deletes them.
        """
        edited = await self._edit(path, search, replace)
        lines = num_lines(edited.text)
        if not lines:
            return f"{path} is empty"
        first = max(1, min(edited.line, lines) - SNIPPET_LINES)
        last = min(lines, edited.line + SNIPPET_LINES + replace.count("\n"))
        shown = await on_thread(view_lines, edited.text, path, first, last)
        return f"{path} is changed at line {edited.line}:\n{shown}"

    @tool
    async def create(self, path: str, content: str) -> str:
        """Write a new file into a folder that exists.

        Args:
            path: of the file, which must not exist; a relative one begins at the repository's root, wherever the
                shell is.
            content: all of it.
        """
        folder = posixpath.dirname(self._inside(path))
        result = await self._box.arun(["test", "-d", folder])
        if result.exit_code != 0:
            raise ToolError(f"the folder {folder} does not exist")
        await self._create(path, content)
        return f"{path} is written ({num_lines(content)} lines)"

    @tool
    async def submit(self, result: str) -> str:
        """Mark a patch file as your submission. The answer shows it, of a long one the beginning and the end.

        Args:
            result: path of a patch, as git diff writes it; a relative one begins where the shell is.
        """
        assert self._row is not None
        path, cwd = result.strip(), self._shell_at or self._row.root
        try:
            place = posixpath.normpath(posixpath.join(cwd, path))
            data = await self._box.read_file(place, most_bytes=MAX_PATCH_BYTES + 1)
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror or error}; nothing was submitted") from None
        if len(data) > MAX_PATCH_BYTES:
            raise ToolError(f"{shlex.quote(path)} is too large: a patch at most {MAX_PATCH_BYTES} bytes")
        text = from_bytes(data)
        if not is_patch(text):
            raise ToolError(
                f"{shlex.quote(path)} holds no change that git apply or patch would take; write it with git diff"
            )
        self.submitted = text
        shown = bounded(text, MAX_SHOWN_CHARS)
        return f"This patch is submitted:\n\n<submission>\n{shown}\n</submission>\n\nCheck it; you can submit another."


def _call(name: str, **arguments: str) -> Message:
    return Message(role="assistant", content="", calls=(ToolCall(name=name, arguments=arguments),))
