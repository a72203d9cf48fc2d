"""ChatPolicy against a scripted server on a local port."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from verigym.agent.chat_policy import ChatPolicy
from verigym.agent.policy import ContextFull, Turn
from verigym.errors import PolicyError
from verigym.model.chat.actions import decode_action
from verigym.model.chat.api import to_openai_messages
from verigym.model.chat.messages import Message, ToolCall, ToolSpec
from verigym.model.chat.sampling import Sampling

BASH = ToolSpec(
    name="bash",
    description="Run a command.",
    parameters={"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
)
QUESTION = [Message(role="system", content="Be brief."), Message(role="user", content="What is here?")]


def said(content=None, tool_calls=None, finish_reason="stop", **message):
    message = {"role": "assistant", "content": content, "tool_calls": tool_calls, **message}
    return 200, {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]}


def called(name, arguments, call_id="c1"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


class Server:
    """Answers requests in order with (status, body) or (status, body, headers); "hang" never answers."""

    def __init__(self, answers):
        self.answers, self.requests, self.headers, self.open, self.most_open = list(answers), [], [], 0, 0

    async def serve(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:] if line)}
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                self.requests.append((lines[0], body))
                self.headers.append(headers)
                await self.answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, writer):
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == "drop":
            self.open -= 1
            raise ConnectionResetError
        await asyncio.sleep(30 if answer == "hang" else 0.01)
        status, body, *more = answer
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        extra = "".join(f"{name}: {value}\r\n" for name, value in (more[0] if more else {}).items())
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(data)}\r\n{extra}\r\n".encode() + data)
        await writer.drain()
        self.open -= 1


@asynccontextmanager
async def serving(*answers, **options):
    server = Server(answers)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1/"
    policy = ChatPolicy(url, "tiny", **{"backoff_s": 0.01, **options})
    try:
        yield policy, server
    finally:
        await policy.aclose()
        listener.close()


def ask(*answers, conversation=QUESTION, tools=(BASH,), sampling=None, **options):
    async def main():
        async with serving(*answers, **options) as (policy, server):
            return await policy.respond(conversation, tools, sampling or Sampling()), server

    return asyncio.run(main())


def test_a_request_holds_the_conversation_the_tools_and_the_sampling():
    sampling = Sampling(max_tokens=33, temperature=0.3, top_p=0.9, seed=5)
    turn, server = ask(said("hello"), sampling=sampling)
    line, body = server.requests[0]
    assert line.startswith("POST /v1/chat/completions ")
    assert body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is here?"}],
        "tools": [BASH.to_openai()],
        "max_tokens": 33,
        "temperature": 0.3,
        "top_p": 0.9,
        "seed": 5,
    }
    assert (turn.message.content, turn.action, turn.finish_reason, turn.tokens) == ("hello", "hello", "stop", None)


def test_calls_become_an_action_and_keep_their_ids():
    calls = [called("bash", '{"command": "ls"}'), called("bash", '{"command": "pwd"}', call_id=None)]
    turn, _ = ask(said(None, calls, "tool_calls", reasoning_content="look first"))
    action = decode_action(turn.action)
    assert [(call.name, dict(call.arguments)) for call in action.calls] == [
        ("bash", {"command": "ls"}),
        ("bash", {"command": "pwd"}),
    ]
    assert [call.id for call in turn.message.calls] == ["c1", None]
    assert turn.message.thinking == "look first"


@pytest.mark.parametrize("arguments", ['{"command": "ls', "[1]", '"ls"'])
def test_a_call_that_cannot_be_read_is_a_format_error(arguments):
    turn, _ = ask(said("let me see", [called("bash", arguments)]))
    error = decode_action(turn.action).format_error
    assert error is not None
    assert "the arguments of bash" in error
    assert turn.message.calls == ()
    assert json.dumps(arguments) in turn.message.content


def test_a_cut_answer_is_told():
    turn, _ = ask(said("and so on and", finish_reason="length"))
    assert turn.finish_reason == "length"


def test_tool_answers_carry_the_ids_of_their_calls():
    calls = (ToolCall(name="bash", arguments={"command": "ls"}, id="a"), ToolCall(name="bash", arguments={}, id="b"))
    turn = Turn(message=Message(role="assistant", content="", calls=calls), action="")
    answers = [Message(role="tool", name="bash", content="x.py"), Message(role="tool", name="bash", content="/")]
    _, server = ask(said("ok"), conversation=[*QUESTION, turn, *answers])
    rows = server.requests[0][1]["messages"]
    assert [call["id"] for call in rows[2]["tool_calls"]] == ["a", "b"]
    assert json.loads(rows[2]["tool_calls"][0]["function"]["arguments"]) == {"command": "ls"}
    assert [(row["tool_call_id"], row["content"]) for row in rows[3:]] == [("a", "x.py"), ("b", "/")]


def test_calls_without_ids_are_given_some():
    message = Message(role="assistant", content="", calls=(ToolCall(name="bash"),))
    rows = to_openai_messages([message, Message(role="tool", content="out")])
    assert rows[0]["tool_calls"][0]["id"] == rows[1]["tool_call_id"] == "call_0"


@pytest.mark.parametrize("trouble", [(429, {"error": {"message": "slow down"}}), (503, "busy"), "drop"])
def test_passing_trouble_is_tried_again(trouble):
    turn, server = ask(trouble, trouble, said("at last"))
    assert turn.action == "at last"
    assert len(server.requests) == 3


def test_a_time_out_is_tried_again():
    turn, server = ask("hang", said("at last"), timeout_s=1.0)
    assert turn.action == "at last"
    assert len(server.requests) == 2


def test_a_server_that_hangs_is_a_policy_error_in_time():
    """Trap 18: else the episode's wall clock would end it, with a score of 0."""
    with pytest.raises(PolicyError, match=r"no answer in 0.3 s"):
        ask("hang", give_up_s=0.3)


