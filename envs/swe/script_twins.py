"""Twins for tests that a script runs: files in which some tests are made to fail, written just before the script's
command, run after run.

The host finds the tests in the hidden files, decides in which runs each is a twin, and knows so what must fail.
"""

import posixpath
import random
import secrets
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ...errors import GradingError
from ...model.chat.encoding import from_bytes, to_bytes
from ...rewards.patches import paths_of
from ...rewards.swe import FAILING, PASSING, TestReport, found_ids
from ..datasets.eval_scripts import START
from ..datasets.swe import SWERow
from ..sandbox.types import Sandbox
from .locating import NODE, Index, Place, words_of
from .rounds import MAX_OTHERS, Finding
from .twin_text import twin_text
from .worktree import run_script

RUNS = 6
"""Runs of the script, in half of which a test that decides is a twin: a forgery that does not know the twins is caught
but for one choice in 20."""

MOST_FILES = 60

_FIND = r"""
    for path in {folders}; do [ ! -d "$path" ] || find -L "$path" -name '*.py' -type f; done
    [ -s /dev/stdin ] && cat > /tmp/{word} && grep -rlF --include='*.py' -f /tmp/{word} . | sed 's|^\./||' |
        grep -E '(^|/)(tests?|testing|e2e)/|(^|/)test_[^/]*$|_test\.py$|(^|/)tests\.py$' | head -n {most}
    rm -f /tmp/{word}
"""


class Group:
    """Tests that share a function, and so are twins together."""

    def __init__(self, places: Sequence[Place], deciding: bool) -> None:
        self.places, self.tests, self.deciding = set(places), set[str](), deciding


