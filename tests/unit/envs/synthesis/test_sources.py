"""Where code comes from: directories, git repositories, sdists; and what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from verigym.envs.synthesis import requirements, sources
from verigym.envs.synthesis.requirements import declared_requirements, pinned_requirements, project_pages
from verigym.envs.synthesis.sources import open_source, read_source, tree_source
from verigym.errors import TaskError

FILES = {
    "setup.py": "raise SystemExit('never run')\n",
    "pyproject.toml": "[project]\nname = 'x'\nversion = '2.5'\ndependencies = ['dep-a; python_version > \"3\"']\n"
    "[project.optional-dependencies]\ntest = ['dep-t']\ndocs = ['sphinx']\n",
    "pack/__init__.py": "def one():\n    return 1\n",
    "pack/broken.py": "def one(:\n",
    "pack/tests/test_inner.py": "def test(): pass\n",
    "docs/conf.py": "x = 1\n",
    "module.py": "def two():\n    return 2\n",
    "tests/conftest.py": "",
    "tests/test_one.py": "from pack import one\ndef test_one(): assert one() == 1\n",
    ".venv/lib/test_no.py": "",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path, text in FILES.items():
        (tmp_path / "x" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / path).write_text(text)
    (tmp_path / "work").mkdir()
    return tmp_path / "x"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "pinned_requirements", lambda runtime, testing, leave_out: ("pytest==9.0.0",))


def test_a_directory(folder: Path, offline: None):
    source = open_source(str(folder), folder.parent / "work")
    assert (source.name, source.version, source.env) == ("x", "2.5", {"PYTHONPATH": "."})
    assert source.package_files == ("module.py", "pack/__init__.py")
    assert source.test_files == ("pack/tests/test_inner.py", "tests/test_one.py")
    assert source.python == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert not (source.root / ".venv").exists()


def test_a_src_layout(folder: Path, offline: None):
    (folder / "src").mkdir()
    (folder / "pack").rename(folder / "src" / "pack")
    source = open_source(str(folder), folder.parent / "work")
    assert source.package_files == ("src/pack/__init__.py",)
    assert source.env == {"PYTHONPATH": "src"}


LAYOUTS = {
    "lib": (["lib/pack/__init__.py", "lib/pack/a.py"], "lib"),
    "a module in lib": (["lib/pack.py"], "lib"),
    "a src of C files": (["src/a.c", "src/generate.h", "pack/__init__.py"], "."),
    "a src of C files and a script": (["src/a.c", "src/generate.py", "pack/__init__.py"], "."),
    "a lib of other things": (["lib/a.js", "pack/__init__.py"], "."),
    "a namespace package": (["acme/tools/__init__.py", "acme/tools/a.py"], "."),
    "modules in a namespace": (["acme/tools.py"], "."),
    "a namespace in src": (["src/acme/tools/__init__.py"], "src"),
    "modules in src": (["src/tools.py"], "src"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path: Path, name: str):
    files, path = LAYOUTS[name]
    for one in (*files, "tests/test_one.py", "scripts/release.py"):
        (tmp_path / one).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / one).write_text("x = 1\n")
    found = tree_source(tmp_path, name="acme-tools", version="1", requirements=["pytest==9.0.0"])
    wanted = [one for one in files if one.endswith(".py") and (path == "." or one.startswith(path))]
    assert found.package_files == tuple(sorted(one for one in wanted if not one.startswith("src/gen")))
    assert found.env == {"PYTHONPATH": path}


def test_modules_called_tests_count_where_there_are_no_others(tmp_path: Path):
    for one, text in (
        ("src/acme/event/__init__.py", ""),
        ("src/acme/event/tests.py", "class TestA:\n    def test_a(self): pass\n"),
        ("src/acme/other/tests.py", "def is_odd(value): return value % 2\n"),
    ):
        (tmp_path / one).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / one).write_text(text)
    source = tree_source(tmp_path, name="acme.event", version="1", requirements=())
    assert source.test_files == ("src/acme/event/tests.py",)
    assert source.package_files == ("src/acme/event/__init__.py", "src/acme/other/tests.py")
    (tmp_path / "test_more.py").write_text("def test_b(): pass\n")
    assert tree_source(tmp_path, name="acme.event", version="1", requirements=()).test_files == ("test_more.py",)


def test_a_byte_order_mark_is_no_reason_and_other_encodings_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for one, data in (
        ("pack/__init__.py", b"\xef\xbb\xbfdef f():\n    return 1\n"),
        ("pack/latin.py", b"# coding: latin-1\nx = '\xe9'\n"),
        ("tests/test_one.py", b""),
    ):
        (tmp_path / one).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / one).write_bytes(data)
    found = tree_source(tmp_path, name="x", version="1", requirements=["pytest==9.0.0"])
    assert found.package_files == ("pack/__init__.py",)
    assert read_source(found, "pack/__init__.py") == "def f():\n    return 1\n"
    assert "1 files are left out" in caplog.text
    assert "pack/latin.py" in caplog.text


def test_a_git_repository_is_taken_at_its_last_commit(folder: Path, offline: None):
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "pack", "tests"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    (folder / "pack" / "__init__.py").write_text("not committed")
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    for name, spec in enumerate((str(folder), folder.as_uri())):
        work = folder.parent / f"work{name}"
        work.mkdir()
        source = open_source(spec, work)
        assert (source.name, commit.startswith(source.version), len(source.version)) == ("x", True, 12)
        assert (source.root / "pack/__init__.py").read_text() == FILES["pack/__init__.py"]
        assert not (source.root / ".git").exists()


def test_files_that_git_would_ignore_are_kept(folder: Path, offline: None):
    (folder / ".gitignore").write_text("pack/_version.py\n")
    (folder / "pack" / "_version.py").write_text("version = 1\n")
    source = open_source(str(folder), folder.parent / "work")
    assert "_version" not in (source.root / ".gitignore").read_text()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("requests", r"write requests==VERSION"),
        ("no/such/folder", r"no directory, git address or requirement"),
        ("file:///no/such/repository", r"git clone.*failed"),
    ],
)
def test_what_cannot_be_opened(spec: str, message: str, tmp_path: Path):
    with pytest.raises(TaskError, match=message):
        open_source(spec, tmp_path)


def test_an_sdist_without_tests_is_refused_with_an_alternative(tmp_path: Path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "PKG-INFO").write_text("Name: pack\nProject-URL: Source, https://github.com/someone/pack/\n")
    with pytest.raises(
        TaskError, match=r"pack==1 has no tests .*verigym tasks synthesize https://github.com/someone/pack"
    ):
        tree_source(tmp_path, name="pack", version="1", repo="pypi/pack")
    (tmp_path / "PKG-INFO").unlink()
    with pytest.raises(TaskError, match=r"more-itertools==10\.5\.0"):
        tree_source(tmp_path, name="pack", version="1", repo="pypi/pack")


def test_declared_requirements(folder: Path):
    assert declared_requirements(folder) == (["dep-a"], ["dep-t"])
    (folder / "PKG-INFO").write_text(
        "Metadata-Version: 2.1\nRequires-Dist: dep-b>=1\nRequires-Dist: dep-c; python_version < '3'\n"
        "Requires-Dist: dep-d; extra == 'tests'\nRequires-Dist: dep-e; extra == 'docs'\nHome-page: https://gitlab.com/a/b\n"
    )
    assert declared_requirements(folder) == (["dep-b>=1"], ["dep-d"])
    assert project_pages(folder) == ["https://gitlab.com/a/b"]
    (folder / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: x\n")
    (folder / "src" / "x.egg-info").mkdir(parents=True)
    (folder / "src" / "x.egg-info" / "requires.txt").write_text(
        "dep-g\n\n[:python_version < '3']\ndep-h\n\n[docs]\ndep-i\n\n[test:python_version > '3']\ndep-j>=2\n"
    )
    assert declared_requirements(folder) == (["dep-g"], ["dep-j>=2"])
    (folder / "src" / "x.egg-info" / "requires.txt").unlink()
    (folder / "PKG-INFO").unlink()
    (folder / "pyproject.toml").write_text("[broken")
    (folder / "setup.cfg").write_text("[options]\ninstall_requires =\n    dep-f\n")
    assert declared_requirements(folder) == (["dep-f"], [])


def test_requirements_are_pinned_without_the_package_itself(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def resolve(wanted):
        asked.append(tuple(wanted))
        names = ["PyTest", *(["My.Pack"] if "plugin" in wanted else [])]
        return {"install": [{"metadata": {"name": name, "version": "1.0"}} for name in names]}

    monkeypatch.setattr(requirements, "_resolve", resolve)
    assert pinned_requirements(["dep"], ["plugin"], leave_out="my_pack") == ("pytest==1.0",)
    assert asked == [("pytest", "dep", "plugin"), ("pytest", "dep")]
    with pytest.raises(TaskError, match="clean copy"):
        pinned_requirements(["plugin"], [], leave_out="my_pack")
