import math
import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist

from verigym.trainer.batching.documents import Document
from verigym.trainer.batching.packs import join, pack
from verigym.trainer.learning.optim import Optimizer
from verigym.trainer.learning.step import TrainStep, loss_sums, mean_loss
from verigym.trainer.objective.critic import Critic
from verigym.trainer.objective.losses import Correction, PolicyLoss, sft_loss
from verigym.trainer.recipe.config import OptimConfig

LOSS = PolicyLoss(clip_low=0.2, clip_high=0.28, entropy_coef=0.01)
WHOLE = PolicyLoss(
    ratio="sequence_product",
    kl_coef=0.1,
    value_coef=0.5,
    value_clip=0.2,
    correction=Correction(kind="truncate", level="sequence", cap=1.5),
)


def ragged_documents() -> list[Document]:
    """Eight documents of ragged lengths and weights; the fourth is fully masked."""
    rng = np.random.default_rng(0)
    documents = []
    for index, length in enumerate([17, 3, 9, 6, 1, 12, 5, 8]):
        mask = rng.random(length) < 0.6
        mask[-1] = True
        if index == 3:
            mask[:] = False
        documents.append(
            Document(
                token_ids=rng.integers(0, 300, length),
                targets=rng.integers(0, 300, length),
                loss_mask=mask,
                old_logprobs=np.where(mask, -5.7 + 0.3 * rng.standard_normal(length), np.nan).astype(np.float32),
                advantage=float(rng.standard_normal()),
                weight=float(1 / (1 + index)),
            )
        )
    return documents


def annotated_documents() -> list[Document]:
    rng = np.random.default_rng(1)
    names = ("anchor_logprobs", "reference_logprobs", "old_values", "returns")
    return [
        replace(one, columns={name: (-5.7 + 0.1 * rng.standard_normal(len(one))).astype(np.float32) for name in names})
        for one in ragged_documents()
    ]


@pytest.mark.parametrize("kind", ["head", "shared", "model"])
def test_whole_sequences_and_a_critic_do_not_depend_on_packing_either(make_decoder, kind):
    decoder = make_decoder().double()
    critic = Critic(decoder, kind)
    torch.nn.init.normal_(critic.value.weight, generator=torch.Generator().manual_seed(0))
    optimizers = [Optimizer(decoder, OptimConfig()), Optimizer(critic, OptimConfig())]
    step = TrainStep(decoder, optimizers[0], WHOLE, critic=critic, critic_optimizer=optimizers[1])
    found = []
    for count, packing in ((1, True), (2, True), (4, False)):
        metrics = step.accumulate(in_microbatches(annotated_documents(), count, packing))
        parameters = [parameter for optimizer in optimizers for parameter in optimizer.parameters]
        assert all(parameter.grad is not None for parameter in parameters)
        found.append((torch.cat([parameter.grad.reshape(-1) for parameter in parameters]), metrics))
    for gradient, metrics in found[1:]:
        torch.testing.assert_close(gradient, found[0][0], rtol=1e-6, atol=1e-9)
        assert metrics == pytest.approx(found[0][1], rel=1e-6)


def test_only_a_shared_critic_moves_the_policy(make_decoder):
    """A value's error is no reason to speak otherwise: what its loss does to shared layers can undo a policy."""
    found = {}
    for kind in ("none", "head", "shared", "model"):
        decoder = make_decoder().double()
        critic = None if kind == "none" else Critic(decoder, kind)
        if critic is not None:
            torch.nn.init.normal_(critic.value.weight, generator=torch.Generator().manual_seed(0))
        loss = WHOLE if critic is not None else replace(WHOLE, value_coef=0.0)
        optimizers = [Optimizer(one, OptimConfig()) for one in (decoder, critic) if one is not None]
        critics = {} if critic is None else {"critic": critic, "critic_optimizer": optimizers[1]}
        TrainStep(decoder, optimizers[0], loss, **critics).accumulate([join(annotated_documents())])
        found[kind] = torch.cat([parameter.grad.reshape(-1) for parameter in decoder.parameters()])
    assert torch.equal(found["head"], found["none"])
    assert torch.equal(found["model"], found["none"])
    assert (found["shared"] - found["none"]).abs().max() > 1e-3 * found["none"].abs().max()


def test_a_divisor_takes_the_place_of_the_sum_of_weights(make_decoder):
    decoder, packs = make_decoder().double(), [join(ragged_documents())]
    plain = gradient(decoder, packs).clone()
    TrainStep(decoder, Optimizer(decoder, OptimConfig()), LOSS).accumulate(packs, divisor=10.0)
    other = torch.cat([parameter.grad.reshape(-1) for parameter in decoder.parameters()])
    torch.testing.assert_close(other * 10.0, plain * float(packs[0].weights.double().sum()), rtol=1e-4, atol=1e-8)


def gradient(decoder, packs) -> torch.Tensor:
    step = TrainStep(decoder, Optimizer(decoder, OptimConfig()), LOSS)
    step.accumulate(packs)
    return torch.cat([parameter.grad.reshape(-1) for parameter in decoder.parameters()])


