"""The server inside a sandbox: process 1 of its own process namespace, or, unsafe, an ordinary process.

The guest is this folder. Its files use the standard library only
(and of it what starts fast), because they run in a bare ``python -I -S -E`` and reach it as compiled code over its
standard input (launch.py). Requests come and answers go in frames over standard input and output, which no command
inherits. At the end of its input the server ends, and everything in the sandbox with it.

Everything inside is killed (``kill(-1)``), and a new shell starts, at the deadline of a command, when one is
cancelled, and when all processes together exceed the memory or their number.
"""

import marshal
import os
import select
import signal
import sys
import time
from collections.abc import Callable

from .files import write_all
from .limits import Limits
from .process import remove_shared_memory
from .reset import Snapshot, empty_folder
from .run import Run
from .shell import Shell
from .system import Config
from .watching import alive, kill_descendants

FIRST_TICK_S, LAST_TICK_S = 0.02, 0.1
BACKSTOP_S = 5.0
"""So long after its deadline a process whose supervisor does not report is killed with everything else; and so long
everything may take to die."""


class Server:
    def __init__(self, config: Config, control_in: int, control_out: int) -> None:
        self.config, self.control_in, self.control_out = config, control_in, control_out
        self.contained: bool = config["contained"]
        self.poll = select.epoll()
        self.callbacks: dict[int, Callable[[], object]] = {}
        self.fresh: set[int] = set()
        self.runs: dict[int, Run] = {}
        self.received = bytearray()
        self.tick_s: float | None = None
        self.next_tick = 0.0
        self.snapshot: Snapshot | None = None
        self.shell_then: tuple[str, bytes | None] = "/", None
        self.limits = Limits(config)
        self.shell = Shell(config, self)
        self.watch(control_in, self._receive)
        wakeup_r, wakeup_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.watch(wakeup_r, lambda: self._woken(wakeup_r))

    def watch(self, fd: int, callback: Callable[[], object], events: int = select.EPOLLIN) -> None:
        if fd in self.callbacks:
            self.poll.modify(fd, events)
        else:
            self.poll.register(fd, events)
        self.callbacks[fd] = callback
        self.fresh.add(fd)

    def forget(self, fd: int) -> None:
        if self.callbacks.pop(fd, None):
            self.poll.unregister(fd)

    def supervisors(self) -> set[int]:
        return {run.pid for run in self.runs.values()}

    def serve(self) -> None:
        """Answer until the input ends."""
        self.shell.run(0, b"", 60.0, 4096, lambda **outcome: self.answer({"id": 0, **outcome, "parts": None}, b""))
        self._tick_in(FIRST_TICK_S)
        while True:
            wait = None if self.tick_s is None else max(0.0, self.next_tick - time.monotonic())
            look = self.shell.look_in()
            if look is not None:
                wait = look if wait is None else min(wait, look)
            self.fresh.clear()
            for fd, _ in self.poll.poll(wait):
                callback = self.callbacks.get(fd)
                if callback is not None and fd not in self.fresh:  # an event of a file that had this number before
                    callback()
            if look is not None:
                self.shell.look()
            if self.tick_s is not None and time.monotonic() >= self.next_tick:
                self._tick()

    def answer(self, header: Config, body: bytes) -> None:
        if header.get("exit_code") in (137, -signal.SIGKILL) and header["killed"] is None and self.limits.oom_killed():
            header |= {"exit_code": None, "killed": "memory"}
        head = repr(header).encode()
        write_all(self.control_out, frame(head, body))

    def kill_all(self, reason: str, *, restart: bool = True) -> None:
        """Kill everything but this server, answer what was running with ``reason``, start a new shell."""
        if self.contained:
            until = time.monotonic() + BACKSTOP_S
            while self._kill_once() and time.monotonic() < until:
                time.sleep(0.001)
        else:
            kill_descendants(os.getpid())
        if self.config["group"]:
            remove_shared_memory(self.config)
        self.limits.begin_anew()
        for run in list(self.runs.values()):
            run.finish(reason)
        self.shell.killed(reason, restart=restart)

    def fail(self, why: str) -> None:
        """Without a shell that can be trusted there is no sandbox: say why, and end."""
        sys.stderr.write(f"{why}\n")
        self.end()

    def end(self) -> None:
        if not self.contained:
            kill_descendants(os.getpid())
            import shutil

            shutil.rmtree(self.config["root"], ignore_errors=True)
        os._exit(0)

    def _kill_once(self) -> bool:
        try:
            os.kill(-1, signal.SIGKILL)
        except OSError:
            pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return False
        return True

    def _receive(self) -> None:
        piece = os.read(self.control_in, 1 << 20)
        if not piece:
            self.end()
        self.received += piece
        while len(self.received) >= 8:
            num_head = int.from_bytes(self.received[:4], "big")
            num_body = int.from_bytes(self.received[4:8], "big")
            if len(self.received) < 8 + num_head + num_body:
                return
            head = marshal.loads(self.received[8 : 8 + num_head])
            body = bytes(self.received[8 + num_head : 8 + num_head + num_body])
            del self.received[: 8 + num_head + num_body]
            self._handle(head, body)

    def _handle(self, request: Config, body: bytes) -> None:
        self.limits.begin()
        try:
            self._begin(request, body)
        except BlockingIOError:  # so many processes that none can be started
            self.kill_all("processes")
            self._begin(request, body)
        self._tick_in(FIRST_TICK_S)

    def _begin(self, request: Config, body: bytes) -> None:
        number: int = request.get("id", -1)
        if request["do"] == "exec":
            self.shell.run(
                number, body, request["timeout"], request["keep"], lambda **outcome: self._told(number, outcome)
            )
        elif request["do"] == "run":
            self.runs[number] = Run(self, request, body)
        elif request["do"] == "kill":
            self.kill_all(request["why"])
        elif request["do"] == "alive":
            beside = [one for one in self.limits.processes(self.supervisors()) if one.pid != self.shell.pid]
            self.answer({"id": number, "alive": len(beside) + len(self.runs)}, b"")
        elif request["do"] in ("snapshot", "clean", "accept"):
            self._reset(request, body)
        elif request["do"] == "input":
            if number in self.runs:
                self.runs[number].feed(body)
        elif self.shell.command is not None and self.shell.command.number == number:
            self.kill_all("cancelled")
        elif number in self.runs:
            self.runs[number].stop("cancelled")

    def _reset(self, request: Config, body: bytes) -> None:
        """Look at what is there, return to it, or see that the return is complete. Answers ok, or why it is not."""
        header, told = {"id": request["id"], "ok": True}, b""
        try:
            if request["do"] == "snapshot":
                self.snapshot = Snapshot(*marshal.loads(body))
                self.shell_then = self.shell.known.state()
            elif self.snapshot is None:
                raise OSError("there is no snapshot")
            elif request["do"] == "clean":
                told = self._clean(self.snapshot)
            else:
                header["ok"] = self.snapshot.accept([p for p in body.decode(errors="surrogateescape").split("\0") if p])
        except OSError as error:
            header |= {"ok": False, "why": str(error)[:200]}
        self.answer(header, told)

    def _clean(self, snapshot: Snapshot) -> bytes:
        """Kill everything, remove what was not there; a new shell, as it was then. Returns the paths that are lost."""
        self.kill_all("reset", restart=False)
        if len(alive()) > 1:
            raise OSError("a process cannot be killed")
        empty_folder(os.path.dirname(self.config["scratch"]))
        os.makedirs(self.config["scratch"], mode=0o711)
        lost = snapshot.clean()
        self.shell = Shell(self.config, self)
        self.shell.known.cwd, self.shell.known.exports = self.shell_then
        self.shell.start()
        return "\0".join(lost).encode(errors="surrogateescape")

    def _told(self, number: int, outcome: Config) -> None:
        self._notice_growth()
        head, tail, dropped = outcome.pop("parts")
        self.answer({"id": number, **outcome, "dropped": dropped, "sizes": (len(head), len(tail))}, head + tail)

    def _woken(self, wakeup: int) -> None:
        try:
            os.read(wakeup, 4096)
        except BlockingIOError:
            pass
        self.reap()

    def reap(self) -> None:
        """Wait for every process of ours that has ended."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.shell.pid:
                    self.shell.died(status)
        except ChildProcessError:
            return

    def _tick_in(self, seconds: float) -> None:
        now = time.monotonic()
        self.tick_s, self.next_tick = seconds, now + seconds
        if self.shell.command is not None:
            self.next_tick = min(self.next_tick, self.shell.command.deadline)

    def _tick(self) -> None:
        """Deadlines, and the limits on everything together. Ticks while anything runs; no timer while nothing does."""
        now = time.monotonic()
        self._notice_growth()
        deadlines = [run.deadline + BACKSTOP_S for run in self.runs.values()]
        if self.shell.command is not None:
            deadlines.append(self.shell.command.deadline)
        if self.shell.silent() and not self.shell.replace():
            self.fail("the shell does not run what it is given")
        if any(now >= deadline for deadline in deadlines):
            self.kill_all("timeout")
        elif self._watch_limits():
            self.tick_s = None
        if self.tick_s is not None:
            self._tick_in(min(LAST_TICK_S, self.tick_s * 1.5))

    def _watch_limits(self) -> bool:
        """Kill everything where it exceeds a limit. True where nothing runs that could."""
        processes = self.limits.processes(self.supervisors())
        exceeded = self.limits.exceeded(processes)
        if exceeded is not None:
            self.kill_all(exceeded)
            return False
        return self.shell.command is None and not self.runs and all(p.pid == self.shell.pid for p in processes)

    def _notice_growth(self) -> None:
        """Tell the owner when the disk has filled by so much: what is ours it can measure."""
        what = self.limits.growth()
        if what is not None:
            self.answer({"id": -1, "what": what}, b"")


def frame(head: bytes, body: bytes) -> bytes:
    return len(head).to_bytes(4, "big") + len(body).to_bytes(4, "big") + head + body
