"""A small package with tests, and a sandbox that is a folder: what is tested here is not isolation."""

import asyncio
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from verigym.envs.sandbox.types import ProcessResult
from verigym.envs.synthesis.baseline import Baseline
from verigym.envs.synthesis.examine import Bug, find_failing, find_passing
from verigym.envs.synthesis.mutate import Candidate
from verigym.envs.synthesis.probing import PROBE_ENV, WORKDIR, Probe
from verigym.envs.synthesis.sources import Source, tree_source

MATHS = '''\
"""Sums."""


def total(numbers, start=0):
    """Add up numbers, 0 of which there may be."""
    result = start
    for number in numbers:  # one by one
        result += number
    return result


def largest(numbers):
    best = None
    for number in numbers:
        if best is None or number > best:
            best = number
    return best


def never_called(number):
    return number + 1
'''

MATHS_TESTS = """\
import unittest

import pytest
from sums.maths import largest, total


# adds up a few
@pytest.mark.parametrize("numbers, expected", [([1, 2], 3), ([], 0)])
def test_total(numbers, expected):
    assert total(numbers) == expected


class LargestTests(unittest.TestCase):
    def test_largest(self):
        self.assertEqual(7, largest([3, 7, 5]))

    def test_nothing(self):
        self.assertIsNone(largest([]))


def test_that_fails_anyway():
    assert total([1]) == 2
"""


class FolderSandbox:
    """Runs on this machine, in a folder that stands for WORKDIR."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def locate(self, path: str) -> Path:
        return self.folder / os.path.relpath(path, WORKDIR)

    async def arun(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout_s: float | None = None,
        output_bytes: int = 1 << 20,
    ) -> ProcessResult:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=self.locate(cwd or WORKDIR),
            env={"PATH": os.environ["PATH"], **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        stdout, stderr = await process.communicate()
        return ProcessResult(stdout=stdout, stderr=stderr, exit_code=process.returncode)

    async def read_file(self, path: str, *, most_bytes: int | None = None) -> bytes:
        return self.locate(path).read_bytes()

    async def write_file(self, path: str, data: bytes, *, mode: int | None = 0o644, new: bool = False) -> None:
        self.locate(path).parent.mkdir(parents=True, exist_ok=True)
        self.locate(path).write_bytes(data)

    async def put_archive(self, archive: bytes, dest: str) -> None:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(self.locate(dest), filter="data")

    async def aclose(self) -> None:
        pass


async def examine(probe: Probe, source: Source, baseline: Baseline, chunk: Sequence[Candidate]) -> list[Bug | str]:
    """What comes of bugs: those that tests see, and why others are not to be used."""
    found = await find_failing(probe, source, baseline, chunk)
    return [one if isinstance(one, str) else await find_passing(probe, baseline, one) for one in found]


def write_tree(root: Path, files: Mapping[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def probe_of(tmp_path: Path, tests: dict[str, str]) -> tuple[Source, Probe]:
    """A small package with these files of tests, placed in a folder that stands for a sandbox."""
    files = {"src/sums/__init__.py": "", "src/sums/maths.py": MATHS, **tests}
    tree = write_tree(tmp_path / "tree", files)
    source = tree_source(tree, name="sums", version="1.0", requirements=(f"pytest=={pytest.__version__}",))
    (tmp_path / "box").mkdir()
    probe = Probe(FolderSandbox(tmp_path / "box"), python=sys.executable, env={**PROBE_ENV, **source.env})
    asyncio.run(probe.place(source))
    return source, probe


@pytest.fixture
def source(tmp_path: Path) -> Source:
    files = {"src/sums/__init__.py": "", "src/sums/maths.py": MATHS, "tests/test_maths.py": MATHS_TESTS}
    tree = write_tree(tmp_path / "tree", files)
    return tree_source(tree, name="sums", version="1.0", requirements=(f"pytest=={pytest.__version__}",))


@pytest.fixture
def probe(tmp_path: Path, source: Source) -> Probe:
    (tmp_path / "box").mkdir()
    box = Probe(FolderSandbox(tmp_path / "box"), python=sys.executable, env={**PROBE_ENV, **source.env})
    asyncio.run(box.place(source))
    return box
