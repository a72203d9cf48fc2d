"""A teacher behind a server says of the student's tokens what the same model says in this process."""

import asyncio
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy
from verigym.agent.remote_scorer import RemoteScorer
from verigym.agent.trajectory import Segment
from verigym.envs.core import ToolEnv
from verigym.envs.task import Task
from verigym.errors import ConfigError, PolicyError, RequestRefused
from verigym.model.attention import Documents
from verigym.model.chat.messages import Message
from verigym.model.engine.generator import Generator
from verigym.model.engine.open import OpenModel
from verigym.rewards.score import verdict
from verigym.trainer.batching.documents import Hint, document_of
from verigym.trainer.batching.packs import pack
from verigym.trainer.learning.experience import Scorer, experience_of
from verigym.trainer.learning.hindsight import Hindsight
from verigym.trainer.learning.learner import Learner, Lesson
from verigym.trainer.learning.optim import Optimizer
from verigym.trainer.learning.served import ServedTeachers, Unscored, _Asked
from verigym.trainer.learning.step import TrainStep
from verigym.trainer.loops.asynchronous import AsyncRL
from verigym.trainer.loops.reinforce import RL
from verigym.trainer.objective.objective import divergence_of, loss_of
from verigym.trainer.objective.teacher import Teachers
from verigym.trainer.recipe.algorithms import AsyncConfig, OPDConfig
from verigym.trainer.recipe.config import OptimConfig
from verigym.trainer.recipe.teachers import TeacherConfig
from verigym.trainer.sampling.rollouts import EpisodePlan, TaskStream

from ...model.server.conftest import running

VOCAB = 16
SHOWN = (9, 8, 7)


@pytest.fixture
def pair(make_decoder):
    student, teacher = (make_decoder(vocab_size=VOCAB, max_position_embeddings=64) for _ in range(2))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in teacher.parameters():
            if weight.dim() > 1:
                weight.copy_(0.4 * torch.randn(weight.shape, generator=generator))
    return student, teacher


@pytest.fixture
def address(pair):
    """Of a server that has the teacher, without a tokenizer."""
    with Generator(pair[1], max_batch=4, max_context=64, num_threads=1) as engine:
        model = OpenModel(
            engine=engine, encode=None, decode=None, renderer=None, parser=None, load_weights=lambda *_: None
        )
        with running(model) as server:
            yield server.url


async def asked(url, trajectories, config, hindsight=None, num_top=0):
    scorer = await RemoteScorer.connect(url, "tiny", num_top=num_top, attempts=2, backoff_s=0.01)
    served = ServedTeachers({"far": scorer}, lambda _: config, hindsight)
    try:
        return await served.said(trajectories)
    finally:
        await served.aclose()


def episodes(make_segment, make_trajectory):
    """Two groups, of segments with several turns; of one episode two."""
    long = make_segment([1, 5, 2, 3, 4, 6, 10, 11, 3, 2], [0, 0, 0, 1, 1, 0, 0, 1, 1, 1])
    short = make_segment([1, 2, 12, 13], [0, 0, 1, 1])
    return [
        make_trajectory(long, short, reward=1.0, group="a"),
        make_trajectory(short, reward=0.0, group="a"),
        make_trajectory(long, reward=1.0, group="b"),
        make_trajectory(short, reward=None, group="b", ending="sandbox_failure"),
    ]


