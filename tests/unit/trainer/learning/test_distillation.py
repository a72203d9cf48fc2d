"""On-policy distillation: its gradient is that of KL(student || teacher), and a student becomes its teacher."""

import asyncio
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy
from verigym.envs.core import ToolEnv
from verigym.envs.task import Task
from verigym.errors import ConfigError, TrainingError
from verigym.model.attention import Documents
from verigym.model.chat.messages import Message
from verigym.model.checkpoint import to_hf_state
from verigym.model.engine.generator import Generator
from verigym.model.families.find import write_config
from verigym.rewards.score import verdict
from verigym.trainer.batching.packs import join
from verigym.trainer.learning.experience import Scorer, experience_of
from verigym.trainer.learning.learner import Learner, Lesson
from verigym.trainer.loops.reinforce import RL
from verigym.trainer.objective.advantages import discounted, group_advantages
from verigym.trainer.objective.losses import TrainedTokens
from verigym.trainer.objective.objective import loss_of
from verigym.trainer.objective.teacher import Teachers, check_teacher, open_teacher
from verigym.trainer.recipe.algorithms import GRPOConfig, OPDConfig
from verigym.trainer.recipe.config import OptimConfig
from verigym.trainer.sampling.rollouts import EpisodePlan, TaskStream

VOCAB = 16
PROMPT = [1, 5, 2]


@pytest.fixture
def pair(make_decoder):
    """A student and a sharper teacher with other weights."""
    student, teacher = (make_decoder(vocab_size=VOCAB, max_position_embeddings=64) for _ in range(2))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in teacher.parameters():
            if weight.dim() > 1:
                weight.copy_(0.4 * torch.randn(weight.shape, generator=generator))
    return student, teacher


def saved(decoder, folder):
    folder.mkdir(exist_ok=True)
    save_file(to_hf_state(decoder), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(write_config(decoder.config)))
    return folder


def distribution(decoder, prompt):
    """[V] log-probabilities of what follows."""
    ids = torch.tensor(prompt)
    hidden = decoder(ids, Documents.from_lengths([len(prompt)]))
    return decoder.logits(hidden)[-1].log_softmax(-1)


def test_the_gradient_is_that_of_the_divergence(pair, make_segment, make_trajectory):
    """Every token is drawn once and weighs its probability: an expectation without noise."""
    student, teacher = pair
    config = OPDConfig(teacher="x")
    logp = distribution(student, PROMPT)
    drawn = [
        make_trajectory(make_segment([*PROMPT, token], [0, 0, 0, 1], [float("nan")] * 3 + [logp[token].item()]))
        for token in range(VOCAB)
    ]
    scorer = Scorer(student, config, teachers=Teachers({"x": teacher}, None))
    found = experience_of(drawn, config, scorer)
    documents = [one for (one,) in found.documents]
    batch = join(documents)
    columns = {"old_logprobs": batch.old_logprobs[batch.loss_mask], "advantages": batch.advantages[batch.loss_mask]}
    index = batch.loss_mask.nonzero().squeeze(1)
    again, entropy = student.score(
        batch.token_ids, Documents.from_lengths(batch.lengths), batch.targets[index], index=index
    )
    loss = loss_of(config)(again, entropy, TrainedTokens(**columns)).components
    (loss * logp.exp().detach()).sum().backward()
    mine = {name: weight.grad.clone() for name, weight in student.named_parameters()}
    student.zero_grad()
    logp = distribution(student, PROMPT)
    divergence = (logp.exp() * (logp - distribution(teacher, PROMPT).detach())).sum()
    divergence.backward()
    for name, weight in student.named_parameters():
        torch.testing.assert_close(mine[name], weight.grad, atol=1e-6, rtol=1e-5, msg=name)
    # the logged estimate is the mean over what was drawn, here every token once
    gap = (distribution(student, PROMPT) - distribution(teacher, PROMPT)).mean()
    assert found.metrics["trainer/teacher_kl/mean"] == pytest.approx(float(gap), abs=1e-5)


class OneToken(ToolEnv):
    """Whatever is said is right: there is nothing to learn from rewards."""

    family = "one"

    def score(self, task, submission):
        return verdict(True)


class SaysToken:
    def parse(self, text, tools):
        return Message(role="assistant", content=text), text


def distil(student, folder, words, *, steps, **settings):
    tasks = [Task(id=letter, family="one", prompt=letter) for letter in "adgj"]
    config = OPDConfig(teacher=folder, num_tasks=4, group_size=16, microbatch_tokens=2048, concurrency=256, **settings)
    plan = EpisodePlan(make_env=OneToken, budget=Budget(turns=1, tokens=64, seconds=120), turn_tokens=1)
    with Generator(student, max_context=48, max_batch=256, seed=0) as engine:
        loop = RL(
            student,
            engine,
            TokenPolicy(engine, words.renderer(tuple(range(VOCAB))), SaysToken()),
            lambda task: plan,
            config=config,
            optim=OptimConfig(lr=1e-2),
            tasks=TaskStream(tasks, seed=0),
            seed=0,
        )
        rows = []
        asyncio.run(loop.run(steps, on_step=lambda result: rows.append(result.metrics)))
    return rows


