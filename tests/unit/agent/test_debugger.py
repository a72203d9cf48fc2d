"""Stepping by prediction, and what is marked as wrong."""

import asyncio
import io
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from verigym.__main__ import main
from verigym.agent.debugger import Session, line_of
from verigym.agent.prediction import CompletionPredictor, EnginePredictor, TruePredictor
from verigym.errors import PolicyError
from verigym.model.chat.sampling import Completion
from verigym.model.chat.trace import Frame, Trace, frame_text, from_text
from verigym.model.chat.trace_tokens import TraceFormat
from verigym.model.tokenizer import train_tokenizer

CONTEXT = """def g(x):
    y = x
    return y


def f(n):
    a = g(n)
    b = g(a)
    return b


def main():  # << START_OF_TRACE
    return f(1)
"""


def call(source, **values):
    return Frame(event="call", source=source + "\n", locals=values)


def line(source, **values):
    return Frame(event="line", source=source + "\n", locals=values)


def returns(source, value):
    return Frame(event="return", source=source + "\n", value=value)


def inner(n):
    """What a call of g does."""
    first, second = line("    y = x", x=".."), line("    return y", x="..", y=str(n))
    return [call("def g(x):", x=str(n)), first, second, returns("    return y", str(n))]


TRUE = [
    call("def main():"),
    line("    return f(1)"),
    call("def f(n):", n="1"),
    line("    a = g(n)", n=".."),
    *inner(1),
    line("    b = g(a)", n="..", a="1"),
    *inner(1),
    line("    return b", n="..", a="..", b="1"),
    returns("    return b", "1"),
    returns("    return f(1)", "1"),
]


def session(frames=TRUE, true=TRUE, **settings):
    trace = Trace(context=CONTEXT, frames=(), ended=False)
    made = Session(trace=trace, predictor=TruePredictor(frames=frames), true=true, **settings)
    asyncio.run(made.start())
    return made


def where(made):
    return made.frames[-1].source.strip()


@pytest.mark.parametrize("skip", [False, True])
def test_moves(skip):
    made = session(skip=skip)
    run = asyncio.run
    assert where(made) == "def main():"
    run(made.step())
    run(made.step())
    assert (where(made), made.depth) == ("def f(n):", 2)
    run(made.next())
    assert (where(made), made.values()) == ("a = g(n)", {"n": "1"})
    run(made.next())
    assert (where(made), made.values()) == ("b = g(a)", {"n": "1", "a": "1"})
    assert len(made.frames) == (7 if skip else 9)
    run(made.step())
    assert (where(made), made.stack()) == ("def g(x):", ["def main():", "def f(n):", "def g(x):"])
    assert made.objection() == []
    run(made.out())
    assert (where(made), made.depth) == ("return b", 2)
    assert made.back()
    assert where(made) == "def g(x):"
    assert made.back()
    assert (where(made), made.values()) == ("b = g(a)", {"n": "1", "a": "1"})
    run(made.out())
    assert where(made) == "return f(1)"
    run(made.next())
    assert made.over
    assert made.objection() == []
    run(made.step())
    assert made.back()
    assert not made.over
    while made.back():
        pass
    assert where(made) == "def main():"


def test_out_of_the_first_scope_ends():
    made = session()
    asyncio.run(made.out())
    assert made.over
    assert made.frames == tuple(TRUE)


def test_what_is_wrong_is_said():
    wrong = list(TRUE)
    wrong[3] = line("    b = g(a)", n="2", z="0")
    made = session(frames=wrong)
    for _ in range(2):
        asyncio.run(made.step())
        assert made.objection() == []
    asyncio.run(made.step())
    assert made.objection() == ["the line is a = g(n)", "n is 1", "there is no z"]
    assert made.take_truth()
    assert made.objection() == []
    assert made.frames[3] == TRUE[3]
    early = session(frames=TRUE[:5])
    asyncio.run(early.finish())
    assert early.objection() == ["the run is not over: y = x comes next"]
    late = session(frames=[*TRUE, returns("x", "1")])
    for _ in TRUE:
        asyncio.run(late.step())
    assert late.objection() == ["the run is over"]
    event = session(frames=[TRUE[0], TRUE[-1]])
    asyncio.run(event.step())
    assert event.objection() == ["it is a line of return f(1)"]
    value = session(frames=[*TRUE[:7], returns("    return y", "2")])
    asyncio.run(value.next())
    asyncio.run(value.finish())
    assert value.frames[-1].value == "2"
    assert not value.back() or not value.over


def test_a_call_that_never_returns_is_given_up():
    class Endless:
        async def next_frame(self, trace, *, event=None):
            return TRUE[0] if not trace.frames else TRUE[1]

    made = Session(trace=Trace(context=CONTEXT, frames=(), ended=False), predictor=Endless())
    asyncio.run(made.start())
    with pytest.raises(PolicyError, match="1000 frames"):
        asyncio.run(made.out())
    assert made.back()
    assert len(made.frames) == 1


