"""What tests need is read wherever trees keep it, and nothing of it runs."""

import pytest

from verigym.envs.synthesis.needs import imported_by, needed_by_tests


def tree(folder, files):
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


TESTS = {
    "test_a.py": "import os, mock, pkg\nfrom dep_a import x\nfrom dateutil.parser import parse\n",
    "pkg/__init__.py": "",
}


@pytest.mark.parametrize(
    ("files", "needed"),
    [
        ({}, []),
        ({"test_requirements.txt": "dep-a>=1  # why\nsphinx\nflake8\n"}, ["dep-a>=1"]),
        ({"test-requirements.txt": "dep_a==0.1\n"}, ["dep_a"]),
        ({"requirements-dev.txt": "-r requirements/more.txt\n", "requirements/more.txt": "dep-a\n"}, ["dep-a"]),
        ({"requirements/testing.txt": b"\xef\xbb\xbfdep-a\n-e .\n--index-url http://x\n"}, ["dep-a"]),
        ({"tests/requirements.txt": "dep-a @ https://x/y.whl\n"}, []),
        ({"requirements.txt": "dep-a\n"}, []),  # the package's own, which its metadata says
        ({"dev-requirements.txt": "-r ../outside.txt\n-r dev-requirements.txt\n"}, []),
        (
            {"tox.ini": "[testenv]\ndeps =\n    pytest\n    py37: dep-a\n    pytest-mock\n    pytest-cov\n"},
            ["dep-a", "pytest-mock"],
        ),
        ({"setup.cfg": "[options]\ntests_require =\n    dep-a\n"}, ["dep-a"]),
        ({"setup.cfg": "[options.extras_require]\ndev = \n    dep-a\ndocs =\n    sphinx\n"}, ["dep-a"]),
        ({"setup.py": "NEED = ['dep-a']\nraise SystemExit(1)\nsetup(tests_require=NEED)\n"}, ["dep-a"]),
        (
            {"setup.py": "setup(extras_require={'testing': ['dep-a; python_version > \"3\"'], 'x': ['no']})\n"},
            ["dep-a"],
        ),
        (
            {"pyproject.toml": "[project.optional-dependencies]\ndev = ['dep-a>=2', 'ruff']\ndocs = ['no']\n"},
            ["dep-a>=2"],
        ),
        (
            {"pyproject.toml": "[dependency-groups]\ntypes = ['mypy']\ndev = ['dep-a', {include-group = 'types'}]\n"},
            ["dep-a"],
        ),
        ({"pyproject.toml": "[tool.poetry.group.dev.dependencies]\ndep-a = '^1'\nother = '*'\n"}, ["dep-a"]),
        ({"pyproject.toml": "[tool.poetry.dev-dependencies.dep-a]\nversion = '1'\noptional = true\n"}, ["dep-a"]),
        ({"pyproject.toml": "[tool.hatch.envs.test]\nextra-dependencies = ['dep-a']\n"}, ["dep-a"]),
        ({"pyproject.toml": "[tool.pdm.dev-dependencies]\nlint = ['ruff']\ntest = ['dep-a']\n"}, ["dep-a"]),
        ({"pyproject.toml": '[tool.tox]\nlegacy_tox_ini = """\n[testenv]\ndeps =\n    dep-a\n"""\n'}, ["dep-a"]),
        ({"pyproject.toml": "[project]\ndependencies = ['dep-a']\n[tool.a]\ntest = ['dep-a']\n"}, []),
        ({"pyproject.toml": "[[tool.test]]\ndependencies = ['x']\n[test]\na = 1\n"}, []),
        ({"tox.toml": "[env_run_base]\ndeps = ['dep-a', 3]\n"}, ["dep-a"]),
        ({"Pipfile": "[packages]\nno = '*'\n[dev-packages]\ndep-a = '*'\n"}, ["dep-a"]),
        ({"setup.py": "def (\n", "tox.ini": "garbage", "setup.cfg": b"\xff\xfe", "pyproject.toml": b"\xff = ["}, []),
        ({"conftest.py": "# -*- coding: latin-1 -*-\nimport hypothesis  # \xe9".encode("latin-1")}, ["hypothesis"]),
        ({"freezegun.py": "", "conftest.py": "import freezegun"}, []),  # the tree has its own
    ],
)
def test_needs_are_found(tmp_path, files, needed):
    root = tree(tmp_path / "tree", {**TESTS, **files})
    (tmp_path / "outside.txt").write_text("dep-a\n")
    assert sorted(needed_by_tests(root, ["test_a.py"], [])) == sorted([*needed, "mock", "python-dateutil"])


def test_what_is_declared_is_not_asked_for_again(tmp_path):
    root = tree(tmp_path, {**TESTS, "test_requirements.txt": "dep-a\n"})
    assert needed_by_tests(root, ["test_a.py"], ["Mock>=2", "dep.a", "python_dateutil"]) == []


def test_imports_that_can_be_done_without_are_left_out(tmp_path):
    text = "try:\n    import numpy\nexcept ImportError:\n    numpy = None\n\ndef test_a():\n    import late\n"
    root = tree(tmp_path, {"test_a.py": text, "test_b.py": "def ("})
    assert imported_by(root, ["test_a.py", "test_b.py", "gone.py"]) == {"late"}
