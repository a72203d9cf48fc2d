"""A run's teachers: found and compared with the student at its start, and asked, where they are servers."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from ...agent.remote_scorer import RemoteScorer
from ...agent.sources import tokens_parts
from ...agent.trajectory import Trajectory
from ...errors import ConfigError
from ...model.checkpoint import check_checkpoint
from ..learning.hindsight import Hindsight
from ..learning.served import ServedTeachers, num_likeliest
from ..recipe.algorithms import RLConfig
from ..recipe.per_family import ConfigOf
from ..recipe.recipe import Recipe, teachers_of
from ..recipe.stages import RLStage
from ..recipe.teachers import TeacherConfig


async def check_teachers(recipe: Recipe) -> None:
    """Look at checkpoints, and ask servers.

    Raises:
        ConfigError, CheckpointError, PolicyError: which teacher or server, and why.
    """
    teachers = teachers_of(recipe)
    for name, teacher in teachers.items():
        if teacher.tokenizer is not None and not Path(teacher.tokenizer).is_dir():
            what = "has the tokenizer of" if teacher.is_served else "is to be"
            raise ConfigError(
                f"there is no folder {teacher.tokenizer}, which {what} the teacher {name!r}; check teachers and "
                "train.teacher of rl and distill"
            )
        if teacher.checkpoint is not None:
            check_checkpoint(teacher.checkpoint)
    for stage in recipe.sampled_stages:
        for scorer in (await _connected(teachers_of(recipe, stage), stage)).values():
            await scorer.aclose()


@asynccontextmanager
async def served_teachers(
    recipe: Recipe, stage: RLStage, config_of: ConfigOf | None, hindsight: Hindsight | None, longest: int
) -> AsyncIterator[ServedTeachers | None]:
    """Those behind servers, while a stage asks them; None where there is none.

    Args:
        config_of: the settings of a family's tasks, where they are not the stage's.
        longest: tokens that an episode may have.
    Raises:
        ConfigError: a server does not tell what is needed, or reads less at once. PolicyError: there is none.
    """

    def settings(episode: Trajectory) -> RLConfig:
        return stage.train if config_of is None else config_of(episode.family, episode.task_id)

    scorers = await _connected(teachers_of(recipe, stage), stage)
    if hindsight is not None and scorers:
        room = min(one.max_context for one in scorers.values()) - 1
        hindsight = replace(hindsight, max_context=min(hindsight.max_context, room))
    served = ServedTeachers(scorers, settings, hindsight)
    try:
        short = [(name, one.max_context) for name, one in scorers.items() if one.max_context <= longest]
        if short:
            raise ConfigError(
                f"the teacher {short[0][0]!r} reads {short[0][1]} tokens at once, one of which it samples, and an "
                f"episode may have {longest}; give its server a longer context, or lower the episodes' token budget"
            )
        yield served if scorers else None
    finally:
        await served.aclose()


async def _connected(teachers: Mapping[str, TeacherConfig], stage: RLStage) -> dict[str, RemoteScorer]:
    found: dict[str, RemoteScorer] = {}
    try:
        for name, teacher in teachers.items():
            if teacher.is_served:
                _, base_url, model = tokens_parts(teacher.policy)
                found[name] = await RemoteScorer.connect(base_url, model, num_top=num_likeliest(stage.train))
    except BaseException:
        for scorer in found.values():
            await scorer.aclose()
        raise
    return found
