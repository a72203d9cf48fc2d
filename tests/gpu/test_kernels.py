"""On a GPU: parity at real shapes, and that training step and generator run these kernels without being told."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from verigym.model.attention import Documents, attend
from verigym.model.chat.sampling import Sampling
from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.model.engine.batch import Batch
from verigym.model.engine.forward import Forward
from verigym.model.engine.job import Job
from verigym.model.head import token_logprobs
from verigym.model.kernels.reference import reference_attention, reference_logprobs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none"),
]


def _error(value: torch.Tensor, exact: torch.Tensor) -> float:
    return float((value.double() - exact.double()).norm() / exact.double().norm())


@pytest.mark.parametrize("window", [None, 256])
def test_attention_at_the_models_shape(window: int | None) -> None:
    lengths = [1000, 1, 515, 0, 532]
    leaves = [torch.randn(2048, heads, 128, device="cuda", dtype=torch.bfloat16) for heads in (48, 8, 8)]
    upstream = torch.randn_like(leaves[0])
    inputs = [x.clone().requires_grad_() for x in leaves]
    out = attend(*inputs, Documents.from_lengths(lengths, device="cuda"), window, backend="triton")
    exact_inputs = [x.float().requires_grad_() for x in leaves]
    exact, _ = reference_attention(*exact_inputs, lengths, lengths, window)
    got = (out, *torch.autograd.grad(out, inputs, upstream))
    wanted = (exact, *torch.autograd.grad(exact, exact_inputs, upstream.float()))
    for value, expected in zip(got, wanted):
        assert _error(value, expected) < 1e-2


def test_the_loss_head_at_the_models_shape() -> None:
    hidden = torch.randn(300, 6144, device="cuda", dtype=torch.bfloat16) * 0.1
    weight = torch.randn(128_256, 6144, device="cuda", dtype=torch.bfloat16) * 0.1
    targets = torch.randint(0, 128_256, (300,), device="cuda")
    got = token_logprobs(hidden, weight, targets, 0.7)
    exact = reference_logprobs(hidden.float(), weight.float(), targets, torch.full((300,), 0.7, device="cuda"))
    for value, expected in zip(got, exact):
        assert _error(value, expected) < 1e-2


def _launched(call: Callable[[], Any]) -> dict[str, int]:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    return {event.key: event.count for event in profiler.key_averages()}


def test_the_training_step_runs_the_kernels_by_default() -> None:
    config = preset("cwm-tiny")
    decoder = Decoder(config).to("cuda", torch.bfloat16)
    ids = torch.randint(0, config.vocab_size, (200,), device="cuda")

    def step() -> None:
        hidden = decoder(ids, Documents.from_lengths([150, 50], device="cuda"))
        logprobs, entropy = token_logprobs(hidden, decoder.head.weight, ids.roll(-1))
        (-logprobs - 0.01 * entropy).sum().backward()

    step()
    counts = _launched(step)
    layers = config.num_layers
    for name in ("attention_forward", "attention_grad_queries", "attention_grad_keys", "swiglu_forward"):
        assert counts[name] == layers, counts
    assert counts["rms_norm_forward"] == 2 * layers + 1
    assert counts["rope_rotate"] == 2 * layers
    assert counts["head_statistics"] >= 1
    assert counts["head_grad_logits"] >= 1


def test_the_engine_runs_the_kernels_by_default() -> None:
    config = preset("cwm-tiny")
    decoder = Decoder(config).to("cuda", torch.bfloat16)
    sampling = Sampling(max_tokens=2, temperature=0.0)

    def run() -> None:
        batch = Batch(Forward(decoder, max_batch=1, max_context=32))
        left = [Job(prompt_ids=range(8), sampling=sampling, stop_token_ids=(), seed=0, tag=None)]
        while left or batch.num_active:
            _, left = batch.advance(left)

    run()
    counts = _launched(run)
    assert counts["attention_forward"] == config.num_layers
    assert counts["decode_split"] == counts["decode_join"] == config.num_layers
