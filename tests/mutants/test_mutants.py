"""Deliberate mistakes, one at a time: each must be noticed by the tests that it names.

The lists are the TOML files beside this one; ``load`` is what a list's process imports once, before it forks for each
mutant. ``make mutants`` applies every mutant to a copy of the tree and runs its tests there, as pytest names them
("FILE::TEST"); that each still fits the code is checked with the other tests.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LISTS = sorted(Path(__file__).parent.glob("*.toml"))
READ = {path.stem: tomllib.loads(path.read_text("utf-8")) for path in LISTS}
MUTANTS = [{"list": name, **mutant} for name, read in READ.items() for mutant in read["mutant"]]
KEYS = {"name", "file", "old", "new", "tests", "select", "list"}
TIMEOUT_S = 600


def named(mutant):
    return re.sub(r"\W+", "-", f"{mutant['list']}-{mutant['name']}")


@pytest.mark.parametrize("mutant", MUTANTS, ids=named)
def test_a_mutant_fits_the_code(mutant):
    assert mutant.keys() <= KEYS
    assert (ROOT / mutant["file"]).read_text(encoding="utf-8").count(mutant["old"]) == 1
    assert mutant["new"] != mutant["old"]
    assert [name for name in mutant["tests"] if not is_there(name)] == []


def is_there(name):
    path, _, test = name.partition("::")
    found = ROOT / path
    return found.exists() and (not test or f"def {test.partition('[')[0]}(" in found.read_text(encoding="utf-8"))


def test_there_are_enough_and_none_twice():
    assert len({named(mutant) for mutant in MUTANTS}) == len(MUTANTS) >= 120


class Runner:
    """A copy of the tree, importable as ``verigym`` before the installed one, and what runs tests of it."""

    def __init__(self, folder):
        self.root = folder / "verigym"
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0"):
            if name and (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, self.root / name)
        self.env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        self.env = {name: value for name, value in self.env.items() if not name.startswith("PYTEST_")}
        self.processes = {}

    def process(self, name):
        """What runs the tests of a list, with what these need loaded."""
        if name not in self.processes:
            self.processes[name] = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("runner.py")), *READ[name].get("load", [])],
                cwd=self.root,
                env=self.env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        return self.processes[name]

    def run(self, mutant):
        """(pytest's exit code, None where it hangs; what it said) with a mistake in the tree."""
        path = self.root / mutant["file"]
        right = path.read_text(encoding="utf-8")
        path.write_text(right.replace(mutant["old"], mutant["new"]), encoding="utf-8")
        try:
            return self.tests(mutant["list"], *mutant["tests"], select=mutant.get("select"))
        finally:
            path.write_text(right, encoding="utf-8")

    def tests(self, listed, *names, select=None):
        process = self.process(listed)
        chosen = ["-k", select] if select else []
        # A test that is named runs whatever its marks; of a file, those without one.
        marks = ["-m", ""] if all("::" in name for name in names) else []
        arguments = ["-q", "-x", "-p", "no:cacheprovider", *marks, *chosen, *names]
        process.stdin.write(json.dumps({"arguments": arguments, "timeout_s": TIMEOUT_S}) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        return answer["code"], answer["told"]

    def close(self):
        for process in self.processes.values():
            process.stdin.close()
            process.wait()
            process.stdout.close()


@pytest.fixture(scope="session")
def runner(tmp_path_factory):
    runner = Runner(tmp_path_factory.mktemp("mutants"))
    yield runner
    runner.close()


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=named)
def test_a_mutant_is_noticed(mutant, runner):
    code, told = runner.run(mutant)
    assert code in (1, None), told
    assert "ERROR collecting" not in told, told  # code that cannot be imported is noticed by whoever runs anything


@pytest.mark.slow
@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_without_a_mistake_the_same_tests_pass(path, runner):
    """Else what fails with one says nothing."""
    names = {name for mutant in MUTANTS if mutant["list"] == path.stem for name in mutant["tests"]}
    code, told = runner.tests(path.stem, *sorted(names))
    assert code == 0, told