def test_lines_are_found_by_their_text():
    numbers = [line_of(CONTEXT, TRUE[: count + 1]) for count in range(len(TRUE))]
    assert numbers == [12, 13, 6, 7, 1, 2, 3, 3, 8, 1, 2, 3, 3, 9, 9, 13]
    twice = "def f():\n    x = 1\n    x = 1\n    return x\n"
    frames = [call("def f():"), line("    x = 1"), line("    x = 1", x="1")]
    assert line_of(twice, frames[:2]) == 2
    assert line_of(twice, [line("    nowhere")]) is None


class FakeEngine:
    """Answers with the frame that the truth has next, as a model would write it."""

    max_context = 4096
    policy_version = 0

    def __init__(self, form):
        self.form, self.prompts = form, []

    async def generate(self, prompt_ids, sampling, stop_token_ids):
        self.prompts.append(tuple(prompt_ids))
        whole = self.form.encode(Trace(context=CONTEXT, frames=tuple(TRUE)))
        assert whole[: len(prompt_ids)] == tuple(prompt_ids)
        rest = whole[len(prompt_ids) :]
        end = min(rest.index(stop) for stop in stop_token_ids if stop in rest)
        ids = rest[: end + 1]
        return Completion(
            token_ids=ids, logprobs=(0.0,) * len(ids), policy_version=(0,) * len(ids), finish_reason="stop"
        )


def test_an_engine_is_asked_in_tokens():
    form = TraceFormat(train_tokenizer([CONTEXT] * 3, 300))
    predictor = EnginePredictor(FakeEngine(form), form)
    made = Session(trace=Trace(context=CONTEXT, frames=(), ended=False), predictor=predictor, true=TRUE)
    asyncio.run(made.start())
    asyncio.run(made.finish())
    assert made.frames == tuple(TRUE)
    assert made.over
    start = Trace(context=CONTEXT, frames=tuple(TRUE[:3]), ended=False)
    assert asyncio.run(predictor.rest(start, max_tokens=3000)) == Trace(context=CONTEXT, frames=tuple(TRUE))


@pytest.fixture
def server():
    """A completions API that knows the truth and says it in text."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append(body)
            prompt = body["prompt"]
            given = prompt.rpartition("<|frame_sep|>")[2]
            known = from_text(prompt.removesuffix(given))
            at = len(known.frames)
            text = frame_text(TRUE[at]).removeprefix(given) if at < len(TRUE) else "<|end_of_text|>"
            data = json.dumps({"choices": [{"text": text}]} if body["model"] == "m" else {"error": "no"}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}/v1", seen
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_server_is_asked_in_text(server):
    url, seen = server

    async def go(model):
        predictor = CompletionPredictor(url, model)
        try:
            made = Session(trace=Trace(context=CONTEXT, frames=(), ended=False), predictor=predictor)
            await made.start()
            await made.finish()
            return made.trace
        finally:
            await predictor.aclose()

    assert asyncio.run(go("m")) == replace(Trace(context=CONTEXT, frames=tuple(TRUE)))
    assert seen[0]["prompt"].endswith("<|frame_sep|><|call_sep|>")
    assert seen[0]["skip_special_tokens"] is False
    with pytest.raises(PolicyError, match="gave no completion"):
        asyncio.run(go("another"))


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(CONTEXT.partition("def main")[0])
    return str(path)


def typed(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_the_command_steps_and_checks(program, monkeypatch, capsys):
    typed(monkeypatch, "s\nstep\nn\nnext\np a\np q\nlist\nwhere\nback\nfoo\nh\nc\ns\nq\n")
    status = main(["debug", program, "--call", "f(1)", "--policy", "gold", "--check", "--sandbox", "local"])
    told = capsys.readouterr()
    if "no sandbox works" in told.err:
        pytest.skip(told.err)
    assert status == 0
    assert "9    line b = g(a)\n    n = 1\n    a = 1\n  right\n    a = 1\nthere is no q; there are n, a\n" in told.out
    assert ">   8     b = g(a)" in told.out
    assert "def main():\n  def f(n):\n" in told.out
    assert "no command 'foo'" in told.out
    assert "the run is over\n  right\nthe run is over; b to go back" in told.out


def test_a_policy_that_predicts_no_trace_is_told(program, monkeypatch, capsys):
    typed(monkeypatch, "q\n")
    assert main(["debug", program, "--call", "f(1)", "--policy", "empty"]) == 2
    assert "predicts no traces" in capsys.readouterr().err
    assert main(["debug", program, "--call", "f(", "--policy", "empty"]) == 2
