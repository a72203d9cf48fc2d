"""Exceptions raised in another thread, none of which stays pending.

As long as one is, CPython marks the whole process: every thread looks at each call and loop whether it is meant. Python
3.11 never gets past a call then that is traced (``sys.settrace``: coverage, debuggers). A thread that waits in C does
not meet its exception; so it is taken back.
"""

import ctypes
import threading

MET_S = 0.2
"""Seconds in which a thread that runs Python code has met its exception, where the machine lets it run."""
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Before it is raised once more in a thread that has not met it."""


class _Met(BaseException):
    """Raised by a thread in itself."""


def raise_in(thread: int, error: type[BaseException]) -> None:
    """Raise an exception in a thread, at its next instruction; nothing where the thread has ended.

    Args:
        thread: its ``ident``.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def take_back(thread: int) -> None:
    """Let a thread go on that has not met what was raised in it."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)
    # The process stays marked even so, until some thread meets one.
    try:
        raise_in(threading.get_ident(), _Met)
        while True:
            pass
    except _Met:
        pass


def interrupt(thread: threading.Thread, error: type[BaseException]) -> None:
    """Raise an exception in a thread that runs Python code; one that waits in C for long is left to itself. Returns at
    once."""
    threading.Thread(target=_interrupt, args=(thread, error), name="verigym-interrupt", daemon=True).start()


def _interrupt(thread: threading.Thread, error: type[BaseException]) -> None:
    for pause_s in (*PAUSES_S, 0.0):
        if thread.ident is None or not thread.is_alive():
            return
        raise_in(thread.ident, error)
        thread.join(MET_S)
        take_back(thread.ident)
        thread.join(pause_s)
