"""What learns in a stage: the model, its optimizer, its critic and its reference, on one rank of any number."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from ...errors import ConfigError
from ...model.decoder import Decoder
from ...model.lora import AnyDecoder, copy_trained, dropping
from ...model.parallel.checkpoint import read_pieces
from ...model.parallel.place import Place
from ...model.parallel.whole import gather_module, reshard, spread_module
from ..batching.packs import PackedBatch
from ..batching.sharing import Share
from ..objective.average import Average
from ..objective.critic import Critic
from ..objective.losses import Loss, sft_loss
from ..objective.objective import divergence_of, loss_of
from ..objective.reference import AdapterReference, reference_of
from ..objective.teacher import Teachers, open_teacher
from ..recipe.algorithms import OPDConfig, PPOConfig, RLConfig
from ..recipe.config import OptimConfig
from ..recipe.teachers import TeacherConfig, teacher_named
from .experience import Scorer
from .optim import Optimizer
from .pieces import WEIGHTS, module_pieces, names_in
from .step import TrainStep, loss_sums, mean_of

RANKS = "ranks"
"""Key of a state whose tensors every rank has written into a folder, which its value names."""
WHOLE = "whole"
"""Key of a state that one process has written: the folder of its weights, which ranks read their shards of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a stage trains for; it goes to every rank.

    Attributes:
        optim: of the model.
        rl: the algorithm; None for supervised training.
        teachers: those that are asked, by name; the algorithm's own need not be among them (``teacher_named``).
    """

    optim: OptimConfig
    rl: RLConfig | None = None
    teachers: Mapping[str, TeacherConfig] = field(default_factory=dict)

    @property
    def all_teachers(self) -> dict[str, TeacherConfig]:
        """The algorithm's own too."""
        own = {}
        if isinstance(self.rl, OPDConfig) and self.rl.teacher is not None and self.rl.teacher_weight:
            own = {self.rl.teacher: teacher_named(self.rl.teacher, dict(self.teachers))}
        return own | dict(self.teachers)

    @property
    def loss(self) -> Loss:
        return sft_loss if self.rl is None else loss_of(self.rl)


class Learning(Protocol):
    """What a loop has done for it, by this process (``Learner``) or by many (``ranks.team.Team``)."""

    @property
    def ways(self) -> int:
        """Ranks that have packs of their own."""
        ...

    @property
    def share(self) -> Share:
        """Whether packs are to be made for what their documents share; see ``sharing_of``."""
        ...

    def step(
        self, packs: Sequence[PackedBatch], *, divisor: float | None = None, critic_only: bool = False
    ) -> dict[str, float]:
        """One update from all packs of the step; see ``TrainStep.__call__``."""
        ...

    def mean_loss(self, packs: Sequence[PackedBatch]) -> float:
        """Weighted mean of the loss over packs, without gradients."""
        ...

    def columns(self, packs: Sequence[PackedBatch]) -> list[dict[str, Tensor]]:
        """What the weights say of the packs before a step; see ``Scorer.columns``."""
        ...

    def take_kept(self) -> list[dict[str, Tensor]]:
        """What the updates since the last call found at tokens that are kept to look at; see ``kept.found_at``."""
        ...

    def sync(self) -> None:
        """Bring the loop's decoder, which samples and is saved, to what has been learned."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All but the decoder's weights: whole tensors on the CPU, nothing of which changes later."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, whatever number of ranks wrote it, with the weights that the loop's decoder has now.

        Raises:
            ValueError: it is of another model.
        """
        ...


def sharing_of(rl: RLConfig | None, decoder: AnyDecoder, token_split: int = 1) -> Share:
    """What ``share_prefixes`` comes to for a model and a layout: "auto" is "off" where it cannot be done.

    Args:
        token_split: ranks that a pack's tokens are split over.
    Raises:
        ConfigError: it is "on" where it cannot be done.
    """
    if rl is None or rl.share_prefixes == "off":
        return "off"
    reason = ""
    if not isinstance(decoder, Decoder):
        reason = f"the model is a {type(decoder).__name__}, whose attention takes no tree"
    elif token_split > 1:
        reason = (
            f"{token_split} ranks split the tokens of a pack (layout.tensor x layout.context), and a token of a tree "
            "would need those before it on other ranks"
        )
    if reason and rl.share_prefixes == "on":
        raise ConfigError(f"share_prefixes is 'on', and {reason}; set it to 'auto' or 'off'")
    return "off" if reason else rl.share_prefixes


