"""The folder of an evaluation: settings, verdicts as they come, and what a later run of it may go on from."""

import asyncio
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ..agent.trajectory import INFRASTRUCTURE, Trajectory
from ..envs.runs.files import bytes_written_whole, read_object, write_json, written_whole
from ..envs.runs.lock import RunLock
from ..envs.sandbox.background import on_thread_to_its_end
from ..errors import ConfigError
from .verdict import Verdict

Key = tuple[str, int]


class VerdictStore:
    """verdicts.jsonl (with preds.jsonl and trajectories.jsonl) of one DIR, appended line by line.

    Each line is on the disk before the next sample counts. A context manager; while it is open no other process may
    write to the DIR.

    Attributes:
        verdicts: those on record that stand. A failure of the infrastructure is no verdict: it is tried again.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        save_trajectories: bool = False,
        lock: RunLock | None = None,
    ) -> None:
        """
        Args:
            lock: of the DIR, where the caller holds it already.
        Raises:
            ConfigError: DIR belongs to a run with other settings, is in use, or is not a folder of an evaluation.
        """
        self._folder = folder
        self._settings = json.loads(json.dumps(settings))
        self._save_trajectories = save_trajectories
        self._lock = RunLock(folder) if lock is None else None
        self.verdicts: dict[Key, Verdict] = {}
        self._files: list[IO[str]] = []
        self._writing = asyncio.Lock()
        self._prediction_file: IO[str] | None = None

    def __enter__(self) -> "VerdictStore":
        if self._lock is not None:
            self._lock.__enter__()
        try:
            self._check_settings()
            self._read_verdicts()
            self._verdict_file = self._open("verdicts.jsonl", "a")
            self._trim("preds.jsonl")
            if self._save_trajectories:
                self._trim("trajectories.jsonl")
                self._trajectory_file = self._open("trajectories.jsonl", "a")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._files:
            self._files.pop().close()
        if self._lock is not None:
            self._lock.__exit__()

    async def put(
        self, verdict: Verdict, trajectory: Trajectory | None = None, prediction: Mapping[str, Any] | None = None
    ) -> None:
        """``append`` on a thread, one at a time: a long episode and a slow disk keep no other episode waiting."""
        async with self._writing:
            await on_thread_to_its_end(self.append, verdict, trajectory, prediction)

    def append(
        self, verdict: Verdict, trajectory: Trajectory | None = None, prediction: Mapping[str, Any] | None = None
    ) -> None:
        """Put one sample on the disk; its trajectory and prediction first, so that every verdict has them."""
        if self._save_trajectories and trajectory is not None:
            _append_pieces(self._trajectory_file, trajectory.json_pieces({"index": verdict.index}))
        if prediction is not None:
            if self._prediction_file is None:
                self._prediction_file = self._open("preds.jsonl", "a")
            _append(self._prediction_file, {**prediction, "index": verdict.index})
        _append(self._verdict_file, verdict.to_json())
        self.verdicts[verdict.key] = verdict

    def finish(self, order: Iterable[Key]) -> None:
        """Rewrite verdicts.jsonl, and preds.jsonl where there is one, in the order given, where it is another."""
        order = list(order)
        write_lines(self._folder / "verdicts.jsonl", (self.verdicts[key].to_json() for key in order))
        path = self._folder / "preds.jsonl"
        if not path.exists():
            return
        there = [(key, start, length) for key, start, length in _places(path) if key is not None]
        places = {key: (start, length) for key, start, length in there}  # of several of a sample the last
        wanted = [key for key in order if key in places]
        if [key for key, *_ in there] == wanted:
            return
        with path.open("rb") as rows, bytes_written_whole(path) as out:
            for key in wanted:
                rows.seek(places[key][0])
                out.write(rows.read(places[key][1]))

    def refuse_others(self, wanted: set[Key]) -> None:
        """Refuse to go on where the DIR holds samples that were not asked for.

        Raises:
            ConfigError: going on would leave them out of the report.
        """
        extra = [key for key in self.verdicts if key not in wanted]
        if extra:
            task_id, index = extra[0]
            raise ConfigError(
                f"{self._folder} holds {len(extra)} samples that were not asked for "
                f"(task {task_id!r}, sample {index}); "
                "ask for at least as many tasks and samples, or choose another --out"
            )

    def _check_settings(self) -> None:
        path = self._folder / "settings.json"
        if not path.exists():
            if (self._folder / "verdicts.jsonl").exists():
                raise ConfigError(f"{self._folder} holds verdicts without settings.json; choose another --out")
            write_json(path, self._settings)
            return
        before = read_object(path, "the settings of the run", "choose another --out", ConfigError)
        differ = [key for key in sorted({*before, *self._settings}) if before.get(key) != self._settings.get(key)]
        if differ:
            told = "; ".join(f"{key} was {before.get(key)!r}, is {self._settings.get(key)!r}" for key in differ)
            raise ConfigError(
                f"{self._folder} holds another run ({told}); choose another --out, or repeat its settings"
            )

    def _read_verdicts(self) -> None:
        """Take those that stand from verdicts.jsonl, and leave only these in it."""
        path, num_rows, end = self._folder / "verdicts.jsonl", 0, 0
        for number, line in enumerate(_lines(path), start=1):
            if not line.endswith(b"\n"):
                break
            verdict = Verdict.from_json(_parsed(path, number, line))
            num_rows, end = num_rows + 1, end + len(line)
            if verdict.ending not in INFRASTRUCTURE:
                self.verdicts[verdict.key] = verdict
        if not path.exists() or num_rows != len(self.verdicts) or end != path.stat().st_size:
            write_lines(path, (verdict.to_json() for verdict in self.verdicts.values()))

    def _trim(self, name: str) -> None:
        """Leave out what belongs to samples whose verdict never reached the disk: they are taken again. The file is
        read line by line, and written anew only where something is left out."""
        path = self._folder / name
        if not path.exists() or all(key in self.verdicts for key, *_ in _places(path)):
            return
        with path.open("rb") as rows, bytes_written_whole(path) as out:
            for key, start, length in _places(path):
                if key in self.verdicts:
                    rows.seek(start)
                    out.write(rows.read(length))

    def _open(self, name: str, mode: str) -> IO[str]:
        file = (self._folder / name).open(mode, encoding="utf-8")
        self._files.append(file)
        return file


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON Lines in ASCII (an agent's text may hold lone surrogates), whole or not at all."""
    with written_whole(path) as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)


