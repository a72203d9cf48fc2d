"""The environments that are known here: ours, those of installed packages, and those that a module registered."""

import inspect
from importlib.metadata import entry_points
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from ..core import ToolEnv
from .ids import OURS


def known_environments() -> list[dict[str, Any]]:
    """{"id", "from", "about", "problem"} each, sorted by id. A plug-in that cannot be imported has a problem instead of
    a line about it."""
    rows = {}
    for env_id, entry_point in OURS.items():
        rows[env_id] = _row(env_id, "verigym", lambda entry_point=entry_point: load_env_creator(entry_point))
    for entry in entry_points(group="verigym.envs"):
        package = entry.dist.name if entry.dist is not None else entry.value
        row = _row(entry.name, package, entry.load)
        if not row.pop("module"):
            rows[entry.name] = row
    for spec in gymnasium.registry.values():
        is_class = inspect.isclass(spec.entry_point) and issubclass(spec.entry_point, ToolEnv)
        if spec.id not in rows and is_class:
            rows[spec.id] = _row(spec.id, spec.entry_point.__module__, lambda spec=spec: spec.entry_point)
    return [{key: value for key, value in rows[env_id].items() if key != "module"} for env_id in sorted(rows)]


def _row(env_id: str, source: str, load: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"id": env_id, "from": source, "about": "", "problem": "", "module": False}
    try:
        loaded = load()
    except Exception as error:  # of somebody else's module: a list must not end with it
        row["problem"] = " ".join(f"{type(error).__name__}: {error}".split())
        return row
    row["module"] = inspect.ismodule(loaded)
    row["about"] = (inspect.getdoc(loaded) or "").split("\n")[0]
    return row
