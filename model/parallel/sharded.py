"""A decoder over a mesh: tensor parallel, recomputation, and FSDP2 around each layer."""

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import Shard

from ..decoder import Decoder
from .layout import FSDP, REPLICATE, TENSOR, Layout, Meshes
from .recompute import recompute_layers
from .tensor import split_tensors


def shard_decoder(decoder: Decoder, layout: Layout, meshes: Meshes) -> None:
    """Split a decoder in place, whose weights are alike on all ranks or on the meta device.

    Afterwards parameters are DTensors, and ``decoder.score`` takes the tokens of this rank alone (see ``packs``). The
    gradient is the sum over all ranks; losses must have been divided by the global weight.

    Raises:
        ConfigError: the layout does not fit the decoder.
    """
    layout.check(decoder.config)
    if layout.tensor > 1:
        split_tensors(decoder, meshes.weights[TENSOR])
    recompute_layers(decoder.layers, layout)
    precision = MixedPrecisionPolicy()
    if layout.bf16:
        precision = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    axes = (REPLICATE, FSDP) if layout.replicate > 1 else FSDP
    options = {"mesh": meshes.weights[axes], "mp_policy": precision, "shard_placement_fn": _placement}
    for layer in decoder.layers:
        fully_shard(layer, **options)
    if not decoder.config.tied_embeddings:  # the head would find the embedding's matrix put away
        fully_shard(decoder.embed, **options)
    fully_shard(decoder, **options)
    register_fsdp_forward_method(decoder, "score_and_states")  # what ``score`` calls
    register_fsdp_forward_method(decoder, "states")
    for module in decoder.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo cannot multiply on the way


def _placement(parameter: nn.Parameter) -> Shard:
    # Stacked weights have their stacks in dimension 0, where tensor parallel splits them; cut along the other one,
    # every rank has whole rows of each part. Weights that tensor parallel splits by columns are cut by rows.
    by_columns = parameter.dim() == 2 and Shard(1) not in getattr(parameter, "placements", ())
    return Shard(1 if by_columns else 0)
