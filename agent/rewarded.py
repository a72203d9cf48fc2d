"""What the turns of an episode earned, and the trajectories of the other seats that are trained."""

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from ..envs.speakers import Speaker
from ..errors import EnvironmentBug, VerigymError
from ..rewards.score import Score
from .segments import segments_of
from .speakers import PolicySpeaker
from .trajectory import Trajectory


def earned(found: Trajectory, score: Score | None, by_turn: tuple[float, ...], *, unit: bool) -> Trajectory:
    """The episode with its reward, whole and by turn.

    Args:
        score: of the episode; None: it has no reward.
        by_turn: what turns earned before the score.
        unit: map rewards from the score's bounds to [0, 1]: the whole one from [low, high], a turn's by the same
            factor, so that they still add up.
    """
    if score is None or found.reward is None:
        return found
    reward = _unit(score, score.value, unit)
    if not by_turn or not found.num_turns:
        return replace(found, reward=reward)
    low, high = score.bounds
    factor = 1.0 / (high - low) if unit else 1.0
    turns = [factor * value for value in by_turn] + [0.0] * (found.num_turns - len(by_turn))
    turns[-1] += reward - math.fsum(turns)
    return replace(found, reward=reward, turn_rewards=tuple(turns))


def _unit(score: Score, value: float, unit: bool) -> float:
    low, high = score.bounds
    return (value - low) / (high - low) if unit else value


def companions_of(
    found: Trajectory, score: Score | None, speakers: Mapping[str, Speaker], *, unit: bool
) -> tuple[Trajectory, ...]:
    """An episode's other seats that are trained, each with what ``score.others`` says that it earned. One that said
    nothing, or whose turns have no tokens, is none."""
    made = []
    for name, speaker in speakers.items():
        if not isinstance(speaker, PolicySpeaker) or not speaker.seat.train:
            continue
        tokens = [turn.tokens for turn in speaker.turns if turn.tokens is not None]
        if not tokens:
            continue
        reward = None
        if score is not None and found.reward is not None and name in score.others:
            reward = _unit(score, score.others[name], unit)
        made.append(
            replace(
                found,
                group_id=f"{found.group_id}/{name}",
                segments=segments_of(tokens),
                tree=None,
                reward=reward,
                passed=None if reward is None or score is None else score.others[name] >= score.bounds[1],
                breakdown={},
                turn_rewards=(),
                turn_tokens=tuple(len(one.token_ids) for one in tokens),
                evidence={},
                speaker=name,
                num_turns=len(speaker.turns),
                num_format_errors=0,
            )
        )
    return tuple(made)


def with_added(
    found: Trajectory, added: Mapping[str, float], factor: float, evidence: Mapping[str, Any] = MappingProxyType({})
) -> Trajectory:
    """The episode with what a comparison of its group adds to its reward, at the end of its last turn.

    Args:
        evidence: of the comparison, kept as the episode's ``evidence["compared"]``.
    """
    more = factor * math.fsum(added.values())
    turns = found.turn_rewards
    return replace(
        found,
        reward=(found.reward or 0.0) + more,
        breakdown={**found.breakdown, **added},
        evidence={**found.evidence, **({"compared": dict(evidence)} if evidence else {})},
        turn_rewards=(*turns[:-1], turns[-1] + more) if turns else (),
    )


def failed_comparison(found: Trajectory, error: VerigymError) -> Trajectory:
    """The episode of a group that could not be compared: it has no reward."""
    bug = isinstance(error, EnvironmentBug)
    return replace(
        found,
        ending="environment_failure" if bug else "grader_failure",
        reward=None,
        passed=None,
        breakdown={},
        turn_rewards=(),
        companions=(),
        detail=str(error),
        failed_in=error.hook if bug else "",
    )
