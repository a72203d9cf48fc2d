import asyncio
import logging

import pytest

from verigym.envs.sandbox import choose
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.sandbox.local import LocalBackend, UnsafeBackend
from verigym.envs.sandbox.oci.backend import OciBackend
from verigym.errors import ConfigError, SandboxError


@pytest.fixture(autouse=True)
def _forget_probe():
    kinds = (choose._probed, choose._docker, choose._oci, choose._best)
    for kept in kinds:
        kept.cache_clear()
    yield
    for kept in kinds:
        kept.cache_clear()


def test_auto_is_oci_without_an_engine_and_probed_once(monkeypatch):
    first = make_backend("auto")
    assert isinstance(first, OciBackend)
    assert isinstance(make_backend("local"), LocalBackend)
    monkeypatch.setattr(choose, "_probe", lambda backend: pytest.fail("probed again"))
    assert make_backend("oci") is first


def test_auto_is_local_where_images_cannot_be(monkeypatch):
    monkeypatch.setattr("verigym.envs.sandbox.oci.backend.is_possible", lambda: False)
    assert isinstance(make_backend("auto"), LocalBackend)


def test_probe_works_inside_a_running_loop():
    async def main():
        return make_backend("local")

    assert asyncio.run(main()).name == "local"


def test_unknown_names_say_what_there_is():
    with pytest.raises(
        ConfigError, match="choose one of auto, apptainer, docker, kubernetes, local, oci, podman, ssh, unsafe"
    ):
        make_backend("gvisor")


def test_an_engine_that_is_not_there_is_said_with_the_remedy():
    with pytest.raises(SandboxError, match=r"no container engine answers at .*start it, or give its address as DOCKER"):
        make_backend("docker")


@pytest.mark.docker
def test_auto_is_docker_where_an_engine_answers(engine):
    backend = make_backend()
    assert backend.name == "docker"
    assert make_backend("docker") is backend


def test_no_way_to_make_a_sandbox_is_refused_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr("verigym.envs.sandbox.local.is_possible", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match=r"neither bwrap nor unshare .*install bubblewrap.*--sandbox unsafe"):
        make_backend("local")
    with pytest.raises(SandboxError, match="install bubblewrap"):
        LocalBackend()


def test_ways_that_fail_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr("verigym.envs.sandbox.local.is_possible", lambda: False)
    for name in ("bwrap", "unshare"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} is not permitted >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match=r"bwrap is not permitted.*unshare is not permitted.*Remedy"):
        make_backend("local")


def test_unsafe_is_only_the_explicit_choice_and_warns(caplog):
    with caplog.at_level(logging.WARNING):
        assert isinstance(make_backend("unsafe"), UnsafeBackend)
    assert "no isolation" in caplog.text
