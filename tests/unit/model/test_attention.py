"""The attention facade: every backend against the float64 reference, and what separates documents (packing leaks)."""

# pyright: reportCallIssue=false
# Parts of tensors are unpacked as arguments; their number is known to who reads.

import logging

import pytest
import torch
from torch import Tensor

from verigym.errors import ConfigError
from verigym.model import attention
from verigym.model.attention import Backend, Documents, attend, choose_backend
from verigym.model.decoder import Decoder
from verigym.model.kernels.launch import as_on_cuda, interpreted

from .conftest import small_config

BACKENDS = [
    "reference",
    "sdpa",
    pytest.param("triton", marks=pytest.mark.skipif(not interpreted(), reason="Triton's interpreter is off")),
]
# The blocks of the kernels have 64 rows for float32: lengths 0, 1 and -1 modulo that.
LENGTHS = [5, 64, 0, 1, 65, 63]


def _inputs(lengths: list[int], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(sum(lengths), heads, 8, generator=generator) for heads in (2, 1, 1)]


def _run(inputs: list[Tensor], lengths: list[int], window: int | None, backend: Backend) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = attend(*leaves, Documents.from_lengths(lengths), window, backend=backend)
    upstream = torch.linspace(-1, 1, out.numel()).view_as(out).sin()
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_equals_separate(backend: Backend, window: int | None) -> None:
    inputs = _inputs(LENGTHS)
    packed = attend_and_grads(inputs, LENGTHS, window, backend)
    parts = zip(*(x.split(LENGTHS) for x in inputs))
    alone = [attend_and_grads(list(part), [length], window, backend) for part, length in zip(parts, LENGTHS) if length]
    for got, expected in zip(packed, zip(*alone), strict=True):
        torch.testing.assert_close(got, torch.cat(expected), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 1, 3, 16])
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_every_backend_sees_what_the_reference_sees(backend: Backend, window: int | None) -> None:
    inputs = _inputs(LENGTHS)
    expected = _run([x.double() for x in inputs], LENGTHS, window, "reference")
    for got, exact in zip(_run(inputs, LENGTHS, window, backend), expected, strict=True):
        torch.testing.assert_close(got, exact.float(), atol=5e-6, rtol=1e-5)


def attend_and_grads(inputs: list[Tensor], lengths: list[int], window: int | None, backend: Backend) -> list[Tensor]:
    """With an upstream gradient that depends on the output alone, so that it is the same packed and separate."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = attend(*leaves, Documents.from_lengths(lengths), window, backend=backend)
    return [out.detach(), *torch.autograd.grad(out, leaves, out.detach().sin())]


@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_document_leaves_the_others_bits_alone(backend: Backend, window: int | None) -> None:
    lengths = [7, 65, 1, 20]
    inputs = _inputs(lengths)
    changed = [torch.cat((x[:7], other[7:72], x[72:])) for x, other in zip(inputs, _inputs(lengths, seed=9))]
    before, after = _run(inputs, lengths, window, backend), _run(changed, lengths, window, backend)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one[:7], other[:7])
        assert torch.equal(one[72:], other[72:])
        assert not torch.equal(one[7:72], other[7:72])


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_keys_may_begin_before_the_queries(backend: Backend, window: int | None) -> None:
    """A rank of context parallelism, or a prefill after a cached prefix: the last rows of the whole."""
    lengths, counts = [4, 0, 9], [4, 3, 30]
    q, k, v = _inputs(counts)
    whole = attend(q, k, v, Documents.from_lengths(counts), window, backend="reference")
    rows = torch.cat((torch.arange(4), torch.arange(7 + 21, 7 + 30)))
    documents, keys = Documents.from_lengths(lengths), Documents.from_lengths(counts)
    got = attend(q[rows], k, v, documents, window, keys=keys, backend=backend)
    torch.testing.assert_close(got, whole[rows], atol=1e-6, rtol=1e-5)


def test_a_decoder_on_the_kernels_has_the_references_loss_and_gradients() -> None:
    if not interpreted():
        pytest.skip("Triton's interpreter is off")
    lengths = [5, 1, 0, 13]
    ids = torch.randint(0, 320, (19,), generator=torch.Generator().manual_seed(0))
    results = {}
    for backend in ("reference", "triton"):
        decoder = Decoder(small_config(num_layers=2, layer_types=("sliding_attention", "full_attention")), seed=1)
        with torch.no_grad():  # strong attention: errors show
            for parameter in decoder.parameters():
                parameter.mul_(3.0)
        decoder.use_attention(backend)
        loss = decoder.logits(decoder(ids, Documents.from_lengths(lengths))).logsumexp(-1).sum()
        loss.backward()
        results[backend] = [loss.detach(), *(p.grad for p in decoder.parameters() if p.grad is not None)]
    for got, expected in zip(results["triton"], results["reference"], strict=True):
        torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("setting", "device", "dtype", "head_dim", "message"),
    [
        ("flash", "cpu", torch.float32, 128, "'flash'.*triton"),
        ("triton", "cuda", torch.float64, 128, "float64.*'reference'"),
        ("triton", "cuda", torch.bfloat16, 512, "512 channels.*'sdpa'"),
    ],
)
def test_a_setting_that_cannot_work_says_why(setting, device, dtype, head_dim, message) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_backend(setting, torch.device(device), dtype, head_dim)


def test_triton_on_a_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ConfigError, match=r"'cpu'; move them to a CUDA device"):
        choose_backend("triton", torch.device("cpu"), torch.float32, 128)


def test_auto_is_triton_on_cuda_and_sdpa_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    attention._log_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="verigym.model.attention"):
        for _ in range(2):
            assert choose_backend("auto", torch.device("cuda"), torch.bfloat16, 128) == "triton"
            assert choose_backend("auto", torch.device("cpu"), torch.float32, 128) == "sdpa"
            assert choose_backend("auto", torch.device("cuda"), torch.float64, 128) == "sdpa"
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "attention on cuda runs on triton",
        "attention on cpu runs on sdpa",
        "attention on cuda runs on sdpa",
    ]


def test_the_kernels_are_traced_without_running() -> None:
    """Planning: fake tensors, on a machine that may have no GPU."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), as_on_cuda():
        q, k, v = (torch.empty(9, heads, 128, dtype=torch.bfloat16, requires_grad=True) for heads in (6, 1, 1))
        out = attend(q, k, v, Documents.from_lengths([4, 5]), 3)
        assert (out.shape, out.dtype) == (q.shape, q.dtype)
        assert "varlen_attention" in type(out.grad_fn).__name__
        grads = torch.autograd.grad(out.sum(), (q, k, v))
        assert [grad.shape for grad in grads] == [q.shape, k.shape, v.shape]


def test_mismatched_keys_are_refused() -> None:
    q, k, v = _inputs([3])
    for keys, message in (([2], "3 queries and 2 keys"), ([1, 2], "1 documents and keys of 2")):
        with pytest.raises(ValueError, match=message):
            attend(q, k, v, Documents.from_lengths([3]), None, keys=Documents.from_lengths(keys))
    with pytest.raises(ValueError, match="window is 0"):
        attend(q, k, v, Documents.from_lengths([3]), 0)