def _key_of(row: Mapping[str, Any]) -> Key:
    return row.get("task_id", row.get("instance_id", "")), row["index"]


def _append(file: IO[str], row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row) + "\n")
    file.flush()
    os.fsync(file.fileno())


def _append_pieces(file: IO[str], pieces: Iterable[str]) -> None:
    file.writelines(pieces)
    file.write("\n")
    file.flush()
    os.fsync(file.fileno())


_TRAJECTORY_KEY = re.compile(rb'\{"index": (\d+), "task_id": ("(?:[^"\\]|\\.)*")[,}]')
"""How a row of trajectories.jsonl begins: the key of a row of megabytes stands in its first bytes."""


def _places(path: Path) -> Iterator[tuple[Key | None, int, int]]:
    """(key, where it begins, bytes) of each row; the key of a last line that was cut off is None.

    Raises:
        ConfigError: a line before the last is broken; the file was edited.
    """
    start = 0
    for number, line in enumerate(_lines(path), start=1):
        found = _TRAJECTORY_KEY.match(line)
        if not line.endswith(b"\n"):
            yield None, start, len(line)
        elif found is not None:
            yield (json.loads(found[2]), int(found[1])), start, len(line)
        else:
            yield _key_of(_parsed(path, number, line)), start, len(line)
        start += len(line)


def _lines(path: Path) -> Iterator[bytes]:
    if path.exists():
        with path.open("rb") as lines:
            yield from lines


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        return json.loads(line.decode("utf-8", errors="replace"))
    except ValueError as error:
        raise ConfigError(f"{path}, line {number}: not JSON ({error}); mend it or choose another --out") from None
