"""Episodes that workers run, to whoever would run them here: ``agent.harness.open.Rollout``."""

from collections.abc import Mapping
from types import MappingProxyType

from ...agent.failures import Failures
from ...agent.harness.open import Rollout
from ...agent.loop import Budget
from ...agent.policy import Policy, TokenPolicy
from ...agent.seeds import SeededPolicy
from ...agent.speakers import Seat
from ...agent.trajectory import Trajectory
from ...envs.core import ToolEnv
from ...envs.task import Task
from ...model.chat.sampling import Sampling
from .episodes import Request
from .ledger import Assignment
from .workers import Workers


class Elsewhere:
    """``Rollout`` by episode workers, with environments of theirs."""

    def __init__(self, workers: Workers, scene: str, act: Rollout | None = None) -> None:
        """
        Args:
            scene: the workers' name of what the episodes take.
            act: runs here what is not of the policy that is trained (scripts' episodes, and those before there are
                workers); None: workers run everything.
        """
        self._workers, self._scene, self._act = workers, scene, act

    async def __call__(
        self,
        env: ToolEnv,
        policy: Policy,
        task: Task,
        *,
        budget: Budget,
        sampling: Sampling,
        group_id: str = "",
        failures: Failures | None = None,
        seats: Mapping[str, Seat] = MappingProxyType({}),
        unit: bool = False,
    ) -> Trajectory:
        """See ``Rollout``. Of the environment here ``patch`` alone is written; the seats here are not used."""
        if self._act is not None and not (self._workers.is_open and _is_trained(policy)):
            options = {"budget": budget, "sampling": sampling, "group_id": group_id, "failures": failures}
            return await self._act(env, policy, task, **options, seats=seats, unit=unit)
        assert isinstance(policy, SeededPolicy), "every episode of a run has a place in it"
        place = policy.place

        def request_of(assignment: Assignment) -> Request:
            return Request(
                assignment=assignment,
                scene=self._scene,
                place=place,
                task=task,
                budget=budget,
                sampling=sampling,
                group_id=group_id,
                unit=unit,
            )

        found = await self._workers.run(request_of)
        env.patch = None if found is None else found.patch
        if found is not None:
            return found.result
        return Trajectory(
            task_id=task.id,
            family=task.family,
            group_id=group_id or task.id,
            ending="sandbox_failure",
            detail=f"its episode worker was lost {self._workers.most_asked} times",
        )


def _is_trained(policy: Policy) -> bool:
    return isinstance(policy, SeededPolicy) and isinstance(policy.inner, TokenPolicy)
