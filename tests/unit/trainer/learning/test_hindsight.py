"""A teacher reads the student's very tokens around a block that only it sees."""

import asyncio
import secrets
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy
from verigym.agent.segments import Segment
from verigym.envs.core import ToolEnv
from verigym.envs.task import Task
from verigym.errors import ConfigError
from verigym.model.chat.cwm import CwmRenderer
from verigym.model.chat.messages import Message
from verigym.model.engine.generator import Generator
from verigym.model.lora import adapter_weights, add_adapters
from verigym.model.tokenizer import train_tokenizer
from verigym.rewards.score import verdict
from verigym.trainer.batching.documents import Document, Hint, document_of
from verigym.trainer.batching.hints import as_read_by
from verigym.trainer.batching.packs import join
from verigym.trainer.learning.experience import experience_of
from verigym.trainer.learning.hindsight import Hindsight, places_of, shortened
from verigym.trainer.learning.learner import Learner, Lesson
from verigym.trainer.loops.reinforce import RL
from verigym.trainer.recipe.algorithms import OPDConfig, SDPOConfig
from verigym.trainer.recipe.config import OptimConfig
from verigym.trainer.recipe.teachers import TeacherConfig
from verigym.trainer.sampling.rollouts import EpisodePlan, TaskStream

NAN = float("nan")


@st.composite
def segments(draw):
    """Turns of any length after a prompt, and a place for a block before one of the tokens."""
    roles = ["user"] * draw(st.integers(1, 5))
    for _ in range(draw(st.integers(1, 4))):
        roles += ["assistant"] * draw(st.integers(1, 4)) + ["tool"] * draw(st.integers(0, 3))
    count = len(roles)
    mask = [role == "assistant" for role in roles]
    ids = draw(st.lists(st.integers(0, 50), min_size=count, max_size=count))
    segment = Segment(
        token_ids=ids,
        loss_mask=mask,
        logprobs=[-1.0 if own else NAN for own in mask],
        policy_version=[0 if own else -1 for own in mask],
        roles=roles,
    )
    before = draw(st.integers(1, int(np.flatnonzero(mask)[-1])))
    block = draw(st.lists(st.integers(100, 120), min_size=1, max_size=6))
    return segment, Hint(token_ids=np.array(block), before=before)


@given(st.lists(segments(), min_size=1, max_size=4), st.data())
def test_the_students_ids_are_unchanged_and_aligned(rows, data):
    """Without the block a teacher's tokens are the student's, and each trained token is predicted from exactly the
    tokens before it, with the block among them where it stands before it."""
    documents = []
    for segment, hint in rows:
        hint = hint if data.draw(st.booleans()) else None
        taught = "t" if data.draw(st.booleans()) else ""
        documents.append(replace(document_of(segment, sampled=True), hint=hint, taught=taught))
    read = as_read_by("t", join(documents))
    if not any(one.taught for one in documents):
        assert read.filler
        return
    start = 0
    for one, length in zip([one for one in documents if one.taught], read.lengths, strict=True):
        ids = read.token_ids[start : start + length].tolist()
        mask = read.loss_mask[start : start + length].tolist()
        targets = read.targets[start : start + length].tolist()
        start += length
        assert [token for token in ids if token < 100] == one.token_ids.tolist()
        places = [place for place, trained in enumerate(mask) if trained]
        assert [targets[place] for place in places] == one.targets[one.loss_mask].tolist()
        for place, at in zip(places, np.flatnonzero(one.loss_mask), strict=True):
            seen = one.token_ids[: at + 1].tolist()
            if one.hint is not None and one.hint.before <= at + 1:
                seen = seen[: one.hint.before] + one.hint.token_ids.tolist() + seen[one.hint.before :]
            assert ids[: place + 1] == seen


def rendered(tokenizer):
    """Two turns of CWM's chat, as a segment, with the texts that a policy read."""
    renderer = CwmRenderer(tokenizer, announce_tools=False)
    first = renderer.start([Message(role="system", content="be"), Message(role="user", content="do it")], ())
    turn = renderer.encode_turn("first")
    more = renderer.extend(turn, [Message(role="tool", content="seen", name="bash")])
    last = renderer.encode_turn("second")
    ids = (*first.token_ids, *turn, *more.token_ids, *last)
    roles = (*first.roles, *("assistant",) * len(turn), *more.roles, *("assistant",) * len(last))
    mask = [*(False,) * len(first.roles), *(True,) * len(turn), *(False,) * len(more.roles), *(True,) * len(last)]
    logprobs = [-1.0 if own else NAN for own in mask]
    versions = [0 if own else -1 for own in mask]
    return Segment(token_ids=ids, loss_mask=mask, logprobs=logprobs, policy_version=versions, roles=roles)


