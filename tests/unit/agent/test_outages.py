"""A model server that is down, hangs, breaks off or refuses: the infrastructure failed, whichever clock ends it."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import pytest

from verigym.__main__ import main
from verigym.agent.chat_policy import ChatPolicy
from verigym.agent.endpoint import Endpoint
from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import TokenPolicy
from verigym.agent.remote_engine import RemoteEngine
from verigym.agent.seeds import SeededPolicy
from verigym.model.chat.sampling import Sampling

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10000\r\n\r\n"


async def hangs(reader, writer):
    await asyncio.sleep(600)


async def never_reads(reader, writer):
    await reader.read(1)
    await asyncio.sleep(600)


async def dies_in_its_answer(reader, writer):
    await reader.read(100)
    writer.write(HEAD + b'{"choices": [')
    await writer.drain()
    writer.close()


async def stops_in_its_answer(reader, writer):
    await reader.read(100)
    writer.write(HEAD + b'{"choices": [')
    await writer.drain()
    await asyncio.sleep(600)


async def trickles(reader, writer):
    await reader.read(100)
    writer.write(HEAD)
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def hangs_up(reader, writer):
    writer.close()


def answers(status, body, headers=""):
    async def serve(reader, writer):
        while await reader.readuntil(b"\r\n\r\n"):
            text = body if isinstance(body, bytes) else json.dumps(body).encode()
            writer.write(f"HTTP/1.1 {status} X\r\n{headers}content-length: {len(text)}\r\n\r\n".encode() + text)
            await writer.drain()

    return serve


SERVERS = {
    "down": None,
    "hangs": hangs,
    "never reads": never_reads,
    "dies in its answer": dies_in_its_answer,
    "stops in its answer": stops_in_its_answer,
    "trickles": trickles,
    "hangs up": hangs_up,
    "500": answers(500, {"error": {"message": "out of memory"}}),
    "502 of a proxy": answers(502, b"<html>bad gateway</html>"),
    "429": answers(429, {"error": {"message": "slow down"}}, "retry-after: 0\r\n"),
    "429 for a day": answers(429, {"error": {"message": "quota"}}, "retry-after: 86400\r\n"),
    "401": answers(401, {"error": {"message": "no key"}}),
    "no JSON": answers(200, b"hello"),
    "deep JSON": answers(200, b"[" * 200_000),
    "broken compression": answers(200, b"no gzip", "content-encoding: gzip\r\n"),
    "another shape": answers(200, {"ok": True}),
}
# the episode's seconds, the seconds of one try, the seconds of all tries
DEADLINES = {
    "the episode's first": (0.3, 60.0, 60.0),
    "one try's first": (60.0, 0.05, 60.0),
    "all tries' first": (60.0, 60.0, 0.1),
    "the episode's and one try's at once": (0.3, 0.3, 60.0),
    "the episode's and all tries' at once": (0.3, 60.0, 0.3),
    "all at once": (0.3, 0.3, 0.3),
}


@asynccontextmanager
async def serving(serve):
    """The address of a server; of one that is down a port that nobody listens at."""
    if serve is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        yield f"http://127.0.0.1:{port}"
        return
    open_ = set()

    async def tracked(reader, writer):
        open_.add(asyncio.current_task())
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(tracked, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for task in open_:
            task.cancel()
        await asyncio.gather(*open_, return_exceptions=True)


HUNG = ("hangs", "never reads", "stops in its answer", "trickles")
WITH_IDS = ("down", "hangs", "dies in its answer", "500")
CASES = [
    *(("text", server, deadlines) for server in HUNG for deadlines in DEADLINES),
    *(("text", server, "the episode's first") for server in SERVERS if server not in HUNG),
    *(("text", server, "all at once") for server in SERVERS if server not in HUNG),
    *(("text", server, "none before the last try") for server in SERVERS if server not in (*HUNG, "429 for a day")),
    *(("tokens", server, deadlines) for server in WITH_IDS for deadlines in ("the episode's first", "all at once")),
]


@pytest.mark.parametrize(("kind", "server", "deadlines"), CASES)
def test_at_every_order_of_the_deadlines_the_infrastructure_failed(box, task, letters, server, deadlines, kind):
    seconds, timeout_s, give_up_s = DEADLINES.get(deadlines, (60.0, 60.0, 60.0))
    renderer, parser, _ = letters
    options = {"timeout_s": timeout_s, "give_up_s": give_up_s, "attempts": 3, "backoff_s": 0.02}

    async def play():
        async with serving(SERVERS[server]) as url:
            if kind == "text":
                policy = open_ = ChatPolicy(f"{url}/v1", "tiny", **options)
            else:
                open_ = RemoteEngine(Endpoint(url, **options), "tiny", 1000, 0)
                policy = TokenPolicy(open_, renderer(), parser())
            try:
                budget = Budget(seconds=seconds)
                return await rollout(box(), SeededPolicy(policy, "b1"), task, budget=budget, sampling=Sampling(seed=1))
            finally:
                await open_.aclose()

    found = asyncio.run(asyncio.wait_for(play(), 30))
    assert (found.ending, found.reward, found.passed) == ("policy_failure", None, None)
    assert "http://127.0.0.1:" in found.detail
    if deadlines == "the episode's first" and server in HUNG:
        assert f"the episode's {seconds:g} s ran out while" in found.detail


def test_what_a_server_last_said_is_told_where_the_clock_ends_its_retries(box, task):
    async def play():
        async with serving(SERVERS["500"]) as url:
            policy = ChatPolicy(url, "tiny", backoff_s=60.0)
            try:
                return await rollout(box(), policy, task, budget=Budget(seconds=2.0), sampling=Sampling())
            finally:
                await policy.aclose()

    assert "its last trouble: status 500: out of memory" in asyncio.run(play()).detail


GOOD = answers(200, {"choices": [{"message": {"role": "assistant", "content": "good"}, "finish_reason": "stop"}]})
KEEPS = {"id": "c", "type": "function", "function": {"name": "keep", "arguments": '{"what": "good"}'}}
CALLS = answers(200, {"choices": [{"message": {"role": "assistant", "tool_calls": [KEEPS]}, "finish_reason": "stop"}]})


@pytest.mark.parametrize(
    ("serve", "slow", "expected"),
    [(CALLS, "tool", ("wall_clock", 1.0)), (GOOD, "start", ("wall_clock", 0.0)), (GOOD, "", ("answered", 1.0))],
)
def test_the_agents_own_time_stays_its_own(box, task, serve, slow, expected):
    """A tool or a start that takes the clock is no fault of the server that had answered."""

    async def play():
        async with serving(serve) as url:
            policy = ChatPolicy(url, "tiny")
            try:
                budget = Budget(seconds=2.0 if slow else 60.0)
                return await rollout(box(slow=slow), policy, task, budget=budget, sampling=Sampling())
            finally:
                await policy.aclose()

    found = asyncio.run(play())
    assert (found.ending, found.reward) == expected


def test_a_request_that_a_policy_gave_up_itself_is_forgotten(box, task):
    """A policy that asks a second server where the first is late: the tool that takes too long is the agent's."""

    class Hedged:
        def __init__(self, first, second):
            self.first, self.second = first, second

        async def respond(self, conversation, tools, sampling):
            try:
                return await asyncio.wait_for(self.first.respond(conversation, tools, sampling), 0.05)
            except TimeoutError:
                return await self.second.respond(conversation, tools, sampling)

    async def play():
        async with serving(hangs) as late, serving(CALLS) as able:
            policies = ChatPolicy(late, "tiny"), ChatPolicy(able, "tiny")
            try:
                budget = Budget(seconds=2.0)
                return await rollout(box(slow="tool"), Hedged(*policies), task, budget=budget, sampling=Sampling())
            finally:
                for policy in policies:
                    await policy.aclose()

    assert asyncio.run(play()).ending == "wall_clock"


