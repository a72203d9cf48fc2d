"""The families of a recipe: their tasks on disk, their environments, their experts."""

import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from ...agent.experts import BLIND, EXPERTS, Expert, always_say
from ...agent.harness.open import AgentSettings, Demonstrate, Rollout, by_own_loop, open_agent, open_demonstrator
from ...agent.loop import Budget, rollout
from ...agent.policy import play
from ...agent.speakers import Seat
from ...envs.adapters.wrapped import wrapped
from ...envs.core import ToolEnv
from ...envs.datasets.decontaminate import decontaminate_tasks, held_out_of
from ...envs.datasets.files import read_rows
from ...envs.datasets.training import LeftOut, TrainingSet, load_training_set
from ...envs.registry.ids import unmade
from ...envs.registry.opening import open_env, read_any_tasks
from ...envs.sandbox.choose import make_backend
from ...envs.sandbox.types import SandboxBackend
from ...envs.scripts import script_of
from ...envs.task import Task, write_jsonl
from ...envs.tools.hooks import TIMEOUT_S
from ...errors import ConfigError, EnvironmentBug, TaskError
from ...model.chat.messages import ToolSpec
from ..recipe.family import SMALL_SOURCES, AgentConfig, FamilyConfig
from ..recipe.per_family import FamilyAlgorithm
from ..recipe.recipe import Recipe
from .audits import task_weights
from .rollouts import EpisodePlan
from .seats import nothing_to_close, open_seats

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""(tasks made, tasks wanted)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family ready to train on.

    Attributes:
        config: of the recipe.
        train, held_out: tasks; no task is in both.
        make_env: a fresh environment.
        tools: of the environment.
        experts: by name, those the recipe shares out.
        trivial: the best policy that reads next to nothing, as a yardstick; None where none is known.
        seconds: wall clock of one episode.
        act: runs an episode of the policy that is trained; demonstrate: one that an expert plays, by the same agent.
        seats: other speakers of its episodes.
        compares: whether its environment compares the episodes of a group.
        close: frees what the seats hold.
        weights: task id -> share of the epochs that a training task takes part in; 1 for those left out.
    """

    config: FamilyConfig
    train: tuple[Task, ...]
    held_out: tuple[Task, ...]
    make_env: Callable[[], ToolEnv]
    tools: tuple[ToolSpec, ...]
    experts: Mapping[str, Expert]
    trivial: Expert | None
    seconds: float
    act: Rollout = rollout
    demonstrate: Demonstrate = by_own_loop
    seats: Mapping[str, Seat] = field(default_factory=dict)
    compares: bool = False
    close: Callable[[], Awaitable[None]] = nothing_to_close
    weights: Mapping[str, float] = field(default_factory=dict)

    def plan(self, max_context: int, stage: Literal["distill", "rl"] = "rl") -> EpisodePlan:
        """How to run an episode of this family in an engine with so much context.

        Args:
            stage: whose settings of this family count.
        """
        own: FamilyAlgorithm = getattr(self.config, stage)
        budget = Budget(turns=self.config.turns, tokens=max_context, seconds=self.seconds)
        return EpisodePlan(
            make_env=self.make_env,
            budget=budget,
            turn_tokens=self.config.turn_tokens,
            group_size=own.group_size,
            temperature=own.temperature,
            act=self.act,
            seats=self.seats,
            unit=self.config.reward == "unit",
            compares=self.compares,
            made_in_s=self.config.hook_timeout_s or TIMEOUT_S,
        )


async def prepare_family(config: FamilyConfig, recipe: Recipe, folder: Path, progress: Progress) -> Family:
    """Make, or load from an earlier run of the same recipe, the tasks of a family.

    Args:
        folder: of the run's tasks; ``NAME.train.jsonl`` and ``NAME.held_out.jsonl`` are written there, and for a
            training set ``NAME.left_out.jsonl``: each row that became no task, and why.
        progress: told as tasks get made.
    Raises:
        TaskError: too few tasks, or an expert that these tasks do not have.
        ConfigError: no such environment.
    """
    backend = make_backend(recipe.sandbox)
    family = open_family(config, recipe, backend=backend)
    train, held_out = (folder / f"{config.name}.{split}.jsonl" for split in ("train", "held_out"))
    if not (train.exists() and held_out.exists()):
        await _write_tasks(config, recipe, family.make_env(), backend, (train, held_out), progress)
    train_tasks, held_out_tasks = tuple(read_any_tasks(train)), tuple(read_any_tasks(held_out))
    for name in config.experts:
        if name not in family.experts:
            raise TaskError(f"family {config.name!r} has no expert {name!r}; it has {', '.join(family.experts)}")
    weights: dict[str, float] = {}
    if config.audit.is_on:
        weights = task_weights(config.audit, train_tasks, family=config.name, rows=config.tasks)
        train_tasks = tuple(task for task in train_tasks if weights.get(task.id, 1.0) > 0)
    trivial = _trivial(config, family.make_env(), train_tasks)
    return replace(family, train=train_tasks, held_out=held_out_tasks, trivial=trivial, weights=weights)


def open_family(config: FamilyConfig, recipe: Recipe, *, backend: SandboxBackend | None = None) -> Family:
    """A family without its tasks: all that it takes to run an episode of a task that somebody else has.

    Args:
        backend: of its sandboxes; None: as the recipe says.
    Raises:
        ConfigError: no such environment.
    """
    offered = {"sandbox": backend or make_backend(recipe.sandbox), "reuse_verdicts": True, **config.options}

    def make_env() -> ToolEnv:
        env = open_env(config.env, offered)
        if config.hook_timeout_s is not None:
            env.hook_timeout_s = config.hook_timeout_s
        return wrapped(env, config.wrappers)

    env = make_env()

    def make_another() -> ToolEnv:
        """With settings that an environment has been made with, so that what fails now is none of them."""
        try:
            return make_env()
        except ConfigError as error:
            raise unmade(config.env, error) from error

    experts: Mapping[str, Expert] = {
        **EXPERTS.get(config.tasks, {}),
        "gold": lambda task: play(script_of(env, "gold", task)),
        "empty": lambda task: play(script_of(env, "empty", task), on=True),
    }
    seats, close = open_seats(config.models)
    return Family(
        seats=seats,
        close=close,
        compares=env.compares,
        config=config,
        train=(),
        held_out=(),
        make_env=make_another,
        tools=env.tool_specs,
        experts=experts,
        trivial=None,
        seconds=recipe.episode_seconds,
        act=_acting(config.agent),
        demonstrate=open_demonstrator(config.agent.name),
    )


def _acting(agent: AgentConfig) -> Rollout:
    """What runs episodes. Raises ConfigError where there is no such agent."""
    if agent == AgentConfig():
        return rollout
    return open_agent(agent.name, AgentSettings(override=agent.sampling == "episode", at_once=agent.at_once))


async def _write_tasks(
    config: FamilyConfig,
    recipe: Recipe,
    env: ToolEnv,
    backend: SandboxBackend,
    paths: tuple[Path, Path],
    progress: Progress,
) -> None:
    wanted = config.num_train + config.num_held_out
    progress(0, wanted)
    if config.tasks == "small-repositories":
        from ...envs.synthesis.small_tasks import write_small_repository_tasks

        done = 0
        for path, num, held_out in ((paths[0], config.num_train, False), (paths[1], config.num_held_out, True)):
            await write_small_repository_tasks(
                path,
                num=num,
                seed=recipe.seed,
                held_out=held_out,
                workers=recipe.num_workers,
                progress=lambda made, before=done: progress(before + made, wanted),
            )
            done += num
        return
    if config.tasks == "small-traces":
        from ...envs.trace.tasks import trace_tasks

        tasks = await trace_tasks(
            "small-programs", wanted, seed=recipe.seed, backend=backend, asked=["return"], bare=True
        )
        held_out, train = tasks[: config.num_held_out], tasks[config.num_held_out :]
        for path, part in zip(paths, (train, held_out), strict=True):
            write_jsonl(path, (task.to_json() for task in part))
    elif config.tasks in SMALL_SOURCES:
        from ...envs.synthesis.small_programs import small_programs
        from ...envs.synthesis.small_repairs import small_repairs
        from ...envs.synthesis.small_sums import small_sums
        from ...envs.synthesis.word_problems import word_problems

        makers = {
            "small-programs": small_programs,
            "small-repairs": small_repairs,
            "small-sums": small_sums,
            "word-problems": word_problems,
        }
        make = makers[config.tasks]
        splits = [make(num=config.num_train, seed=recipe.seed, held_out=False)]
        splits.append(make(num=config.num_held_out, seed=recipe.seed, held_out=True))
        for path, tasks in zip(paths, splits, strict=True):
            write_jsonl(path, (task.to_json() for task in tasks))
    else:
        report = paths[0].with_name(f"{config.name}.left_out.jsonl")
        _split(config, recipe.seed, await _given_tasks(config, recipe, env, report), paths)
    progress(wanted, wanted)


async def _given_tasks(config: FamilyConfig, recipe: Recipe, env: ToolEnv, report: Path) -> Sequence[Task]:
    """Tasks that exist already; what is left out of a training set is written to ``report``, each with its reason."""
    if config.tasks == "environment":
        try:
            return await env.aload()
        finally:
            await env.aclose()
    found = load_training_set(config.tasks, row_format=config.format)
    left_out = list(found.left_out)
    others = [task for task in found.tasks if env.family and task.family != env.family]
    left_out += [LeftOut(where=task.id, reason=f"of family {task.family!r}, not {env.family!r}") for task in others]
    tasks = [task for task in found.tasks if not env.family or task.family == env.family]
    if recipe.decontaminate:
        held = held_out_of(row.value for path in recipe.decontaminate for row in read_rows(path))
        tasks, dropped = decontaminate_tasks(tasks, held)
        left_out += [
            LeftOut(where=one.instance_id, reason=f"like an evaluation's by its {one.reason}", detail=one.matches)
            for one in dropped
        ]
    write_jsonl(report, (asdict(one) for one in left_out))
    if left_out:
        kept = TrainingSet(tasks=tuple(tasks), left_out=tuple(left_out))
        logger.warning("family %s: %s; %s names each", config.name, kept.summary(), report)
    return tasks


def _split(config: FamilyConfig, seed: int, tasks: Sequence[Task], paths: tuple[Path, Path]) -> None:
    """Hold out some of the given tasks, drawn with the seed."""
    if len(tasks) <= config.num_held_out:
        raise TaskError(
            f"family {config.name!r} has {len(tasks)} tasks and num_held_out is {config.num_held_out}; nothing would "
            "be left to train on. Give more tasks, or lower num_held_out"
        )
    order = list(tasks)
    random.Random(seed).shuffle(order)
    held_out, train = order[: config.num_held_out], order[config.num_held_out :]
    if config.num_train:
        train = train[: config.num_train]
    for path, part in zip(paths, (train, held_out), strict=True):
        write_jsonl(path, (task.to_json() for task in part))


def _trivial(config: FamilyConfig, env: ToolEnv, train: Sequence[Task]) -> Expert | None:
    """Write a repository's first function as its comment says; elsewhere, always give the commonest gold answer."""
    if config.tasks == "small-repositories":
        return BLIND["as_said_0"]
    try:
        answers = Counter(script_of(env, "gold", task)[-1].content for task in train)
    except TaskError:
        return None
    except EnvironmentBug as bug:
        logger.warning("there is no trivial policy to compare with: %s", bug)
        return None
    answer, _ = answers.most_common(1)[0]
    return always_say(answer) if answer else None
