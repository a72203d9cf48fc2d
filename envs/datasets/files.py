"""Rows of a file, whatever it is written in: JSON Lines, one JSON array, Parquet; gzip around the first two."""

import gzip
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import TaskError

PARQUET_MAGIC = b"PAR1"
GZIP_MAGIC = b"\x1f\x8b"
PARQUET_BATCH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """One row and where it stands.

    Attributes:
        where: for messages, such as "math500.jsonl, line 12".
        value: the row's columns.
    """

    where: str
    value: Mapping[str, Any]


def read_rows(path: str | Path) -> Iterator[SourceRow]:
    """Rows of a JSON Lines, JSON (one array of objects) or Parquet file; told by content, not by name.

    Empty lines are skipped. JSON Lines are read as they are asked for; the other two at once.

    Raises:
        TaskError: the file is missing, or a line or element is not a JSON object (the message has its number).
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start == PARQUET_MAGIC:
            yield from _parquet_rows(path)
            return
        with gzip.open(path) if start.startswith(GZIP_MAGIC) else path.open("rb") as file:
            lines = io.TextIOWrapper(file, encoding="utf-8-sig")  # type: ignore[arg-type]
            yield from _json_rows(path, lines)
    except FileNotFoundError:
        raise TaskError(f"{path}: no such file; give the path of a JSON Lines, JSON or Parquet file") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise TaskError(f"{path}: cannot be read as UTF-8 JSON Lines or JSON ({error})") from None


def _json_rows(path: Path, lines: io.TextIOWrapper) -> Iterator[SourceRow]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if number == 1 and line.lstrip().startswith("["):
            yield from _array_rows(path, line + lines.read())
            return
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TaskError(f"{path}, line {number}: not JSON ({error}); one object a line is expected") from None
        if not isinstance(row, dict):
            raise TaskError(f"{path}, line {number}: a JSON object is expected, this is a {type(row).__name__}")
        yield SourceRow(where=f"{path.name}, line {number}", value=row)


def _array_rows(path: Path, text: str) -> Iterator[SourceRow]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{path}: not JSON ({error}); an array of objects, or one object a line, is expected") from None
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise TaskError(f"{path}, element {number}: a JSON object is expected, this is a {type(row).__name__}")
        yield SourceRow(where=f"{path.name}, element {number}", value=row)


def _parquet_rows(path: Path) -> Iterator[SourceRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        # Rows of training sets can hold solutions and tests of megabytes.
        batches = pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=PARQUET_BATCH)
        number = 0
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield SourceRow(where=f"{path.name}, row {number}", value=row)
    except (pyarrow.ArrowException, OSError) as error:
        raise TaskError(f"{path}: cannot be read as Parquet ({error})") from None
