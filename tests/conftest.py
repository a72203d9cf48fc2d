import pytest


@pytest.fixture(autouse=True)
def _no_container_engine(request, monkeypatch):
    """A test without the marker ``docker`` sees no engine, so that it tests the same thing on every machine."""
    if request.node.get_closest_marker("docker") is None:
        monkeypatch.setenv("DOCKER_HOST", "unix:///no/engine/for/this/test")
