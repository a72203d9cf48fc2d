"""Rows of a folder: files of a dataset, a clone from the hub, or what ``datasets`` wrote with ``save_to_disk``."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from ...errors import TaskError
from .files import SourceRow, read_rows

SUFFIXES = frozenset({".jsonl", ".json", ".parquet", ".arrow", ".gz"})
NO_ROWS = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
SPLIT = re.compile(r"(?:^|-)(train|test|validation|val|dev)(?:[-_.]|$)")


def read_source(path: str | Path, *, split: str | None = None) -> Iterator[SourceRow]:
    """Rows of a file (``read_rows``), or of a folder's files in the order of their names.

    Args:
        split: which one is taken of a folder that has several, such as "test".
    Raises:
        TaskError: as ``read_rows``; a folder without such files, or with several splits and without this one.
    """
    path = Path(path)
    if not path.is_dir():
        yield from read_rows(path)
        return
    for file in files_of(path, split=split):
        yield from read_rows(file)


def files_of(folder: Path, *, split: str | None = None) -> list[Path]:
    """The files with a folder's rows. Raises as ``read_source``."""
    if (folder / "dataset_dict.json").is_file():
        return files_of(folder / _chosen(folder, sorted(one.name for one in folder.iterdir() if one.is_dir()), split))
    if (folder / "state.json").is_file():
        return _saved_files(folder)
    files = _files_in(folder) or (_files_in(folder / "data") if (folder / "data").is_dir() else [])
    if not files:
        raise TaskError(f"{folder}: no file that ends in {', '.join(sorted(SUFFIXES))}; give a folder with such files")
    named: dict[str, list[Path]] = {}
    for file in files:
        found = SPLIT.search(file.name)
        named.setdefault(found[1] if found else "", []).append(file)
    if len(named) == 1 or "" in named:
        return files
    return named[_chosen(folder, sorted(named), split)]


def digest_of(path: Path | None) -> str | None:
    """SHA-256 of a file, or of all files of a folder with their names; None for None."""
    if path is None:
        return None
    if not path.is_dir():
        return _digest(path).hexdigest()
    whole = hashlib.sha256()
    for file in sorted(one for one in path.rglob("*") if one.is_file()):
        whole.update(f"{file.relative_to(path)}\0{_digest(file).hexdigest()}\0".encode(errors="surrogateescape"))
    return whole.hexdigest()


def _digest(file: Path) -> "hashlib._Hash":
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256")


def _files_in(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.suffix in SUFFIXES and one.name not in NO_ROWS)


def _chosen(folder: Path, splits: list[str], split: str | None) -> str:
    if len(splits) == 1 or (split is not None and split in splits):
        return splits[0] if len(splits) == 1 else str(split)
    told = ", ".join(splits) or "none"
    asked = f", and not {split!r}" if split else ""
    raise TaskError(f"{folder} has the splits {told}{asked}; give the folder or the file of one")


def _saved_files(folder: Path) -> list[Path]:
    """The files of ``Dataset.save_to_disk``, in the rows' order."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        names = [str(one["filename"]) for one in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaskError(f"{folder}/state.json is not one that datasets.save_to_disk writes ({error!r})") from None
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise TaskError(f"{folder} holds a selection of its rows as indices; save it again with datasets 2 or later")
    return [folder / name for name in names]
