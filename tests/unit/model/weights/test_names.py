import torch
from hypothesis import given
from hypothesis import strategies as st

from verigym.model.config import preset
from verigym.model.rope import rope_frequencies, rope_table, rotate
from verigym.model.weights.names import deinterleave, interleave, parts, stacks


def test_the_rows_of_a_head_of_four_channels() -> None:
    halves = torch.arange(8.0)[:, None]  # two heads; channels 0 and 2 turn together, and 1 and 3
    assert interleave(halves, 4).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 3))
def test_interleaving_is_undone_bit_for_bit(heads: int, pairs: int, width: int) -> None:
    weight = torch.randn(heads * 2 * pairs, width)
    assert torch.equal(deinterleave(interleave(weight, 2 * pairs), 2 * pairs), weight)


def test_interleaved_weights_rotate_as_complex_numbers_do() -> None:
    """Meta's forward: neighbouring channels are a complex number, turned by its angle. The scores are the same."""
    config = preset("cwm-tiny")
    generator = torch.Generator().manual_seed(0)
    q_weight, k_weight = torch.randn(2, config.head_dim, 16, generator=generator)
    x = torch.randn(9, 16, generator=generator)
    frequencies = rope_frequencies(config.rope_of(0), config.head_dim)[0]
    table = rope_table(torch.arange(9), frequencies, torch.float32)
    ours = [rotate((x @ w.T)[:, None], table)[:, 0] for w in (q_weight, k_weight)]
    turn = torch.polar(torch.ones(9, config.head_dim // 2), torch.arange(9.0)[:, None] * frequencies)
    theirs = [
        torch.view_as_real(torch.view_as_complex((x @ interleave(w, config.head_dim).T).unflatten(1, (-1, 2))) * turn)
        for w in (q_weight, k_weight)
    ]
    expected = theirs[0].flatten(1) @ theirs[1].flatten(1).T
    torch.testing.assert_close(ours[0] @ ours[1].T, expected, atol=1e-4, rtol=1e-5)


def test_the_parts_of_the_full_model_add_up() -> None:
    config = preset("cwm-32b")
    assert sum(torch.Size(part.shape).numel() for part in parts(config)) == 32_581_097_472
    assert len({part.hf for part in parts(config)}) == len({part.meta for part in parts(config)}) == 3 + 64 * 9
    assert len(list(stacks(config))) == 3 + 64 * 6
