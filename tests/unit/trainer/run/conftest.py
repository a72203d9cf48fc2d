"""A pseudo-terminal, for what a run shows on one."""

import fcntl
import os
import pty
import select
import struct
import termios
import time

import pytest


class Terminal:
    """A pseudo-terminal with a program in it, and what its screen shows.

    Attributes:
        status: the program's exit status, once it has ended.
    """

    def __init__(self, command, columns, lines, **env):
        import pyte

        self.columns, self.status, self._ended = columns, None, False
        self._screen = pyte.HistoryScreen(columns, lines, history=10_000, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)
        self._process, self._master = pty.fork()
        if self._process == 0:
            size = struct.pack("HHHH", lines, columns, 0, 0)
            fcntl.ioctl(0, termios.TIOCSWINSZ, size)
            told = {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **env}
            mine = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
            os.execvpe(command[0], command, {**mine, **told})

    def until(self, shown, seconds=120):
        """The screen, once ``shown`` is true of its lines."""
        deadline = time.monotonic() + seconds
        while not shown(self.screen):
            assert time.monotonic() < deadline, "\n".join(self.screen)
            assert self._read(), "\n".join(self.all)
        return self.screen

    def end(self, seconds=120):
        """All lines that the terminal has shown and kept, once the program has ended."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, "\n".join(self.screen)
        return self.all

    @property
    def screen(self):
        return [line.rstrip() for line in self._screen.display]

    @property
    def all(self):
        gone = ("".join(line[place].data for place in range(self.columns)) for line in self._screen.history.top)
        return [*(line.rstrip() for line in gone), *self.screen]

    def _read(self):
        if select.select([self._master], [], [], 0.2)[0]:
            try:
                self._stream.feed(os.read(self._master, 1 << 16))
            except OSError:  # the program has ended, and its side is closed
                self.status = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])
                self._ended = True
                return False
        return True

    def close(self):
        os.close(self._master)
        if not self._ended:
            os.kill(self._process, 9)
            os.waitpid(self._process, 0)


@pytest.fixture
def terminal():
    """Starts a command in a pseudo-terminal of so many columns and lines."""
    opened = []

    def start(command, columns, lines, **env):
        opened.append(Terminal([str(word) for word in command], columns, lines, **env))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
