"""Where podman's socket is looked for, and what is told where it is not."""

import socket

import pytest

from verigym.envs.sandbox.podman import PodmanBackend, podman_host
from verigym.envs.sandbox.settings import SandboxSettings
from verigym.errors import SandboxError


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch, tmp_path):
    monkeypatch.delenv("CONTAINER_HOST", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("verigym.envs.sandbox.podman.ROOT_SOCKET", str(tmp_path / "none.sock"))


def test_no_socket_is_told_with_the_remedy():
    with pytest.raises(SandboxError, match=r"podman's socket is not at .*systemctl --user start podman.socket"):
        PodmanBackend()


def test_the_users_own_socket_is_found(tmp_path):
    (tmp_path / "podman").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "podman/podman.sock"))
        assert podman_host(SandboxSettings()) == f"unix://{tmp_path}/podman/podman.sock"


def test_what_is_set_comes_first(monkeypatch):
    monkeypatch.setenv("CONTAINER_HOST", "unix:///a.sock")
    assert podman_host(SandboxSettings()) == "unix:///a.sock"
    monkeypatch.setenv("VERIGYM_SANDBOX_PODMAN_HOST", "unix:///b.sock")
    assert podman_host(SandboxSettings()) == "unix:///b.sock"


def test_one_that_does_not_answer_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("CONTAINER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(SandboxError, match="no container engine answers at"):
        PodmanBackend()
