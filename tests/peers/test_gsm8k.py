"""GSM8K with a Python tool beside NeMo Gym's server of its kind, ``math_with_code``: what final answers are worth."""

import asyncio
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.errors import SandboxError
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Sampling

PYTHON = os.environ.get("PEER_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="PEER_PYTHON names no interpreter with nemo-gym; make test-peers")

SAME = [
    "So it is \\boxed{7}.",
    "\\boxed{7.0}",
    "\\boxed{ 7 }",
    "first \\boxed{8}, no: \\boxed{7}",
    "first \\boxed{7}, no: \\boxed{8}",
    "\\boxed{\\text{7}}",
    "\\boxed{$7$}",
    "\\boxed{07}",
    "\\boxed{\\frac{14}{2}}",
    "\\boxed{-7}",
    "\\boxed{7,000}",
    "\\boxed{7e0}",
    "\\boxed{3+4}",
    "\\boxed{}",
    "",
]
OURS_ALONE = ["The answer is 7.", "#### 7", "7", "\\boxed{7 pens}", "\\boxed{7"]
"""What ours takes and theirs does not: an answer without a box, with its unit, or in a box that is not closed."""

THEIRS = """
import json, sys
from resources_servers.math_with_code.app import _answers_match, _extract_boxed_answer
print(json.dumps([float(_answers_match(_extract_boxed_answer(text), "7")) for text in json.load(sys.stdin)]))
"""


def worth(texts):
    told = subprocess.run([PYTHON, "-c", THEIRS], input=json.dumps(texts), capture_output=True, text=True, check=True)
    return json.loads(told.stdout.splitlines()[-1])


async def ours(texts, make):
    rewards = []
    for text in texts:
        env, policy = make(), ScriptedPolicy(play([Message(role="assistant", content=text)]))
        rewards.append((await rollout(env, policy, env.load()[0], budget=Budget(), sampling=Sampling())).reward)
    return rewards


def test_final_answers_are_worth_the_same_where_they_stand_in_a_box(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "examples" / "environments"))
    sys.modules.pop("gsm8k", None)
    make = importlib.import_module("gsm8k").Gsm8k

    try:
        found = asyncio.run(ours([*SAME, *OURS_ALONE], make))
    except SandboxError as error:
        pytest.skip(f"no sandbox works here: {error}")
    theirs = worth([*SAME, *OURS_ALONE])
    assert found[: len(SAME)] == theirs[: len(SAME)]
    assert 0 < sum(theirs) < len(SAME)
    assert set(found[len(SAME) :]) == {1.0}
    assert set(theirs[len(SAME) :]) == {0.0}
