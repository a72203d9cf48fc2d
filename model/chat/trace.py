"""Execution traces as CWM writes them: frames of a program's run, as text, and exactly back (``trace_tokens``: tokens).

    <|begin_of_text|><|trace_context_start|>CONTEXT<|frame_sep|>
    <|call_sep|>LOCALS<|action_sep|>SOURCE<|frame_sep|>
    <|line_sep|>LOCALS<|action_sep|>SOURCE<|frame_sep|>
    <|return_sep|><|action_sep|>SOURCE<|arg_sep|>VALUE<|frame_sep|>
    <|exception_sep|><|action_sep|>SOURCE<|arg_sep|>VALUE<|frame_sep|>
    <|end_of_text|>

without the line breaks between frames. CONTEXT is source code in which a comment marks where the trace begins.
LOCALS is a JSON object of strings, ".." standing for a value that has not changed since the last frame of the same
scope. SOURCE is a line of the program with its indentation and line break. VALUE is a JSON string.

Source: PROMPTING_GUIDE.md and demos/cwmdbg.py of facebookresearch/cwm; arXiv:2510.02387. One thing is ours: a scope
that an exception leaves has a return frame whose VALUE is null, because the guide leaves open how such a scope ends.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ...errors import ChatFormatError
from .cwm import BEGIN

END = "<|end_of_text|>"
CONTEXT, FRAME, ACTION, ARGUMENT = "<|trace_context_start|>", "<|frame_sep|>", "<|action_sep|>", "<|arg_sep|>"
Event = Literal["call", "line", "return", "exception"]
EVENTS: tuple[Event, ...] = get_args(Event)
EVENT_TOKENS: dict[Event, str] = {event: f"<|{event}_sep|>" for event in EVENTS}
RESERVED = (BEGIN, END, CONTEXT, FRAME, ACTION, ARGUMENT, *EVENT_TOKENS.values())
UNCHANGED = ".."
START_MARKER = "  # << START_OF_TRACE"

_TOKEN = re.compile("|".join(map(re.escape, RESERVED)))
Piece = tuple[str, str]
"""(name of a reserved token, the text after it up to the next one)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One step of a run: what was seen, and the line that is next.

    Attributes:
        event: "call" enters a scope, "line" is about to run a line, "return" leaves a scope (a generator's yield,
            too), "exception" is an exception that reached the line.
        source: the line, with indentation and line break.
        locals: of call and line: name -> text of the value, or ``UNCHANGED``.
        value: of return and exception: text of what was returned or raised; None in a return frame: the scope was
            left by an exception.
    """

    event: Event
    source: str
    locals: Mapping[str, str] = field(default_factory=dict)
    value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A run of a program.

    Attributes:
        context: source code, with the marker.
        frames: in their order.
        ended: whether the scope in which the trace began was left; False where the trace was cut.
    """

    context: str
    frames: tuple[Frame, ...]
    ended: bool = True


def to_text(trace: Trace) -> str:
    """A trace with reserved tokens spelled out.

    Raises:
        ChatFormatError: source code spells a reserved token, so that text could not be read back; tokens can.
    """
    pieces = list(pieces_of(trace))
    for _name, text in pieces:
        if _TOKEN.search(text):
            raise ChatFormatError(f"{text[:80]!r} spells a reserved token; as text it would be read as one, use tokens")
    return "".join(name + text for name, text in pieces)


def from_text(text: str) -> Trace:
    """Inverse of ``to_text``.

    Raises:
        ChatFormatError: it is no trace; the message says where.
    """
    return trace_of(split_text(text))


def frame_text(frame: Frame) -> str:
    """One frame as text, ``FRAME`` at its end. Raises ChatFormatError as ``to_text``."""
    return to_text(Trace(context="", frames=(frame,), ended=False)).removeprefix(BEGIN + CONTEXT + FRAME)


def frames_of_text(text: str) -> tuple[Frame, ...]:
    """The frames that a text holds, such as an answer of a model; what stands before the first is left out.

    Raises:
        ChatFormatError: a frame that is none.
    """
    found = _TOKEN.search(text)
    if found is None:
        return ()
    pieces = [piece for piece in split_text(text[found.start() :]) if piece[0] not in (BEGIN, END)]
    if pieces and pieces[0][0] == CONTEXT:
        pieces = pieces[1:]
    return frames_of([piece for piece in pieces if piece != (FRAME, "")])


def split_text(text: str) -> list[Piece]:
    found = list(_TOKEN.finditer(text))
    if text and (not found or found[0].start()):
        raise ChatFormatError(f"a trace begins with a reserved token, not with {text[:40]!r}")
    ends = [match.start() for match in found[1:]] + [len(text)]
    return [(match.group(), text[match.end() : end]) for match, end in zip(found, ends)]


