"""A turn while it is sampled: read by whoever asks for it, kept for who asks again."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from contextvars import Context
from dataclasses import replace
from typing import Any

from ...model.chat.messages import ToolSpec
from ...model.chat.turns import Delta
from ..policy import Turn
from .asked import Answered
from .branches import Place


class Drawing:
    """One draw. It goes on when its reader leaves: the same request, sent again, gets the same turn.

    Attributes:
        place: the message that it answers.
        tools: that it was offered.
        turn: what was sampled, once it is there.
        said: its place among the messages, once it is there.
        delivered: whether some reader has had all of it.
        num_readers: that are reading, or about to; whoever made it is one.
    """

    def __init__(self, place: Place, *, one_call: bool, tools: tuple[ToolSpec, ...] = ()) -> None:
        self.id, self.created = uuid.uuid4().hex, int(time.time())
        self.place, self.tools, self._one_call = place, tools, one_call
        self.turn: Turn | None = None
        self.said: Place | None = None
        self.delivered, self.num_readers = False, 1
        self.answered: Answered | None = None
        self._deltas: list[Delta] = []
        self._failure: BaseException | None = None
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_done(self) -> bool:
        return self.answered is not None or self._failure is not None

    @property
    def failed(self) -> bool:
        return self._failure is not None

    def begin(self, work: Coroutine[Any, Any, None], context: Context) -> None:
        """Let it run, whoever reads."""
        self._task = asyncio.get_running_loop().create_task(work, context=context)

    def push(self, delta: Delta) -> None:
        self._deltas.append(delta)
        self._tell()

    def end(self, turn: Turn) -> Answered:
        """It is sampled. Returns it as it is told: its calls have ids."""
        calls = turn.message.calls[:1] if self._one_call else turn.message.calls
        named = tuple(replace(call, id=call.id or f"call_{uuid.uuid4().hex[:24]}") for call in calls)
        tokens = turn.tokens
        self.turn = turn
        self.answered = Answered(
            id=self.id,
            created=self.created,
            message=replace(turn.message, calls=named),
            finish_reason=turn.finish_reason,
            num_prompt=0 if tokens is None else len(tokens.prompt_ids),
            num_sampled=0 if tokens is None else len(tokens.token_ids),
        )
        self._tell()
        return self.answered

    def fail(self, error: BaseException) -> None:
        self._failure = error
        self._tell()

    async def read(self) -> AsyncGenerator[Delta | Answered, None]:
        """All of it from the beginning. Raises what ended it."""
        given = 0
        while True:
            while given < len(self._deltas):
                given += 1
                yield self._deltas[given - 1]
            if self._failure is not None:
                raise self._failure
            if self.answered is not None:
                yield self.answered
                return
            await self._more.wait()

    def release(self, *, delivered: bool) -> None:
        """A reader has all of it, or has left."""
        self.num_readers -= 1
        self.delivered = self.delivered or delivered

    async def whole(self) -> Answered:
        """The turn, when it is there. Raises what ended it."""
        async with aclosing(self.read()) as parts:
            async for part in parts:
                if isinstance(part, Answered):
                    return part
        raise AssertionError("a drawing ends with its turn or an error")

    async def aclose(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _tell(self) -> None:
        more, self._more = self._more, asyncio.Event()
        more.set()
