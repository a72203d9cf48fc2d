"""Deliberate mistakes, one at a time: each must be noticed by the tests that it names.

The lists are the TOML files beside this one. ``make mutants`` applies every mutant to a copy of the tree and runs its
tests there; that each still fits the code is checked with the other tests.
"""

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
MUTANTS = [
    {"list": path.stem, **mutant} for path in LISTS for mutant in tomllib.loads(path.read_text("utf-8"))["mutant"]
]
KEYS = {"name", "file", "old", "new", "tests", "select", "list"}
TIMEOUT_S = 900


def named(mutant):
    return re.sub(r"\W+", "-", f"{mutant['list']}-{mutant['name']}")


@pytest.mark.parametrize("mutant", MUTANTS, ids=named)
def test_a_mutant_fits_the_code(mutant):
    assert mutant.keys() <= KEYS
    assert (ROOT / mutant["file"]).read_text(encoding="utf-8").count(mutant["old"]) == 1
    assert mutant["new"] != mutant["old"]
    assert [name for name in mutant["tests"] if not (ROOT / name).exists()] == []


def test_there_are_enough_and_none_twice():
    assert len({named(mutant) for mutant in MUTANTS}) == len(MUTANTS) >= 120


@pytest.fixture(scope="session")
def copied(tmp_path_factory):
    """A copy of the tree, importable as ``verigym`` before the installed one."""
    folder = tmp_path_factory.mktemp("mutants")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            target = folder / "verigym" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=named)
def test_a_mutant_is_noticed(mutant, copied):
    path = copied / "verigym" / mutant["file"]
    right = path.read_text(encoding="utf-8")
    path.write_text(right.replace(mutant["old"], mutant["new"]), encoding="utf-8")
    select = ["-k", mutant["select"]] if "select" in mutant else []
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *select, *mutant["tests"]]
    env = {**os.environ, "PYTHONPATH": str(copied), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    env = {name: value for name, value in env.items() if not name.startswith("PYTEST_")}
    try:
        done = subprocess.run(
            command, cwd=copied / "verigym", env=env, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        noticed = done.returncode == 1
        told = done.stdout[-2000:] + done.stderr[-2000:]
    except subprocess.TimeoutExpired:
        noticed, told = True, "the tests hang"
    finally:
        path.write_text(right, encoding="utf-8")
    assert noticed, told