def test_a_cancelled_episode_stays_cancelled(box, task):
    async def play():
        async with serving(hangs) as url:
            policy = ChatPolicy(url, "tiny")
            try:
                episode = asyncio.create_task(rollout(box(), policy, task, budget=Budget(), sampling=Sampling()))
                await asyncio.sleep(0.1)
                episode.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await episode
            finally:
                await policy.aclose()

    asyncio.run(play())


@pytest.fixture
def dead():
    """A SPEC of a server that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"openai:http://127.0.0.1:{free.getsockname()[1]}/v1#x"


def test_eval_says_that_nothing_was_measured(dead, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["eval", "verigym/Math-v0", "--policy", dead, "--limit", "2", "--timeout", "0.3", "--sandbox", "unsafe"]
    assert main([*arguments, "--out", str(out)]) == 2
    report = json.loads((out / "report.json").read_text())
    assert (report["pass@1"], report["n"], report["num_infrastructure_failures"]) == (None, 0, 2)
    assert "none of 2 samples could be graded" in capsys.readouterr().err


def test_forage_and_rollout_say_that_nothing_came_of_it(dead, tmp_path, capsys):
    common = ["verigym/Math-v0", "--policy", dead, "--timeout", "0.3", "--sandbox", "unsafe"]
    out = tmp_path / "episodes.jsonl"
    assert main(["forage", *common, "--limit", "2", "--out", str(out)]) == 1
    assert out.read_text() == ""
    assert main(["rollout", *common]) == 1
    assert "policy_failure" in capsys.readouterr().out
