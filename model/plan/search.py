"""The cheapest layout that fits: most tokens a second of those whose peak is within a GPU's memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ...errors import ConfigError
from ..config import DecoderConfig
from ..parallel.layout import Layout
from .estimate import Hardware, StepTime, step_time
from .trace import Head, Traced, trace_step

GIB = 2**30
_LEAST_TOKENS = 512  # of a rank: below, matrix products starve


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A layout and what a step under it needs."""

    layout: Layout
    traced: Traced
    time: StepTime

    @property
    def rank_seconds(self) -> float:
        """Seconds of one GPU for one pack: what is minimized."""
        return self.time.total * self.layout.token_split


def cheapest(
    config: DecoderConfig,
    num_gpus: int,
    lengths: Sequence[int],
    hardware: Hardware,
    memory_gib: float,
    tell: Callable[[Layout], None] = lambda layout: None,
) -> Candidate:
    """Try every split and, of each, the least recomputation that fits; the winner is traced whole.

    Raises:
        ConfigError: nothing fits; it says what comes closest.
    """
    found: list[Candidate] = []
    closest: Candidate | None = None
    for layout in splits(config, num_gpus, sum(lengths)):
        for recompute in ("full", "selective", "none"):
            candidate = _tried(config, replace(layout, recompute=recompute), lengths, hardware)
            tell(candidate.layout)
            if candidate.traced.peak_bytes > memory_gib * GIB:
                if closest is None or candidate.traced.peak_bytes < closest.traced.peak_bytes:
                    closest = candidate
                break
            found.append(candidate)
    for candidate in sorted(found, key=lambda one: one.rank_seconds):
        traced = trace_step(config, candidate.layout, lengths)
        if traced.peak_bytes <= memory_gib * GIB:
            return replace(candidate, traced=traced, time=step_time(traced, candidate.layout, hardware))
    least = f"; the least is {closest.traced.peak_bytes / GIB:.1f} GiB with {closest.layout}" if closest else ""
    raise ConfigError(f"no layout of {num_gpus} GPUs fits {memory_gib:g} GiB{least}. Add GPUs or shorten the packs")


def splits(config: DecoderConfig, num_gpus: int, num_tokens: int) -> Iterator[Layout]:
    """Every layout of the GPUs without replicas that the decoder and the tokens allow."""
    for tensor in (1, 2, 4, 8):
        for context in (1, 2, 4, 8, 16):
            split = tensor * context
            if num_gpus % split or num_tokens // split < _LEAST_TOKENS:
                continue
            layout = Layout(shard=num_gpus // split, context=context, tensor=tensor, bf16=True)
            try:
                layout.check(config)
            except ConfigError:
                continue
            yield layout


def trace_by_period(config: DecoderConfig, layout: Layout, lengths: Sequence[int], *, head: Head = "fused") -> Traced:
    """What ``trace_step`` finds, from the first 4 and 8 layers: each further period of four adds what the second did.

    Exact for parameters, flops and collectives, which are sums over layers; so is the peak where it grows with the
    layers, as tests compare. A decoder whose layer types have no period of four is traced whole.
    """
    if config.num_layers % 4 or config.num_layers <= 8 or not _has_period(config):
        return trace_step(config, layout, lengths, head=head)
    four, eight = (trace_step(one, layout, lengths, head=head) for one in (_first(config, 4), _first(config, 8)))
    periods = config.num_layers // 4 - 1

    def grown(name: str) -> int:
        first, second = getattr(four, name), getattr(eight, name)
        return first + periods * (second - first)

    sent = {key: four.sent_bytes[key] + periods * (eight.sent_bytes[key] - four.sent_bytes[key])
            for key in four.sent_bytes}  # fmt: skip
    names = [name for name in Traced.__slots__ if name != "sent_bytes"]
    return Traced(**{name: grown(name) for name in names}, sent_bytes=sent)


def _has_period(config: DecoderConfig) -> bool:
    """Whether the types of all layers but the last repeat every four."""
    return all(kind == config.layer_types[i % 4] for i, kind in enumerate(config.layer_types[:-1]))


def _first(config: DecoderConfig, count: int) -> DecoderConfig:
    """The decoder of the first layers and the last."""
    return replace(config, num_layers=count, layer_types=(*config.layer_types[: count - 1], config.layer_types[-1]))


def _tried(config: DecoderConfig, layout: Layout, lengths: Sequence[int], hardware: Hardware) -> Candidate:
    traced = trace_by_period(config, layout, lengths)
    return Candidate(layout=layout, traced=traced, time=step_time(traced, layout, hardware))
