"""Published clients run an episode with a tool through the gateway, whole and as streams; their tokens are trained."""

import asyncio
import json

import pytest

from verigym.agent.trajectory import Trajectory
from verigym.evals.viewer.page import page
from verigym.trainer.batching.documents import document_of

from .conftest import LOOK, TWICE

SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
CHAT_TOOL = {"type": "function", "function": {"name": "bash", "description": "Runs.", "parameters": SCHEMA}}


async def chat_loop(root, key, *, stream):
    """A loop over the openai package's chat completions."""
    openai = pytest.importorskip("openai", reason="it is part of the dev extra")
    client = openai.AsyncOpenAI(base_url=f"{root}/v1", api_key=key, max_retries=0)
    messages: list = [{"role": "user", "content": "List."}]
    seen = []
    async with client:
        while True:
            options = {"model": "verigym", "messages": messages, "tools": [CHAT_TOOL]}
            if stream:
                async with client.chat.completions.stream(**options) as events:
                    async for _ in events:
                        pass
                    answer = await events.get_final_completion()
            else:
                answer = await client.chat.completions.create(**options)
            said = answer.choices[0].message
            seen.append((said.content or None, [json.loads(call.function.arguments) for call in said.tool_calls or ()]))
            messages.append(said.model_dump(exclude_none=True, exclude={"parsed"}))
            if not said.tool_calls:
                return seen
            messages += [{"role": "tool", "tool_call_id": call.id, "content": "a b"} for call in said.tool_calls]


async def messages_loop(root, key, *, stream):
    """A loop over the anthropic package's messages."""
    anthropic = pytest.importorskip("anthropic", reason="it is part of the dev extra")
    client = anthropic.AsyncAnthropic(base_url=root, api_key=key, max_retries=0)
    tools = [{"name": "bash", "description": "Runs.", "input_schema": SCHEMA}]
    messages: list = [{"role": "user", "content": "List."}]
    seen = []
    async with client:
        while True:
            options = {"model": "verigym", "messages": messages, "tools": tools, "max_tokens": 300}
            if stream:
                async with client.messages.stream(**options) as events:
                    answer = await events.get_final_message()
            else:
                answer = await client.messages.create(**options)
            texts = [block.text for block in answer.content if block.type == "text"]
            calls = [block for block in answer.content if block.type == "tool_use"]
            seen.append(("".join(texts) or None, [call.input for call in calls]))
            messages.append({"role": "assistant", "content": [block.model_dump() for block in answer.content]})
            if answer.stop_reason != "tool_use":
                return seen
            results = [{"type": "tool_result", "tool_use_id": call.id, "content": "a b"} for call in calls]
            messages.append({"role": "user", "content": results})


async def responses_loop(root, key, *, stream):
    """A loop over the openai package's responses."""
    openai = pytest.importorskip("openai", reason="it is part of the dev extra")
    client = openai.AsyncOpenAI(base_url=f"{root}/v1", api_key=key, max_retries=0)
    given, seen = [{"role": "user", "content": "List."}], []
    async with client:
        while True:
            options = {"model": "verigym", "input": given, "tools": [{"type": "function", **CHAT_TOOL["function"]}]}
            if stream:
                async with client.responses.stream(**options) as events:
                    async for _ in events:
                        pass
                    answer = await events.get_final_response()
            else:
                answer = await client.responses.create(**options)
            calls = [item for item in answer.output if item.type == "function_call"]
            seen.append((answer.output_text or None, [json.loads(call.arguments) for call in calls]))
            given += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in answer.output]
            if not calls:
                return seen
            given += [{"type": "function_call_output", "call_id": call.call_id, "output": "a b"} for call in calls]


async def agents_loop(root, key, *, stream):
    """An agent of the openai-agents package, over responses."""
    agents = pytest.importorskip("agents", reason="openai-agents is part of the dev extra")
    import openai

    seen = []

    @agents.function_tool
    def bash(command: str) -> str:
        """Runs."""
        seen.append(command)
        return "a b"

    agents.set_tracing_disabled(True)
    async with openai.AsyncOpenAI(base_url=f"{root}/v1", api_key=key, max_retries=0) as client:
        model = agents.OpenAIResponsesModel(model="verigym", openai_client=client)
        agent = agents.Agent(name="lister", instructions="You list.", tools=[bash], model=model)
        if stream:
            running = agents.Runner.run_streamed(agent, "List.")
            async for _ in running.stream_events():
                pass
            return [*seen, running.final_output]
        done = await agents.Runner.run(agent, "List.")
        return [*seen, done.final_output]


EXPECTED = [("I look.", [{"command": "ls -l"}]), (None, [{"command": "ls"}, {"command": "pwd"}]), ("a and b", [])]
LOOPS = {
    "chat completions": (chat_loop, EXPECTED),
    "messages": (messages_loop, EXPECTED),
    "responses": (responses_loop, EXPECTED),
    "openai-agents": (agents_loop, ["ls -l", "ls", "pwd", "a and b"]),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", LOOPS)
def test_an_episode_with_parallel_calls(name, stream, told, opened):
    """One branch: each prompt is the one before, what was sampled, and what is new; all that was sampled is trained."""
    engine, policy = told(LOOK, TWICE, "a and b")
    loop, expected = LOOPS[name]

    async def play():
        async with opened(policy) as (gateway, session):
            seen = await loop(gateway.root(session), session.key, stream=stream)
            return seen, session.tree(), session.messages(), session.counts

    seen, tree, messages, counts = asyncio.run(play())
    assert seen == expected
    assert (counts.turns, counts.changed, counts.repeats, counts.undelivered, counts.refused) == (3, 0, 0, 0, 0)
    assert [message.role for message in messages if message.role != "system"] == [
        *("user", "assistant", "tool", "assistant", "tool", "tool", "assistant")
    ]
    (segment,) = tree.segments()
    assert segment.token_ids == (*engine.prompts[-1], *engine.sampled[-1])
    for prompt, sampled, following in zip(engine.prompts, engine.sampled, engine.prompts[1:]):
        assert following[: len(prompt) + len(sampled)] == (*prompt, *sampled)
    trained = [token for token, mask in zip(segment.token_ids, segment.loss_mask, strict=True) if mask]
    assert tuple(trained) == sum(engine.sampled, ())
    episode = Trajectory(
        task_id="t", family="f", ending="answered", segments=tree.segments(), tree=tree, messages=messages, reward=1.0
    )
    row = json.loads(json.dumps(episode.to_json()))
    again = Trajectory.from_json(row)
    document = document_of(again.segments[0], sampled=True, advantage=1.0)
    assert document is not None
    assert document.loss_mask.sum() == len(trained)
    assert f"{len(trained)} sampled in 1 segments" in "".join(page("x", [row]))


@pytest.mark.parametrize("name", ["chat completions", "messages", "responses"])
def test_reasoning_goes_with_the_turn_and_need_not_come_back(name, told, opened):
    engine, policy = told("hm\n</think>\n" + LOOK, "right\n</think>\na and b", reasoning=True)

    async def play():
        async with opened(policy) as (gateway, session):
            loop, _ = LOOPS[name]
            seen = await loop(gateway.root(session), session.key, stream=True)
            return seen, session.tree(), session.messages(), session.counts.changed

    seen, tree, messages, changed = asyncio.run(play())
    assert seen == [EXPECTED[0], EXPECTED[2]]
    assert changed == 0
    assert [message.thinking for message in messages if message.role == "assistant"] == ["hm", "right"]
    assert len(tree.segments()) == 1
    assert len(engine.prompts) == 2
