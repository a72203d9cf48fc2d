"""A debugger that never runs the program: a session of predicted frames and, where the truth is known, their errors."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from ..errors import PolicyError
from ..model.chat.trace import START_MARKER, UNCHANGED, Event, Frame, Trace, depths_of, unfold
from .prediction import FramePredictor, true_place

MAX_FRAMES = 1000
"""Frames that one command may predict."""


@dataclass(slots=True)
class Session:
    """A run as it is predicted, frame by frame.

    Attributes:
        trace: context, and the frames predicted so far.
        predictor: writes the next frame.
        true: the frames of the real run, to compare with; None: nobody knows.
        skip: step over a call by having its return predicted at once, as CWM's demo does; else the frames of the
            call are predicted too, and not shown.
    """

    trace: Trace
    predictor: FramePredictor
    true: Sequence[Frame] | None = None
    skip: bool = False
    _stops: list[int] = field(default_factory=list)

    @property
    def frames(self) -> tuple[Frame, ...]:
        return self.trace.frames

    @property
    def over(self) -> bool:
        return self.trace.ended

    async def start(self) -> None:
        """Predict the frame that enters the program, anew."""
        self.trace = Trace(context=self.trace.context, frames=(), ended=False)
        self._stops = []
        await self._advance(event="call")

    async def step(self) -> None:
        """One frame, into calls."""
        await self._remembering(self._advance)

    async def next(self) -> None:
        """To the next frame of this scope, or of the one it was called from."""

        async def go() -> None:
            scope = self.depth - (self.frames[-1].event == "return")
            await self._advance()
            while not self.over and self.depth > scope:
                await self._leave(self.depth)
                await self._advance()

        await self._remembering(go)

    async def out(self) -> None:
        """To the frame after the one that leaves this scope."""

        async def go() -> None:
            await self._leave(self.depth)
            await self._advance()

        await self._remembering(go)

    async def finish(self) -> None:
        """To the end of the run."""

        async def go() -> None:
            while not self.over:
                await self._advance()

        await self._remembering(go)

    def back(self) -> bool:
        """Undo the last command; False where there is none."""
        if not self._stops:
            return False
        self._cut(self._stops.pop())
        return True

    def take_truth(self) -> bool:
        """Put the true frame in the place of the last one; False where it is unknown, or the run is over there."""
        if self.true is None or not self.frames:
            return False
        at = true_place(self.true, self.frames[:-1])
        if at >= len(self.true):
            return False
        self.trace = Trace(context=self.trace.context, frames=(*self.frames[:-1], self.true[at]), ended=False)
        return True

    @property
    def depth(self) -> int:
        """Open scopes in the last frame."""
        depths = depths_of(self.frames)
        return depths[-1] if depths else 0

    def stack(self) -> list[str]:
        """The call frames' lines of the open scopes, outermost first."""
        found: list[str] = []
        for number, frame in enumerate(self.frames):
            if frame.event == "call":
                found.append(frame.source.strip())
            elif frame.event == "return" and found and number < len(self.frames) - 1:
                found.pop()
        return found

    def values(self) -> dict[str, str]:
        """The locals of the last frame's scope, unchanged ones looked up."""
        known = unfold(self.frames)
        return known[-1] if known else {}

    def objection(self) -> list[str]:
        """What is wrong with the last frame, part by part; [] where it is right, or the truth is unknown."""
        if self.true is None:
            return []
        at = true_place(self.true, self.frames if self.over else self.frames[:-1])
        if self.over:
            return [] if at >= len(self.true) else [f"the run is not over: {self.true[at].source.strip()} comes next"]
        if at >= len(self.true):
            return ["the run is over"]
        return differences(self.frames[-1], self.values(), self.true, at)

    async def _leave(self, depth: int) -> None:
        """To the frame that leaves the scope at this depth."""
        if self.skip and self.frames[-1].event == "call" and self.depth == depth:
            await self._advance(event="return")
            return
        while not self.over and not (self.frames[-1].event == "return" and self.depth == depth):
            await self._advance()

    async def _advance(self, event: Event | None = None) -> None:
        if self.over:
            return
        if len(self.frames) - (self._stops[-1] if self._stops else 0) >= MAX_FRAMES:
            raise PolicyError(f"{MAX_FRAMES} frames were predicted and the command has not come to its end")
        frame = await self.predictor.next_frame(self.trace, event=event)
        frames = self.frames if frame is None else (*self.frames, frame)
        self.trace = Trace(context=self.trace.context, frames=frames, ended=frame is None)

    async def _remembering(self, go: Callable[[], Awaitable[None]]) -> None:
        """Run a command so that ``back`` undoes it, also one that failed half way."""
        if self.over:
            return
        self._stops.append(len(self.frames))
        try:
            await go()
        except PolicyError:
            if len(self.frames) == self._stops[-1]:
                self._stops.pop()
            raise

    def _cut(self, length: int) -> None:
        self.trace = Trace(context=self.trace.context, frames=self.frames[:length], ended=False)


def differences(frame: Frame, values: dict[str, str], true: Sequence[Frame], at: int) -> list[str]:
    """How a frame with these values differs from the true one, in words."""
    other = true[at]
    if frame.event != other.event:
        return [f"it is a {other.event} of {other.source.strip()}"]
    found = []
    if frame.source.strip() != other.source.strip():
        found.append(f"the line is {other.source.strip()}")
    if frame.event in ("return", "exception"):
        if frame.value != other.value:
            found.append(f"the value is {other.value}")
        return found
    known = unfold(true[: at + 1])[-1]
    names = [*known, *(name for name in values if name not in known)]
    wrong = [name for name in names if values.get(name) != known.get(name)]
    return found + [f"{name} is {known[name]}" if name in known else f"there is no {name}" for name in wrong]


def line_of(context: str, frames: Sequence[Frame]) -> int | None:
    """The number of the last frame's line in the context, from 1; None where no line is like it.

    A frame has no number. Of several equal lines the nearest to the last one of the same scope is taken, forward first.
    """
    lines = [line.replace(START_MARKER, "").strip() for line in context.split("\n")]
    scopes: list[int] = []
    at: int | None = None
    for frame in frames:
        near = scopes[-1] if scopes and frame.event != "call" else 0
        same = [number for number, line in enumerate(lines, 1) if line == frame.source.strip() and line]
        at = min(same, key=lambda number: (abs(number - near), number < near)) if same else None
        if frame.event == "call":
            scopes.append(at or 1)
        elif scopes:
            scopes[-1] = at or scopes[-1]
        if frame.event == "return" and len(scopes) > 1:
            scopes.pop()
    return at


def changed(frames: Sequence[Frame]) -> set[str]:
    """Names whose value the last frame states, rather than leaves unchanged."""
    return {name for name, text in frames[-1].locals.items() if text != UNCHANGED} if frames else set()
