"""One training step of the whole model as one rank of a cluster sees it: fake tensors, fake process group, real code.

What runs is the decoder, its sharding and the loss head of this package, autograd, clipping and AdamW of torch. Nothing
is computed and no memory is taken: operators yield tensors that have a shape alone. The device is the CPU, as fake CUDA
devices have no streams without a driver; so attention and norms, whose CPU versions keep more, are ``plan.attention``
and ``plan.norm``.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from ..attention import Documents, KeyValueCache
from ..config import DecoderConfig
from ..decoder import Decoder, RMSNorm
from ..divergence import Divergence, TeacherStates, score_against
from ..parallel.layout import FLAT, FSDP, TENSOR, Layout, Meshes
from ..parallel.optim import clip_gradients
from ..parallel.packs import Share, share_of, whole_of
from ..parallel.sharded import shard_decoder
from .attention import PlannedAttention, plan_attention
from .meter import Meter
from .norm import plan_norm

Head = Literal["fused", "naive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """What one rank needs for one step with one pack.

    Attributes:
        num_parameters: of the whole model.
        peak_bytes: memory in use at most, without what the allocator and CUDA themselves take.
        parameter_bytes, optimizer_bytes: this rank's shards: weights in float32, two moments.
        gradient_bytes: this rank's shards of gradients, in float32, at the peak.
        activation_bytes: the rest at the peak: activations, weights gathered from other ranks, temporary buffers.
        teacher_bytes: this rank's shards of a teacher with weights of its own.
        flops: of this rank.
        sent_bytes: by (kind of collective, axis of the mesh).
    """

    num_parameters: int
    peak_bytes: int
    parameter_bytes: int
    optimizer_bytes: int
    gradient_bytes: int
    activation_bytes: int
    flops: int
    sent_bytes: dict[tuple[str, str], float]
    teacher_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """A teacher to plan with.

    Attributes:
        divergence: exact, at every token.
        config: of its weights; None: it is the policy under its present ones.
    """

    divergence: Divergence
    config: DecoderConfig | None


def trace_step(
    config: DecoderConfig,
    layout: Layout,
    lengths: Sequence[int],
    *,
    head: Head = "fused",
    rank: int = -1,
    teaching: Teaching | None = None,
) -> Traced:
    """Trace forward, loss, backward, clipping and the update of one rank.

    Args:
        lengths: tokens of each document of the pack that a data-parallel rank trains on.
        head: "naive" makes all logits at once, as a comparison.
        rank: which; the last by default, which under context parallel has most to attend to.
        teaching: compares the distributions with a teacher's; None: nobody's.
    Raises:
        ConfigError: the layout does not fit.
    """
    layout.check(config, max(lengths))
    with _fake_world(layout.num_ranks, rank % layout.num_ranks):
        # Outside the fake mode: a mesh reads its own tensor of ranks.
        with torch.device("meta"):
            decoder = Decoder(config)
        if head == "naive":
            decoder.score_and_states = MethodType(_naive_score, decoder)  # type: ignore[method-assign]
        num_parameters = sum(parameter.numel() for parameter in decoder.parameters())
        meshes = Meshes.of(layout, "cpu")
        for module in decoder.modules():
            if isinstance(module, RMSNorm):
                module.forward = functools.partial(plan_norm, module)
        shard_decoder(decoder, layout, meshes)
        teacher = None if teaching is None else _planned_teacher(teaching, layout, meshes)
        share = share_of(lengths, layout, meshes, attention=plan_attention)
        with FakeTensorMode(allow_non_fake_inputs=True):
            student = decoder.to_empty(device="cpu")
            step, others = _step, []
            if teaching is not None:
                model = student if teacher is None else teacher.to_empty(device="cpu").requires_grad_(False)
                step = functools.partial(_taught_step, model, teaching.divergence, (layout, meshes))
                others = [] if teacher is None else list(model.parameters())
            meter, parameters, moments = _run(student, share, _groups(meshes), step, others)
        parameter_bytes, optimizer_bytes = _num_bytes(parameters), _num_bytes(moments)
        gradient_bytes = meter.at_peak.get("gradients", 0)
        return Traced(
            num_parameters=num_parameters,
            peak_bytes=meter.peak,
            parameter_bytes=parameter_bytes,
            optimizer_bytes=optimizer_bytes,
            gradient_bytes=gradient_bytes,
            activation_bytes=meter.peak - parameter_bytes - optimizer_bytes - gradient_bytes - _num_bytes(others),
            teacher_bytes=_num_bytes(others),
            flops=meter.flops,
            sent_bytes=dict(meter.sent),
        )


def _planned_teacher(teaching: Teaching, layout: Layout, meshes: Meshes) -> Decoder | None:
    """A teacher with weights of its own, in shards; None where it is the student."""
    if teaching.config is None:
        return None
    with torch.device("meta"):
        teacher = Decoder(teaching.config)
    for module in teacher.modules():
        if isinstance(module, RMSNorm):
            module.forward = functools.partial(plan_norm, module)
    shard_decoder(teacher, layout, meshes)
    return teacher


def _run(
    decoder: Decoder,
    share: Share,
    groups: dict[str, tuple[str, int]],
    step: Callable[..., None],
    others: Sequence[Tensor],
) -> tuple[Meter, Sequence[Tensor], Sequence[Tensor]]:
    """(the meter after one step, parameters, moments)."""
    parameters = list(decoder.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=True)
    # A step before the one that is followed: it makes the moments, and DTensor works out the layout of every operator
    # it meets for the first time on tensors of the whole model's shape, which are no memory of a step.
    step(decoder, optimizer, share)
    optimizer.zero_grad(set_to_none=True)
    moments = [kept[name] for kept in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    meter = Meter(groups, lambda: {"gradients": _num_bytes(p.grad for p in parameters if p.grad is not None)})
    with meter:
        for value in (*parameters, *moments, *others):
            meter.follow(_local(value).untyped_storage())
        step(decoder, optimizer, share)
    return meter, parameters, moments


def _step(decoder: Decoder, optimizer: torch.optim.Optimizer, share: Share) -> None:
    count = share.own.stop - share.own.start
    ids, targets = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
    old, advantages, weights = torch.zeros(count), torch.zeros(count), torch.zeros(count)
    cache = share.cache or PlannedAttention(share.documents)
    logprobs, entropy = decoder.score(ids, share.documents, targets, cache=cache)
    ratio = (logprobs - old).exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages)
    loss = -torch.dot(weights, surrogate + 0.001 * entropy)
    del ratio, surrogate, logprobs, entropy
    loss.backward()
    clip_gradients(decoder.parameters(), 1.0)
    optimizer.step()


def _taught_step(
    teacher: Decoder,
    divergence: Divergence,
    place: tuple[Layout, Meshes],
    decoder: Decoder,
    optimizer: torch.optim.Optimizer,
    share: Share,
) -> None:
    """A step whose loss is an exact divergence at every token of the pack."""
    count = share.own.stop - share.own.start
    ids, targets = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
    cache = share.cache or PlannedAttention(share.documents)
    with torch.no_grad():
        hidden, weight = teacher.states(ids, share.documents, cache=cache)
        hidden = whole_of(hidden, *place)[share.own]  # on every rank that shares the pack, as the trainer has it
    said = TeacherStates(hidden=hidden, weight=weight)
    against = [(torch.arange(count), said)]
    found = score_against(decoder, ids, share.documents, targets, against, divergence, cache=cache, cached=False)
    loss = torch.dot(torch.zeros(count), found.divergence + 0.001 * found.entropy + found.logprobs)
    del found, said, against, hidden
    loss.backward()
    clip_gradients(decoder.parameters(), 1.0)
    optimizer.step()


def _naive_score(
    decoder: Decoder,
    token_ids: Tensor,
    documents: Documents,
    targets: Tensor,
    temperature: float = 1.0,
    *,
    index: Tensor | None = None,
    cache: KeyValueCache | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """What ``Decoder.score_and_states`` returns, by way of all logits and their softmax in float32."""
    assert temperature == 1.0
    assert index is None
    hidden = decoder.forward(token_ids, documents, cache)
    logp = F.linear(hidden, decoder.head.matrix()).float().log_softmax(dim=-1)
    return logp.gather(1, targets[:, None]).sum(dim=1), -(logp.exp() * logp).sum(dim=-1), hidden


def _groups(meshes: Meshes) -> dict[str, tuple[str, int]]:
    flat = meshes.weights[FSDP, TENSOR]._flatten(FLAT)
    found: dict[str, tuple[str, int]] = {
        flat.get_group().group_name: (FLAT, flat.size())
    }  # first: where tensor is 1, it is fsdp's own group
    for axis in meshes.weights.mesh_dim_names or ():
        found[meshes.weights[axis].get_group().group_name] = (axis, meshes.weights[axis].size())
    found[meshes.context.group_name] = ("context", meshes.context.size())
    return found


def _local(value: Tensor) -> Tensor:
    return value.to_local() if isinstance(value, DTensor) else value


def _num_bytes(values: Iterator[Tensor] | Sequence[Tensor]) -> int:
    return sum(local.numel() * local.element_size() for local in map(_local, values))


@contextmanager
def _fake_world(size: int, rank: int) -> Iterator[None]:
    assert not dist.is_initialized(), "a plan makes its own process group; destroy the one there is"
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()
