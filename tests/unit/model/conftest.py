from collections.abc import Iterator

import pytest
import torch

from verigym.model.config import DecoderConfig, RopeScaling
from verigym.model.decoder import Decoder
from verigym.model.tokenizer import Tokenizer, train_tokenizer

TEXTS = [
    "def add(a, b):\n    return a + b\n\n\ndef test_add():\n    assert add(1, 2) == 3\n" * 4,
    "The quick brown fox can't jump over 1234 lazy dogs; naïve café, 東京, \U0001f600.\r\n\tif x:\n" * 4,
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 320)


def small_config(**changes: object) -> DecoderConfig:
    """Two kinds of layers, a window of 4, grouped heads, a stretched rope."""
    fields: dict = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_layers": 3,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
        "layer_types": ("full_attention", "sliding_attention", "full_attention"),
        "sliding_window": 4,
        "max_position_embeddings": 256,
        "rope_theta": 100.0,
        "rope_scaling": RopeScaling(
            factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
        ),
        "eos_token_ids": (1, 5, 6),
        "pad_token_id": 2,
    }
    return DecoderConfig(**(fields | changes))


# What the other families have that CWM has not, all at once.
EVERYTHING: dict = {
    "tied_embeddings": True,
    "embed_scale": 3.0,
    "qkv_bias": True,
    "qk_norm": True,
    "query_scale": 0.8,
    "activation": "gelu_tanh",
    "post_norms": True,
    "norm_offset": True,
    "sliding_rope_theta": 30.0,
    "rope_layers": (True, True, False),
}


@pytest.fixture
def config() -> DecoderConfig:
    return small_config()


@pytest.fixture
def decoder(config: DecoderConfig) -> Decoder:
    model = Decoder(config, seed=1)
    with torch.no_grad():  # sharp distributions and strong attention: errors show
        for name, parameter in model.named_parameters():
            if not name.endswith("norm.weight"):
                parameter.mul_(4.0)
            else:
                parameter.add_(torch.linspace(-0.3, 0.3, parameter.numel()))
    return model
