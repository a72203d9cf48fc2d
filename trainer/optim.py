"""The optimizer with its schedule and gradient clipping: everything between a gradient and new weights."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .config import OptimConfig

logger = logging.getLogger(__name__)


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
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        vocabulary = vocabulary_weights(model) if config.matrices == "muon" else set(self.parameters)
        inner = [p for p in self.parameters if p.dim() == 2 and p not in vocabulary]
        rest = [p for p in self.parameters if p.dim() != 2 or p in vocabulary]
        groups = [
            {"params": [p for p in rest if p.dim() >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
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
        if inner:
            self._parts["muon"] = torch.optim.Muon(
                inner,
                lr=config.muon_lr or config.lr,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        self._peaks = {name: part.defaults["lr"] for name, part in self._parts.items()}

    def zero_grad(self) -> None:
        for part in self._parts.values():
            part.zero_grad(set_to_none=True)

    def update(self) -> dict[str, float]:
        """Clip, update the weights, and free the gradients.

        A gradient that is not finite leaves weights and moments as they were; it is logged and counted.

        Returns:
            "grad_norm" before clipping, "lr", and "skipped" (1 where the gradient was not finite).
        """
        limit = self.config.grad_clip or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, limit))
        rate = learning_rate(self.config, self.num_updates)
        finite = math.isfinite(norm)
        if finite:
            for name, part in self._parts.items():
                for group in part.param_groups:
                    group["lr"] = rate * (self._peaks[name] / self.config.lr)
                part.step()
        else:
            logger.warning("update %d skipped: the gradient's norm is %s", self.num_updates, norm)
        self.num_updates += 1
        self.zero_grad()
        return {"grad_norm": norm, "lr": rate, "skipped": float(not finite)}

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()} | {"num_updates": self.num_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError where the state is of other parameters. The settings stay those of this object."""
        if self._parts.keys() != state.keys() - {"num_updates"}:
            raise ValueError(f"the optimizer state is of {sorted(state)}, these settings need {sorted(self._parts)}")
        for name, part in self._parts.items():
            _load(part, state[name])
        self.num_updates = int(state["num_updates"])


def _load(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(ordered):
        moments = saved["state"].get(index, {})
        moment = moments.get("exp_avg", moments.get("momentum_buffer"))
        if moment is not None and moment.shape != parameter.shape:
            raise ValueError(
                f"the optimizer state's tensor {index} has shape {list(moment.shape)}, the model's has "
                f"{list(parameter.shape)}"
            )
    mine = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(saved))
    for group, settings in zip(optimizer.param_groups, mine, strict=True):
        group.update(settings)
