"""Observations learned beside a policy's loss: by role, over a count of their own, and never at the policy's cost."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from verigym.model.attention import Documents
from verigym.trainer.batching.packs import join, pack
from verigym.trainer.learning.experience import experience_of
from verigym.trainer.learning.optim import Optimizer
from verigym.trainer.learning.step import TrainStep
from verigym.trainer.objective.losses import echo_loss
from verigym.trainer.objective.objective import loss_of
from verigym.trainer.recipe.algorithms import GRPOConfig
from verigym.trainer.recipe.config import OptimConfig

IDS = [1, 5, 6, 2, 9, 7, 0, 2, 11, 12, 0]
MASK = [0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0]
ROLES = [
    "template",
    "user",
    "user",
    "template",
    "assistant",
    "assistant",
    "tool",
    "tool",
    "assistant",
    "assistant",
    "tool",
]


@pytest.fixture
def episodes(make_trajectory, make_segment):
    """A group of three, of other lengths and rewards."""

    def one(reward, shift, end):
        segment = make_segment([(token + shift) % 16 for token in IDS][:end], MASK[:end])
        return make_trajectory(replace(segment, roles=tuple(ROLES[:end])), reward=reward)

    return [one(1.0, 0, 11), one(0.0, 3, 10), one(0.5, 6, 6)]


def config_of(**changes):
    return GRPOConfig(group_size=3, microbatch_tokens=64, **changes)


def gradients(decoder, episodes, config, max_tokens=64):
    documents = [one for docs in experience_of(episodes, config).documents for one in docs]
    for parameter in decoder.parameters():
        parameter.grad = None
    packs = pack(documents, max_tokens=max_tokens, temperature=config.temperature)
    metrics = TrainStep(decoder, Optimizer(decoder, OptimConfig()), loss_of(config)).accumulate(packs)
    return metrics, [parameter.grad.clone() for parameter in decoder.parameters()]


def reference(decoder, episodes, weights):
    """Cross-entropy of the observed tokens, each document by itself, at temperature 1."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for episode in episodes:
        (segment,) = episode.segments
        learned = [at for at, role in enumerate(segment.roles) if segment.loss_mask[at] or role in weights]
        end = max(learned) + 1
        ids = torch.tensor(segment.token_ids[:end])
        logits = decoder.logits(decoder(ids[:-1], Documents.from_lengths([end - 1])))
        logprobs = logits.double().log_softmax(-1)
        for at in range(1, end):
            weight = 0.0 if segment.loss_mask[at] else weights.get(segment.roles[at], 0.0)
            if weight:
                total = total - weight * logprobs[at - 1, ids[at]]
                count += 1
    return total / count


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("max_tokens", [64, 10])
def test_the_gradient_is_the_policys_plus_the_cross_entropys_in_float64(
    make_decoder, episodes, temperature, max_tokens
):
    weights = {"tool": 0.5, "template": 0.25}  # 8 tokens, where 10 are sampled
    decoder = make_decoder(vocab_size=16).double()
    plain = config_of(temperature=temperature)
    _, policy = gradients(decoder, episodes, plain, max_tokens)
    metrics, both = gradients(decoder, episodes, config_of(temperature=temperature, echo=weights), max_tokens)
    loss = reference(decoder, episodes, weights)
    expected = torch.autograd.grad(loss, list(decoder.parameters()), allow_unused=True)
    for mine, alone, added in zip(both, policy, expected, strict=True):
        torch.testing.assert_close(mine, alone + (0 if added is None else added), atol=1e-9, rtol=1e-7)
    assert metrics["echo_loss"] == pytest.approx(float(loss.detach()), rel=1e-5)


def test_without_a_weight_nothing_changes_to_the_bit(make_decoder, episodes):
    decoder = make_decoder(vocab_size=16)
    found, plain = (gradients(decoder, episodes, config) for config in (config_of(echo={"system": 0.5}), config_of()))
    for one, other in zip(found[1], plain[1], strict=True):
        assert torch.equal(one, other)
    assert "echo_loss" not in plain[0]


def test_only_the_roles_asked_for_are_learned_and_never_what_was_sampled(episodes):
    found = experience_of(episodes, config_of(echo={"tool": 0.5, "template": 0.1}))
    (document,) = found.documents[0]
    # Targets 1 to 10: the answer to the last sampled token is learned like any other.
    np.testing.assert_array_equal(document.columns["echo"], np.float32([0, 0, 0.1, 0, 0, 0.5, 0.5, 0, 0, 0.5]))
    batch = join([document])
    assert int(batch.scored.sum()) == 4 + 4
    assert not (batch.loss_mask & (batch.columns["echo"] > 0)).any()


def test_the_count_is_its_own():
    logprobs = torch.tensor([-1.0, -2.0])
    assert float(echo_loss(logprobs, torch.tensor([0.5, 1.0]), 4)) == pytest.approx(2.5 / 4)


def test_a_weight_of_nothing_and_the_assistants_role_are_refused():
    with pytest.raises(ValueError, match="leave that role out"):
        config_of(echo={"tool": 0.0})
    with pytest.raises(ValueError, match="assistant"):
        config_of(echo={"assistant": 1.0})


def test_without_a_weight_what_follows_the_last_sampled_token_is_cut(episodes):
    (document,) = experience_of(episodes, config_of(echo={"user": 0.5})).documents[0]
    assert len(document) == 9
