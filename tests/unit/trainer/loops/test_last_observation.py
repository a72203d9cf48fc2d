"""What the environment answers last is learned like all it answered before: in documents and in sampled segments."""

import asyncio
from itertools import groupby

import numpy as np
import pytest

from verigym.agent.demonstrations import demonstrate, tokenize
from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import TokenPolicy, play
from verigym.agent.seeds import SeededPolicy
from verigym.envs.core import Submission, ToolEnv
from verigym.envs.task import Task
from verigym.envs.tools.spec import tool
from verigym.model.chat.cwm import CwmParser, CwmRenderer
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Completion, Sampling
from verigym.model.tokenizer import train_tokenizer
from verigym.rewards.score import verdict
from verigym.trainer.batching.documents import demonstrations_of
from verigym.trainer.learning.experience import experience_of
from verigym.trainer.loops.midtrain import trajectory_documents
from verigym.trainer.recipe.algorithms import GRPOConfig


class Echoes(ToolEnv):
    """Says each word back, once more at the end."""

    family = "echoes"

    @tool
    def say(self, word: str) -> str:
        """Say a word.

        Args:
            word: which.
        """
        return f"heard {word}"

    @tool
    def submit(self) -> Submission:
        """End."""
        return Submission(value="done", message="handed in")

    def score(self, task, submission):
        return verdict(submission == "done")


TASK = Task(id="t", family="echoes", prompt="Speak.")
WORDS = ("ash", "birch", "cedar")
CALLS = [ToolCall(id="", name="say", arguments={"word": word}) for word in WORDS]
TURNS = [Message(role="assistant", content="", calls=(call,)) for call in CALLS]
SUBMIT = Message(role="assistant", content="", calls=(ToolCall(id="", name="submit", arguments={}),))
WRONG = Message(role="assistant", content="<tool: shout>\n</tool>")
ENDINGS = {
    "turn limit, first turn": (TURNS, 1),
    "turn limit": (TURNS, 3),
    "submitted": ([*TURNS, SUBMIT], 9),
    "submitted at once": ([SUBMIT], 9),
    "format error": ([TURNS[0], WRONG], 2),
    "answered": ([TURNS[0], Message(role="assistant", content="bye")], 9),
    "several calls in a turn": ([Message(role="assistant", content="", calls=tuple(CALLS))], 1),
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["heard ash handed in Speak. format error: there is no tool"] * 3, 320)


def answers(messages):
    """What the environment said after the first turn."""
    first = next(at for at, message in enumerate(messages) if message.role == "assistant")
    return [message.content for message in messages[first:] if message.role != "assistant"]


def learned_answers(tokenizer, documents, weights):
    """Texts between turns whose every token has a weight."""
    found = []
    for document in documents:
        on = weights(document) > 0
        pieces = [tokenizer.decode([int(target)]) if told else "\0" for target, told in zip(document.targets, on)]
        found.append("".join(pieces))
    return found


class Said:
    """An engine that says what it was told, one text a turn."""

    policy_version, max_context = 0, 4000

    def __init__(self, renderer, texts):
        self._turns = [renderer.encode_turn(text) for text in texts]

    async def generate(self, prompt_ids, sampling, stop_token_ids):
        ids = self._turns.pop(0)
        return Completion(
            token_ids=ids, logprobs=(-0.5,) * len(ids), policy_version=(0,) * len(ids), finish_reason="stop"
        )


def sampled(tokenizer, turns, limit, tokens=4000):
    renderer, parser = CwmRenderer(tokenizer), CwmParser()
    env = Echoes()
    texts = [turn.content or parser.format(turn, env.tool_specs) for turn in turns]
    policy = SeededPolicy(TokenPolicy(Said(renderer, texts), renderer, parser), "t")
    budget = Budget(turns=limit, tokens=tokens)
    return asyncio.run(rollout(env, policy, TASK, budget=budget, sampling=Sampling()))


def foraged(turns, limit):
    return asyncio.run(demonstrate(Echoes(), play(turns), TASK, max_turns=limit))


