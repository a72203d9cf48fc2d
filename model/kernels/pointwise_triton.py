"""Kernels that memory bounds: each reads its inputs once and writes its outputs once."""

import triton
import triton.language as tl


@triton.jit
def rms_norm_forward(
    inputs,
    residuals,
    weight,
    outs,
    sums,
    scales,
    input_stride,
    residual_stride,
    out_stride,
    width,
    eps,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    RESIDUAL: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Grid [rows]. out = s / rms(s) * weight with s = input (+ residual, and then s is written to ``sums``, in
    its dtype, and normed as it was written); 1 / rms to ``scales``."""
    row = tl.cast(tl.program_id(0), tl.int64)
    columns = tl.arange(0, COLUMNS)
    mask = columns < width
    x = tl.load(inputs + row * input_stride + columns, mask=mask, other=0.0)
    if RESIDUAL:
        x = x.to(tl.float32) + tl.load(residuals + row * residual_stride + columns, mask=mask, other=0.0).to(tl.float32)
        x = x.to(sums.dtype.element_ty)
        tl.store(sums + row * out_stride + columns, x, mask=mask)
    x = x.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, 0) / width + eps)
    tl.store(scales + row, scale)
    gain = tl.load(weight + columns, mask=mask, other=0.0).to(tl.float32)
    tl.store(outs + row * out_stride + columns, (x * scale * gain).to(outs.dtype.element_ty), mask=mask)


@triton.jit
def rms_norm_backward(
    grad_outs,
    grad_sums,
    inputs,
    weight,
    scales,
    grad_inputs,
    grad_weights,
    input_stride,
    grad_stride,
    num_rows,
    width,
    rows_each,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    RESIDUAL: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Grid [programs], each with ``rows_each`` rows in turn, and one row of ``grad_weights`` [programs, D] float32 for
    their sum. RESIDUAL: the normed sum went on as the residual stream, whose gradient ``grad_sums`` is added."""
    program = tl.program_id(0)
    columns = tl.arange(0, COLUMNS)
    mask = columns < width
    gain = tl.load(weight + columns, mask=mask, other=0.0).to(tl.float32)
    grad_gain = tl.zeros([COLUMNS], tl.float32)
    first = program * rows_each
    for index in range(first, tl.minimum(first + rows_each, num_rows)):
        row = tl.cast(index, tl.int64)
        x = tl.load(inputs + row * input_stride + columns, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(grad_outs + row * grad_stride + columns, mask=mask, other=0.0).to(tl.float32)
        scale = tl.load(scales + row)
        unit = x * scale
        grad_gain += grad * unit
        grad = grad * gain
        grad = scale * (grad - unit * (tl.sum(grad * unit, 0) / width))
        if RESIDUAL:
            grad += tl.load(grad_sums + row * grad_stride + columns, mask=mask, other=0.0).to(tl.float32)
        tl.store(grad_inputs + row * grad_stride + columns, grad.to(grad_inputs.dtype.element_ty), mask=mask)
    tl.store(grad_weights + tl.cast(program, tl.int64) * width + columns, grad_gain, mask=mask)


@triton.jit
def swiglu_forward(
    gate_ups, outs, gate_up_stride, out_stride, width, COLUMNS: tl.constexpr, INNER: tl.constexpr, UPCAST: tl.constexpr
):
    """Grid [rows, blocks of COLUMNS]. gate_ups [T, 2 F], gate first."""
    row = tl.cast(tl.program_id(0), tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = columns < width
    gate = tl.load(gate_ups + row * gate_up_stride + columns, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_ups + row * gate_up_stride + width + columns, mask=mask, other=0.0).to(tl.float32)
    out = gate * tl.sigmoid(gate) * up
    tl.store(outs + row * out_stride + columns, out.to(outs.dtype.element_ty), mask=mask)


@triton.jit
def swiglu_backward(
    grad_outs,
    gate_ups,
    grad_gate_ups,
    grad_out_stride,
    gate_up_stride,
    grad_gate_up_stride,
    width,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Grid [rows, blocks of COLUMNS]."""
    row = tl.cast(tl.program_id(0), tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = columns < width
    gate = tl.load(gate_ups + row * gate_up_stride + columns, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_ups + row * gate_up_stride + width + columns, mask=mask, other=0.0).to(tl.float32)
    grad = tl.load(grad_outs + row * grad_out_stride + columns, mask=mask, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    grad_gate = grad * up * sigmoid * (1.0 + gate * (1.0 - sigmoid))
    grad_up = grad * gate * sigmoid
    at = grad_gate_ups + row * grad_gate_up_stride + columns
    tl.store(at, grad_gate.to(grad_gate_ups.dtype.element_ty), mask=mask)
    tl.store(at + width, grad_up.to(grad_gate_ups.dtype.element_ty), mask=mask)


@triton.jit
def rope_rotate(
    inputs,
    cosines,
    sines,
    outs,
    input_stride,
    input_head_stride,
    table_stride,
    out_stride,
    out_head_stride,
    num_heads,
    sign,
    HALF: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Grid [tokens, blocks of INNER heads]. Turns channel i with channel i + HALF; ``sign`` -1 turns back, which is
    the gradient."""
    token = tl.cast(tl.program_id(0), tl.int64)
    heads = tl.program_id(1) * INNER + tl.arange(0, INNER)
    columns = tl.arange(0, COLUMNS)
    exists = columns < HALF
    cosine = tl.load(cosines + token * table_stride + columns, mask=exists, other=0.0).to(tl.float32)[None, :]
    sine = tl.load(sines + token * table_stride + columns, mask=exists, other=0.0).to(tl.float32)[None, :] * sign
    mask = (heads < num_heads)[:, None] & exists[None, :]
    at = inputs + token * input_stride + heads[:, None] * input_head_stride + columns[None, :]
    first = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(at + HALF, mask=mask, other=0.0).to(tl.float32)
    to = outs + token * out_stride + heads[:, None] * out_head_stride + columns[None, :]
    tl.store(to, (first * cosine - second * sine).to(outs.dtype.element_ty), mask=mask)
    tl.store(to + HALF, (second * cosine + first * sine).to(outs.dtype.element_ty), mask=mask)
