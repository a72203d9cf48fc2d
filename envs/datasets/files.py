"""Rows of a file, whatever it is written in: JSON Lines, one JSON array or object, Parquet, Arrow; gzip around JSON."""

import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import TaskError

PARQUET_MAGIC = b"PAR1"
ARROW_FILE_MAGIC = b"ARROW1"
ARROW_STREAM_MAGIC = b"\xff\xff\xff\xff"
"""How a message of Arrow's stream format begins, which ``datasets`` writes."""
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
    """Rows of a JSON Lines, JSON (an array of objects, or objects over several lines), Parquet or Arrow file; told by
    content, not by name.

    Empty lines are skipped. JSON Lines, Parquet and Arrow are read as they are asked for; other JSON at once.

    Raises:
        TaskError: the file is missing, or a line or element is not a JSON object (the message has its number).
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(6)
        if start.startswith((PARQUET_MAGIC, ARROW_FILE_MAGIC, ARROW_STREAM_MAGIC)):
            yield from _table_rows(path, start)
            return
        with gzip.open(path) if start.startswith(GZIP_MAGIC) else path.open("rb") as file:
            lines = io.TextIOWrapper(file, encoding="utf-8-sig")  # type: ignore[arg-type]
            yield from _json_rows(path, lines)
    except FileNotFoundError:
        raise TaskError(f"{path}: no such file; give the path of a JSON Lines, JSON or Parquet file") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise TaskError(f"{path}: cannot be read as UTF-8 JSON Lines or JSON ({error})") from None


def _json_rows(path: Path, lines: io.TextIOWrapper) -> Iterator[SourceRow]:
    first = True
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if first and line.lstrip().startswith("["):
            yield from _array_rows(path, line + lines.read())
            return
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if first and _goes_on(line, error):
                yield from _object_rows(path, number, line + lines.read())
                return
            raise TaskError(f"{path}, line {number}: not JSON ({error}); one object a line is expected") from None
        first = False
        if not isinstance(row, dict):
            raise TaskError(f"{path}, line {number}: a JSON object is expected, this is a {type(row).__name__}")
        yield SourceRow(where=f"{path.name}, line {number}", value=row)


def _goes_on(line: str, error: Exception) -> bool:
    """Whether nothing is wrong with a line but that its object does not end in it."""
    text = line.rstrip()
    at_end = isinstance(error, json.JSONDecodeError) and error.pos >= len(text) - 1
    return at_end and text.lstrip().startswith("{")


def _object_rows(path: Path, number: int, text: str) -> Iterator[SourceRow]:
    """Objects one after another, each over several lines; the first begins in line ``number``."""
    decoder, blank, place = json.JSONDecoder(), re.compile(r"\s*"), 0
    counted = 0
    while (place := _end(blank, text, place)) < len(text):
        number += text.count("\n", counted, place)
        counted = place
        try:
            row, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise TaskError(f"{path}, line {number}: not JSON ({error}); an object is expected") from None
        if not isinstance(row, dict):
            raise TaskError(f"{path}, line {number}: a JSON object is expected, this is a {type(row).__name__}")
        yield SourceRow(where=f"{path.name}, line {number}", value=row)


def _end(pattern: re.Pattern[str], text: str, place: int) -> int:
    match = pattern.match(text, place)
    return place if match is None else match.end()


def _array_rows(path: Path, text: str) -> Iterator[SourceRow]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{path}: not JSON ({error}); an array of objects, or one object a line, is expected") from None
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise TaskError(f"{path}, element {number}: a JSON object is expected, this is a {type(row).__name__}")
        yield SourceRow(where=f"{path.name}, element {number}", value=row)


def _table_rows(path: Path, start: bytes) -> Iterator[SourceRow]:
    import pyarrow

    kind = "Parquet" if start.startswith(PARQUET_MAGIC) else "Arrow"
    try:
        number = 0
        for batch in _batches(path, start):
            for part in range(0, batch.num_rows, PARQUET_BATCH):
                for row in batch.slice(part, PARQUET_BATCH).to_pylist():
                    number += 1
                    yield SourceRow(where=f"{path.name}, row {number}", value=row)
    except (pyarrow.ArrowException, OSError) as error:
        raise TaskError(f"{path}: cannot be read as {kind} ({error})") from None


def _batches(path: Path, start: bytes) -> Iterator[Any]:
    """Batches of rows; those of training sets can hold solutions and tests of megabytes."""
    import pyarrow
    import pyarrow.parquet

    if start.startswith(PARQUET_MAGIC):
        yield from pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=PARQUET_BATCH)
        return
    with pyarrow.memory_map(str(path)) as source:
        if start.startswith(ARROW_FILE_MAGIC):
            reader = pyarrow.ipc.open_file(source)
            yield from (reader.get_batch(n) for n in range(reader.num_record_batches))
        else:
            yield from pyarrow.ipc.open_stream(source)
