import asyncio
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from verigym.envs.code.box import ProgramRun
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.trace.guest import PROGRAM, prelude
from verigym.envs.trace.run import TraceBounds, TraceBox, TraceJob, context_of, guest_job, read_run
from verigym.errors import SandboxError


@pytest.fixture(scope="module")
def backend():
    try:
        return make_backend("local")
    except SandboxError as error:
        pytest.skip(f"no sandbox works here: {error}")


@pytest.fixture
def trace(backend):
    """Traces one program: trace(source, call, bound=...)."""

    def one(source, call="", *, stdin="", **bounds):
        box = TraceBox(backend, bounds=TraceBounds(**bounds))
        (run,) = asyncio.run(box.trace([TraceJob(source=source, call=call, stdin=stdin)]))
        return run

    return one


@functools.cache
def interpreters():
    """Version -> path of every Python on this machine that starts, this one included."""
    folders = [*os.environ["PATH"].split(":")]
    folders += sorted(Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv").glob("versions/3.*/bin"))
    found = {sys.version_info[:2]: sys.executable}
    for minor in (8, 9, 10, 11, 12, 13):
        for folder in folders:
            path = Path(folder) / f"python3.{minor}"
            if (3, minor) in found or not path.is_file():
                continue
            tried = subprocess.run([path, "-c", ""], capture_output=True)
            if tried.returncode == 0:
                found[3, minor] = str(path)
    return found


def trace_with(python, job, *, backend="", untraced=False):
    """The run of a job by an interpreter of this machine, outside any sandbox: for programs of these tests alone."""
    context, bounds = context_of(job), TraceBounds()
    told = subprocess.run(
        [python, "-c", prelude() + PROGRAM],
        input=guest_job(job, context, bounds, backend=backend, untraced=untraced).encode(),
        capture_output=True,
        timeout=120,
        env={"PYTHONHASHSEED": "0", "PATH": os.environ["PATH"]},
    )
    rows = [json.loads(line) for line in told.stdout.decode().splitlines()]
    assert rows, told.stderr.decode()
    return read_run(ProgramRun(status="ok", stdout=told.stdout.decode(), stderr=told.stderr.decode()), context)
