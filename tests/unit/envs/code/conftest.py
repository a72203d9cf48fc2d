import asyncio

import pytest

from verigym.envs.code.box import ProgramBox, RunLimits
from verigym.envs.sandbox.choose import make_backend
from verigym.errors import SandboxError


@pytest.fixture(scope="module")
def backend():
    try:
        return make_backend("local")
    except SandboxError as error:
        pytest.skip(f"no sandbox works here: {error}")


@pytest.fixture
def box(backend):
    return ProgramBox(backend, limits=RunLimits(cpu_s=5.0))


@pytest.fixture
def run():
    return asyncio.run
