"""Experiment trackers, through accelerate: one run of the tracker for a whole training, its stages as prefixes."""

import json
import math
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ...envs.runs.files import read_object, write_json
from ...errors import ConfigError

STATE = "tracker.json"


class Tracker(Protocol):
    """What is used of accelerate's trackers."""

    def log(self, values: dict[str, Any], step: int | None = None) -> None: ...

    def finish(self) -> None: ...


class RunTracker:
    """The tracker of one training. A resumed training goes on with the same run: ``FOLDER/tracker.json`` names it."""

    def __init__(self, name: str, *, project: str, folder: Path, config: Mapping[str, Any]) -> None:
        """
        Args:
            name: accelerate's of the tracker.
            project: the training's name; its runs stand together under it.
            folder: of the training.
            config: the resolved recipe, for the run's page.
        Raises:
            ConfigError: accelerate knows no such tracker, its package is not installed, or tracker.json is broken.
        """
        path, run_id = folder / STATE, None
        if path.exists():
            known = read_object(path, "the tracker's run", "remove it to begin another run of the tracker", ConfigError)
            run_id = known.get("run") if known.get("tracker") == name else None
        tracker = open_tracker(name, run_name=project, folder=folder, config=config, run_id=run_id, label=folder.name)
        assert tracker is not None
        self._tracker = tracker
        if run_id is None:
            write_json(path, {"tracker": name, "run": _id_of(name, tracker)})

    def stage(self, name: str, *, steps_before: int) -> Tracker:
        """The tracker of one stage.

        Args:
            steps_before: of the stages before it; trackers want one count of steps that never falls.
        """
        return _StageTracker(self._tracker, name, steps_before)

    def finish(self) -> None:
        """End the run, so that all of it is written. A resume goes on with it."""
        self._tracker.finish()


class _StageTracker:
    def __init__(self, tracker: Tracker, stage: str, steps_before: int) -> None:
        self._tracker, self._stage, self._before = tracker, stage, steps_before

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        told = {f"{self._stage}/{key}": value for key, value in values.items() if math.isfinite(value)}
        if step is not None:
            told[f"{self._stage}/step"] = step
            step += self._before
        self._tracker.log(told, step=step)

    def finish(self) -> None:
        """The run goes on with the next stage."""


def check_tracker(name: str | None) -> None:
    """Raises ConfigError where accelerate knows no such tracker, or its package is not installed; None is none."""
    if name is None:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    if name not in LOGGER_TYPE_TO_CLASS:
        known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
        raise ConfigError(f"no experiment tracker {name!r}; accelerate knows {known}")
    # Trackers that a user registered with accelerate are in the table, but never among the "available" ones.
    if name in {one.value for one in LoggerType} and LoggerType(name) not in get_available_trackers():
        raise ConfigError(f"tracker {name!r} is not installed; pip install {name}, or leave the tracker out")


def open_tracker(
    name: str | None,
    *,
    run_name: str,
    folder: Path,
    config: Mapping[str, Any],
    run_id: str | None = None,
    label: str = "",
) -> Tracker | None:
    """An experiment tracker by accelerate's name for it ("tensorboard", "wandb", "trackio", ...); None for None.

    Args:
        run_name: of the project, or experiment.
        folder: where trackers that write files write them.
        config: the resolved recipe; nested tables become keys joined by "/".
        run_id: of a run to go on with; None begins one.
        label: of the run, for people.
    Raises:
        ConfigError: accelerate knows no such tracker, or its package is not installed.
    """
    check_tracker(name)
    if name is None:
        return None
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    if not PartialState._shared_state:
        PartialState(cpu=True)  # its trackers ask it which process this is; over several processes the ranks made it
    kind = LOGGER_TYPE_TO_CLASS[name]
    options = _OPTIONS.get(name, lambda *_: {})(folder, run_id, label)
    project = os.environ.get(_PROJECTS.get(name, ""), run_name)
    tracker = kind(project, str(folder), **options) if kind.requires_logging_directory else kind(project, **options)
    tracker.start()
    if run_id is None:
        _tell_config(name, tracker, config)
    return tracker


def _wandb(folder: Path, run_id: str | None, label: str) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    return {"id": run_id or uuid.uuid4().hex[:10], "name": label or None, "resume": "allow", "dir": str(folder)}


def _trackio(folder: Path, run_id: str | None, label: str) -> dict[str, Any]:
    # trackio knows a run by its name alone.
    name = run_id or "-".join(filter(None, (label, uuid.uuid4().hex[:10])))
    return {"name": name, "resume": "allow", "embed": False}


def _mlflow(folder: Path, run_id: str | None, label: str) -> dict[str, Any]:
    return {"run_id": run_id, "run_name": label or None}


_OPTIONS: Mapping[str, Callable[[Path, str | None, str], dict[str, Any]]] = {
    "wandb": _wandb,
    "trackio": _trackio,
    "mlflow": _mlflow,
}
_PROJECTS = {"wandb": "WANDB_PROJECT", "trackio": "TRACKIO_PROJECT"}
"""What names the project in the place of the recipe; mlflow's own is read by accelerate."""


def _id_of(name: str, tracker: Any) -> str:
    """What a later sitting goes on with: the id of the run, or its name; of files their place, which is known."""
    run = tracker.tracker
    if name == "wandb":
        return str(run.id)
    if name == "trackio":
        return str(run.name)
    return str(run.info.run_id) if name == "mlflow" else "files"


def _tell_config(name: str, tracker: Any, config: Mapping[str, Any]) -> None:
    flat = _flat(config)
    if name == "tensorboard":
        # accelerate would write the settings as a second run beside this one.
        tracker.log({"recipe": json.dumps(flat, indent=2)}, step=0)
    else:
        tracker.store_init_configuration(flat)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}/")
        elif value is not None:
            flat[prefix + key] = (
                value if isinstance(value, bool | int | float | str) else json.dumps(value, default=str)
            )
    return flat
