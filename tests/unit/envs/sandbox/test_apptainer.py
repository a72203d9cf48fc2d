"""Sandboxes of Apptainer, which here is a stand-in that takes the same command lines (``stand_ins/apptainer.py``)."""

import asyncio
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest

from verigym.envs.sandbox.apptainer import ApptainerBackend, mount_option
from verigym.envs.sandbox.apptainer_images import last_line, pulled_name
from verigym.envs.sandbox.conformance import CHECKS, ISOLATION_CHECKS, InImage
from verigym.envs.sandbox.settings import SandboxSettings
from verigym.envs.sandbox.types import SandboxSpec
from verigym.errors import SandboxError

from . import archives

STAND_IN = Path(__file__).parent / "stand_ins/apptainer.py"
QUICK = {"check_session", "check_network", "check_invisible", "check_binds"}


def stand_in():
    spec = importlib.util.spec_from_file_location("apptainer_stand_in", STAND_IN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The program, and a cache of its own for what it makes."""
    folder = tmp_path_factory.mktemp("apptainer")
    path = folder / "bin/apptainer"
    path.parent.mkdir()
    package = Path(__file__).parents[4]
    path.write_text(f'#!/bin/sh\nPYTHONPATH={package}:{package.parent} exec {sys.executable} {STAND_IN} "$@"\n')
    path.chmod(0o755)
    before = os.environ.get("VERIGYM_CACHE")
    os.environ["VERIGYM_CACHE"] = str(folder / "cache")
    yield str(path)
    os.environ.pop("VERIGYM_CACHE") if before is None else os.environ.update(VERIGYM_CACHE=before)


def settings(program, **more):
    return SandboxSettings(apptainer_program=program, **more)


@pytest.fixture(scope="module")
def backend(program):
    backend = ApptainerBackend(settings=settings(program))
    try:
        asyncio.run(said(backend, "true"))
    except SandboxError as error:
        if "unshare" in str(error):
            pytest.skip(f"no namespaces: {error}")
        raise
    return backend


async def said(backend, command, **spec):
    sandbox = await backend.create(SandboxSpec(**spec))
    try:
        return (await sandbox.aexec(command)).output
    finally:
        await sandbox.aclose()


def checks(quick):
    return [
        pytest.param(check, marks=[] if check.__name__ in quick else [pytest.mark.slow], id=check.__name__)
        for check in (*CHECKS, *ISOLATION_CHECKS)
    ]


@pytest.mark.parametrize("check", checks(QUICK))
def test_it_passes_what_every_sandbox_must(check, backend, programs_image):
    asyncio.run(asyncio.wait_for(check(InImage(backend, f"docker-archive:{programs_image}")), 120))


@pytest.mark.parametrize("check", checks(()))
def test_it_passes_that_without_an_image(check, backend):
    asyncio.run(asyncio.wait_for(check(backend), 120))


def test_an_image_is_made_once_and_its_variables_are_there(backend, program, programs_layer, tmp_path):
    archive = archives.docker_archive(tmp_path / "one.tar", [programs_layer], Env=["COLOUR=deep blue", "HOME=/nowhere"])
    image = f"docker-archive:{archive}"
    assert asyncio.run(said(backend, "echo $COLOUR $HOME", image=image)) == "deep blue /home/agent\n"
    folder = Path(os.environ["VERIGYM_CACHE"]) / "apptainer"
    made = {path: path.stat().st_mtime_ns for path in folder.glob("*.sif")}
    again = ApptainerBackend(settings=settings(program))
    assert asyncio.run(said(again, "echo $COLOUR", image=image)) == "deep blue\n"
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.sif")} == made
    assert not list(folder.glob("*.part-*"))


@pytest.mark.slow
def test_what_images_may_be(backend, program, programs_layer, tmp_path):
    """A SIF file, a folder, an OCI layout; a name where a file of that name was pulled."""
    layout = archives.oci_layout(tmp_path / "layout", [programs_layer])
    assert asyncio.run(said(backend, "echo ok", image=f"oci:{layout}")) == "ok\n"
    (made, *_) = sorted((Path(os.environ["VERIGYM_CACHE"]) / "apptainer").glob("*.sif"), key=os.path.getmtime)[::-1]
    (tmp_path / "pulled").mkdir()
    shutil.copy(made, tmp_path / "pulled/tool_2.1.sif")
    assert asyncio.run(said(backend, "echo ok", image=str(tmp_path / "pulled/tool_2.1.sif"))) == "ok\n"
    pulled = ApptainerBackend(settings=settings(program, apptainer_images=tmp_path / "pulled"))
    assert asyncio.run(said(pulled, "echo ok", image="registry.example.org/a/tool:2.1")) == "ok\n"
    folder = tmp_path / "pulled/tool_2.1.sif.unpacked"
    (folder / "testbed").mkdir()
    output = asyncio.run(said(backend, "id -u; echo x > made; ls", image=str(folder), workdir="/testbed"))
    assert output == "0\nmade\n"  # the folder's owner
    assert not list((folder / "testbed").iterdir()), "an image is not written to"


def test_command_lines_are_apptainers(backend, program, tmp_path, monkeypatch):
    """As root and as a user, read by the table of its flags."""
    flags = stand_in()
    for user, rights in ((0, "userns"), (1000, "fakeroot")):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        made = ApptainerBackend(settings=settings(program, apptainer_options="--memory 4G"))
        words = asyncio.run(made._words(tmp_path, {"/opt/a": str(tmp_path)}))
        at = words.index("exec")
        told, rest = flags.parsed("exec", words[at + 1 :])
        assert rest == [str(tmp_path)]
        assert {rights, "containall", "no-home", "no-init", "net"} <= told.keys()
        assert (told["network"], told["memory"]) == (["none"], ["4G"])
        assert (str(tmp_path), "/opt/a", True) in flags.mounts_of(told)


def test_the_sites_variables_do_not_come_in(program, monkeypatch):
    monkeypatch.setenv("APPTAINER_BIND", "/secret")
    monkeypatch.setenv("APPTAINER_CACHEDIR", "/scratch/me")
    words = asyncio.run(ApptainerBackend(settings=settings(program))._words(Path("/image"), {}))
    assert "APPTAINER_CACHEDIR=/scratch/me" in words
    assert not any("APPTAINER_BIND" in word for word in words)


def test_a_mount_option_is_a_record():
    assert mount_option("/a b", "/c") == "type=bind,src=/a b,dst=/c,ro"
    told = mount_option('/a,"b"', "/c")
    assert told == 'type=bind,"src=/a,""b""",dst=/c,ro'


def test_why_apptainer_gave_up():
    said = "INFO: Starting\n\x1b[31mFATAL:  \x1b[0m While performing build: no space left on device\nExit\n"
    assert last_line(said) == "While performing build: no space left on device"
    assert last_line("") == "it said nothing"
    assert pulled_name("swebench/sweb.eval.x86_64.a_1776_a-1") == "sweb.eval.x86_64.a_1776_a-1_latest.sif"


def of_another_machine(tmp_path):
    config = archives.configuration([], machine="s390x")
    return f"docker-archive:{archives.docker_archive(tmp_path / 'other.tar', [], config=config)}"


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (lambda tmp: "registry.example.org/a/b:1", "cannot be made .*no such host.*docker save NAME -o FILE"),
        (lambda tmp: f"docker-archive:{tmp}/none.tar", "cannot be read .No such file"),
        (lambda tmp: f"{tmp}/none.sif", "is no image of apptainer's"),
        (of_another_machine, "the image is for linux/s390x"),
    ],
)
def test_an_image_that_cannot_be_had_is_said_with_the_remedy(backend, image, told, tmp_path):
    with pytest.raises(SandboxError, match=told):
        asyncio.run(said(backend, "true", image=image(tmp_path)))
    left = [path.name for path in (Path(os.environ["VERIGYM_CACHE"]) / "apptainer").iterdir() if ".part" in path.name]
    assert left == []


def test_a_site_that_refuses_is_told(program, monkeypatch):
    monkeypatch.setattr("verigym.envs.sandbox.apptainer.OPTIONS", ("--no-such-flag",))
    with pytest.raises(SandboxError, match=r"unknown flag: --no-such-flag.*fakeroot"):
        asyncio.run(said(ApptainerBackend(settings=settings(program)), "true"))


def test_one_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name, **kwargs: None)
    with pytest.raises(SandboxError, match=r"apptainer is not installed here .*module load"):
        ApptainerBackend(settings=SandboxSettings())


def test_a_box_ends_with_its_owner(backend, programs_image):
    """The end of its input is the end of everything in it, also where nobody is there to kill."""

    async def main():
        sandbox = await backend.create(SandboxSpec(image=f"docker-archive:{programs_image}"))
        await sandbox.aexec("setsid sleep 87651 & sleep 0.1")
        alive = sleeping()
        sandbox._channel.end_input()
        assert await sandbox._channel.wait_gone(60)
        return alive

    assert len(asyncio.run(main())) == 1
    assert sleeping() == []


def sleeping():
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path.parent.name] if path.read_bytes() == b"sleep\x0087651\0" else []
        except OSError:
            continue
    return found
