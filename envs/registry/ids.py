"""The environments Gymnasium knows: ours, and those of packages with the entry-point group ``verigym.envs``."""

import logging
import math
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import gymnasium

from ...errors import ConfigError, EnvironmentBug, VerigymError
from ..core import ToolEnv
from ..importing import import_named
from ..tools.hooks import text_of

logger = logging.getLogger(__name__)

OURS = {
    "verigym/SWE-v0": "verigym.envs.swe.env:SWEEnv",
    "verigym/SWE-CWM-v0": "verigym.envs.swe.cwm:CwmSWEEnv",
    "verigym/Code-v0": "verigym.envs.code.env:CodeEnv",
    "verigym/Math-v0": "verigym.envs.math.env:MathEnv",
    "verigym/Trace-v0": "verigym.envs.trace.env:TraceEnv",
    "verigym/Mcp-v0": "verigym.envs.mcp.env:McpEnv",
    "verigym/Harbor-v0": "verigym.envs.harbor.env:HarborEnv",
}

FAMILY_ENVS = {"swe": "verigym/SWE-v0", "code": "verigym/Code-v0", "math": "verigym/Math-v0"}
"""Family -> the environment that grades its tasks, where a file of tasks names none."""


def register_environments() -> None:
    """Register verigym's environments, and let plug-ins register theirs. Idempotent."""
    for env_id, entry_point in OURS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(id=env_id, entry_point=entry_point, disable_env_checker=True, order_enforce=False)


def load_plugins(env_id: str) -> None:
    """Make the id known where a plug-in has it: an installed package names, under the entry-point group
    ``verigym.envs``, an environment class, which is registered under the entry point's name, or a module that
    registers its own. Nothing is imported for an id that is known already.

    Raises:
        ConfigError: the plug-in cannot be imported.
    """
    if env_id in gymnasium.registry:
        return
    plugins = list(entry_points(group="verigym.envs"))
    for entry in [entry for entry in plugins if entry.name == env_id] or plugins:
        try:
            loaded = entry.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"the plug-in {entry.name!r} ({entry.value}) cannot be imported ({error}); mend or uninstall it"
            ) from error
        if isinstance(loaded, type) and entry.name not in gymnasium.registry:
            gymnasium.register(id=entry.name, entry_point=loaded, disable_env_checker=True, order_enforce=False)


def class_of(env_id: str) -> type[ToolEnv] | None:
    """The class that "module:Class" names; None where the id is of another kind, or its module is not there."""
    module, _, name = env_id.rpartition(":")
    if not module or not name.isidentifier():
        return None
    try:
        found = getattr(import_named(module), name, None)
    except ImportError:
        return None
    return found if isinstance(found, type) and issubclass(found, ToolEnv) else None


def make_env(env_id: str, **kwargs: Any) -> ToolEnv:
    """The bare environment of an id: "verigym/SWE-v0"; "module:Name-v0", whose module is imported first; or
    "module:Class", where the module has a class of that name.

    Raises:
        ConfigError: no such id, or it is not a ToolEnv. EnvironmentBug: its constructor fails.
    """
    module, _, name = env_id.rpartition(":")
    try:
        found = class_of(env_id)
        if found is not None:
            return _whole(found(**kwargs))
        if module:
            _refuse_others(import_named(module), name)
        else:
            load_plugins(name)
        env = gymnasium.make(name, **kwargs).unwrapped
    except (VerigymError, TypeError):
        raise
    except (gymnasium.error.Error, ImportError) as error:
        plugins = [entry.name for entry in entry_points(group="verigym.envs")]
        known = ", ".join([*sorted(OURS), *sorted(plugins)])
        raise ConfigError(
            f"no environment {env_id!r} ({error}); known ids: {known}, or MODULE:ID of a package"
        ) from None
    except (Exception, SystemExit) as error:
        raise unmade(env_id, error) from error
    if not isinstance(env, ToolEnv):
        raise ConfigError(f"{env_id!r} is a {type(env).__name__}, not a verigym.envs.core.ToolEnv; wrap it in one")
    return _whole(env)


def unmade(env_id: str, error: BaseException) -> EnvironmentBug:
    """The failure of a constructor."""
    told = " ".join(f"{type(error).__name__}: {text_of(error)}".split())[:500]
    return EnvironmentBug(f"{env_id} cannot be made: {told}", environment=env_id.rpartition(":")[2], hook="__init__")


def _whole(env: ToolEnv) -> ToolEnv:
    """Raises ConfigError where a constructor left ours out, or a setting of the class is none."""
    name = type(env).__name__
    if not hasattr(env, "_hooks"):
        raise ConfigError(f"{name}.__init__ leaves ToolEnv's out; call super().__init__(**kwargs) in it")
    for tool in env._tools:
        if hasattr(ToolEnv, tool):
            raise ConfigError(f"the tool {tool!r} of {name} takes the place of ToolEnv.{tool}; give it another name")
    if not _are_bounds(env.reward_bounds):
        raise ConfigError(f"reward_bounds of {name} are {env.reward_bounds!r}; two finite numbers, the least first")
    if not isinstance(env.system_prompt, str):
        raise ConfigError(f'system_prompt of {name} is a {type(env.system_prompt).__name__}; a str, "" for none')
    limit_s = env.hook_timeout_s
    if limit_s is not None and not (isinstance(limit_s, int | float) and limit_s > 0):
        raise ConfigError(f"hook_timeout_s of {name} is {limit_s!r}; a number of seconds above 0, or None")
    return env


def _are_bounds(found: Any) -> bool:
    try:
        low, high = found
        return math.isfinite(low) and math.isfinite(high) and low < high
    except (TypeError, ValueError):
        return False


def _refuse_others(module: ModuleType, name: str) -> None:
    """Raises ConfigError where the module has something by this name that is no environment's class."""
    found = getattr(module, name, None) if name.isidentifier() else None
    if found is not None:
        what = f"the class {name}" if isinstance(found, type) else f"a {type(found).__name__}"
        raise ConfigError(f"{module.__name__}:{name} is {what}, not a subclass of verigym.envs.core.ToolEnv")
    if name.isidentifier() and name not in gymnasium.registry:
        classes = [key for key, one in vars(module).items() if isinstance(one, type) and issubclass(one, ToolEnv)]
        there = ", ".join(key for key in classes if getattr(module, key).__module__ == module.__name__) or "none"
        raise ConfigError(f"{module.__name__} has no class {name!r}; its environments: {there}")
