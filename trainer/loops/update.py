"""What an update of reinforcement learning did, and why one had nothing to learn from."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from ...agent.trajectory import Trajectory
from ..learning.kept import KeptTokens
from .loop import StepResult

Keeps = Callable[[int, Sequence[str]], Collection[str]]
"""(step, ids of its groups) -> those whose tokens are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What ``RL.learn`` did: its metrics, the advantage of each episode, and kept tokens."""

    metrics: dict[str, float]
    advantages: tuple[float | None, ...]
    kept: tuple[KeptTokens, ...] = ()

    def result(self, step: int, metrics: Mapping[str, float], trajectories: tuple[Trajectory, ...]) -> StepResult:
        """The step that it was, with all metrics of that."""
        return StepResult(
            step=step, metrics=metrics, trajectories=trajectories, advantages=self.advantages, kept=self.kept
        )


def why_useless(result: StepResult) -> str:
    """Why a step had nothing to learn from, with the remedy."""
    episodes = result.trajectories
    failed = [one for one in episodes if one.is_infrastructure_failure]
    if len(failed) == len(episodes):
        detail = next((one.detail for one in failed if one.detail), "no detail")
        ending = failed[0].ending if failed else "none ran"
        return f"all {len(failed)} episodes failed ({ending}: {detail}); mend that first"
    if not any(one.num_sampled for one in episodes):
        return "no episode has a sampled token; check the token budgets and the context"
    rewards = sorted({one.reward for one in episodes if one.reward is not None})
    seen = f"every reward was {rewards[0]:g}" if len(rewards) == 1 else "the rewards of each group were the same"
    return (
        f"{seen} in {len(episodes) - len(failed)} episodes; take easier or harder tasks, sample more of each "
        "(group_size), or begin from a better checkpoint"
    )
