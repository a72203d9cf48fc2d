"""Certificates that were made already: of this file, and of this machine. Each by the digest of its row."""

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigError, TaskError
from ..runs.files import write_json, written_whole
from ..task import read_jsonl
from .certificate import CUT, NOT_RUN, VERSION, Certificate, signed, suite_seconds

logger = logging.getLogger(__name__)


class Ledger:
    """A file of certificates, a line each as it is made; put in the rows' order at the end.

    A line that was not written whole is left out. What stands in the file counts only with ``resume``.
    """

    def __init__(self, out: Path, *, resume: bool, key: bytes) -> None:
        """
        Raises:
            ConfigError: ``out`` is there, and ``resume`` was not said; or it holds something else.
        """
        self.out, self._key = out, key
        self._known: dict[str, Certificate] = {}
        self._suites: dict[str, float] = {}
        if out.exists() and out.stat().st_size:
            if not resume:
                raise ConfigError(f"{out} is there; go on with --resume, or give another --out")
            self._read()

    def known(self, row_sha256: str, *, measured: bool) -> Certificate | None:
        """What was made of a row by these rules; where it is to be measured, only what was. A failure is no result, nor
        is what was cut."""
        found = self._known.get(row_sha256)
        if found is None or found.problem.startswith((NOT_RUN, CUT)) or (measured and not found.measured):
            return None
        return found

    def suite_s(self, row_sha256: str) -> float | None:
        """How long a row's tests took when it was measured, by whatever rules and however far; None: nobody knows."""
        return self._suites.get(row_sha256)

    def add(self, certificate: Certificate) -> None:
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(signed(certificate, self._key)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def finish(self, certificates: Sequence[Certificate]) -> None:
        """Write all certificates in their order."""
        with written_whole(self.out) as file:
            for one in certificates:
                file.write(json.dumps(signed(one, self._key)) + "\n")

    def _read(self) -> None:
        lines = self.out.read_bytes().split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):  # what stands after the last line break was not finished
            try:
                found = Certificate.from_json(json.loads(line))
            except (ValueError, AttributeError, TaskError):
                raise ConfigError(
                    f"{self.out}, line {number}, is no certificate; give another --out, or remove it"
                ) from None
            if found.version == VERSION:
                self._known[found.row_sha256] = found
            seconds = suite_seconds(found.measured)
            if seconds is not None:
                self._suites[found.row_sha256] = seconds
        if lines[-1]:
            with written_whole(self.out) as file:
                file.write("".join(line.decode() + "\n" for line in lines[:-1]))


class Cache:
    """Measured certificates of this machine, a file each, by row, rules and how much was tried."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder = folder / "audit" / f"v{VERSION}"
        self._suffix = "-".join(f"{value}" for value in settings.values())

    def get(self, row_sha256: str) -> Certificate | None:
        try:
            return Certificate.from_json(json.loads(self._path(row_sha256).read_bytes()))
        except (OSError, ValueError, TaskError, AttributeError):
            return None  # not there, or of no use: it is made again

    def put(self, certificate: Certificate) -> None:
        try:
            write_json(self._path(certificate.row_sha256), certificate.to_json(), indent=None)
        except OSError:
            return  # a cache that cannot be written is none

    def _path(self, row_sha256: str) -> Path:
        return self._folder / f"{row_sha256}-{self._suffix}.json"


def read_certificates(path: Path) -> dict[str, Certificate]:
    """Certificates of a file by their row's instance_id; the log is told of those by rules of another version.

    Raises:
        TaskError: the file is missing, or a line is no certificate.
    """
    try:
        found = {one.instance_id: one for one in map(Certificate.from_json, read_jsonl(path))}
    except TaskError as error:
        if not path.exists():
            raise TaskError(f"{path}: no such file; verigym tasks audit ROWS --out {path} makes certificates") from None
        raise TaskError(
            f"{error}. If {path} is of an audit that was interrupted, verigym tasks audit --resume goes on with it"
        ) from None
    if not found:
        raise TaskError(f"{path} holds no certificate; verigym tasks audit makes them")
    other = Counter(one.version for one in found.values() if one.version != VERSION)
    if other:
        versions = ", ".join(f"{count} of version {version}" for version, count in sorted(other.items()))
        logger.warning(
            "%s: %d of %d certificates are by other rules than these, version %d (%s); verigym tasks audit with "
            "--resume makes them anew",
            path, other.total(), len(found), VERSION, versions,
        )  # fmt: skip
    return found
