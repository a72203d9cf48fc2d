"""Calls of an environment's own code: all synchronous hooks of one episode on one thread, and a bug in one named for
what it is."""

import asyncio
import contextvars
import inspect
import logging
import threading
import traceback
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ...errors import EnvironmentBug, HookTimeout, VerigymError
from ..stacks import frame_of
from .deadline import counted
from .folder import folder_kept
from .interrupting import interrupt
from .spec import ToolError
from .stepped import LoopHeld, stepped

T = TypeVar("T")

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""Seconds that the next hook waits for a synchronous one that was cut off and still runs, before it goes on without its
thread."""

TIMEOUT_S = 600.0
"""Seconds that a hook may take where nobody says how many."""

DEFAULTS = __name__.removesuffix("tools.hooks") + "definition"
"""Hooks that an environment leaves as they are wait for nothing, and need no thread."""

_Job = Callable[[], None]


class _LeftBehind(BaseException):
    """Raised in a thread whose function nobody waits for any more, and an endless loop takes no core from others."""


class HookThread:
    """A thread that runs one function after the other, until ``close`` or the end of its owner or of the process."""

    def __init__(self, owner: object) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self.num_waiting = 0
        """Functions that it was given and has not ended."""
        self._thread = threading.Thread(target=_work, args=(self._jobs,), name="verigym-tool", daemon=True)
        self._thread.start()
        weakref.finalize(owner, self._jobs.put, None)

    def run(self, function: Callable[[], Any]) -> "asyncio.Future[Any]":
        """What the function returns or raises, as a future of the running loop."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def tell(result: Any, problem: BaseException | None) -> None:
            try:
                loop.call_soon_threadsafe(_settle, answer, result, problem)
            except RuntimeError:  # the loop has ended: nobody waits
                pass

        self._give(function, tell)
        return answer

    def run_here(self, function: Callable[[], Any], timeout_s: float | None) -> Any:
        """What the function returns or raises, waited for by the thread that asks.

        Raises:
            TimeoutError: it takes longer.
        """
        answer: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._give(function, lambda result, problem: answer.put((result, problem)))
        try:
            result, problem = answer.get(timeout=timeout_s)
        except Empty:
            raise TimeoutError from None
        if problem is not None:
            raise problem
        return result

    def _give(self, function: Callable[[], Any], tell: Callable[[Any, BaseException | None], None]) -> None:
        def job() -> None:
            result, problem = None, None
            try:
                result = function()
            except (StopIteration, GeneratorExit) as error:  # which no future can hold, or no coroutine let through
                problem = RuntimeError(type(error).__name__)
                problem.__cause__ = error
            except BaseException as error:
                problem = error
            self.num_waiting -= 1
            tell(result, problem)

        self.num_waiting += 1
        self._jobs.put(job)

    def close(self) -> None:
        """End, when what it was given is done."""
        self._jobs.put(None)

    def abandon(self) -> None:
        """End, whatever it does: Python code is interrupted at its next instruction; a call that blocks in C is left to
        itself, and the thread ends when its function returns. Nobody waits for it, the process's exit neither."""
        self.close()
        interrupt(self._thread, _LeftBehind)

    def place(self) -> str:
        """The line that it is at: "FILE:LINE in FUNCTION", of an environment's code where there is some."""
        frame = frame_of(self._thread.ident or 0)
        stack = traceback.extract_stack(frame) if frame is not None else []
        below = [one.name == "job" and one.filename == __file__ for one in stack]
        own = stack[below.index(True) + 1 :] if True in below else []
        return f"{own[-1].filename}:{own[-1].lineno} in {own[-1].name}" if own else "nowhere"


def _work(jobs: "SimpleQueue[_Job | None]") -> None:
    try:
        while (job := jobs.get()) is not None:
            job()
            del job
    except _LeftBehind:  # it came when the function had just ended
        pass


def _settle(answer: "asyncio.Future[Any]", result: Any, problem: BaseException | None) -> None:
    if answer.done():
        return
    if problem is None:
        answer.set_result(result)
    else:
        answer.set_exception(problem)
        answer.exception()  # of a hook that was cut off nobody asks


async def made_in_time(make: Callable[[], T], limit_s: float) -> T:
    """What a constructor makes. It has a thread of its own, so that one that hangs keeps nobody.

    Raises:
        HookTimeout: it takes longer than ``limit_s`` seconds, and is left to itself.
    """
    thread, scope = HookThread(asyncio.current_task()), asyncio.timeout(limit_s)
    try:
        async with scope:
            return await thread.run(make)
    except TimeoutError:
        if not scope.expired():
            raise
        told = f"it did not return within hook_timeout_s = {limit_s:g} s and was left at {thread.place()}"
        thread.abandon()
        raise HookTimeout(f"an environment cannot be made: {told}", hook="__init__") from None
    finally:
        thread.close()


