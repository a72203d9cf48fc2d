"""Documents of traces and episodes, and their mixture."""

import asyncio
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from verigym.agent.trajectory import Trajectory
from verigym.envs.task import Task
from verigym.envs.trace.examples import Example, stratified
from verigym.envs.trace.run import TraceJob, context_of
from verigym.envs.trace.shards import write_shards
from verigym.envs.trace.twins import twin_key
from verigym.errors import ConfigError
from verigym.model.chat.cwm import CwmParser, CwmRenderer
from verigym.model.chat.messages import Message
from verigym.model.chat.trace import START_MARKER, Frame, Trace
from verigym.model.chat.trace_tokens import TraceFormat
from verigym.model.tokenizer import train_tokenizer
from verigym.trainer.batching.documents import Document
from verigym.trainer.batching.packs import pack
from verigym.trainer.loops.midtrain import DocumentMixture, Midtrain, trace_document
from verigym.trainer.loops.midtrain_data import documents_of
from verigym.trainer.loops.midtrain_sources import Episode, Source, gather
from verigym.trainer.recipe.config import MidtrainConfig, OptimConfig
from verigym.trainer.recipe.recipe import Recipe
from verigym.trainer.recipe.stages import MidtrainSource, MidtrainStage
from verigym.trainer.sampling.held_out import HeldOut
from verigym.trainer.sampling.left_out import Account

TRACE = Trace(
    context="def f(x):  # << START_OF_TRACE\n    return x\n",
    frames=(
        Frame(event="call", source="def f(x):\n", locals={"x": "1"}),
        Frame(event="return", source="    return x\n", value="1"),
    ),
)


@pytest.fixture(scope="module")
def form():
    return TraceFormat(train_tokenizer([TRACE.context] * 3, 300))


def document(length, token=7):
    ids = np.full(length, token, dtype=np.int64)
    mask = np.ones(length, dtype=bool)
    return Document(token_ids=ids, targets=ids, loss_mask=mask, old_logprobs=np.full(length, np.nan, dtype=np.float32))


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_a_trace_is_learned_and_its_context_as_much_as_is_said(form, weight):
    ids = form.encode(TRACE)
    made = trace_document(TRACE, form, context_weight=weight)
    assert made.token_ids.tolist() == list(ids[:-1])
    assert made.targets.tolist() == list(ids[1:])
    first = len(form.prompt(Trace(context=TRACE.context, frames=(), ended=False)))
    assert made.targets[first - 1] == form.event_id("call")
    assert made.weights[: first - 1].tolist() == [weight] * (first - 1)
    assert made.weights[first - 1 :].tolist() == [1.0] * (len(ids) - first)
    assert made.targets[-1] == form.stop_token_ids[1]


SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@given(
    st.dictionaries(st.sampled_from("abc"), SIZES, min_size=1),
    st.lists(st.sampled_from([1.0, 2.0, 0.5]), min_size=3, max_size=3),
    st.integers(1, 80),
    st.integers(0, 12),
)
def test_shares_hold_and_a_resume_goes_on(sizes, shares, batch_tokens, before):
    sources = {name: [document(size, token=index) for index, size in enumerate(some)] for name, some in sizes.items()}
    weights = dict(zip("abc", shares))
    mixture = DocumentMixture(sources, weights, batch_tokens=batch_tokens, seed=1)
    for _ in range(before):
        mixture.next_batch()
    again = DocumentMixture(sources, weights, batch_tokens=batch_tokens, seed=1)
    again.load_state_dict(mixture.state_dict())
    for _ in range(10):
        batch, other = mixture.next_batch(), again.next_batch()
        assert batch == other
        assert len(batch) == 1 or sum(map(len, batch)) <= batch_tokens
    # No source is further ahead of its share than one document.
    shared = {name: mixture.drawn[name] / weights[name] for name in sources}
    for name in sources:
        assert shared[name] - min(shared.values()) <= 40 / weights[name]
    assert mixture.epochs_done == again.epochs_done


def test_other_documents_are_refused():
    mixture = DocumentMixture({"a": [document(3)]}, {"a": 1.0}, batch_tokens=4)
    for other in ({"b": [document(3)]}, {"a": [document(3)] * 2}):
        with pytest.raises(ValueError, match="saved cursor"):
            DocumentMixture(other, {"a": 1.0, "b": 1.0}, batch_tokens=4).load_state_dict(mixture.state_dict())


