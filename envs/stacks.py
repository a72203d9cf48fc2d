"""Where another thread of this process stands."""

import gc
import os
import sys
import threading
from types import FrameType

_LOCK = threading.Lock()


def frame_of(thread: int) -> FrameType | None:
    """The innermost frame of a thread, by its ``ident``; None where it has ended.

    Nothing may be collected meanwhile: Python 3.11 holds a lock of its own while it makes the frames, and what it
    collects then wants the same lock where a ``threading.local`` is among it. The whole process stands for good.
    """
    with _LOCK:
        collects = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames().get(thread)
        finally:
            if collects:
                gc.enable()


# A fork in between would leave a process that never collects, and cannot be asked again.
os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)
