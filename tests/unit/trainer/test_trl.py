"""Our losses beside TRL's own code, on the same ragged tokens."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from verigym.trainer.objective.losses import TrainedTokens
from verigym.trainer.objective.objective import loss_of, weighting
from verigym.trainer.recipe import algorithms

MASK = torch.tensor([[1, 1, 0, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]])
PLAIN = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]])  # RLOOTrainer knows no tool mask
LENGTH = 9
# (our settings, TRL's loss_type, and what else TRL is told)
CASES = {
    "grpo": (algorithms.GRPOConfig(aggregation="episode"), "grpo", {"epsilon_high": 0.28}),
    "dapo": (algorithms.DAPOConfig(), "dapo", {"epsilon_high": 0.28}),
    "dapo with an entropy bonus": (algorithms.DAPOConfig(entropy_coef=0.03), "dapo", {"epsilon_high": 0.28}),
    "dr_grpo": (algorithms.DrGRPOConfig(length=LENGTH), "dr_grpo", {"epsilon_high": 0.2}),
    "cispo": (algorithms.CISPOConfig(max_weight=1.1), "cispo", {"epsilon_high": 1.1}),
    "gspo": (
        algorithms.GSPOConfig(clip_low=0.1, clip_high=0.15),
        "grpo",
        {"epsilon_low": 0.1, "epsilon_high": 0.15, "importance_sampling_level": "sequence"},
    ),
    "kl k3": (algorithms.DAPOConfig(kl={"coef": 0.2}), "dapo", {"epsilon_high": 0.28, "beta": 0.2}),
}
CORRECTIONS = {
    "truncated by token": ({"kind": "truncate", "cap": 1.2}, "token_truncate"),
    "masked by token": ({"kind": "mask", "cap": 1.2, "floor": 0.8}, "token_mask"),
    "truncated by sequence": ({"kind": "truncate", "level": "sequence", "cap": 1.2}, "sequence_truncate"),
    "masked by sequence": ({"kind": "mask", "level": "sequence", "cap": 1.5, "floor": 0.5}, "sequence_mask"),
}


def numbers(seed: int) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(seed)

    def near(x, spread):
        return x + spread * torch.randn(3, 5, generator=generator, dtype=torch.float64)

    logprobs = -torch.rand(3, 5, generator=generator, dtype=torch.float64) * 3
    old = near(logprobs, 0.3)
    return SimpleNamespace(
        logprobs=logprobs,
        old=old,
        sampled=near(old, 0.3),
        reference=near(logprobs, 0.5),
        entropy=torch.rand(3, 5, generator=generator, dtype=torch.float64),
        advantages=torch.randn(3, generator=generator, dtype=torch.float64),
    )


def theirs(config, loss_type, told, given, importance=None):
    """(loss, gradient) by GRPOTrainer._compute_loss, driven without a model."""
    logprobs = given.logprobs.clone().requires_grad_()
    settings = {"epsilon_low": 0.2, "importance_sampling_level": "token", "beta": 0.0, **told}
    stub = SimpleNamespace(
        **{"aux_loss_enabled": False, "top_entropy_quantile": 1.0, "off_policy_mask_threshold": None},
        **{"loss_type": loss_type, "use_vllm": importance is not None, "vllm_importance_sampling_correction": True},
        **{"current_gradient_accumulation_steps": 1, "max_completion_length": LENGTH, **settings},
        **{"_entropy_bonus_enabled": bool(config.entropy_coef), "use_adaptive_entropy": False},
        entropy_coef=config.entropy_coef,
        args=SimpleNamespace(delta=None, steps_per_generation=1, use_bias_correction_kl=False),
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(
            num_processes=1, sync_gradients=True, reduce=lambda x, reduction: x, gather=lambda x: x
        ),
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (logprobs, given.entropy, None),
    )
    inputs = {
        **{"prompt_ids": torch.zeros(3, 2).long(), "prompt_mask": torch.ones(3, 2)},
        **{"completion_ids": torch.zeros(3, 5).long(), "completion_mask": torch.ones_like(MASK), "tool_mask": MASK},
        **{"advantages": given.advantages, "old_per_token_logps": given.old, "num_items_in_batch": MASK.sum()},
        **{"ref_per_token_logps": given.reference, "importance_sampling_ratio": importance},
    }
    grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer", reason="trl is the peer")
    loss = grpo_trainer.GRPOTrainer._compute_loss(stub, None, inputs)
    loss.backward()
    return loss.detach(), logprobs.grad


def ours(config, given, mask, *, anchored=False):
    """(loss, gradient): components on the trained tokens, weighted as the step weights them."""
    logprobs = given.logprobs.clone().requires_grad_()
    trained, counts = mask.bool(), mask.sum(1)
    tokens = TrainedTokens(
        old_logprobs=(given.sampled if anchored else given.old)[trained],
        anchor_logprobs=given.old[trained] if anchored else None,
        reference_logprobs=given.reference[trained],
        advantages=given.advantages[:, None].expand(3, 5)[trained],
        lengths=counts,
    )
    components = loss_of(config)(logprobs[trained], given.entropy[trained], tokens).components
    match weighting(config):
        case "token":
            loss = components.mean()
        case "episode":
            loss = (components / counts.repeat_interleave(counts)).sum() / len(counts)
        case "constant":
            loss = components.sum() / (len(counts) * config.length)
    loss.backward()
    return loss.detach(), logprobs.grad


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_losses_equal_trls(name, seed):
    config, loss_type, told = CASES[name]
    given = numbers(seed)
    for found, expected in zip(ours(config, given, MASK), theirs(config, loss_type, told, given), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CORRECTIONS)
def test_corrections_equal_trls(name, seed):
    settings, mode = CORRECTIONS[name]
    given = numbers(seed)
    gap = (given.old - given.sampled) * MASK
    ratio = (gap.sum(-1, keepdim=True) if mode.startswith("sequence") else gap).exp()
    low, high = settings.get("floor", 0.0), settings["cap"]
    # as GRPOTrainer._generate_and_score_completions makes it
    outside = (ratio < low) | (ratio > high)
    importance = ratio.clamp(max=high) if mode.endswith("truncate") else ratio.masked_fill(outside, 0.0)
    config = algorithms.DAPOConfig(correction=settings)
    expected = theirs(config, "dapo", {"epsilon_high": 0.28}, given, importance)
    for found, one in zip(ours(config, given, MASK, anchored=True), expected, strict=True):
        torch.testing.assert_close(found, one, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_rloo_equals_trls(seed):
    given = numbers(seed)
    logprobs = given.logprobs.clone().requires_grad_()
    stub = SimpleNamespace(
        **{"aux_loss_enabled": False, "epsilon_low": 0.2, "epsilon_high": 0.2},
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(reduce=lambda x, reduction: x, gather=lambda x: x),
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (logprobs, given.entropy, None),
    )
    inputs = {
        **{"prompt_ids": torch.zeros(3, 2).long(), "prompt_mask": torch.ones(3, 2)},
        **{"completion_ids": torch.zeros(3, 5).long(), "completion_mask": PLAIN},
        **{"advantages": given.advantages, "old_logps": (given.old * PLAIN).sum(1)},
    }
    rloo_trainer = pytest.importorskip("trl.trainer.rloo_trainer", reason="trl is the peer")
    loss = rloo_trainer.RLOOTrainer._compute_loss(stub, None, inputs)
    loss.backward()
    expected = (loss.detach(), logprobs.grad)
    for found, one in zip(ours(algorithms.RLOOConfig(), given, PLAIN), expected, strict=True):
        torch.testing.assert_close(found, one, rtol=1e-10, atol=1e-12)
