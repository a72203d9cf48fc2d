"""Two policies on one environment, episode beside episode, as the environment itself compares them."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..agent.sources import PolicyFor
from ..agent.speakers import Seat, seated
from ..agent.trajectory import Trajectory
from ..envs.sandbox.background import all_or_first_error
from ..envs.task import Task, read_jsonl
from ..errors import ConfigError, EnvironmentBug, GradingError, PolicyError, SandboxError
from ..model.chat.sampling import Sampling
from .metrics import mcnemar_p
from .run import MakeEnv

FILE = "trajectories.jsonl"


async def compare_runs(
    tasks: Sequence[Task],
    make_env: MakeEnv,
    policy_for: PolicyFor,
    *,
    first: Path,
    second: Path,
    sampling: Sampling,
    seats: Mapping[str, Seat] = MappingProxyType({}),
) -> dict[str, Any]:
    """What ``compare`` of the environment says of pairs: the same sample of the same task in two runs.

    Args:
        policy_for: has the seats that are "self".
        first, second: DIRs of the runs, with their trajectories.
        sampling: of whoever has a seat.
        seats: other speakers that the environment asks by name, such as a judge.
    Returns:
        "pairs", of which the second run's episode was "better" or "worse", or it was "even"; "p_value" of as many or
        more being uneven so (two-sided sign test); "parts" (name -> mean of the first run's, of the second's), and
        "failed" (kind of failure -> pairs that it left uncompared).
    Raises:
        ConfigError: a run has no trajectories, or the two have no pair.
    """
    before, after = _episodes(first), _episodes(second)
    by_id = {task.id: task for task in tasks}
    pairs = [(by_id[key[0]], before[key], after[key]) for key in after if key in before and key[0] in by_id]
    if not pairs:
        raise ConfigError(f"{first} and {second} have no sample of one task in common that was graded in both")

    async def one(task: Task, *episodes: Trajectory) -> list[Mapping[str, float]] | str:
        env = make_env(task)
        env.seat(seated(seats, policy_for(env, task), sampling))
        try:
            return await env.acompare(task, episodes)
        except (EnvironmentBug, GradingError, PolicyError, SandboxError) as error:
            return type(error).__name__

    return _summary(await all_or_first_error([one(*pair) for pair in pairs]))


def _episodes(folder: Path) -> dict[tuple[str, int], Trajectory]:
    """The episodes of a run that have a reward, by task and sample."""
    if not (folder / FILE).is_file():
        raise ConfigError(f"{folder} has no {FILE}; comparing episodes needs runs with --save-trajectories")
    rows = ((row.pop("index", 0), Trajectory.from_json(row)) for row in read_jsonl(folder / FILE))
    return {(one.task_id, index): one for index, one in rows if one.reward is not None}


def _summary(found: Sequence[list[Mapping[str, float]] | str]) -> dict[str, Any]:
    failed = Counter(one for one in found if isinstance(one, str))
    pairs = [one for one in found if not isinstance(one, str)]
    gains = [math.fsum(second.values()) - math.fsum(first.values()) for first, second in pairs]
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    parts: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for first, second in pairs:
        for name in {**first, **second}:
            parts[name].append((first.get(name, 0.0), second.get(name, 0.0)))
    return {
        "pairs": len(pairs),
        "better": better,
        "worse": worse,
        "even": len(pairs) - better - worse,
        "p_value": mcnemar_p(better, worse),
        "parts": {name: [math.fsum(side) / len(of) for side in zip(*of, strict=True)] for name, of in parts.items()},
        "failed": dict(failed),
    }


def told_pairs(pairs: Mapping[str, Any]) -> str:
    """A comparison in one line."""
    failed = sum(pairs["failed"].values())
    return (
        f"compared by the environment: better in {pairs['better']} of {pairs['pairs']} pairs, worse in "
        f"{pairs['worse']}, sign test p = {pairs['p_value']:.3g}"
        + (f"; {failed} could not be compared" if failed else "")
    )
