"""What is watched where a teacher teaches: whether it knows more than its student, and whether that collapses."""

import logging
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from ..recipe.distillation import CollapseConfig

logger = logging.getLogger(__name__)

GAIN = "trainer/teacher_gain_over_student/mean"
TEACHER, STUDENT = "trainer/teacher_passed/rate", "trainer/student_passed/rate"
ENTROPY, LENGTH, REWARD = "trainer/entropy/mean", "rollout/sampled_tokens/mean", "rollout/reward/mean"
DIVERGENCES = ("trainer/divergence/mean", "trainer/teacher_kl/mean")
DISTANCE = "trainer/teacher_kl/mean"
WATCHED = 5
"""Measures of the teacher's gain after which it is judged, and again after as many more; of its distance the first, of
its pass rate the least."""
FAR = 1.0
"""Nats a token beyond which a teacher does not go on from what the student says: a reinforced model is at 0.1 from the
one it began with, a small one that reads what it was never trained to read at 1.5."""


class CollapseWatch:
    """Compares the last steps with the first ones. Its state is in the checkpoint."""

    def __init__(self, config: CollapseConfig) -> None:
        self._config = config
        self._first: dict[str, list[float]] = {}
        self._last: dict[str, deque[float]] = {}
        self._gains: list[float] = []
        self._distances: list[float] = []
        self._knows_more = True
        self._passed: list[tuple[float, float]] = []
        self._passes_more = True

    def observe(self, metrics: Mapping[str, float]) -> str:
        """Take in a step. Returns why the run is to end; "" where it is to go on."""
        if GAIN in metrics:
            self._judge(metrics[GAIN])
        if TEACHER in metrics:
            self._judge_passes(metrics[TEACHER], metrics[STUDENT])
        if DISTANCE in metrics and len(self._distances) < WATCHED:
            self._judge_distance(metrics[DISTANCE])
        divergence = next((name for name in DIVERGENCES if name in metrics), "")
        config = self._config
        bounds = {
            REWARD: ("the mean reward", config.least_reward, None),
            ENTROPY: ("entropy", config.least_entropy, None),
            LENGTH: ("sampled tokens of an episode", config.least_length, config.most_length),
            divergence: ("distance to the teacher", None, config.most_divergence),
        }
        for name, (what, least, most) in bounds.items():
            if name not in metrics:
                continue
            first = self._first.setdefault(name, [])
            last = self._last.setdefault(name, deque(maxlen=config.window))
            last.append(metrics[name])
            if len(first) < config.window:
                first.append(metrics[name])
                continue
            then, now = statistics.fmean(first), statistics.fmean(last)
            if then <= 0:
                continue
            if least is not None and now < least * then:
                return self._told(what, then, now, f"less than {least:g} of that")
            if most is not None and now > most * then:
                return self._told(what, then, now, f"more than {most:g} times that")
        return ""

    def _judge(self, gain: float) -> None:
        self._gains.append(gain)
        if len(self._gains) % WATCHED:
            return
        mean, error = _mean_and_error(self._gains[-WATCHED:])
        knew_more, self._knows_more = self._knows_more, mean > 2 * error
        if knew_more and not self._knows_more:
            logger.warning(
                "this teacher does not know more than its student: over %d steps it finds a token of episodes that "
                "passed %+.4f nats likelier than of those that did not, beside what the student says (standard error "
                "%.4f). Where the student has come near to it there is nothing left to learn; else show it more "
                "(hindsight.parts), take another, or let rewards weigh more (reward_weight)",
                WATCHED,
                mean,
                error,
            )

    def _judge_passes(self, teacher: float, student: float) -> None:
        self._passed.append((teacher, student))
        if len(self._passed) < WATCHED:
            return
        mean, error = _mean_and_error([one - other for one, other in self._passed])
        passed_more, self._passes_more = self._passes_more, mean > 2 * error
        if passed_more and not self._passes_more:
            logger.warning(
                "this teacher does not know more than its student: over %d measures it passed %.1f %% of the tasks "
                "that it played with its block, and the student %.1f %% of the same without (difference %+.1f, "
                "standard error %.1f). Show it more (hindsight.parts), take another, or let rewards weigh more "
                "(reward_weight)",
                len(self._passed),
                *(100 * statistics.fmean(rates) for rates in zip(*self._passed, strict=True)),
                100 * mean,
                100 * error,
            )

    def _judge_distance(self, distance: float) -> None:
        self._distances.append(distance)
        mean = statistics.fmean(self._distances)
        if len(self._distances) == WATCHED and mean > FAR:
            logger.warning(
                "this teacher is far from its student: over %d steps it found a sampled token %.2f nats less likely. "
                "One that is the policy itself does not understand what it is shown, and teaches that: watch the "
                "rewards, show it something else (hindsight.parts), or let rewards weigh more (reward_weight)",
                WATCHED,
                mean,
            )

    def _told(self, what: str, then: float, now: float, bound: str) -> str:
        return (
            f"the student collapses: {what} was {then:.4g} in the first {self._config.window} steps and is {now:.4g}, "
            f"{bound}. Take the best checkpoint (rl.evaluation), a lower rate, a slower teacher (decay) or more weight "
            "on rewards; rl.train.collapse has the bounds"
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "first": {name: list(values) for name, values in self._first.items()},
            "last": {name: list(values) for name, values in self._last.items()},
            "gains": list(self._gains),
            "distances": list(self._distances),
            "knows_more": self._knows_more,
            "passed": list(self._passed),
            "passes_more": self._passes_more,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._first = {name: list(values) for name, values in state["first"].items()}
        self._last = {name: deque(values, maxlen=self._config.window) for name, values in state["last"].items()}
        self._gains, self._distances = list(state["gains"]), list(state.get("distances", ()))
        self._knows_more = bool(state.get("knows_more", True))
        self._passed = [(teacher, student) for teacher, student in state.get("passed", ())]
        self._passes_more = bool(state.get("passes_more", True))


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """(mean, its standard error) of two values or more."""
    return statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5
