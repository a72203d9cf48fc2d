"""On CUDA the training step and the generator run these kernels without being told. The choice is tested here, the
launches by Triton's interpreter; tests/gpu does it on a GPU."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch

from verigym.model.attention import Documents
from verigym.model.attention_documents import SharedDocuments
from verigym.model.chat.sampling import CompletionPart, Sampling
from verigym.model.config import DecoderConfig
from verigym.model.decoder import Decoder
from verigym.model.engine.batch import Batch
from verigym.model.engine.forward import Forward
from verigym.model.engine.graphs import Capture
from verigym.model.engine.job import Job
from verigym.model.head import token_logprobs
from verigym.model.kernels.launch import as_on_cuda, interpreted

pytestmark = pytest.mark.skipif(not interpreted(), reason="Triton's interpreter is off; tests/gpu covers this")

CONFIG = DecoderConfig(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    layer_types=("sliding_attention", "full_attention"),
    sliding_window=4,
    max_position_embeddings=64,
)


def _loss_and_grads(decoder: Decoder) -> list[torch.Tensor]:
    ids = torch.arange(11) * 7 % 40
    hidden = decoder(ids, Documents.from_lengths([3, 0, 8]))
    logprobs, entropy = token_logprobs(hidden, decoder.head.weight, ids.roll(-1), 0.7)
    loss = -(logprobs + 0.1 * entropy).sum()
    parameters = list(decoder.parameters())
    return [loss.detach(), *torch.autograd.grad(loss, parameters)]


def test_a_training_step(launches: Counter[str]) -> None:
    decoder = Decoder(CONFIG, seed=0)
    expected = _loss_and_grads(decoder)
    assert not launches, "on a CPU nothing of this runs by default"
    with as_on_cuda():
        got = _loss_and_grads(decoder)
    assert launches == {
        "attention_forward": 2,
        "attention_grad_queries": 2,
        "attention_grad_keys": 2,
        "rms_norm_forward": 5,
        "rms_norm_backward": 5,
        "swiglu_forward": 2,
        "swiglu_backward": 2,
        "rope_rotate": 4,
        "head_statistics": 1,
        "head_grad_logits": 1,
    }
    for value, exact in zip(got, expected, strict=True):
        torch.testing.assert_close(value, exact, atol=1e-5, rtol=1e-4)


def test_a_training_step_over_shared_prefixes(launches: Counter[str]) -> None:
    """A group with a branch: the gradients of its documents laid end to end, on the tree's own kernels."""
    decoder = Decoder(CONFIG, seed=0)
    prompt, answers = [*range(9)], [[20, 21], [22, 23, 24, 25, 26, 27], [22, 23, 9], []]
    flat = [prompt + answer for answer in answers]
    paths = [[*range(11)], [*range(9), *range(11, 17)], [*range(9), 11, 12, 17], [*range(9)]]
    documents = SharedDocuments.from_paths([torch.tensor(path) for path in paths], [11, 6, 1, 0])
    ids = torch.tensor([*flat[0], *answers[1], 9])
    assert [ids[path].tolist() for path in documents.paths] == flat
    at, targets = torch.cat(documents.paths), torch.tensor([token for one in flat for token in [*one[1:], 3]])

    def gradients(hidden: torch.Tensor, index: torch.Tensor | None) -> list[torch.Tensor]:
        taken = hidden if index is None else hidden[index]
        logprobs, entropy = token_logprobs(taken, decoder.head.weight, targets, 0.7)
        loss = -(logprobs + 0.1 * entropy).sum()
        return [loss.detach(), *torch.autograd.grad(loss, list(decoder.parameters()))]

    each = Documents.from_lengths([len(one) for one in flat])
    expected = gradients(decoder(torch.tensor([token for one in flat for token in one]), each), None)
    on_cpu = gradients(decoder(ids, documents), at)
    assert not launches
    with as_on_cuda():
        got = gradients(decoder(ids, documents), at)
    assert {name: count for name, count in launches.items() if "tree" in name or "attention" in name} == {
        "tree_forward": 2,
        "tree_grad_queries": 2,
        "tree_grad_keys": 2,
    }
    for value, plain, exact in zip(got, on_cpu, expected, strict=True):
        torch.testing.assert_close(value, exact, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(plain, exact, atol=1e-5, rtol=1e-5)


def test_the_engines_prefill_and_decode(launches: Counter[str]) -> None:
    decoder = Decoder(CONFIG, seed=0)

    def run(capture: Capture | None = None) -> list[CompletionPart]:
        """Two prompts in chunks of at most 6, a third that shares a prefix, all past the window and several pages."""
        forward = Forward(decoder, max_batch=3, max_context=24, page_size=4, capture=capture)
        batch = Batch(forward, step_tokens=6)
        prompts = [[*range(7)], [30, 31], [*range(6), 20]]
        jobs = [
            Job(prompt_ids=prompt, sampling=Sampling(max_tokens=5, temperature=0.0), stop_token_ids=(), seed=0, tag=i)
            for i, prompt in enumerate(prompts)
        ]
        done, left = {}, jobs[:2]
        while left or batch.num_active:
            progress, left = batch.advance(left)
            done.update(progress)
            batch.check()
            left, jobs = left + jobs[2:], jobs[:2]
        assert batch.num_reused == 6
        return [done[i] for i in range(3)]

    expected = run()
    assert not launches
    with as_on_cuda():
        got = run()
    assert launches["attention_forward"] > 0
    assert launches["decode_split"] == launches["decode_join"] > 0
    recorded = []

    def capture(compute: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        """What CUDA would play again is computed again, over the same memory."""
        recorded.append(compute().shape[0])
        return compute

    with as_on_cuda():
        replayed = run(capture)
    assert sorted(recorded) == [1, 4], "one recording a bucket of rows"
    for value, exact in [*zip(got, expected, strict=True), *zip(replayed, expected, strict=True)]:
        assert value.token_ids == exact.token_ids
        assert value.logprobs == pytest.approx(exact.logprobs, abs=1e-5)
