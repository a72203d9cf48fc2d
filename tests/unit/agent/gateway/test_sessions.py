"""What requests of an episode have to do with each other: the longest known branch, limits, requests sent again."""

import asyncio
import json

import httpx
import pytest

from verigym.agent.gateway.branches import Branches
from verigym.agent.gateway.session import Limits
from verigym.agent.policy import Turn
from verigym.errors import PolicyError
from verigym.model.chat.messages import Message, ToolCall, ToolSpec
from verigym.model.chat.sampling import Sampling

from .conftest import LOOK

TOOL = {
    "type": "function",
    "function": {"name": "bash", "parameters": {"type": "object", "properties": {"command": {"type": "string"}}}},
}


def user(text):
    return {"role": "user", "content": text}


def body(*messages, **fields):
    return {"model": "verigym", "messages": list(messages), "tools": [TOOL], **fields}


class Client:
    """Posts chat completions as they are."""

    def __init__(self, gateway, session, **options):
        self.url = f"{gateway.root(session)}/v1/chat/completions"
        self.http = httpx.AsyncClient(headers={"authorization": f"Bearer {session.key}"}, timeout=60, **options)

    async def ask(self, *messages, headers=None, **fields):
        return await self.http.post(self.url, json=body(*messages, **fields), headers=headers)

    async def say(self, *messages, **fields):
        """The assistant's message."""
        answer = await self.ask(*messages, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["message"]


def answer_to(said, text="a b"):
    return {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"], "content": text}


def played(told, opened, script, *texts, policy=None, **options):
    """(what a script found, the session's tree, its counts, the engine)."""
    engine, made = told(*texts)

    async def play():
        async with opened(policy or made, **options) as (gateway, session):
            client = Client(gateway, session)
            async with client.http:
                found = await script(client, session)
            return found, session.tree(), session.counts, session

    found, tree, counts, _ = asyncio.run(play())
    assert engine.num_inside == 0
    return found, tree, counts, engine


def test_a_changed_answer_opens_a_branch_that_keeps_the_sampled_ids(told, opened):
    """What was sampled before the change is sent as it was sampled, in the middle of a known branch, too."""

    async def script(client, session):
        first = await client.say(user("q"))
        await client.say(user("q"), first, answer_to(first, "one"))
        await client.say(user("q"), first, answer_to(first, "two"))

    _, tree, counts, engine = played(told, opened, script, LOOK, "b", "c")
    one, two = tree.segments()
    assert counts.changed == 1
    start = (*engine.prompts[0], *engine.sampled[0])
    assert one.token_ids[: len(start)] == two.token_ids[: len(start)] == start
    assert sum(one.loss_mask) == len(engine.sampled[0]) + len(engine.sampled[1])
    assert sum(two.loss_mask) == len(engine.sampled[2])


def test_a_summary_begins_a_context_and_is_trained(told, opened):
    async def script(client, session):
        first = await client.say(user("q"))
        asked = [user("q"), first, answer_to(first), user("Summarize.")]
        summary = await client.say(*asked)
        await client.say(user(f"So far: {summary['content']}"))

    _, tree, counts, engine = played(told, opened, script, LOOK, "we looked", "done")
    long, short = tree.segments()
    assert counts.changed == 1
    assert sum(long.loss_mask) == len(engine.sampled[0]) + len(engine.sampled[1])
    assert short.token_ids == (*engine.prompts[2], *engine.sampled[2])
    assert sum(short.loss_mask) == len(engine.sampled[2])


def test_an_edited_turn_of_the_model_is_no_longer_its_own(told, opened):
    async def script(client, session):
        first = await client.say(user("q"))
        await client.say(user("q"), {**first, "content": "I never said so."}, answer_to(first))

    _, tree, counts, engine = played(told, opened, script, LOOK, "b")
    assert counts.changed == 1
    assert sum(sum(segment.loss_mask) for segment in tree.segments()) == sum(map(len, engine.sampled))
    assert "I never said so." in engine.tokenizer.decode(engine.prompts[1])


def test_words_put_into_the_models_mouth_are_not_trained(told, opened):
    async def script(client, session):
        first = await client.say(user("q"))
        await client.say(user("q"), first, answer_to(first), {"role": "assistant", "content": "made up"}, user("go on"))

    _, tree, counts, engine = played(told, opened, script, LOOK, "b")
    (segment,) = tree.segments()
    assert counts.changed == 0
    assert sum(segment.loss_mask) == sum(map(len, engine.sampled))
    assert "made up" in engine.tokenizer.decode(segment.token_ids)


def test_a_request_sent_again_gets_the_same_turn(told, opened):
    """A client that gave up while its turn was sampled asks again: one draw, once in the tree."""
    hold = asyncio.Event()

    async def script(client, session):
        with pytest.raises(httpx.ReadTimeout):
            await client.http.post(client.url, json=body(user("q")), timeout=1.0)
        for _ in range(100):
            if not session._drawings[0].num_readers:
                break
            await asyncio.sleep(0.02)
        hold.set()
        return await client.say(user("q")), len(session._drawings)

    engine, policy = told("a", "never", hold=hold)
    (said, num), tree, counts, _ = played(told, opened, script, policy=policy)
    assert (said["content"], num, counts.repeats, counts.turns, counts.undelivered) == ("a", 1, 1, 1, 0)
    assert [sum(one.loss_mask) for one in tree.segments()] == [len(engine.sampled[0])]


def test_a_client_that_says_it_asks_again_gets_what_it_missed(told, opened):
    async def script(client, session):
        first = await client.say(user("q"))
        again = await client.ask(user("q"), headers={"x-stainless-retry-count": "1"})
        other = await client.say(user("q"))
        return first["content"], again.json()["choices"][0]["message"]["content"], other["content"]

    found, tree, counts, _ = played(told, opened, script, "a", "b")
    assert found == ("a", "a", "b")
    assert (counts.turns, counts.repeats, len(tree.segments())) == (2, 1, 2)


def test_two_that_ask_the_same_at_once_get_a_draw_each(told, opened):
    async def script(client, session):
        said = await asyncio.gather(*(client.say(user("q")) for _ in range(3)))
        return sorted(one["content"] for one in said)

    found, tree, counts, _ = played(told, opened, script, "a", "b", "c")
    assert found == ["a", "b", "c"]
    assert (counts.turns, counts.repeats, len(tree.segments())) == (3, 0, 3)


def test_a_stream_that_is_cut_is_no_delivery(told, opened):
    """What nobody received is not trained; asked for again, it is given from the beginning."""

    async def script(client, session):
        request = {"json": body(user("q"), stream=True)}
        async with client.http.stream("POST", client.url, **request) as answer:
            async for _ in answer.aiter_lines():
                break
        while session._drawings[0].num_readers or session.is_drawing:
            await asyncio.sleep(0.02)
        assert not session._drawings[0].delivered
        cut = session.tree().nodes, session.counts.undelivered
        async with client.http.stream("POST", client.url, **request) as answer:
            lines = [line.removeprefix("data: ") async for line in answer.aiter_lines() if line.startswith("data: {")]
        texts = [row["choices"][0]["delta"].get("content") or "" for row in map(json.loads, lines)]
        return cut, "".join(texts)

    text = "the quick brown fox jumps " * 400
    engine, policy = told(text, "never")
    (cut, found), tree, counts, _ = played(
        told, opened, script, policy=policy, sampling=Sampling(max_tokens=100_000), limits=Limits(tokens=100_000)
    )
    assert cut == ((), 1)
    assert found == text
    assert (counts.turns, counts.repeats, counts.undelivered) == (1, 1, 0)
    assert len(tree.segments()) == len(engine.sampled) == 1


def test_a_turn_of_which_only_what_followed_is_known_was_received(told, opened):
    async def script(client, session):
        first = await client.say(user("q"))
        session._drawings[0].delivered = False
        await client.say(user("q"), first, answer_to(first))

    _, tree, counts, engine = played(told, opened, script, LOOK, "b")
    assert counts.undelivered == 0
    assert sum(tree.segments()[0].loss_mask) == sum(map(len, engine.sampled))


LIMITS = {
    "turns": ({"limits": Limits(turns=1)}, 401, "turn_limit", "turn_limit"),
    "seconds": ({"limits": Limits(seconds=0.0)}, 401, "wall_clock", "wall_clock"),
    "tokens": ({"limits": Limits(tokens=10)}, 400, "context_length_exceeded", "token_limit"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_told_and_kept(name, told, opened):
    options, status, code, limit = LIMITS[name]

    async def script(client, session):
        if name == "turns":
            await client.say(user("q"))
        answer = await client.ask(user("another"))
        return answer.status_code, answer.json()["error"]["code"], session.limit_met, session.failure

    found, _, counts, _ = played(told, opened, script, "a", **options)
    assert found == (status, code, limit, None)
    assert counts.refused == 1


def test_a_limit_that_a_shorter_context_meets_no_more_is_forgotten(told, opened):
    async def script(client, session):
        refused = await client.ask(user("x " * 100))
        await client.say(user("q"))
        return refused.status_code, session.limit_met

    found, _, _, _ = played(told, opened, script, "a", limits=Limits(tokens=150))
    assert found == (400, None)


def test_more_at_once_than_may_be_are_sent_away_and_come_back(told, opened):
    hold = asyncio.Event()

    async def script(client, session):
        waiting = [asyncio.create_task(client.say(user(str(place)))) for place in range(2)]
        while len(session._drawings) < 2:
            await asyncio.sleep(0.01)
        answer = await client.ask(user("three"))
        hold.set()
        await asyncio.gather(*waiting)
        return answer.status_code, answer.headers["retry-after"], (await client.say(user("three")))["content"]

    _, policy = told("a", hold=hold)
    found, _, _, _ = played(told, opened, script, policy=policy, limits=Limits(at_once=2))
    assert found == (429, "1", "a")


@pytest.mark.parametrize("override", [True, False])
def test_whose_sampling_it_is(override, told, opened):
    async def script(client, session):
        await client.say(user("q"), temperature=0.1, top_p=0.5, max_tokens=7, seed=5, stop=["X"])
        await client.say(user("r"), max_tokens=1000)

    _, _, _, engine = played(
        told, opened, script, "a", override=override, sampling=Sampling(max_tokens=50, temperature=0.9, seed=1)
    )
    first, second = engine.samplings
    assert (first.max_tokens, second.max_tokens, first.stop) == (7, 50, ("X",))
    assert (first.temperature, first.top_p) == ((0.9, 1.0) if override else (0.1, 0.5))
    assert (first.seed == 5) is not override
    assert first.seed != second.seed


def test_a_policy_that_fails_is_told_as_the_servers_failure_and_can_be_asked_again(told, opened):
    async def script(client, session):
        answer = await client.ask(user("q"))
        failed = session.failure
        said = await client.say(user("q"))
        return answer.status_code, answer.json()["error"]["type"], str(failed), said["content"], session.failure

    found, tree, counts, _ = played(told, opened, script, PolicyError("no answer"), "a")
    assert found == (500, "server_error", "no answer", "a", None)
    assert (counts.turns, counts.refused, len(tree.segments())) == (1, 1, 1)


def test_the_end_of_an_episode_ends_what_is_in_work(told, opened):
    """Nobody waits for ever, and the engine works for nobody."""
    engine, policy = told("a", hold=asyncio.Event())

    async def play():
        async with opened(policy) as (gateway, session):
            client = Client(gateway, session)
            waiting = asyncio.create_task(client.ask(user("q")))
            while not engine.num_inside:
                await asyncio.sleep(0.01)
            await session.aclose()
            answer = await waiting
            late = await client.ask(user("q"))
            await client.http.aclose()
            return answer.json()["error"]["code"], late.status_code, session.tree().nodes

    assert asyncio.run(play()) == ("episode_ended", 401, ())
    assert engine.num_inside == 0


def test_the_last_answers_of_tools_are_observed(told, opened):
    """They come with a request that is refused: for the context that they fill."""

    async def first_only(client, session):
        await client.say(user("q"))

    async def script(client, session):
        first = await client.say(user("q"))
        return (await client.ask(user("q"), first, answer_to(first, "the end"))).status_code

    _, _, _, engine = played(told, opened, first_only, LOOK)
    whole = (*engine.prompts[0], *engine.sampled[0])
    found, tree, _, _ = played(told, opened, script, LOOK, limits=Limits(tokens=len(whole) + 6))
    assert found == 400
    (segment,) = tree.segments()
    assert segment.token_ids[: len(whole)] == whole
    assert set(segment.roles[len(whole) :]) <= {"tool", "template"}
    assert len(segment.token_ids) == len(whole) + 6


def turn(text, *calls):
    return Turn(message=Message(role="assistant", content=text, calls=calls), action=text)


def test_messages_are_the_same_where_words_and_calls_are():
    """Ids of calls are invented anew by gateways and clients; a reasoning that is left out is none that was changed."""
    branches = Branches()
    asked = [Message(role="user", content="q")]
    first = branches.match(asked, ())
    thought = Turn(
        message=Message(
            role="assistant", content="", thinking="hm", calls=(ToolCall(name="f", arguments={"a": 1, "b": 2}, id="x"),)
        ),
        action="",
    )
    branches.put(first.place, thought, thought.message)
    call = ToolCall(name="f", arguments={"b": 2, "a": 1}, id="other")

    def match(*messages, tools=()):
        return branches.match([*asked, *messages], tools)

    same = match(Message(role="assistant", content="", calls=(call,)))
    assert same.conversation == [asked[0], thought]
    assert not same.changed
    assert match(Message(role="assistant", content="", thinking="hm", calls=(call,))).conversation[1] is thought
    for other in (
        Message(role="assistant", content="", thinking="no", calls=(call,)),
        Message(role="assistant", content=" ", calls=(call,)),
        Message(role="assistant", content="", calls=(call, call)),
        Message(role="assistant", content="", calls=(ToolCall(name="f", arguments={"a": 1}),)),
    ):
        found = match(other)
        assert found.conversation[1] is other
        assert found.changed
    tool = ToolSpec(name="f", description="", parameters={})
    assert match(thought.message, tools=(tool,)).conversation[1] is not thought


def test_of_two_that_said_the_same_the_one_that_goes_on_is_meant():
    branches = Branches()
    asked = [Message(role="user", content="q")]
    place = branches.match(asked, ()).place
    first, second = turn("a"), turn("a")
    known = branches.put(place, first, first.message)
    branches.put(place, second, second.message)
    branches.put(known, Message(role="user", content="r"), Message(role="user", content="r"))
    on = [*asked, first.message, Message(role="user", content="r")]
    assert branches.match(on, ()).conversation[1] is first
    assert branches.match([*asked, first.message], ()).conversation[1] is second
