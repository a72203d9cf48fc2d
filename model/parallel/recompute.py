"""What a layer keeps for the backward pass: all of it, its attention, or its input alone; on the device or the host."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from .layout import Layout

# Attention's work grows with the square of the tokens and its result does not: worth keeping.
_KEPT_NAME = "attention"  # in the name of torch's operators and of ours


def recompute_layers(layers: nn.ModuleList, layout: Layout) -> None:
    """Wrap the forward of every layer as the layout says. Before FSDP, so that its hooks stay outside."""
    for layer in layers:
        forward: Callable[..., Any] = layer.forward
        if layout.recompute == "full":
            forward = functools.partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
        elif layout.recompute == "selective":
            contexts = functools.partial(create_selective_checkpoint_contexts, _policy)
            forward = functools.partial(
                checkpoint, forward, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
            )
        if layout.offload:
            forward = functools.partial(_offloaded, forward)
        layer.forward = forward


def _policy(ctx: object, op: object, *args: object, **kwargs: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if _KEPT_NAME in str(op) else CheckpointPolicy.PREFER_RECOMPUTE


def _offloaded(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with save_on_cpu(pin_memory=torch.cuda.is_available()):
        return forward(*args, **kwargs)