@pytest.mark.parametrize("shown", [False, True])
def test_it_says_what_the_model_in_this_process_says(address, pair, make_segment, make_trajectory, shown):
    student, teacher = pair
    given_ = [
        replace(one, passed=None if one.reward is None else bool(one.reward))
        for one in episodes(make_segment, make_trajectory)
    ]
    settings = {"hindsight": {"parts": ["verdict"]}} if shown else {}
    config = OPDConfig(teacher="far", **settings)
    hindsight = Hindsight(encode=lambda text: SHOWN, max_context=64) if shown else None
    said = asyncio.run(asked(address, given_, config, hindsight))
    # The server's teacher is no model of this process: its scorer has none.
    far = experience_of(given_, config, Scorer(student, config), None, hindsight, said)
    near = experience_of(
        given_, config, Scorer(student, config, teachers=Teachers({"far": teacher}, None)), None, hindsight
    )
    assert [len(one) for one in far.documents] == [len(one) for one in near.documents] == [2, 1, 1, 0]
    for ours, theirs in zip(far.documents, near.documents, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            mask = one.loss_mask
            assert np.abs(other.advantage[mask]).max() > 0.1
            np.testing.assert_allclose(one.advantage[mask], other.advantage[mask], atol=1e-5)
    assert far.metrics.pop("trainer/teacher_failures/count") == 0
    assert far.metrics == pytest.approx(near.metrics, abs=1e-5)


@pytest.mark.parametrize("shown", [False, True])
@pytest.mark.parametrize("kind", ["forward", "reverse", "jensen_shannon"])
def test_its_likeliest_tokens_teach_as_those_of_a_model_here(address, pair, make_segment, make_trajectory, kind, shown):
    student, teacher = pair
    given_ = [
        replace(one, passed=None if one.reward is None else bool(one.reward))
        for one in episodes(make_segment, make_trajectory)
    ]
    settings = {"hindsight": {"parts": ["verdict"]}} if shown else {}
    config = OPDConfig(
        teacher="far", divergence={"kind": kind, "support": 5, "support_of": "teacher"}, reward_weight=0.5, **settings
    )
    hindsight = Hindsight(encode=lambda text: SHOWN, max_context=64) if shown else None
    said = asyncio.run(asked(address, given_, config, hindsight, num_top=5))
    found = []
    for told, teachers in ((said, Teachers({}, divergence_of(config))), (None, None)):
        teachers = teachers or Teachers({"far": teacher}, divergence_of(config))
        one = experience_of(given_, config, Scorer(student, config, teachers=teachers), None, hindsight, told)
        documents = [document for mine in one.documents for document in mine]
        assert len(documents) == 4
        student.zero_grad()
        step = TrainStep(student, Optimizer(student, OptimConfig()), loss_of(config), teachers=teachers)
        metrics = step.accumulate(pack(documents, max_tokens=20))
        found.append((metrics, [weight.grad.clone() for weight in student.parameters()]))
    (far, far_grads), (near, near_grads) = found
    assert near["divergence"] > 0.1
    for name in ("loss", "divergence"):
        assert far[name] == pytest.approx(near[name], abs=1e-5)
    for one, other in zip(far_grads, near_grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


class Later:
    """Answers when it is let, and counts."""

    max_context = 64

    def __init__(self, *, fails=()):
        self.free, self.asked, self.fails, self.closed = asyncio.Event(), [], fails, 0

    async def score(self, token_ids):
        self.asked.append(tuple(token_ids))
        await self.free.wait()
        if tuple(token_ids) in self.fails:
            raise PolicyError("gone")
        return np.array([math.nan, *(-float(one) for one in token_ids[1:])], np.float32)

    async def aclose(self):
        self.closed += 1


def test_a_group_is_asked_about_once_when_it_ends(make_segment, make_trajectory):
    group = episodes(make_segment, make_trajectory)[:2]

    async def work():
        scorer = Later()
        served = ServedTeachers({"far": scorer}, lambda _: OPDConfig(teacher="far"))
        served.begin(group)
        while len(scorer.asked) < 2:
            await asyncio.sleep(0.01)
        scorer.free.set()
        found = await served.said(group)
        dropped = episodes(make_segment, make_trajectory)[:2]
        scorer.free.clear()
        served.begin(dropped)
        served.forget(dropped)
        again = list(served._asked)
        await served.aclose()
        return found, scorer, again

    found, scorer, again = asyncio.run(work())
    assert [len(one) for one in found] == [2, 1]
    np.testing.assert_array_equal(found[1][0], [-2.0, -12.0, -13.0])
    assert len(scorer.asked) <= 3 + 2
    assert scorer.asked[:2].count((1, 2, 12, 13)) == 1
    assert (again, scorer.closed) == ([], 1)


def test_an_outage_is_no_credit_of_zero(make_segment, make_trajectory, pair):
    given_ = episodes(make_segment, make_trajectory)
    config = OPDConfig(teacher="far", reward_weight=1.0)

    async def work():
        scorer = Later(fails=[(1, 2, 12, 13)])
        scorer.free.set()
        return await ServedTeachers({"far": scorer}, lambda _: config).said(given_)

    said = asyncio.run(work())
    assert [type(one) for one in said] == [Unscored, Unscored, tuple, tuple]
    found = experience_of(given_, config, Scorer(pair[0], config), said=said)
    assert [len(one) for one in found.documents] == [0, 0, 1, 0]
    assert found.metrics["trainer/teacher_failures/count"] == 2


def test_families_without_a_teacher_or_with_one_of_this_process_stand_beside(
    pair, make_segment, make_trajectory, address
):
    """One pack has documents of each, whatever comes first."""
    student, teacher = pair
    given_ = [replace(one, family=name) for one, name in zip(
        episodes(make_segment, make_trajectory)[:3], ("none", "near", "far"), strict=True
    )]  # fmt: skip
    weights = {"none": 0.0, "near": 1.0, "far": 1.0}

    def config_of(family, task):
        return OPDConfig(teacher=family, teacher_weight=weights[family], reward_weight=1.0)

    async def ask():
        scorer = await RemoteScorer.connect(address, "tiny")
        served = ServedTeachers({"far": scorer}, lambda one: config_of(one.family, one.task_id))
        try:
            return await served.said(given_)
        finally:
            await served.aclose()

    said = asyncio.run(ask())
    assert (said[0], said[1]) == ((), ())
    scorer = Scorer(student, config_of("near", ""), teachers=Teachers({"near": teacher}, None))
    lone = {one.family: experience_of([one], config_of(one.family, ""), Scorer(
        student, config_of(one.family, ""), teachers=Teachers({one.family: teacher}, None)
    )) for one in given_[1:]}  # fmt: skip
    for order in ([0, 1, 2], [2, 1, 0]):
        mixed = [given_[index] for index in order]
        found = experience_of(mixed, config_of("near", ""), scorer, config_of, said=[said[index] for index in order])
        by_family = {one.family: documents for one, documents in zip(mixed, found.documents, strict=True)}
        for family, alone in lone.items():
            for one, other in zip(by_family[family], alone.documents[0], strict=True):
                told = [document.columns["teacher_logprobs"][document.loss_mask] for document in (one, other)]
                np.testing.assert_allclose(*told, atol=1e-5)


@given(st.data())
def test_every_target_gets_the_number_of_its_own_token(data):
    """With what the teacher alone reads before any token."""
    count = data.draw(st.integers(2, 12))
    mask = [False, *data.draw(st.lists(st.booleans(), min_size=count - 1, max_size=count - 1))]
    mask[-1] = True
    segment = Segment(
        token_ids=list(range(count)), loss_mask=mask, logprobs=[-1.0 if one else math.nan for one in mask],
        policy_version=[0 if one else -1 for one in mask], roles=["assistant" if one else "user" for one in mask],
    )  # fmt: skip
    block = data.draw(st.lists(st.integers(100, 120), max_size=4))
    before = data.draw(st.integers(1, count - 1))
    document = document_of(segment, sampled=True)
    one = _Asked.of(document, Hint(token_ids=np.array(block), before=before) if block else None)
    assert one.token_ids == [*range(before), *block, *range(before, count)]
    np.testing.assert_array_equal(one.column(np.array(one.token_ids, np.float32)), document.targets)


class Server:
    """Answers as it is told to."""

    def __init__(self, answer):
        self.answer = answer

    def url(self, path):
        return f"http://server{path}"

    async def post(self, path, body):
        return {"choices": [{"logprobs": self.answer}]}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "has no log-probabilities for a prompt of 3 tokens"),
        ({"token_logprobs": [-1.0]}, "has 1 log-probabilities for a prompt of 3"),
        ({"token_logprobs": [None, None, -1.0]}, "something else"),
        ({"token_logprobs": [None, 0.5, -1.0]}, "something else"),
        ({"token_logprobs": [None, "a", -1.0]}, "something else"),
    ],
)
def test_answers_without_log_probabilities_are_refused(answer, why):
    with pytest.raises(PolicyError, match=why):
        asyncio.run(RemoteScorer(Server(answer), "tiny", 64).score([1, 2, 3]))


