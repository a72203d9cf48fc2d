"""What an exact divergence from a teacher needs: blocks of tokens, whatever the pack, and the teacher's shards."""

import pytest

from verigym.model.config import DecoderConfig
from verigym.model.divergence import Divergence
from verigym.model.parallel.layout import Layout
from verigym.model.plan.trace import Teaching, trace_step

MIB = 2**20
CONFIG = DecoderConfig(
    vocab_size=8192,
    hidden_size=64,
    intermediate_size=64,
    num_layers=1,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    layer_types=("full_attention",),
    sliding_window=64,
    max_position_embeddings=65536,
)
TOKENS = 32768  # times the vocabulary 1 GiB in float32, of each model


@pytest.mark.parametrize("support", [None, 32])
def test_no_tensor_of_tokens_times_vocabulary_exists(support):
    divergence = Divergence(beta=0.5, support=support)
    plain = trace_step(CONFIG, Layout(), [TOKENS])
    itself = trace_step(CONFIG, Layout(), [TOKENS], teaching=Teaching(divergence=divergence, config=None))
    assert itself.teacher_bytes == plain.teacher_bytes == 0
    # blocks of 64 Mi elements: the two models' log-probabilities, and what is made of them
    assert itself.peak_bytes - plain.peak_bytes < 12 * 256 * MIB
    assert itself.peak_bytes - plain.peak_bytes > 256 * MIB
    own = trace_step(CONFIG, Layout(), [TOKENS // 4], teaching=Teaching(divergence=divergence, config=CONFIG))
    assert own.teacher_bytes == own.parameter_bytes
