"""What each algorithm is made of: its loss, its baseline and its weighting. A new algorithm is a case in each."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from ...agent.trajectory import Trajectory
from ...model.divergence import Divergence
from ..recipe.algorithms import (
    CISPOConfig,
    DAPOConfig,
    DPPOConfig,
    DrGRPOConfig,
    GRPOConfig,
    GSPOConfig,
    MaxRLConfig,
    OPDConfig,
    OwnConfig,
    PPOConfig,
    ReinforcePPConfig,
    RLConfig,
    RLOOConfig,
)
from .advantages import GroupAdvantages, group_advantages, plain_advantages, shape_overlong
from .losses import Correction, PolicyLoss
from .turns import plain_turns, turn_advantages


def loss_of(config: RLConfig) -> PolicyLoss:
    """The loss per token of an algorithm with its settings."""
    kl = config.kl if config.kl.place == "loss" else None
    estimator = "k2" if kl is not None and kl.estimator == "k2" else "k3"
    correction = config.correction
    parts = {
        "entropy_coef": config.entropy_coef,
        "kl_coef": 0.0 if kl is None else kl.coef,
        "kl_estimator": estimator,
        "correction": None
        if correction.kind == "none"
        else Correction(kind=correction.kind, level=correction.level, cap=correction.cap, floor=correction.floor),
    }
    match config:
        case CISPOConfig():
            return PolicyLoss(max_weight=config.max_weight, **parts)
        case DPPOConfig():
            bounds = {"clip_low": config.clip_low, "clip_high": config.clip_high, "max_weight": config.max_weight}
            return PolicyLoss(divergence=config.divergence, **bounds, **parts)
        case GSPOConfig():
            return PolicyLoss(clip_low=config.clip_low, clip_high=config.clip_high, ratio="sequence_mean", **parts)
        case RLOOConfig():
            return PolicyLoss(clip_low=config.clip_low, clip_high=config.clip_high, ratio="sequence_product", **parts)
        case PPOConfig():
            critic = config.critic
            return PolicyLoss(
                clip_low=config.clip_low,
                clip_high=config.clip_high,
                value_coef=critic.coef,
                value_clip=critic.clip,
                **parts,
            )
        case GRPOConfig() | DrGRPOConfig() | DAPOConfig() | ReinforcePPConfig():
            return PolicyLoss(clip_low=config.clip_low, clip_high=config.clip_high, **parts)
        case OPDConfig():
            cap = config.divergence.cap
            return PolicyLoss(clip_low=config.clip_low, clip_high=config.clip_high, max_divergence=cap, **parts)
        case MaxRLConfig() | OwnConfig():
            return PolicyLoss(clip_low=config.clip_low, clip_high=config.clip_high, **parts)
    raise AssertionError(f"no loss for {type(config).__name__}")


def shaped_rewards(
    config: RLConfig, trajectories: Sequence[Trajectory], rewards: Sequence[float | None]
) -> list[float | None]:
    """Rewards with what an algorithm adds to them before it compares them."""
    if isinstance(config, DAPOConfig) and config.overlong_length is not None:
        return shape_overlong(
            trajectories,
            rewards,
            length=config.overlong_length,
            buffer=config.overlong_buffer,
            penalty=config.overlong_penalty,
        )
    return list(rewards)


def baselined(config: RLConfig, trajectories: Sequence[Trajectory], rewards: Sequence[float | None]) -> GroupAdvantages:
    """Rewards less the baseline that comes from the other samples of the task, where the algorithm has one."""
    by_turn = config.credit == "turn"
    match config:
        case GRPOConfig() | CISPOConfig() | DPPOConfig():
            scale = config.scale
        case DAPOConfig() | GSPOConfig():
            scale = "std"
        case DrGRPOConfig() | RLOOConfig():
            scale = "none"
        case MaxRLConfig():
            return group_advantages(trajectories, rewards, scale="mean", drop_uniform=config.drop_uniform_groups)
        case OPDConfig():
            # A lone episode has no baseline, and its teacher says as much of it as of others.
            plain, compared = plain_advantages(trajectories, rewards), group_advantages(trajectories, rewards)
            pairs = zip(plain.values, compared.values, strict=True)
            return replace(plain, values=tuple(None if one is None else other or 0.0 for one, other in pairs))
        case ReinforcePPConfig(baseline="group"):
            return (turn_advantages if by_turn else group_advantages)(trajectories, rewards)
        case _ if by_turn:
            return plain_turns(trajectories, rewards, ahead=not isinstance(config, PPOConfig))
        case _:
            return plain_advantages(trajectories, rewards)
    return (turn_advantages if by_turn else group_advantages)(
        trajectories,
        rewards,
        scale=scale,
        leave_one_out=isinstance(config, RLOOConfig),
        drop_uniform=config.drop_uniform_groups,
    )


def baselined_each(
    configs: Sequence[RLConfig], trajectories: Sequence[Trajectory], rewards: Sequence[float | None]
) -> GroupAdvantages:
    """``baselined`` where families compare their samples otherwise: ``configs`` has the settings of each trajectory."""
    kinds: list[RLConfig] = []
    kind_of = []
    for config in configs:
        place = next((number for number, kind in enumerate(kinds) if kind is config or kind == config), len(kinds))
        kinds += [config] if place == len(kinds) else []
        kind_of.append(place)
    if len(kinds) < 2:
        return baselined(kinds[0] if kinds else RLConfig(), trajectories, rewards)
    values: list[float | None] = [None] * len(trajectories)
    turns: list[tuple[float, ...] | None] = [None] * len(trajectories)
    parts = []
    for number, kind in enumerate(kinds):
        members = [index for index, place in enumerate(kind_of) if place == number]
        part = baselined(kind, [trajectories[index] for index in members], [rewards[index] for index in members])
        for place, index in enumerate(members):
            values[index] = part.values[place]
            turns[index] = part.turns[place] if part.turns else None
        parts.append(part)
    return GroupAdvantages(
        values=tuple(values),
        num_groups=sum(part.num_groups for part in parts),
        num_failed=sum(part.num_failed for part in parts),
        num_lone=sum(part.num_lone for part in parts),
        num_uniform=sum(part.num_uniform for part in parts),
        turns=tuple(turns) if any(part.turns for part in parts) else (),
    )


def divergence_of(config: RLConfig) -> Divergence | None:
    """What is compared with teachers in the step; None where nothing is."""
    if not isinstance(config, OPDConfig) or not config.is_exact:
        return None
    told = config.divergence
    return Divergence(beta=told.coefficient, support=told.support, support_of=told.support_of, tail=told.tail)


def weighting(config: RLConfig) -> Literal["token", "episode", "constant"]:
    """What counts the same in the loss: each token, each episode, or each token over a constant length."""
    match config:
        case GRPOConfig():
            return config.aggregation
        case GSPOConfig() | RLOOConfig():
            return "episode"
        case DrGRPOConfig():
            return "constant"
    return "token"
