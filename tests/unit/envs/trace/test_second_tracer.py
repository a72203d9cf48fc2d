"""Events, lines, names and plain values against a second tracer that shares no code with ours."""

import json
import random
import subprocess
from pathlib import Path

import pytest

from verigym.envs import trace
from verigym.envs.trace import guest_tracer, guest_values  # noqa: F401
from verigym.envs.trace.programs import any_program

from . import second_tracer
from .conftest import interpreters

NEWER = {version: path for version, path in interpreters().items() if version >= (3, 12)}


@pytest.mark.parametrize("start", range(4))
def test_generated_programs(start):
    for seed in range(start, 60, 4):
        job = any_program(random.Random(seed), statements=8)
        events, values = second_tracer.compare_program(trace, "settrace", job.source, job.call)
        assert events > 10
        assert values > 10


def test_the_standard_library():
    events, values, functions = second_tracer.compare_library(trace, "settrace")
    assert events > 20_000
    assert values > 20_000
    assert functions > 600


@pytest.mark.slow
@pytest.mark.skipif(not NEWER, reason="no Python 3.12 or newer is installed: there is no sys.monitoring")
@pytest.mark.parametrize("kind", ["settrace", "monitoring"])
@pytest.mark.parametrize("version", NEWER or [None], ids=str)
def test_newer_pythons_and_sys_monitoring(version, kind):
    """Ours is by ``sys.monitoring`` there."""
    jobs = [any_program(random.Random(seed), statements=8) for seed in range(60)]
    done = subprocess.run(
        [NEWER[version], second_tracer.__file__, str(Path(guest_tracer.__file__).parent), kind],
        input=json.dumps([(job.source, job.call) for job in jobs]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert all(events > 10 for events, values in found["programs"])
    assert all(number > least for number, least in zip(found["library"], (15_000, 15_000, 550)))
