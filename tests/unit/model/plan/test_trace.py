"""Plans against counts by hand: parameters, optimizer, gradients, collectives and work of one rank."""

from dataclasses import replace
from functools import cache

import pytest

from verigym.errors import ConfigError
from verigym.model.config import DecoderConfig, cwm_layer_types, preset
from verigym.model.parallel.layout import Layout
from verigym.model.plan.attention import num_pairs
from verigym.model.plan.estimate import HARDWARE, step_time
from verigym.model.plan.search import GIB, cheapest, splits, trace_by_period
from verigym.model.plan.trace import Traced, trace_step

from ..conftest import small_config

SMALL = small_config(
    num_heads=8, num_kv_heads=4, num_layers=4, layer_types=cwm_layer_types(4), max_position_embeddings=8192
)

FSDP = Layout(shard=16, recompute="full", bf16=True)
FSDP_CP_TP = Layout(shard=4, context=2, tensor=4, recompute="selective", bf16=True)


@cache
def small_step(layout: Layout) -> Traced:
    return trace_step(SMALL, layout, [64])


def parameters_by_hand(config: DecoderConfig) -> tuple[int, int]:
    """(of matrices, of norms)."""
    width, head = config.hidden_size, config.head_dim
    attention = width * head * (2 * config.num_heads + 2 * config.num_kv_heads)
    matrices = config.num_layers * (attention + 3 * width * config.intermediate_size) + 2 * config.vocab_size * width
    return matrices, (2 * config.num_layers + 1) * width


def test_the_full_model_by_hand() -> None:
    assert sum(parameters_by_hand(preset("cwm-32b"))) == 32_581_097_472


