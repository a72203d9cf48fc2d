"""A decoder over a mesh: tensor parallel, recomputation, and FSDP2 around each layer."""

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import Shard

from ...errors import ConfigError
from ..decoder import Decoder
from ..huggingface import HuggingFaceDecoder
from ..lora import AnyDecoder
from .layout import FSDP, REPLICATE, TENSOR, Layout, Meshes
from .recompute import recompute_layers
from .tensor import split_tensors


def shard_decoder(decoder: AnyDecoder, layout: Layout, meshes: Meshes) -> None:
    """Split a decoder in place, whose weights are alike on all ranks or on the meta device. Adapters are put in
    afterwards: every rank has them whole.

    Afterwards parameters are DTensors, and ``decoder.score`` takes the tokens of this rank alone (see ``packs``). The
    gradient is the sum over all ranks; losses must have been divided by the global weight.

    Raises:
        ConfigError: the layout does not fit the decoder.
    """
    if isinstance(decoder, Decoder):
        layout.check(decoder.config)
        if layout.tensor > 1:
            split_tensors(decoder, meshes.weights[TENSOR])
        layers, placement = decoder.layers, _placement
    else:
        layers, placement = layers_of(decoder), None  # by rows, of which ranks may have unlike numbers
    recompute_layers(layers, layout)
    precision = MixedPrecisionPolicy()
    if layout.bf16:
        precision = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    axes = (REPLICATE, FSDP) if layout.replicate > 1 else FSDP
    options = {"mesh": meshes.weights[axes], "mp_policy": precision, "shard_placement_fn": placement}
    for layer in layers:
        fully_shard(layer, **options)
    if isinstance(decoder, Decoder) and not decoder.config.tied_embeddings:
        fully_shard(decoder.embed, **options)  # the head would find the matrix put away that is its own too
    fully_shard(decoder, **options)
    register_fsdp_forward_method(decoder, "score_and_states")  # what ``score`` calls
    register_fsdp_forward_method(decoder, "states")
    for module in decoder.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo cannot multiply on the way


def layers_of(decoder: HuggingFaceDecoder) -> nn.ModuleList:
    """The layers of a model of transformers. Raises ConfigError where they cannot be sharded one by one."""
    name, count = type(decoder.model).__name__, decoder.config.get_text_config().num_hidden_layers
    stacks = [one for one in decoder.model.modules() if isinstance(one, nn.ModuleList) and len(one) == count]
    if not stacks:
        raise ConfigError(f"ranks split a model by its layers, and {name} has no list of {count}; start one process")
    layers = stacks[0]
    owners: dict[nn.Parameter, int] = {}
    for number, layer in enumerate(layers):
        for parameter in layer.parameters():
            if owners.setdefault(parameter, number) != number:
                raise ConfigError(
                    f"ranks split a model by its layers, and those of {name} share weights; start one process"
                )
        if any(isinstance(one, nn.ModuleList) and key.endswith("experts") for key, one in layer.named_modules()):
            raise ConfigError(
                f"the experts of {name} are modules of their own, which no rank's tokens all reach; start one process"
            )
    return layers


def give_memory(decoder: nn.Module, device: torch.device) -> None:
    """Give a decoder's weights on the meta device memory, whose numbers are yet to be written, and bring the rest."""
    decoder._apply(lambda one: torch.empty_like(one, device=device) if one.device.type == "meta" else one.to(device))


def _placement(parameter: nn.Parameter) -> Shard:
    # Stacked weights have their stacks in dimension 0, where tensor parallel splits them; cut along the other one,
    # every rank has whole rows of each part. Weights that tensor parallel splits by columns are cut by rows.
    by_columns = parameter.dim() == 2 and Shard(1) not in getattr(parameter, "placements", ())
    return Shard(1 if by_columns else 0)
