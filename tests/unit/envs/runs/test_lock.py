"""A folder is one process's at a time, and nobody's once that one is dead."""

import os
import signal
import subprocess
import sys
import time

import pytest

from verigym.envs.runs.lock import RunLock
from verigym.errors import ConfigError

HOLD = """
import sys, time
from pathlib import Path
from verigym.envs.runs.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
FORK_AND_HOLD = HOLD.replace("    print(", "    import os\n    if os.fork() == 0:\n        time.sleep(600)\n    print(")


def start(folder, script=HOLD):
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def end_all(holder):
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()


def test_the_second_is_told_who_the_first_is(tmp_path):
    holder = start(tmp_path)
    try:
        told = rf"is in use by another run: process {holder.pid} on \S+ \(`-c .*`, since 20.*; wait for it"
        with pytest.raises(ConfigError, match=told), RunLock(tmp_path):
            pass
    finally:
        end_all(holder)
    with RunLock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_two_in_one_process_are_two(tmp_path):
    with RunLock(tmp_path):
        with pytest.raises(ConfigError, match=f"process {os.getpid()}"), RunLock(tmp_path):
            pass
        with pytest.raises(ConfigError, match=f"process {os.getpid()}"), RunLock(tmp_path):
            pass
    with RunLock(tmp_path):
        pass


def test_what_a_dead_holder_left_is_taken_over_though_its_child_lives(tmp_path):
    holder = start(tmp_path, FORK_AND_HOLD)
    try:
        holder.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        with RunLock(tmp_path):  # it is a zombie: nobody has waited for it
            pass
        holder.wait()
        with RunLock(tmp_path), pytest.raises(ConfigError, match="in use"), RunLock(tmp_path):
            pass
    finally:
        end_all(holder)


def test_of_many_that_take_over_at_once_one_has_it(tmp_path):
    """Each holds for a moment and counts: at no time are there two inside."""
    holder = start(tmp_path, FORK_AND_HOLD)
    script = """
import sys, time
from pathlib import Path
from verigym.envs.runs.lock import RunLock
from verigym.errors import ConfigError
folder, inside = Path(sys.argv[1]), Path(sys.argv[1]) / "inside"
while True:
    try:
        with RunLock(folder):
            inside.mkdir()
            time.sleep(0.01)
            inside.rmdir()
        break
    except ConfigError:
        time.sleep(0.001)
"""
    try:
        holder.kill()
        takers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(3)]
        assert [taker.wait() for taker in takers] == [0] * 3
    finally:
        end_all(holder)


def test_the_lock_of_another_machine_is_never_taken_over(tmp_path, monkeypatch):
    from verigym.envs.runs import lock as run_lock

    with RunLock(tmp_path):
        monkeypatch.setattr(run_lock, "_place", lambda: "elsewhere")
        monkeypatch.setattr(run_lock, "_start_of", lambda pid: None)
        with pytest.raises(ConfigError, match="in use"), RunLock(tmp_path):
            pass


def test_a_file_has_its_lock_beside_it(tmp_path):
    path = tmp_path / "deep" / "out.jsonl"
    with RunLock(path, is_file=True):
        assert (tmp_path / "deep" / "out.jsonl.lock").exists()
        with pytest.raises(ConfigError, match=r"out\.jsonl is in use"), RunLock(path, is_file=True):
            pass
    assert list((tmp_path / "deep").iterdir()) == []
    path.write_text("")
    with pytest.raises(ConfigError, match="is not a folder"), RunLock(path):
        pass


@pytest.mark.parametrize("left", [b"", b"{", b"\xff", b"[]", b"null"])
def test_a_lock_file_of_any_content_that_nobody_holds_is_free(tmp_path, left):
    (tmp_path / ".lock").write_bytes(left)
    before = time.time()
    with RunLock(tmp_path):
        assert (tmp_path / ".lock").stat().st_mtime >= before - 1
