import pytest
import torch

from verigym.model.config import preset
from verigym.model.families.find import write_config
from verigym.model.rope import rope_frequencies, rope_table, rotate

from .conftest import small_config


def test_rotation_equals_complex_multiplication_in_values_and_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    frequencies = rope_frequencies(small_config().rope_of(0), 8)[0].double()
    positions = torch.tensor([0, 1, 5, 2, 40])
    x = torch.randn(5, 3, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(5, 3, 8, generator=generator, dtype=torch.float64)
    turned = torch.complex(*x.chunk(2, dim=-1)) * torch.exp(1j * positions[:, None, None] * frequencies)
    expected = torch.cat((turned.real, turned.imag), dim=-1)
    got = rotate(x, rope_table(positions, frequencies, torch.float64))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    grads = [torch.autograd.grad(out, x, upstream)[0] for out in (got, expected)]
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["cwm-32b", "cwm-tiny"])
def test_frequencies_equal_those_of_transformers(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    modeling = pytest.importorskip("transformers.models.cwm.modeling_cwm")
    theirs = modeling.CwmRotaryEmbedding(transformers.CwmConfig(**write_config(preset(name))))
    config = preset(name)
    torch.testing.assert_close(
        rope_frequencies(config.rope_of(0), config.head_dim)[0], theirs.inv_freq, rtol=1e-6, atol=0
    )