class Learner:
    """Everything that learns on one rank; alone, it is the whole ``Learning`` of a loop."""

    ways = 1

    def __init__(
        self,
        decoder: AnyDecoder,
        lesson: Lesson,
        *,
        place: Place | None = None,
    ) -> None:
        """
        Args:
            decoder: with the weights to begin with; sharded where there is a place.
        """
        rl = lesson.rl
        self.share: Share = sharing_of(rl, decoder, 1 if place is None else place.layout.token_split)
        duplicate: Callable[[Any], Any] = copy_trained if place is None else place.copy
        self.decoder, self._place, self._lesson = decoder, place, lesson
        self.optimizer = Optimizer(decoder, lesson.optim)
        self.reference: AnyDecoder | AdapterReference | None = None
        if rl is not None and rl.kl.coef:
            self.reference = reference_of(decoder, duplicate)
        self._duplicate = duplicate
        self.averages: dict[str, Average] = {}
        self.teachers = None if rl is None else self._open_teachers(rl, lesson.all_teachers)
        self.critic: Critic | None = None
        self.critic_optimizer: Optimizer | None = None
        if isinstance(rl, PPOConfig):
            self.critic = Critic(decoder, rl.critic.kind, duplicate=duplicate)
            self.critic_optimizer = Optimizer(self.critic, rl.critic.optim)
        self._scorer = (
            None
            if rl is None
            else Scorer(decoder, rl, reference=self.reference, teachers=self.teachers, critic=self.critic, place=place)
        )
        self._step = TrainStep(
            decoder,
            self.optimizer,
            lesson.loss,
            critic=self.critic,
            critic_optimizer=self.critic_optimizer,
            place=place,
            teachers=self.teachers if isinstance(rl, OPDConfig) and rl.is_exact else None,
        )

    def _open_teachers(self, rl: RLConfig, teachers: Mapping[str, TeacherConfig]) -> Teachers | None:
        models: dict[str, AnyDecoder] = {}
        for name, teacher in teachers.items():
            if teacher.policy == "ema":
                self.averages[name] = Average(self.decoder, teacher.decay, self._duplicate)
                models[name] = self.averages[name].decoder
            elif teacher.policy == "self":
                models[name] = self.decoder
            elif not teacher.is_served:
                models[name] = open_teacher(Path(str(teacher.checkpoint)), self.decoder, self._place)
        divergence = divergence_of(rl)  # of which servers' part comes with the tokens
        return Teachers(models, divergence) if models or (divergence and teachers) else None

    def step(
        self, packs: Sequence[PackedBatch], *, divisor: float | None = None, critic_only: bool = False
    ) -> dict[str, float]:
        # Dropout of adapters is for supervised updates: what is reinforced must be what was sampled from.
        with dropping(self.decoder) if self._lesson.rl is None else nullcontext():
            found = self._step(packs, divisor=divisor, critic_only=critic_only)
        if self.teachers is not None:
            self._reshard()
        for average in () if critic_only else self.averages.values():
            average.update(self.decoder)
        return found

    def mean_loss(self, packs: Sequence[PackedBatch]) -> float:
        return mean_of(*self.loss_sums(packs))

    def loss_sums(self, packs: Sequence[PackedBatch]) -> tuple[float, float]:
        """``step.loss_sums`` over the packs of all ranks."""
        found = loss_sums(self.decoder, packs, self._lesson.loss, self._place)
        self._reshard()
        return found

    def columns(self, packs: Sequence[PackedBatch]) -> list[dict[str, Tensor]]:
        assert self._scorer is not None, "only reinforcement learning scores before a step"
        found = self._scorer.columns(packs)
        self._reshard()
        return found

    def take_kept(self) -> list[dict[str, Tensor]]:
        taken, self._step.kept = self._step.kept, []
        return taken

    def sync(self) -> None:
        """The loop's decoder is the one that learns."""

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"optimizer": self.optimizer.state_dict()}
        if self.reference is not None:
            state["reference"] = (
                gather_module(self.reference) if isinstance(self.reference, nn.Module) else self.reference.state_dict()
            )
        if self.critic is not None and self.critic_optimizer is not None:
            state["critic"] = gather_module(self.critic)
            state["critic_optimizer"] = self.critic_optimizer.state_dict()
        if self.averages:
            state["averages"] = {name: average.state_dict() for name, average in self.averages.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if RANKS in state:
            self.restore(Path(state[RANKS]))
            return
        self.optimizer.load_state_dict(state["optimizer"])
        if self.reference is not None:
            if isinstance(self.reference, nn.Module):
                spread_module(state["reference"], self.reference)
            else:
                self.reference.load_state_dict(state["reference"])
        if self.critic is not None and self.critic_optimizer is not None:
            spread_module(state["critic"], self.critic)
            self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        for name, average in self.averages.items():
            average.load_state_dict(state["averages"][name])

    def pieces(self) -> dict[str, Tensor]:
        """Everything that ``state_dict`` says, and the weights, as views that stay where they are."""
        found = module_pieces(self.decoder, WEIGHTS) | _below("optimizer", self.optimizer.pieces())
        if isinstance(self.reference, nn.Module):
            found |= module_pieces(self.reference, "reference")
        elif self.reference is not None:
            found |= _below("reference", self.reference.state_dict())
        for name, average in self.averages.items():
            found |= module_pieces(average.decoder, f"averages.{name}")
        if self.critic is not None and self.critic_optimizer is not None:
            found |= module_pieces(self.critic, "critic")
            found |= _below("critic_optimizer", self.critic_optimizer.pieces())
        return found

    def restore(self, folder: Path) -> None:
        """Go on from what was written of ``pieces``, under any layout. Every rank must call this.

        Raises:
            CheckpointError: it is missing, broken, or of another model. ValueError: it is of other settings.
        """
        names = names_in(folder)
        optimizers = {"optimizer": self.optimizer, "critic_optimizer": self.critic_optimizer}
        for prefix, optimizer in optimizers.items():
            if optimizer is not None:
                optimizer.make_room(
                    {name.removeprefix(f"{prefix}.") for name in names if name.startswith(f"{prefix}.")}
                )
        pieces = self.pieces()
        read_pieces(folder, pieces)
        for prefix, optimizer in optimizers.items():
            if optimizer is not None:
                optimizer.num_updates = int(pieces[f"{prefix}.num_updates"])

    def _reshard(self) -> None:
        teachers = () if self.teachers is None else self.teachers.models.values()
        for module in (self.decoder, self.reference, *teachers, self.critic):
            if isinstance(module, nn.Module):
                reshard(module)


def _below(prefix: str, pieces: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in pieces.items()}