def test_the_loop_learns_a_trace_by_heart_and_resumes(make_decoder, form):
    config = MidtrainConfig(max_steps=30, patience=0, batch_tokens=256, microbatch_tokens=128, eval_every=10)
    learned = trace_document(TRACE, form, context_weight=1.0)

    def loop():
        return Midtrain(
            make_decoder(vocab_size=512),
            {"traces": [learned], "other": [document(20)]},
            {"traces": 3.0, "other": 1.0},
            config=config,
            optim=OptimConfig(lr=1e-2),
            held_out=[trace_document(TRACE, form, context_weight=0.0)],
        )

    whole = loop()
    losses = []
    whole.run(on_step=lambda step: losses.append(step.metrics.get("trainer/held_out_loss/mean")))
    measured = [loss for loss in losses if loss is not None]
    assert len(measured) == 3
    assert measured[-1] < 0.5 * measured[0]
    first, second = loop(), loop()
    for _ in range(7):
        first.step()
    second.decoder.load_state_dict(first.decoder.state_dict())
    second.load_state_dict(first.state_dict())
    assert second.step().metrics["trainer/loss/mean"] == first.step().metrics["trainer/loss/mean"]


def test_what_cannot_work_is_refused(make_decoder):
    common = {"config": MidtrainConfig(max_steps=1, patience=0), "optim": OptimConfig()}
    with pytest.raises(ConfigError, match="has no document"):
        Midtrain(make_decoder(), {"traces": []}, {"traces": 1.0}, **common)
    with pytest.raises(ConfigError, match="patience needs"):
        Midtrain(
            make_decoder(), {"a": [document(3)]}, {"a": 1.0}, config=MidtrainConfig(max_steps=1), optim=OptimConfig()
        )
    for changes in ({}, {"traces": "programs", "demonstrations": True}):
        with pytest.raises(ValidationError, match="must have one of"):
            MidtrainSource(name="a", **changes)
    with pytest.raises(ValidationError, match="give each its own"):
        MidtrainStage(sources=[MidtrainSource(name="a", traces="programs")] * 2)


def test_packing_changes_no_weight(form):
    documents = [trace_document(TRACE, form, context_weight=0.5) for _ in range(5)]
    random.Random(0).shuffle(documents)
    packs = pack(documents, max_tokens=3 * len(documents[0]))
    assert len(packs) == 2
    assert sum(float(one.weights.sum()) for one in packs) == 5 * float(documents[0].weights.sum())


TWIN = "def g(y):\n    return y + 1\n"


def gathered(stage, folder, held_out, account, seed=0):
    recipe = Recipe(name="r", seed=seed, families=[{"name": "x", "env": "verigym/Math-v0"}])
    return asyncio.run(gather(stage, recipe, folder, [], held_out, account, lambda made, wanted: None))


def test_what_is_held_out_is_not_learned(tmp_path):
    """A trace of a held-out task's program is left out of the sources, and counted."""
    jobs = [TraceJob(source=f"def f(x):\n    return x + {n}\n", call="f(1)") for n in range(3)]
    traces = [Trace(context=context_of(job), frames=TRACE.frames) for job in jobs]
    examples = [Example(trace=trace, kind="programs", origin=f"p/{n}", function="f") for n, trace in enumerate(traces)]
    write_shards(tmp_path / "data", examples, about={})
    assert TWIN.replace("g", "f").replace("y", "x") == jobs[1].source
    # The same program by other names, called with something else.
    held_out = HeldOut([Task(id="a", family="trace", prompt="", hidden={"program": TWIN, "call": "g(7)"})])
    stage = MidtrainStage(sources=[MidtrainSource(name="t", traces=str(tmp_path / "data"))])
    account = Account()
    (source,) = gathered(stage, tmp_path, held_out, account)
    assert [one.trace for one in source.examples] == [traces[0], traces[2]]
    assert account.counts() == {"t": {"program": 1}}


