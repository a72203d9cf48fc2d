"""Whether the fix can be read in an agent's workspace: in git's objects, in packages, archives and caches."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...rewards.patches import sections_of
from ..datasets.swe import SWERow
from ..sandbox.types import Limits, SandboxBackend
from ..swe.checkout import environment_of, open_workspace, placed, shell_env
from .text.changes import change_of
from .text.demands import LINE_CHARS

MOST_LINES, FEW_LINES = 40, 3
_STATEMENT = re.compile(r"[=()\[\]]")
"""What a line of code has and a line of a docstring has seldom."""
TELLING_CHARS = 2 * LINE_CHARS
SEARCH_S = 300.0
MOST_GIT = 4 << 30
"""Bytes of git's objects, unpacked, that are looked through whole."""
IMAGE_ROOTS = ("/root", "/home", "/opt", "/srv", "/tmp", "/var/tmp", "/usr/src", "/usr/local")
"""Where an image may keep a package, a cache, or another checkout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Where lines of the reference were found.

    Attributes:
        asked: texts of the reference that stand nowhere at base, so that they tell the fix (``telling_texts``).
        found: text -> "git", or the file it is in; of an archive's member "ARCHIVE!MEMBER".
        shown: the same, of what shows most of the reference otherwise than line by line: a text with its fingerprints
            (``guest_prints.py``), one that quotes it, a compiled file.
        whole: whether all of git's objects were looked at; of a large history only the versions of the files that the
            reference touches.
        searched: whether the search came to its end; where not, nothing is known.
        online: whether the sandbox has a way to other machines.
    """

    asked: int
    found: Mapping[str, str]
    shown: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True
    searched: bool = True
    online: bool = False

    @property
    def share(self) -> float:
        """Of the texts found. Two are counted as not found beforehand where only lines were found, as a line may stand
        anywhere by chance; a changed place with the lines around it does not. 1 where most of it is shown."""
        if self.shown:
            return 1.0
        chance = 0 if any("\n" in text for text in self.found) else 2
        return len(self.found) / (self.asked + chance) if self.found else 0.0


def telling_texts(row: SWERow) -> list[str]:
    """What a reference is told by: long lines of code that it brings. One such line may stand anywhere by chance, so
    where there are few, also the places that it changes, each with the lines around it."""
    change = change_of(row.patch)
    before = {line.strip() for line in change.before.splitlines()}
    lines = dict.fromkeys(line.strip() for line in change.added.splitlines())
    long = [line for line in lines if len(line) >= TELLING_CHARS and line not in before and line[0] != "#"]
    places = changed_places(row.patch) if len(long) < FEW_LINES else ()
    return list(dict.fromkeys((*long, *places)))[:MOST_LINES]


def short_lines(row: SWERow) -> list[str]:
    """Lines of code that a reference brings and does not take away elsewhere, of the length by which one is known."""
    change = change_of(row.patch)
    before = {line.strip() for line in change.removed.splitlines()}
    lines = dict.fromkeys(line.strip() for line in change.added.splitlines())
    code = (line for line in lines if len(line) >= LINE_CHARS and line not in before)
    return [line for line in code if line[0] != "#" and _STATEMENT.search(line)][:MOST_LINES]


def changed_places(patch: str) -> Iterator[str]:
    """Each run of added lines between the line before it and the one after it."""
    return (place for place, _ in changed_runs(patch))


def changed_runs(patch: str) -> Iterator[tuple[str, str]]:
    """(changed place, its added lines as a patch has them) of each run of added lines."""
    for section in sections_of(patch):
        for hunk in section.split("\n@@ ")[1:]:
            after = [line for line in hunk.splitlines()[1:] if line[:1] in ("+", " ")]
            added = [number for number, line in enumerate(after) if line.startswith("+")]
            starts = [number for number in added if number - 1 not in added]
            for start in starts:
                end = next(number for number in range(start, len(after) + 1) if number not in added)
                text = "\n".join(line[1:] for line in after[max(0, start - 1) : end + 1])
                if len("".join(text.split())) >= LINE_CHARS and any(after[n][1:].strip() for n in range(start, end)):
                    yield text, "\n".join(after[start:end])


async def search_workspace(backend: SandboxBackend, row: SWERow, *, limits: Limits | None = None) -> Leak:
    """Look for the reference in what an agent would be given.

    Raises:
        TaskError, SandboxError: as ``open_workspace``.
    """
    lines = telling_texts(row)
    row = placed(row, backend)
    environment = await environment_of(row)
    sandbox = await open_workspace(backend, row, limits=limits or Limits(), env=shell_env(row, environment))
    try:
        # Without an image what lies outside of package folders is this machine's own, and the same for every task.
        order = {
            "lines": lines,
            "roots": IMAGE_ROOTS if row.image else ("/tmp",),
            "paths": change_of(row.patch).paths,
            "most_git": MOST_GIT,
            "places": list(changed_places(row.patch))[:MOST_LINES],
            "short": short_lines(row),
            "as_patch": dict(changed_runs(row.patch)),
            "patch": row.patch,
        }
        prints = {"paths": order["paths"], "patch": row.patch, "statement": row.problem_statement}
        results = []
        for name, asked in (("guest_search.py", order), ("guest_prints.py", prints)):
            program = Path(__file__).with_name(name).read_text(encoding="utf-8")
            command = [environment.python, "-c", program]
            results.append(
                await sandbox.arun(command, cwd=row.root, stdin=json.dumps(asked).encode(), timeout_s=SEARCH_S)
            )
    finally:
        await sandbox.aclose()
    try:
        told, shape = (json.loads(result.stdout) for result in results)
        leak = Leak(**{name: told[name] for name in ("asked", "found", "shown", "whole", "online")})
        texts = short_lines(row) or lines or list(order["places"])
        return replace(leak, shown={**dict.fromkeys(texts, shape["place"]), **leak.shown}) if shape["place"] else leak
    except (ValueError, KeyError):
        return Leak(asked=0, found={}, searched=False)
