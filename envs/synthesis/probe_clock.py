"""Inside the sandbox: a wall clock that is ahead. Standard library only."""

import datetime
import time


def move_clock(seconds):
    """Let time.time and datetime be ahead of what they are; classes of their own take part in ``isinstance``."""
    real_time, real, real_date = time.time, datetime.datetime, datetime.date
    local, greenwich = time.localtime, time.gmtime
    utc = datetime.timezone(datetime.timedelta(0))

    class Kind(type):
        def __instancecheck__(cls, value):
            return isinstance(value, cls.__mro__[1])

        def __subclasscheck__(cls, kind):
            return issubclass(kind, cls.__mro__[1])

    class Moved(real, metaclass=Kind):
        @classmethod
        def now(cls, tz=None):
            return real.now(tz) + datetime.timedelta(seconds=seconds)

        @classmethod
        def utcnow(cls):
            return real.fromtimestamp(real_time() + seconds, utc).replace(tzinfo=None)

        @classmethod
        def today(cls):
            return real.now() + datetime.timedelta(seconds=seconds)

    class MovedDate(real_date, metaclass=Kind):
        @classmethod
        def today(cls):
            return (real.now() + datetime.timedelta(seconds=seconds)).date()

    Moved.__name__ = Moved.__qualname__ = "datetime"
    MovedDate.__name__ = MovedDate.__qualname__ = "date"
    time.time = lambda: real_time() + seconds
    time.localtime = lambda at=None: local(time.time() if at is None else at)
    time.gmtime = lambda at=None: greenwich(time.time() if at is None else at)
    datetime.datetime, datetime.date = Moved, MovedDate
