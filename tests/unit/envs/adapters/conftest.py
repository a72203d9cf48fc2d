import socket
import threading
import time

import pytest


@pytest.fixture
def serve():
    """Serves an ASGI application on a port of its own: application -> its URL."""
    import uvicorn

    servers = []

    def serve(app):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            time.sleep(0.02)
        return f"http://127.0.0.1:{port}"

    yield serve
    for server, thread in servers:
        server.should_exit = True
        thread.join(timeout=60)
        assert not thread.is_alive()
