"""An episode as text that a person can follow."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..model.chat.messages import Message, ToolCall
from .trajectory import INFRASTRUCTURE, Trajectory

INDENT = "    "
STYLES = {
    "system": "dim",
    "user": "cyan",
    "assistant": "green",
    "tool": "yellow",
    "end": "bold",
    "failure": "bold red",
    "text": "",
}
"""rich's style of each kind of line that ``episode_lines`` yields."""
_UNPRINTABLE = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")


def format_episode(trajectory: Trajectory, *, max_lines: int = 60) -> str:
    """One episode: who said what, calls with their arguments laid out, the reward and what it is made of.

    Args:
        trajectory: the episode.
        max_lines: of one message; a longer one keeps its head and tail.
    """
    return "\n".join(line for _, line in episode_lines(trajectory, max_lines=max_lines))


def episode_lines(trajectory: Trajectory, *, max_lines: int = 60) -> Iterator[tuple[str, str]]:
    """(kind, line) of ``format_episode``; the kinds are the keys of ``STYLES``."""
    yield "end", f"episode of {trajectory.task_id} ({trajectory.family})"
    turn = 0
    for message in trajectory.messages:
        turn += message.role == "assistant"
        yield "text", ""
        yield message.role, _header(message, turn)
        if message.thinking:
            yield from _block("(thinking) " + message.thinking, max_lines)
        if message.content or not message.calls:
            yield from _block(message.content or "(empty)", max_lines)
        for one in message.attachments:
            yield "text", f"{INDENT}[{one.media_type} {one.name or 'attachment'}, {len(one.data) * 3 // 4} bytes]"
        for call in message.calls:
            yield from _call_lines(call, max_lines)
    yield "text", ""
    yield from _outcome(trajectory)


def _header(message: Message, turn: int) -> str:
    if message.role == "assistant":
        return f"-- assistant, turn {turn}"
    return f"-- tool {message.name}" if message.role == "tool" and message.name else f"-- {message.role}"


def _call_lines(call: ToolCall, max_lines: int) -> Iterator[tuple[str, str]]:
    """A call with short arguments on one line, long ones laid out below it."""
    short = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items())
    if len(short) <= 100 and "\\n" not in short:
        yield "assistant", f"{INDENT}-> {call.name}({short})"
        return
    yield "assistant", f"{INDENT}-> {call.name}"
    for name, value in call.arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if len(text) <= 100 and "\n" not in text:
            yield "text", f"{INDENT}   {name} = {json.dumps(value, ensure_ascii=False)}"
        else:
            yield "text", f"{INDENT}   {name} ="
            yield from _block(text, max_lines, indent=INDENT + "      ")


def _block(text: str, max_lines: int, indent: str = INDENT) -> Iterator[tuple[str, str]]:
    lines = printable(text).splitlines() or [""]
    if len(lines) > max_lines:
        head = (max_lines + 1) // 2
        tail = max_lines - head
        cut = f"[... {len(lines) - max_lines} lines left out ...]"
        lines = [*lines[:head], cut, *(lines[-tail:] if tail else [])]
    for line in lines:
        yield "text", (indent + line).rstrip()


def _outcome(trajectory: Trajectory) -> Iterator[tuple[str, str]]:
    if trajectory.ending in INFRASTRUCTURE:
        yield "failure", f"ended: {trajectory.ending} (the infrastructure failed; the episode has no reward)"
    else:
        verdict = "passed" if trajectory.passed else "not passed"
        yield "end", f"ended: {trajectory.ending}, {verdict}, reward {trajectory.reward:.3g}"
        yield "text", f"reward parts: {_numbers(trajectory.breakdown) or 'none'}"
    if trajectory.detail:
        yield from _labelled("detail: ", trajectory.detail)
    if trajectory.agent:
        branches = len(trajectory.tree.branches()) if trajectory.tree else 1
        told = trajectory.agent
        yield from _labelled("agent: ", f"{told.get('name')}, ended: {told.get('exit')}, branches: {branches}")
    counts = f"turns: {trajectory.num_turns}, format errors: {trajectory.num_format_errors}"
    if trajectory.segments:
        counts += f", sampled tokens: {trajectory.num_sampled}"
    seconds = ", ".join(f"{name} {value:.2f}" for name, value in trajectory.timings.items())
    yield "text", f"{counts}; seconds: {seconds or 'not measured'}"


def _labelled(label: str, text: str) -> Iterator[tuple[str, str]]:
    first, *rest = printable(text).splitlines() or [""]
    yield "text", label + first
    for line in rest:
        yield "text", (INDENT + line).rstrip()


def _numbers(parts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in parts.items())


def printable(text: str) -> str:
    """Control characters, lone surrogates and changes of direction spelled out: what an agent prints must not drive
    the reader's terminal."""
    return _UNPRINTABLE.sub(_spelled, text.replace("\r\n", "\n"))


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
