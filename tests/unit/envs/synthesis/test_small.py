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
from verigym.envs.synthesis.secrecy import changed_lines
from verigym.envs.synthesis.small_functions import (
    KINDS,
    OPERATORS,
    WORDS,
    Rule,
    draw_function,
    mistaken,
    value_of,
)
from verigym.envs.synthesis.small_programs import small_programs
from verigym.envs.synthesis.small_repairs import small_repairs
from verigym.envs.synthesis.small_repositories import (
    FILES,
    NUM_FUNCTIONS,
    NUM_STALE,
    places,
    small_module,
    small_modules,
    write_modules,
    write_small_repository,
)
from verigym.envs.synthesis.small_sums import small_sums
from verigym.envs.synthesis.small_tasks import broken_module, write_small_repository_tasks
from verigym.envs.synthesis.word_problems import HELD_OUT, TRAIN, word_problems
from verigym.envs.trace.twins import twin_key
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


# Word problems.


@pytest.mark.parametrize("held_out", [False, True])
def test_word_problems_have_whole_answers_that_they_do_not_state(held_out):
    tasks = word_problems(num=200, seed=0, held_out=held_out)
    assert tasks == word_problems(num=200, seed=0, held_out=held_out)
    assert len({task.id for task in tasks}) == len({task.prompt for task in tasks}) == 200
    for task in tasks:
        stated = re.findall(r"\d+", task.prompt)
        assert eval(task.hidden["solution"].replace("//", "/")) == int(task.hidden["answer"]) > 0, task.prompt
        assert task.hidden["answer"] not in stated
        (step,) = task.hidden["mistakes"]
        assert (len(re.findall(r"\d+", step)), str(eval(step)) != task.hidden["answer"]) == (2, True)
        assert set(re.findall(r"\d+", task.hidden["solution"])) == set(stated)


def test_half_of_the_word_problems_held_out_are_new_stories_and_none_has_numbers_of_training():
    assert not {story for story, _ in TRAIN} & {story for story, _ in HELD_OUT}
    tasks = word_problems(num=8 * len(HELD_OUT), seed=1, held_out=True)
    told = [(split, int(place)) for _, split, place, *_ in (task.id.split("-") for task in tasks)]
    assert told[32:] == [("stories", place) for place in range(len(HELD_OUT)) for _ in range(4)]
    assert [split for split, _ in told[:32]] == ["numbers"] * 32
    assert len(set(told[:32])) == 32
    numbers = {tuple(map(int, task.id.split("-")[3:])) for task in tasks}
    trained = {tuple(map(int, task.id.split("-")[3:])) for task in word_problems(num=1000, seed=1, held_out=False)}
    assert not numbers & trained


def test_a_story_has_no_more_problems_than_numbers():
    with pytest.raises(TaskError, match=r"100000 word problems were asked for, and \d+ were found"):
        word_problems(num=100_000, seed=0, held_out=True)


# Repairs of one line.


def test_tests_of_a_repair_pass_its_solution_and_fail_what_is_as_it_was():
    tasks = small_repairs(num=80, seed=0, held_out=False)
    assert tasks == small_repairs(num=80, seed=0, held_out=False)
    for task in tasks:
        broken = task.prompt.partition("```python\n")[2].removesuffix("```")
        assert task.hidden["mistakes"] == [broken]
        for source, right in ((task.hidden["solution"], True), (broken, False)):
            scope = {}
            exec(source, scope)
            found = [scope[task.hidden["fn_name"]](*test["args"]) for test in task.hidden["tests"]]
            assert (found == [test["expected"] for test in task.hidden["tests"]]) is right, task.prompt
    assert Counter(task.id.split("-")[1] for task in tasks) == dict.fromkeys(KINDS, 20)


def test_repairs_of_the_splits_share_no_function_by_any_name():
    train, held_out = (
        {
            twin_key(task.hidden["solution"])
            for seed in SEEDS
            for task in small_repairs(num=num, seed=seed, held_out=split)
        }
        for split, num in ((False, 400), (True, 100))
    )
    assert not train & held_out


