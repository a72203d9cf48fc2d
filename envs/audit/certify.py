"""Certified rows: audited, and graded several times as an agent's work is; the others are set apart with the reason."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import SandboxError, TaskError
from ..datasets.swe import any_task_of
from ..sandbox.background import all_or_first_error, on_thread
from ..sandbox.types import SandboxBackend
from ..synthesis.validate import Check, check_task
from .certificate import MOST_FINDINGS, NOT_RUN, Certificate, Finding, Kind
from .ledger import Ledger

Progress = Callable[[str, int, int], None]

ACCEPTABLE = ("weak", "narrow", "unrelated", "underspecified")
"""Classes that a user may take; rows that are broken, leaky or flaky are of no use to anybody."""
SET_APART = "quarantined"
"""Key of a row that was not certified: the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a row must be to be certified.

    Attributes:
        times: gradings of the gold and of the empty patch, at least.
        accept: classes besides "sound", of ``ACCEPTABLE``.
    """

    times: int = 3
    accept: frozenset[str] = frozenset()

    def refusal(self, certificate: Certificate) -> str:
        """Why a row is not certified, in words that begin with its class; "" where it is."""
        return " ".join((self.audited(certificate) or self._graded(certificate)).split())

    def audited(self, certificate: Certificate) -> str:
        """``refusal`` by what came before the gradings."""
        found = certificate.measured
        if certificate.problem:
            return f"{certificate.kind if certificate.kind == 'broken' else 'not run'}: {certificate.problem}"
        if certificate.kind != "sound" and certificate.kind not in self.accept:
            shown = [f"{one.what} {one.where}" for one in certificate.findings if one.kind == certificate.kind]
            return f"{certificate.kind}: {'; '.join([certificate.reason, *shown[:1]])}"
        leaks = found.get("leaks", {})
        if leaks.get("found") and leaks["found"] == leaks["lines"]:
            return "leaky: every line that tells the fix can be read in the workspace"
        if not leaks.get("searched"):
            return "not run: the search for the fix in the workspace did not end"
        return "not run: its sandbox has a way to other machines" if found.get("network", True) else ""

    def _graded(self, certificate: Certificate) -> str:
        times = certificate.measured.get("graded", {}).get("times", 0)
        return "" if times >= self.times else f"not run: graded {times} times, {self.times} are asked for"


async def certify_rows(
    rows: Sequence[Mapping[str, Any]],
    certificates: Sequence[Certificate],
    *,
    folder: Path,
    backend: SandboxBackend,
    demand: Demand,
    workers: int,
    timeout_s: float,
    ledger: Ledger,
    progress: Progress | None = None,
) -> list[Certificate]:
    """Grade the gold and the empty patch of rows that their audit does not refuse.

    Args:
        certificates: measured, in the rows' order; those that hold the gradings already are returned as they are.
        folder: where relative archives are looked for.
        ledger: gets each as it is made.
    Returns:
        [N] certificates with "graded" and "archive_sha256" under ``measured``; gradings that do not agree, or not with
        what they must be, give the class flaky or broken. A row whose sandbox failed says so in ``problem``.
    """
    tell = progress or (lambda what, done, total: None)
    is_open = [not demand.audited(one) and bool(demand.refusal(one)) for one in certificates]
    room, done, total = asyncio.Semaphore(workers), 0, sum(is_open)
    tell("rows graded", 0, total)

    async def one(raw: Mapping[str, Any], certificate: Certificate) -> Certificate:
        nonlocal done
        async with room:
            found = await _graded(backend, raw, certificate, folder, demand.times, timeout_s)
            ledger.add(found)
        done += 1
        tell("rows graded", done, total)
        return found

    numbers = [number for number, wanted in enumerate(is_open) if wanted]
    made = await all_or_first_error([one(rows[number], certificates[number]) for number in numbers])
    by_number = dict(zip(numbers, made, strict=True))
    return [by_number.get(number, certificate) for number, certificate in enumerate(certificates)]


async def _graded(
    backend: SandboxBackend,
    raw: Mapping[str, Any],
    certificate: Certificate,
    folder: Path,
    times: int,
    timeout_s: float,
) -> Certificate:
    try:
        task = any_task_of(dict(raw), folder=folder)
        check = await check_task(backend, dict(raw), task, times=times, timeout_s=timeout_s)
        archive = await on_thread(archive_sha256, raw, folder)
    except (SandboxError, TaskError) as error:
        return replace(certificate, problem=f"{NOT_RUN}: {error}")
    return with_gradings(certificate, check, times=times, archive=archive)


def with_gradings(certificate: Certificate, check: Check, *, times: int, archive: str) -> Certificate:
    """A certificate with what the gradings said."""
    graded = {"times": times, "gold": check.golds, "empty": check.empties, "set_aside": list(check.quarantined)}
    certificate = replace(certificate, measured={**certificate.measured, "graded": graded, "archive_sha256": archive})
    problem = check.problem
    if check.quarantined and not problem:
        problem = f"flaky: {len(check.quarantined)} PASS_TO_PASS tests do not pass every time"
    if not problem:
        return certificate
    kind: Kind = "flaky" if problem.startswith("flaky") else "broken"
    finding = Finding(kind=kind, what=problem, where=next(iter(check.quarantined), ""))
    reason = f"graded {times} times, gold {check.golds}, empty {check.empties}: {problem.removeprefix('flaky: ')}"
    findings = (finding, *certificate.findings)[:MOST_FINDINGS]
    return replace(certificate, kind=kind, reason=reason, findings=findings)


def archive_sha256(row: Mapping[str, Any], folder: Path) -> str:
    """The digest of a row's archive; "" where it names none.

    Raises:
        TaskError: it cannot be read.
    """
    if not row.get("archive"):
        return ""
    try:
        with (folder / row["archive"]).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TaskError(f"{row.get('instance_id', 'a row')}: its archive cannot be read ({error})") from None
