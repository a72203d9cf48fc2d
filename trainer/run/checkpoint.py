"""Training checkpoints: one folder a step, complete or absent.

ROOT/step-000120/manifest.json      size and SHA-256 of every file; written last
                 model/             weights and tokenizer, in Hugging Face's format; of a model with adapters these;
                                    of one that no process has whole what each rank has written, the optimizer too
                 trainer.pt         optimizer, random state, cursors: a loop's ``state_dict``
                 state.json         step, policy version and whatever the caller adds, for people and resumes
"""

import json
import logging
import os
import pickle
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import CheckpointError
from ...model.lora import AnyDecoder
from ...model.trained import load_trained, save_trained
from ...model.weights.checksums import compare, digests, read_sums
from ...model.weights.sources import DCP_METADATA
from ..learning.learner import RANKS, WHOLE

logger = logging.getLogger(__name__)

MANIFEST, TRAINER, STATE, MODEL = "manifest.json", "trainer.pt", "state.json", "model"
_NAME = re.compile(r"step-(\d+)(?:-(\d+))?")
_PARTIAL = ".partial-"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """What a training checkpoint holds besides the weights.

    Attributes:
        step: steps done.
        trainer: the loop's ``state_dict``.
        info: what was saved with it (the resolved recipe, versions, ...).
    """

    step: int
    trainer: Mapping[str, Any]
    info: Mapping[str, Any]


def save_training(
    root: str | Path,
    *,
    step: int,
    decoder: AnyDecoder,
    tokenizer: Any,
    trainer: Mapping[str, Any],
    info: Mapping[str, Any] | None = None,
    keep: int = 2,
) -> Path:
    """``write_training`` of a decoder that this process has whole."""

    def write(folder: Path) -> None:
        save_trained(folder, decoder, tokenizer)

    return write_training(root, write, step=step, trainer=trainer, info=info, keep=keep)


def write_training(
    root: str | Path,
    write_model: Callable[[Path], None],
    *,
    step: int,
    trainer: Mapping[str, Any],
    info: Mapping[str, Any] | None = None,
    keep: int = 2,
) -> Path:
    """Write a checkpoint, whole or not at all, then delete the oldest beyond ``keep``.

    Everything is written and flushed in a folder beside its place, which is then renamed, so that a crash or a full
    disk at any byte leaves the checkpoints before it as they were.

    Args:
        write_model: writes the weights, and what else learns where ranks write that, into a folder.
        trainer: a loop's ``state_dict``: tensors, numbers, strings, lists and dicts.
        info: JSON values to save beside it.
        keep: complete checkpoints to keep, this one included; at least 1.
    Returns:
        The checkpoint's folder; ``folder / "model"`` loads as a model anywhere.
    Raises:
        CheckpointError: it could not be written; earlier checkpoints are whole.
    """
    if keep < 1:
        raise CheckpointError(f"keep is {keep}; at least the newest checkpoint must be kept, so set it to 1 or more")
    root = Path(root)
    target = root / f"step-{step:06d}"
    # A folder cannot be renamed over another, so a step that is saved again gets a name that sorts after the first.
    attempt = 1
    while target.exists():
        attempt += 1
        target = root / f"step-{step:06d}-{attempt}"
    partial = root / f"{_PARTIAL}{target.name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for left in root.glob(f"{_PARTIAL}*"):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir()
        write_model(partial / MODEL)
        torch.save(dict(trainer), partial / TRAINER)
        state = {"step": step, "info": dict(info or {})}
        (partial / STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        (partial / MANIFEST).write_text(json.dumps({"files": _recorded(partial)}, indent=2) + "\n", encoding="utf-8")
        for path in (*_files(partial), partial):
            _flush(path)
        partial.rename(target)
        _flush(root)
    except (OSError, RuntimeError) as error:  # torch.save says RuntimeError where the disk is full
        shutil.rmtree(partial, ignore_errors=True)
        cause = error.__cause__ or error if isinstance(error, CheckpointError) else error
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {root} ({cause}); earlier checkpoints are whole. "
            "Free some space or give another --out, then resume"
        ) from error
    for old in _complete(root)[keep:]:
        _delete(old)
    return target


def latest(root: str | Path) -> Path | None:
    """The newest complete checkpoint under ``root``, by the sizes of its files; None where there is none."""
    return next(iter(_complete(Path(root))), None)


def load_latest(
    root: str | Path, decoder: AnyDecoder | None, *, check: Callable[[Path], None] | None = None
) -> TrainingState | None:
    """``load_training`` of the newest checkpoint whose files are what was written; None where nothing was saved yet.

    One that was damaged is left out with a warning, and the one before it taken.

    Args:
        decoder: None leaves the weights to the ranks that read them, from the folder that the state names.
        check: compares the files of a model's folder in the place of this process. Raises CheckpointError.
    Raises:
        CheckpointError: none of several is whole, or the newest whole one is of a model of another shape.
    """
    root, damaged = Path(root), []
    for path in sorted(root.iterdir() if root.is_dir() else (), key=_place, reverse=True):
        # Without a manifest it is one whose writing or deletion was cut off.
        if _NAME.fullmatch(path.name) is None or not (path / MANIFEST).exists():
            continue
        problem = _incomplete(path) or _changed(path, check) or _misplaced(path)
        if problem is None:
            return _load(path, decoder)
        logger.warning("%s is left out: %s", path, problem)
        damaged.append(f"{path.name}: {problem}")
    if damaged:
        raise CheckpointError(
            f"no checkpoint in {root} is whole ({'; '.join(damaged)}); restore one from a copy, or remove {root} to "
            "begin the stage anew"
        )
    return None


