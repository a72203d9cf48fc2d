"""``verigym train --ray``: what is checked before anything starts, and what starts a run anew when its middle dies."""

import logging
import secrets
import signal
import time
from pathlib import Path
from typing import Any

from ...errors import ConfigError, TrainingError, VerigymError
from ...model.parallel.layout import Layout
from ..ranks.team import RanksLost
from ..recipe.dry_run import named_files
from ..recipe.recipe import Recipe
from .bundles import cluster_of, missing, needs_of
from .connect import (
    check_machines,
    connected,
    facts_of_machines,
    free_machines,
    told_machines,
    versions_here,
)

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


def run_on_cluster(
    address: str, recipe: Recipe, layout: Layout, out: Path, control: Any, *, resume: bool = False
) -> int:
    """Run a recipe on the Ray cluster at an address; ``local`` makes one of this machine.

    A rank or the controller that dies ends what runs, and all of it is started again from the last checkpoint, at most
    ``cluster.restarts`` times. Engines and episode workers that die are replaced while the run goes on.

    Args:
        control: see ``controller.Control``; a function that can be pickled.
    Returns:
        The exit status.
    Raises:
        ConfigError: Ray is not installed, or the cluster is not one that can run it; nothing has been started.
        TrainingError: it died too often.
    """
    config, needs = cluster_of(recipe), needs_of(recipe, layout)
    out = out.absolute()
    whole: dict[str, float] = {}
    for bundle in (bundle for need in needs for bundle in need.bundles):
        for name, value in bundle.items():
            whole[name] = whole.get(name, 0.0) + value
    with connected(address, machine=whole):
        from .leftovers import sweep_machines

        existed = out.exists()
        try:
            _await_room(needs, 0.0)
            check_machines(
                facts_of_machines(out, sees=[path for path in named_files(recipe) if path.exists()]),
                versions_here(),
                out,
                None,
            )
        except BaseException:
            if not existed and out.is_dir() and not any(out.iterdir()):
                out.rmdir()
            raise
        for sitting in range(config.restarts + 1):
            if sitting:
                _await_room(needs, config.wait_seconds)
            begun = resume or ((out / "recipe.json").exists() and sitting > 0)
            try:
                died = _sitting(control, recipe, out, begun, config.controller_cpus)
            finally:
                sweep_machines()
            if isinstance(died, int):
                return died
            logger.warning("the run has lost its ranks or its controller (%s); it is started again", died)
    raise TrainingError(
        f"the run was started {config.restarts + 1} times, and its ranks or its controller died each time; their "
        "output says why. Go on with --resume, or raise cluster.restarts"
    )


def _sitting(control: Any, recipe: Recipe, out: Path, resume: bool, cpus: float) -> int | str:
    """One controller from its start to its end: the exit status, or what killed it."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    from .controller import Controller
    from .placing import end, release_named

    # Two calls at once: a wish to end reaches the run.
    options = {"num_cpus": cpus, "max_concurrency": 2, "max_restarts": 0, "max_task_retries": 0}
    controller: Any = ray.remote(**options)(Controller).remote()
    room = f"verigym-{secrets.token_hex(8)}"
    previous = signal.signal(signal.SIGINT, lambda *_: controller.interrupt.remote())
    try:
        return int(ray.get(controller.run.remote(control, recipe, out, resume, room)))
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, RanksLost):
            return str(cause)
        raise cause if isinstance(cause, VerigymError) else TrainingError(str(error)) from error
    except RayError as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    finally:
        signal.signal(signal.SIGINT, previous)
        end(controller)
        release_named(room)  # and with it ends what it had started, were it dead before it could do so


def _await_room(needs: Any, seconds: float) -> None:
    """Raises ConfigError where the cluster has no room for the needs within so many seconds, with what it lacks."""
    deadline = time.monotonic() + seconds
    while True:
        machines = free_machines()
        lacks = missing(machines, needs)
        if lacks is None:
            return
        if time.monotonic() > deadline:
            raise ConfigError(
                f"the cluster is too small: {lacks}. Free: {told_machines(machines)}. Add machines, or ask for less in "
                "[cluster] and [engines]"
            )
        time.sleep(_LOOK_SECONDS)
