"""From a word of the command line to tasks and the environments that take them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...envs.core import ToolEnv
from ...envs.datasets.files import SourceRow
from ...envs.datasets.folders import read_source
from ...envs.datasets.hub import hub_rows
from ...envs.registry.opening import open_env, own_tasks, read_any_tasks
from ...envs.task import Task
from ...errors import ConfigError, TaskError
from .exemplars import Exemplar
from .registry import suite_named
from .spec import HubSource, LoadOptions, Preset, Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSuite:
    """Tasks, and the environment of each.

    Attributes:
        name: as asked for.
        tasks: in the file's order.
        env_ids: family -> environment id; "*" is any family.
        env_kwargs: offered to the environments; each takes those it has.
        needed_kwargs: environment id -> arguments that it must be made with.
        preset: published settings, where the suite has them.
        shots: solved questions that are shown before each task.
    """

    name: str
    tasks: tuple[Task, ...]
    env_ids: Mapping[str, str]
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    needed_kwargs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    preset: Preset | None = None
    shots: Sequence[Exemplar] = ()

    def make_env(self, task: Task) -> ToolEnv:
        """A new environment for the task.

        Raises:
            TaskError: no environment is known for its family.
        """
        env_id = self.env_ids.get(task.family) or self.env_ids.get("*")
        if env_id is None:
            raise TaskError(f"task {task.id!r} is of family {task.family!r}; {self.name} takes {sorted(self.env_ids)}")
        env = open_env(env_id, self.env_kwargs, self.needed_kwargs.get(env_id))
        if self.shots:
            env.shots = self.shots
        return env


def load_suite(
    name: str,
    *,
    data: Path | None = None,
    limit: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    options: LoadOptions | None = None,
) -> LoadedSuite:
    """Resolve a SUITE: a suite's name, or an environment's id.

    Args:
        name: "math500", "swe", "verigym/Math-v0", "package.module:My/Env-v0".
        data: the benchmark's file, or a folder of files; without it a suite loads from the hub, an environment gives
            its own tasks.
        limit: at most so many tasks, the first ones.
        env_kwargs: offered to the environments, such as ``sandbox``.
        options: what narrows the rows.
    Raises:
        ConfigError: no such suite or environment, no --data where one is needed, or a hub that cannot be reached.
        TaskError: the file is missing, broken or empty, or holds tasks of another family.
    """
    offered = dict(env_kwargs or {})
    options = options or LoadOptions()
    if "/" in name or ":" in name:
        # Made once here, so that an unknown id is an error before anything runs.
        env = open_env(name, offered)
        refuse_options(name, frozenset(), options)
        tasks = read_any_tasks(data) if data is not None else own_tasks(env)
        env_ids: Mapping[str, str] = {env.family or "*": name}
        preset = None
        _check_tasks(name, tasks, data)
    else:
        suite = suite_named(name, also=", or an environment's id such as verigym/Math-v0 or MODULE:ID")
        if "test_timeout_s" in offered and suite.test_timeout_s is None:
            raise ConfigError(f"--test-timeout means nothing to suite {name!r}; leave it out")
        tasks = load_tasks(suite, data=data, options=options)
        limit_of_tests = {} if suite.test_timeout_s is None else {"test_timeout_s": suite.test_timeout_s}
        env_ids, preset = suite.env_ids, suite.preset
        offered = {**limit_of_tests, **suite.env_kwargs, **offered}
    for task in tasks:
        if task.family not in env_ids and "*" not in env_ids:
            takes = ", ".join(env_ids)
            raise TaskError(f"task {task.id!r} is of family {task.family!r}; suite {name!r} takes {takes}")
    loaded = LoadedSuite(name=name, tasks=tuple(tasks), env_ids=env_ids, env_kwargs=offered, preset=preset)
    return loaded if limit is None else replace(loaded, tasks=loaded.tasks[:limit])


def load_tasks(suite: Suite, *, data: Path | None, options: LoadOptions) -> list[Task]:
    """The tasks of a suite, from its file or from the hub.

    Raises:
        ConfigError, TaskError: as ``load_suite``; also where two rows have one id.
    """
    refuse_options(suite.name, suite.takes, options)
    if data is None and suite.bring is not None:
        data = suite.bring()
    if data is not None:
        split = suite.hub.split if suite.hub is not None else "test"
        rows = suite.read(data) if suite.read is not None else list(read_source(data, split=split))
        options = replace(options, folder=data if data.is_dir() else data.parent)
    elif suite.hub is not None:
        rows = _hub_rows(suite.name, suite.hub, options)
    else:
        raise ConfigError(f"suite {suite.name!r} needs --data FILE: {suite.about}")
    tasks = suite.tasks_of(rows, options)
    _check_tasks(suite.name, tasks, data)
    return tasks


def refuse_options(name: str, takes: frozenset[str], options: LoadOptions) -> None:
    """Refuse options that would do nothing.

    Raises:
        ConfigError: one is set that the suite does not understand.
    """
    for option in ("release", "since", "until"):
        if getattr(options, option) is not None and option not in takes:
            raise ConfigError(f"--{option} means nothing to suite {name!r}; leave it out")


def _check_tasks(name: str, tasks: Sequence[Task], data: Path | None) -> None:
    where = "of its own" if data is None else f"in {data}"
    if not tasks:
        raise TaskError(f"suite {name!r} has no task {where}; give --data FILE with at least one")
    twice = [task_id for task_id, count in Counter(task.id for task in tasks).items() if count > 1]
    if twice:
        raise TaskError(
            f"suite {name!r}: {len(twice)} ids occur more than once {where}, such as {twice[0]!r}; "
            "leave one row for each"
        )


def _hub_rows(name: str, hub: HubSource, options: LoadOptions) -> list[SourceRow]:
    return hub_rows(
        hub.dataset,
        config=hub.config,
        split=hub.split,
        revision=hub.revision,
        files=None if hub.data_files is None else hub.data_files(options),
        file_format=hub.file_format,
        remedy=f"give the file of suite {name!r} with --data FILE",
    )
