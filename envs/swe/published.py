"""Rows of published images under our own runners: the image's Python, which no row states, is found in the image."""

import json
import posixpath
import re
import shlex
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ...rewards.swe import FAILING, TestReport
from ..datasets.eval_scripts import START
from ..datasets.swe import SWERow
from ..sandbox.types import Sandbox
from .commands import Command, command_of
from .testing import Runner, TestRun

PROBE_S = 120.0
NOT_LOADED = ("pytest_cov", "xdist", "pytest_xdist")
"""Plugins that spread tests over processes, or measure them: no test needs them."""

# Told on a line of its own: what a shell's start prints is none of ours.
_PROBE = """\
import json, os, sys
from importlib.util import find_spec
try:
    from importlib.metadata import distributions
    points = [p for d in distributions() for p in d.entry_points if p.group == "pytest11"]
except ImportError:
    points = []
def place(name):
    try:
        found = find_spec(name.partition(".")[0])
    except Exception:
        return ""
    return (found.origin or "") if found else ""
sys.path[:] = [entry for entry in sys.path if entry]
plugins = sorted({p.value.partition(":")[0].strip() for p in points})
tox = open("tox.ini").read() if os.path.exists("tox.ini") else ""
def package(*parts):
    return os.path.exists(os.path.join(*parts, "__init__.py"))
tops = os.listdir(".") + [os.path.join("src", name) for name in (os.listdir("src") if os.path.isdir("src") else ())]
found = [(top, name) for top in tops if package(top) for name in ("test", "testing") if package(top, name)]
support = [os.path.join(*parts) for parts in found]
print("@@" + json.dumps({"python": sys.executable, "environ": dict(os.environ), "pytest": place("pytest"), "tox": tox,
    "plugins": [[name, place(name)] for name in plugins], "support": sorted(support)}))
"""
_TOX_RUNS_PYTEST = re.compile(r"^\s*(?:commands\s*=\s*)?\S*python\b.*-m pytest( -rA)? .*\{posargs", re.MULTILINE)
_INSTALLS_COPY = re.compile(r"^python -m pip install (?!.*-e )\S*\.(\[[^]]*\])?\s*$", re.MULTILINE)
_TAKEN_OVER = re.compile(r"(source|\.|conda|export|cd)\s")
_NOT_OURS = ("PWD", "OLDPWD", "SHLVL", "_", "PS1", "HOSTNAME")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a row's script finds in its image before anything of a patch is there.

    Attributes:
        python: the interpreter, absolute.
        env: variables after the script's activation.
        plugins: pytest's plugins, by module name, without the repository's own.
        support: folders of test support that the repository brings, relative.
        copied: the script installs a copy of the repository, which tests do not mean: its own files go before it.
        ours: whether our runner can stand in for the command.
    """

    python: str
    env: Mapping[str, str]
    plugins: tuple[str, ...] = ()
    support: tuple[str, ...] = ()
    copied: bool = False
    ours: bool = True


_SITES: "OrderedDict[str, Site]" = OrderedDict()


async def plan_of(sandbox: Sandbox, row: SWERow) -> "Plan | None":
    """How our runner stands in for a row's script; None where it cannot, so that the script itself has to run.

    Args:
        sandbox: a fresh checkout, in which nothing of a patch has run.
    Raises:
        SandboxError: the sandbox failed.
    """
    command = command_of(row)
    if command is None or not _names_are_known(row.parser, command):
        return None
    site = await _site_of(sandbox, row, command)
    return Plan(row=row, command=command, site=site) if site.ours else None


async def _site_of(sandbox: Sandbox, row: SWERow, command: Command) -> Site:
    lines = [line for line in row.eval_script.partition(START)[0].splitlines() if _TAKEN_OVER.match(line)]
    key = "\0".join((row.image or row.archive, command.kind, command.python, str(command.by_tox), *lines))
    if key not in _SITES:
        script = "\n".join(
            [
                *lines,
                f"cd {shlex.quote(row.root)}",
                f"exec {shlex.quote(command.python)} -s -B -c {shlex.quote(_PROBE)}",
            ]
        )
        done = await sandbox.arun(["bash", "-c", script], cwd=row.root, env=row.env, timeout_s=PROBE_S)
        said = next((line[2:] for line in done.stdout.split(b"\n") if line.startswith(b"@@")), b"")
        _SITES[key] = _read_site(json.loads(said) if said else {}, row, command)
        if len(_SITES) > 4096:
            _SITES.popitem(last=False)
    return _SITES[key]


def _read_site(said: Mapping[str, Any], row: SWERow, command: Command) -> Site:
    if not said:
        return Site(python="", env={}, ours=False)

    def inside(path: str) -> bool:
        return path.startswith(f"{row.root}/")

    plugins = [name for name, place in said["plugins"] if not inside(place) and name.split(".")[0] not in NOT_LOADED]
    ours = posixpath.isabs(said["python"])
    if command.kind == "pytest":  # where pytest is the repository itself, there is no other to run it
        ours = ours and bool(said["pytest"]) and not inside(said["pytest"])
    if command.by_tox:
        ours = ours and bool(_TOX_RUNS_PYTEST.search(said["tox"]))
    return Site(
        python=said["python"],
        env={name: value for name, value in said["environ"].items() if name not in _NOT_OURS},
        plugins=tuple(plugins) if command.kind == "pytest" else (),
        support=tuple(said["support"]),
        copied=bool(_INSTALLS_COPY.search(row.eval_script.partition(START)[0])),
        ours=ours,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A row's command as a run of ours, and its tests' names as the row has them."""

    row: SWERow
    command: Command
    site: Site

    def run(self, *, distrusted: Sequence[str], hidden: Sequence[str]) -> TestRun:
        """The run of a patched checkout that has the hidden tests.

        Args:
            distrusted: paths that the patch added.
            hidden: test files that the row brings.
        """
        command = self.command
        files = command.files if command.kind == "pytest" else (*command.files, *hidden)
        return TestRun(
            workdir=self.row.root,
            python=self.site.python,
            tests=tuple(dict.fromkeys(command.files if command.kind == "sympy" else files)),
            env={**self.site.env, **self.row.env, **command.env},
            plugins=self.site.plugins,
            distrusted=tuple(distrusted),
            support=self.site.support,
            sources_first=self.site.copied,
            runner=Runner(kind=command.kind, script=command.script, arguments=command.arguments),
        )

    def renamed(self, report: TestReport) -> tuple[TestReport, dict[str, list[str]]]:
        """(the report by the names that the row's parser reads in a log, name -> the runner's own names)."""
        names: dict[str, list[str]] = {}
        for test in report.statuses:
            names.setdefault(self.name_of(test), []).append(test)
        statuses = {name: _worst([report.statuses[test] for test in tests]) for name, tests in names.items()}
        strange = tuple(name for name, tests in names.items() if set(tests) & set(report.strange))
        tracebacks = {self.name_of(test): text for test, text in report.tracebacks.items()}
        return replace(report, statuses=statuses, strange=strange, tracebacks=tracebacks), names

    def name_of(self, test: str) -> str:
        """What the row's parser makes of the runner's name of a test."""
        return _read_name(self.row.parser, _line_of(self.command.kind, test)) or test


