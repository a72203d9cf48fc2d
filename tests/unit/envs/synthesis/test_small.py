"""The quickstart's small tasks: right answers, mistakes that fail, and splits that share nothing."""

import asyncio
import contextlib
import io
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from verigym.envs.datasets.swe import row_of
from verigym.envs.registry.opening import read_any_tasks
from verigym.envs.synthesis.small_programs import small_programs
from verigym.envs.synthesis.small_repositories import (
    NUM_LINES,
    as_said,
    places,
    repairs_of,
    small_modules,
    write_modules,
    write_small_repository,
)
from verigym.envs.synthesis.small_sums import small_sums
from verigym.envs.synthesis.small_tasks import broken_module, write_small_repository_tasks
from verigym.envs.synthesis.statement import changed_lines
from verigym.errors import TaskError

SEEDS = range(3)


def run_program(program, text):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(program, {"input": lambda: text.rstrip("\n")})
    return out.getvalue()


# Programs.


def test_programs_have_right_tests_and_mistakes_that_fail():
    for task in small_programs(num=150, seed=0, held_out=False):
        tests = task.hidden["tests"]
        assert [run_program(task.hidden["solution"], test["input"]) for test in tests] == [
            test["output"] for test in tests
        ]
        for mistake in task.hidden["mistakes"]:
            assert any(run_program(mistake, test["input"]) != test["output"] for test in tests), task.id


def test_no_one_answer_solves_programs():
    """The commonest solution is the best policy that reads nothing."""
    tasks = small_programs(num=100, seed=0, held_out=True)
    assert len({task.hidden["solution"] for task in tasks}) == 100


def test_programs_of_the_splits_are_all_different():
    train = {task.prompt for seed in SEEDS for task in small_programs(num=600, seed=seed, held_out=False)}
    held_out = {task.prompt for seed in SEEDS for task in small_programs(num=120, seed=seed, held_out=True)}
    assert not train & held_out


def test_programs_come_in_the_number_asked_for():
    tasks = small_programs(num=37, seed=5, held_out=True)
    assert len(tasks) == len({task.id for task in tasks}) == 37
    assert tasks == small_programs(num=37, seed=5, held_out=True)
    assert tasks != small_programs(num=37, seed=6, held_out=True)
    assert {task.family for task in tasks} == {"code"}
    with pytest.raises(TaskError, match="100000 small programs were asked for, this split has"):
        small_programs(num=100_000, seed=5, held_out=True)


# Sums.


def test_sums_have_right_values_and_mistakes_that_fail():
    for task in small_sums(num=300, seed=0, held_out=False):
        assert str(eval(task.hidden["solution"])) == task.hidden["answer"], task.prompt
        for mistake in task.hidden["mistakes"]:
            assert str(eval(mistake)) != task.hidden["answer"], task.prompt


def test_sums_of_the_splits_share_no_problem():
    def numbers(held_out, num):
        tasks = [task for seed in SEEDS for task in small_sums(num=num, seed=seed, held_out=held_out)]
        return {(task.id, *re.findall(r"\d+", task.prompt)) for task in tasks}

    assert not numbers(False, 600) & numbers(True, 120)


def test_sums_come_in_the_number_asked_for():
    tasks = small_sums(num=40, seed=1, held_out=True)
    assert len(tasks) == len({task.id for task in tasks}) == len({task.prompt for task in tasks}) == 40
    assert tasks == small_sums(num=40, seed=1, held_out=True)
    assert {task.family for task in tasks} == {"math"}


# Repositories.


def drawn(seed, held_out, num=16):
    return small_modules(random.Random(f"{seed}/{held_out}"), held_out=held_out, num=num)


def test_no_place_of_the_held_out_repositories_is_one_of_the_training_ones():
    found = {held_out: set(places(held_out=held_out)) for held_out in (False, True)}
    assert not found[False] & found[True]
    for held_out in (False, True):
        assert len(found[held_out]) == {True: 400, False: 1200}[held_out]
        modules = [module for seed in range(4) for module in drawn(seed, held_out)]
        assert {(module.name, module.function) for module in modules} <= found[held_out]


