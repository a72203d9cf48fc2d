"""On CUDA the training step and the generator run these kernels without being told. The choice is tested here, the
launches by Triton's interpreter; tests/gpu does it on a GPU."""

from collections import Counter

import pytest
import torch

from verigym.model.attention import Documents
from verigym.model.config import DecoderConfig
from verigym.model.decoder import Decoder
from verigym.model.engine.cache import DecodeView, KeyValueSlots, PrefillView
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


def test_the_generators_prefill_and_decode(launches: Counter[str]) -> None:
    decoder = Decoder(CONFIG, seed=0)

    def run() -> list[torch.Tensor]:
        slots = KeyValueSlots(CONFIG, 2, 12, dtype=torch.float32, device=torch.device("cpu"))
        first = decoder(torch.arange(7), Documents.from_lengths([5, 2]), PrefillView(slots, [(0, 0, 5), (1, 0, 2)]))
        more = decoder(torch.arange(3), Documents.from_lengths([3], starts=[5]), PrefillView(slots, [(0, 5, 3)]))
        positions = torch.tensor([8, 2])
        step = decoder(torch.tensor([1, 2]), Documents([1, 1], positions), DecodeView(slots, positions, 9))
        return [first, more, step]

    with torch.inference_mode():
        expected = run()
        assert not launches
        with as_on_cuda():
            got = run()
    assert launches["attention_forward"] == 4
    assert launches["decode_split"] == launches["decode_join"] == 2
    for value, exact in zip(got, expected, strict=True):
        torch.testing.assert_close(value, exact, atol=1e-5, rtol=1e-4)
