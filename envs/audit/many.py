"""Many rows measured, some at once."""

import asyncio
import logging
import time
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
from .forecast import Forecast
from .further_tests.strengthen import strengthen
from .ledger import Cache, Ledger
from .measure import Effort, measure, time_suite

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]

SAMPLE = 8
"""Rows whose suites are timed before an audit begins, at most."""
TICK_S = 1.0


def taken_from_cache(
    certificates: Sequence[Certificate], *, backend: SandboxBackend, effort: Effort, ledger: Ledger
) -> list[Certificate]:
    """The certificates, [N]; those that this machine measured before in place of those from text."""
    cache = _cache_of(backend, effort)
    found = []
    for certificate in certificates:
        known = cache.get(certificate.row_sha256) if _is_open(certificate) else None
        if known is not None:
            ledger.add(known)
        found.append(known or certificate)
    return found


async def forecast_rows(
    rows: Sequence[Mapping[str, Any]],
    certificates: Sequence[Certificate],
    *,
    folder: Path,
    backend: SandboxBackend,
    effort: Effort,
    workers: int,
    ledger: Ledger,
    progress: Progress | None = None,
) -> Forecast:
    """How long ``measure_rows`` will take with the same arguments: by suites that the ledger knows, and by some that
    are timed here, one of each repository first. A row whose suite cannot be run says nothing."""
    tell = progress or (lambda what, done, total: None)
    left = [(raw, mine) for raw, mine in zip(rows, certificates, strict=True) if _is_open(mine)]
    names = [str(raw.get("repo") or mine.instance_id) for raw, mine in left]
    forecast = Forecast(names=names, effort=effort, workers=workers)
    for number, (_, mine) in enumerate(left):
        known = ledger.suite_s(mine.row_sha256)
        if known is not None:
            forecast.suites[number] = known
    sample, room, done = forecast.sample(SAMPLE), asyncio.Semaphore(workers), 0

    async def one(number: int) -> None:
        nonlocal done
        async with room:
            try:
                row = row_of(task_of(dict(left[number][0]), folder=folder))
                forecast.suites[number] = await time_suite(backend, row, most_s=effort.row_minutes * 60.0)
            except (SandboxError, TaskError, GradingError, TimeoutError) as error:
                logger.info("%s: its tests cannot be timed: %s", left[number][1].instance_id, error)
        done += 1
        tell("suites timed", done, len(sample))

    if sample:
        tell("suites timed", 0, len(sample))
    await all_or_first_error([one(number) for number in sample])
    return forecast


async def measure_rows(
    rows: Sequence[Mapping[str, Any]],
    certificates: Sequence[Certificate],
    forecast: Forecast,
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
        forecast: of ``forecast_rows``.
        ledger: gets each as it is made.
        progress: is told the seconds that have gone by, and those with what is left.
    Returns:
        [N] certificates in the rows' order. A row whose sandbox failed keeps what its text says, with the reason.
    """
    cache, room, done = _cache_of(backend, effort), asyncio.Semaphore(workers), 0
    numbers = iter(range(len(forecast.names)))
    total, started = len(forecast.names), time.monotonic()

    async def one(raw: Mapping[str, Any], certificate: Certificate) -> Certificate:
        nonlocal done
        if not _is_open(certificate):
            return certificate
        number = next(numbers)
        async with room:
            forecast.began(number, time.monotonic())
            found = await _measured(
                backend, raw, certificate, folder, effort, lambda seconds: forecast.suites.update({number: seconds})
            )
            if found.measured and not found.problem:
                cache.put(found)
            ledger.add(found)
            forecast.ended(number, time.monotonic())
        done += 1
        return found

    async def tick() -> None:
        while progress is not None:
            now = time.monotonic()
            left = forecast.left_s(now)
            progress(f"{done} of {total} rows measured: seconds", round(now - started), round(now - started + left))
            await asyncio.sleep(TICK_S)

    ticker = asyncio.create_task(tick())
    try:
        return await all_or_first_error([one(raw, mine) for raw, mine in zip(rows, certificates, strict=True)])
    finally:
        ticker.cancel()


def _cache_of(backend: SandboxBackend, effort: Effort) -> Cache:
    return Cache(cache_folder(), {"mutants": effort.mutants, "notes": effort.notes, "backend": backend.name})


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
    backend: SandboxBackend,
    raw: Mapping[str, Any],
    certificate: Certificate,
    folder: Path,
    effort: Effort,
    suite_took: Callable[[float], None],
) -> Certificate:
    try:
        row = row_of(task_of(dict(raw), folder=folder))
        return await measure(backend, row, certificate, effort, suite_took=suite_took)
    except (SandboxError, TaskError, GradingError) as error:
        return replace(certificate, problem=f"{NOT_RUN}: {error}")