def test_a_block_stands_in_the_first_users_message_or_before_a_turn():
    tokenizer = train_tokenizer(["be do it first seen second bash user tool: assistant system"] * 3, 300)
    segment = rendered(tokenizer)
    (first,), (second,), (late,) = (places_of([segment], turn) for turn in (0, 2, 9))
    assert tokenizer.decode(segment.token_ids[:first]).endswith("do it")
    assert tokenizer.decode(segment.token_ids[:second]).endswith("seen")
    assert late == second
    # Of several segments the first has no turn 3; the second, opened anew, has it.
    assert places_of([segment, segment], 3) == [None, first]
    assert places_of([segment, segment], 0) == [first, first]
    text = "reserved <|eot_id|> spelled out"
    assert tokenizer.reserved("<|eot_id|>") not in tokenizer.encode(text)


def test_what_is_too_long_is_cut_by_the_named_rule(make_segment, make_trajectory):
    ids = np.arange(10)
    assert shortened(ids, 4, "middle").tolist() == [0, 1, 8, 9]
    assert shortened(ids, 5, "middle").tolist() == [0, 1, 2, 8, 9]
    assert shortened(ids, 4, "end").tolist() == [0, 1, 2, 3]
    assert shortened(ids, 4, "start").tolist() == [6, 7, 8, 9]
    assert shortened(ids, 10, "middle") is ids
    one = replace(make_trajectory(make_segment([1] * 20, [0] * 10 + [1] * 10)), passed=True, detail="x" * 100)
    config = SDPOConfig(hindsight={"parts": ["verdict"], "max_tokens": 50})
    for context, wanted, cut in ((1000, 50, 1), (60, 40, 1), (25, None, 0)):
        hints = Hindsight(encode=lambda text: [7] * len(text), max_context=context)([one], [config])
        assert hints.num_cut == cut
        found = hints.of_episodes[0]
        assert [len(hint.token_ids) for hint in found] == ([] if wanted is None else [wanted])


def test_an_episode_that_nothing_is_told_of_is_not_taught(make_segment, make_trajectory):
    good = replace(make_trajectory(make_segment([1, 5, 2, 3], [0, 0, 0, 1]), reward=1.0), passed=True)
    good = replace(good, messages=(Message(role="assistant", content="so"),))
    bad = replace(make_trajectory(make_segment([1, 5, 2, 4], [0, 0, 0, 1]), reward=0.0), passed=False)
    config = SDPOConfig(hindsight={"parts": ["sibling"]}, reward_weight=1.0)
    hindsight = Hindsight(encode=lambda text: [7, 8], max_context=64)
    found = experience_of([good, bad], config, hindsight=hindsight)
    (first,), (second,) = found.documents
    assert (first.taught, second.taught) == ("", "ema")
    assert (first.hint, second.hint.token_ids.tolist()) == (None, [7, 8])
    assert float(first.advantage[first.loss_mask][0]) == 0.5  # its reward teaches all the same
    assert found.metrics["trainer/taught/share"] == 0.5