@pytest.mark.parametrize(
    "layout",
    [FSDP, FSDP_CP_TP, Layout(replicate=2, shard=8, tensor=2)],
    ids=["fsdp", "fsdp-cp-tp", "hsdp-tp"],
)
def test_bytes_and_work_of_one_rank(layout: Layout) -> None:
    tokens = 64
    traced = small_step(layout)
    matrices, norms = parameters_by_hand(SMALL)
    local = matrices // (layout.fsdp * layout.tensor) + norms // layout.fsdp  # every rank of ``tensor`` has the norms
    assert traced.num_parameters == matrices + norms
    assert traced.parameter_bytes == 4 * local
    assert traced.optimizer_bytes == 8 * local
    assert 0 <= traced.gradient_bytes <= 4 * local
    assert traced.peak_bytes > traced.parameter_bytes + traced.optimizer_bytes
    # Three products of each weight with each token of this rank. Recomputing a layer adds a fourth, but for the last
    # weight in it, whose result the backward pass does not need.
    vocabulary, down = SMALL.vocab_size * SMALL.hidden_size, SMALL.intermediate_size * SMALL.hidden_size
    inner = matrices - 2 * vocabulary
    again = 0 if layout.recompute == "none" else inner - SMALL.num_layers * down
    of_layers = 2 * (3 * inner + again) * (tokens // layout.context) // layout.tensor
    dense = of_layers + 2 * 3 * vocabulary * (tokens // layout.token_split)
    rows = tokens // layout.context
    pairs = sum(num_pairs([rows], [tokens], SMALL.window_of(layer)) for layer in range(SMALL.num_layers))
    passes = {"none": 2 + 5, "selective": 2 + 5, "full": 2 + 2 + 5}[layout.recompute]
    attention = 2 * passes * pairs * SMALL.num_heads * SMALL.head_dim // layout.tensor
    assert traced.flops == pytest.approx(dense + attention, rel=0.02)


def test_weights_cross_the_network_as_often_as_the_layout_says() -> None:
    """Each layer's weights are gathered in bfloat16 for the forward and once more for the backward pass, the gradients
    reduced in float32; each rank sends (n - 1) / n of them."""
    traced = small_step(FSDP)
    matrices, norms = parameters_by_hand(SMALL)
    vocabulary = SMALL.vocab_size * SMALL.hidden_size
    root = vocabulary + SMALL.hidden_size  # head and last norm stay gathered until the backward pass
    gathered = 2 * (2 * (matrices + norms - root) + root)
    assert traced.sent_bytes["all_gather", "fsdp"] == pytest.approx(gathered * 15 / 16, rel=0.01)
    assert traced.sent_bytes["reduce_scatter", "fsdp"] == pytest.approx(4 * (matrices + norms) * 15 / 16, rel=0.01)


def test_sliding_layers_send_no_more_than_their_window() -> None:
    layout = Layout(context=4)
    sliding = replace(SMALL, num_layers=2, layer_types=("sliding_attention",) * 2)
    whole = trace_step(replace(sliding, layer_types=("full_attention",) * 2), layout, [64]).sent_bytes
    halo = trace_step(sliding, layout, [64], rank=1).sent_bytes
    row = 2 * SMALL.num_kv_heads * SMALL.head_dim * 4  # a token's key and value
    assert whole["all_gather", "context"] == 2 * 64 * row * 3 / 4
    assert halo["all_to_all", "context"] == 2 * 2 * (SMALL.sliding_window - 1) * row  # keys on, gradients back
    assert ("all_gather", "context") not in halo


def test_unfused_log_probabilities_take_more() -> None:
    wide = replace(SMALL, num_layers=1, layer_types=("full_attention",), vocab_size=32_000)
    layout = Layout(shard=8, recompute="full", bf16=True)
    fused, naive = (trace_step(wide, layout, [8192], head=head) for head in ("fused", "naive"))
    assert naive.peak_bytes - fused.peak_bytes > 2 * 8192 * 32_000 * 4
    assert naive.parameter_bytes == fused.parameter_bytes


@pytest.mark.parametrize("recompute", ["full", pytest.param("none", marks=pytest.mark.slow)])
def test_adding_up_layers_equals_tracing_them(recompute: str) -> None:
    config = replace(SMALL, num_layers=12, layer_types=cwm_layer_types(12))
    layout = Layout(shard=4, tensor=2, recompute=recompute, bf16=True)  # type: ignore[arg-type]
    whole, quick = trace_step(config, layout, [256]), trace_by_period(config, layout, [256])
    assert (quick.num_parameters, quick.parameter_bytes) == (whole.num_parameters, whole.parameter_bytes)
    assert (quick.flops, quick.optimizer_bytes) == (whole.flops, whole.optimizer_bytes)
    assert quick.sent_bytes == pytest.approx(whole.sent_bytes)
    assert quick.peak_bytes == pytest.approx(whole.peak_bytes, rel=0.005)


@pytest.mark.slow
def test_the_cheapest_layout_fits_and_less_memory_costs_time() -> None:
    config = replace(SMALL, hidden_size=64, vocab_size=640)
    hardware = HARDWARE["h100"]
    roomy = cheapest(config, 4, [1024], hardware, 1.0)
    assert roomy.layout.recompute == "none"
    tight_gib = roomy.traced.peak_bytes / GIB * 0.8
    tight = cheapest(config, 4, [1024], hardware, tight_gib)
    assert tight.traced.peak_bytes <= tight_gib * GIB
    assert tight.rank_seconds >= roomy.rank_seconds
    with pytest.raises(ConfigError, match=r"no layout of 4 GPUs fits 0\.0001 GiB; the least is"):
        cheapest(config, 4, [1024], hardware, 0.0001)


def test_splits_use_all_gpus_and_divide_the_heads() -> None:
    found = list(splits(preset("cwm-32b"), 64, 32_768))
    assert all(one.num_ranks == 64 for one in found)
    assert {one.tensor for one in found} == {1, 2, 4, 8}


def test_time_is_longer_across_machines() -> None:
    near, far = (
        step_time(small_step(FSDP_CP_TP), FSDP_CP_TP, hardware)
        for hardware in (HARDWARE["h100"], replace(HARDWARE["h100"], gpus_per_machine=1))
    )
    assert far.tokens > near.tokens
    assert far.total > near.total


def test_the_world_is_left_as_it_was() -> None:
    import torch.distributed as dist

    with pytest.raises(ConfigError, match="num_heads 8 cannot be split 3 ways"):
        trace_step(SMALL, Layout(tensor=3), [64])
    assert not dist.is_initialized()


def test_a_first_plan_equals_a_second_one():
    """What torch works out once for each operator (DTensor, on tensors of the whole shape) is no memory of the step."""
    sizes = {"hidden_size": 256, "intermediate_size": 320, "num_heads": 6, "num_kv_heads": 2, "vocab_size": 999}
    config = preset("cwm-32b-slice", **sizes)
    layout = Layout(shard=8, recompute="full")
    first, second = (trace_step(config, layout, [512]) for _ in range(2))
    assert first.peak_bytes == second.peak_bytes
