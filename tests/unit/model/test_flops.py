"""Work counted by hand, and by torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, MistralConfig, Qwen3Config

from verigym.model.attention import Documents
from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.model.flops import Work, work_of
from verigym.model.huggingface import HuggingFaceDecoder
from verigym.model.lora import add_adapters

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8}
HF = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128,
}  # fmt: skip
# of a layer: q, k and v; o; gate, up and down
MATRICES = 32 * (32 + 16 + 16) + 32 * 32 + 3 * 32 * 48


def cwm():
    layers = {"layer_types": ("sliding_attention", "full_attention"), "sliding_window": 2}
    return Decoder(preset("cwm-tiny", vocab_size=300, **SMALL, **layers))


def test_a_step_counted_by_hand():
    work = work_of(cwm())
    assert work == Work(
        matrices=2 * MATRICES, trained=2 * MATRICES, head=300 * 32, head_trained=True, channels=32, windows=(2, None)
    )
    # Documents of 3 and 1 tokens. In the global layer 1 + 2 + 3 and 1 pairs, in the window of 2 1 + 2 + 2 and 1.
    pairs = 7 + 6
    forward = 2 * 4 * 2 * MATRICES + 2 * 2 * 300 * 32 + 4 * 32 * pairs
    assert work.forward([3, 1], 2) == forward
    assert work.update([3, 1], 2) == 3 * forward


def test_with_adapters_the_frozen_matrices_have_no_gradient():
    decoder = cwm()
    add_adapters(decoder, rank=3, alpha=3.0)
    work = work_of(decoder)
    adapters = 2 * 3 * ((32 + 64) + (32 + 32) + (32 + 96) + (48 + 32))
    assert (work.matrices, work.trained) == (2 * MATRICES + adapters, adapters)
    assert not work.head_trained
    pairs = 13
    forward = 2 * 4 * (2 * MATRICES + adapters) + 2 * 2 * 300 * 32 + 4 * 32 * pairs
    assert work.update([3, 1], 2) == 2 * forward + 4 * 32 * pairs + 2 * 4 * adapters


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_of_transformers_is_counted_as_torch_counts_it(tied):
    decoder = HuggingFaceDecoder(AutoModelForCausalLM.from_config(Qwen3Config(**HF, tie_word_embeddings=tied)))
    work = work_of(decoder)
    assert (work.matrices, work.head, work.channels) == (2 * MATRICES, 300 * 32, 32)
    assert work.windows == (None, None)
    ids = torch.arange(12)
    with FlopCounterMode(display=False) as counter:
        logprobs, _ = decoder.score(ids, Documents.from_lengths([12]), ids)
        logprobs.sum().backward()
    attention = 12 * 32 * 2 * (12 * 13 // 2)  # which torch does not count on a CPU
    assert work.update([12], 12) - attention == counter.get_total_flops()


def test_windows_of_other_models():
    mistral = HuggingFaceDecoder(AutoModelForCausalLM.from_config(MistralConfig(**HF, sliding_window=7)))
    assert work_of(mistral).windows == (7, 7)
