"""The optimizer with its schedule and gradient clipping: everything between a gradient and new weights."""

import logging
import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ...model.parallel.optim import clip_gradients
from ...model.parallel.whole import cut, gather, spread, stacks_of
from ..recipe.config import OptimConfig
from .muon import Muon
from .pieces import pieces_of

logger = logging.getLogger(__name__)

_MOMENTS = {"adamw": ("exp_avg", "exp_avg_sq"), "muon": ("momentum_buffer",)}
"""What an optimizer keeps of a parameter, in its shape."""


def learning_rate(config: OptimConfig, num_updates: int) -> float:
    """Rate of the update after ``num_updates`` earlier ones. The first of W warm-up updates has lr / W, the last lr."""
    if num_updates < config.warmup_steps:
        return config.lr * (num_updates + 1) / config.warmup_steps
    if config.schedule == "constant" or config.total_steps is None:
        return config.lr
    done = (num_updates - config.warmup_steps) / (config.total_steps - config.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return config.lr * (config.min_lr_ratio + (1.0 - config.min_lr_ratio) * cosine)


def vocabulary_weights(model: nn.Module) -> set[nn.Parameter]:
    """Embeddings and heads: matrices with a row a token, for which Muon is not meant."""
    heads = [module for name, module in model.named_modules() if name.rpartition(".")[2] in ("head", "lm_head")]
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    return {parameter for module in (*heads, *tables) for parameter in module.parameters(recurse=False)}


class Optimizer:
    """AdamW, or Muon and AdamW, over a model's trainable parameters. Matrices decay; norms and other vectors do not."""

    def __init__(self, model: nn.Module, config: OptimConfig) -> None:
        self.config = config
        self.num_updates = 0
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.parameters = list(named.values())
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in named.items()}
        self._stacks = stacks_of(model)
        vocabulary = vocabulary_weights(model) if config.matrices == "muon" else set(self.parameters)
        inner = [p for p in self.parameters if p.dim() == 2 and p not in vocabulary]
        rest = [p for p in self.parameters if p.dim() != 2 or p in vocabulary]
        # One operator updates a group, and it takes shards or whole tensors.
        groups = [
            {"params": [p for p in rest if (p.dim() >= 2, isinstance(p, DTensor)) == kind], "weight_decay": decay}
            for kind, decay in (
                ((True, False), config.weight_decay),
                ((False, False), 0.0),
                ((True, True), config.weight_decay),
                ((False, True), 0.0),
            )
        ]
        self._parts: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(
                [group for group in groups if group["params"]],
                lr=config.lr,
                betas=config.betas,
                eps=config.eps,
                fused=True,
            )
        }
        # Muon makes whole matrices orthogonal: of those that are split, every rank updates a whole copy.
        self._copies: dict[nn.Parameter, nn.Parameter] = {p: _copy_of(p) for p in inner if isinstance(p, DTensor)}
        self._names |= {whole: self._names[shard] for shard, whole in self._copies.items()}
        if inner:
            self._parts["muon"] = Muon(
                [self._copies.get(p, p) for p in inner],
                lr=config.muon_lr or config.lr,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        self._peaks = {name: part.defaults["lr"] for name, part in self._parts.items()}

    def zero_grad(self) -> None:
        for parameter in (*self.parameters, *self._copies.values()):
            parameter.grad = None

    def update(self) -> dict[str, float]:
        """Clip, update the weights, and free the gradients.

        A gradient that is not finite leaves weights and moments as they were; it is logged and counted.

        Returns:
            "grad_norm" before clipping, "lr", and "skipped" (1 where the gradient was not finite).
        """
        limit = self.config.grad_clip or math.inf
        norm = float(clip_gradients(self.parameters, limit))
        rate = learning_rate(self.config, self.num_updates)
        finite = math.isfinite(norm)
        if finite:
            self._fill_copies()
            for name, part in self._parts.items():
                for group in part.param_groups:
                    group["lr"] = rate * (self._peaks[name] / self.config.lr)
                part.step()
            self._take_back()
        else:
            logger.warning("update %d skipped: the gradient's norm is %s", self.num_updates, norm)
        self.num_updates += 1
        self.zero_grad()
        return {"grad_norm": norm, "lr": rate, "skipped": float(not finite)}

    def _fill_copies(self) -> None:
        for shard, whole in self._copies.items():
            stacked = self._stacks.get(self._names[shard])
            with torch.no_grad():
                whole.copy_(gather(shard, stacked))
            whole.grad = None if shard.grad is None else gather(shard.grad, stacked)

    def _take_back(self) -> None:
        for shard, whole in self._copies.items():
            cut(whole, shard, self._stacks.get(self._names[shard]))

    def state_dict(self) -> dict[str, Any]:
        """Moments by the names of their parameters, whole and on the CPU; nothing in it changes later.

        Every rank must call this. It says nothing of the layout: any number of ranks can load it.
        """
        moments = {
            kind: {
                self._names[parameter]: {key: self._whole(parameter, value) for key, value in kept.items()}
                for parameter, kept in part.state.items()
            }
            for kind, part in self._parts.items()
        }
        return {**moments, "num_updates": self.num_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; the settings stay those of this object. Every rank must call this with rank 0's.

        Raises:
            ValueError: it is of other parameters.
        """
        if self._parts.keys() != state.keys() - {"num_updates"}:
            raise ValueError(f"the optimizer state is of {sorted(state)}, these settings need {sorted(self._parts)}")
        for kind, part in self._parts.items():
            parameters = {self._names[p]: p for group in part.param_groups for p in group["params"]}
            _check(state[kind], parameters)
            part.state.clear()
            for name, kept in state[kind].items():
                part.state[parameters[name]] = {key: self._own(name, parameters[name], kept[key]) for key in kept}
        self.num_updates = int(state["num_updates"])

    def pieces(self) -> dict[str, Tensor]:
        """Moments where they are: "KIND.KEY.PARAMETER" -> a view, and "num_updates"."""
        found: dict[str, Tensor] = {"num_updates": torch.tensor(self.num_updates)}
        for kind, part in self._parts.items():
            for parameter, kept in part.state.items():
                for key, value in kept.items():
                    found |= {
                        f"{kind}.{key}.{name}": view
                        for name, view in pieces_of(self._names[parameter], value, self._stacks)
                    }
        return found

    def make_room(self, names: Collection[str]) -> None:
        """Give every moment that a saved state has, by the names of ``pieces``, memory to be read into, and no other.

        Raises:
            ValueError: it is of other settings.
        """
        kinds = {name.partition(".")[0] for name in names} - {"num_updates"}
        if kinds - self._parts.keys():
            raise ValueError(f"the optimizer state is of {sorted(kinds)}, these settings need {sorted(self._parts)}")
        for kind, part in self._parts.items():
            part.state.clear()
            for parameter in (p for group in part.param_groups for p in group["params"]):
                first = next((name for name, _ in pieces_of(self._names[parameter], parameter, self._stacks)))
                for key in _MOMENTS[kind]:
                    if f"{kind}.{key}.{first}" in names:
                        part.state[parameter][key] = torch.zeros_like(parameter.detach())
                if kind == "adamw" and part.state.get(parameter):
                    step = torch.zeros((), dtype=torch.float32, device=parameter.device)
                    part.state[parameter] = {"step": step, **part.state[parameter]}

    def _whole(self, parameter: Tensor, value: Tensor) -> Tensor:
        return gather(value, self._stacks.get(self._names[parameter])).detach().to("cpu", copy=True)

    def _own(self, name: str, parameter: Tensor, whole: Tensor) -> Tensor:
        """This rank's part of a moment, laid out like its parameter; a counter is everyone's."""
        if whole.dim() == 0:
            own = torch.empty_like(whole, device=parameter.device)
            spread(whole, own)
            return own
        own = torch.empty_like(parameter.detach())
        spread(whole, own, self._stacks.get(name))
        return own


def _copy_of(shard: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(torch.empty(shard.shape, dtype=shard.dtype, device=shard.device))


def _check(saved: Mapping[str, Mapping[str, Tensor]], parameters: Mapping[str, Tensor]) -> None:
    for name, moments in saved.items():
        if name not in parameters:
            raise ValueError(f"the optimizer state is of a parameter {name!r} that this model has not")
        for moment in moments.values():
            if moment.dim() and moment.shape != parameters[name].shape:
                raise ValueError(
                    f"the optimizer state of {name} has shape {list(moment.shape)}, the parameter has "
                    f"{list(parameters[name].shape)}"
                )
