"""Runs to look at, made by what writes real ones."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from verigym.agent.trajectory import Segment, Trajectory
from verigym.envs.audit.certificate import Certificate
from verigym.evals.store import VerdictStore
from verigym.evals.verdict import Verdict
from verigym.evals.viewer.app import make_app
from verigym.evals.worth import worth_of
from verigym.model.chat.messages import Message, ToolCall
from verigym.trainer.learning.kept import FOUND, KeptTokens
from verigym.trainer.loops.loop import StepResult
from verigym.trainer.loops.metrics import MetricsWriter
from verigym.trainer.recipe.load import load_recipe
from verigym.trainer.recipe.record import RecordConfig
from verigym.trainer.run.folder import opened_run
from verigym.trainer.run.recording import EpisodeRecorder

NAN = math.nan
HOSTILE = (
    "</pre></script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> \" ' & &lt; "
    "\x1b[2J\x1b]0;owned\x07 \ud800 \u202egnirts\u202c \u0000 z\u0301\u0301\u0301\u0301\u0301 javascript:alert(1) "
    "${7*7} {{7*7}} <svg/onload=alert(1)>" + "W" * 400
)
PATCH = """diff --git a/pkg/calc.py b/pkg/calc.py
--- a/pkg/calc.py
+++ b/pkg/calc.py
@@ -1,4 +1,4 @@
 def total(values):
-    return sum(values) - 1
+    return sum(values)

 def mean(values):
