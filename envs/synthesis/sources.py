"""Where the code of synthesized tasks comes from: a directory, a git repository, or a PyPI requirement's sdist."""

import ast
import logging
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ...errors import TaskError
from .fetching import LEFT_BEHIND, bring_sdist, clone, run
from .needs import needed_by_tests
from .requirements import declared_requirements, pinned_requirements, project_pages, stated_version

logger = logging.getLogger(__name__)

REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9._+!-]*)")
URL = re.compile(r"(https|file|ssh|git)://|[\w.-]+@[\w.-]+:")

TEST_FOLDERS = frozenset({"test", "tests", "testing"})
OTHER_FOLDERS = frozenset({"doc", "docs", "example", "examples", "bench", "benchmark", "benchmarks", "build", "dist"})
OTHER_FILES = frozenset({"setup.py", "conftest.py", "noxfile.py", "tasks.py", "fabfile.py", "versioneer.py"})
PLAIN_GITIGNORE = "__pycache__/\n*.pyc\n.pytest_cache/\n.hypothesis/\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A clean tree of files whose tests can be run.

    Attributes:
        name, version: what instance ids begin with.
        root: the tree on disk, without .git. Nothing is ever written into it.
        package_files: Python files that may get a bug, relative POSIX paths.
        test_files: Python files that pytest collects.
        requirements: exactly pinned, all that the tests need besides the tree ("pytest==9.0.1").
        env: variables of the tests; a relative PYTHONPATH is relative to the tree.
        repo: where the code is from, for the row.
        python: the running Python, "3.11".
    """

    name: str
    version: str
    root: Path
    package_files: tuple[str, ...]
    test_files: tuple[str, ...]
    requirements: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    repo: str = ""
    python: str = f"{sys.version_info.major}.{sys.version_info.minor}"


def read_source(source: Source, path: str) -> str:
    """A file of the tree, line ends as they are, without a byte-order mark: offsets are then the parser's own."""
    return (source.root / path).read_bytes().decode("utf-8-sig")


Tell = Callable[[str, int, int], None]
"""(what is being done, how much of it is done, how much there is); 0, 0 where that is not known."""


def silent(what: str, done: int, total: int) -> None:
    """Tells nobody."""


def open_source(spec: str, workdir: Path, *, extra: Sequence[str] = (), tell: Tell = silent) -> Source:
    """Bring what ``spec`` names into ``workdir``. None of its code runs.

    Args:
        spec: a directory; a git repository (its path, or a https://, file:// or ssh address), of which the last
            commit is taken; or ``name==version`` on the package index that pip is configured for, whose sdist is
            taken.
        workdir: an existing folder that the caller removes.
        extra: requirements of the tests besides those that the tree declares ("pytest<9").
        tell: is told what is being done.
    Raises:
        TaskError: there is no such thing, or it has no tests (with an alternative).
    """
    tree = workdir / "tree"
    tell(f"fetching {spec}", 0, 0)
    path = Path(spec).expanduser()
    if path.is_dir():
        name = path.resolve().name
        if (path / ".git").exists() or (path / "HEAD").is_file():
            return _from_git(path.resolve().as_uri(), tree, name=name, extra=extra, tell=tell)
        shutil.copytree(path, tree, symlinks=True, ignore=LEFT_BEHIND)
        return tree_source(tree, name=name, version=stated_version(tree) or "0", extra=extra, tell=tell)
    if URL.match(spec):
        name = re.split(r"[/:]", spec.rstrip("/"))[-1].removesuffix(".git")
        return _from_git(spec, tree, name=name, extra=extra, tell=tell)
    if match := REQUIREMENT.fullmatch(spec):
        name, version = match["name"], match["version"]
        bring_sdist(name, version, workdir, tree)
        _state_metadata(tree, name)
        return tree_source(tree, name=name, version=version, repo=f"pypi/{name}", extra=extra, tell=tell)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", spec):
        raise TaskError(
            f"{spec!r} is neither a directory nor an exact requirement; write {spec}==VERSION for the package index"
        )
    raise TaskError(f"{spec!r} is no directory, git address or requirement NAME==VERSION; give one of these")


def _from_git(address: str, tree: Path, *, name: str, extra: Sequence[str], tell: Tell) -> Source:
    commit = clone(address, tree)
    return tree_source(tree, name=name or "repository", version=commit, repo=address, extra=extra, tell=tell)


def _state_metadata(tree: Path, name: str) -> None:
    """Let ``importlib.metadata`` find an sdist's own metadata, as it does where the project is installed: packages ask
    it for their version."""
    stated, folder = tree / "PKG-INFO", tree / (_source_folder(tree) or ".")
    if stated.is_file() and not any(folder.glob("*.egg-info/PKG-INFO")):
        egg = folder / f"{re.sub(r'[-_.]+', '_', name)}.egg-info"
        egg.mkdir(exist_ok=True)
        shutil.copyfile(stated, egg / "PKG-INFO")


