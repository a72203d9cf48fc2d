"""Base's own pytest settings: what is kept, what is dropped by name, and that tests see them."""

import asyncio

import pytest

from verigym.envs.sandbox.python import python_environment
from verigym.envs.sandbox.types import SandboxSpec
from verigym.envs.swe.checkout import DEFAULT_REQUIREMENTS
from verigym.envs.swe.testing import run_tests
from verigym.envs.swe.testing_options import base_addopts, keep

WORKDIR = "/workspace"


@pytest.mark.parametrize(
    ("addopts", "kept", "dropped"),
    [
        ("--doctest-modules", "--doctest-modules", []),
        ("--import-mode=importlib -ra -q", "--import-mode=importlib", []),
        ("--import-mode importlib --strict-markers", "--import-mode importlib", ["--strict-markers"]),
        ("-p no:warnings -Werror::UserWarning", "-p no:warnings -W error::UserWarning", []),
        ("-p no:cacheprovider --tb=short --color=yes", "", []),
        ("-n 4 --dist loadscope -x", "", ["-n 4", "--dist loadscope", "-x"]),
        ("--cov=pkg --cov-report term -v --durations 10", "", ["--cov=pkg", "--cov-report term"]),
        ("-m 'not slow' -k test_a --maxfail=1", "", ["-m not slow", "-k test_a", "--maxfail=1"]),
        ("--asyncio-mode=auto --timeout 30", "--asyncio-mode=auto", ["--timeout 30"]),
        ("--collect-only --lf tests/", "", ["--collect-only", "--lf tests/"]),
        ("-o addopts=--co -o xfail_strict=true", "-o xfail_strict=true", []),
        ("--doctest-glob='*.rst' -s --assert=plain", "--doctest-glob=*.rst -s --assert=plain", []),
        ("", "", []),
    ],
)
def test_options_that_change_what_a_test_is_are_kept(tmp_path, addopts, kept, dropped):
    (tmp_path / "setup.cfg").write_text(f"[tool:pytest]\naddopts = {addopts}\n")
    words = base_addopts(str(tmp_path), ["tests/test_a.py"])
    assert keep(words, lambda: {"--asyncio-mode"}) == (kept.split(), dropped)


def test_the_settings_are_those_that_pytest_would_take(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = ["--doctest-modules", "-q"]\n')
    (tmp_path / "tox.ini").write_text("[pytest]\naddopts = --co\n")
    assert base_addopts(str(tmp_path), ["tests/test_a.py"]) == ["--doctest-modules", "-q"]
    (tmp_path / "tests/pytest.ini").write_text("[pytest]\naddopts = -x\n")
    assert base_addopts(str(tmp_path), ["tests/test_a.py"]) == ["-x"]
    assert base_addopts(str(tmp_path), ["tests/test_a.py", "test_b.py"]) == ["--doctest-modules", "-q"]
    (tmp_path / "pyproject.toml").write_text("not = [toml")
    assert base_addopts(str(tmp_path), ["test_b.py"]) == []


FILES = {
    "setup.cfg": "[tool:pytest]\naddopts = --doctest-modules --import-mode=importlib -n 4 -ra\n",
    "pkg/__init__.py": "",
    "pkg/mod.py": 'def one():\n    """One.\n\n    >>> one()\n    1\n    """\n    return 1\n',
    "a/test_same.py": "from pkg.mod import one\n\n\ndef test_same():\n    assert one() == 1\n",
    "b/test_same.py": "def test_same(cache):\n    cache.set('x/y', 3)\n    assert cache.get('x/y', 0) == 3\n\n\n"
    "def test_wrong():\n    assert 0\n",
}


def test_doctests_import_modes_and_the_cache_work(local_backend):
    async def run():
        environment = python_environment(DEFAULT_REQUIREMENTS)
        sandbox = await local_backend.create(SandboxSpec(workdir=WORKDIR, binds=environment.binds))
        try:
            for path, text in FILES.items():
                await sandbox.write_file(f"{WORKDIR}/{path}", text.encode())
            tests = ["pkg/mod.py", "a/test_same.py", "b/test_same.py"]
            settings = {"workdir": WORKDIR, "python": environment.python, "env": {"PYTHONPATH": "."}}
            return await run_tests(sandbox, tests=tests, timeout_s=60.0, **settings)
        finally:
            await sandbox.aclose()

    report = asyncio.run(run())
    assert report.statuses == {
        "pkg/mod.py::pkg.mod.one": "passed",
        "a/test_same.py::test_same": "passed",
        "b/test_same.py::test_same": "passed",
        "b/test_same.py::test_wrong": "failed",
    }
    assert (report.complete, report.canaries_ok) == (True, True), report
    assert report.detail == "b/test_same.py::test_wrong: assert 0 (base's -n 4 not used)"
