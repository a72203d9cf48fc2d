"""How fast a run is: tokens a second, the share of the device's peak, memory, and who waits for whom."""

import resource
import time
from collections.abc import Mapping, Sequence

import torch

from ...model.flops import work_of
from ...model.lora import AnyDecoder
from ..batching.documents import Document
from ..batching.packs import PackedBatch
from .metrics import sampled_tokens

# Dense bfloat16 products in TFLOP/s, without sparsity, as NVIDIA's data sheets state them; the first name that is part
# of the device's own counts.
PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
}


def peak_of(device: torch.device) -> float | None:
    """TFLOP/s of a device; None for a CPU, and for what the table does not hold."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)


class Throughput:
    """Counts the work of a step, and says at its end what came of it."""

    def __init__(self, decoder: AnyDecoder, peak_tflops: float | None = None, num_devices: int = 1) -> None:
        """
        Args:
            peak_tflops: of a device; None looks it up, and where it is not known no share of it is reported.
            num_devices: that share the work.
        """
        self._device = decoder.head.weight.device
        self._work = work_of(decoder)
        peak = peak_of(self._device) if peak_tflops is None else peak_tflops
        self._peak = None if peak is None else peak * num_devices
        self._flops = 0

    def passed(self, documents: Sequence[Document], *, times: int) -> None:
        """Models of this size scored them, so many times, without gradients."""
        if self._work is not None:
            self._flops += times * sum(self._work.forward([len(one)], int(one.loss_mask.sum())) for one in documents)

    def trained(self, packs: Sequence[PackedBatch]) -> None:
        """An update learned from them."""
        if self._work is not None:
            self._flops += sum(self._work.update(one.lengths, int(one.loss_mask.sum())) for one in packs)

    def metrics(self, seconds: float, num_tokens: float) -> dict[str, float]:
        """Of the work since the last call.

        Args:
            seconds: wall clock that scoring and updates took.
            num_tokens: that the updates learned from, prompts and observations included.
        Returns:
            "trainer/tokens_per_second/mean", "trainer/tflops/mean" (a second) and, where the peak is known,
            "trainer/mfu/mean" (of 1), over ``seconds``; "trainer/memory_peak/mib" of the process so far, on a GPU of
            what torch took there.
        """
        flops, self._flops = self._flops, 0
        found = {"trainer/memory_peak/mib": peak_memory_mib(self._device)}
        if not seconds > 0 or not num_tokens:
            return found
        found["trainer/tokens_per_second/mean"] = num_tokens / seconds
        if self._work is not None:
            found["trainer/tflops/mean"] = flops / seconds / 1e12
            if self._peak is not None:
                found["trainer/mfu/mean"] = flops / seconds / 1e12 / self._peak
        return found


def peak_memory_mib(device: torch.device) -> float:
    """Of the process so far: what torch took of a GPU, else the largest resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB


class IdleClock:
    """Adds up the wall clock in which somebody had nothing to do."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._seconds = 0.0

    def note(self, idle: bool) -> None:
        """From now on, until the next note, they are idle or at work."""
        now = time.perf_counter()
        if self._since is not None:
            self._seconds += now - self._since
        self._since = now if idle else None

    def taken(self) -> float:
        """Seconds since the last call, of the times that have a note at their end."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def waiting_metrics(
    rollout: Mapping[str, float], *, sampling: float, sampler_idle: float, trainer_idle: float
) -> dict[str, float]:
    """Who waited for whom.

    Args:
        rollout: metrics of the step's episodes.
        sampling: seconds in which they were sampled.
        sampler_idle, trainer_idle: seconds of the step in which no episode ran, and in which no update did.
    Returns:
        "rollout/tokens_per_second/mean" of sampled tokens, "rollout/seconds/idle", "trainer/seconds/idle".
    """
    sampled = sampled_tokens(rollout)
    return {
        "rollout/tokens_per_second/mean": sampled / sampling if sampling > 0 else 0.0,
        "rollout/seconds/idle": sampler_idle,
        "trainer/seconds/idle": trainer_idle,
    }
