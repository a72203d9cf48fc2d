"""Best of k patches of a real small repository: the right one is chosen though a wrong one is in the majority."""

import asyncio
import json

import pytest

from verigym.agent.loop import Budget
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.datasets.swe import row_of
from verigym.envs.datasets.swe_examples import example_tasks
from verigym.envs.sandbox.choose import make_backend
from verigym.errors import SandboxError
from verigym.evals.scaling.report import scaling_report
from verigym.evals.scaling.run import select_patches, write_tests
from verigym.evals.scaling.write_tests import TEST_FILE
from verigym.evals.verdict import Verdict
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Sampling

SHOWS = "from shelf import Shelf\n\n\ndef test_it_fits():\n    assert Shelf(4).put('Ulysses', 4)\n"
NOTES = "diff --git a/notes.txt b/notes.txt\nnew file mode 100644\n--- /dev/null\n+++ b/notes.txt\n"
NOTES += "@@ -0,0 +1 @@\n+nothing\n"


@pytest.fixture(scope="module")
def backend():
    try:
        return make_backend("local")
    except SandboxError as error:
        pytest.skip(f"no sandbox works here: {error}")


def call(name, **arguments):
    return Message(role="assistant", content="", calls=(ToolCall(name=name, arguments=arguments),))


def writer(text):
    return ScriptedPolicy(play([call("create", path=TEST_FILE, content=text), call("submit")]))


def test_generated_and_existing_tests_choose_the_right_patch(backend, tmp_path):
    task = example_tasks()[0]
    right = row_of(task).patch
    scripts = [SHOWS, "# the same\n" + SHOWS, "def test_nothing():\n    assert True\n", "no python("]
    order = iter(scripts)

    async def work():
        options = {"samples": 4, "budget": Budget(), "sampling": Sampling(), "sandbox": backend, "workers": 1}
        tests = await write_tests([task], lambda env, task: writer(next(order)), out=tmp_path, **options)
        again = await write_tests([task], lambda env, task: writer("not asked"), out=tmp_path, **options)
        patches = {task.id: {0: NOTES, 1: NOTES, 2: right}}
        verdicts = [
            Verdict(task_id=task.id, index=i, passed=i == 2, score=float(i == 2), ending="submitted") for i in range(3)
        ]
        chosen, told = await select_patches(backend, [task], patches, verdicts, tests)
        return tests, again, chosen, told, scaling_report(verdicts, chosen)

    tests, again, chosen, told, report = asyncio.run(work())
    assert tests == again == {task.id: scripts}
    assert told[0]["num_generated"] == 1, told
    assert chosen == {task.id: 2}
    assert told[0]["num_passed"]["2"] > told[0]["num_passed"]["0"]
    assert (report["selected"], report["oracle"], report["random"]) == (1.0, 1.0, pytest.approx(1 / 3))
    rows = [json.loads(line) for line in (tmp_path / "tests.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
