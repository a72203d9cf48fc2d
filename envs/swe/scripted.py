"""Grading by a row's own script, for tests that pytest does not run: Django's, SymPy's, tox, and published images.

The evidence is text that the code under test can write, so it is believed less: markers and the exit code carry a
random word of this run, the log must account for every failure (``rewards/logs.py``), and what passes must fail in a
second sandbox where the bodies of the hidden tests raise.
"""

import ast
import posixpath
import re
import secrets
import shlex
from collections.abc import Awaitable, Callable, Sequence

from ...errors import GradingError
from ...model.chat.encoding import from_bytes, to_bytes
from ...rewards.patches import paths_of
from ...rewards.score import Score
from ...rewards.swe import PASSING, TestReport
from ..datasets.eval_scripts import CODE, END, START
from ..datasets.swe import SWERow
from ..sandbox.types import Limits, Sandbox, SandboxBackend
from .checkout import checkout, checkout_ahead
from .judging import default_judge
from .patching import Applied
from .testing_guest import make_twin
from .worktree import run_script

Prepare = Callable[[Sandbox, SWERow, str], Awaitable[tuple[str | None, Applied]]]

NODE = re.compile(r"^(?P<path>[^:\n]+\.py)::(?P<rest>[^\[]+)")
DJANGO = re.compile(r"^(?P<name>test\w*) \((?P<owner>[\w.]+)\)$")


async def grade_by_script(
    backend: SandboxBackend, row: SWERow, patch: str, *, prepare: Prepare, timeout_s: float, limits: Limits
) -> tuple[Score, TestReport]:
    """Grade a patch with the row's ``eval_script``.

    Args:
        prepare: patches a fresh checkout, and takes back what steers the tests.
    Raises:
        GradingError: the script does not have SWE-bench's markers. SandboxError: the sandbox failed.
    """
    if row.eval_script.count(START) != 1 or row.eval_script.count(END) != 1:
        raise GradingError(f"{row.instance_id}: eval_script does not have each of the markers {START!r}, {END!r} once")
    async with checkout_ahead(backend, row, limits=limits) as second, checkout(backend, row, limits=limits) as first:
        problem, _ = await prepare(first, row, patch)
        if problem is not None:
            detail = f"the patch does not apply: {problem}"
            return _zero(detail), TestReport(statuses={}, complete=False, exit_code=None, detail=detail)
        score, report = await _run(first, row, row.eval_script, timeout_s)
        if not score.passed:
            return score, report
        await first.aclose()
        sandbox = await second()
        await prepare(sandbox, row, patch)
        script, planted = await _with_twins(sandbox, row, report)
        if not planted:
            return score, report
        _, twins = await _run(sandbox, row, script, timeout_s)
    alive = [test for test in planted if twins.statuses.get(test) in PASSING]
    if alive:
        return _zero(f"the outcome is forged: {alive[0]} passed although it was made to fail"), report
    return score, report


async def _run(sandbox: Sandbox, row: SWERow, script: str, timeout_s: float) -> tuple[Score, TestReport]:
    word = secrets.token_hex(8)
    path = f"/tmp/{word}.sh"
    await sandbox.write_file(path, to_bytes(_marked(script, word)))
    result = await sandbox.arun(
        ["bash", "-c", f"exec bash {path} 2>&1"], cwd=row.root, env=row.env, timeout_s=timeout_s
    )
    text = result.stdout.decode("utf-8", errors="replace")
    if result.killed:
        report = TestReport(
            statuses={},
            complete=False,
            exit_code=None,
            detail=f"stopped: {result.killed}",
            duration_s=result.duration_s,
        )
        return _zero(report.detail), report
    # A marker without the word was printed by something else.
    for mark in (START, END, CODE):
        text = text.replace(mark, f"(printed by a test: {mark.strip('> ')})").replace(
            f"{word} {mark.strip('> ')}", mark
        )
    if CODE not in text:
        text += "\n>>>>> Tests Errored"
    verdict = await default_judge().judge(
        text,
        parser=row.parser,
        fail_to_pass=row.FAIL_TO_PASS,
        pass_to_pass=row.PASS_TO_PASS,
        eval_type=row.eval_type,
    )
    return verdict.score, verdict.report


