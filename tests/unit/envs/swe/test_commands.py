"""Which commands of rows' scripts a runner of ours stands in for, and how tests are named there."""

import pytest

from verigym.envs.datasets.eval_scripts import eval_script_of
from verigym.envs.datasets.swe import parse_row
from verigym.envs.swe.commands import Command, command_of
from verigym.envs.swe.published import Plan, Site
from verigym.rewards.swe import TestReport

DJANGO = "./tests/runtests.py --verbosity 2 --settings=test_sqlite --parallel 1 lookup.tests"


def row_with(command: str, parser: str = "parse_log_pytest"):
    script = eval_script_of(root="/testbed", test_cmd=command)
    return parse_row(
        {"instance_id": "a", "problem_statement": "", "image": "i", "eval_script": script, "log_parser": parser}
    )


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("pytest -rA tests/test_a.py", Command(kind="pytest", files=("tests/test_a.py",))),
        (
            "pytest --no-header -rA -p no:cacheprovider a/test_a.py b/data.json",
            Command(kind="pytest", files=("a/test_a.py",)),
        ),
        ("python -m pytest -vv --tb=no t.py", Command(kind="pytest", files=("t.py",))),
        (
            "tox --current-env -epy39 -v -- tests/test_a.py",
            Command(kind="pytest", files=("tests/test_a.py",), by_tox=True),
        ),
        (
            "PYTHONWARNINGS='ignore::UserWarning' bin/test -C --verbose sympy/core/tests/test_a.py",
            Command(
                kind="sympy",
                arguments=("no_cache",),
                files=("sympy/core/tests/test_a.py",),
                env={"PYTHONWARNINGS": "ignore::UserWarning"},
            ),
        ),
        (
            "python -m unittest -v tests.test_a",
            Command(
                kind="unittest",
                arguments=("-v", "tests.test_a"),
                files=("tests/test_a.py", "tests/test_a/__init__.py", "tests.py", "tests/__init__.py"),
            ),
        ),
        (
            "/opt/python3 tests/runtests.py a",
            Command(
                kind="unittest",
                script="tests/runtests.py",
                arguments=("a",),
                files=("tests/a.py", "tests/a/__init__.py"),
                python="/opt/python3",
            ),
        ),
        ("pytest -n 4 tests/test_a.py", None),  # an option that is not known
        ("pytest tests", None),
        ("pytest tests/test_a.py && true", None),
        ("pytest t.py::test_a", None),
        ("bin/test -C --slow sympy/core/tests/test_a.py", None),
        ("bash run_tests.sh", None),
        ("pytest 'tests/test_a.py", None),
        ("export A=1\npytest tests/test_a.py", None),
    ],
)
def test_a_command_is_read_whole_or_not_at_all(command, found):
    assert command_of(row_with(command)) == found


def test_djangos_labels_are_files():
    command = command_of(row_with(DJANGO, "parse_log_django"))
    assert command is not None
    assert (command.kind, command.script) == ("unittest", "tests/runtests.py")
    assert command.arguments == tuple(DJANGO.split()[1:])
    assert command.files[:2] == ("tests/lookup/tests.py", "tests/lookup/tests/__init__.py")


@pytest.mark.parametrize(
    ("command", "parser", "own", "name"),
    [
        (DJANGO, "parse_log_django", "test_a (lookup.tests.T)\nA word. Another.", "A word. Another."),
        (DJANGO, "parse_log_django", "test_a (lookup.tests.T)", "test_a (lookup.tests.T)"),
        ("bin/test a/test_a.py", "parse_log_sympy", "a/test_a.py:test_b", "test_b"),
        ("pytest t.py", "parse_log_pytest", "t.py::test_a[x y]", "t.py::test_a[x"),
        ("pytest t.py", "parse_log_pytest_v2", "t.py::test_a[x y]", "t.py::test_a[x y]"),
        ("pytest t.py", "parse_log_requests", "t.py::test_a[/tmp/b]", "t.py::test_a[/b]"),
    ],
)
def test_tests_are_named_as_the_rows_parser_reads_them(command, parser, own, name):
    row = row_with(command, parser)
    found = command_of(row)
    assert found is not None
    plan = Plan(row=row, command=found, site=Site(python="/p", env={}))
    assert plan.name_of(own) == name


def test_of_tests_that_a_row_cannot_tell_apart_all_have_to_pass():
    row = row_with("bin/test a/test_a.py b/test_a.py", "parse_log_sympy")
    found = command_of(row)
    assert found is not None
    plan = Plan(row=row, command=found, site=Site(python="/p", env={}))
    statuses = {"a/test_a.py:test_x": "failed", "b/test_a.py:test_x": "passed", "b/test_a.py:test_y": "passed"}
    report, names = plan.renamed(TestReport(statuses=statuses, complete=True, exit_code=1))
    assert report.statuses == {"test_x": "failed", "test_y": "passed"}
    assert names["test_x"] == ["a/test_a.py:test_x", "b/test_a.py:test_x"]