def test_retry_after_is_kept_to():
    async def main():
        async with serving((429, {}, {"retry-after": "0.3"}), said("at last")) as (policy, _):
            loop = asyncio.get_running_loop()
            before = loop.time()
            await policy.respond(QUESTION, (), Sampling())
            return loop.time() - before

    assert asyncio.run(main()) >= 0.3


def test_trouble_that_lasts_is_a_policy_error():
    with pytest.raises(PolicyError, match=r"no answer in 3 attempts; the last: status 500: it broke"):
        ask((500, {"error": {"message": "it broke"}}), attempts=3)


def test_no_server_is_a_policy_error():
    async def main():
        policy = ChatPolicy("http://127.0.0.1:9", "tiny", attempts=2, backoff_s=0.01)
        try:
            await policy.respond(QUESTION, (), Sampling())
        finally:
            await policy.aclose()

    with pytest.raises(PolicyError, match=r"http://127.0.0.1:9/chat/completions gave no answer.*ConnectError"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, {"error": {"message": "bad key"}}, "status 401: bad key"),
        (404, {"object": "error", "message": "no model tiny"}, "status 404: no model tiny"),
        (422, {"detail": "top_p"}, "status 422: top_p"),
        (400, "<html>", "status 400: <html>"),
    ],
)
def test_a_refusal_is_final_and_told(status, body, told):
    async def main():
        async with serving((status, body), said("never")) as (policy, server):
            with pytest.raises(PolicyError) as caught:
                await policy.respond(QUESTION, (), Sampling())
            assert len(server.requests) == 1
            return str(caught.value)

    assert told in asyncio.run(main())


def test_a_full_context_is_a_token_limit():
    """Trap 7: the end of the context is a truncation, not a failure of the infrastructure."""
    body = {"error": {"message": "This model's maximum context length is 4096 tokens", "code": None}}
    with pytest.raises(ContextFull):
        ask((400, body))


def test_an_answer_may_take_what_is_left_of_the_context():
    """A server counts ``max_tokens`` to the context: the prompt fits, and so does the answer, if it is short."""
    full = {
        "error": {"message": "This model's maximum context length is 4096 tokens; you requested 65600", "code": 400}
    }

    async def main():
        async with serving((400, full), said("short")) as (policy, server):
            turn = await policy.respond(QUESTION, (), Sampling(max_tokens=65_536))
            assert [body.get("max_tokens") for _, body in server.requests] == [65_536, None]
            return turn.message.content

    assert asyncio.run(main()) == "short"


@pytest.mark.parametrize("body", [{"choices": []}, {"oops": 1}, [], "no json"])
def test_an_answer_of_another_shape_is_a_policy_error(body):
    with pytest.raises(PolicyError, match=r"without choices|no JSON"):
        ask((200, body))


def test_no_more_requests_at_once_than_allowed():
    async def main():
        async with serving(said("x"), concurrency=2) as (policy, server):
            await asyncio.gather(*(policy.respond(QUESTION, (), Sampling()) for _ in range(6)))
            return server

    server = asyncio.run(main())
    assert len(server.requests) == 6
    assert server.most_open == 2


def test_the_key_is_sent_and_never_told(monkeypatch):
    monkeypatch.setenv("TEST_KEY", "s3cret")
    _, server = ask(said("x"), api_key_env="TEST_KEY")
    assert server.headers[0]["authorization"] == "Bearer s3cret"
    with pytest.raises(PolicyError) as caught:
        ask((401, {"error": {"message": "bad key"}}), api_key_env="TEST_KEY")
    assert "s3cret" not in str(caught.value)
