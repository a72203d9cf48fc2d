import importlib.util
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

if importlib.util.find_spec("triton") is None:
    collect_ignore_glob = ["test_*.py"]  # Triton is for Linux alone

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True, scope="session")
def quick_interpreter() -> Iterator[None]:
    """The interpreter prepares triton.language anew at every call of one kernel function by another, which is most of
    its time; for ours the launch has done it."""
    from triton.runtime import interpreter

    patched = interpreter.InterpretedFunction.__call__

    def call(self, *args, **kwargs):
        if not self.fn.__module__.startswith("verigym."):
            return patched(self, *args, **kwargs)
        return self.rewrite()(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.InterpretedFunction, "__call__", call)
        yield


def randn(*shape: int, seed: int) -> Tensor:
    """Float64 on the CPU, so that every dtype and device starts from the same numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_near(value: Tensor, exact: Tensor, tolerance: float) -> None:
    """Relative to the norm of the exact value, or to 1 where that is less; never true for NaN."""
    value = value.detach().cpu().double()
    assert value.shape == exact.shape
    error = (value - exact).norm() / exact.norm().clamp(min=1.0)
    assert error <= tolerance, f"relative error {error:.2e}"


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kernel is launched in this test."""
    from verigym.model.kernels import attention, decode, launch, loss_head, norm, pointwise, tree

    counts: Counter[str] = Counter()

    def counted(kernel, *args, **kwargs):
        counts[kernel.__name__] += 1
        launch.launch(kernel, *args, **kwargs)

    for module in (attention, decode, loss_head, norm, pointwise, tree):
        monkeypatch.setattr(module, "launch", counted)
    return counts
