"""``verigym grade`` with programs, killed with SIGKILL again and again, ends as one that was left alone."""

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


@pytest.mark.slow
def test_killed_five_times_grade_ends_with_the_same_verdicts(tmp_path):
    data, predictions = tmp_path / "data.jsonl", tmp_path / "predictions.jsonl"
    row = {"task_id": 1, "text": "Add.", "code": "", "test_list": ["assert add(1, 2) == 3"]}
    data.write_text(json.dumps(row) + "\n")
    # Right, wrong, and one that ends by its limit; each takes a while, so that a kill meets it at work.
    wait = "import time\ntime.sleep(0.1)\n"
    bodies = ["a + b", "a - b", "a + b if time.sleep(0.2) is None else 0"]
    predictions.write_text(
        "".join(
            json.dumps({"task_id": 1, "prediction": f"{wait}def add(a, b):\n    return {bodies[at % 3]}\n"}) + "\n"
            for at in range(NUM_PROGRAMS)
        )
    )
    before = processes()

    def command(out):
        argv = [sys.executable, "-m", "verigym", "grade", "mbpp", "--data", str(data)]
        return [*argv, "--predictions", str(predictions), "--sandbox", "local", "--workers", "2", "--out", str(out)]

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
