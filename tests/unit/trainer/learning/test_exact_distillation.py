"""Exact divergences inside the step: gradients are those of the definition, whatever hints, teachers and packs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from verigym.model.attention import Documents
from verigym.trainer.batching.documents import Document, Hint
from verigym.trainer.batching.hints import as_read_by
from verigym.trainer.batching.packs import join, pack
from verigym.trainer.learning.experience import experience_of
from verigym.trainer.learning.optim import Optimizer
from verigym.trainer.learning.step import TrainStep
from verigym.trainer.objective.losses import PolicyLoss
from verigym.trainer.objective.objective import divergence_of, loss_of
from verigym.trainer.objective.teacher import Teachers
from verigym.trainer.recipe.algorithms import OPDConfig
from verigym.trainer.recipe.config import OptimConfig
from verigym.trainer.recipe.per_family import FamilyAlgorithm

KINDS = ["forward", "reverse", "jensen_shannon"]


def documents(vocab: int = 16) -> list[Document]:
    """Of two teachers and none, with hints at the first and the last places that there can be, and without."""
    rng = np.random.default_rng(0)
    made = []
    places = [("a", 1), ("a", 0), ("b", 9), ("", 0), ("b", 4)]
    for index, (taught, before) in enumerate(places):
        length = 9 - index % 3
        mask = rng.random(length) < 0.6
        mask[-1] = True
        hint = Hint(token_ids=rng.integers(0, vocab, 5), before=min(before, length)) if before else None
        made.append(
            Document(
                token_ids=rng.integers(0, vocab, length),
                targets=rng.integers(0, vocab, length),
                loss_mask=mask,
                old_logprobs=np.where(mask, -2.7, np.nan).astype(np.float32),
                advantage=float(np.float32(rng.standard_normal())),
                weight=1.0 + index,
                taught=taught,
                hint=hint,
                columns={
                    "teacher_weight": np.full(length, 0.5 + index, np.float32),
                    "contrast": np.full(length, 0.0, np.float32),
                },
            )
        )
    return [replace(one, token_ids=np.concatenate((one.token_ids[:1], one.targets[:-1]))) for one in made]


@pytest.fixture
def trio(make_decoder):
    """A student and two teachers, in float64; one is wider."""
    student = make_decoder(vocab_size=16, max_position_embeddings=64).double()
    teachers = {"a": make_decoder(vocab_size=16, max_position_embeddings=64, hidden_size=40).double()}
    teachers["b"] = make_decoder(vocab_size=16, max_position_embeddings=64).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for teacher in teachers.values():
            for weight in teacher.parameters():
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return student, teachers


def logp_of(decoder, ids: list[int]) -> torch.Tensor:
    hidden = decoder(torch.tensor(ids), Documents.from_lengths([len(ids)]))
    return decoder.logits(hidden).log_softmax(-1)


def by_definition(student, teachers, given, config: OPDConfig) -> torch.Tensor:
    """The step's loss, one token at a time: each teacher reads the tokens before it, with its hint among them."""
    total, count = torch.zeros((), dtype=torch.float64), 0.0
    beta = config.divergence.coefficient
    for one in given:
        tokens = [*one.token_ids.tolist(), int(one.targets[-1])]
        mine = logp_of(student, tokens[:-1])
        for at in np.flatnonzero(one.loss_mask):
            token = tokens[at + 1]
            ratio = (mine[at, token] - float(one.old_logprobs[at])).exp()
            low, high = 1 - config.clip_low, 1 + config.clip_high
            loss = -torch.minimum(ratio * one.advantage, ratio.clamp(low, high) * one.advantage)
            if one.taught:
                seen = tokens[: at + 1]
                if one.hint is not None and one.hint.before <= at + 1:
                    seen = [*seen[: one.hint.before], *one.hint.token_ids.tolist(), *seen[one.hint.before :]]
                p, q = mine[at].exp(), logp_of(teachers[one.taught], seen)[-1].exp().detach()
                m = (1 - beta) * p + beta * q
                kl = {0.0: q * (q / p).log(), 1.0: p * (p / q).log()}.get(beta)
                if kl is None:
                    kl = beta * q * (q / m).log() + (1 - beta) * p * (p / m).log()
                divergence = kl.sum()
                if config.divergence.cap is not None:
                    divergence = divergence.clamp(max=config.divergence.cap)
                loss = loss + float(one.columns["teacher_weight"][at]) * divergence
            total = total + one.weight * loss
            count += one.weight
    return total / count


def a_step(student, teachers, config: OPDConfig) -> TrainStep:
    optimizer = Optimizer(student, OptimConfig())
    return TrainStep(student, optimizer, loss_of(config), teachers=Teachers(teachers, divergence_of(config)))


