"""One optimizer update over any number of packs and ranks, as if it were one batch."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from ...model.lora import AnyDecoder
from ...model.parallel.objects import all_gather_json
from ...model.parallel.place import Place
from ..batching.packs import PackedBatch
from ..objective.critic import Critic
from ..objective.losses import Loss, TokenLoss, echo_loss
from ..objective.teacher import Teachers
from .kept import COLUMN, found_at
from .optim import Optimizer
from .scores import Scores, known_tokens, score


class TrainStep:
    """Forward, backward and update. The gradient depends neither on how documents are packed nor on the ranks.

    The loss is the sum of weight x component over the trained tokens, divided by the sum of weights of the whole
    step, over all packs and, where torch.distributed is initialised, all ranks, whose gradients are summed. Where
    observations are learned too, ``echo_loss`` is added, over their own count of the whole step.
    """

    def __init__(
        self,
        decoder: AnyDecoder,
        optimizer: Optimizer,
        loss: Loss,
        *,
        critic: Critic | None = None,
        critic_optimizer: Optimizer | None = None,
        place: Place | None = None,
        teachers: Teachers | None = None,
    ) -> None:
        """
        Args:
            teachers: whose distributions those of the decoder are compared with; None: none.
            critic: predicts values for a loss that has a part for them; its own parameters are ``critic_optimizer``'s.
            place: this rank's, where the decoder is sharded. Then all ranks must have the same number of packs (some
                of which may be without a trained token), and those that share one the same ones.
        """
        self._decoder, self._optimizer, self._loss = decoder, optimizer, loss
        self._critic, self._critic_optimizer, self._place = critic, critic_optimizer, place
        self._teachers = teachers
        self._ranks_a_pack = 1 if place is None else place.layout.token_split
        self.kept: list[dict[str, Tensor]] = []
        """What the updates found at the tokens that are kept to look at (``kept.found_at``), until it is taken."""

    def __call__(
        self, packs: Sequence[PackedBatch], *, divisor: float | None = None, critic_only: bool = False
    ) -> dict[str, float]:
        """One update from this rank's packs.

        Args:
            divisor: this rank's share of what the sum is divided by, in place of its sum of weights.
            critic_only: leave the decoder as it is.
        Returns:
            means over the step's trained tokens: "loss" and the loss's metrics; maxima as "NAME/max"; "grad_norm",
            "lr", "skipped" (see Optimizer.update); "tokens", "trained_tokens" over all ranks.
        Raises:
            ValueError: no rank has a trained token.
        """
        metrics = self.accumulate(packs, divisor=divisor)
        if self._critic_optimizer is not None:
            metrics["critic_grad_norm"] = self._critic_optimizer.update()["grad_norm"]
        if critic_only:
            self._optimizer.zero_grad()
            return {**metrics, "grad_norm": 0.0, "lr": 0.0, "skipped": 0.0}
        return {**metrics, **self._optimizer.update()}

    def accumulate(self, packs: Sequence[PackedBatch], *, divisor: float | None = None) -> dict[str, float]:
        """The step's gradient, on every rank, in the parameters' ``grad``. Returns metrics as ``__call__``."""
        device = self._decoder.head.weight.device
        counts = [
            (
                float(pack.weights.sum(dtype=torch.float64)),
                pack.num_tokens,
                int(pack.loss_mask.sum()),
                int((pack.scored & ~pack.loss_mask).sum()),
            )
            for pack in packs
            if not pack.filler
        ]
        totals = torch.tensor(counts or [(0.0, 0, 0, 0)], dtype=torch.float64)
        totals = _reduce(totals.sum(0).to(device)) / self._ranks_a_pack
        if not totals[0] > 0:
            raise ValueError("the step has no trained token; give it at least one document with one")
        total = totals[0]
        if divisor is not None:
            total = _reduce(torch.tensor(divisor, dtype=torch.float64, device=device)) / self._ranks_a_pack
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        means: dict[str, Tensor] = {}
        maxima: dict[str, Tensor] = {}
        for pack in packs:
            trained = bool(pack.loss_mask.any())
            if self._place is None and not trained:
                continue
            pack = pack.to(device)
            scores = score(self._decoder, pack, self._critic, self._place, self._teachers)
            if not trained:
                _nothing(scores).backward()  # the ranks that have a token wait in every layer
                continue
            scores, echo = _apart(pack, scores, totals[3] * self._ranks_a_pack)
            known = known_tokens(pack, scores.index)
            # Each of the ranks that share a pack takes the loss of all of it, and their gradients are summed.
            weights = (pack.weights[scores.index] / (total * self._ranks_a_pack)).to(scores.logprobs.dtype)
            token_loss = self._loss(scores.logprobs, scores.entropy, known, scores.values, scores.taught)
            if COLUMN in pack.columns:
                self.kept.append(found_at(pack, scores, token_loss))
            loss = torch.dot(weights, token_loss.components)
            if echo is not None:
                loss = loss + echo
                means["echo_loss"] = means.get("echo_loss", 0.0) + echo.detach()
            loss.backward()
            _add_metrics(means, maxima, token_loss, weights, loss.detach())
        self._sum_gradients()
        metrics = _gather_metrics(means, maxima)
        return {**metrics, "tokens": float(totals[1]), "trained_tokens": float(totals[2])}

    @property
    def _optimizers(self) -> list[Optimizer]:
        return [one for one in (self._optimizer, self._critic_optimizer) if one is not None]

    def _sum_gradients(self) -> None:
        """Add up the gradients of all ranks; those of shards are summed already.

        Losses are divided by the global weight, so no mean is taken.
        """
        if not _is_distributed():
            return
        all_ = [parameter for optimizer in self._optimizers for parameter in optimizer.parameters]
        parameters = [parameter for parameter in all_ if not isinstance(parameter, DTensor)]
        if not parameters:
            return
        for parameter in parameters:
            if parameter.grad is None:  # this rank had no pack, or none that reached it
                parameter.grad = torch.zeros_like(parameter)
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        dist.all_reduce(flat)
        for grad, summed in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(summed.view_as(grad))


def _apart(pack: PackedBatch, scores: Scores, count: Tensor) -> tuple[Scores, Tensor | None]:
    """(scores of the trained tokens, the loss of the observations that are learned beside them or None)."""
    if "echo" not in pack.columns:
        return scores, None
    trained = pack.loss_mask[scores.index]
    observed = scores.at(~trained)
    loss = echo_loss(observed.logprobs, pack.columns["echo"][observed.index], count.clamp(min=1))
    return scores.at(trained), loss


def mean_loss(decoder: AnyDecoder, packs: Sequence[PackedBatch], loss: Loss) -> float:
    """Weighted mean of a loss over the packs, without gradients."""
    return mean_of(*loss_sums(decoder, packs, loss))


def mean_of(total: float, weight: float) -> float:
    """Of what ``loss_sums`` returns. Raises ValueError where no token had a weight."""
    if not weight:
        raise ValueError("there is no trained token to measure a loss on; give at least one document with one")
    return total / weight


@torch.no_grad()
def loss_sums(
    decoder: AnyDecoder, packs: Sequence[PackedBatch], loss: Loss, place: Place | None = None
) -> tuple[float, float]:
    """(the loss of each token times its weight, the weights), summed over the packs, without gradients.

    Args:
        place: this rank's, where the decoder is sharded: then the sums are over the packs of all ranks.
    """
    device = decoder.head.weight.device
    total, weight = 0.0, 0.0
    for pack in packs:
        pack = pack.to(device)
        scores = score(decoder, pack, place=place)
        if not scores.index.numel():
            continue
        components = loss(scores.logprobs, scores.entropy, known_tokens(pack, scores.index)).components
        weights = pack.weights[scores.index].double()
        total += float(torch.dot(weights, components.double()))
        weight += float(weights.sum())
    if place is not None:
        total, weight = _reduce(torch.tensor([total, weight], dtype=torch.float64, device=device)).tolist()
    return total, weight


def _nothing(scores: Scores) -> Tensor:
    """0, with the gradients of a pack that has no trained token: zeros."""
    taught = None if scores.taught is None else scores.taught.divergence
    columns = [one for one in (scores.logprobs, scores.entropy, scores.values, taught) if one is not None]
    return torch.stack([column.sum() for column in columns]).sum() * 0.0


def _add_metrics(
    means: dict[str, Tensor], maxima: dict[str, Tensor], loss: TokenLoss, weights: Tensor, total: Tensor
) -> None:
    values = {
        "loss": total,
        **{name: torch.dot(weights, value.to(weights.dtype)) for name, value in loss.metrics.items()},
    }
    for name, value in values.items():
        means[name] = means[name] + value if name in means else value
    for name, value in loss.maxima.items():
        top = value.max()
        maxima[name] = torch.maximum(maxima[name], top) if name in maxima else top


def _gather_metrics(means: dict[str, Tensor], maxima: dict[str, Tensor]) -> dict[str, float]:
    """Over all ranks; a rank without packs has no names of its own, so names travel with the values."""
    rows = [({name: float(v) for name, v in means.items()}, {name: float(v) for name, v in maxima.items()})]
    if _is_distributed():
        rows = all_gather_json(rows[0])
    result: dict[str, float] = {}
    for mean, top in rows:
        for name, value in mean.items():
            result[name] = result.get(name, 0.0) + value
        for name, value in top.items():
            key = f"{name}/max"
            result[key] = max(result.get(key, value), value)
    return result


def _reduce(value: Tensor) -> Tensor:
    if _is_distributed():
        dist.all_reduce(value)
    return value


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
