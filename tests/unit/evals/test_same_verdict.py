"""``verigym eval`` and ``verigym grade`` have one verdict of one text, also where its limit of tokens cut it off."""

import asyncio

import pytest

from verigym.agent.loop import Budget
from verigym.agent.policy import Turn
from verigym.envs.datasets.files import SourceRow
from verigym.envs.registry.opening import open_env
from verigym.evals.grade import grade
from verigym.evals.predictions import match
from verigym.evals.run import evaluate, prediction_of
from verigym.evals.suites.registry import suite_named
from verigym.evals.suites.spec import GradeOptions, LoadOptions, Prediction
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Sampling

HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": "from typing import List\nimport math\n\n\ndef up(x: float) -> int:\n    return math.ceil(x)\n\n\n"
    'def rounded(values: List[float]) -> List[int]:\n    """ Each rounded up. """\n',
    "entry_point": "rounded",
    "canonical_solution": "    return [up(one) for one in values]\n",
    "test": "def check(candidate):\n    assert candidate([1.5, 2.0]) == [2, 2]\n",
}
WHOLE = "def rounded(values: List[float]) -> List[int]:\n    return [up(one) for one in values]"
CRUXEVAL = {"id": "s", "code": "def f(x):\n    return x + [1]", "input": "[0]", "output": "[0, 1]"}
MATH = {"unique_id": "m", "problem": "?", "answer": "5"}

# suite -> row, task's id, texts
SUITES = {
    "humaneval": (
        HUMANEVAL,
        "HumanEval/0",
        [
            f"```python\n{WHOLE}\n```",
            f"Here it is:\n```\n{WHOLE}\n```\nIt rounds",
            f"```python\n{WHOLE}",
            f"```python\n{WHOLE[:-9]}",
            WHOLE,
            "    return [up(one) for one in values]",
            f"```python\nimport math\nup = math.floor\n{WHOLE}\n```",
            f"<think>\n```python\n{WHOLE}\n```",
            f"<think>\nhm\n</think>\n```python\n{WHOLE}\n```",
            "I would round",
            "",
            "\ud83d```",
        ],
    ),
    "cruxeval": (
        CRUXEVAL,
        "s/output",
        [
            "[ANSWER][0, 1][/ANSWER]",
            "[ANSWER]assert f([0]) == [0, 1]\nassert f([1]) == [1, 1]",
            "[ANSWER][0,",
            "[0, 1]",
            "",
        ],
    ),
    "math500": (
        MATH,
        "m",
        [
            "so \\boxed{5}",
            "The answer is 5.",
            "\\boxed{5} so it is",
            "which suggests $k = 5$. But I still",
            "$5",
            "\\boxed{5",
            "",
        ],
    ),
}


class Says:
    def __init__(self, text, finish_reason):
        self.text, self.finish_reason = text, finish_reason

    async def respond(self, conversation, tools, sampling):
        message = Message(role="assistant", content=self.text)
        return Turn(message=message, action=self.text, finish_reason=self.finish_reason)


@pytest.mark.parametrize("finish_reason", ["stop", "length"])
@pytest.mark.parametrize("name", SUITES)
def test_one_text_has_one_verdict(name, finish_reason):
    row, task_id, texts = SUITES[name]
    suite = suite_named(name)
    (task,) = [task for task in suite.tasks_of([SourceRow(where="", value=row)], LoadOptions()) if task.id == task_id]
    offered = {"sandbox": "local", **suite.env_kwargs}

    async def both(text):
        seen = []
        (evaluated,) = await evaluate(
            [task],
            lambda task: open_env(suite.env_ids[task.family], offered),
            lambda env, task: Says(text, finish_reason),
            samples=1,
            budget=Budget(turns=1),
            sampling=Sampling(),
            progress=lambda verdict, trajectory: seen.append(trajectory),
        )
        written = prediction_of(seen[0], None, "p")
        given = Prediction(
            where="", task_id=task_id, given_id=task_id, text=written["prediction"], fields={**written, "index": 0}
        )
        grader = suite.make_grader(GradeOptions(sandbox="local", workers=1))
        (graded,) = await grade(match(suite, [task], [given]), grader, workers=1)
        return evaluated, graded

    async def all_of_them():
        return [await both(text) for text in texts]

    found = asyncio.run(all_of_them())
    assert [one.passed for one, _ in found] == [other.passed for _, other in found]
    assert found[0][0].passed is True
    assert found[-1][0].passed is False
    if finish_reason == "length":
        assert {one.ending for one, _ in found} == {"token_limit"}
    if name == "humaneval":
        assert [one.passed for one, _ in found] == [
            True,
            True,
            True,
            False,
            False,
            True,
            False,
            False,
            True,
            False,
            False,
            False,
        ]
