"""Muon in any arithmetic is torch's Muon."""

import pytest
import torch

from verigym.model import arithmetic
from verigym.trainer.learning.muon import Muon, orthogonalized

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def updated(kind, shape, *, adjust, num_updates=3):
    generator = torch.Generator().manual_seed(1)
    parameter = torch.nn.Parameter(torch.randn(shape, generator=generator))
    before = parameter.detach().clone()
    optimizer = kind([parameter], lr=0.1, weight_decay=0.01, adjust_lr_fn=adjust)
    for _ in range(num_updates):
        parameter.grad = torch.randn(shape, generator=generator)
        optimizer.step()
    return parameter.detach() - before, optimizer.state[parameter]["momentum_buffer"]


@pytest.mark.parametrize("adjust", [None, "match_rms_adamw"])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
def test_updates_are_torchs(monkeypatch, shape, adjust):
    expected, momentum = updated(torch.optim.Muon, shape, adjust=adjust)
    monkeypatch.setattr(arithmetic, "product_ratio", lambda dtype: 0.5)
    same, own = updated(Muon, shape, adjust=adjust)
    torch.testing.assert_close(same, expected, rtol=0, atol=0)
    assert torch.equal(own, momentum)
    monkeypatch.setattr(arithmetic, "product_ratio", lambda dtype: 80.0)
    exact, own = updated(Muon, shape, adjust=adjust)
    assert torch.equal(own, momentum)
    error = (exact - expected).norm() / expected.norm()
    assert 0 < error < 0.02  # the rounding of bfloat16


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
def test_the_iteration_is_that_polynomial_of_the_singular_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = orthogonalized(matrix, COEFFICIENTS, 5, 1e-7, torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        a, b, c = COEFFICIENTS
        values = a * values + b * values**3 + c * values**5
    torch.testing.assert_close(found, left @ values.diag() @ right)
    in_float32 = orthogonalized(matrix, COEFFICIENTS, 5, 1e-7, torch.float32)
    torch.testing.assert_close(in_float32.double(), found, rtol=1e-4, atol=1e-4)