class ScriptTwins:
    """The hidden files' texts, where the tests that passed stand in them, and scripts with twins."""

    def __init__(self, row: SWERow, texts: Mapping[str, str], report: TestReport) -> None:
        self._row, self._texts = row, texts
        index = Index(texts)
        passed = {
            name: [test for test in found_ids(report.statuses, tests) if report.statuses.get(test) == "passed"]
            for name, tests in (("first", row.FAIL_TO_PASS), ("others", row.PASS_TO_PASS))
        }
        deciding = set(passed["first"] or passed["others"])
        self.groups: list[Group] = []
        expected = [test for test in found_ids(report.statuses, row.tests) if report.statuses.get(test) == "xfailed"]
        self.excused = [
            test for test in expected if (found := index.find(test)) and not any(map(index.is_excusable, found))
        ]
        fixed = set(found_ids(report.statuses, row.FAIL_TO_PASS))
        self.untwinned = [test for test in expected if test in fixed]
        for test in dict.fromkeys([*passed["first"], *passed["others"]]):
            places = index.find(test)
            if places:
                self._join(test, places, test in deciding)
            elif test in deciding:
                self.untwinned.append(test)
        self._paths = sorted({path for group in self.groups for path, _ in group.places})

    def _join(self, test: str, places: Sequence[Place], deciding: bool) -> None:
        group = Group(places, deciding)
        for other in [other for other in self.groups if other.places & group.places]:
            group.places |= other.places
            group.tests |= other.tests
            group.deciding |= other.deciding
            self.groups.remove(other)
        group.tests.add(test)
        self.groups.append(group)

    @classmethod
    async def make(cls, sandbox: Sandbox, row: SWERow, report: TestReport) -> "ScriptTwins":
        """Read the hidden files of a patched checkout, as the row's script will bring them."""
        brings = bool(row.test_patch.strip()) and any(
            line.startswith(("git checkout ", "git apply ")) for line in _prelude(row)
        )
        stdin = to_bytes(row.test_patch)
        if brings:
            await run_script(sandbox, "git apply --whitespace=nowarn -", root=row.root, stdin=stdin)
        texts = {path: await _read(sandbox, posixpath.join(row.root, path)) for path in test_files(row)}
        missing = [test for test in row.tests if not Index(texts).find(test)]
        if missing or row.hidden_files:
            for path in await _others(sandbox, row, missing):
                texts.setdefault(path, await _read(sandbox, posixpath.join(row.root, path)))
        if brings:
            await run_script(sandbox, "git apply --reverse --whitespace=nowarn -", root=row.root, stdin=stdin)
        return cls(row, {path: text for path, text in texts.items() if text}, report)

    async def find_forgery(self, run: Callable[[str], Awaitable[TestReport]]) -> Finding:
        """Run the script again, with and without twins.

        Where tests do not pass again beside others' twins, they get those others as they are.
        """
        if self.excused:
            return Finding(forged=f"{self.excused[0]} is an expected failure, of which the test says nothing")
        if not any(group.deciding for group in self.groups):
            return Finding(untrusted=tuple(self.untwinned))
        trouble = ""
        for others_too in (True, False):
            trouble, planted = "", set[str]()
            for twins in self._plans(others_too):
                report = await run(self.script(twins))
                if report.detail.startswith("stopped: timeout"):
                    raise GradingError("the tests' twins met the time limit, which the tests did not")
                for group in self.groups:
                    statuses = {test: report.statuses.get(test) for test in group.tests}
                    alive = [test for test, status in statuses.items() if status in PASSING]
                    if id(group) in twins and alive:
                        return Finding(forged=f"{alive[0]} passed although it was made to fail")
                    if id(group) in twins:
                        planted |= {test for test, status in statuses.items() if status in FAILING}
                    elif group.deciding and len(alive) < len(statuses):
                        missed = next(test for test in statuses if test not in alive)
                        trouble = trouble or f"{missed} passed, and did not when it was run again"
            if not trouble:
                deciding = [test for group in self.groups if group.deciding for test in group.tests]
                lost = [test for test in deciding if test not in planted]
                return Finding(untrusted=(*self.untwinned, *lost))
        return Finding(forged=trouble)

    def _plans(self, others_too: bool) -> list[dict[int, int]]:
        """What is a twin in each run: a group's id -> the number of its twin."""
        dice = random.SystemRandom()
        plans: list[dict[int, int]] = [{} for _ in range(RUNS)]
        for plan in plans if others_too else ():
            # At once: their own time is not spent again. A sample, drawn for each run: what fails is told at length.
            others = [group for group in self.groups if not group.deciding]
            for group in dice.sample(others, min(len(others), MAX_OTHERS)):
                plan[id(group)] = -dice.randrange(1, 1 << 20)
        for group in self.groups:
            first = dice.randrange(1, 1 << 20)
            if group.deciding:
                for n, place in enumerate(dice.sample(range(RUNS), RUNS // 2)):
                    plans[place][id(group)] = first + n
        return plans

    def script(self, twins: Mapping[int, int]) -> str:
        """The row's script, which writes every hidden file just before its command, some tests made to fail."""
        numbers: dict[str, dict[tuple[str, ...], int]] = {path: {} for path in self._paths}
        for group in self.groups:
            for path, names in group.places if id(group) in twins else ():
                numbers[path][names] = twins[id(group)]
        lines = self._row.eval_script.splitlines()
        start = next(n for n, line in enumerate(lines) if START in line)
        writes = ["{ set +x; } 2>/dev/null", f"cd {shlex.quote(self._row.root)}"]
        for path, wanted in numbers.items():
            text, _ = twin_text(self._texts[path], wanted) if wanted else (self._texts[path], None)
            end = f"END_{secrets.token_hex(8)}"
            text = text if text.endswith("\n") else text + "\n"
            folder, name = posixpath.split(path)
            # Byte code of another run's text, as long and of the same second, would be taken for this one's.
            stale = posixpath.join(folder, "__pycache__", posixpath.splitext(name)[0])
            writes.append(f"rm -f -- {shlex.quote(stale)}.*; cat > {shlex.quote(path)} <<'{end}'\n{text}{end}")
        writes.append("set -x" if any("set -" in line and "x" in line for line in lines[:start]) else ":")
        new = [new for old, new in paths_of(self._row.test_patch) if new and not old]
        gone = (
            [f"rm -f -- {' '.join(shlex.quote(posixpath.join(self._row.root, path)) for path in new)}"] if new else []
        )
        shebang = lines[:1] if lines[0].startswith("#!") else []
        return "\n".join([*shebang, *gone, *lines[len(shebang) : start], *writes, *lines[start:]]) + "\n"


def _prelude(row: SWERow) -> Sequence[str]:
    lines = row.eval_script.splitlines()
    return lines[: next(n for n, line in enumerate(lines) if START in line)]


def test_files(row: SWERow) -> tuple[str, ...]:
    """Python files that the test patch brings, the tests' ids name, or the row says are hidden."""
    named = [new for _, new in paths_of(row.test_patch) if new and new.endswith(".py")]
    named += [match["path"] for test in row.tests if (match := NODE.match(test))]
    named += [path for path in row.hidden_files if path.endswith(".py")]
    return tuple(dict.fromkeys(named))


async def _others(sandbox: Sandbox, row: SWERow, missing: Sequence[str]) -> list[str]:
    """Further test files: in hidden folders, and those that hold what ``missing`` tests are called."""
    folders = [path for path in row.hidden_files if not path.endswith((".py", ".sh"))]
    script = _FIND.format(
        folders=" ".join(map(shlex.quote, folders)) or "''", word=secrets.token_hex(8), most=MOST_FILES
    )
    words = "\n".join(dict.fromkeys(words_of(test) for test in missing))
    result = await run_script(sandbox, script, root=row.root, stdin=to_bytes(words))
    found = from_bytes(result.stdout).splitlines()
    return [path for path in dict.fromkeys(found) if path]


async def _read(sandbox: Sandbox, path: str) -> str:
    try:
        return from_bytes(await sandbox.read_file(path))
    except OSError:
        return ""
