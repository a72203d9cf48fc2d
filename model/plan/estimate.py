"""How long a traced step takes, from stated speeds. An estimate: nothing here was measured by this package."""

from dataclasses import dataclass

from ..parallel.layout import Layout
from .trace import Traced

MOVED_PER_PARAMETER_BYTE = 7  # AdamW reads weight, gradient and both moments and writes all but the gradient


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One kind of GPU and what joins them.

    Attributes:
        memory_gib: of one GPU.
        flops: of dense bfloat16 matrix products, as the vendor states them, a second.
        efficiency: the share of ``flops`` that matrix products and attention are taken to reach.
        memory_bytes_s, link_bytes_s, network_bytes_s: of the GPU's memory, between GPUs of a machine in one direction,
            and between machines, for each GPU.
        gpus_per_machine: that ``link_bytes_s`` joins.
    """

    name: str
    memory_gib: float
    flops: float
    efficiency: float
    memory_bytes_s: float
    link_bytes_s: float
    network_bytes_s: float
    gpus_per_machine: int = 8


# Vendor's figures: NVIDIA H100 SXM and H200 data sheets; 400 Gbit/s of network a GPU. Links and network at 80 %.
HARDWARE = {
    "h100": Hardware(
        name="h100", memory_gib=79.0, flops=989e12, efficiency=0.5, memory_bytes_s=3.35e12,
        link_bytes_s=0.8 * 450e9, network_bytes_s=0.8 * 50e9,
    ),
    "h200": Hardware(
        name="h200", memory_gib=140.0, flops=989e12, efficiency=0.5, memory_bytes_s=4.8e12,
        link_bytes_s=0.8 * 450e9, network_bytes_s=0.8 * 50e9,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of one step of one pack a data-parallel rank.

    Attributes:
        compute: matrix products and attention, recomputation included.
        weights: gathering weights and reducing gradients, taken to overlap with ``compute``.
        tokens: collectives of the axes tensor and context, which nothing hides.
        update: clipping and AdamW, bound by the GPU's memory.
        total: max(compute, weights) + tokens + update.
    """

    compute: float
    weights: float
    tokens: float
    update: float

    @property
    def total(self) -> float:
        return max(self.compute, self.weights) + self.tokens + self.update


def step_time(traced: Traced, layout: Layout, hardware: Hardware) -> StepTime:
    """See ``StepTime``. Elementwise kernels and launches are not in it; ``efficiency`` stands for them."""
    spans = {
        "tensor": layout.tensor,
        "context": layout.tensor * layout.context,
    }
    weights = tokens = 0.0
    for (_, axis), sent in traced.sent_bytes.items():
        within = spans.get(axis, layout.num_ranks) <= hardware.gpus_per_machine
        seconds = sent / (hardware.link_bytes_s if within else hardware.network_bytes_s)
        if axis in spans:
            tokens += seconds
        else:
            weights += seconds
    return StepTime(
        compute=traced.flops / (hardware.flops * hardware.efficiency),
        weights=weights,
        tokens=tokens,
        update=MOVED_PER_PARAMETER_BYTE * traced.parameter_bytes / hardware.memory_bytes_s,
    )
