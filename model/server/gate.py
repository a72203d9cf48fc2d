"""Between the routes and the engine: requests wait here while the server is paused, and can be aborted."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, Literal, TypeVar, cast

from ..chat.protocols import FreezingEngine, ServingEngine
from ..chat.sampling import Completion, CompletionPart, Sampling
from ..web.errors import refused

PauseMode = Literal["abort", "wait", "keep"]
T = TypeVar("T")


class Gate:
    """Counts the requests in the engine; closed, it lets no new one in."""

    def __init__(self, engine: ServingEngine, *, abortable: bool) -> None:
        """
        Args:
            abortable: sample step by step, so that a pause can end a request with the tokens it has.
        """
        self._engine, self._abortable = engine, abortable
        self._open, self._empty, self._abort = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._open.set()
        self._empty.set()
        self._num_inside = 0
        self._frozen: FreezingEngine | None = None

    @property
    def is_paused(self) -> bool:
        return not self._open.is_set()

    async def pause(self, mode: PauseMode) -> None:
        """Let nothing in. "wait" for what is inside, or "abort" it with what it has, and return when nothing is; or
        "keep" it, frozen between two tokens.

        Raises:
            ApiError: 400, the engine cannot freeze.
        """
        if mode == "keep":
            if not isinstance(self._engine, FreezingEngine):
                raise refused("this model's engine cannot freeze requests; use mode=abort or mode=wait", param="mode")
            self._open.clear()
            if self._frozen is None:
                self._frozen = self._engine
                await asyncio.to_thread(self._engine.pause)
            return
        self._open.clear()
        if mode == "abort":
            self._abort.set()
        self._thaw()  # what a pause before has frozen could not end
        try:
            await self._empty.wait()
        finally:
            self._abort.clear()

    def resume(self) -> None:
        """Let requests in again."""
        self._thaw()
        self._open.set()

    def _thaw(self) -> None:
        frozen, self._frozen = self._frozen, None
        if frozen is not None:
            frozen.resume()

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> list[CompletionPart] | list[Completion]:
        """A completion, in one part or several."""
        if self._abortable:
            async with aclosing(self.stream(prompt_ids, sampling, stop_token_ids)) as parts:
                return [part async for part in parts]
        await self._open.wait()
        with self._inside():
            return [await self._engine.generate(prompt_ids, sampling, stop_token_ids)]

    async def stream(
        self, prompt_ids: Sequence[int], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> AsyncGenerator[CompletionPart, None]:
        """The parts of a completion; the last has a finish reason, "abort" where a pause ended it."""
        await self._open.wait()
        with self._inside():
            stream = self._engine.stream(prompt_ids, sampling, stop_token_ids)
            async with aclosing(cast("AsyncGenerator[CompletionPart, None]", stream)) as parts:
                while True:
                    part = await self._unless_aborted(anext(parts)) or _aborted(sampling)
                    yield part
                    if part.finish_reason is not None:
                        return

    async def score(self, prompt_ids: Sequence[int], num_top: int) -> Any:
        """``ServingEngine.score``."""
        await self._open.wait()
        with self._inside():
            return await self._engine.score(prompt_ids, num_top)

    @contextmanager
    def _inside(self):
        self._num_inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._num_inside -= 1
            if not self._num_inside:
                self._empty.set()

    async def _unless_aborted(self, coming: Coroutine[Any, Any, CompletionPart]) -> CompletionPart | None:
        if not self._abortable:
            return await coming
        next_part = asyncio.ensure_future(coming)
        abort = asyncio.ensure_future(self._abort.wait())
        try:
            await asyncio.wait((next_part, abort), return_when=asyncio.FIRST_COMPLETED)
            return next_part.result() if next_part.done() else None
        finally:
            for task in (next_part, abort):
                task.cancel()
            await asyncio.gather(next_part, abort, return_exceptions=True)


def _aborted(sampling: Sampling) -> CompletionPart:
    """The last part of a completion that a pause ended."""
    return CompletionPart(
        token_ids=(),
        logprobs=(),
        policy_version=(),
        raw_logprobs=() if sampling.raw_logprobs else None,
        top_logprobs=() if sampling.num_top_logprobs else None,
        finish_reason="abort",
    )


async def together(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order; the first failure cancels the others and is raised, in an exception group."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in coroutines]
    return [task.result() for task in tasks]


async def merged(streams: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """What several streams yield, as it comes. Closing it closes them; the first failure ends all."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for one in only:
                yield one
        return
    queue: asyncio.Queue[T | None] = asyncio.Queue()

    async def drain(stream: AsyncGenerator[T, None]) -> None:
        async with aclosing(stream):
            async for one in stream:
                queue.put_nowait(one)

    async def drain_all() -> None:
        try:
            await together([drain(stream) for stream in streams])
        finally:
            queue.put_nowait(None)

    task = asyncio.create_task(drain_all())
    try:
        while (one := await queue.get()) is not None:
            yield one
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