_ORDER = ("passed", "xpassed", "xfailed", "skipped", *sorted(FAILING, reverse=True))


def _worst(statuses: Sequence[str]) -> str:
    return max(statuses, key=_ORDER.index)


def _line_of(kind: str, test: str) -> str:
    """A line of a runner's log that says that a test has passed."""
    if kind == "unittest":
        return f"{test.splitlines()[-1]} ... ok"
    if kind == "sympy":
        return f"{test.rpartition(':')[2]} ok"
    return f"PASSED {test}"


@lru_cache(maxsize=1 << 16)
def _read_name(parser: str, line: str) -> str:
    parse = _parser(parser)
    for text in (line, " ".join([*line.split()[1:], line.split()[0]]) if line.startswith("PASSED ") else ""):
        names = list(parse(text, None)) if text and parse else []
        if len(names) == 1:
            return names[0]
    return ""


def _parser(name: str) -> Callable[[str, Any], Mapping[str, str]] | None:
    from swebench.harness.log_parsers import PARSER_REGISTRY

    from ...rewards.logs.parsers import PARSERS

    return PARSERS.get(name) or PARSER_REGISTRY.get(name)


def _names_are_known(parser: str, command: Command) -> bool:
    """Whether the row's parser reads this runner's lines: it names a test that a line says has passed."""
    example = {"pytest": "tests/test_a.py::test_a", "unittest": "test_a (a.T)", "sympy": "a.py:test_a"}[command.kind]
    return bool(_read_name(parser, _line_of(command.kind, example)))
