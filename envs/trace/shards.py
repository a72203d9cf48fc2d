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


def write_shards(
    folder: Path, examples: Iterable[Example], *, about: Mapping[str, Any], rows_per_shard: int = 5000
) -> dict[str, Any]:
    """Write ``traces-00000.parquet``, ... and, last, the manifest: a folder without one is not whole.

    Args:
        folder: made; must hold no data set yet.
        about: where the traces are from and what was left out; goes into the manifest.
    Returns:
        the manifest: "shards" [{"file", "rows", "sha256"}], "num_traces", "num_frames", "num_characters", ``about``.
    Raises:
        TaskError: the folder holds a data set.
    """
    if (folder / MANIFEST).exists():
        raise TaskError(f"{folder} holds a data set of traces already; give another folder, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Any]] = []
    totals = {"num_traces": 0, "num_frames": 0, "num_characters": 0}
    rows: list[dict[str, Any]] = []

    def flush() -> None:
        if not rows:
            return
        path = folder / f"traces-{len(shards):05d}.parquet"
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        write_with(path, lambda partial: pq.write_table(table, partial, compression="zstd"))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shards.append({"file": path.name, "rows": len(rows), "sha256": digest})
        rows.clear()

    for example in examples:
        row = example.to_row()
        rows.append(row)
        totals["num_traces"] += 1
        totals["num_frames"] += row["num_frames"]
        totals["num_characters"] += row["num_characters"]
        if len(rows) >= rows_per_shard:
            flush()
    flush()
    manifest = {"format": 1, **totals, **about, "shards": shards}
    write_json(folder / MANIFEST, manifest)
    return manifest


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
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != shard["sha256"]:
            raise TaskError(f"{path} is missing or has changed since the data set was made; make it anew")
        for batch in pq.ParquetFile(path).iter_batches(batch_size=256):
            yield from map(Example.from_row, batch.to_pylist())