class Vllm(Server):
    """Knows no echo, and tells the log-probabilities of a prompt as vLLM does; of so many tokens at most."""

    def __init__(self, most):
        super().__init__(None)
        self.most = most

    async def post(self, path, body):
        if "echo" in body:
            raise RequestRefused("no echo")
        ids, count = body["prompt"], min(body["prompt_logprobs"], self.most)
        rows = [
            {str(one): {"logprob": -float(one) / 2, "rank": one} for one in {token, *range(1, count + 1)}}
            for token in ids[1:]
        ]
        return {"choices": [{"prompt_logprobs": [None, *rows]}]}

    async def aclose(self):
        pass


def test_both_forms_of_an_answer_are_read(monkeypatch):
    async def found(*_, **options):
        return Vllm(3), "tiny", 64

    monkeypatch.setattr("verigym.agent.remote_scorer.find_model", found)

    async def work():
        scorer = await RemoteScorer.connect("http://server", "tiny", num_top=2)
        return await scorer.score([4, 9, 2]), await scorer.likeliest([4, 9, 2], 2)

    sampled, top = asyncio.run(work())
    np.testing.assert_array_equal(sampled, np.float32([np.nan, -4.5, -1.0]))
    np.testing.assert_array_equal(top[1:], np.float32([[[1, 2], [-0.5, -1.0]]] * 2))
    with pytest.raises(
        ConfigError, match=r"of the 5 likeliest in their places .*4 tokens in a place.*divergence.support"
    ):
        asyncio.run(RemoteScorer.connect("http://server", "tiny", num_top=5))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"the": -0.5}, "something else than ids"),
        ({"token_id:3": 0.5}, "something else than ids"),
        ({"token_id:3": None}, "something else than ids"),
        ({"token_id:3": -0.5}, "tells of 1 tokens in a place, and 2"),
        (None, "tells of 0 tokens in a place, and 2"),
    ],
)
def test_likeliest_tokens_that_are_none_are_refused(row, why):
    server = Server({"token_logprobs": [None, -1.0], "top_logprobs": [None, row]})
    with pytest.raises(PolicyError, match=why):
        asyncio.run(RemoteScorer(server, "tiny", 64).likeliest([1, 2], 2))


