"""What a pass@1 is worth: on sound tasks, by class, and with the graders' own errors counted in. Pure functions.

A verdict errs in two ways: a wrong solution is accepted (rate a), a right one refused (rate b). Of passes observed at a
rate y, (y - a) / (1 - a - b) are right ones (Rogan and Gladen, Am. J. Epidemiol. 107, 1978). Both rates come from the
audit of the same tasks, class by class, so that errors which fall on easy or hard tasks do not bias the whole; the
interval draws tasks anew with their verdicts and audits together.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..envs.audit.certificate import Certificate
from .metrics import interval_of, paired_difference, task_pass_rates, wilson_interval
from .verdict import Verdict

RESAMPLES = 4_000
FEWEST = 8
"""Tasks of a class from which it has error rates of its own; smaller ones are taken together."""
BLUNT = 0.1
"""Below so much of 1 - a - b verdicts say nothing: any rate is possible."""
SOUND = frozenset({"sound"})


def worth_of(
    verdicts: Sequence[Verdict],
    certificates: Mapping[str, Certificate],
    against: Sequence[Verdict] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """What a report says of a run beside its official pass@1.

    Args:
        certificates: by task id; of the run's tasks, at least of some.
        against: verdicts of another run, to be compared on sound tasks.
    Returns:
        "audited" (tasks with a certificate) and "num_tasks"; "classes" (kind -> "pass@1", "interval", "n"); "sound"
        (the same, of tasks that were measured and found sound; None where there is none); "errors" ("accepts_wrong" and
        "refuses_right", each "rate" and "interval", over "tasks" measured) and "corrected" ("pass@1" and "interval"),
        both None where no task was measured; "against_on_sound" where there is another run.
    """
    rates = task_pass_rates(verdicts)
    audited = {task: certificates[task] for task in rates if task in certificates}
    by_class: dict[str, list[float]] = {}
    for task, certificate in audited.items():
        by_class.setdefault(certificate.kind, []).append(rates[task])
    sound = [rates[task] for task, one in audited.items() if one.kind in SOUND]
    worth: dict[str, Any] = {
        "audited": len(audited),
        "num_tasks": len(rates),
        "classes": {kind: _summary(values) for kind, values in sorted(by_class.items())},
        "sound": _summary(sound) if sound else None,
        **_with_errors(rates, audited, seed),
    }
    if against is not None:
        worth["against_on_sound"] = _on_sound(verdicts, against, certificates)
    return worth


def _summary(values: Sequence[float]) -> dict[str, Any]:
    return {"pass@1": float(np.mean(values)), "interval": list(interval_of(values)), "n": len(values)}


def _on_sound(
    verdicts: Sequence[Verdict], against: Sequence[Verdict], certificates: Mapping[str, Certificate]
) -> dict[str, Any] | None:
    sound = {task for task, one in certificates.items() if one.kind in SOUND}
    mine, theirs = ([one for one in run if one.task_id in sound] for run in (verdicts, against))
    if not {one.task_id for one in mine} & {one.task_id for one in theirs}:
        return None
    found = paired_difference(theirs, mine)
    return {"mean": found.mean, "low": found.low, "high": found.high, "n": found.num_tasks, "p_value": found.p_value}


def _with_errors(rates: Mapping[str, float], audited: Mapping[str, Certificate], seed: int) -> dict[str, Any]:
    measured = {task: errors for task, one in audited.items() if (errors := error_rates(one)) is not None}
    if not measured:
        return {"errors": None, "corrected": None}
    tasks = list(rates)
    kinds = [audited[task].kind if task in measured else "" for task in tasks]
    accepts = np.array([measured[task][0] if task in measured else np.nan for task in tasks])
    refuses = np.array([measured[task][1] if task in measured else np.nan for task in tasks])
    passed = np.array([rates[task] for task in tasks])
    estimate, low, high = corrected_rate(passed, accepts, refuses, strata_of(kinds), seed=seed)

    def told(values: np.ndarray) -> dict[str, Any]:
        known = [float(value) for value in values if not np.isnan(value)]
        return {"rate": float(np.mean(known)), "interval": list(interval_of(known)), "tasks": len(known)}

    return {
        "errors": {"accepts_wrong": told(accepts), "refuses_right": told(refuses)},
        "corrected": {"pass@1": estimate, "interval": [low, high]},
    }


def error_rates(certificate: Certificate) -> tuple[float, float] | None:
    """(share of wrong solutions accepted, share of right ones refused) of a row; None where they were not measured.

    Wrong ones are mutants that some call tells from the reference, among all that were tried; right ones the reference
    with other choices.
    """
    mutants, choices = certificate.measured.get("mutants"), certificate.measured.get("choices")
    if not mutants or not mutants["tried"]:
        return None
    accepted = mutants.get("told_apart", 0) / mutants["tried"]
    refused = choices["refused"] / choices["tried"] if choices and choices["tried"] else 0.0
    return accepted, refused


def strata_of(kinds: Sequence[str]) -> np.ndarray:
    """[N] a number for each task's class; classes of few tasks share one. Tasks without a measured certificate ("")
    have one of their own: no rate is known of it."""
    counts = Counter(kinds)
    own = sorted(kind for kind, count in counts.items() if count >= FEWEST or not kind)
    return np.array([own.index(kind) + 1 if kind in own else 0 for kind in kinds])


def corrected_rate(
    passed: np.ndarray,
    accepts: np.ndarray,
    refuses: np.ndarray,
    strata: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, float, float]:
    """The rate of right solutions, and its 95 % interval.

    Args:
        passed: [N] share of each task's samples that passed.
        accepts, refuses: [N] error rates of each task as measured; NaN where they were not.
        strata: [N] numbers of classes, from 0; a class without a measured task takes the rates of all.
        seed, resamples: of the draws of tasks.
    Returns:
        (estimate, low, high), in [0, 1].
    """
    rng = np.random.default_rng(seed)
    weights = np.vstack(
        [np.ones(passed.size), rng.multinomial(passed.size, np.full(passed.size, 1 / passed.size), resamples)]
    )
    members = np.eye(strata.max() + 1)[strata]  # [N, S]
    known = ~np.isnan(accepts)
    total = weights @ members  # [R, S]
    rate = _ratio(weights @ (members * passed[:, None]), total, 0.0)
    audited = weights @ (members * known[:, None])
    everywhere = np.maximum(weights @ known.astype(float), 1e-9)
    errors, overall = [], []
    for values in (accepts, refuses):
        filled = np.where(known, values, 0.0)
        pooled = (weights @ filled) / everywhere
        overall.append(float(pooled[0]))
        errors.append(_ratio(weights @ (members * filled[:, None]), audited, pooled[:, None]))
    sharp = 1.0 - errors[0] - errors[1]
    right = (rate - errors[0]) / np.maximum(sharp, BLUNT)
    right = np.where(sharp < BLUNT, rng.random(right.shape), right)
    means = (right * total).sum(axis=1) / passed.size
    low, high = np.quantile(means[1:], [0.025, 0.975])
    # Resampling N tasks shows (N - 1) / N of the variance, and fewer tails than Student's t has.
    wider = float(np.sqrt(passed.size / max(1, passed.size - 1))) * (1.0 + 1.0 / passed.size)
    center = float(means[0])
    bounds = (center + (low - center) * wider, center + (high - center) * wider)
    if set(passed) in ({0.0}, {1.0}):  # all draws are alike, which says nothing: Wilson's bounds with the errors of all
        ends = [
            (end - overall[0]) / max(1.0 - sum(overall), BLUNT) for end in wilson_interval(passed.sum(), passed.size)
        ]
        bounds = (min(bounds[0], ends[0]), max(bounds[1], ends[1]))
    return tuple(float(np.clip(value, 0.0, 1.0)) for value in (center, *bounds))  # type: ignore[return-value]


def _ratio(above: np.ndarray, below: np.ndarray, otherwise: np.ndarray | float) -> np.ndarray:
    return np.where(below > 0, above / np.maximum(below, 1e-9), otherwise)
