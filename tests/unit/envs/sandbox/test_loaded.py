"""Programs that are loaded before their sandbox begins, and that nothing of an environment runs outside of one."""

import asyncio
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from verigym.envs.sandbox import python as python_module
from verigym.envs.sandbox.boot import boot_command, modules, portable
from verigym.envs.sandbox.launch import base_python
from verigym.envs.sandbox.loaded import FIRST_AT, nursery_with, starts_plainly
from verigym.envs.sandbox.local import LocalBackend
from verigym.envs.sandbox.types import Bind, Loaded, SandboxSpec

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not sys.platform.startswith("linux"), reason="a user's sandboxes start their programs"
)
SAYS = "import os\n\n\ndef main():\n    os.write(1, b'%d %d' % (os.getpid(), os.getppid()))\n"


@pytest.fixture
def venv(tmp_path):
    folder = tmp_path / "venv"
    subprocess.run([base_python()[0], "-I", "-m", "venv", "--without-pip", folder], check=True)
    tmp_path.chmod(0o755)
    return folder


def program_of(venv, source):
    program = modules([("says", portable("says", source))])
    return Loaded(python=str(venv / "bin" / "python"), package="said", program=program, imports=("string",))


def run(program, venv, **variables):
    """(forks of the process with the program that the sandbox had before it was asked for it, what it says)."""

    async def one():
        spec = SandboxSpec(binds=(Bind(source=venv, target=str(venv)),), loaded=program)
        sandbox = await LocalBackend(launcher="fork").create(spec)
        try:
            listed = (await sandbox.arun(["ps", "-e", "-o", "pid=,args="])).stdout.decode().splitlines()
            command = boot_command(program.python, program.package)
            done = await sandbox.arun(command, env={"PYTHONHASHSEED": "0", **variables}, stdin=program.program)
        finally:
            await sandbox.aclose()
        return {line.split()[0] for line in listed if venv.as_posix() in line} - {"1"}, done.stdout.decode().split()

    return asyncio.run(one())


@needs_root
def test_a_program_is_loaded_once_it_comes_again_and_runs_with_no_other_variables(venv):
    program = program_of(venv, SAYS)
    for _ in range(FIRST_AT - 1):
        waiting, _ = run(program, venv)
        assert not waiting
    waiting, said = run(program, venv)
    assert said[1] in waiting
    waiting, said = run(program, venv, TZ="UTC-3")
    assert waiting
    assert said[1] not in waiting


@needs_root
def test_where_it_cannot_be_loaded_it_is_started(venv):
    ends = f"import os, sys\nif os.getpid() != 1 and os.getcwd() == '/': os._exit(3)\n{SAYS}"
    program = program_of(venv, ends)
    for _ in range(FIRST_AT - 1):
        run(program, venv)
    assert nursery_with(program) is not None
    waiting, said = run(program, venv)
    assert not waiting
    assert said
    assert nursery_with(program) is None


@needs_root
def test_nothing_of_the_environment_is_imported_before_the_sandbox_begins(venv):
    (folder,) = venv.glob("lib/python*/site-packages")
    (folder / "mine.py").write_text("import os\nPLACE = os.getpid()\n")
    finds = SAYS.replace("os.getppid()", "__import__('mine').PLACE")
    program = replace(program_of(venv, finds), imports=("mine",))
    for _ in range(FIRST_AT):
        waiting, said = run(program, venv)
        assert said[0] == said[1]
    assert not waiting
    program = program_of(venv, finds.replace("%d %d", "%d %d "))
    for _ in range(FIRST_AT):
        waiting, said = run(program, venv)
        assert said[0] == said[1]
    assert waiting


@pytest.mark.parametrize("name", ["more.pth", "sitecustomize.py", "usercustomize"])
def test_an_environment_that_runs_code_at_its_start_is_not_loaded_ahead(venv, name):
    (folder,) = venv.glob("lib/python*/site-packages")
    assert starts_plainly(str(venv / "bin" / "python"))
    (folder / name).mkdir() if "." not in name else (folder / name).write_text("import os\n")
    starts_plainly.cache_clear()
    assert not starts_plainly(str(venv / "bin" / "python"))
    assert not starts_plainly(base_python()[0])


@pytest.mark.parametrize("change", ["python", "home", "system"])
def test_an_interpreter_that_a_wheel_has_changed_is_not_started(venv, change):
    python, settings = venv / "bin" / "python", venv / "pyvenv.cfg"
    assert starts_plainly(str(python))
    if change == "python":
        python.unlink()
        python.write_text("#!/bin/sh\n")
    else:
        text = settings.read_text()
        assert "home = " in text
        changed = text.replace("home = ", "home = /else") if change == "home" else text.replace("false", "true")
        settings.write_text(changed)
    starts_plainly.cache_clear()
    assert not starts_plainly(str(python))


def test_byte_code_of_an_environment_is_made_without_running_anything_of_it(venv, tmp_path):
    (folder,) = venv.glob("lib/python*/site-packages")
    (folder / "more.pth").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})\n")
    (folder / "one.py").write_text("ONE = 1\n")
    python_module._compile(venv)
    assert list(folder.glob("__pycache__/one.*.pyc"))
    assert not (tmp_path / "ran").exists()