def test_every_task_is_about_a_place_of_its_own():
    found = [broken_module(number, seed=0, held_out=True)[0].module for number in range(60)]
    assert len({(module.name, module.function) for module in found}) == 60
    with pytest.raises(TaskError, match="this split has 400 small repositories"):
        broken_module(400, seed=0, held_out=True)


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        write_small_repository(tmp_path / name, seed=seed, held_out=True)
    a, b, c = ({p.name: p.read_text() for p in (tmp_path / name / "pkg").iterdir()} for name in "abc")
    assert a == b != c
    assert len(a) == 4


def test_a_module_agrees_with_its_comments_and_its_tests():
    for module in drawn(2, False):
        lines = [line for line in module.source().splitlines() if "#" in line]
        assert len(lines) == NUM_LINES
        assert [as_said(line) for line in lines] == lines
        assert module.results() == [value for _, value in module.calls]
        scope = {}
        exec(module.source() + module.tests(3).partition("\n")[2], scope)
        for name in [name for name in scope if name.startswith("test_")]:
            scope[name]()
        assert sum(name.startswith("test_") for name in scope) == 3


@pytest.mark.parametrize(
    ("line", "said", "kinds"),
    [
        ("    part = a + 3  # subtract b", "    part = a - b  # subtract b", {"operator", "operand"}),
        ("    return net_gain(a, b) * 3  # times 4", "    return net_gain(a, b) * 4  # times 4", {"operand"}),
        ("    return part | 3  # add 3", "    return part + 3  # add 3", {"operator"}),
        ("    return part  # add 3", None, set()),
        ("    part = a + 3", None, set()),
        ("def f(a):", None, set()),
    ],
)
def test_a_comment_says_the_line(line, said, kinds):
    assert as_said(line) == said
    repairs = repairs_of(line)
    assert repairs.keys() == kinds
    if len(kinds) == 1:
        assert [*repairs.values()] == [said]


def test_only_the_tests_tell_a_bug_from_a_stale_comment():
    for number in range(4 * NUM_LINES):
        broken, _ = broken_module(number, seed=3, held_out=False)
        module, right = broken.module, [value for _, value in broken.module.calls]
        contradictory = [line for line in broken.source.splitlines() if repairs_of(line)]
        assert contradictory == [broken.line]
        assert len(repairs_of(broken.line)) == 2
        assert broken.bug == number % NUM_LINES
        assert all(found != value for found, value in zip(module.results({broken.bug: broken.line}), right))
        results = {kind: module.results({broken.bug: line}) for kind, line in broken.repairs.items()}
        assert results.pop(broken.kind) == right
        assert module.source({broken.bug: broken.repairs[broken.kind]}) == broken.right_source
        (wrong,) = results.values()
        assert wrong[0] != right[0]
        assert module.results({broken.bug: as_said(broken.line)})[0] != right[0]


def test_the_repository_checks_itself(tmp_path):
    """Its own runner, as an agent starts it: on the right code, on the broken, and on what does not parse."""
    broken, _ = broken_module(5, seed=1, held_out=True)
    for source in (broken.right_source, broken.source, "def f(:"):
        write_modules(tmp_path, [broken.module, *drawn(1, True, 2)], {broken.module.name: source})
        command = [sys.executable, "-B", "check.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        kind = {broken.source: "AssertionError", "def f(:": "SyntaxError"}.get(source)
        assert done.stdout == (f"{broken.module.name} fails: {kind}\n" if kind else "all pass\n")


def test_rows_are_of_the_schema_and_their_bugs_spread(tmp_path):
    path = tmp_path / "rows.jsonl"
    made = []
    asyncio.run(write_small_repository_tasks(path, num=16, seed=0, held_out=True, workers=2, progress=made.append))
    assert made == list(range(1, 17))
    rows = [row_of(task) for task in read_any_tasks(path)]
    assert len({row.instance_id for row in rows}) == 16
    kinds = Counter(task.metadata["operator"] for task in read_any_tasks(path))
    assert kinds == {"operator": 8, "operand": 8}
    for row in rows:
        assert Path(row.archive).is_file()
        assert (len(row.FAIL_TO_PASS), len(row.PASS_TO_PASS)) == (3, 2)
        assert not {one for one in changed_lines(row.patch) if one in row.problem_statement}
