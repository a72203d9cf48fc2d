"""Folders that are whole or not there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ...errors import CheckpointError
from .checksums import write_sums


@contextmanager
def written_whole(target: Path, *, sums: bool = True) -> Iterator[Path]:
    """A folder beside ``target`` to write into; on leaving it is flushed to the disk and takes the target's place.

    Args:
        sums: record the checksums of all files in it, see ``checksums``.
    Raises:
        CheckpointError: it could not be written; what was at ``target`` before is whole.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if sums:
            write_sums(partial)
        for file in (*partial.iterdir(), partial):
            _flush(file)
        _swap(partial, target)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint {target} could not be written ({error}); the one before, if any, is whole. "
            "Free some space or give another --out, then resume"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def existing(path: Path) -> Path:
    """Where the folder ``path`` is: in its place, or aside, where a crash between the two renames left it."""
    aside = _aside(path)
    return aside if aside.exists() and not path.exists() else path


def _swap(partial: Path, target: Path) -> None:
    # A folder cannot be renamed over another. A crash between the two renames leaves the old one aside, where
    # ``existing`` finds it.
    aside = _aside(target)
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
        target.rename(aside)
    partial.rename(target)
    _flush(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
