"""``verigym grade`` and ``verigym eval`` with programs, killed again and again, end as if left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

NUM_PROGRAMS = 60


pytestmark = pytest.mark.usefixtures("local_sandbox")


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def processes():
    """Ids of what runs in a sandbox of ours: the Pythons that wait for their modules."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                command = file.read()
        except OSError:
            continue
        if b"verigym_programs" in command:
            found.add(int(name))
    return found


def body_of(at):
    """Right, wrong, and one that takes longer; each waits a while, so that a kill meets it at work."""
    returned = ["a + b", "a - b", "a + b if time.sleep(0.2) is None else 0"][at % 3]
    return f"import time\ntime.sleep(0.1)\ndef add(a, b):\n    return {returned}\n"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def graded(folder):
    """``verigym grade`` of many predictions for one task."""
    row = {"task_id": 1, "text": "Add.", "code": "", "test_list": ["assert add(1, 2) == 3"]}
    predictions = [{"task_id": 1, "prediction": body_of(at)} for at in range(NUM_PROGRAMS)]
    given = write(folder / "predictions.jsonl", predictions)
    return ["grade", "mbpp", "--data", write(folder / "data.jsonl", [row]), "--predictions", given]


def evaluated(folder):
    """``verigym eval`` of the gold programs, a third of which are wrong, of many tasks."""
    rows = [
        {"task_id": at, "text": "Add.", "code": body_of(at), "test_list": ["assert add(1, 2) == 3"]}
        for at in range(NUM_PROGRAMS)
    ]
    return ["eval", "mbpp", "--data", write(folder / "data.jsonl", rows), "--policy", "gold"]


@pytest.mark.slow
@pytest.mark.parametrize("command_of", [graded, evaluated])
def test_killed_five_times_it_ends_with_the_same_verdicts(command_of, tmp_path):
    asked = command_of(tmp_path)
    before = processes()

    def command(out):
        return [sys.executable, "-m", "verigym", *asked, "--sandbox", "local", "--workers", "2", "--out", str(out)]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), check=True, stdout=subprocess.DEVNULL)
    draw, sizes = random.Random(5), []
    path = killed / "verdicts.jsonl"
    for _ in range(5):
        done = len(path.read_bytes().splitlines()) if path.exists() else 0
        target = min(done + draw.randint(0, 9), NUM_PROGRAMS - 2)
        process = subprocess.Popen(command(killed), stdout=subprocess.DEVNULL)
        while process.poll() is None and not (path.exists() and len(path.read_bytes().splitlines()) >= target):
            time.sleep(0.01)
        time.sleep(draw.random() / 5)
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        assert process.wait() == -signal.SIGKILL
        sizes.append(len(path.read_bytes().splitlines()) if path.exists() else 0)
    assert sizes == sorted(sizes)
    assert sizes[-1] > 0
    subprocess.run(command(killed), check=True, stdout=subprocess.DEVNULL)
    keys = ("task_id", "index", "passed", "score", "ending", "detail")
    assert [[row[key] for key in keys] for row in rows_of(path)] == [
        [row[key] for key in keys] for row in rows_of(whole / "verdicts.jsonl")
    ]
    assert [row["passed"] for row in rows_of(path)] == [True, False, True] * (NUM_PROGRAMS // 3)
    until = time.monotonic() + 60
    while processes() - before and time.monotonic() < until:
        time.sleep(0.1)
    assert processes() <= before
