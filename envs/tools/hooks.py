"""Calls of an environment's own code: all synchronous hooks of one episode on one thread, and a bug in one named for
what it is."""

import asyncio
import contextvars
import inspect
import logging
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from ...errors import EnvironmentBug, VerigymError
from .spec import ToolError

T = TypeVar("T")

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""Seconds that the next hook waits for a synchronous one that was cut off and still runs, before it goes on without its
thread."""

DEFAULTS = __name__.removesuffix("tools.hooks") + "definition"
"""Hooks that an environment leaves as they are wait for nothing, and need no thread."""

_Job = Callable[[], None]


class HookThread:
    """A thread that runs one function after the other, until ``close`` or the end of its owner or of the process."""

    def __init__(self, owner: object) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self.num_waiting = 0
        """Functions that it was given and has not ended."""
        threading.Thread(target=_work, args=(self._jobs,), name="verigym-tool", daemon=True).start()
        weakref.finalize(owner, self._jobs.put, None)

    def run(self, function: Callable[[], Any]) -> "asyncio.Future[Any]":
        """What the function returns or raises, as a future of the running loop."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def job() -> None:
            result, problem = None, None
            try:
                result = function()
            except StopIteration as error:  # which no future can hold
                problem = RuntimeError("StopIteration")
                problem.__cause__ = error
            except BaseException as error:
                problem = error
            self.num_waiting -= 1
            try:
                loop.call_soon_threadsafe(_settle, answer, result, problem)
            except RuntimeError:  # the loop has ended: nobody waits
                pass

        self.num_waiting += 1
        self._jobs.put(job)
        return answer

    def close(self) -> None:
        """End, when what it was given is done."""
        self._jobs.put(None)


def _work(jobs: "SimpleQueue[_Job | None]") -> None:
    while (job := jobs.get()) is not None:
        job()
        del job


def _settle(answer: "asyncio.Future[Any]", result: Any, problem: BaseException | None) -> None:
    if answer.done():
        return
    if problem is None:
        answer.set_result(result)
    else:
        answer.set_exception(problem)
        answer.exception()  # of a hook that was cut off nobody asks


class Hooks:
    """Calls the hooks and tools of one environment.

    A synchronous one runs on the episode's thread, an asynchronous one on the loop. An error that verigym does not know
    is raised as ``EnvironmentBug``, with the hook's name.
    """

    def __init__(self, owner: object) -> None:
        self._owner = weakref.ref(owner)
        self._name = type(owner).__name__
        self._thread: HookThread | None = None
        self.task_id = ""

    async def call(self, hook: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a hook.

        Args:
            hook: its name for people, such as "score" or "tool ask".
        Raises:
            EnvironmentBug: it raised what verigym does not know. VerigymError: as it raised it; likewise ToolError of a
            tool and of "reply", which answer with it.
        """
        try:
            if inspect.iscoroutinefunction(function):
                return await function(*args, **kwargs)
            if getattr(function, "__module__", "") == DEFAULTS:
                result = function(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result
            thread = await self._free_thread()
            here = contextvars.copy_context()
            result = await asyncio.shield(thread.run(lambda: here.run(function, *args, **kwargs)))
            return await result if inspect.isawaitable(result) else result
        except VerigymError:
            raise
        except ToolError as error:
            if hook == "reply" or hook.startswith("tool "):
                raise
            raise self.bug(hook, error) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise self.bug(hook, error) from error  # of its own making: nobody cancelled the episode
        except (Exception, SystemExit) as error:
            raise self.bug(hook, error) from error

    async def call_to_its_end(self, hook: str, function: Callable[..., Any], *args: Any) -> Any:
        """``call``; a synchronous function is waited for also when cancelled, so that what it opens can be closed."""
        if inspect.iscoroutinefunction(function):
            return await self.call(hook, function, *args)
        work = asyncio.ensure_future(self.call(hook, function, *args))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            if not work.cancelled() and work.exception() is not None:
                logger.warning("%s after the episode was cancelled", work.exception())
            raise

    def read(self, hook: str, reader: Callable[..., T], *args: Any) -> T:
        """What ``reader`` makes of a hook's result; what it cannot read is a bug of the hook."""
        try:
            return reader(*args)
        except (ValueError, TypeError) as error:
            raise self.bug(hook, str(error)) from None

    def bug(self, hook: str, error: BaseException | str) -> EnvironmentBug:
        """The failure that an error in a hook makes."""
        told = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        place = f"{self._name}.{hook.removeprefix('tool ').removeprefix('part ')}"
        return EnvironmentBug(
            f"{place} failed in task {self.task_id!r}: {' '.join(told.split())[:500]}",
            environment=self._name,
            hook=hook,
        )

    async def _free_thread(self) -> HookThread:
        """The episode's thread. One that is stuck in a function that was cut off is left to itself, after a while."""
        waited = 0.0
        while self._thread is not None and self._thread.num_waiting:
            if waited >= PATIENCE_S:
                self.close()
                break
            await asyncio.sleep(0.02)
            waited += 0.02
        if self._thread is None:
            self._thread = HookThread(self._owner() or self)
        return self._thread

    def close(self) -> None:
        """The thread ends when it is done with what it does. A later call makes a new one."""
        if self._thread is not None:
            self._thread.close()
            self._thread = None