def test_the_average_follows_and_is_saved(make_decoder):
    decoder = make_decoder(vocab_size=16)
    lesson = Lesson(optim=OptimConfig(), rl=SDPOConfig(), teachers={"ema": TeacherConfig(policy="ema", decay=0.9)})
    learner = Learner(decoder, lesson)
    start = decoder.norm.weight.detach().clone()
    with torch.no_grad():
        decoder.norm.weight.add_(1.0)
    learner.averages["ema"].update(decoder)
    average = learner.averages["ema"].decoder
    torch.testing.assert_close(average.norm.weight, start + 0.1)
    assert not any(weight.requires_grad for weight in average.parameters())
    assert all(weight.requires_grad for weight in decoder.parameters())
    other = Learner(make_decoder(vocab_size=16), lesson)
    other.load_state_dict(learner.state_dict())
    for mine, theirs in zip(other.averages["ema"].decoder.parameters(), average.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_of_a_model_with_adapters_these_alone_are_averaged(make_decoder):
    decoder = make_decoder(vocab_size=16)
    add_adapters(decoder, rank=2, alpha=2.0)
    lesson = Lesson(
        optim=OptimConfig(lr=0.1), rl=SDPOConfig(), teachers={"ema": TeacherConfig(policy="ema", decay=0.5)}
    )
    learner = Learner(decoder, lesson)
    mask = np.array([False, True, True])
    document = Document(
        token_ids=np.array([1, 2, 3]),
        targets=np.array([2, 3, 4]),
        loss_mask=mask,
        old_logprobs=np.where(mask, -2.7, np.nan).astype(np.float32),
        advantage=1.0,
        taught="ema",
        hint=Hint(token_ids=np.array([7, 8]), before=1),
    )
    before = {name: weight.detach().clone() for name, weight in adapter_weights(decoder).items()}
    learner.step([join([document])])
    average = learner.averages["ema"].decoder
    for name, weight in adapter_weights(average).items():
        torch.testing.assert_close(weight, (before[name] + adapter_weights(decoder)[name]) / 2)
    moved = [not torch.equal(weight, before[name]) for name, weight in adapter_weights(decoder).items()]
    assert any(moved)
    assert average.embed.weight is decoder.embed.weight  # shared: it does not learn
    state = learner.state_dict()["averages"]["ema"]
    assert state.keys() == before.keys()
    other = make_decoder(vocab_size=16)
    add_adapters(other, rank=2, alpha=2.0)
    resumed = Learner(other, lesson)
    resumed.load_state_dict(learner.state_dict())
    for name, weight in adapter_weights(resumed.averages["ema"].decoder).items():
        torch.testing.assert_close(weight, adapter_weights(average)[name])


def test_settings_that_teach_nothing_are_refused(make_decoder):
    with pytest.raises(ValueError, match="it says the same"):
        OPDConfig(teacher="self")
    with pytest.raises(ConfigError, match="nothing makes it"):
        RL(make_decoder(), None, None, None, config=SDPOConfig(), optim=OptimConfig())


TRACEBACK = """tests/test_nine.py::test_it: failed
tests/test_nine.py:3: in test_it
    assert answer() == 9, "{word}"
E   AssertionError: {word}
E   assert 7 == 9"""


class Canary(ToolEnv):
    """Right is a 9; what is said of an answer spells a canary, which no answer needs."""

    family = "canary"

    def __init__(self, said):
        super().__init__()
        self._said = said

    def feedback(self, task, score):
        return self._said

    def score(self, task, submission):
        return verdict(submission.split()[:1] == ["9"])


class Anything:
    def parse(self, text, tools):
        return Message(role="assistant", content=text), text


CANARY, OTHER = 13, 12


@pytest.mark.parametrize(
    ("said", "kind"),
    [("{word} {word} {word} {word}", "sampled"), ("{word} {word}", "jensen_shannon"), (TRACEBACK, "jensen_shannon")],
    ids=["names sampled", "names exact", "traceback"],
)
def test_a_canary_in_the_feedback_does_not_become_likelier(make_decoder, words, said, kind):
    """The trap: what a hidden test says is to reach the teacher's context alone. A student that came to say what its
    teacher was shown would sample the canary more often; while it learns what is rewarded, it does not."""
    word = f"w{secrets.token_hex(4)}"

    def encode(text):
        return [CANARY if word in one else OTHER for one in text.split()]

    decoder = make_decoder(vocab_size=16, max_position_embeddings=64)
    tasks = [Task(id=letter, family="canary", prompt=letter) for letter in "adgj"]
    hindsight = Hindsight(
        encode=encode, max_context=48, decode=lambda ids: " ".join(word if one == CANARY else "x" for one in ids)
    )
    read = []

    class Reading(TokenPolicy):
        async def respond(self, conversation, tools, sampling):
            read.append(conversation[0].content)
            return await super().respond(conversation, tools, sampling)

    config = SDPOConfig(
        teacher="ema",
        divergence={"kind": kind},
        hindsight={"parts": ["feedback"], "of": "failed", "sample_every": 5},
        reward_weight=1.0,
        teacher_weight=0.2,
        num_tasks=4,
        group_size=16,
        microbatch_tokens=2048,
        concurrency=64,
        collapse={"most_divergence": None},  # the trap is looked at to the end, however far the student goes
    )
    plan = EpisodePlan(
        make_env=lambda: Canary(said.format(word=word)), budget=Budget(turns=1, tokens=64, seconds=120), turn_tokens=1
    )
    rows, shares = [], []
    with Generator(decoder, max_context=48, max_batch=64, seed=0) as engine:
        loop = RL(
            decoder,
            engine,
            Reading(engine, words.renderer(tuple(range(16))), Anything()),
            lambda task: plan,
            config=config,
            optim=OptimConfig(lr=1e-2),
            tasks=TaskStream(tasks, seed=0),
            hindsight=hindsight,
        )

        def on_step(result):
            rows.append(result.metrics)
            assert len(result.trajectories) == 64
            assert all(word not in one.content for t in result.trajectories for one in t.messages)
            sampled = [s.token_ids[i] for t in result.trajectories for s in t.segments
                       for i, own in enumerate(s.loss_mask) if own]  # fmt: skip
            shares.append(sum(token == CANARY for token in sampled) / len(sampled))

        asyncio.run(loop.run(15, on_step=on_step))
    # Of what was played with the block (four tasks twice) nothing is kept, and no other prompt has it.
    played = [number for number, row in enumerate(rows) if "trainer/teacher_passed/rate" in row]
    assert played == [0, 5, 10]
    assert len(rows) == 15
    assert sum(word in one for one in read) == len(played) * 4 * 2
    assert rows[0]["trainer/taught/share"] > 0.5  # it was told, and learned from
    assert rows[0]["trainer/hint_tokens/mean"] > 4
    assert rows[-1]["rollout/reward/mean"] > 2 * max(rows[0]["rollout/reward/mean"], 0.05)
    assert np.mean(shares[-5:]) <= max(np.mean(shares[:3]), 1 / 16)
