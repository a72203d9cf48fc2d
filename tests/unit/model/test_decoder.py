import pytest
import torch
from torch import Tensor

from verigym.errors import ConfigError
from verigym.model.attention import Documents, attend
from verigym.model.config import DecoderConfig, preset
from verigym.model.decoder import Decoder

LENGTHS = [5, 1, 9, 4, 0, 13, 8]


def _ids(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 320, (count,), generator=torch.Generator().manual_seed(seed))


def test_the_32b_preset_has_the_published_parameters() -> None:
    config = preset("cwm-32b")
    with torch.device("meta"):
        decoder = Decoder(config)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 32_581_097_472
    globals_ = [i for i, kind in enumerate(config.layer_types) if kind == "full_attention"]
    assert globals_ == [*range(0, 64, 4), 63]


def test_the_slice_is_full_width_with_both_kinds_of_layers() -> None:
    config, whole = preset("cwm-32b-slice"), preset("cwm-32b")
    assert config.layer_types == ("full_attention", "sliding_attention", "sliding_attention", "full_attention")
    assert (config.hidden_size, config.intermediate_size) == (whole.hidden_size, whole.intermediate_size)


def test_the_tiny_preset_is_a_small_cwm() -> None:
    decoder = Decoder(preset("cwm-tiny"))
    assert 1_000_000 <= sum(parameter.numel() for parameter in decoder.parameters()) <= 3_000_000
    assert set(decoder.config.layer_types) == {"full_attention", "sliding_attention"}


@pytest.mark.parametrize("window", [None, 1, 4, 5, 100])
def test_attention_equals_the_float64_reference(window: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    documents = Documents.from_lengths(LENGTHS)
    total = sum(LENGTHS)
    leaves = [torch.randn(total, heads, 8, generator=generator, dtype=torch.float64) for heads in (6, 2, 2)]
    upstream = torch.randn(total, 6, 8, generator=generator, dtype=torch.float64)

    def run(dtype: torch.dtype, backend: str) -> list[Tensor]:
        inputs = [leaf.to(dtype).requires_grad_() for leaf in leaves]
        out = attend(*inputs, documents, window, backend=backend)  # type: ignore[arg-type]
        return [out, *torch.autograd.grad(out, inputs, upstream.to(dtype))]

    for got, expected in zip(run(torch.float32, "sdpa"), run(torch.float64, "reference")):
        torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)


def test_packed_equals_separate_in_values_and_gradients(decoder: Decoder) -> None:
    ids = _ids(sum(LENGTHS))
    weights = torch.randn(sum(LENGTHS), 320, generator=torch.Generator().manual_seed(1))
    packed = decoder.logits(decoder(ids, Documents.from_lengths(LENGTHS)))
    (packed * weights).sum().backward()
    packed_grads = [parameter.grad.clone() for parameter in decoder.parameters() if parameter.grad is not None]
    decoder.zero_grad()
    parts = []
    for part, weight in zip(ids.split(LENGTHS), weights.split(LENGTHS)):
        parts.append(decoder.logits(decoder(part, Documents.from_lengths([len(part)]))))
        (parts[-1] * weight).sum().backward()
    torch.testing.assert_close(packed, torch.cat(parts), atol=2e-5, rtol=1e-5)
    for packed_grad, parameter in zip(packed_grads, decoder.parameters(), strict=True):
        torch.testing.assert_close(packed_grad, parameter.grad, atol=2e-4, rtol=1e-4)


def test_one_document_does_not_touch_another(decoder: Decoder) -> None:
    documents = Documents.from_lengths(LENGTHS)
    ids = _ids(sum(LENGTHS))
    changed = ids.clone()
    changed[6:15] = _ids(9, seed=7)  # the third document
    with torch.no_grad():
        before, after = decoder(ids, documents), decoder(changed, documents)
    assert torch.equal(before[:6], after[:6])
    assert torch.equal(before[15:], after[15:])
    assert not torch.equal(before[6:15], after[6:15])


def test_a_sliding_layer_sees_exactly_its_window() -> None:
    from .conftest import small_config

    config = small_config(num_layers=1, layer_types=("sliding_attention",))
    decoder = Decoder(config)
    ids = _ids(12)
    documents = Documents.from_lengths([12])
    with torch.no_grad():
        before = decoder(ids, documents)
        ids[3] = (ids[3] + 1) % 320
        touched = (decoder(ids, documents) != before).any(dim=1)
    assert touched.tolist() == [False] * 3 + [True] * 4 + [False] * 5


def test_documents_say_where_they_lie() -> None:
    documents = Documents.from_lengths([2, 0, 3], starts=[0, 0, 7])
    assert documents.cu_seqlens.tolist() == [0, 2, 2, 5]
    assert documents.positions.tolist() == [0, 1, 7, 8, 9]
    with pytest.raises(ValueError, match="-1"):
        Documents.from_lengths([1, -1])


def test_a_document_beyond_the_context_is_refused_before_any_work() -> None:
    with torch.device("meta"):  # work would fail there
        decoder = Decoder(preset("cwm-32b"))
    ids = torch.zeros(131_074, dtype=torch.int64, device="meta")
    with pytest.raises(ConfigError, match="a document has 131073 tokens and the model's context 131072"):
        decoder.score(ids, Documents([1, 131_073], ids), ids)


def test_the_same_seed_gives_the_same_weights(config: DecoderConfig) -> None:
    first, second, other = Decoder(config, seed=3), Decoder(config, seed=3), Decoder(config, seed=4)
    assert torch.equal(first.head.weight, second.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
