"""Ray's placement groups for what a run needs, and actors in them."""

import logging
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ...errors import ConfigError
from .bundles import Need, told
from .connect import free_machines, told_machines

logger = logging.getLogger(__name__)


def reserve(needs: Sequence[Need], seconds: float, name: str) -> list[PlacementGroup]:
    """Room for each need, in their order; all of them or none.

    Args:
        name: of the room. It stays when the actor that asked for it dies, until ``release_named`` or the driver's end.
    Raises:
        ConfigError: a need has found no room in time.
    """
    groups: list[PlacementGroup] = []
    try:
        for number, need in enumerate(needs):
            bundles = [dict(bundle) for bundle in need.bundles]
            group = placement_group(bundles, strategy=need.strategy, name=f"{name}-{number}")
            groups.append(group)
            if not group.wait(seconds):
                raise ConfigError(
                    f"the cluster has made no room for {len(need.bundles)} {need.name} ({told(need.bundles[0])} each) "
                    f"in {seconds:g} s; free now: {told_machines(free_machines())}"
                )
    except BaseException:
        release(groups)
        raise
    return groups


def release(groups: Sequence[PlacementGroup]) -> None:
    """Give room back; actors in it are ended."""
    for group in groups:
        remove_placement_group(group)


def release_named(name: str) -> None:
    """Give back what ``reserve`` has found under a name, whoever asked for it."""
    for row in placement_group_table().values():
        if str(row["name"]).startswith(f"{name}-") and row["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(row["placement_group_id"]))))


def placed(kind: type, group: PlacementGroup, bundle: int, **options: Any) -> Any:
    """A class as an actor in a bundle. Ray never restarts it: whoever placed it decides what becomes of its
    work."""
    where = PlacementGroupSchedulingStrategy(
        placement_group=group, placement_group_bundle_index=bundle, placement_group_capture_child_tasks=False
    )
    return ray.remote(scheduling_strategy=where, max_restarts=0, max_task_retries=0, **options)(kind)


def end(actor: Any) -> None:
    """End an actor now, whatever it does."""
    try:
        ray.kill(actor, no_restart=True)
    except Exception as error:  # it is gone, or its machine is
        logger.debug("an actor could not be ended: %s", error)