def load_training(path: str | Path, decoder: AnyDecoder) -> TrainingState:
    """Load the weights of a checkpoint into ``decoder``, and return the rest for the loop's ``load_state_dict``.

    Raises:
        CheckpointError: it is missing, incomplete, changed since it was written, unreadable, or of a model of another
            shape.
    """
    path = Path(path)
    problem = _incomplete(path)
    if problem is not None:
        raise CheckpointError(f"{path} is no complete training checkpoint: {problem}; take an earlier one")
    problem = _changed(path)
    if problem is not None:
        raise CheckpointError(f"{path} cannot be trusted: {problem}; take an earlier checkpoint")
    return _load(path, decoder)


def _load(path: Path, decoder: AnyDecoder | None) -> TrainingState:
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        trainer = torch.load(path / TRAINER, map_location="cpu", weights_only=True)
        step, info = int(state["step"]), state["info"]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); take an earlier checkpoint") from error
    if decoder is not None:
        load_trained(path / MODEL, decoder, check=False)
    if (path / MODEL / DCP_METADATA).is_file():  # ranks have written what learns, each its part
        trainer[RANKS] = str(path / MODEL)
    elif decoder is None:
        trainer[WHOLE] = str(path / MODEL)
    return TrainingState(step=step, trainer=trainer, info=info)


def _complete(root: Path) -> list[Path]:
    """Complete checkpoints, the newest first."""
    found = []
    for path in root.iterdir() if root.is_dir() else ():
        if _NAME.fullmatch(path.name) is None:
            continue
        problem = _incomplete(path)
        if problem is not None:
            logger.warning("%s is left out: %s", path, problem)
            continue
        found.append(path)
    return sorted(found, key=_place, reverse=True)


def _place(path: Path) -> tuple[int, int]:
    """Order of saving; of what is no checkpoint the first."""
    name = _NAME.fullmatch(path.name)
    return (-1, 0) if name is None else (int(name[1]), int(name[2] or 1))


def _recorded(path: Path) -> dict[str, dict[str, Any]]:
    """Size and digest of every file, those of the model as they were recorded when it was written."""
    known = {f"{MODEL}/{name}": value for name, value in read_sums(path / MODEL).items()}
    names = [file.relative_to(path).as_posix() for file in _files(path)]
    found = known | digests(path, [name for name in names if name not in known])
    return {name: {"bytes": (path / name).stat().st_size, "sha256": found[name]} for name in names}


def _manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Name -> "bytes", and "sha256", which an earlier version did not record."""
    files = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
    return {
        name: {"bytes": facts} if isinstance(facts, int) else {key: facts[key] for key in ("bytes", "sha256")}
        for name, facts in files.items()
    }


def _incomplete(path: Path) -> str | None:
    """What is missing of a checkpoint, in words; None where it is whole."""
    if not (path / MANIFEST).is_file():  # to read from a FIFO would be to wait
        return f"{MANIFEST} is missing, or no file"
    try:
        listed = _manifest(path)
        missing = [name for name in (TRAINER, STATE) if name not in listed]
        if missing or not any(name.startswith(f"{MODEL}/") for name in listed):
            return f"{MANIFEST} does not name {' and '.join(missing) or 'a model'}"
        for name, facts in listed.items():
            found, size = (path / name).stat().st_size, facts["bytes"]
            if found != size:
                return f"{name} has {found} bytes of {size}"
    except OSError as error:
        return f"{error.filename or path} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST} is broken"
    return None


def _changed(path: Path, check: Callable[[Path], None] | None = None) -> str | None:
    """Which file is not what was written, in words; None where all are. Reads everything.

    Args:
        check: as ``load_latest``.
    """
    listed = _manifest(path)
    # What reads a model takes every file that it finds by its name.
    more = [one.relative_to(path).as_posix() for one in _files(path / MODEL)]
    added = next((name for name in more if name not in listed), None)
    if added is not None:
        return f"{added} was not written with it; remove it"
    recorded = {name: facts["sha256"] for name, facts in listed.items() if "sha256" in facts}
    if check is not None:
        recorded = {name: value for name, value in recorded.items() if not name.startswith(f"{MODEL}/")}
    try:
        compare(path, recorded)
        if check is not None:
            check(path / MODEL)
    except CheckpointError as error:
        return str(error)
    return None


def _misplaced(path: Path) -> str | None:
    """Whether its folder has the name of another step, in words: renamed it would be the newest for ever."""
    try:
        step = json.loads((path / STATE).read_text(encoding="utf-8"))["step"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"{STATE} is broken"
    return None if step == _place(path)[0] else f"it is of step {step}; give its folder the name that it had"


def _delete(path: Path) -> None:
    # Without its manifest a folder is no checkpoint any more, however far the deletion gets.
    try:
        (path / MANIFEST).unlink(missing_ok=True)
    except OSError as error:
        logger.warning("the old checkpoint %s could not be deleted: %s", path, error)
        return
    shutil.rmtree(path, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
