"""An evaluation that is killed with SIGKILL, again and again, ends as one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = """
import asyncio, hashlib, sys
from pathlib import Path
from verigym.agent.loop import Budget
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.core import ToolEnv
from verigym.envs.task import Task
from verigym.evals.run import evaluate
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Sampling
from verigym.rewards.score import verdict

class Env(ToolEnv):
    family = "toy"
    async def start(self, task):
        await asyncio.sleep(0.01)
    def score(self, task, submission):
        return verdict(submission == "even")

def policy_for(env, task):
    said = "even" if hashlib.sha256(task.id.encode()).digest()[0] % 2 == 0 else "odd"
    return ScriptedPolicy(play([Message(role="assistant", content=said)]))

tasks = [Task(id=f"t{i}", family="toy", prompt="?") for i in range(40)]
asyncio.run(evaluate(tasks, lambda task: Env(), policy_for, samples=3, budget=Budget(), sampling=Sampling(seed=1),
                     concurrency=3, out=Path(sys.argv[1]), save_trajectories=True))
"""


def verdicts_of(folder: Path):
    rows = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in ("task_id", "index", "passed", "score", "ending")} for row in rows]


def test_killed_five_times_it_ends_with_the_same_verdicts(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([sys.executable, str(program), str(whole)], check=True)
    times = random.Random(7)
    kills, sizes = 0, []
    while kills < 5:
        process = subprocess.Popen([sys.executable, str(program), str(killed)])
        path = killed / "verdicts.jsonl"
        target = (path.stat().st_size if path.exists() else 0) + times.randint(0, 1500)
        while process.poll() is None and not (path.exists() and path.stat().st_size > target):
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        sizes.append(len(path.read_bytes().splitlines()))
        if process.returncode == 0:
            break
    assert kills == 5, f"it ended before it could be killed, with {sizes} verdicts"
    assert sizes == sorted(sizes)
    subprocess.run([sys.executable, str(program), str(killed)], check=True)
    assert verdicts_of(killed) == verdicts_of(whole)
    for name in ("preds.jsonl", "trajectories.jsonl"):
        keys = [(row["task_id"], row["index"]) for row in map(json.loads, (killed / name).read_text().splitlines())]
        assert sorted(keys) == sorted({(row["task_id"], row["index"]) for row in verdicts_of(whole)})