# Repositories.


def drawn(seed, held_out, num=16):
    rng = random.Random(f"{seed}/{held_out}")
    return [small_module(file, rng, held_out=held_out) for file in rng.sample(FILES, num)]


def scope_of(source):
    scope = {}
    exec(source, scope)
    return scope


def test_no_function_of_a_held_out_file_is_one_of_the_training_file():
    found = {held_out: set(places(held_out=held_out)) for held_out in (False, True)}
    assert not found[False] & found[True]
    for held_out in (False, True):
        assert len(found[held_out]) == {True: 400, False: 1200}[held_out]
        modules = [module for seed in range(4) for module in drawn(seed, held_out)]
        modules += [broken_module(number, 0, held_out)[0].module for number in range(40)]
        for module in modules:
            names = [one.name for one in module.functions]
            assert len(set(names)) == NUM_FUNCTIONS
            assert {(module.name, name) for name in names} <= found[held_out]


@pytest.mark.parametrize("held_out", [True, False])
def test_modules_of_a_repository_share_no_name(held_out):
    for seed in range(10):
        modules = small_modules(random.Random(seed), held_out=held_out, num=4 if held_out else 3)
        names = [one.name for module in modules for one in (module, *module.functions)]
        assert len(set(names)) == len(names)


def test_no_name_is_the_beginning_of_another():
    """Commands find a function by "def NAME"."""
    assert not [(a, b) for a in WORDS for b in WORDS if a != b and b.startswith(a)]


def test_every_task_is_about_a_place_of_its_own():
    found = [broken_module(number, seed=0, held_out=True)[0] for number in range(60)]
    assert len({(broken.module.name, broken.function.name) for broken in found}) == 60
    with pytest.raises(TaskError, match="this split has 400 small repositories"):
        broken_module(400, seed=0, held_out=True)


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        write_small_repository(tmp_path / name, seed=seed, held_out=True)
    a, b, c = ({p.name: p.read_text() for p in (tmp_path / name / "pkg").iterdir()} for name in "abc")
    assert a == b != c
    assert len(a) == 4


def test_a_module_does_what_its_comments_and_its_tests_say():
    for module in drawn(2, False):
        scope = scope_of(module.source())
        exec(module.tests().partition("\n")[2], scope)
        tests = [name for name in scope if name.startswith("test_")]
        assert tests == [f"test_{one.name}" for one in module.functions]
        for name in tests:
            scope[name]()
        assert all(one.said == one.rule for one in module.functions)
        heads = [line for line in module.source().splitlines() if line.startswith("def ")]
        assert [line.partition("  # ")[2] for line in heads] == [one.rule.words for one in module.functions]


@pytest.mark.parametrize("name", list(OPERATORS))
def test_a_rule_gives_what_its_code_gives(name):
    for right in ("b", "7"):
        rule = Rule(left="a", operator=name, right=right)
        for call in [(3, 7), (7, 3), (7, 7), (29, 4)]:
            assert value_of(rule, ("a", "b"), call) == eval(rule.code, {"a": call[0], "b": call[1]})
    assert rule.words == f"a {OPERATORS[name]} 7"


@pytest.mark.parametrize("kind", KINDS)
def test_a_mistake_is_of_its_kind(kind):
    rng = random.Random(kind)
    for _ in range(40):
        function = draw_function("f", rng, kind=kind)
        right, wrong = function.rule, mistaken(function, rng, kind=kind)
        changed = {part for part in ("left", "operator", "right") if getattr(right, part) != getattr(wrong, part)}
        assert changed == {"operator" if kind in ("operator", "bound") else "right"}
        assert wrong.right in function.arguments if kind == "operand" else True
        assert wrong.right.isdecimal() if kind == "constant" else True
        assert wrong.operator.rstrip("=") == right.operator.rstrip("=") if kind == "bound" else True


