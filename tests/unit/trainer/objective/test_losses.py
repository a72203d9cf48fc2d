import math

import pytest
import torch

from verigym.trainer.objective.losses import (
    Correction,
    PolicyLoss,
    TrainedTokens,
    sft_loss,
)
from verigym.trainer.objective.objective import loss_of
from verigym.trainer.objective.surrogates import (
    binary_divergence,
    clipped_surrogate,
    masked_surrogate,
    weighted_log_likelihood,
)
from verigym.trainer.recipe.algorithms import ALGORITHMS, RLConfig


def tokens(shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logprobs = -torch.rand(shape, generator=generator, dtype=dtype) * 3
    old = logprobs + 0.4 * torch.randn(shape, generator=generator, dtype=dtype)
    advantages = torch.randn(shape, generator=generator, dtype=dtype)
    return logprobs.requires_grad_(), old, advantages


def test_worked_by_hand():
    ratio = torch.tensor([1.0, 1.5, 1.5, 0.5, 0.5])
    advantages = torch.tensor([2.0, 1.0, -1.0, 1.0, -1.0])
    logprobs = ratio.log().requires_grad_()
    loss = PolicyLoss(clip_low=0.2, clip_high=0.28)(
        logprobs, torch.zeros(5), TrainedTokens(old_logprobs=torch.zeros(5), advantages=advantages)
    )
    torch.testing.assert_close(loss.components, torch.tensor([-2.0, -1.28, 1.5, -0.5, 0.8]))
    loss.components.sum().backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([-2.0, 0.0, 1.5, -0.5, 0.0]))
    assert loss.metrics["clipfrac"].tolist() == [0, 1, 0, 0, 1]
    kl = [r - 1 - math.log(r) for r in ratio.tolist()]
    torch.testing.assert_close(loss.metrics["approx_kl"], torch.tensor(kl))


def test_a_weight_of_cispo_is_cut_and_has_no_gradient():
    ratio = torch.tensor([1.0, 3.0, 3.0, 0.5])
    advantages, old = torch.tensor([2.0, 1.0, -1.0, 1.0]), torch.full((4,), -2.0)
    logprobs = (old + ratio.log()).requires_grad_()
    loss = weighted_log_likelihood(logprobs, logprobs - old, advantages, max_weight=2.0)
    weights = torch.tensor([1.0, 2.0, 2.0, 0.5])
    torch.testing.assert_close(loss.components, -weights * advantages * logprobs)
    loss.components.sum().backward()
    torch.testing.assert_close(logprobs.grad, -weights * advantages)
    assert loss.metrics["clipfrac"].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize(("old", "kept"), [(0.9, [1, 0, 1, 1, 0, 1]), (0.001, [1, 1, 1, 1, 1, 1])])
def test_dppo_masks_what_moved_far_the_way_it_is_pushed(old, kept):
    """A likely token that loses half is held; a rare one may double and halve, whatever a clip of its ratio said."""
    ratio = torch.tensor([1.0, 0.5, 0.5, 1.1, 1.1, 0.9], dtype=torch.float64)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    before = torch.full((6,), math.log(old), dtype=torch.float64)
    logprobs = (before + ratio.log()).requires_grad_()
    loss = masked_surrogate(logprobs, before, advantages, kind="tv", low=0.095, high=0.085, max_ratio=20.0)
    expected = -ratio * advantages * torch.tensor(kept, dtype=torch.float64)
    torch.testing.assert_close(loss.components, expected)
    loss.components.sum().backward()
    torch.testing.assert_close(logprobs.grad, expected)
    assert loss.metrics["clipfrac"].tolist() == [1 - one for one in kept]
    torch.testing.assert_close(loss.metrics["sampler_divergence"], (old * (ratio - 1)).abs())


def test_binary_divergences_are_those_of_two_outcomes():
    new, old = torch.tensor([0.2, 0.5, 0.999, 1e-6, 1.0]), torch.tensor([0.7, 0.5, 0.1, 0.3, 1.0])
    two, before = torch.stack([new, 1 - new]).double(), torch.stack([old, 1 - old]).double()
    variation = (two - before).abs().sum(0) / 2
    divergence = torch.special.xlogy(before, before / two).nan_to_num().sum(0)
    for kind, expected in (("tv", variation), ("kl", divergence)):
        found = binary_divergence(two[0].log(), before[0].log(), kind)
        torch.testing.assert_close(found, expected)
    certain = binary_divergence(torch.tensor([0.0]), torch.tensor([-1.0]), "kl")  # the others have no probability left
    assert torch.isfinite(certain).all()
    assert certain > 10


@pytest.mark.parametrize(("kind", "kept"), [("truncate", [0.5, 1.0, 1.4, 1.4]), ("mask", [0.0, 1.0, 1.4, 0.0])])
def test_weights_of_a_correction_are_cut_or_masked(kind, kept):
    weights = torch.tensor([0.5, 1.0, 1.4, 3.0], dtype=torch.float64)
    anchor = torch.full((4,), -1.0, dtype=torch.float64)
    given = TrainedTokens(old_logprobs=anchor - weights.log(), advantages=anchor, anchor_logprobs=anchor)
    found = Correction(kind=kind, level="token", cap=1.4 + 1e-9, floor=0.6).weights(given)
    torch.testing.assert_close(found, torch.tensor(kept, dtype=torch.float64))


def test_gradient_is_that_of_finite_differences():
    logprobs, old, advantages = tokens((12,), seed=1)

    def total(x):
        return clipped_surrogate(x - old, advantages, clip_low=0.2, clip_high=0.28).components.sum()

    assert torch.autograd.gradcheck(total, (logprobs,))