def tree_source(
    root: Path,
    *,
    name: str,
    version: str,
    repo: str = "",
    requirements: Sequence[str] | None = None,
    extra: Sequence[str] = (),
    tell: Tell = silent,
) -> Source:
    """The source made of a tree that is already on disk, which must have no .git and is not to be changed any more.

    Args:
        root: the tree.
        name, version, repo: as in ``Source``.
        requirements: exactly pinned; None lets pip resolve what the tree declares, pytest, and ``extra``.
    Raises:
        TaskError: it has no tests, no package, or pip cannot resolve its requirements.
    """
    _keep_in_git(root)
    python_files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py") if path.is_file())
    test_files = tuple(path for path in python_files if is_collected(path))
    test_files = test_files or tuple(path for path in python_files if _is_named_tests(path) and _has_tests(root / path))
    if not test_files:
        raise TaskError(
            f"{name}=={version} has no tests (no test_*.py, *_test.py or tests.py in it){_alternative(root, repo)}"
        )
    source_folder = _source_folder(root)
    rest = [path for path in python_files if path not in test_files]
    found = [path for path in rest if _is_package_file(path, source_folder, root, name)]
    package_files = tuple(path for path in found if _is_readable(root / path))
    if left_out := sorted(set(found) - set(package_files)):
        logger.warning(
            "%s: %d files are left out: they are no Python of this version in UTF-8 (%s)",
            name,
            len(left_out),
            ", ".join(left_out[:5]),
        )
    if not package_files:
        raise TaskError(
            f"{name}=={version} has no Python package or module beside its tests; give the folder that holds both"
        )
    if requirements is None:
        runtime, testing = declared_requirements(root)
        testing += needed_by_tests(root, test_files, [*runtime, *testing, *extra])
        tell(f"{len(test_files)} files of tests; resolving what they need", 0, 0)
        requirements = pinned_requirements([*runtime, *extra], testing, leave_out=name)
    return Source(
        name=name,
        version=version,
        root=root,
        package_files=package_files,
        test_files=test_files,
        requirements=tuple(requirements),
        env={"PYTHONPATH": source_folder or "."},
        repo=repo or name,
    )


def is_collected(path: str) -> bool:
    """Whether pytest collects a file by its name."""
    name = PurePosixPath(path).name
    return (name.startswith("test_") or name.endswith("_test.py")) and not _is_aside(path)


def _is_named_tests(path: str) -> bool:
    """Whether a file is called what pytest does not collect by itself, but takes where it is named."""
    return PurePosixPath(path).name in ("tests.py", "test.py") and not _is_aside(path)


def _has_tests(path: Path) -> bool:
    """Whether a module of that name holds tests, and is not about something else."""
    try:
        nodes = ast.walk(ast.parse(path.read_bytes()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in nodes)


def is_test_file(path: str) -> bool:
    """Whether a file belongs to the tests: it is collected, or stands in their folders."""
    parts = PurePosixPath(path).parts
    return is_collected(path) or parts[-1] == "conftest.py" or any(part in TEST_FOLDERS for part in parts[:-1])


def _is_aside(path: str) -> bool:
    return any(part in OTHER_FOLDERS or part.startswith(".") for part in PurePosixPath(path).parts[:-1])


def _source_folder(root: Path) -> str:
    """Where packages stand: "src" or "lib" where there are some in it, else the root; modules in them count where the
    root has no package."""
    if any(_has_python(folder) for folder in _folders(root / "src") if folder.name not in TEST_FOLDERS):
        return "src"
    if any((folder / "__init__.py").is_file() for folder in _folders(root / "lib")):
        return "lib"
    at_root = [one for one in _folders(root) if one.name not in TEST_FOLDERS and (one / "__init__.py").is_file()]
    alone = ("src", "lib") if not at_root else ()
    return next((folder for folder in alone if any((root / folder).glob("*.py"))), "")


def _folders(folder: Path) -> list[Path]:
    return [one for one in folder.iterdir() if one.is_dir()] if folder.is_dir() else []


def _has_python(folder: Path) -> bool:
    return next(folder.rglob("*.py"), None) is not None


def _is_package_file(path: str, source_folder: str, root: Path, name: str) -> bool:
    parts = PurePosixPath(path).parts
    if is_test_file(path) or _is_aside(path) or parts[-1] in OTHER_FILES:
        return False
    if source_folder:
        return parts[0] == source_folder
    return len(parts) == 1 or (root / parts[0] / "__init__.py").is_file() or _is_namespace(root / parts[0], name)


def _is_namespace(folder: Path, name: str) -> bool:
    """Whether a folder without ``__init__.py`` is a package all the same: what the project is named after, with
    packages or modules in it."""
    return folder.name.lower() in re.split(r"[-_.]", name.lower()) or folder.name.lower() == re.sub(
        r"[-_.]+", "_", name.lower()
    )


def _is_readable(path: Path) -> bool:
    """Whether a file is Python in UTF-8, with a byte-order mark or without: offsets are those of that encoding."""
    try:
        ast.parse(path.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, SyntaxError, ValueError):
        return False
    return True


def _keep_in_git(root: Path) -> None:
    """Let git ignore nothing of the tree: an sdist may hold generated modules that its own .gitignore names."""
    ignoring = list(root.rglob(".gitignore"))
    if not ignoring:
        return
    with_git = ["git", f"--git-dir={root.parent / (root.name + '.ignored')}", f"--work-tree={root}"]
    run([*with_git, "init", "--quiet", "--template="], cwd=root)
    ignored = run([*with_git, "ls-files", "--others", "--ignored", "--exclude-standard"], cwd=root)
    shutil.rmtree(root.parent / (root.name + ".ignored"))
    if ignored.strip():
        for path in ignoring:
            path.unlink()
        (root / ".gitignore").write_text(PLAIN_GITIGNORE)


def _alternative(root: Path, repo: str) -> str:
    """What to do about a tree without tests."""
    if not repo.startswith("pypi/"):
        return "; give a folder or repository that has them"
    pages = project_pages(root)
    clone = f"its git repository: verigym tasks synthesize {pages[0]}" if pages else "its git repository"
    return f": its sdist does not carry them. Give {clone}, or a library whose sdist does (more-itertools==10.5.0)"
