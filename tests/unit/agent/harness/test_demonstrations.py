"""Demonstrations through agents of others: a model that imitates perfectly is asked exactly what they show."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from verigym.agent.demonstrations import texts_of, tokenize
from verigym.agent.harness.demonstrations import demonstrate_with
from verigym.agent.harness.episode import rollout_with
from verigym.agent.harness.open import harness_of, open_demonstrator, scripted
from verigym.agent.harness.spec import Done
from verigym.agent.loop import Budget
from verigym.agent.policy import ScriptedPolicy, play
from verigym.agent.trajectory import Trajectory
from verigym.errors import AgentError, TaskError
from verigym.model.chat.cwm import CwmParser, CwmRenderer
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Sampling

from .conftest import Desk, Words, python

BUDGET = Budget(turns=12, tokens=4000, seconds=60.0)
BASH = {"type": "function", "function": {"name": "bash", "description": "", "parameters": {
    "type": "object", "properties": {"command": {"type": "string"}}}}}  # fmt: skip
LOOK = BASH | {"function": {**BASH["function"], "name": "look"}}
MINI = Path(__file__).parents[4] / "recipes" / "mini-swe-agent.yaml"


def say(content):
    return Message(role="assistant", content=content)


def use(name, **arguments):
    return Message(role="assistant", content="", calls=(ToolCall(name=name, arguments=arguments),))


def in_turn(*messages):
    """A script that says them in the order in which it is asked, whatever the context."""
    left = list(messages)
    return lambda conversation: left.pop(0)


class Rewrites:
    """Loops, forks, compacts what it was told, and goes on with another tool."""

    name = "rewrites"

    async def run(self, stage):
        root, headers = f"{stage.beside.root}/v1", {"authorization": f"Bearer {stage.beside.key}"}
        async with httpx.AsyncClient(base_url=root, headers=headers, timeout=30) as client:

            async def ask(messages, tools=(BASH,)):
                body = {"model": stage.beside.model, "messages": messages, "tools": list(tools)}
                answer = (await client.post("/chat/completions", json=body)).raise_for_status()
                return answer.json()["choices"][0]["message"]

            start = [{"role": "user", "content": stage.prompt}]
            first = await ask(start)
            answers = [{"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "seen"}]
            second = await ask([*start, first, *answers])
            await ask([*start, first, *answers, second, {"role": "user", "content": "left"}])
            await ask([*start, first, *answers, second, {"role": "user", "content": "right"}])
            kept = [*start, {"role": "user", "content": f"So far: {second['content']}"}, second]
            await ask([*kept, {"role": "user", "content": "and now"}])
            last = await ask(start, (LOOK,))
        return Done(exit="ended", submission=last["content"])


SAID = [use("bash", command="ls -l"), say("brown"), say("the fox"), say("quick"), say("jumps"), say("good")]


def tokenized(played, tokenizer):
    """The demonstrations of an episode with tokens, as the trainer reads them of their file."""
    return [
        tokenize(Trajectory.from_json(one.trajectory.to_json()), one.tools, CwmRenderer(tokenizer), CwmParser())
        for one in played
    ]


def contexts(trajectories):
    """What is trained, each behind all that stands before it."""
    return sorted((tuple(one.token_ids), tuple(one.loss_mask)) for each in trajectories for one in each.segments)


def lived_by(harness, policy, said, tools, task, env):
    texts = [CwmParser().format(message, tools) for message in said]
    return asyncio.run(
        rollout_with(harness, env, policy(*texts), task, budget=BUDGET, sampling=Sampling(max_tokens=300))
    )


def test_a_context_that_is_rewritten(policy, tokenizer, task):
    """Each turn is trained once, in the context that it was said in."""
    played = asyncio.run(demonstrate_with(Rewrites(), Words(), in_turn(*SAID), task, budget=BUDGET))
    assert [[spec.name for spec in one.tools] for one in played] == [["bash"], ["look"]]
    assert [one.trajectory.num_turns for one in played] == [5, 1]
    assert all(one.trajectory.reward is None and not one.trajectory.segments for one in played)
    lived = lived_by(Rewrites(), policy, SAID, played[0].tools, task, Words())
    assert (lived.reward, lived.agent["requests"]["changed"]) == (1.0, 3)
    taught = tokenized(played, tokenizer)
    assert contexts(taught) == contexts([lived])
    assert sum(one.num_sampled for one in taught) == lived.num_sampled > 0


def test_words_of_every_branch_are_known(task):
    """Of the tokenizer, and of whoever looks for what is held out."""
    (bash, _) = asyncio.run(demonstrate_with(Rewrites(), Words(), in_turn(*SAID), task, budget=BUDGET))
    texts = texts_of(bash.trajectory, bash.tools, CwmParser())
    assert {"Write good.", "seen", "left", "right", "So far: brown", "the fox", "quick", "jumps"} <= set(texts)
    assert texts.count("brown") == 2  # said once, and sent along once more


def test_a_program_in_the_sandbox(policy, tokenizer, task):
    """What an environment's ``submit`` is to a script, a final message is to an agent that offers none."""
    said = [use("bash", command="echo good > out.txt"), use("submit")]
    agent = python("loop()")
    (played,) = asyncio.run(open_demonstrator(agent)(Desk(), play(said), task, budget=BUDGET))
    assert [message.content for message in played.trajectory.messages] == ["Write good.", "", "", "Done."]
    lived = lived_by(harness_of(agent), policy, [said[0], say("Done.")], played.tools, task, Desk())
    assert lived.reward == 1.0
    assert contexts(tokenized([played], tokenizer)) == contexts([lived])


def test_mini_swe_agent(policy, tokenizer, task):
    pytest.importorskip("minisweagent", reason="the extra agents has it")
    said = [use("bash", command="echo good > out.txt"), use("bash", command="cat none; false"), use("submit")]
    agent = f"mini-swe-agent:{MINI}"
    (played,) = asyncio.run(open_demonstrator(agent)(Desk(), play(said), task, budget=BUDGET))
    roles = ["system", "user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert [message.role for message in played.trajectory.messages] == roles
    assert played.trajectory.messages[5].content.endswith("[exit code 1]")
    harness = harness_of(agent)
    lived = lived_by(harness, policy, [*said[:2], harness.hand_in], played.tools, task, Desk())
    assert (lived.reward, lived.agent["exit"], lived.agent["requests"]["changed"]) == (1.0, "Submitted", 0)
    assert contexts(tokenized([played], tokenizer)) == contexts([lived])


def test_a_call_that_the_agent_does_not_offer(task):
    """Told at once, and not after the agent has asked again for minutes."""
    started = time.monotonic()
    with pytest.raises(TaskError, match=r"the script calls 'python', and the agent .* offers bash; take experts"):
        asyncio.run(demonstrate_with(Rewrites(), Words(), play([use("python", code="1")]), task, budget=BUDGET))
    assert time.monotonic() - started < 60


def test_an_agent_that_asks_for_nothing_or_breaks_down(task):
    for program, words in (("pass", "asked for no turn"), ("sys.exit(3)", "exit 3"), ("loop(); sys.exit(3)", "exit 3")):
        with pytest.raises(AgentError, match=words):
            asyncio.run(open_demonstrator(python(program))(Desk(), play([say("x")]), task, budget=BUDGET))


def test_our_own_loop(task):
    assert isinstance(scripted("verigym", play([say("good")])), ScriptedPolicy)
    (played,) = asyncio.run(open_demonstrator("verigym")(Words(), play([say("good")]), task, budget=BUDGET))
    assert (played.trajectory.ending, played.trajectory.tree, played.tools) == ("answered", None, Words().tool_specs)
