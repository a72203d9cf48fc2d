"""A data set of traces on disk: Parquet shards and a manifest that says what is in them and how they came about."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import TaskError
from ..runs.files import write_json, write_with
from .examples import Example

MANIFEST = "manifest.json"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),
        ("origin", pa.string()),
        ("function", pa.string()),
        ("cut", pa.bool_()),
        ("num_frames", pa.int32()),
        ("num_characters", pa.int32()),
        ("context", pa.string()),
        ("frames", pa.string()),
        ("ended", pa.bool_()),
    ]
)


class ShardWriter:
    """Writes ``traces-00000.parquet``, ... as traces come, and, last, the manifest: a folder without one is not whole.

    Of the traces, those of one shard are held.
    """

    def __init__(self, folder: Path, *, rows_per_shard: int = 5000) -> None:
        """
        Args:
            folder: made; must hold no data set yet.
        Raises:
            TaskError: the folder holds a data set.
        """
        if (folder / MANIFEST).exists():
            raise TaskError(f"{folder} holds a data set of traces already; give another folder, or remove it")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._rows_per_shard = folder, rows_per_shard
        self._shards: list[dict[str, Any]] = []
        self._totals = {"num_traces": 0, "num_frames": 0, "num_characters": 0}
        self._rows: list[dict[str, Any]] = []

    def add(self, example: Example) -> None:
        row = example.to_row()
        self._rows.append(row)
        self._totals["num_traces"] += 1
        self._totals["num_frames"] += row["num_frames"]
        self._totals["num_characters"] += row["num_characters"]
        if len(self._rows) >= self._rows_per_shard:
            self._flush()

    def finish(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest, as ``write_shards`` says."""
        self._flush()
        manifest = {"format": 1, **self._totals, **about, "shards": self._shards}
        write_json(self._folder / MANIFEST, manifest)
        return manifest

    def _flush(self) -> None:
        if not self._rows:
            return
        path = self._folder / f"traces-{len(self._shards):05d}.parquet"
        table = pa.Table.from_pylist(self._rows, schema=SCHEMA)
        write_with(path, lambda partial: pq.write_table(table, partial, compression="zstd"))
        self._shards.append({"file": path.name, "rows": len(self._rows), "sha256": _sha256(path)})
        self._rows.clear()


def write_shards(
    folder: Path, examples: Iterable[Example], *, about: Mapping[str, Any], rows_per_shard: int = 5000
) -> dict[str, Any]:
    """Write a data set; see ``ShardWriter``.

    Args:
        about: where the traces are from and what was left out; goes into the manifest.
    Returns:
        the manifest: "shards" [{"file", "rows", "sha256"}], "num_traces", "num_frames", "num_characters", ``about``.
    Raises:
        TaskError: the folder holds a data set.
    """
    writer = ShardWriter(folder, rows_per_shard=rows_per_shard)
    for example in examples:
        writer.add(example)
    return writer.finish(about)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """
    Raises:
        TaskError: there is no whole data set.
    """
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TaskError(
            f"{folder} holds no data set of traces ({error}); `verigym tasks traces ... --out {folder}` makes one"
        ) from None


def read_shards(folder: Path) -> Iterator[Example]:
    """The traces of a data set, shard by shard.

    Raises:
        TaskError: there is none, a shard is missing, or is not what the manifest says.
    """
    for shard in read_manifest(folder)["shards"]:
        path = folder / shard["file"]
        if not path.is_file() or _sha256(path) != shard["sha256"]:
            raise TaskError(f"{path} is missing or has changed since the data set was made; make it anew")
        for batch in pq.ParquetFile(path).iter_batches(batch_size=256):
            yield from map(Example.from_row, batch.to_pylist())