def test_three_functions_contradict_their_comments_and_the_tests_tell_one():
    for number in range(4 * NUM_FUNCTIONS):
        broken, _ = broken_module(number, seed=3, held_out=False)
        module, function = broken.module, broken.function
        assert (broken.bug, broken.kind) == (number % NUM_FUNCTIONS, KINDS[number // NUM_FUNCTIONS])
        is_broken = {one.name: broken.rule if one is function else one.rule for one in module.functions}
        contradicted = [one for one in module.functions if is_broken[one.name] != one.said]
        assert len(contradicted) == 1 + NUM_STALE
        assert function.said == function.rule != broken.rule
        for one in module.functions:
            results = one.results(is_broken[one.name])
            assert (results[0] != one.results()[0]) == (one is function)
            # Whoever heeds a comment that is out of date breaks what worked.
            assert (one.results(one.said)[0] == one.results()[0]) == (one.said == one.rule)


def test_the_hidden_tests_tell_every_other_line_that_behaves_otherwise():
    rng = random.Random(0)
    for number in range(NUM_FUNCTIONS * len(KINDS)):
        function = broken_module(number, seed=5, held_out=True)[0].function
        assert len(function.calls) > 1
        calls = [tuple(rng.randrange(2, 40) for _ in function.arguments) for _ in range(300)]
        right = [value_of(function.rule, function.arguments, call) for call in calls]
        for left in function.arguments:
            for does in OPERATORS:
                for other in (*function.arguments, "2", "7", "28"):
                    rule = Rule(left=left, operator=does, right=other)
                    if other == left or function.results(rule) != function.results():
                        continue
                    # What they do not tell differs, if at all, in a few arguments of very many.
                    values = [value_of(rule, function.arguments, call) for call in calls]
                    assert sum(a != b for a, b in zip(values, right)) <= 15, (function, rule)


def test_the_repository_checks_itself(tmp_path):
    """Its own runner, as an agent starts it: on the right code, on the broken, and on what does not parse."""
    broken, _ = broken_module(5, seed=1, held_out=True)
    others = small_modules(random.Random(1), held_out=True, num=2, but=[broken.module])
    for source, said in (
        (broken.module.source(), "all pass"),
        (broken.source, f"def {broken.function.name} FAILED"),
        ("def f(:", f"ERROR test_{broken.module.name}.py: SyntaxError"),
    ):
        write_modules(tmp_path, [broken.module, *others], {broken.module.name: source})
        command = [sys.executable, "-B", "check.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == f"{said}\n"


def test_rows_are_of_the_schema_and_their_bugs_spread(tmp_path):
    path = tmp_path / "rows.jsonl"
    made = []
    asyncio.run(write_small_repository_tasks(path, num=32, seed=0, held_out=True, workers=2, progress=made.append))
    assert made == list(range(1, 33))
    rows = [row_of(task) for task in read_any_tasks(path)]
    assert len({row.instance_id for row in rows}) == 32
    kinds = Counter(task.metadata["operator"] for task in read_any_tasks(path))
    assert kinds == dict.fromkeys(KINDS, 8)
    for number, row in enumerate(rows):
        broken, _ = broken_module(number, 0, True)
        assert Path(row.archive).is_file()
        assert f"tests/test_{broken.module.name}.py::test_{broken.function.name}" in row.FAIL_TO_PASS
        assert len({*row.FAIL_TO_PASS, *row.PASS_TO_PASS}) == 2 * NUM_FUNCTIONS - 1 + len(broken.function.calls)
        assert broken.function.name not in row.problem_statement
        assert f"+def test_{broken.function.name}_2():" in row.test_patch
        assert not {one for one in changed_lines(row.patch) if one in row.problem_statement}


def test_every_patch_of_a_task_is_one_that_git_takes(tmp_path):
    path = tmp_path / "tasks.jsonl"
    asyncio.run(write_small_repository_tasks(path, num=24, seed=77, held_out=False, workers=2))
    rows = [row_of(task) for task in read_any_tasks(path)]
    for row in rows:
        for patch in (row.patch, *filter(None, [row.test_patch])):
            done = subprocess.run(["git", "apply", "--numstat", "-"], input=patch, text=True, capture_output=True)
            assert done.returncode == 0, (row.instance_id, done.stderr)