def texts_of_trace(trace: Trace) -> list[str]:
    """The texts between reserved tokens, which a tokenizer meets."""
    return [text for _, text in pieces_of(trace) if text]


def depths_of(frames: Sequence[Frame]) -> list[int]:
    """How many scopes, the first included, are open in each frame; 1 in the frame that opens the first."""
    depths, depth = [], 0
    for frame in frames:
        depth += frame.event == "call"
        depths.append(depth)
        depth -= frame.event == "return"
    return depths


def unfold(frames: Sequence[Frame]) -> list[dict[str, str]]:
    """The values of the locals in each frame, every ``UNCHANGED`` replaced by what it stands for.

    A return or exception frame has those of its scope's last frame. A value that a predicted trace never stated stays
    ``UNCHANGED``.
    """
    scopes: list[dict[str, str]] = []
    known: list[dict[str, str]] = []
    for frame in frames:
        if frame.event == "call":
            scopes.append({})
        if not scopes:
            scopes.append({})
        if frame.event in ("call", "line"):
            before = scopes[-1]
            scopes[-1] = {
                name: before.get(name, UNCHANGED) if text == UNCHANGED else text for name, text in frame.locals.items()
            }
        known.append(dict(scopes[-1]))
        if frame.event == "return" and len(scopes) > 1:
            scopes.pop()
    return known


def pieces_of(trace: Trace) -> Iterator[Piece]:
    yield BEGIN, ""
    yield CONTEXT, trace.context
    yield FRAME, ""
    for frame in trace.frames:
        if frame.event in ("call", "line"):
            yield EVENT_TOKENS[frame.event], _json(dict(frame.locals))
            yield ACTION, frame.source
        else:
            yield EVENT_TOKENS[frame.event], ""
            yield ACTION, frame.source
            yield ARGUMENT, _json(frame.value)
        yield FRAME, ""
    if trace.ended:
        yield END, ""


def _json(value: Any) -> str:
    # "<" of a spelled token is escaped: JSON reads it back, and it can be taken for no token.
    return json.dumps(value).replace("<|", "\\u003c|")


def trace_of(pieces: Sequence[Piece]) -> Trace:
    if [name for name, _ in pieces[:3]] != [BEGIN, CONTEXT, FRAME] or pieces[0][1] or pieces[2][1]:
        raise ChatFormatError(f"a trace begins with {BEGIN}{CONTEXT}, its context and {FRAME}")
    ended = pieces[-1] == (END, "")
    body = pieces[3 : len(pieces) - ended]
    if body and body[-1] != (FRAME, ""):
        raise ChatFormatError(f"the last frame of the trace is not closed with {FRAME}")
    return Trace(context=pieces[1][1], frames=frames_of([one for one in body if one != (FRAME, "")]), ended=ended)


def frames_of(pieces: Sequence[Piece]) -> tuple[Frame, ...]:
    frames = []
    names: dict[str, Event] = {token: event for event, token in EVENT_TOKENS.items()}
    at = 0
    while at < len(pieces):
        name, text = pieces[at]
        if name not in names:
            raise ChatFormatError(f"frame {len(frames)} begins with {name}; an event is expected")
        event = names[name]
        length = 2 if event in ("call", "line") else 3
        got = pieces[at + 1 : at + length]
        if [one for one, _ in got] != [ACTION, ARGUMENT][: length - 1]:
            raise ChatFormatError(f"frame {len(frames)} ({event}) is not {name}, {ACTION} and what belongs to them")
        if length == 2:
            frames.append(Frame(event=event, source=got[0][1], locals=_locals(text, len(frames))))
        elif text:
            raise ChatFormatError(f"frame {len(frames)} ({event}) has {text[:40]!r} where nothing is expected")
        else:
            frames.append(Frame(event=event, source=got[0][1], value=_value(got[1][1], len(frames))))
        at += length
    return tuple(frames)


def _locals(text: str, number: int) -> dict[str, str]:
    found = _loads(text, number)
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ChatFormatError(f"frame {number}: locals are a JSON object of strings, not {text[:60]!r}")
    return found


def _value(text: str, number: int) -> str | None:
    found = _loads(text, number)
    if found is not None and not isinstance(found, str):
        raise ChatFormatError(f"frame {number}: a value is a JSON string or null, not {text[:60]!r}")
    return found


def _loads(text: str, number: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ChatFormatError(f"frame {number}: {text[:60]!r} is not JSON ({error})") from None
