"""What a source tree needs to run its tests, and which exact versions pip would install for it."""

import configparser
import json
import re
import subprocess
import tomllib
from collections.abc import Iterable, Sequence
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ...errors import TaskError
from ..sandbox.pip import ONLY_WHEELS, note_resolution, pip_command

TEST_EXTRAS = ("test", "tests", "testing")
RESOLUTION_TIMEOUT_S = 120.0


def declared_requirements(root: Path) -> tuple[list[str], list[str]]:
    """(what the package needs, what its tests need besides) by the tree's own word; unreadable files say nothing.

    Read from PKG-INFO (sdists have it), requires.txt of older sdists, pyproject.toml and setup.cfg; setup.py is never
    run.
    """
    project = _pyproject(root)
    lines = [*_metadata(root).get_all("Requires-Dist", [])] or _requires_txt(root)
    runtime = [line for line in lines if _applies(line, "")]
    testing = [line for line in lines if not _applies(line, "") and any(_applies(line, e) for e in TEST_EXTRAS)]
    declared = project.get("project", {})
    if not lines:
        runtime += declared.get("dependencies", []) or _setup_cfg(root)
        extras = declared.get("optional-dependencies", {})
        testing += [line for extra in TEST_EXTRAS for line in extras.get(extra, [])]
    groups = project.get("dependency-groups", {})
    testing += [line for group in TEST_EXTRAS for line in groups.get(group, []) if isinstance(line, str)]
    return _without_extra(runtime), [line for line in _without_extra(testing) if not Requirement(line).url]


def pinned_requirements(runtime: Sequence[str], testing: Sequence[str], *, leave_out: str) -> tuple[str, ...]:
    """Exact versions of pytest, the requirements, and all they need, as pip resolves them now for this Python.

    Args:
        runtime: must be resolved.
        testing: left out where they cannot be resolved together with the rest.
        leave_out: the package itself, whose clean copy must not stand beside the tree with the bug.
    Raises:
        TaskError: pip cannot resolve them, or the package is among them (pytest needs it, for one).
    """
    itself = canonicalize_name(leave_out)
    problem = ""
    for wanted in dict.fromkeys((("pytest", *runtime, *testing), ("pytest", *runtime))):
        try:
            report = _resolve(wanted)
        except TaskError as error:
            problem = str(error)
            continue
        pins = {canonicalize_name(item["metadata"]["name"]): item["metadata"]["version"] for item in report["install"]}
        if itself not in pins:
            exact = tuple(f"{name}=={version}" for name, version in sorted(pins.items()))
            note_resolution(exact, [item.get("download_info", {}) for item in report["install"]])
            return exact
        problem = (
            f"{leave_out} is itself needed by what its tests need, so that a clean copy would stand beside the bug"
        )
    raise TaskError(f"no environment for {leave_out}: {problem}; take another library")


def stated_version(root: Path) -> str:
    """The version a tree states; "" where it states none."""
    version = _pyproject(root).get("project", {}).get("version") or _metadata(root).get("Version")
    return str(version) if version else ""


def project_pages(root: Path) -> list[str]:
    """Addresses of the project's git repository, as its metadata names them."""
    metadata = _metadata(root)
    text = " ".join([*metadata.get_all("Project-URL", []), metadata.get("Home-page", "")])
    return re.findall(r"https://(?:github|gitlab)\.com/[\w.-]+/[\w.-]+", text)


def _resolve(requirements: Sequence[str]) -> dict[str, Any]:
    for line in requirements:
        try:
            address = Requirement(line).url
        except InvalidRequirement as error:  # an option or a path, which pip would take
            raise TaskError(f"{line!r} is no requirement ({error}); write a name and its versions") from None
        if address:
            raise TaskError(f"{line!r} is brought from an address; only the package index is asked")
    command = [*pip_command(), "install", "--quiet", "--disable-pip-version-check", "--dry-run"]
    command += ["--ignore-installed", ONLY_WHEELS, "--report=-", *requirements]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RESOLUTION_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise TaskError(
            f"pip did not resolve the requirements within {RESOLUTION_TIMEOUT_S:.0f} s; is the network there?"
        ) from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        words = [line for line in lines if line.startswith("ERROR:") and line != "ERROR: Exception:"] or lines[-1:]
        raise TaskError(f"pip cannot resolve {', '.join(requirements)}: {(words or ['no message'])[0]}")
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        raise TaskError(f"pip's report is not JSON ({error}); pip 22.2 or newer is needed") from None


def _applies(line: str, extra: str) -> bool:
    try:
        marker = Requirement(line).marker
    except InvalidRequirement:
        return False
    return marker is None or marker.evaluate({"extra": extra})


def _without_extra(lines: Iterable[str]) -> list[str]:
    """Requirements as pip takes them on its command line: those that apply here, without their markers."""
    kept = []
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *TEST_EXTRAS)):
            requirement.marker = None
            kept.append(str(requirement))
    return list(dict.fromkeys(kept))


def _metadata(root: Path) -> Message:
    path = root / "PKG-INFO"
    return HeaderParser().parsestr(path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "")


def _requires_txt(root: Path) -> list[str]:
    """What setuptools noted in an sdist's egg-info, as lines of Requires-Dist."""
    lines = []
    for path in sorted((*root.glob("*.egg-info/requires.txt"), *root.glob("*/*.egg-info/requires.txt"))):
        extra = marker = ""
        for line in map(str.strip, path.read_text(encoding="utf-8", errors="replace").splitlines()):
            if line.startswith("["):
                extra, _, marker = line.strip("[]").partition(":")
            elif line:
                tests = [f"({marker})"] * bool(marker) + [f"extra == '{extra}'"] * bool(extra)
                lines.append(f"{line}; {' and '.join(tests)}" if tests else line)
    return lines


def _pyproject(root: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}


def _setup_cfg(root: Path) -> list[str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(root / "setup.cfg", encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return []
    return [line for line in parser.get("options", "install_requires", fallback="").splitlines() if line.strip()]
