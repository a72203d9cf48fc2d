import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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


@pytest.fixture(scope="session")
def local_sandbox():
    """Skips where no local sandbox works."""
    from verigym.envs.sandbox.choose import make_backend
    from verigym.errors import SandboxError

    try:
        make_backend("local")
    except SandboxError as error:
        pytest.skip(f"no sandbox works here: {error}")


class ScriptedServer:
    """A server that speaks OpenAI's API and says what it is told to.

    Attributes:
        policy: the SPEC of a policy that asks it.
        asked: the requests so far.
        answer: (requests so far, prompt) -> what it says next.
    """

    def __init__(self):
        self.policy, self.asked, self.answer = "", [], lambda asked, prompt: ""


@pytest.fixture
def scripted_server():
    scripted = ScriptedServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            scripted.asked.append(body)
            said = scripted.answer(scripted.asked, body["messages"][-1]["content"])
            message = {"role": "assistant", "content": said}
            usage = {"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17}
            data = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            """Nothing is told."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    scripted.policy = f"openai:http://127.0.0.1:{server.server_port}/v1#toy"
    yield scripted
    server.shutdown()
    server.server_close()
    thread.join()
