"""Engines and images for the tests that need them; each says why where it cannot be had."""

import io
import shutil
import subprocess
import tarfile

import pytest

from verigym.envs.sandbox.image_import import import_image
from verigym.envs.sandbox.images import ensure_base_image
from verigym.envs.sandbox.runtime import runtime_python
from verigym.errors import SandboxError

from . import archives
from .chaos import connected

BARE = "verigym/test-bare:1"


@pytest.fixture(scope="session")
def engine():
    yield from connected(None)


@pytest.fixture(scope="session")
def programs_layer():
    """A layer of this machine's own programs, with a Python that is the sandbox's."""
    return archives.programs_layer(runtime_python())


@pytest.fixture(scope="session")
def programs_image(programs_layer, tmp_path_factory):
    """An archive of an image of that layer."""
    return str(archives.docker_archive(tmp_path_factory.mktemp("image") / "programs.tar", [programs_layer]))


@pytest.fixture(scope="session")
def base_image(engine):
    """Debian with git and Python."""
    try:
        return ensure_base_image(engine.client)
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def bare_image(engine, tmp_path_factory):
    """A statically linked busybox and nothing else: no libc, no bash, no Python, no user."""
    found = shutil.which("busybox") or _download(tmp_path_factory.mktemp("busybox"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(found, arcname="bin/busybox")
        for name in subprocess.run([found, "--list"], capture_output=True, text=True, check=True).stdout.split():
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            if name != "busybox":
                archive.addfile(link)
    import_image(engine.api, buffer.getvalue(), BARE)
    return BARE


@pytest.fixture(scope="session")
def repo_image(engine, base_image):
    """The base image with a repository of root's at /testbed."""
    text = io.BytesIO()
    with tarfile.open(fileobj=text, mode="w") as archive:
        for name, content in {"calc.py": "A = 1\n", "pkg/deep.py": "B = 2\n", ".gitignore": "*.log\n"}.items():
            member = tarfile.TarInfo(f"testbed/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    commands = "cd /testbed && git init -q && git add -A && git -c user.name=a -c user.email=a@b commit -qm base"
    container = engine.api.create_container(base_image, command=["sh", "-c", commands], network_disabled=True)["Id"]
    try:
        engine.api.put_archive(container, "/", text.getvalue())
        engine.api.start(container)
        assert engine.api.wait(container)["StatusCode"] == 0
        engine.api.commit(container, repository="verigym/test-repo", tag="1", conf={"Cmd": ["/bin/sh"]})
    finally:
        engine.api.remove_container(container, force=True)
    return "verigym/test-repo:1"


def _download(folder):
    try:
        subprocess.run(["apt-get", "download", "busybox-static"], cwd=folder, check=True, capture_output=True)
        (package,) = folder.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        pytest.skip(f"no busybox: it is not installed and cannot be downloaded ({error})")
    return folder / "root/bin/busybox"
