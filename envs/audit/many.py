"""Many rows measured, some at once."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import GradingError, SandboxError, TaskError
from ..datasets.swe import row_of, task_of
from ..sandbox.background import all_or_first_error
from ..sandbox.python import cache_folder
from ..sandbox.types import SandboxBackend
from .certificate import NOT_RUN, Certificate
from .ledger import Cache, Ledger
from .measure import Effort, measure
from .strengthen import strengthen

Progress = Callable[[str, int, int], None]

RUN_S, ROW_S = 0.8, 8.0
"""Seconds of one run of a small suite, and of what a row needs besides; an estimate before anything has run."""


def estimated_minutes(rows: int, effort: Effort, *, workers: int) -> float:
    """How long so many rows take, before one has been measured."""
    return rows * (ROW_S + RUN_S * effort.runs) / workers / 60.0


async def measure_rows(
    rows: Sequence[Mapping[str, Any]],
    certificates: Sequence[Certificate],
    *,
    folder: Path,
    backend: SandboxBackend,
    effort: Effort,
    workers: int,
    ledger: Ledger,
    progress: Progress | None = None,
) -> list[Certificate]:
    """Measure rows that have certificates from their text.

    Args:
        rows: as they were read; relative archives are looked for in ``folder``.
        certificates: of the rows, in their order; those that hold measurements, or a problem, are returned as they are.
        ledger: gets each as it is made.
    Returns:
        [N] certificates in the rows' order. A row whose sandbox failed keeps what its text says, with the reason.
    """
    tell = progress or (lambda what, done, total: None)
    cache = Cache(cache_folder(), {"mutants": effort.mutants, "notes": effort.notes, "backend": backend.name})
    room = asyncio.Semaphore(workers)
    total = sum(_is_open(one) for one in certificates)
    done = 0
    tell("rows measured", 0, total)

    async def one(raw: Mapping[str, Any], certificate: Certificate) -> Certificate:
        nonlocal done
        if not _is_open(certificate):
            return certificate
        async with room:
            found = cache.get(certificate.row_sha256)
            if found is None:
                found = await _measured(backend, raw, certificate, folder, effort)
                if found.measured and not found.problem:
                    cache.put(found)
            ledger.add(found)
        done += 1
        tell("rows measured", done, total)
        return found

    return await all_or_first_error([one(raw, mine) for raw, mine in zip(rows, certificates, strict=True)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Strengthened:
    """What came of a row: its stronger self, or why there is none."""

    task_id: str
    row: dict[str, Any] | None = None
    num_tests: int = 0
    num_alive: int = 0
    num_killed: int = 0
    problem: str = ""


async def strengthen_rows(
    rows: Sequence[Mapping[str, Any]],
    *,
    folder: Path,
    backend: SandboxBackend,
    effort: Effort,
    workers: int,
    progress: Progress | None = None,
) -> list[Strengthened]:
    """Further tests for rows, ``workers`` of them at once; [N] in their order."""
    tell = progress or (lambda what, done, total: None)
    room, done = asyncio.Semaphore(workers), 0
    tell("rows strengthened", 0, len(rows))

    async def one(raw: Mapping[str, Any]) -> Strengthened:
        nonlocal done
        async with room:
            found = await _stronger(backend, raw, folder, effort)
        done += 1
        tell("rows strengthened", done, len(rows))
        return found

    return await all_or_first_error([one(raw) for raw in rows])


async def _stronger(backend: SandboxBackend, raw: Mapping[str, Any], folder: Path, effort: Effort) -> Strengthened:
    name = str(raw.get("instance_id", "?"))
    try:
        row = row_of(task_of(dict(raw), folder=folder))
        found = await strengthen(backend, row, effort)
    except (SandboxError, TaskError, GradingError) as error:
        return Strengthened(task_id=name, problem=str(error))
    problem = ""
    if not found.kept.files:
        problem = "no wrong solution was accepted" if not found.num_alive else "no call tells them from the reference"
    return Strengthened(
        task_id=name,
        row=found.row(raw, row) if found.kept.files else None,
        num_tests=len(found.fail_to_pass) + len(found.pass_to_pass),
        num_alive=found.num_alive,
        num_killed=found.num_killed,
        problem=problem,
    )


def _is_open(certificate: Certificate) -> bool:
    return not certificate.measured and not certificate.problem


async def _measured(
    backend: SandboxBackend, raw: Mapping[str, Any], certificate: Certificate, folder: Path, effort: Effort
) -> Certificate:
    try:
        return await measure(backend, row_of(task_of(dict(raw), folder=folder)), certificate, effort)
    except (SandboxError, TaskError, GradingError) as error:
        return replace(certificate, problem=f"{NOT_RUN}: {error}")