@pytest.mark.parametrize("cap", [None, 0.2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_the_definitions_in_any_packs(trio, kind, cap):
    student, teachers = trio
    config = OPDConfig(teacher="a", divergence={"kind": kind, "cap": cap})
    given = documents()
    loss = by_definition(student, teachers, given, config)
    loss.backward()
    wanted = {name: weight.grad.clone() for name, weight in student.named_parameters()}
    for size in (15, 1000):
        metrics = a_step(student, teachers, config).accumulate(pack(given, max_tokens=size))
        assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-7)
        assert metrics["divergence"] > 0.05
        for name, weight in student.named_parameters():
            torch.testing.assert_close(weight.grad, wanted[name], rtol=1e-6, atol=1e-8, msg=name)
    assert all(weight.grad is None for one in teachers.values() for weight in one.parameters())


def test_a_teachers_pack_keeps_every_token_and_its_target():
    given = documents()
    whole = join(given)
    trained = sorted(
        (int(token), int(target))
        for one in given
        if one.taught == "b"
        for token, target in zip(one.token_ids[one.loss_mask], one.targets[one.loss_mask], strict=True)
    )
    read = as_read_by("b", whole)
    assert read.num_tokens == sum(len(one) + 5 for one in given if one.taught == "b")
    assert read.targets[read.loss_mask].tolist() == [target for one in given if one.taught == "b"
                                                     for target in one.targets[one.loss_mask]]  # fmt: skip
    assert len(trained) == int(read.loss_mask.sum())
    assert as_read_by("nobody", whole).filler
    plain = join([replace(one, taught="a", hint=None) for one in given])
    assert as_read_by("a", plain) is plain


def episodes(make_segment, make_trajectory):
    made = []
    for group, outcomes in {"g": (True, False, False), "h": (True, True)}.items():
        for passed in outcomes:
            segment = make_segment([1, 5, 2, 3, 4, 6], [0, 0, 0, 1, 1, 1])
            one = make_trajectory(segment, reward=float(passed), group=group)
            made.append(replace(one, passed=passed, family=group))
    return made


def test_rewards_and_teachers_are_mixed_by_family(trio, make_segment, make_trajectory):
    """Family h is not taught; family g takes a third of GRPO and two thirds of its teacher, and a token's share of the
    contrast sums to one episode that passed less the mean of two that did not."""
    config = OPDConfig(teacher="a", divergence={"kind": "reverse"}, reward_weight=1.0)
    g = FamilyAlgorithm(teacher="b", reward_weight=1 / 3, teacher_weight=2 / 3).applied_to(config)
    h = FamilyAlgorithm(teacher_weight=0.0).applied_to(config)
    given = episodes(make_segment, make_trajectory)
    found = experience_of(given, config, config_of=lambda family, task: g if family == "g" else h)
    flat = [one for (one,) in found.documents]
    assert [one.taught for one in flat] == ["b", "b", "b", "", ""]
    mask = flat[0].loss_mask
    assert [float(one.advantage[mask][0]) for one in flat] == pytest.approx([2 / 9, -1 / 9, -1 / 9, 0.0, 0.0])
    assert [float(one.columns["teacher_weight"][mask][0]) for one in flat[:3]] == pytest.approx([2 / 3] * 3)
    total = sum(float(one.weights.sum()) for one in flat)
    shares = [float((one.columns["contrast"] * one.weights).sum()) / total for one in flat]
    assert shares == pytest.approx([1.0, -0.5, -0.5, 0.0, 0.0], abs=1e-6)


def test_the_gain_is_of_episodes_that_passed_over_those_that_did_not(trio, make_segment, make_trajectory):
    student, teachers = trio
    config = OPDConfig(teacher="a", divergence={"kind": "reverse"})
    given = []
    for tokens, passed in (([3, 4, 6], True), ([7, 8, 9], False), ([3, 3, 3], False)):
        one = make_trajectory(make_segment([1, 5, 2, *tokens], [0, 0, 0, 1, 1, 1]), reward=float(passed))
        given.append(replace(one, passed=passed))
    documents_of = experience_of(given, config).documents
    metrics = a_step(student, teachers, config).accumulate(pack([d for (d,) in documents_of], max_tokens=100))

    def likelihood(decoder, tokens):
        logp = logp_of(decoder, [1, 5, 2, *tokens[:-1]])
        return torch.stack([logp[2 + at, token] for at, token in enumerate(tokens)]).mean().item()

    def gain(decoder):
        return likelihood(decoder, [3, 4, 6]) - (likelihood(decoder, [7, 8, 9]) + likelihood(decoder, [3, 3, 3])) / 2

    assert metrics["teacher_gain"] == pytest.approx(gain(teachers["a"]), rel=1e-5)
    assert metrics["teacher_gain_over_student"] == pytest.approx(gain(teachers["a"]) - gain(student), rel=1e-5)


def test_stale_samples_are_corrected_as_elsewhere(trio):
    """A token that the trainer finds four times likelier than the sampler did weighs min(4, cap)."""
    student, teachers = trio
    plain = OPDConfig(teacher="a", divergence={"kind": "reverse"})
    corrected = plain.model_copy(update={"correction": plain.correction.model_copy(update={"kind": "truncate"})})
    assert loss_of(corrected).correction is not None
    assert isinstance(loss_of(corrected), PolicyLoss)
    given = []
    for one in documents():
        anchor = np.where(one.loss_mask, one.old_logprobs + np.log(4.0), 0.0).astype(np.float32)
        given.append(replace(one, advantage=0.0, columns={**one.columns, "anchor_logprobs": anchor}))
    packs = pack(given, max_tokens=100)
    a_step(student, teachers, plain).accumulate(packs)
    wanted = {name: weight.grad.clone() for name, weight in student.named_parameters()}
    a_step(student, teachers, corrected).accumulate(packs)
    for name, weight in student.named_parameters():
        torch.testing.assert_close(weight.grad, 2.0 * wanted[name], rtol=1e-6, atol=1e-9, msg=name)
