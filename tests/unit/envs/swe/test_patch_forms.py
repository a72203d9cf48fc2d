"""Patches of any writer: what git or patch takes is submitted and applied; SWE-bench's ladder is the measure."""

import asyncio
import subprocess

import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.datasets.swe import row_of
from verigym.envs.datasets.swe_examples import example_tasks
from verigym.envs.sandbox.types import Limits
from verigym.envs.swe.checkout import checkout, placed
from verigym.envs.swe.cwm import CwmSWEEnv
from verigym.envs.swe.patching import apply_patch
from verigym.model.chat.sampling import Sampling
from verigym.rewards.patches import is_patch

BEFORE = "def add(a, b):\n    return a - b\n\n\ndef twice(x):\n    return 2 * x\n"


def forms(tmp_path, gold):
    """One change to pkg/calc.py, and a new file, as different programs and people write them."""
    for name, files in (("old", {"pkg/calc.py": BEFORE}), ("new", {"pkg/calc.py": gold, "pkg/more.py": "x = 1\n"})):
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)

    def diff(*options):
        return subprocess.run(["diff", *options, "old", "new"], cwd=tmp_path, capture_output=True, text=True).stdout

    git = subprocess.run(
        ["git", "diff", "--no-index", "--src-prefix=", "--dst-prefix=", "old", "new"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    ).stdout
    bare = "".join(line for line in git.splitlines(True) if line.startswith(("---", "+++", "@@", "+", "-", " ", "\\")))
    mail = (
        f"From {'0' * 40} Mon Sep 17 00:00:00 2001\nFrom: a <a@b>\nSubject: [PATCH] mend\n\nIt adds.\n---\n 2 files\n\n"
    )
    return {
        "git's": git,
        "bare": bare,
        "bare, without a last line end": bare.rstrip("\n"),
        "diff -ruN": diff("-ruN"),
        "diff -rcN": diff("-rcN"),
        "a mail": f"{mail}{git}-- \n2.39.2\n\n",
        "after words": f"Here is the patch.\n\n{git}",
        "with Subversion's lines": bare.replace(
            "--- old/pkg/calc.py", f"Index: pkg/calc.py\n{'=' * 67}\n--- old/pkg/calc.py"
        ),
        "with blank lines at its end": f"{git}\n\n",
        "with wrong line numbers": git.replace("@@ -1,5 +1,5 @@", "@@ -3,5 +3,5 @@"),
        "with a line of its context changed": git.replace(" def twice(x):", " def twice(y):"),
        "with Windows lines": bare.replace("\n", "\r\n"),
    }


FORMS = (
    *("git's", "bare", "bare, without a last line end", "diff -ruN", "diff -rcN", "a mail", "after words"),
    *("with Subversion's lines", "with blank lines at its end", "with wrong line numbers"),
    *("with a line of its context changed", "with Windows lines"),
)


@pytest.mark.parametrize("form", FORMS)
def test_a_form_that_git_or_patch_takes_is_a_patch_and_is_applied(form, vault, gold, tmp_path):
    patch = forms(tmp_path, gold)[form]
    assert is_patch(patch)

    async def apply():
        row = placed(row_of(vault.task), vault.backend)
        async with checkout(vault.backend, row, limits=Limits()) as box:
            problem, applied = await apply_patch(box, patch, root=row.root)
            return problem, applied, (await box.aexec("cat pkg/calc.py pkg/more.py")).output

    problem, applied, text = asyncio.run(apply())
    assert problem is None, problem
    assert text.replace("\r", "") == gold + "x = 1\n"
    assert (applied.changed, applied.added) == (("pkg/calc.py",), ("pkg/more.py",))


@pytest.mark.parametrize("task", example_tasks(), ids=lambda task: task.id)
def test_gold_of_cwms_own_tasks_scores_one(local_backend, task):
    assert not row_of(task).patch.startswith("diff")
    env = CwmSWEEnv(sandbox=local_backend)
    for script, reward in ((env.gold(task), 1.0), (env.empty(task), 0.0)):
        policy = ScriptedPolicy(play(script))
        found = asyncio.run(rollout(env, policy, task, budget=Budget(), sampling=Sampling()))
        assert (found.reward, found.ending) == (reward, "answered"), found.detail


@pytest.mark.parametrize("text", ["", "print('--- a')\n", "--- a\n", "It is fixed.\n", "@@ -1 +1 @@\n-a\n+b\n"])
def test_what_holds_no_change_is_not_submitted(text):
    assert not is_patch(text)
