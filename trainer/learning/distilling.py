"""From what teachers say to the advantages and weights of an episode's tokens, and how much the teachers know."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...agent.trajectory import Trajectory
from ..batching.documents import Document
from ..objective.advantages import discounted
from ..recipe.algorithms import OPDConfig, RLConfig
from .credit import advantages_at, spread, trained_column
from .hindsight import Hints


def taught_by(config: RLConfig) -> str:
    """Name of the teacher that scores an episode of these settings; "": none."""
    return (config.teacher or "") if isinstance(config, OPDConfig) and config.teacher_weight else ""


def distil(
    documents: list[list[Document]],
    kept: Sequence[int],
    trajectories: Sequence[Trajectory],
    configs: Sequence[RLConfig],
) -> dict[str, float]:
    """On-policy distillation, with GRPO's advantage beside it where a recipe gives that a weight.

    Of sampled tokens each one's advantage is how much likelier the teacher finds it than the student did when it drew
    it. Exact divergences are a part of the loss of their own, whose weight is written beside the tokens.

    Args:
        configs: the settings of each trajectory.
    """
    weights = contrast(trajectories, kept)
    told = _Told()
    for index in kept:
        config = configs[index]
        assert isinstance(config, OPDConfig)
        mine = documents[index]
        values = config.reward_weight * advantages_at(mine)
        if config.is_exact:
            # Of a step without a group to compare there is no gain, which is not the same as a gain of 0.
            share = weights.get(index, 0.0) if weights else None
            documents[index] = _weighed(mine, values, config, share)
            continue
        if mine[0].taught:
            gap = told.add(mine, weights.get(index))
            bounded = gap if config.max_gap is None else gap.clip(-config.max_gap, config.max_gap)
            values = values + config.teacher_weight * discounted(bounded, config.discount)
        documents[index] = [replace(one, advantage=c) for one, c in zip(mine, spread(mine, values), strict=True)]
    return told.metrics()


class _Told:
    """What the teachers said of sampled tokens, added up."""

    def __init__(self) -> None:
        self._gaps: list[np.ndarray] = []
        self._gain = self._over = 0.0
        self._compared = False

    def add(self, documents: Sequence[Document], weight: float | None) -> np.ndarray:
        """[T] log-ratios of an episode's tokens: teacher over student."""
        teacher = np.concatenate([trained_column(one, "teacher_logprobs") for one in documents])
        student = np.concatenate([one.old_logprobs[one.loss_mask].astype(np.float64) for one in documents])
        gap = teacher - student
        self._gaps.append(gap)
        if weight is not None:
            self._compared = True
            self._gain += weight * float(teacher.mean())
            self._over += weight * float(gap.mean())
        return gap

    def metrics(self) -> dict[str, float]:
        found = {"trainer/teacher_kl/mean": -float(np.concatenate(self._gaps).mean())} if self._gaps else {}
        if self._compared:
            found["trainer/teacher_gain/mean"] = self._gain
            found["trainer/teacher_gain_over_student/mean"] = self._over
        return found


def hint_metrics(documents: Sequence[Sequence[Document]], hints: Hints | None) -> dict[str, float]:
    """How many episodes a teacher had something to say of, and how long what it was shown was."""
    taught = [mine for mine in documents if mine]
    if hints is None or not taught:
        return {}
    shown = [one.hint for mine in taught for one in mine if one.hint is not None]
    return {
        "trainer/taught/share": sum(any(one.taught for one in mine) for mine in taught) / len(taught),
        "trainer/hint_tokens/mean": sum(len(one.token_ids) for one in shown) / max(1, len(shown)),
        "trainer/hints_cut/count": float(hints.num_cut),
    }


def contrast(trajectories: Sequence[Trajectory], kept: Sequence[int]) -> dict[int, float]:
    """Weights of episodes, whose product with a quantity of each sums to how much more of it those that passed have
    than those of their group that did not, in the mean over groups that have both. Of other groups: none."""
    groups: dict[str, dict[bool, list[int]]] = {}
    for index in kept:
        passed = trajectories[index].passed
        if passed is not None:
            groups.setdefault(trajectories[index].group_id, {True: [], False: []})[passed].append(index)
    mixed = [one for one in groups.values() if one[True] and one[False]]
    return {
        index: (1.0 if passed else -1.0) / (len(members) * len(mixed))
        for one in mixed
        for passed, members in one.items()
        for index in members
    }


def _weighed(
    documents: Sequence[Document], advantages: np.ndarray, config: OPDConfig, share: float | None
) -> list[Document]:
    """Documents for a step that asks the teachers itself."""
    count = sum(int(one.loss_mask.sum()) for one in documents)
    found = []
    for one, column in zip(documents, spread(documents, advantages), strict=True):
        columns = {"teacher_weight": np.full(len(one), config.teacher_weight, np.float32)}
        if share is not None:
            columns["contrast"] = np.full(len(one), share / count, np.float32)
        found.append(replace(one, advantage=column, columns={**one.columns, **columns}))
    return found


def in_loss_units(documents: Sequence[Sequence[Document]]) -> list[tuple[Document, ...]]:
    """Contrasts as the step needs them: it weighs each token, and divides by the sum of all weights."""
    total = math.fsum(float(one.weights.sum()) for mine in documents for one in mine)
    found = []
    for mine in documents:
        changed = []
        for one in mine:
            if "contrast" in one.columns:
                scaled = (one.columns["contrast"] * (total / one.weight)).astype(np.float32)
                one = replace(one, columns={**one.columns, "contrast": scaled})
            changed.append(one)
        found.append(tuple(changed))
    return found
