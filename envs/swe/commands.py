"""What a row's ``eval_script`` runs between its markers, where that is a runner which ours can stand in for."""

import posixpath
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ..datasets.eval_scripts import END, START
from ..datasets.swe import SWERow

Kind = Literal["pytest", "unittest", "sympy"]

_HARMLESS = re.compile(
    r"-r\w*|-v+|-q+|--verbose|--quiet|--no-header|--tb=\w+|--color=\w+|--durations=\d+|--showlocals|-l|--disable-warnings"
)
"""Options of pytest that say what is printed."""
_HARMLESS_PAIRS = {("-p", "no:cacheprovider"), ("-o", "addopts="), ("-o", "console_output_style=classic")}
_SHELL = re.compile(r"[|&;<>()`]|\$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A runner and what it is told.

    Attributes:
        kind: "pytest"; "unittest" for scripts that hand a suite to unittest's runner, Django's above all; "sympy".
        script: path of the repository's own script; "" is ``python -m unittest``.
        arguments: of the script.
        files: Python files of tests, relative to the repository; some may not be there.
        env: variables set for this command alone.
        python: the interpreter that the command names; "python" is whatever the script has activated.
        by_tox: it is what tox runs: whether that is pytest, its ``tox.ini`` says.
    """

    kind: Kind
    script: str = ""
    arguments: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    python: str = "python"
    by_tox: bool = False


def command_of(row: SWERow) -> Command | None:
    """The command of a row's script; None where it is none of these, or says what ours would not do."""
    lines = row.eval_script.partition(START)[2].partition(END)[0].splitlines()[1:-1]
    lines = [line for line in lines if line.strip() and not line.startswith("SWEBENCH_TEST_EXIT_CODE=")]
    if len(lines) != 1 or _SHELL.search(lines[0]):
        return None
    try:
        words = shlex.split(lines[0])
    except ValueError:
        return None
    env: dict[str, str] = {}
    while words and (match := re.fullmatch(r"([A-Za-z_]\w*)=(.*)", words[0], re.DOTALL)):
        env[match[1]] = match[2]
        words = words[1:]
    return _of_words(words, env) if words else None


def _of_words(words: list[str], env: Mapping[str, str]) -> Command | None:
    if re.fullmatch(r"python3?", posixpath.basename(words[0])):
        found = _of_words(words[2:] if words[1:2] == ["-m"] else words[1:], env) if len(words) > 1 else None
        return found and replace(found, python=words[0])
    program, arguments = (words[0].removeprefix("./"), words[1:]) if words else ("", [])
    if program in ("pytest", "py.test"):
        return _pytest(arguments, env)
    if program == "tox" and "--current-env" in arguments and "--" in arguments:
        found = _pytest(arguments[arguments.index("--") + 1 :], env)
        return found and Command(kind="pytest", files=found.files, env=env, by_tox=True)
    if program == "unittest":
        labels = [one for one in arguments if not one.startswith("-")]
        known = all(one in ("-v", "--verbose", "-q") for one in arguments if one.startswith("-"))
        files = tuple(path for label in labels for path in _files_of(label, ""))
        return Command(kind="unittest", arguments=tuple(arguments), files=files, env=env) if known and labels else None
    if posixpath.basename(program) == "runtests.py":
        folder = posixpath.dirname(program)
        labels = [one for one in arguments if re.match(r"[A-Za-z_]", one)]
        files = tuple(path for one in labels for path in _files_of(one, folder))
        return Command(kind="unittest", script=program, arguments=tuple(arguments), files=files, env=env)
    if program == "bin/test":
        files = tuple(one for one in arguments if one.endswith(".py"))
        known = all(one in ("-C", "--no-cache", "-v", "--verbose", *files) for one in arguments)
        no_cache = ("no_cache",) if {"-C", "--no-cache"} & set(arguments) else ()
        return Command(kind="sympy", arguments=no_cache, files=files, env=env) if known and files else None
    return None


def _pytest(arguments: list[str], env: Mapping[str, str]) -> Command | None:
    files: list[str] = []
    rest = list(arguments)
    while rest:
        one = rest.pop(0)
        if rest and (one, rest[0]) in _HARMLESS_PAIRS:
            rest.pop(0)
        elif not one.startswith("-") and "::" not in one:
            files.append(one)
        elif not _HARMLESS.fullmatch(one):
            return None
    # Data that a row's test patch brings is named too.
    named = tuple(one for one in files if one.endswith(".py"))
    folders = [one for one in files if "." not in posixpath.basename(one)]
    return Command(kind="pytest", files=named, env=env) if named and not folders else None


def _files_of(label: str, folder: str) -> list[str]:
    """Where the module of a dotted name may lie."""
    parts = [part for part in re.split(r"[./]", label.removesuffix(".py")) if part]
    paths = []
    for size in range(len(parts), 0, -1):
        path = posixpath.join(folder, *parts[:size])
        paths += [f"{path}.py", f"{path}/__init__.py"]
    return paths