def test_a_server_that_cannot_is_told_at_the_start(monkeypatch):
    async def found(*_, **options):
        server = Server({"token_logprobs": [-1.0]})
        server.aclose = lambda: asyncio.sleep(0)
        return server, "tiny", 64

    monkeypatch.setattr("verigym.agent.remote_scorer.find_model", found)
    for num_top in (0, 3):
        with pytest.raises(
            ConfigError, match=r"does not tell the log-probabilities of given tokens.*verigym serve or vLLM"
        ):
            asyncio.run(RemoteScorer.connect("http://server", "tiny", num_top=num_top))


class OneToken(ToolEnv):
    family = "one"

    def score(self, task, submission):
        return verdict(True)


class SaysToken:
    def parse(self, text, tools):
        return Message(role="assistant", content=text), text


@torch.no_grad()
def distance(student, teacher, prompts):
    """Mean KL(student || teacher) of what follows."""
    found = []
    for prompt in prompts:
        both = [
            torch.log_softmax(
                one.head(one(torch.tensor(prompt), Documents.from_lengths([len(prompt)])))[-1].double(), -1
            )
            for one in (student, teacher)
        ]
        found.append(float((both[0].exp() * (both[0] - both[1])).sum()))
    return np.mean(found)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_student_nears_a_teacher_behind_a_server(pair, address, words, ahead):
    student, rows = pair[0], []
    config = OPDConfig(teacher="far", num_tasks=2, group_size=12, microbatch_tokens=2048, concurrency=64)
    lesson = Lesson(
        optim=OptimConfig(lr=1e-2), rl=config, teachers={"far": TeacherConfig(policy=f"tokens:x@{address}#tiny")}
    )
    plan = EpisodePlan(make_env=OneToken, budget=Budget(turns=1, tokens=64, seconds=120), turn_tokens=1)

    async def work(engine):
        served = ServedTeachers({"far": await RemoteScorer.connect(address, "tiny")}, lambda _: config)
        common = {
            "config": config, "optim": lesson.optim, "seed": 0, "learning": Learner(student, lesson), "served": served,
            "tasks": TaskStream([Task(id=letter, family="one", prompt=letter) for letter in "adgj"], seed=0),
        }  # fmt: skip
        kind = AsyncRL if ahead else RL
        common |= {"asynchronous": AsyncConfig(max_lag=1)} if ahead else {}
        policy = TokenPolicy(engine, words.renderer(tuple(range(VOCAB))), SaysToken())
        loop = kind(student, engine, policy, lambda task: plan, **common)
        try:
            await loop.run(10, on_step=lambda result: rows.append(result.metrics))
        finally:
            await served.aclose()
        return served

    sampled = student if not ahead else type(student)(student.config, seed=0)
    sampled.load_state_dict(student.state_dict())
    renderer = words.renderer(tuple(range(VOCAB)))
    prompts = [renderer.start([Message(role="user", content=letter)], ()).token_ids for letter in "adgj"]
    before = distance(*pair, prompts)
    with Generator(sampled, max_context=48, max_batch=64, seed=0) as engine:
        served = asyncio.run(work(engine))
    assert len(rows) == 10
    assert distance(*pair, prompts) < 0.85 * before
    assert all(row["trainer/teacher_failures/count"] == 0 for row in rows)
    assert json.dumps(rows[0])
    assert served._asked == {}
