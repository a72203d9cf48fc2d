"""What a run's teachers are shown: checked at the start, and made from its tasks and its experts' episodes."""

import logging

from ...agent.hindsight import story_of
from ...agent.trajectory import Trajectory
from ...envs.core import ToolEnv
from ...envs.scripts import script_of
from ...envs.task import Task
from ...errors import ConfigError, EnvironmentBug, TaskError
from ..learning.hindsight import Hindsight, encoder_of
from ..recipe.algorithms import OPDConfig
from ..recipe.per_family import FamilyAlgorithm
from ..recipe.recipe import Recipe, algorithms_of, teachers_of
from ..recipe.stages import RLStage
from ..recipe.teachers import OWN
from ..sampling.families import Family
from .context import Run

logger = logging.getLogger(__name__)


def hindsight_of(run: Run, stage: RLStage, max_context: int) -> Hindsight | None:
    """What teachers are shown in a stage. None where no family's teacher is shown anything."""
    parts = {part for config in _settings(run.recipe, stage).values() for part in config}
    if not parts:
        return None
    tasks = {(task.family, task.id): (family, task) for family in run.families for task in family.train}
    stories: dict[tuple[str, str], str] = {}
    for one in run.demonstrations if "demonstration" in parts else ():
        stories.setdefault((one.family, one.task_id), story_of(one))
    envs: dict[str, ToolEnv] = {}

    def reference(episode: Trajectory) -> str:
        family, task = tasks[episode.family, episode.task_id]
        env = envs.setdefault(family.config.name, family.make_env())
        try:
            return gold_of(env, task)
        except EnvironmentBug as bug:  # of the teacher's help, not of the episode
            logger.warning("hindsight goes without the gold answer: %s", bug)
            return ""

    return Hindsight(
        encode=encoder_of(run.trainee.tokenizer),
        max_context=max_context,
        reference=reference,
        demonstration=lambda episode: stories.get((episode.family, episode.task_id), ""),
        decode=run.trainee.text_of,
        own=[name for name, teacher in teachers_of(run.recipe, stage).items() if teacher.policy in OWN],
    )


def gold_of(env: ToolEnv, task: Task) -> str:
    """The gold answer to a task as text: its patch, else the last message of the gold episode.

    Raises:
        TaskError: there is none.
    """
    patch = task.hidden.get("patch")
    if isinstance(patch, str) and patch.strip():
        return patch
    return script_of(env, "gold", task)[-1].content


def check_hindsight(recipe: Recipe, family: Family) -> None:
    """Refuse, before anything runs, to show a teacher what a family does not have.

    Raises:
        ConfigError: it says which part, and what the family has.
    """
    for stage in recipe.sampled_stages:
        parts = _settings(recipe, stage).get(family.config.name, ())
        own: FamilyAlgorithm = getattr(family.config, stage.name)
        _check(recipe, family, parts, asked=bool(own.hindsight) or "hindsight" in stage.train.model_fields_set)


def _check(recipe: Recipe, family: Family, parts: tuple[str, ...], *, asked: bool) -> None:
    """
    Args:
        asked: the parts stand in the recipe; an algorithm's own are what it would tell where there is such a thing.
    """
    env, name = family.make_env(), family.config.name
    inner = getattr(env, "inner", env)
    if "feedback" in parts and asked and type(inner).feedback is ToolEnv.feedback:
        raise ConfigError(
            f'hindsight.parts of family {name!r} has "feedback", and {type(inner).__name__} gives none; take other '
            'parts, such as "verdict" and "sibling", or define feedback() in the environment'
        )
    if "tests" in parts and family.train and family.train[0].family != "swe":
        raise ConfigError(
            f'hindsight.parts of family {name!r} has "tests", and {type(inner).__name__} keeps no names of tests; '
            'remove it, or take "verdict"'
        )
    if "reference" in parts and family.train:
        try:
            gold_of(env, family.train[0])
        except (TaskError, IndexError) as error:
            raise ConfigError(
                f'hindsight.parts of family {name!r} has "reference", and its tasks state no gold answer ({error}); '
                "remove it"
            ) from error
    if "demonstration" in parts and not (recipe.uses_demonstrations and family.config.num_demonstrations):
        raise ConfigError(
            f'hindsight.parts of family {name!r} has "demonstration", and no expert plays; set num_demonstrations '
            "above 0 (and keep the stage sft), or remove it"
        )


def _settings(recipe: Recipe, stage: RLStage) -> dict[str, tuple[str, ...]]:
    """Name of a family -> the parts that its teacher is shown."""
    found = {}
    for name, config in algorithms_of(recipe, stage).items():
        if isinstance(config, OPDConfig) and config.hindsight is not None and config.teacher_weight:
            found[name] = config.hindsight.parts
    return found
