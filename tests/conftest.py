import os

import pytest

# Triton's interpreter lets kernels run on a CPU. Triton reads this when it is first imported, by whatever test, so it
# is set before any. A machine with a GPU runs the kernels; tests that compile them do so in a process of their own.
if not os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def _no_container_engine(request, monkeypatch):
    """A test without the marker ``docker`` sees no engine, so that it tests the same thing on every machine."""
    if request.node.get_closest_marker("docker") is None:
        monkeypatch.setenv("DOCKER_HOST", "unix:///no/engine/for/this/test")