@pytest.mark.parametrize("name", ENDINGS)
def test_documents_hold_each_observation_once(tokenizer, name):
    turns, limit = ENDINGS[name]
    if name == "format error":
        episode = sampled(tokenizer, turns, limit)
    else:
        episode = foraged(turns, limit)
    renderer = CwmRenderer(tokenizer)
    (document,) = trajectory_documents([tokenize(episode, Echoes().tool_specs, renderer, _AnyParser())])
    (text,) = learned_answers(tokenizer, [document], lambda one: one.weights)
    wanted = answers(episode.messages)
    assert len(wanted) == sum(text.count(f"\n\n{word}<|eot_id|>") for word in set(wanted))
    assert text.endswith("<|eot_id|>")  # and no header of a turn that never came


class _AnyParser(CwmParser):
    """Writes a turn as it was, though it be no call."""

    def format(self, message, tools):
        return message.content if not message.calls else super().format(message, tools)


@pytest.mark.parametrize("name", ENDINGS)
def test_sampled_segments_hold_each_observation_and_echo_learns_them(tokenizer, name):
    turns, limit = ENDINGS[name]
    episode = sampled(tokenizer, turns, limit)
    (segment,) = episode.segments
    observed = [
        tokenizer.decode(segment.token_ids[some[0] : some[-1] + 1])
        for role, some in _runs(segment)
        if role in ("tool", "user")
    ][1:]
    wanted = answers(episode.messages)
    assert observed == wanted
    assert segment.num_sampled == sum(role == "assistant" for role in segment.roles)
    config = GRPOConfig(
        group_size=2, microbatch_tokens=4096, drop_uniform_groups=False, echo={"tool": 1.0, "user": 1.0}
    )
    (document,), _ = experience_of([episode, episode], config).documents
    (text,) = learned_answers(tokenizer, [document], lambda one: one.columns["echo"])
    assert [part for part in text.split("\0") if part][1:] == wanted
    assert not (document.loss_mask & (document.columns["echo"] > 0)).any()
    assert int(document.loss_mask.sum()) == segment.num_sampled


def _runs(segment):
    return [(role, list(some)) for role, some in groupby(range(len(segment.roles)), lambda at: segment.roles[at])]


def test_imitation_that_learns_observations_learns_the_last_one(tokenizer):
    episode = tokenize(foraged(TURNS, 2), Echoes().tool_specs, CwmRenderer(tokenizer), CwmParser())
    (without,) = demonstrations_of([episode])
    (document,) = demonstrations_of([episode], observation_weight=0.5)
    assert len(document) > len(without)
    assert document.weights[-1] == 0.5
    np.testing.assert_array_equal(document.written[: len(without)], without.loss_mask)


def test_an_observation_is_cut_where_the_context_ends(tokenizer):
    whole = sampled(tokenizer, TURNS, 1).segments[0]
    last = max(at for at, on in enumerate(whole.loss_mask) if on)
    for room in (0, 3):
        cut = sampled(tokenizer, TURNS, 1, tokens=last + 1 + room).segments[0]
        assert cut.token_ids == whole.token_ids[: last + 1 + room]


class NeverAppends(CwmRenderer):
    """Nor does it begin as before: what came first is left out from the second turn on."""

    def extend(self, sampled, messages):
        return None

    def start(self, messages, tools):
        said = sum(message.role == "assistant" for message in messages)
        return super().start(messages if said < 2 else messages[2:], tools)


def test_a_format_that_cannot_append_has_it_too(tokenizer):
    renderer = NeverAppends(tokenizer)
    for limit, count in ((1, 1), (2, 2)):
        episode = tokenize(foraged(TURNS, limit), Echoes().tool_specs, renderer, CwmParser())
        texts = learned_answers(tokenizer, trajectory_documents([episode]), lambda one: one.weights)
        assert len(texts) == count
        assert texts[-1].endswith(f"heard {WORDS[limit - 1]}<|eot_id|>")
