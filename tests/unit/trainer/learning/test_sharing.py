"""What documents share is computed once, and changes neither a log-probability nor a gradient."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.trainer.batching.documents import Document
from verigym.trainer.batching.packs import pack
from verigym.trainer.batching.sharing import shared_pack
from verigym.trainer.learning.scores import score


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
    flat, shared = (pack(documents, max_tokens=1000, share=share) for share in ("off", "on"))
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


def test_auto_is_by_what_is_saved():
    rng = np.random.default_rng(1)
    alike, apart = group(rng), [document(rng.integers(0, 50, 20), 3) for _ in range(4)]
    for documents, chosen in ((alike, True), (apart, False)):
        (one,) = pack(documents, max_tokens=1000)
        assert (shared_pack(one.token_ids, one.lengths, "auto") is not None) is chosen
        assert shared_pack(one.token_ids, one.lengths, "off") is None


@settings(deadline=None)
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
