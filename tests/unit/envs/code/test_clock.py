"""A busy machine takes nothing of a program's time."""

import asyncio
import os
import subprocess
import sys
import time

import pytest

from verigym.envs.code import guest_clock
from verigym.envs.code.box import ProgramBox, RunLimits
from verigym.errors import SandboxError


@pytest.fixture
def child():
    """A process that does nothing for long. SIGCHLD is blocked, as in a foreman."""
    import signal

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Told(guest_clock.Clock):
    """Waits for a core as it is told: (seconds at the first look, at the second, ...)."""

    def __init__(self, waits, wall_s=0.1, **options):
        super().__init__(wall_s, **options)
        self.waits = list(waits)

    def waiting(self):
        return self.waits.pop(0) if len(self.waits) > 1 else self.waits[0]


def test_a_run_that_never_waited_ends_at_its_limit(child):
    clock = Told([0.0])
    assert not clock.wait_for(child.pid)
    assert (clock.busy, clock.waited_s) == (False, 0.0)


def test_time_spent_waiting_is_given_back_and_told(child):
    told = []
    clock = Told([0.05, 0.08, 0.08], told=told.append)
    assert not clock.wait_for(child.pid)
    assert not clock.busy
    assert told == [pytest.approx(0.05), pytest.approx(0.03)]
    assert time.monotonic() - clock.started >= 0.18


def test_what_waits_for_ever_is_not_known(child):
    class Starved(guest_clock.Clock):
        def waiting(self):
            return time.monotonic() - self.started

    clock = Starved(0.02)
    assert not clock.wait_for(child.pid)
    assert clock.busy


def test_a_child_that_ends_is_seen_whatever_it_waited(child):
    clock = Told([0.0, 5.0], wall_s=30.0)
    child.kill()
    assert clock.wait_for(child.pid)


def test_waiting_is_read_of_what_runs_below(child):
    assert guest_clock.Clock(1.0).waiting() >= 0.0
    task = f"/proc/{child.pid}/task/{child.pid}"
    assert guest_clock._has_our_priority(task)
    os.setpriority(os.PRIO_PROCESS, child.pid, 5)
    assert not guest_clock._has_our_priority(task)
    assert guest_clock.Clock(1.0).waiting() == 0.0


def test_a_program_that_had_no_core_is_the_machines_failure(backend, monkeypatch):
    from verigym.envs.code import pool

    monkeypatch.setattr(guest_clock.Clock, "LONGEST", 1)
    starved = "Clock.waiting = lambda self: time.monotonic() - self.started + 1\nClock.LONGEST = 1\n"
    plain_modules = pool.modules

    def modules(codes):
        text = (pool.Path(pool.__file__).parent / "guest_clock.py").read_text() + starved
        return plain_modules(
            [(name, compile(text, "guest_clock.py", "exec") if name == "guest_clock" else code) for name, code in codes]
        )

    monkeypatch.setattr(pool, "modules", modules)
    pool._code.cache_clear()
    try:
        box = ProgramBox(backend, limits=RunLimits(cpu_s=0.1, memory_mib=777))
        with pytest.raises(SandboxError, match="waited 1 times as long for a core"):
            asyncio.run(box.run_stdin("import time\ntime.sleep(60)", [""]))
    finally:
        pool._code.cache_clear()


SPIN = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
for _ in range(12):
    if os.fork() == 0:
        break
while os.getppid() != 1:
    pass
"""


@pytest.mark.slow
def test_a_right_program_passes_on_a_busy_core(backend):
    """Of 0.4 seconds of processor time, where a dozen others want the same core: more wall clock than its limit."""
    cores = os.sched_getaffinity(0)
    core = min(cores)
    crowd = subprocess.Popen([sys.executable, "-c", SPIN, str(core)], start_new_session=True)
    program = "import time\nwhile time.process_time() < 0.7: pass\nprint(time.perf_counter())"
    try:
        os.sched_setaffinity(0, {core})
        box = ProgramBox(backend, limits=RunLimits(cpu_s=1.0, memory_mib=778))
        before = time.monotonic()
        (run,) = asyncio.run(box.run_stdin(program, [""]))
        assert run.status == "ok", run
        assert time.monotonic() - before > box.limits.wall_s
    finally:
        os.sched_setaffinity(0, cores)
        os.killpg(crowd.pid, 9)
        crowd.wait()
