"""The folder of a training run: its recipe, and what a resume reads of it, with checksums."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...envs.runs.files import read_object, write_json
from ...envs.runs.lock import RunLock
from ...errors import CheckpointError, ConfigError
from ...model.weights.checksums import add_sum, check_sum
from ..recipe.load import KEPT as RECIPE
from ..recipe.recipe import Recipe

STAGE = "stage.json"


@contextmanager
def opened_run(recipe: Recipe, out: Path, *, resume: bool) -> Iterator[None]:
    """Inside, the folder is this process's alone, and holds this recipe.

    Raises:
        ConfigError: it holds another run, none to resume, one whose recipe cannot be read, or is in use.
    """
    path = out / RECIPE
    if resume and not path.exists():
        raise ConfigError(f"{out} holds no run to resume; leave --resume out, or give the folder of one")
    with RunLock(out, advice="give another --out"):
        resolved = json.loads(recipe.model_dump_json())
        if not path.exists():
            write_json(path, resolved)
            add_sum(out, RECIPE)
        elif not resume:
            raise ConfigError(f"{out} holds a run already; add --resume to go on with it, or give another --out")
        else:
            _check_same(out, resolved)
        yield


def _check_same(out: Path, resolved: Mapping[str, Any]) -> None:
    remedy = "restore it from a copy, or give another --out"
    before = read_object(out / RECIPE, "the recipe of the run", remedy, ConfigError)
    check_kept(out, RECIPE)
    # A run goes on under any layout, and whatever it keeps to look at: nothing that is learned knows of them.
    keys = (resolved.keys() | before.keys()) - {"layout", "record", "cluster"}
    changed = sorted(key for key in keys if resolved.get(key) != before.get(key))
    if changed:
        raise ConfigError(f"{out} was made by another recipe ({', '.join(changed)} differ); give another --out")


def keep(out: Path, path: Path) -> None:
    """Record a file that was written into the run's folder, so that ``check_kept`` knows it."""
    add_sum(out, path.relative_to(out).as_posix())


def check_kept(out: Path, name: str) -> None:
    """Compare a file with what was written; one without a record, of an earlier version, is taken as it is.

    Raises:
        ConfigError: it has changed since.
    """
    try:
        check_sum(out, name)
    except CheckpointError as error:
        raise ConfigError(str(error)) from None


def write_stage(out: Path, stage: str, info: Mapping[str, Any]) -> None:
    """Say that a stage is done: "seconds", "checkpoint", "steps"."""
    path = out / stage / STAGE
    write_json(path, dict(info), indent=None)
    keep(out, path)


def read_stage(out: Path, stage: str) -> dict[str, Any] | None:
    """What ``write_stage`` wrote; None where the stage is not done.

    Raises:
        ConfigError: it cannot be read, or has changed since.
    """
    path = out / stage / STAGE
    if not path.exists():
        return None
    info = read_object(path, "what a finished stage left", "remove it to train the stage anew", ConfigError)
    check_kept(out, f"{stage}/{STAGE}")
    return info
