"""Medians of repeated runs, the machine's own ceilings, and what a row of the table holds."""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One implementation at one shape. ``flops`` and ``bytes`` are what the task needs at least, the same for all
    implementations; ``error``: why it could not run."""

    task: str
    shape: str
    name: str
    flops: float
    bytes: float
    seconds: float | None = None
    spread: float | None = None
    runs: int = 0
    peak_mib: float | None = None
    error: str | None = None

    def as_dict(self, limits: dict[str, float]) -> dict[str, Any]:
        row = asdict(self)
        if self.seconds:
            rates = {"tflops": self.flops / self.seconds / 1e12, "gb_per_s": self.bytes / self.seconds / 1e9}
            row |= rates
            row["share_of_matmul"] = rates["tflops"] / limits["matmul_tflops"]
            row["share_of_copy"] = rates["gb_per_s"] / limits["copy_gb_per_s"]
        return row


def measured(
    device: torch.device,
    call: Callable[[], Any],
    *,
    smoke: bool,
    task: str,
    shape: str,
    name: str,
    flops: float,
    size: float,
) -> Row:
    """Time a call: median and quartile spread (seconds), and the memory it takes beyond what was there."""
    known = {"task": task, "shape": shape, "name": name, "flops": flops, "bytes": size}
    try:
        for _ in range(1 if smoke else 3):
            call()
        before = _reset_peak(device)
        times = _times(device, call, 2 if smoke else 20)
    # A peer that is missing or refuses a shape is a row too.
    except (RuntimeError, ImportError, AttributeError, NotImplementedError, ValueError, TypeError) as error:
        return Row(**known, error=f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}")
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20 if device.type == "cuda" else None
    quartiles = statistics.quantiles(times, n=4)
    return Row(
        **known, seconds=statistics.median(times), spread=quartiles[2] - quartiles[0], runs=len(times), peak_mib=peak
    )


def _reset_peak(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _times(device: torch.device, call: Callable[[], Any], count: int) -> list[float]:
    if device.type != "cuda":
        times = []
        for _ in range(count):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return times
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(count)]
    for start, end in events:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in events]


def ceilings(device: torch.device, *, smoke: bool) -> dict[str, float]:
    """What this machine reaches: bfloat16 matrix products on random numbers, and copies (bytes read and written)."""
    size = 128 if smoke else 8192
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randn((1 << 12) if smoke else (1 << 29), device=device)
    target = torch.empty_like(source)
    count = 2 if smoke else 20
    for _ in range(count):
        a @ b
        target.copy_(source)
    matmul = statistics.median(_times(device, lambda: a @ b, count))
    copy = statistics.median(_times(device, lambda: target.copy_(source), count))
    return {"matmul_tflops": 2 * size**3 / matmul / 1e12, "copy_gb_per_s": 2 * source.numel() * 4 / copy / 1e9}


def environment(device: torch.device) -> dict[str, Any]:
    versions = {name: _version(name) for name in ("torch", "triton", "flash-attn")}
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    return {"hardware": hardware, "python": platform.python_version(), "cuda": torch.version.cuda} | versions


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def table(rows: list[Row], limits: dict[str, float]) -> str:
    """For people."""
    lines = [f"ceilings: {limits['matmul_tflops']:.1f} TFLOP/s matmul, {limits['copy_gb_per_s']:.0f} GB/s copy"]
    lines.append(f"{'task':<22}{'shape':<34}{'name':<12}{'ms':>10}{'TFLOP/s':>10}{'GB/s':>9}{'matmul':>8}{'copy':>7}")
    for row in rows:
        values = row.as_dict(limits)
        head = f"{row.task:<22}{row.shape:<34}{row.name:<12}"
        if row.seconds is None:
            lines.append(f"{head}  {row.error}")
            continue
        lines.append(
            f"{head}{row.seconds * 1e3:>10.3f}{values['tflops']:>10.1f}{values['gb_per_s']:>9.0f}"
            f"{values['share_of_matmul']:>8.0%}{values['share_of_copy']:>7.0%}"
        )
    return "\n".join(lines)
