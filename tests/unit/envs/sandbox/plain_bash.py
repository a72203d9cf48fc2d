"""A bash that nobody but its caller talks to: what the session has to equal."""

import array
import contextlib
import fcntl
import os
import re
import signal
import subprocess
import termios
import time

LINES = re.compile(r"\bline \d+:")


def without_lines(text):
    """Plain bash counts the lines of all it was ever given, the session those of a command."""
    return LINES.sub("line:", text)


def default_signals():
    """As a sandbox's processes begin, also where this one ignores some (nohup, a background job)."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)


class BashEnded(Exception):
    """A text has ended it."""


class PlainBash:
    """bash reading a FIFO as its script. That a text is done shows in bash having read the empty line after it."""

    def __init__(self, folder, env):
        self.folder = folder
        os.mkfifo(folder / "bash")
        self.script = os.open(folder / "bash", os.O_RDWR)
        self.out, out = os.pipe()
        os.set_blocking(self.out, False)
        work = folder / "work"
        work.mkdir()
        # Its script is known as "bash", as in the session.
        self.process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "bash"],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=default_signals,
        )
        os.close(out)
        self.run(f"cd {work}; unset OLDPWD; export OLDPWD; true ''")

    def run(self, text):
        """Output of a text, which must be whole and must not end the shell."""
        os.write(self.script, text.encode() + b"\n\n")
        until = time.monotonic() + 60
        left = array.array("i", [1])
        while left[0]:
            if self.process.poll() is not None:
                raise BashEnded(text)
            assert time.monotonic() < until, f"bash does not finish {text!r}"
            fcntl.ioctl(self.script, termios.FIONREAD, left)
            time.sleep(0.0005)
        pieces = []
        while True:
            try:
                pieces.append(os.read(self.out, 1 << 16))
            except BlockingIOError:
                return b"".join(pieces).decode(errors="replace")

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.script)
        os.close(self.out)
