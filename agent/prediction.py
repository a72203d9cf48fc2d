"""Predicting execution: what writes the next frame of a trace. An engine's tokens, a server's text, or the truth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from ..errors import ChatFormatError, PolicyError
from ..model.chat.protocols import Engine
from ..model.chat.sampling import Sampling
from ..model.chat.trace import (
    END,
    EVENT_TOKENS,
    FRAME,
    Event,
    Frame,
    Trace,
    depths_of,
    frames_of_text,
    to_text,
)
from ..model.chat.trace_tokens import TraceFormat
from .endpoint import Endpoint

FRAME_TOKENS = 2048
Read = TypeVar("Read")


class FramePredictor(Protocol):
    """Writes traces frame by frame. It never runs the program."""

    async def next_frame(self, trace: Trace, *, event: Event | None = None) -> Frame | None:
        """The frame after ``trace.frames``; None where the run is over.

        Args:
            event: what the frame must be, such as "return" to step over a call; None leaves it open.
        Raises:
            PolicyError: it cannot answer, or what it wrote is no frame.
        """
        ...


class EnginePredictor:
    """Samples frames from an engine, in CWM's trace tokens."""

    def __init__(self, engine: Engine, form: TraceFormat, *, sampling: Sampling | None = None) -> None:
        """
        Args:
            sampling: of one frame; None is greedy.
        """
        self._engine, self._format = engine, form
        self._sampling = sampling or Sampling(temperature=0.0, max_tokens=FRAME_TOKENS)

    async def next_frame(self, trace: Trace, *, event: Event | None = None) -> Frame | None:
        given = () if event is None else (self._format.event_id(event),)
        prompt = (*self._format.prompt(trace), *given)
        room = self._engine.max_context - len(prompt)
        if room < 1:
            raise PolicyError(f"the trace has {len(prompt)} tokens, and the engine takes {self._engine.max_context}")
        sampling = replace(self._sampling, max_tokens=min(self._sampling.max_tokens, room))
        completion = await self._engine.generate(prompt, sampling, self._format.stop_token_ids)
        return _checked(lambda: self._format.decode_frame((*given, *completion.token_ids)))

    async def rest(self, trace: Trace, *, max_tokens: int) -> Trace:
        """The whole trace from here on, in one go; ``ended`` where it wrote the end.

        Raises:
            PolicyError: as ``next_frame``.
        """
        prompt = self._format.prompt(trace)
        sampling = replace(self._sampling, max_tokens=min(max_tokens, self._engine.max_context - len(prompt)))
        end = self._format.stop_token_ids[1]
        completion = await self._engine.generate(prompt, sampling, (end,))
        try:
            return self._format.decode((*prompt, *completion.token_ids))
        except ChatFormatError as error:
            raise PolicyError(f"what was predicted is no trace: {error}") from None


class CompletionPredictor:
    """Asks a server for completions of text with reserved tokens spelled out, such as vLLM serving CWM."""

    def __init__(self, base_url: str, model: str, *, temperature: float = 0.0, timeout_s: float = 120.0) -> None:
        """
        Args:
            base_url: up to and including "/v1".
        """
        self._endpoint = Endpoint(base_url, timeout_s=timeout_s)
        self._model, self._temperature = model, temperature

    async def next_frame(self, trace: Trace, *, event: Event | None = None) -> Frame | None:
        given = "" if event is None else EVENT_TOKENS[event]
        body = {
            "model": self._model,
            "prompt": to_text(replace(trace, ended=False)) + given,
            "max_tokens": FRAME_TOKENS,
            "temperature": self._temperature,
            "stop": [FRAME, END],
            # Of vLLM: the trace's tokens are special ones, and the text must hold them; the prompt begins with its own.
            "skip_special_tokens": False,
            "include_stop_str_in_output": True,
            "add_special_tokens": False,
        }
        answer = await self._endpoint.post("/completions", body)
        try:
            text = answer["choices"][0]["text"]
        except (KeyError, IndexError, TypeError) as error:
            url = self._endpoint.url("/completions")
            raise PolicyError(f"{url} gave no completion ({error!r}); is it a completions API?") from None
        if not given and text.lstrip().startswith(END):
            return None
        frames = _checked(lambda: frames_of_text(given + text.removesuffix(END)))
        if len(frames) != 1:
            raise PolicyError(f"what was predicted is not one frame: {text[:80]!r}")
        return frames[0]

    async def aclose(self) -> None:
        await self._endpoint.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class TruePredictor:
    """Says what happened: the frames of a run. A call that is stepped over is skipped to its return."""

    frames: Sequence[Frame]

    async def next_frame(self, trace: Trace, *, event: Event | None = None) -> Frame | None:
        at = true_place(self.frames, trace.frames)
        if event == "return" and trace.frames and trace.frames[-1].event == "call":
            at = end_of_scope(self.frames, at - 1)
        return self.frames[at] if at < len(self.frames) else None


def true_place(true: Sequence[Frame], shown: Sequence[Frame]) -> int:
    """How many frames of the truth lie before what comes after ``shown``, in which some calls were stepped over: a
    call followed by its return stands for everything between."""
    at = 0
    for number, frame in enumerate(shown):
        over = frame.event == "return" and number and shown[number - 1].event == "call"
        at = end_of_scope(true, at - 1) + 1 if over else at + 1
    return at


def end_of_scope(frames: Sequence[Frame], call: int) -> int:
    """The place of the return that closes the scope which the frame at ``call`` opens; the length where none does."""
    depths = depths_of(frames)
    if not 0 <= call < len(frames):
        return len(frames)
    for at in range(call + 1, len(frames)):
        if frames[at].event == "return" and depths[at] == depths[call]:
            return at
    return len(frames)


def _checked(read: Callable[[], Read]) -> Read:
    try:
        return read()
    except ChatFormatError as error:
        raise PolicyError(f"what was predicted is no frame: {error}") from None
