"""RMSNorm, SwiGLU and the rotary turn against float64, values and gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from verigym.model.kernels.norm import rms_norm
from verigym.model.kernels.pointwise import fused_rope, fused_swiglu
from verigym.model.kernels.reference import reference_rms_norm, reference_rope, reference_swiglu

from .conftest import DEVICE, assert_near, randn

DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
EPS = 1e-5


def _compare(
    got: Callable[..., Tensor | tuple[Tensor, ...]],
    exact: Callable[..., Tensor | tuple[Tensor, ...]],
    leaves: list[Tensor],
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    results = []
    for function, device, kind in ((got, DEVICE, dtype), (exact, "cpu", torch.float64)):
        inputs = [x.to(dtype).to(device, kind).requires_grad_() for x in leaves]
        outs = function(*inputs)
        outs = outs if isinstance(outs, tuple) else (outs,)
        upstream = [randn(*out.shape, seed=index).to(out) for index, out in enumerate(outs)]
        results.append([*(out.detach() for out in outs), *torch.autograd.grad(outs, inputs, upstream)])
    for value, expected in zip(*results, strict=True):
        assert value.dtype == dtype
        assert_near(value, expected, tolerance)


@DTYPES
def test_rms_norm(dtype: torch.dtype, tolerance: float) -> None:
    _compare(
        lambda x, weight: rms_norm(x, None, weight, EPS)[0],
        lambda x, weight: reference_rms_norm(x, weight, EPS),
        [randn(3, 24, seed=10), randn(24, seed=11)],
        dtype,
        tolerance,
    )


@DTYPES
def test_rms_norm_of_a_residual_stream(dtype: torch.dtype, tolerance: float) -> None:
    """Both the norm and the sum go on, and both bring a gradient back."""
    _compare(
        lambda x, residual, weight: rms_norm(x, residual, weight, EPS)[:2],
        lambda x, residual, weight: (reference_rms_norm(x + residual, weight, EPS), x + residual),
        [randn(3, 24, seed=10), randn(3, 24, seed=11), randn(24, seed=12)],
        dtype,
        tolerance,
    )


def test_the_weights_gradient_sums_over_programs() -> None:
    """More rows than programs: some have two."""
    x, weight = randn(515, 4, seed=0), randn(4, seed=1)
    _compare(
        lambda x, weight: rms_norm(x, None, weight, EPS)[0],
        lambda x, weight: reference_rms_norm(x, weight, EPS),
        [x, weight],
        torch.float32,
        5e-6,
    )


@DTYPES
def test_swiglu(dtype: torch.dtype, tolerance: float) -> None:
    _compare(fused_swiglu, reference_swiglu, [randn(2, 2 * 1030, seed=0)], dtype, tolerance)


@DTYPES
def test_rope(dtype: torch.dtype, tolerance: float) -> None:
    angles = randn(3, 1, 12, seed=5)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    _compare(
        lambda x: fused_rope(x, cos.to(DEVICE), sin.to(DEVICE), 1.0),
        lambda x: reference_rope(x, cos.double(), sin.double()),
        [randn(3, 18, 24, seed=6)],
        dtype,
        tolerance,
    )


def test_rope_of_a_slice_of_a_projection() -> None:
    x = randn(3, 5, 8, seed=0).float().to(DEVICE)
    angles = randn(3, 1, 4, seed=1).float().to(DEVICE)
    table = (angles.cos(), angles.sin())
    assert torch.equal(fused_rope(x[:, 1:4], *table, 1.0), fused_rope(x[:, 1:4].contiguous(), *table, 1.0))