def text_of(error: BaseException | None) -> str:
    """Its message, also where asking for it fails."""
    try:
        return str(error)
    except Exception as another:
        return f"its text cannot be had ({type(another).__name__})"


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
            EnvironmentBug: it raised what verigym does not know. HookTimeout: it took more than the ``hook_timeout_s``
            of its environment. VerigymError: as it raised it; likewise ToolError of a tool and of "reply", which answer
            with it.
        """
        try:
            if getattr(function, "__module__", "") == DEFAULTS:
                result = function(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result
            return await self._in_time(hook, function, *args, **kwargs)
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
        except (KeyboardInterrupt, GeneratorExit) as error:
            if inspect.iscoroutinefunction(function):
                raise  # a person's, or the loop's end
            raise self.bug(hook, error) from error
        except BaseException as error:
            raise self.bug(hook, error) from error

    async def _in_time(self, hook: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What it returns, within the time that its environment gives it."""
        limit_s = getattr(self._owner(), "hook_timeout_s", None)
        scope = asyncio.timeout(None)
        try:
            async with scope:
                with counted(limit_s, scope) as deadline, folder_kept(f"{self._name}.{hook}"):
                    if inspect.iscoroutinefunction(function):
                        running = function(*args, **kwargs)
                        if deadline is None:
                            return await running
                        return await stepped(running, f"{self._name}.{hook}", deadline)
                    thread = await self._free_thread()
                    here = contextvars.copy_context()
                    result = await asyncio.shield(thread.run(lambda: here.run(function, *args, **kwargs)))
                    return await result if inspect.isawaitable(result) else result
        except LoopHeld as error:
            raise self._overdue(hook, limit_s, None) from error
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise self._overdue(hook, limit_s, self._thread) from error

    def _overdue(self, hook: str, limit_s: float | None, thread: HookThread | None) -> HookTimeout:
        """Of a hook whose time is up; a thread that is in it is left to itself."""
        told = f"it did not return within hook_timeout_s = {limit_s:g} s"
        if thread is not None and thread.num_waiting:
            told += f" and was left at {thread.place()}"
            thread.abandon()
            if thread is self._thread:
                self._thread = None
        return HookTimeout(self._told(hook, told), environment=self._name, hook=hook)

    def call_here(self, hook: str, function: Callable[..., Any], *args: Any) -> Any:
        """``call`` of a synchronous hook for who cannot await, such as ``gold``'s: on a thread of its own."""
        thread, limit_s = HookThread(self._owner() or self), getattr(self._owner(), "hook_timeout_s", None)
        try:
            return thread.run_here(lambda: function(*args), limit_s)
        except VerigymError:
            raise
        except BaseException as error:
            if thread.num_waiting and isinstance(error, TimeoutError):
                raise self._overdue(hook, limit_s, thread) from None
            if thread.num_waiting:
                raise  # a person's
            raise self.bug(hook, error) from error
        finally:
            thread.close()

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
        """What ``reader`` makes of a hook's result; what it cannot read is a bug of the hook, and so is what methods of
        the result raise."""
        try:
            return reader(*args)
        except (ValueError, TypeError) as error:
            raise self.bug(hook, text_of(error)) from None
        except (Exception, SystemExit) as error:
            raise self.bug(hook, error) from error

    def within(self, hook: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call a synchronous function inside a hook: what it raises is a bug of that name."""
        try:
            return function(*args)
        except (VerigymError, ToolError):
            raise
        except (Exception, SystemExit) as error:
            raise self.bug(hook, error) from error

    def bug(self, hook: str, error: BaseException | str) -> EnvironmentBug:
        """The failure that an error in a hook makes."""
        told = error if isinstance(error, str) else f"{type(error).__name__}: {text_of(error)}"
        return EnvironmentBug(self._told(hook, told), environment=self._name, hook=hook)

    def _told(self, hook: str, problem: str) -> str:
        place = f"{self._name}.{hook.removeprefix('tool ').removeprefix('part ')}"
        return f"{place} failed in task {self.task_id!r}: {' '.join(problem.split())[:500]}"

    async def _free_thread(self) -> HookThread:
        """The episode's thread. One that is stuck in a function that was cut off is left to itself, after a while."""
        waited = 0.0
        while self._thread is not None and self._thread.num_waiting:
            if waited >= PATIENCE_S:
                self._thread.abandon()
                self._thread = None
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