def in_microbatches(documents, count, packing):
    parts = [documents[start::count] for start in range(count)]
    return [join(part) for part in parts] if packing else [join([one]) for part in parts for one in part]


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_gradient_does_not_depend_on_microbatches_or_packing(make_decoder, count, packing):
    decoder = make_decoder().double()
    documents = ragged_documents()
    expected = by_hand(decoder, documents)
    found = gradient(decoder, in_microbatches(documents, count, packing))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def by_hand(decoder, documents) -> torch.Tensor:
    """The definition: each document alone, full logits, a Python sum over tokens, one division at the end."""
    from verigym.model.attention import Documents

    total, weight = torch.zeros((), dtype=torch.float64), 0.0
    for one in documents:
        ids = torch.from_numpy(one.token_ids)
        logits = decoder.logits(decoder(ids, Documents.from_lengths([len(one)])))
        logp = logits.log_softmax(-1)
        for t in np.flatnonzero(one.loss_mask):
            lp = logp[t, one.targets[t]]
            ratio = (lp - float(one.old_logprobs[t])).exp()
            surrogate = torch.minimum(ratio * one.advantage, ratio.clamp(0.8, 1.28) * one.advantage)
            entropy = -(logp[t].exp() * logp[t]).sum()
            total = total - one.weight * (surrogate + 0.01 * entropy)
            weight += one.weight
    decoder.zero_grad()
    (total / weight).backward()
    return torch.cat([parameter.grad.reshape(-1) for parameter in decoder.parameters()])


def test_the_loss_is_a_scalar_worked_by_hand(make_decoder):
    decoder = make_decoder(vocab_size=4)
    with torch.no_grad():
        decoder.head.weight.zero_()  # uniform over 4 tokens: every log-probability is -log 4
    old = math.log(0.25 / 1.5)  # ratio 1.5
    documents = [
        Document(
            token_ids=np.asarray([0, 1, 2]),
            targets=np.asarray([1, 2, 3]),
            loss_mask=np.asarray([False, True, True]),
            old_logprobs=np.asarray([np.nan, old, old], dtype=np.float32),
            advantage=1.0,
        ),
        Document(
            token_ids=np.asarray([3]),
            targets=np.asarray([0]),
            loss_mask=np.asarray([True]),
            old_logprobs=np.asarray([old], dtype=np.float32),
            advantage=-2.0,
        ),
    ]
    loss = PolicyLoss(clip_low=0.2, clip_high=0.28)
    for packs in ([join(documents)], [join([one]) for one in documents]):
        metrics = TrainStep(decoder, Optimizer(decoder, OptimConfig()), loss).accumulate(packs)
        # two tokens clipped at 1.28 (-1.28 each), one not clipped from above (1.5 * 2 = 3), over 3 tokens
        assert metrics["loss"] == pytest.approx((-1.28 - 1.28 + 3.0) / 3, rel=1e-6)
        assert metrics["ratio"] == pytest.approx(1.5, rel=1e-6)
        assert metrics["clipfrac"] == pytest.approx(2 / 3, rel=1e-6)
        assert metrics["logprob_gap/max"] == pytest.approx(math.log(1.5), rel=1e-5)
        assert (metrics["tokens"], metrics["trained_tokens"]) == (4, 3)


def test_a_step_without_a_trained_token_is_refused_and_changes_nothing(make_decoder):
    decoder = make_decoder()
    before = decoder.head.weight.clone()
    step = TrainStep(decoder, Optimizer(decoder, OptimConfig()), LOSS)
    for packs in ([], [join(ragged_documents()[3:4])]):
        with pytest.raises(ValueError, match="no trained token"):
            step(packs)
    assert torch.equal(decoder.head.weight, before)


def test_held_out_loss_does_not_depend_on_packing_and_makes_no_gradient(make_decoder):
    decoder = make_decoder()
    documents = ragged_documents()
    alone = mean_loss(decoder, [join([one]) for one in documents], sft_loss)
    assert mean_loss(decoder, pack(documents, max_tokens=20), sft_loss) == pytest.approx(alone, rel=1e-6)
    graphs = []
    loss_sums(decoder, [join(documents[:1])], lambda *a: graphs.append(torch.is_grad_enabled()) or sft_loss(*a))
    assert graphs == [False]
    assert all(parameter.grad is None for parameter in decoder.parameters())


def gradients_of_rank(rank: int, decoder, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    documents = ragged_documents()
    results = []
    for mine in (documents[rank::2], documents if rank == 0 else []):  # the second time rank 1 has nothing
        for count in (1, 2, 4):
            for packing in (True, False):
                packs = in_microbatches(mine, count, packing) if mine else []
                metrics = TrainStep(decoder, Optimizer(decoder, OptimConfig()), LOSS).accumulate(packs)
                results.append((torch.cat([p.grad.reshape(-1) for p in decoder.parameters()]), metrics))
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_gradient_does_not_depend_on_the_ranks(make_decoder, tmp_path):
    decoder = make_decoder().double()
    whole = TrainStep(decoder, Optimizer(decoder, OptimConfig()), LOSS).accumulate([join(ragged_documents())])
    expected = torch.cat([parameter.grad.reshape(-1) for parameter in decoder.parameters()])
    # Forked, because importing torch anew in two processes takes longer than all the rest.
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=gradients_of_rank, args=(rank, decoder, str(tmp_path))) for rank in range(2)]
    for one in ranks:
        one.start()
    try:
        for one in ranks:
            one.join(timeout=60)
        assert [one.exitcode for one in ranks] == [0, 0]
    finally:
        for one in ranks:
            one.kill()
    for rank in range(2):
        for found, metrics in torch.load(tmp_path / f"rank{rank}.pt"):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
            assert metrics == pytest.approx(whole, rel=1e-6)
