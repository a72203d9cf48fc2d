import asyncio
import os

import pytest

from verigym.envs.sandbox import conformance
from verigym.envs.sandbox.conformance import CHECKS, ISOLATION_CHECKS, InImage
from verigym.envs.sandbox.docker import DockerBackend
from verigym.envs.sandbox.local import LocalBackend, UnsafeBackend, is_there
from verigym.envs.sandbox.oci.backend import OciBackend
from verigym.envs.sandbox.oci.flavor import AS_ROOT, AS_USER
from verigym.envs.sandbox.oci.store import ImageStore
from verigym.envs.sandbox.podman import PodmanBackend
from verigym.errors import SandboxError

WAYS = {
    "fork-root": ("fork", False),
    "fork-user": ("fork", True),
    "bwrap-root": ("bwrap", False),
    "bwrap-user": ("bwrap", True),
    "unshare-root": ("unshare", False),
    "unshare-user": ("unshare", True),
}
MAIN = "fork-root" if os.geteuid() == 0 else "fork-user"
# What depends on the way the box is made; the rest is the same guest, and on the other ways is run with the slow tests.
ALWAYS = {
    conformance.check_deadline,
    conformance.check_full_disk,
    conformance.check_invisible,
    conformance.check_processes,
}
ALWAYS_UNSAFE = set(CHECKS) - {conformance.check_output, conformance.check_memory, conformance.check_files}


def pairs(checks, ways):
    for way in ways:
        for check in checks:
            # Root is exempt from the kernel's own limit of processes, also in a user namespace.
            slow = way != MAIN and (check not in (ALWAYS if way != "unsafe" else ALWAYS_UNSAFE) or way == "fork-user")
            marks = [pytest.mark.slow] if slow else []
            yield pytest.param(check, way, id=f"{check.__name__}-{way}", marks=marks)


def backend_of(way):
    if way == "unsafe":
        return UnsafeBackend()
    launcher, user_namespace = WAYS[way]
    if not is_there(launcher):
        pytest.skip(f"{launcher} is not installed")
    if not user_namespace and os.geteuid() != 0:
        pytest.skip("needs root: sandboxes with a user of their own")
    return LocalBackend(launcher=launcher, user_namespace=user_namespace)


@pytest.mark.parametrize(("check", "way"), [*pairs(CHECKS, [*WAYS, "unsafe"]), *pairs(ISOLATION_CHECKS, WAYS)])
def test_conformance(check, way):
    asyncio.run(asyncio.wait_for(check(backend_of(way)), 120))


FLAVORS = {"root": AS_ROOT, "user": AS_USER}
ALWAYS_OCI = {
    "root": {*ALWAYS, conformance.check_network, conformance.check_binds, conformance.check_files},
    "user": set(),
}


@pytest.mark.parametrize(
    ("check", "flavor"),
    [
        pytest.param(c, f, id=f"{c.__name__}-{f}", marks=[] if c in always else [pytest.mark.slow])
        for f, always in ALWAYS_OCI.items()
        for c in (*CHECKS, *ISOLATION_CHECKS)
    ],
)
def test_conformance_of_images_without_an_engine(check, flavor, programs_image, tmp_path):
    if flavor == "root" and os.geteuid() != 0:
        pytest.skip("needs root: images with users of their own")
    store = ImageStore(tmp_path / "store", flavor=FLAVORS[flavor])
    backend = OciBackend(store=store, user_namespace=flavor == "user")
    try:
        asyncio.run(asyncio.wait_for(check(InImage(backend, programs_image)), 120))
    finally:
        backend.close()


# busybox has neither Python nor some options of the commands that these use.
NEEDS_MORE = {
    conformance.check_binds,
    conformance.check_invisible,
    conformance.check_many_files,
    conformance.check_memory,
    conformance.check_network,
}
IMAGES = {"host": (*CHECKS, *ISOLATION_CHECKS), "base": (*CHECKS, *ISOLATION_CHECKS)}
IMAGES["bare"] = tuple(check for check in IMAGES["base"] if check not in NEEDS_MORE)


@pytest.mark.docker
@pytest.mark.parametrize(
    ("check", "image"),
    [
        pytest.param(c, i, id=f"{c.__name__}-{i}", marks=[pytest.mark.slow] if i == "base" else [])
        for i, checks in IMAGES.items()
        for c in checks
    ],
)
def test_conformance_of_docker(check, image, engine, request):
    name = None if image == "host" else request.getfixturevalue(f"{image}_image")
    backend = DockerBackend(engines=[engine])
    asyncio.run(asyncio.wait_for(check(backend if name is None else InImage(backend, name)), 120))


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.parametrize("check", [*CHECKS, *ISOLATION_CHECKS], ids=lambda check: check.__name__)
def test_conformance_of_podman(check):
    try:
        backend = PodmanBackend()
    except SandboxError as error:
        pytest.skip(str(error))
    asyncio.run(asyncio.wait_for(check(backend), 120))