def test_a_student_becomes_its_teacher_without_a_reward(pair, words, tmp_path):
    student, teacher = pair
    rows = distil(student, saved(teacher, tmp_path / "teacher"), words, steps=30)
    first = np.mean([row["trainer/teacher_kl/mean"] for row in rows[:3]])
    last = np.mean([row["trainer/teacher_kl/mean"] for row in rows[-5:]])
    assert first > 0.5
    assert last < 0.1 * first
    assert all(row["rollout/reward/mean"] == 1.0 for row in rows)


def test_rewards_may_be_learned_beside_the_teacher(make_segment, make_trajectory, pair):
    student, teacher = pair
    given = [
        make_trajectory(make_segment([*PROMPT, 3, 4], [0, 0, 0, 1, 1]), reward=reward, group="g")
        for reward in (0.0, 1.0, 1.0, 1.0)
    ]
    plain, teachers = OPDConfig(teacher="x"), Teachers({"x": teacher}, None)
    alone = experience_of(given, plain, Scorer(student, plain, teachers=teachers))
    both = OPDConfig(teacher="x", reward_weight=2.0)
    mixed = experience_of(given, both, Scorer(student, both, teachers=Teachers({"x": teacher}, None)))
    expected = [2.0 * value for value in group_advantages(given).values]
    for (one,), (other,), more in zip(alone.documents, mixed.documents, expected, strict=True):
        mask = one.loss_mask
        np.testing.assert_allclose(other.advantage[mask] - one.advantage[mask], more, atol=1e-6)


def test_later_tokens_and_the_bound(make_segment, make_trajectory, pair):
    student, teacher = pair
    given = [make_trajectory(make_segment([*PROMPT, 3, 4, 6], [0, 0, 0, 1, 1, 1], [float("nan")] * 3 + [-9, -0.1, -3]))]

    def advantages(**settings):
        config = OPDConfig(teacher="x", **settings)
        scorer = Scorer(student, config, teachers=Teachers({"x": teacher}, None))
        ((one,),) = experience_of(given, config, scorer).documents
        return one.advantage[one.loss_mask]

    own = advantages()
    np.testing.assert_allclose(advantages(discount=0.5)[1], own[1] + 0.5 * own[2], rtol=1e-5)
    np.testing.assert_allclose(advantages(discount=1.0)[0], own.sum(), rtol=1e-5)
    assert np.abs(own).max() > 1.0
    assert np.abs(advantages(max_gap=1.0)).max() == 1.0
    np.testing.assert_array_equal(discounted(np.array([1.0, 2.0]), 0.0), [1.0, 2.0])


def test_max_rl_divides_by_the_mean(make_segment, make_trajectory):
    given = [make_trajectory(make_segment([1, 2], [0, 1]), reward=r, group=g) for g, r in
             [("a", 1.0), ("a", 0.0), ("a", 0.0), ("a", 0.0), ("b", 0.0), ("b", 0.0)]]  # fmt: skip
    assert group_advantages(given, scale="mean").values == pytest.approx((3.0, -1.0, -1.0, -1.0, 0.0, 0.0))
    bad = [make_trajectory(make_segment([1, 2], [0, 1]), reward=r, group="a") for r in (-1.0, 1.0)]
    with pytest.raises(TrainingError, match="shift the rewards"):
        group_advantages(bad, scale="mean")


class Words:
    def __init__(self, **tokens):
        self.tokens = tokens

    def get_vocab(self):
        return self.tokens


def test_another_tokenizer_or_too_few_ids_are_refused(pair, make_decoder, tmp_path):
    student, _ = pair
    check_teacher(tmp_path, Words(a=0, b=1), lambda path: Words(b=1, a=0))
    with pytest.raises(ConfigError, match=r"differ in the id 1 \('b'\)"):
        check_teacher(tmp_path, Words(a=0, b=1), lambda path: Words(a=0, c=1))
    folder = saved(make_decoder(vocab_size=VOCAB - 1, max_position_embeddings=64), tmp_path / "small")
    with pytest.raises(ConfigError, match="knows 15 ids, fewer than the 16"):
        open_teacher(folder, student)


def test_a_larger_teacher_is_read_up_to_the_students_ids_and_does_not_learn(pair, make_decoder, tmp_path):
    student, _ = pair
    large = make_decoder(
        vocab_size=VOCAB + 9, max_position_embeddings=64, num_layers=1, layer_types=("full_attention",)
    )
    folder = saved(large, tmp_path / "large")
    learner = Learner(student, Lesson(optim=OptimConfig(), rl=OPDConfig(teacher=folder)))
    assert learner.teachers.models[str(folder)].head_matrix().shape[0] == VOCAB
    assert not any(weight.requires_grad for weight in learner.teachers.models[str(folder)].parameters())
    assert "teacher" not in learner.state_dict()
    assert Learner(student, Lesson(optim=OptimConfig(), rl=GRPOConfig())).teachers is None
