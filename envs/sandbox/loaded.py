"""Nurseries whose sandboxes have a program of ours loaded: an interpreter of a virtual environment has imported what
the program needs of the standard library, and is forked instead of started. Nothing of the environment is imported
outside of a sandbox: whatever would have the interpreter do that at its start forbids it."""

import marshal
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from .boot import boot_command, modules
from .launch import GUEST, VARIABLES, base_python
from .nursery import Nursery
from .types import Loaded

FIRST_AT = 2
"""From which request on a program is worth a process that has it loaded."""
MOST = 8
"""Such processes at once; sandboxes of further programs start them."""
ENVIRONMENT = {**VARIABLES, "PYTHONHASHSEED": "0"}
"""What a program must be given as its variables to be forked."""
STARTERS = ("*.pth", "sitecustomize*", "usercustomize*")
"""Files by which packages have code run in an interpreter that starts."""

_lock = threading.Lock()
_spurned: set[Loaded] = set()


@lru_cache(maxsize=1)
def _made(process: int) -> tuple[dict[Loaded, int], dict[Loaded, Nursery]]:
    return {}, {}


def nursery_with(program: Loaded) -> Nursery | None:
    """The process that has a program loaded; None where it may not be forked, or is not worth it yet."""
    with _lock:
        requests, nurseries = _made(os.getpid())
        if program not in nurseries:
            requests[program] = requests.get(program, 0) + 1
            if (
                program in _spurned
                or requests[program] < FIRST_AT
                or len(nurseries) >= MOST
                or not starts_plainly(program.python)
            ):
                return None
            nurseries[program] = Nursery(_start(program))
        return nurseries[program]


def give_up(program: Loaded) -> None:
    """Have no further sandbox of a process with this program: one could not be made so."""
    with _lock:
        _spurned.add(program)
        _made(os.getpid())[1].pop(program, None)


@lru_cache(maxsize=256)
def starts_plainly(python: str) -> bool:
    """Whether an interpreter runs nothing of its virtual environment when it starts: it is the base interpreter still,
    which a wheel may have put another file in the place of, and finds its library where that does."""
    base, venv = base_python()[0], Path(python).parent.parent
    try:
        lines = (venv / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return False
    said = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
    plain = os.path.realpath(said.get("home", "")) == os.path.dirname(base)
    if os.path.realpath(python) != base or not plain or said.get("include-system-site-packages") != "false":
        return False
    return not any(any(venv.glob(f"lib*/python*/site-packages/{name}")) for name in STARTERS)


def _start(program: Loaded) -> Callable[[socket.socket], "subprocess.Popen[bytes]"]:
    def start(its: socket.socket) -> "subprocess.Popen[bytes]":
        # Its standard streams are pipes, as in a sandbox: their objects know what they were made of.
        process = subprocess.Popen(
            boot_command(program.python, program.package),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            pass_fds=(its.fileno(),),
        )
        assert process.stdin is not None
        for output in (process.stdout, process.stderr):
            assert output is not None
            output.close()
        parts = marshal.loads(program.program[4:])
        facts = (f"{program.package}.{parts[-1][0]}", program.imports, its.fileno(), GUEST)
        text = f"LOADED = {facts!r}\n" + (Path(__file__).parent / "guest_loaded.py").read_text(encoding="utf-8")
        with process.stdin:
            process.stdin.write(modules([*parts, ("loaded", compile(text, "loaded.py", "exec"))]))
        return process

    return start