def test_equal_policies_have_ratio_one_and_the_plain_policy_gradient():
    logprobs, _, advantages = tokens((7,), seed=2)
    loss = PolicyLoss()(logprobs, torch.zeros(7), TrainedTokens(old_logprobs=logprobs.detach(), advantages=advantages))
    loss.components.sum().backward()
    torch.testing.assert_close(logprobs.grad, -advantages)
    assert loss.metrics["ratio"].tolist() == [1.0] * 7
    assert loss.metrics["approx_kl"].abs().max() == 0


def test_an_absurd_ratio_stays_finite():
    logprobs = torch.tensor([-1.0, -1.0, -900.0], requires_grad=True)
    old, advantages = torch.tensor([-900.0, -900.0, -1.0]), torch.tensor([0.0, 1.0, 1.0])
    loss = PolicyLoss()(logprobs, torch.zeros(3), TrainedTokens(old_logprobs=old, advantages=advantages))
    loss.components.sum().backward()
    assert loss.components.isfinite().all()
    assert logprobs.grad is not None
    assert logprobs.grad.isfinite().all()


def test_imitation_is_cross_entropy():
    logits = torch.randn(6, 11, dtype=torch.float64)
    targets = torch.randint(0, 11, (6,))
    logprobs = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    none = TrainedTokens(old_logprobs=torch.full((6,), math.nan), advantages=torch.zeros(6))
    loss = sft_loss(logprobs, torch.zeros(6), none)
    torch.testing.assert_close(loss.components.mean(), torch.nn.functional.cross_entropy(logits, targets))


def by_definition(config: RLConfig, lp, entropy, tokens: TrainedTokens, values):
    """The loss of each token, from plain numbers and the papers' formulas; [N] of Python floats and tensors."""
    out, start = [], 0
    for count in tokens.lengths.tolist():
        span = range(start, start + count)
        start += count
        for t in span:
            a, old = tokens.advantages[t], tokens.old_logprobs
            anchor = tokens.anchor_logprobs
            ratios = [(lp[i] - anchor[i]).exp() for i in span]
            ratio = ratios[t - span.start]
            if config.algorithm == "gspo":
                ratio = math.prod(ratios) ** (1 / count)
            elif config.algorithm == "rloo":
                ratio = math.prod(ratios)
            if config.algorithm == "dppo":
                ratio = (lp[t] - old[t]).exp()
                moved = float(abs(lp[t].exp() - old[t].exp()).detach())
                away = moved > (config.clip_high if a > 0 else config.clip_low) and (ratio > 1) == (a > 0)
                loss = -(0.0 if away else ratio) * a
            elif config.algorithm == "cispo":
                loss = -min(float(ratio.detach()), config.max_weight) * a * lp[t]
            else:
                low, high = 1 - config.clip_low, 1 + config.clip_high
                loss = -torch.minimum(ratio * a, torch.clip(ratio, low, high) * a)
            drift = [float((anchor[i] - old[i]).exp()) for i in span]
            if config.correction.kind == "none":
                drift = [1.0 for _ in span]
            weight = math.prod(drift) if config.correction.level == "sequence" else drift[t - span.start]
            if config.correction.kind == "truncate":
                weight = min(weight, config.correction.cap)
            elif not config.correction.floor <= weight <= config.correction.cap:
                weight = 0.0
            loss = weight * loss
            gap = lp[t] - tokens.reference_logprobs[t]
            kl = gap**2 / 2 if config.kl.estimator == "k2" else (-gap).exp() - 1 + gap
            loss = loss + config.kl.coef * kl - config.entropy_coef * entropy[t]
            if config.algorithm == "ppo":
                v, before, target = values[t], tokens.old_values[t], tokens.returns[t]
                near = torch.clip(v, before - config.critic.clip, before + config.critic.clip)
                loss = loss + config.critic.coef * torch.maximum((v - target) ** 2, (near - target) ** 2) / 2
            out.append(loss)
    return torch.stack(out)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize(("kind", "estimator"), [("truncate", "k2"), ("mask", "k3")])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_equals_its_formula(name, kind, estimator, level):
    correction = {"kind": kind, "level": level, "cap": 1.4, **({"floor": 0.6} if kind == "mask" else {})}
    config = ALGORITHMS[name](
        **({"teacher": "there"} if name == "opd" else {}),
        entropy_coef=0.01,
        kl={"coef": 0.3, "estimator": estimator},
        **({"correction": correction} if name != "dppo" else {"clip_low": 0.01, "clip_high": 0.02}),
    )
    generator = torch.Generator().manual_seed(3)

    def numbers():
        return torch.randn(12, generator=generator, dtype=torch.float64)

    anchor = -1 - numbers().abs()
    tokens = TrainedTokens(
        old_logprobs=anchor + 0.6 * numbers(),  # some weights beyond the cap and below the floor
        advantages=numbers(),
        lengths=torch.tensor([5, 1, 6]),
        anchor_logprobs=anchor,
        reference_logprobs=anchor + 0.3 * numbers(),
        old_values=numbers(),
        returns=numbers(),
    )
    lp, entropy, values = anchor + 0.2 * numbers(), numbers().abs(), tokens.old_values + 0.3 * numbers()
    gradients = []
    for function in (loss_of(config), None):
        given = [x.clone().requires_grad_() for x in (lp, entropy, values)]
        if function is not None:
            found = function(given[0], given[1], tokens, given[2] if name == "ppo" else None).components
        else:
            found = by_definition(config, *given[:2], tokens, given[2])
        found.sum().backward()
        gradients.append([found.detach(), *(x.grad if x.grad is not None else torch.zeros(12) for x in given)])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12, check_dtype=False)
