"""pip that installs wheels and starts no program.

An sdist is built by code of its own, which would run on this machine and not in a sandbox. ``--only-binary`` keeps pip
from taking one of the package index; a dependency that is named by an address (``name @ https://…``, ``git+…``) is
built in spite of it. So pip itself may start no process: building and cloning need one.
"""

import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...errors import SandboxError, TaskError

PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]+\])?\s*==\s*[A-Za-z0-9][A-Za-z0-9.!+_-]*")
ONLY_WHEELS = "--only-binary=:all:"
HOW_TO_BUILD = (
    "only wheels are installed, because building runs a package's own code: where you trust it, build one with "
    "`pip wheel`, and name its folder in PIP_FIND_LINKS"
)

_RESOLVED: dict[tuple[str, ...], tuple[str, ...]] = {}
"""A whole resolution of this process -> the addresses of its wheels, with their digests."""

_NO_PROGRAMS = """\
import runpy, sys
place = sys.argv.pop(1)
def refuse(event, arguments):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"):
        raise PermissionError("a package would have to be built here, or cloned, which runs its code")
sys.addaudithook(refuse)
runpy.run_path(place, run_name="__main__")
"""


def pip_command(python: str | None = None) -> list[str]:
    """The beginning of pip's command line; it takes wheels alone (say also ``ONLY_WHEELS``).

    Args:
        python: the interpreter of an environment to install into; None for this process's own, to ask and download.
    Raises:
        SandboxError: there is no pip.
    """
    found = importlib.util.find_spec("pip")
    if found is not None and found.origin is not None:
        folder = Path(found.origin).parent
        # Its runner shows another interpreter pip alone, and not what else is installed beside it.
        runner = folder if python is None else folder / "__pip-runner__.py"
        return [python or sys.executable, "-I", "-c", _NO_PROGRAMS, str(runner)]
    wheels = sorted((Path(os.__file__).parent / "ensurepip" / "_bundled").glob("pip-*.whl"))
    if not wheels:
        raise SandboxError("there is no pip to build an environment with; run `python -m ensurepip` or install pip")
    return [python or sys.executable, "-I", "-c", _NO_PROGRAMS, str(wheels[-1] / "pip")]


def pinned(requirements: Iterable[str]) -> tuple[str, ...]:
    """Requirements in order, each once.

    Raises:
        TaskError: one is not ``name==version``: a range, or an option, an address or a path, which pip would take too.
    """
    wanted = tuple(sorted({requirement.strip() for requirement in requirements}))
    for requirement in wanted:
        if not PINNED.fullmatch(requirement):
            raise TaskError(f"requirement {requirement!r} is not pinned; write name==version")
    return wanted


def note_resolution(pins: Iterable[str], found: Sequence[dict[str, Any]]) -> None:
    """Keep where pip found the wheels of a set of pins that needs nothing else, so that installing it does not ask the
    index for each of them once more.

    Args:
        found: ``download_info`` of pip's report, of all of them; one without a digest, or that is no wheel, and nothing
            is kept.
    """
    addresses = []
    for info in found:
        digest = info.get("archive_info", {}).get("hashes", {}).get("sha256")
        if not digest or not info.get("url", "").endswith(".whl"):
            return
        addresses.append(f"{info['url']}#sha256={digest}")
    _RESOLVED[pinned(pins)] = tuple(addresses)


def resolved_wheels(requirements: Iterable[str]) -> tuple[str, ...]:
    """Addresses of the wheels of a whole resolution that was noted; none where it was not."""
    return _RESOLVED.get(pinned(requirements), ())
