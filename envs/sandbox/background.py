"""One event loop in a thread of its own: the synchronous face of asynchronous environments."""

import asyncio
import contextvars
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

T = TypeVar("T")

MAX_EPISODES = 256
"""Most episodes at once in one process; synchronous tools get as many threads, so none waits for another's."""


_making = threading.Lock()
"""Two threads that ask at once must get the same loop: what one loop opened cannot be used on another."""


@lru_cache(maxsize=1)
def _background_loop(process: int) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="verigym-environments", daemon=True).start()
    return loop


@lru_cache(maxsize=1)
def _executor(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=MAX_EPISODES, thread_name_prefix="verigym-tool")


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the background loop and wait for its result."""
    with _making:
        loop = _background_loop(os.getpid())  # a forked process has none of its parent's threads
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _on_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> asyncio.Future[T]:
    with _making:
        executor = _executor(os.getpid())
    here = contextvars.copy_context()
    return asyncio.get_running_loop().run_in_executor(executor, lambda: here.run(function, *args, **kwargs))


async def on_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """``asyncio.to_thread`` on threads enough for every episode.

    asyncio's own are four more than there are cores. Of 64 episodes some wait there for minutes (for an environment
    that another process builds, for a process that compares), and until they are done no sandbox of the others could
    be started or closed.
    """
    return await _on_thread(function, *args, **kwargs)


async def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a hook or a tool, synchronous (on a thread) or asynchronous (awaited)."""
    if inspect.iscoroutinefunction(function):
        return await function(*args, **kwargs)
    return await on_thread(function, *args, **kwargs)


async def call_to_its_end(function: Callable[..., Any], *args: Any) -> Any:
    """``call``; a synchronous function is waited for also when cancelled, so that what it opens can be closed."""
    if inspect.iscoroutinefunction(function):
        return await function(*args)
    return await _shielded(asyncio.ensure_future(call(function, *args)))


async def on_thread_to_its_end(function: Callable[..., T], *args: Any) -> T:
    """Run a function on a thread and wait for it, also when cancelled: it never outlives the folder it writes to."""
    return await _shielded(_on_thread(function, *args))


async def on_own_thread(function: Callable[..., T], *args: Any) -> T:
    """``on_thread_to_its_end`` on a thread that is no one else's: for what waits for other work on threads, as an agent
    waits for its tools. On those of ``on_thread`` as many agents as there are threads would wait for ever."""
    here, work = contextvars.copy_context(), Future[T]()

    def run() -> None:
        try:
            work.set_result(here.run(function, *args))
        except BaseException as error:  # it is who waits that handles it
            work.set_exception(error)

    work.set_running_or_notify_cancel()
    threading.Thread(target=run, name="verigym-agent", daemon=True).start()
    return await _shielded(asyncio.wrap_future(work))


async def _shielded(work: asyncio.Future[T]) -> T:
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


async def all_or_first_error(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Wait for all and return their results in order; at the first error, or when cancelled, end the others first."""
    workers = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*workers)
    finally:
        for worker in workers:
            # One that was cancelled with us is closing its sandbox: a second cancellation would stop it at that.
            if not worker.cancelling():
                worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
