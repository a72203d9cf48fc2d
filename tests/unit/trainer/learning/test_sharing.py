"""What documents share is computed once, and changes neither a log-probability nor a gradient."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.trainer.batching.documents import Document, Hint
from verigym.trainer.batching.packs import pack
from verigym.trainer.batching.sharing import plan_shared, shared_pack
from verigym.trainer.learning.scores import score
from verigym.trainer.objective.critic import Critic
from verigym.trainer.objective.teacher import Teachers


def document(ids, trained_from):
    ids = np.asarray(ids, np.int64)
    mask = np.arange(len(ids) - 1) >= trained_from
    return Document(token_ids=ids[:-1], targets=ids[1:], loss_mask=mask, old_logprobs=-np.ones(len(mask), np.float32))


@pytest.fixture(scope="module")
def decoder():
    torch.set_num_threads(1)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16}
    return Decoder(preset("cwm-tiny", vocab_size=50, max_position_embeddings=128, sliding_window=4, **sizes), seed=1)


def group(rng, *, prompt=20, own=8, size=6):
    """Episodes of one prompt, one of which goes on from another, and two that are the same."""
    start = rng.integers(0, 50, prompt)
    found = [np.concatenate([start, rng.integers(0, 50, own + k)]) for k in range(size)]
    longer = np.concatenate([found[0], rng.integers(0, 50, 5)])
    return [document(ids, prompt - 1) for ids in [*found, longer, found[1], rng.integers(0, 50, 9)]]


def gradients(decoder, packs):
    decoder.zero_grad()
    found = []
    for one in packs:
        scores = score(decoder, one)
        found.append((scores.index, scores.logprobs.detach(), scores.entropy.detach()))
        (scores.logprobs * one.targets[scores.index].sin()).sum().backward()
    return found, [parameter.grad.clone() for parameter in decoder.parameters()]


def test_gradients_equal_those_of_flat_packs(decoder):
    """Through windows shorter and longer than what is shared."""
    documents = group(np.random.default_rng(0))
    flat = pack(documents, max_tokens=1000)
    shared = [replace(one, share="on") for one in flat]
    found = shared_pack(shared[0].token_ids, shared[0].lengths, "on")
    assert found is not None
    assert found.token_ids.numel() < 0.6 * flat[0].num_tokens
    (ours, mine), (theirs, others) = gradients(decoder, shared), gradients(decoder, flat)
    for one, other in zip(ours, theirs, strict=True):
        for left, right in zip(one, other, strict=True):
            torch.testing.assert_close(left, right, rtol=0, atol=1e-5)
    scale = max(float(grad.abs().max()) for grad in others)
    for left, right in zip(mine, others, strict=True):
        torch.testing.assert_close(left / scale, right / scale, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["head", "shared", "model"])
def test_a_critic_reads_shared_tokens_too(decoder, kind):
    """Values, and the gradients of what it reads, are those of flat packs."""
    critic = Critic(decoder, kind)
    torch.nn.init.normal_(critic.value.weight, generator=torch.Generator().manual_seed(0))
    (flat,) = pack(group(np.random.default_rng(2)), max_tokens=1000)
    trained = [*decoder.parameters(), *(one for one in critic.parameters() if one.requires_grad)]
    found = []
    for batch in (flat, replace(flat, share="on")):
        scores = score(decoder, batch, critic)
        assert scores.values is not None
        loss = (scores.values * batch.targets[scores.index].cos()).sum() + scores.logprobs.mean()
        gradients = torch.autograd.grad(loss, trained, allow_unused=True)
        found.append([scores.values.detach(), *(one for one in gradients if one is not None)])
    assert found[0][0].abs().max() > 0.1
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-5)
    scale = max(float(grad.abs().max()) for grad in found[0][1:])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=2e-6)


@pytest.mark.parametrize("hint", [None, Hint(token_ids=np.arange(5), before=20)], ids=["bare", "hinted"])
def test_a_teacher_reads_shared_tokens_once(decoder, hint):
    """Its hidden states are those of flat packs, also where a hint stands among what is shared."""
    teachers = Teachers({"teacher": decoder}, None)
    documents = [replace(one, taught="teacher", hint=hint) for one in group(np.random.default_rng(4))[:-1]]
    (flat,) = pack(documents, max_tokens=1000)
    read = []
    with decoder.embed.register_forward_hook(lambda module, given, found: read.append(given[0].numel())):
        ((_, apart),) = teachers.states(flat)
        ((_, together),) = teachers.states(replace(flat, share="on"))
    torch.testing.assert_close(together.hidden, apart.hidden, rtol=0, atol=1e-5)
    assert read[1] < 0.6 * read[0]


def test_groups_share_packs():
    """Counted by what is computed: two groups, shuffled, of which neither fits a flat pack, have one pack each."""
    rng = np.random.default_rng(3)
    groups = [[document(ids, 19) for ids in rows] for rows in (grown(rng, 6), grown(rng, 6))]
    documents = [one for pair in zip(*groups, strict=True) for one in pair]
    packs = pack(documents, max_tokens=70, share="auto")
    assert [sorted({*one.token_ids[[0, 26]].tolist()}) for one in packs] == [
        [int(rows[0].token_ids[0])] for rows in sorted(groups, key=lambda rows: rows[0].token_ids[0])
    ]
    assert {one.share for one in packs} == {"on"}
    assert len(pack(documents, max_tokens=70)) == 6
    assert {one.share for one in pack(documents, max_tokens=70)} == {"off"}


def grown(rng, size, prompt=20, own=7):
    start = rng.integers(0, 50, prompt)
    return [np.concatenate([start, rng.integers(0, 50, own)]) for _ in range(size)]


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=9), st.integers(6, 20),
    st.integers(1, 3),
)  # fmt: skip
def test_a_plan_has_every_document_once_and_no_pack_above_its_tokens(sequences, most, ways):
    ids = [np.array(one) for one in sequences]
    plan = plan_shared(ids, "on", max_tokens=most, ways=ways)
    assert plan is not None
    assert sorted(index for members in plan for index in members) == list(range(len(ids)))
    for members in plan:
        computed = {tuple(sequences[index][: end + 1]) for index in members for end in range(len(ids[index]))}
        assert len(computed) <= most
    alone = plan_shared(ids, "on", max_tokens=most)
    assert alone is not None
    assert len(plan) <= -(-len(alone) // ways) * ways


def test_auto_is_by_what_is_saved():
    rng = np.random.default_rng(1)
    alike, apart = group(rng), [document(rng.integers(0, 50, 20), 3) for _ in range(4)]
    for documents, chosen in ((alike, True), (apart, False)):
        (one,) = pack(documents, max_tokens=1000)
        assert (shared_pack(one.token_ids, one.lengths, "auto") is not None) is chosen
        assert shared_pack(one.token_ids, one.lengths, "off") is None


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=2, max_size=6))
def test_each_document_finds_its_own_tokens(sequences):
    """Its path is its ids, its positions count up, and nothing that is shared stands twice."""
    ids = torch.tensor([token for one in sequences for token in one])
    found = shared_pack(ids, [len(one) for one in sequences], "on")
    assert found is not None
    assert found.token_ids[found.places].tolist() == ids.tolist()
    beginnings = {tuple(one[: end + 1]) for one in sequences for end in range(len(one))}
    assert found.token_ids.numel() == len(beginnings)
    for path in found.documents.paths:
        assert found.documents.positions[path].tolist() == list(range(len(path)))
