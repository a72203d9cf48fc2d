"""A recipe from its tasks to its report, stage by stage. What a stage has written is not made again on a resume."""

import asyncio
import logging
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch

from ...errors import ConfigError
from ..engines.open import Places
from ..loops.trackers import check_tracker
from ..ranks.team import Ranks, RanksLost
from ..recipe.config import LayoutConfig
from ..recipe.recipe import Recipe
from .context import Interrupted, Run
from .folder import opened_run
from .order import Stage, stages_of
from .progress import Progress

logger = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    team: Ranks | None = None,
    places: Places | None = None,
    interruptible: Callable[[Run], AbstractContextManager[None]] | None = None,
) -> int:
    """Run a recipe.

    Args:
        out: folder of the run. Holds the resolved recipe, tasks, demonstrations, checkpoints, verdicts, metrics, and
            at the end ``report.json``, ``curves.png`` and ``episodes.txt``.
        resume: go on with what is in ``out``; without it a folder that holds a run is refused.
        team: the processes that train, where the recipe's layout splits the model; this is rank 0, or none of them.
            It alone makes tasks, samples and evaluates.
        places: where engines are started and episodes run, if elsewhere; then no process has the weights whole.
        interruptible: inside, a wish to end reaches the run; None: it is Ctrl-C.
    Returns:
        The exit status: 0, or 130 where it was interrupted (the state is saved).
    Raises:
        ConfigError: ``out`` holds another run, or is in use by another process.
    """
    if team is None and recipe.layout != LayoutConfig():
        raise ConfigError("the recipe's layout splits the model, and there is no team of ranks; remove layout")
    check_tracker(None if recipe.tracker == "none" else recipe.tracker)
    with opened_run(recipe, out, resume=resume):
        if team is None:
            torch.set_num_threads(recipe.num_threads)
        with Progress() as progress:
            progress.note(f"in the browser, while it goes on: {shlex.join(['verigym', 'view', str(out)])}")
            run = Run(recipe, out, progress, team, places)
            with (interruptible or _by_signal)(run):
                return asyncio.run(_run(run))


@contextmanager
def _by_signal(run: Run) -> Iterator[None]:
    previous = signal.signal(signal.SIGINT, lambda *_: run.interrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


async def _run(run: Run) -> int:
    try:
        await _stages(run)
    except Interrupted:
        run.progress.note(
            f"interrupted; `{shlex.join(['verigym', 'train', str(run.out), '--resume'])}` goes on from here"
        )
        return 130
    finally:
        await run.aclose()
    return 0


async def _to_its_end(run: Run, stage: Stage) -> None:
    while True:
        try:
            return await stage.run(run)
        except RanksLost as error:
            logger.warning("%s; all ranks are started again, from the last checkpoint", error)
            await run.renew_ranks()


async def _stages(run: Run) -> None:
    beside: list[asyncio.Task[None]] = []
    *stages, last = stages_of(run.recipe)
    try:
        for stage in stages:
            if run.recipe.overlap and stage.beside:
                beside.append(asyncio.create_task(stage.run(run)))
                await asyncio.sleep(0)  # it begins, and copies the weights
            else:
                await _to_its_end(run, stage)
                for task in [task for task in beside if task.done()]:
                    task.result()
        run.begin_beside()
        for task in beside:
            await task
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    await last.run(run)
