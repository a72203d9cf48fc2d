"""Whether the fix can be read in an agent's workspace: in git's objects, in packages, in caches."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ..datasets.swe import SWERow
from ..sandbox.types import Limits, SandboxBackend
from ..swe.checkout import environment_of, open_workspace, placed, shell_env
from .changes import change_of
from .demands import LINE_CHARS

MOST_LINES = 40
SEARCH_S = 120.0
IMAGE_ROOTS = ("/root", "/home", "/opt", "/srv", "/tmp", "/var/tmp", "/usr/src", "/usr/local")
"""Where an image may keep a package, a cache, or another checkout."""

_SEARCH = r"""
import json, os, subprocess, sys, sysconfig
order = json.load(sys.stdin)
def stands(line):
    asked = ["git", "grep", "-q", "-F", "-I", "-e", line, "HEAD", "--"]
    return subprocess.run(asked, capture_output=True).returncode == 0
lines = {line: line.encode() for line in order["lines"] if not stands(line)}
found = {}
def look(data, place):
    for line, text in lines.items():
        if text in data:
            found.setdefault(line, place)
objects = subprocess.run(["git", "cat-file", "--batch-all-objects", "--batch"], capture_output=True).stdout
look(objects, "git")
here = os.path.realpath(os.getcwd())
places = {os.path.realpath(path) for path in sys.path if "-packages" in path and os.path.isdir(path)}
places |= {os.path.realpath(path) for path in order["roots"] if os.path.isdir(path)}
seen = 0
for place in sorted(places):
    for folder, below, files in os.walk(place):
        below[:] = [name for name in below if os.path.realpath(os.path.join(folder, name)) != here]
        if folder == here:
            continue
        for name in files:
            if not name.endswith((".py", ".patch", ".diff", ".orig", ".rej", ".txt", ".whl", ".gz", ".zip")):
                continue
            path = os.path.join(folder, name)
            try:
                if os.path.getsize(path) > 4 << 20:
                    continue
                with open(path, "rb") as file:
                    look(file.read(), path)
            except OSError:
                continue
            seen += 1
json.dump({"found": found, "asked": len(lines), "seen": seen}, sys.stdout)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Where lines of the reference were found.

    Attributes:
        asked: lines of the reference that stand nowhere at base, so that they tell the fix.
        found: line -> "git", or the file it is in.
    """

    asked: int
    found: Mapping[str, str]

    @property
    def share(self) -> float:
        """Of the lines found, with two counted as not found beforehand: one line may stand anywhere by chance."""
        return len(self.found) / (self.asked + 2)


def telling_lines(row: SWERow) -> list[str]:
    """Lines of code that the reference brings, long enough to be told apart."""
    change = change_of(row.patch)
    before = {line.strip() for line in change.before.splitlines()}
    lines = dict.fromkeys(line.strip() for line in change.added.splitlines())
    return [line for line in lines if len(line) >= 2 * LINE_CHARS and line not in before and line[0] != "#"][
        :MOST_LINES
    ]


async def search_workspace(backend: SandboxBackend, row: SWERow, *, limits: Limits | None = None) -> Leak:
    """Look for the reference in what an agent would be given.

    Raises:
        TaskError, SandboxError: as ``open_workspace``.
    """
    lines = telling_lines(row)
    if not lines:
        return Leak(asked=0, found={})
    row = placed(row, backend)
    environment = await environment_of(row)
    sandbox = await open_workspace(backend, row, limits=limits or Limits(), env=shell_env(row, environment))
    try:
        # Without an image the rest of the file system is this machine's own, and the same for every task.
        order = json.dumps({"lines": lines, "roots": IMAGE_ROOTS if row.image else ("/tmp",)}).encode()
        command = [environment.python, "-c", _SEARCH]
        result = await sandbox.arun(command, cwd=row.root, stdin=order, timeout_s=SEARCH_S)
    finally:
        await sandbox.aclose()
    try:
        told = json.loads(result.stdout)
        return Leak(asked=told["asked"], found=told["found"])
    except (ValueError, KeyError):
        return Leak(asked=0, found={})