def _marked(script: str, word: str) -> str:
    """The script with markers of this run, which removes itself, and notes the code of the command between them."""
    lines = [f'rm -f -- "$0"  # {word}']
    for line in script.splitlines():
        if CODE in line:
            continue
        if END in line:
            lines.append("VERIGYM_EXIT_CODE=$?")
        lines.append(line)
        if END in line:
            lines.append(f"echo '{word} {CODE.strip('> ')}:' \"${{SWEBENCH_TEST_EXIT_CODE:-$VERIGYM_EXIT_CODE}}\"")
    text = "\n".join(lines) + "\n"
    for mark in (START, END):
        text = text.replace(mark, f"{word} {mark.strip('> ')}")
    return text


async def _with_twins(sandbox: Sandbox, row: SWERow, report: TestReport) -> tuple[str, list[str]]:
    """(the script with the hidden tests made to fail, the passed tests whose bodies now raise).

    The hidden tests are put in place, rewritten, and taken away again: the script brings them itself, and what was
    rewritten is written over them just before they run.
    """
    start = next(n for n, line in enumerate(row.eval_script.splitlines()) if START in line)
    lines = row.eval_script.splitlines()
    prelude = "\n".join(lines[:start])
    applied = [line for line in prelude.splitlines() if line.startswith(("git checkout ", "git apply "))]
    if applied and row.test_patch.strip():
        stdin = to_bytes(row.test_patch)
        await run_script(sandbox, "git apply --whitespace=nowarn -", root=row.root, stdin=stdin)
    passed = [t for t in (*row.FAIL_TO_PASS, *row.PASS_TO_PASS) if report.statuses.get(t) == "passed"]
    planted: list[str] = []
    writes: list[str] = []
    for path in _test_files(row):
        text = await _read(sandbox, posixpath.join(row.root, path))
        wanted = {test: names for test in passed if (names := _function_of(test, path, text)) is not None}
        try:
            twin, found = make_twin(to_bytes(text), set(wanted.values()))
        except (SyntaxError, ValueError, RecursionError):
            continue
        here = [test for test, names in wanted.items() if names in found]
        if here:
            planted += here
            place = f"/tmp/{secrets.token_hex(8)}"
            await sandbox.write_file(place, to_bytes(twin))
            writes.append(f"cat {place} > {shlex.quote(path)}; rm -f {place}")
    if applied and row.test_patch.strip():
        stdin = to_bytes(row.test_patch)
        await run_script(sandbox, "git apply --reverse --whitespace=nowarn -", root=row.root, stdin=stdin)
    return "\n".join([*lines[:start], f"cd {row.root}", *writes, *lines[start:]]) + "\n", planted


def _test_files(row: SWERow) -> Sequence[str]:
    """Python files that the test patch brings or the tests' ids name."""
    named = [new for _, new in paths_of(row.test_patch) if new.endswith(".py")]
    named += [match["path"] for test in row.tests if (match := NODE.match(test))]
    return tuple(dict.fromkeys(named))


def _function_of(test: str, path: str, text: str) -> tuple[str, ...] | None:
    """Where the test's function stands in a file (["Class", "method"]), or None where it is not this file's."""
    if match := NODE.match(test):
        return tuple(match["rest"].split("::")) if match["path"] == path else None
    if match := DJANGO.match(test):
        owner = match["owner"].removesuffix(f".{match['name']}")
        module, _, name = owner.rpartition(".")
        dotted = path.removesuffix(".py").replace("/", ".")
        return (name, match["name"]) if dotted.endswith(module.removesuffix(".__init__")) else None
    if re.fullmatch(r"test\w+", test) and f"def {test}(" in text:
        try:
            names = [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
        except (SyntaxError, ValueError, RecursionError):
            return None
        return (test,) if test in names else None
    return None


async def _read(sandbox: Sandbox, path: str) -> str:
    try:
        return from_bytes(await sandbox.read_file(path))
    except OSError:
        return ""


def _zero(detail: str) -> Score:
    parts = {"fail_to_pass": 0.0, "pass_to_pass": 0.0, "resolved": 0.0}
    return Score(value=0.0, passed=False, breakdown=parts, detail=detail)