def function_example(name, number, *inner):
    """A call of a function of a library, and of others within it."""
    called = [Frame(event="call", source=f"def {one}(x):\n", locals={"x": str(number)}) for one in (name, *inner)]
    ended = [Frame(event="return", source="    return x\n", value=str(number)) for _ in (name, *inner)]
    source = f"def {name}(x):{START_MARKER}\n    return x\n"
    trace = Trace(context=source, frames=(*called, *ended))
    return Example(trace=trace, kind="library", origin=f"lib==1 lib/a.py:{name}", function=name)


def test_num_covers_functions_evenly_and_is_drawn_with_the_seed(tmp_path):
    """Traces stand in the order of the tests: the first hundred would be of two functions."""
    examples = [function_example(f"f{n // 50}", n) for n in range(500)]
    write_shards(tmp_path / "data", examples, about={})
    stage = MidtrainStage(sources=[MidtrainSource(name="t", traces=str(tmp_path / "data"), num=20)])
    drawn = [list(gathered(stage, tmp_path, HeldOut([]), Account(), seed)[0].examples) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert Counter(one.function for one in drawn[0]) == {f"f{n}": 2 for n in range(10)}
    assert stratified(examples, 1000, group=lambda one: one.origin, rng=random.Random(0)) == examples


@pytest.mark.parametrize("seed", range(8))
def test_the_held_out_loss_measures_no_learned_text(seed):
    """Frames of a function that measures stand in no learned trace, nor in a trace of another source."""
    rng = random.Random(seed)
    names = [f"f{n}" for n in range(12)]
    examples = [function_example(rng.choice(names), n, *rng.sample(names, rng.randint(0, 2))) for n in range(60)]
    programs = [
        Example(
            trace=replace(TRACE, context=f"def {name}(x):\n    return x + {n}\n"),
            kind="programs",
            origin="",
            function="f",
        )
        for n in range(10)
        for name in "fg"
    ]
    tokenizer = train_tokenizer([one.trace.context for one in examples], 400)
    sources = [
        Source(config=MidtrainSource(name="a", traces="x"), examples=tuple(examples[:40])),
        Source(config=MidtrainSource(name="b", traces="y"), examples=tuple(examples[40:])),
        Source(config=MidtrainSource(name="c", traces="z"), examples=tuple(programs)),
    ]
    stage = MidtrainStage(sources=[one.config for one in sources], held_out_share=0.2)
    found = documents_of(sources, stage, tokenizer, CwmRenderer(tokenizer), CwmParser(), seed=seed)
    form = TraceFormat(tokenizer)

    def read(documents):
        return [form.decode([int(one.token_ids[0]), *map(int, one.targets)]) for one in documents]

    measuring, learned = read(found.held_out), read([one for some in found.learned.values() for one in some])
    assert measuring
    assert learned
    assert not {twin_key(one.context) for one in measuring if one.frames == TRACE.frames} & {
        twin_key(one.context) for one in learned
    }
    for one in measuring:
        if one.frames != TRACE.frames:
            own = one.frames[0].source
            assert all(frame.source != own for other in learned for frame in other.frames)
    total = len(found.held_out) + sum(map(len, found.learned.values())) + sum(found.overlapping.values())
    assert total == 80
    assert sum(found.too_long.values()) == 0


def test_episodes_are_held_out_by_task_in_all_sources():
    def episode(task, answer):
        messages = (Message(role="user", content=f"Say {task}."), Message(role="assistant", content=answer))
        return Episode(trajectory=Trajectory(task_id=task, family="f", ending="answered", messages=messages), tools=())

    tokenizer = train_tokenizer(["Say ash birch cedar"] * 3, 320)
    sources = [
        Source(
            config=MidtrainSource(name=name, trajectories="x"),
            episodes=tuple(episode(f"t{n % 6}", name) for n in range(12)),
        )
        for name in ("a", "b")
    ]
    stage = MidtrainStage(sources=[one.config for one in sources], held_out_share=0.2)
    found = documents_of(sources, stage, tokenizer, CwmRenderer(tokenizer), CwmParser(), seed=0)

    def tasks(documents):
        texts = [tokenizer.decode(one.targets.tolist()) for one in documents]
        return {f"t{n}" for n in range(6) for text in texts if f"Say t{n}." in text}

    learned = tasks([one for some in found.learned.values() for one in some])
    assert tasks(found.held_out)
    assert not tasks(found.held_out) & learned
    assert tasks(found.held_out) | learned == {f"t{n}" for n in range(6)}
