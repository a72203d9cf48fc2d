"""A small repository with one bug, patches for it, and what grades them."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from verigym.envs.datasets.swe import pack_repository, task_of
from verigym.envs.datasets.swe_examples import unified
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.sandbox.types import SandboxBackend
from verigym.envs.swe.checkout import DEFAULT_REQUIREMENTS
from verigym.envs.swe.grading import grade_patch
from verigym.envs.task import Task
from verigym.errors import SandboxError
from verigym.rewards.score import Score
from verigym.rewards.swe import TestReport

FILES = {
    "pkg/__init__.py": "VERSION = 1\n",
    "pkg/calc.py": "def add(a, b):\n    return a - b\n\n\ndef twice(x):\n    return 2 * x\n",
    "tests/test_first.py": "from pkg.calc import twice\n\n\ndef test_twice():\n    assert twice(2) == 4\n",
    "tests/helping.py": "def same(a, b):\n    return a == b\n",
}
HIDDEN = """import json
import unittest

import pytest
from helping import same

from pkg.calc import add


def test_add():
    assert add(1, 2) == 3


def test_helped():
    assert same(json.loads(str(add(2, 3))), 5)


def test_raises():
    with pytest.raises(TypeError):
        add(1, None)


class TestAdd(unittest.TestCase):
    def test_method(self):
        self.assertEqual(add(2, 2), 4)
"""
GOLD = FILES["pkg/calc.py"].replace("a - b", "a + b")
FAIL_TO_PASS = ("tests/test_second.py::test_add", "tests/test_second.py::test_helped")
FAIL_TO_PASS += ("tests/test_second.py::TestAdd::test_method",)
PASS_TO_PASS = ("tests/test_first.py::test_twice", "tests/test_second.py::test_raises")


def patch_of(changes: Mapping[str, str]) -> str:
    """A git patch that writes files; the keys are paths."""
    return "".join(_change(path, text) for path, text in changes.items())


def _change(path: str, text: str) -> str:
    assert text.endswith("\n")
    if path in FILES:
        return f"diff --git a/{path} b/{path}\n" + unified(path, FILES[path], text)
    body = "".join(f"+{line}\n" for line in text.split("\n")[:-1])
    header = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n"
    return f"{header}@@ -0,0 +1,{text.count(chr(10))} @@\n{body}"


@dataclass(frozen=True)
class Vault:
    """The task, and what grades it."""

    task: Task
    backend: SandboxBackend

    def patch(self, changes: Mapping[str, str]) -> str:
        return patch_of(changes)

    def grade(self, changes: Mapping[str, str] | str) -> tuple[Score, TestReport]:
        """Grade changed files, or a patch."""
        patch = changes if isinstance(changes, str) else patch_of(changes)
        return asyncio.run(grade_patch(self.backend, self.task, patch, timeout_s=60))

    def grade_all(self, many: Mapping[str, Mapping[str, str] | str]) -> dict[str, tuple[Score, TestReport]]:
        """Grade many at once, three at a time."""
        room = asyncio.Semaphore(3)

        async def one(changes: Mapping[str, str] | str) -> tuple[Score, TestReport]:
            async with room:
                patch = changes if isinstance(changes, str) else patch_of(changes)
                return await grade_patch(self.backend, self.task, patch, timeout_s=60)

        async def every() -> list[tuple[Score, TestReport]]:
            return await asyncio.gather(*map(one, many.values()))

        return dict(zip(many, asyncio.run(every()), strict=True))


@pytest.fixture(scope="session")
def local_backend() -> SandboxBackend:
    try:
        return make_backend("local")
    except SandboxError as error:
        pytest.skip(f"no local sandbox on this machine: {error}")


@pytest.fixture(scope="session", params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def vault(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """The task on each backend; on Docker in an image that verigym built."""
    folder = tmp_path_factory.mktemp("vault")
    if request.param == "local":
        yield Vault(vault_task(folder), request.getfixturevalue("local_backend"))
        return
    yield request.getfixturevalue("docker_vault")


@pytest.fixture(scope="session")
def docker_vault(docker_backend: SandboxBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    folder = tmp_path_factory.mktemp("docker_vault")
    with built(folder, vault_row(folder)) as row:
        yield Vault(task_of(row, folder=folder), docker_backend)


@pytest.fixture(scope="session")
def docker_backend() -> SandboxBackend:
    try:
        return make_backend("docker")
    except SandboxError as error:
        pytest.skip(f"no Docker engine: {error}")


@pytest.fixture(scope="session", params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def any_backend(request: pytest.FixtureRequest) -> SandboxBackend:
    return request.getfixturevalue(f"{request.param}_backend")


@contextmanager
def built(folder: Path, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The row with an image, which is removed at the end; no other run of the tests has the same."""
    import docker

    from verigym.envs.sandbox.images import ensure_base_image
    from verigym.envs.synthesis.build_images import build_images

    client = docker.from_env()
    try:
        base = ensure_base_image(client)
    except SandboxError as error:
        pytest.skip(f"no base image: {error}")
    row = {**row, "env": {**row["env"], "TEST_RUN": secrets.token_hex(4)}}
    (done,) = build_images([row], folder=folder, out=folder / "images.jsonl", client=client, base=base)
    try:
        yield done
    finally:
        client.images.remove(done["image"], force=True)
        client.close()


@pytest.fixture(scope="session")
def gold() -> str:
    return GOLD


def vault_task(folder: Path) -> Task:
    """The task, its archive written into a folder."""
    return task_of(vault_row(folder), folder=folder)


def vault_row(folder: Path) -> dict[str, Any]:
    """The task's row."""
    for name, text in FILES.items():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_text(text, encoding="utf-8")
    return {
        "instance_id": "vault",
        "problem_statement": "add(1, 2) gives -1",
        "base_commit": pack_repository(folder / "tree", folder / "vault.tar.gz"),
        "patch": patch_of({"pkg/calc.py": GOLD}),
        "test_patch": patch_of({"tests/test_second.py": HIDDEN}),
        "FAIL_TO_PASS": FAIL_TO_PASS,
        "PASS_TO_PASS": PASS_TO_PASS,
        "env": {"PYTHONPATH": "."},
        "archive": "vault.tar.gz",
        "pip_requirements": DEFAULT_REQUIREMENTS,
    }