"""


def segment(length=8, sampled_from=4, version=3):
    places = range(length)
    return Segment(
        token_ids=tuple(range(100, 100 + length)),
        loss_mask=tuple(place >= sampled_from for place in places),
        logprobs=tuple(-0.25 * (place - 3) if place >= sampled_from else NAN for place in places),
        policy_version=tuple(version if place >= sampled_from else -1 for place in places),
        roles=tuple("assistant" if place >= sampled_from else "user" for place in places),
    )


def episode(task="calc-1", group="0/calc-1", *, reward: float | None = 1.0, text="Mend total().", **changes):
    call = ToolCall(name="bash", arguments={"command": "pytest -q"})
    edit = ToolCall(
        name="edit", arguments={"path": "pkg/calc.py", "search": "sum(values) - 1", "replace": "sum(values)"}
    )
    fields = {
        "task_id": task,
        "family": "swe",
        "group_id": group,
        "ending": "submitted",
        "segments": (segment(),),
        "messages": (
            Message(role="system", content="You mend programs."),
            Message(role="user", content=text),
            Message(role="assistant", content="I look first.", thinking="hm", calls=(call,)),
            Message(role="tool", name="bash", content="F\n1 failed"),
            Message(role="assistant", content="", calls=(edit,)),
            Message(role="tool", name="edit", content="edited"),
            Message(role="assistant", content="Done."),
        ),
        "reward": reward,
        "passed": None if reward is None else reward == 1.0,
        "breakdown": {} if reward is None else {"fail_to_pass": reward, "pass_to_pass": 1.0},
        "detail": "all tests passed" if reward == 1.0 else "test_total: failed",
        "num_turns": 3,
        "timings": {"policy": 1.0, "environment": 0.5, "grading": 0.25, "total": 1.75},
        "evidence": {
            "patch": PATCH,
            "tests": {"test_total": "passed" if reward == 1.0 else "failed", "test_mean": "passed"},
        },
    }
    return Trajectory(**{**fields, **changes})


def kept(index, length=8, sampled_from=4):
    column = np.where(np.arange(length) >= sampled_from, 0.5, NAN).astype(np.float32)
    return KeptTokens(episode=index, segment=0, columns={**dict.fromkeys(FOUND, column), "advantage": column})


def step_result(step, num_groups=2, size=4, make=episode):
    families = ("swe", "code", "math")
    episodes = []
    for group in range(num_groups):
        for sample in range(size):
            reward = 1.0 if (sample + step + group) % 3 == 0 else 0.0
            one = make(task=f"task-{group}", group=f"{group}/task-{group}", reward=reward, text=f"step {step}")
            episodes.append(replace(one, family=families[group % 3]))
    advantages = tuple((one.reward or 0.0) - 0.5 for one in episodes)
    rewards = [one.reward or 0.0 for one in episodes]
    metrics = {
        "rollout/reward/mean": sum(rewards) / len(rewards),
        "rollout/passed/rate": sum(rewards) / len(rewards),
        **{f"rollout/reward_{one}/mean": 0.1 * step for one in families[:num_groups]},
        "rollout/part_swe.fail_to_pass/mean": 0.5,
        "trainer/loss/mean": 1.0 / step,
        "trainer/tokens/count": 1000.0,
        "rollout/tokens_per_second/mean": 50.0,
        "trainer/lag/mean": 0.5,
    }
    tokens = tuple(kept(index) for index in range(size))
    return StepResult(step=step, metrics=metrics, trajectories=tuple(episodes), advantages=advantages, kept=tokens)


class Training:
    """A training run that goes on as long as it is told to."""

    def __init__(self, path: Path, recipe="smoke", **settings):
        root = Path(__file__).parents[4]
        overrides = [f"{key}={value}" for key, value in settings.items()]
        self.path, self.recipe = path, load_recipe(root / "recipes" / f"{recipe}.toml", overrides)
        self._open = opened_run(self.recipe, path, resume=False)
        self._open.__enter__()
        tasks = path / "tasks"
        tasks.mkdir()
        (tasks / f"{self.recipe.families[0].name}.train.jsonl").write_text(json.dumps({"instance_id": "task-0"}) + "\n")
        (path / "rl").mkdir()
        self.metrics = MetricsWriter(path / "rl" / "metrics.jsonl")
        self.recorder = EpisodeRecorder(
            path / "rl", RecordConfig(), seed=0, resume_step=0, decode=lambda ids: f" t{ids[0]}"
        )

    def step(self, number, **changes):
        result = step_result(number, **changes)
        self.recorder.write(result)
        self.recorder.flush()
        self.metrics.write(number, result.metrics)

    def end(self, report=True):
        self.recorder.close()
        self.metrics.close()
        if report:
            (self.path / "report.json").write_text(json.dumps({"families": {"swe": {"rl": {"pass@1": 0.5, "n": 8}}}}))
        self._open.__exit__(None, None, None)


@pytest.fixture
def training():
    made = []

    def make(path, steps=3, end=True, recipe="smoke", **changes):
        one = Training(path, recipe)
        for number in range(1, steps + 1):
            one.step(number, **changes)
        if end:
            one.end()
        else:
            made.append(one)
        return one

    yield make
    for one in made:
        one.end()


def evaluation(path, passes, *, trajectories=True, policy="engine:a"):
    """An evaluation of tasks, whose samples pass as ``passes`` says: {task: (True, None, ...)}."""
    with VerdictStore(path, {"suite": "swe", "policy": policy}, save_trajectories=trajectories) as store:
        for task, samples in passes.items():
            for index, passed in enumerate(samples):
                ending = "sandbox_failure" if passed is None else "submitted"
                one = episode(task=task, group=task, reward=None if passed is None else float(passed), ending=ending)
                repo = task.split("-")[0]
                store.append(
                    Verdict.of(one, index, {"repo": repo, "difficulty": "easy" if "1" in task else "hard"}), one
                )
    return path


FLAG = {"kind": "history", "turn": 2, "what": "read git's history", "shown": "git log -p"}


def audited(path):
    """Of an evaluation with astropy-1 and django-2: the report of ``verigym eval --audit``, and flags on its passes.
    Returns the report's "worth"."""
    verdicts = [Verdict.from_json(json.loads(line)) for line in (path / "verdicts.jsonl").read_text().splitlines()]
    measured = {"mutants": {"tried": 4, "told_apart": 1}, "choices": {"tried": 2, "refused": 0}}
    found = {
        task: Certificate(instance_id=task, row_sha256="", scores={}, basis={}, kind=kind, reason="", measured=measured)
        for task, kind in (("astropy-1", "sound"), ("django-2", "weak"))
    }
    worth = worth_of(verdicts, found)
    (path / "report.json").write_text(json.dumps({"suite": "swe", "worth": worth}))
    rows = [
        {"task_id": "astropy-1", "index": 0, "conversation": True, "flags": [FLAG, {**FLAG, "turn": 0}]},
        {"task_id": "django-2", "index": 0, "conversation": True, "flags": []},
        {"task_id": "django-2", "index": 1, "conversation": True, "flags": [{**FLAG, "what": HOSTILE}]},
    ]
    (path / "passes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return worth


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium."""
    from .watching import CHROMIUM, FLAGS, sync_api

    with sync_api.sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield one
        one.close()


@pytest.fixture
def client(tmp_path):
    """Asks a server of ``tmp_path/runs``: the answer of /api/NAME."""
    app = make_app([tmp_path / "runs"], cache=lambda: _made(tmp_path / "cache"), fresh_s=20.0)
    http = TestClient(app, base_url="http://127.0.0.1:7654")

    def ask(name, status=200, **parameters):
        response = http.get(f"/api/{name}", params=parameters)
        assert response.status_code == status, response.text
        return response.json()

    ask.http = http
    return ask


def _made(folder):
    folder.mkdir(exist_ok=True)
    return folder
