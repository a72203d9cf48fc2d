"""From what a user names to what runs: an environment with the options it has, and the tasks of a file."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from ...errors import ConfigError
from ..core import ToolEnv
from ..importing import import_named
from ..sandbox.background import run_sync
from ..task import Task
from .ids import class_of, load_plugins, make_env, unmade


def open_env(env_id: str, offered: Mapping[str, Any], needed: Mapping[str, Any] | None = None) -> ToolEnv:
    """``make_env`` with what is needed, and those of the offered options that the environment's constructor has.

    Args:
        env_id: "verigym/SWE-v0", or "module:Name-v0".
        offered: options of the command line, such as ``sandbox``; a plug-in need not have them.
        needed: arguments that it must have, such as those that a checkpoint was trained with.
    Raises:
        ConfigError: no such environment, or its constructor has no such arguments.
        EnvironmentBug: its constructor fails.
    """
    options = {**_accepted(env_id, offered), **(needed or {})}
    try:
        return make_env(env_id, **options)
    except TypeError as error:
        if _takes(env_id, options):
            raise unmade(env_id, error) from error
        raise ConfigError(f"{env_id!r} cannot be made ({error}); see the arguments of its constructor") from error


def own_tasks(env: ToolEnv) -> Sequence[Task]:
    """The environment's own tasks.

    Raises:
        TaskError: it has none. EnvironmentBug: its own code fails at it.
    """
    return run_sync(_loaded(env))


def read_any_tasks(source: str | Path, *, row_format: str = "auto") -> Sequence[Task]:
    """Tasks of a file, a folder of files or "hub:OWNER/NAME": SWE-bench's rows, rows that ``Task.to_json`` wrote, or a
    published training set of mathematics or programming (``datasets.training``).

    Raises:
        TaskError: it is missing, empty, broken or of another kind. ConfigError: its format cannot be told.
    """
    from ..datasets.training import read_tasks_of

    return read_tasks_of(source, row_format=row_format)


async def _loaded(env: ToolEnv) -> Sequence[Task]:
    try:
        return await env.aload()
    finally:
        await env.aclose()  # the thread that a hook ran on


def _accepted(env_id: str, offered: Mapping[str, Any]) -> dict[str, Any]:
    """The options that fit; none where the id is unknown, which ``make_env`` says."""
    creator = _creator_of(env_id)
    names = set() if creator is None else _parameters_of(creator)
    return {key: value for key, value in offered.items() if key in names}


def _takes(env_id: str, options: Mapping[str, Any]) -> bool:
    """Whether its constructor has these arguments, and needs no others."""
    creator = _creator_of(env_id)
    if creator is None or not options.keys() <= _parameters_of(creator):
        return False
    try:
        inspect.signature(creator).bind(**options)
    except TypeError:
        return False
    return True


def _creator_of(env_id: str) -> Callable[..., Any] | None:
    """What makes the environment; None where the id is unknown."""
    module, _, name = env_id.rpartition(":")
    found = class_of(env_id)
    if found is not None:
        return found
    if module:
        try:
            import_named(module)
        except ImportError:
            return None
    else:
        load_plugins(name)
    if name not in gymnasium.registry:
        return None
    entry_point = gymnasium.registry[name].entry_point
    try:
        return load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    except ImportError:
        return None


def _parameters_of(creator: Callable[..., Any]) -> set[str]:
    """The named parameters of a function or a class; a constructor with ``**kwargs`` hands on to the next class."""
    names: set[str] = set()
    for function in [vars(cls).get("__init__") for cls in creator.__mro__] if isinstance(creator, type) else [creator]:
        if function is None:
            continue
        parameters = inspect.signature(function).parameters.values()
        names |= {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names
