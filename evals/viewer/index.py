"""An index of a run's episodes: a small SQLite file in a cache folder, so that a table of any length opens at once.

The run's own files are only read. A thread brings the index up to them while somebody looks.
"""

import fcntl
import json
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from .rows import CONFLICT, NAMES, SCHEMA, Source, row_of_line, sources_of
from .runs import FoundRun
from .tail import Place, mark_at, new_lines

VERSION = 4
"""Of the index's tables; another one is made anew."""
BATCH = 2_000
"""Rows that become visible at a time."""
PAUSE_SECONDS = 0.25
"""Between two looks at a run that somebody looks at."""
IDLE_SECONDS = 15.0
"""After the last question the thread ends."""
KEPT_SECONDS = 30 * 86_400
FRESH_SECONDS = 0.05


def cache_folder() -> Path:
    """Where indexes are kept: $XDG_CACHE_HOME/verigym/view, else ~/.cache/verigym/view; a temporary folder where that
    cannot be written to."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "verigym" / "view"
    try:
        root.mkdir(parents=True, exist_ok=True)
        if os.access(root, os.W_OK):
            return root
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="verigym-view-"))


def forget_old(folder: Path) -> None:
    """Remove indexes that nobody has used for a month."""
    for path in folder.glob("*.sqlite*"):
        try:
            if time.time() - path.stat().st_mtime > KEPT_SECONDS:
                path.unlink()
        except OSError:
            continue


class EpisodeIndex:
    """The index of one run. Safe between threads."""

    def __init__(self, run: FoundRun, cache: Path, *, fresh_s: float = FRESH_SECONDS) -> None:
        """
        Args:
            fresh_s: an answer waits so long at most for what was written before it was asked for.
        """
        self._run, self._fresh_s = run, fresh_s
        self._path = cache / f"{run.id}-{VERSION}.sqlite"
        self._lock_file = self._locked(cache)
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._asked = 0.0
        self._begun = self._ended = 0  # looks at the run's files
        self._seen: dict[str, tuple[int, int]] = {}  # size and time of files that are read to their end
        self.version = 0
        """Rises with every change."""
        self.total = 0
        """Episodes in the index."""
        self.behind = True
        """Whether there is more in the files than in the index."""
        self._prepare()

    def _locked(self, cache: Path) -> Any:
        """One server writes an index; another one makes its own."""
        file = (cache / f"{self._run.id}.lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._path = Path(tempfile.mkdtemp(prefix="verigym-view-")) / self._path.name
        return file

    def _prepare(self) -> None:
        try:
            with closing(self._connect()) as base:
                base.execute("PRAGMA journal_mode=WAL")
                base.executescript(SCHEMA)
                base.execute("SELECT count(*) FROM files").fetchone()
        except sqlite3.DatabaseError:  # damaged: it is made anew
            for path in self._path.parent.glob(f"{self._path.name}*"):
                path.unlink(missing_ok=True)
            with closing(self._connect()) as base:
                base.execute("PRAGMA journal_mode=WAL")
                base.executescript(SCHEMA)

    def _connect(self) -> sqlite3.Connection:
        base = sqlite3.connect(self._path, timeout=10.0, isolation_level=None)
        base.execute("PRAGMA synchronous=OFF")
        base.row_factory = sqlite3.Row
        return base

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to what is indexed, brought up to date before where that takes no longer than ``fresh_s``."""
        self.touch()
        with closing(self._connect()) as base:
            base.execute("PRAGMA query_only=ON")
            yield base

    def touch(self) -> int:
        """Say that somebody looks, and wait as ``reading`` does; returns ``version``."""
        with self._wake:
            self._asked = time.monotonic()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._follow, name="verigym-index", daemon=True)
                self._thread.start()
            wanted = self._begun + 1  # one that has begun before may have missed what was written since
            self._wake.notify_all()
            self._wake.wait_for(lambda: self._ended >= wanted, timeout=self._fresh_s)
            return self.version

    def _follow(self) -> None:
        with closing(self._connect()) as base:
            self.total = base.execute("SELECT count(*) FROM episodes").fetchone()[0]
            while True:
                with self._wake:
                    self._begun += 1
                self.update(base)
                with self._wake:
                    self._ended = self._begun
                    self._wake.notify_all()
                    self._wake.wait(PAUSE_SECONDS)  # less where somebody asks
                    if time.monotonic() - self._asked > IDLE_SECONDS:
                        self._thread = None
                        return

    def update(self, base: sqlite3.Connection) -> None:
        """Read what is new in the files."""
        sources = sources_of(self._run)
        known = {row["path"] for row in base.execute("SELECT path FROM files")}
        for path in known - {str(source.path) for source in sources}:
            self._forget(base, path)
        for source in sources:
            try:
                stat = source.path.stat()
                found = stat.st_size, stat.st_mtime_ns
                if self._seen.get(str(source.path)) != found:
                    self._read(base, source)
                    self._seen[str(source.path)] = found
            except OSError:
                continue
        self.behind = False

    def _read(self, base: sqlite3.Connection, source: Source) -> None:
        row = base.execute("SELECT offset, mark FROM files WHERE path = ?", (str(source.path),)).fetchone()
        place = Place(row["offset"], row["mark"]) if row else Place()
        with source.path.open("rb") as file:
            if not place.holds(file):
                self._forget(base, str(source.path))
                place = Place()
            size = os.fstat(file.fileno()).st_size
            if size == place.offset:
                return
            self.behind = True
            rows: list[tuple[Any, ...]] = []
            offset = place.offset
            for start, line in new_lines(file, offset):
                offset = start + len(line)
                row = row_of_line(source, start, line)
                if row is not None:
                    rows.append(tuple(row.get(name) for name in NAMES))
                if len(rows) >= BATCH:
                    self._put(base, source, rows, offset)
                    rows = []
            self._put(base, source, rows, offset)

    def _put(self, base: sqlite3.Connection, source: Source, rows: list[tuple[Any, ...]], offset: int) -> None:
        with source.path.open("rb") as file:  # the one that is being read is ahead of ``offset``
            mark = mark_at(file, offset)
        base.execute("BEGIN IMMEDIATE")
        base.executemany(_insert(source), rows)
        base.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (str(source.path), offset, mark))
        base.execute("COMMIT")
        self._changed(base)

    def _forget(self, base: sqlite3.Connection, path: str) -> None:
        base.execute("BEGIN IMMEDIATE")
        base.execute("DELETE FROM episodes WHERE path = ?", (path,))
        if self._run.kind == "training":
            base.execute("DELETE FROM files WHERE path = ?", (path,))
        else:  # rows are of a trajectory and a verdict together: both files are read again
            base.execute("DELETE FROM files")
            self._seen.clear()
        base.execute("COMMIT")
        self._changed(base)

    def _changed(self, base: sqlite3.Connection) -> None:
        self.total = base.execute("SELECT count(*) FROM episodes").fetchone()[0]
        with self._wake:
            self.version += 1
            self._wake.notify_all()

    def line_of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The whole row of the run's file that an index's row is of."""
        with Path(row["path"]).open("rb") as file:
            file.seek(row["offset"])
            return json.loads(file.read(row["length"]))


def _insert(source: Source) -> str:
    names, places, update = ", ".join(NAMES), ", ".join("?" for _ in NAMES), CONFLICT[source.flavor]
    return f"INSERT INTO episodes ({names}) VALUES ({places}) ON CONFLICT(key) DO UPDATE SET {update}"


class Indexes:
    """The indexes of all runs that were asked for."""

    def __init__(self, cache: Callable[[], Path] = cache_folder, *, fresh_s: float = FRESH_SECONDS) -> None:
        self._cache_of, self._fresh_s = cache, fresh_s
        self._cache: Path | None = None
        self._lock = threading.Lock()
        self._open: dict[str, EpisodeIndex] = {}

    def of(self, run: FoundRun) -> EpisodeIndex:
        with self._lock:
            if self._cache is None:
                self._cache = self._cache_of()
                forget_old(self._cache)
            if run.id not in self._open:
                self._open[run.id] = EpisodeIndex(run, self._cache, fresh_s=self._fresh_s)
            return self._open[run.id]
