"""The audit that runs: variants of a row's reference under its hidden tests, in one sandbox."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ...errors import GradingError, TaskError
from ...rewards.patches import paths_of
from ...rewards.swe import PASSING
from ..datasets.swe import SWERow
from ..sandbox.types import SandboxBackend
from ..synthesis.steady import STILL_S
from .bench import Bench, Manner, Outcome, open_bench
from .certificate import CUT, MOST_FINDINGS, NOT_RUN, Basis, Certificate, Finding
from .classes import WHOLLY, classify
from .coverage import changed_code, executable_spans, named_in
from .leaks import search_workspace
from .manners import manners
from .solutions.rewrites import new_names
from .solutions.variants import Solved
from .text.static import unparsed_tests
from .trying import try_choices, try_wrong_solutions

STILL = Manner(whole=True, clock_s=STILL_S)
TRIES = 3
"""Runs after one in which the reference failed, before the row is called broken."""
RUN = 3
"""Lines counted as run beforehand: two of three that are not say little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is tried for a row.

    Attributes:
        mutants: wrong solutions, at most.
        notes: copies of tests by which unnoticed mutants are told from the reference.
        row_minutes: wall-clock minutes after which a row is left as far as it is.
        search_s: processor seconds after which no further round of a search for stronger tests begins.
    """

    mutants: int = 20
    notes: int = 60
    row_minutes: float = 15.0
    search_s: float = 60.0


async def measure(
    backend: SandboxBackend,
    row: SWERow,
    certificate: Certificate,
    effort: Effort | None = None,
    *,
    suite_took: Callable[[float], None] = lambda seconds: None,
) -> Certificate:
    """Complete a certificate from text by what runs in a sandbox.

    Args:
        suite_took: is told how many seconds the reference's tests take, as soon as they have run.
    Returns:
        The certificate with measured scores. What cannot be run leaves the scores from signs, and says so in
        ``problem``.
    Raises:
        SandboxError: the sandbox failed.
    """
    effort = effort or Effort()
    audit: Audit | None = None
    began = time.monotonic()
    try:
        async with asyncio.timeout(effort.row_minutes * 60.0):
            async with open_bench(backend, row) as bench:
                audit = Audit(bench, row, effort, suite_took)
                await audit.run()
            if not audit.is_broken:
                await audit.look_for_leaks(backend)
    except (TaskError, GradingError) as error:
        return replace(certificate, problem=f"{NOT_RUN}: {error}")
    except TimeoutError:
        return _cut(certificate, audit, effort)
    found = audit.complete(certificate)
    seconds = {**found.measured.get("seconds", {}), "row": round(time.monotonic() - began, 1)}
    return replace(found, measured={**found.measured, "seconds": seconds})


async def run_reference(bench: Bench) -> Outcome:
    """The reference's first run, traced where that can be; by the row's script where pytest cannot run its tests."""
    watch = tuple(path for path, text in bench.gold.items() if text is not None)
    (gold,) = await bench.run([{}], Manner(whole=True, trace=True, watch=watch))
    if not gold.resolved and await bench.use_script():
        told = gold.failing
        (gold,) = await bench.run([{}])
        gold = replace(gold, failing={test: why or told.get(test, "") for test, why in gold.failing.items()})
    return gold


async def time_suite(backend: SandboxBackend, row: SWERow, *, most_s: float) -> float:
    """Seconds that the reference's tests take, in a sandbox of their own.

    Raises:
        TaskError, GradingError, SandboxError: as ``open_bench``. TimeoutError: they take more than ``most_s``.
    """
    async with asyncio.timeout(most_s), open_bench(backend, row) as bench:
        return (await run_reference(bench)).seconds


def _cut(certificate: Certificate, audit: "Audit | None", effort: Effort) -> Certificate:
    """What was measured in time; a row of which nothing bad was seen is not called sound."""
    problem = f"{CUT} {effort.row_minutes:g} minutes; give --row-minutes more to measure the rest"
    found = audit.complete(certificate) if audit is not None else certificate
    if found.kind == "sound":
        found = replace(found, kind="unflagged", reason="it was not measured to the end")
    return replace(found, problem=problem)


def unknown(mutants: Mapping[str, int], *, can_vary_runs: bool) -> str:
    """Why nobody knows whether tests accept what is wrong; "" where that was tried."""
    if not mutants["tried"]:
        return "no wrong solution could be made of the reference, so nothing says what its tests accept"
    if mutants["resolved"] and not can_vary_runs:
        return f"{mutants['resolved']} other solutions resolve, and by the row's script nothing tells if they are wrong"
    return ""


class Audit:
    """What is found of one row, step by step."""

    def __init__(self, bench: Bench, row: SWERow, effort: Effort, suite_took: Callable[[float], None]) -> None:
        self._bench, self._row, self._effort, self._suite_took = bench, row, effort, suite_took
        self._solved = Solved(base=bench.base, gold=bench.gold, statement=row.problem_statement)
        self._scores: dict[str, float] = {}
        self._measured: dict[str, Any] = {}
        self._findings: list[Finding] = []
        self._first: frozenset[str] = frozenset()
        self.is_broken = False

    async def run(self) -> None:
        if self._bench.can_vary_runs and (bad := unparsed_tests(self._bench.tests)):
            self._broken(f"{bad[0]} is no valid Python with the test patch, so its tests cannot run; mend test_patch")
            return
        gold = await run_reference(self._bench)
        self._bench.expect(gold)
        self._suite_took(gold.seconds)
        self._measured["seconds"] = {"suite": round(gold.seconds, 2)}
        if not gold.resolved:
            await self._failing(gold)
            return
        (base,) = await self._bench.run([self._bench.base], Manner(whole=True))
        if base.resolved:
            self._passes_without(paths_of(self._row.patch))
            return
        self._unrelated(gold, base)
        self._first = self._coming_to_it(gold)
        await self._flaky(gold)
        if "flaky" in self._scores and self._scores["flaky"] > 0:
            return  # verdicts on variants would be chance
        known = await self._bench.standing(new_names(self._solved))
        self._solved = replace(self._solved, known=frozenset(known))
        choices = await try_choices(self._bench, self._solved, gold, first=self._first)
        self._take("narrow", choices.score, choices.measured, choices.findings)
        wrong = await try_wrong_solutions(
            self._bench, self._solved, gold, choices.neutral,
            first=self._first, most=self._effort.mutants, notes=self._effort.notes,
        )  # fmt: skip
        lines = self._measured.get("reference", {"lines": 0, "lines_no_test_runs": 0})
        unrun = lines["lines_no_test_runs"] / (lines["lines"] + RUN)
        self._take("weak", max(wrong.score, unrun), wrong.measured, wrong.findings)

    def _take(self, kind: str, score: float, measured: Mapping[str, Any], findings: Sequence[Finding]) -> None:
        self._scores[kind] = score
        self._measured |= measured
        self._findings += findings

    async def _failing(self, gold: Outcome) -> None:
        """The reference failed: broken, or flaky where it passes when it is run again."""
        test, why = next(iter(gold.failing.items()), ("", gold.ended))
        again = await self._bench.run([{}] * TRIES, Manner(whole=True))
        if not any(one.resolved for one in again):
            (base,) = await self._bench.run([self._bench.base], Manner(whole=True))
            others = set(gold.failing) - set(self._bench.row.FAIL_TO_PASS)
            if others and others == set(gold.failing) and not any(base.statuses.get(one) in PASSING for one in others):
                what = "the environment lacks something, as these tests fail with the reference and without it"
                self._broken(f"{what} ({len(others)}; there is no network): {test}: {why[:200]}")
            else:
                self._broken(f"the reference fails {test}: {why[:200]}")
            return
        failed = ["at first", *(f"again ({n})" for n, one in enumerate(again, 1) if not one.resolved)]
        self._measured["runs"] = {"tried": 1 + TRIES, "failed": failed}
        self._scores["flaky"] = len(failed) / (1 + TRIES)
        what = f"the reference fails {len(failed)} of {1 + TRIES} times"
        self._findings.append(Finding(kind="flaky", what=what, where=test, shown=why[:300]))

    def _coming_to_it(self, gold: Outcome) -> frozenset[str]:
        """Deciding tests, and those of the others that come to a function which the reference changes: on them a
        variant fails first, if it fails at all."""
        if gold.traced is None:
            return frozenset()
        changed = set(changed_code(self._solved)[0])
        reached = {test for test, places in gold.traced.covered.items() if changed & set(places)}
        return frozenset((*self._bench.row.FAIL_TO_PASS, *reached))

    def _broken(self, why: str) -> None:
        self.is_broken = True
        self._findings.append(Finding(kind="broken", what=why))

    def _passes_without(self, paths: Sequence[tuple[str, str]]) -> None:
        """The tests pass without the reference's Python: it is no task, or they ask for its other files alone."""
        others = [new or old for old, new in paths if not (new or old).endswith(".py")]
        if not others:
            self._broken("the tests pass without the reference")
            return
        self._measured["reference"] = {"functions": 0, "lines": 0, "lines_no_test_runs": 0}
        what = "the tests pass without the Python of the reference; its other files are enough"
        self._findings.append(Finding(kind="unrelated", what=what, where=WHOLLY, shown=", ".join(others[:5])))

    def _unrelated(self, gold: Outcome, base: Outcome) -> None:
        """Deciding tests that pass without the reference, or that come to none of its functions."""
        for test in self._bench.row.FAIL_TO_PASS:
            if base.statuses.get(test) in PASSING:
                self._findings.append(Finding(kind="unrelated", what="it passes without the reference", where=test))
        if gold.traced is None:
            return
        functions, everywhere = changed_code(self._solved)
        reached: set[tuple[str, int]] = set()
        for test in self._bench.row.FAIL_TO_PASS:
            covered = set(gold.traced.covered.get(test, ()))
            reached |= covered
            told = any(finding.where == test for finding in self._findings)
            if functions and not everywhere and not covered & set(functions) and not told:
                self._findings.append(Finding(kind="unrelated", what="it runs nothing of the reference", where=test))
        if functions and not reached & set(functions):
            what = "no deciding test comes to a function that the reference changes"
            self._findings.insert(0, Finding(kind="unrelated", what=what, where=WHOLLY))
        elif (named := named_in(self._solved.statement, functions)) and not everywhere and not reached & named.keys():
            what = f"no deciding test comes to {next(iter(named.values()))}, which the statement names"
            self._findings.insert(0, Finding(kind="unrelated", what=what, where=WHOLLY))
        run_lines = {place for test in gold.traced.lines.values() for place in test}
        spans = executable_spans(self._solved)
        missed = [
            (path, first)
            for path, first, last in spans
            if run_lines.isdisjoint((path, line) for line in range(first, last + 1))
        ]
        self._measured["reference"] = {
            "functions": len(functions),
            "lines": len(spans),
            "lines_no_test_runs": len(missed),
        }
        for path, line in missed[:5]:
            shown = (self._bench.gold[path] or "").splitlines()[line - 1].strip()
            what = "no test runs this line of the reference"
            self._findings.append(Finding(kind="weak", what=what, where=f"{path}:{line}", shown=shown))

    async def _flaky(self, gold: Outcome) -> None:
        """The reference again, and otherwise; what fails once more counts."""
        tried = manners(datetime.now(), suite_s=gold.own_s)
        if not self._bench.can_vary_runs:
            tried = {"again": Manner(whole=True), "once more": Manner(whole=True)}
        failed: dict[str, str] = {}
        outcomes = await self._bench.run_in_manners(list(tried.values()))
        for (name, manner), found in zip(tried.items(), outcomes):
            if found.resolved:
                continue
            if manner.clock_s:
                (still,) = await self._bench.run([{}], STILL)
                if not still.resolved:
                    continue
            test, why = next(iter(found.failing.items()), ("", found.ended))
            failed[name] = test
            shown = f"{why[:300]}"
            self._findings.append(Finding(kind="flaky", what=f"the reference fails {name}", where=test, shown=shown))
        self._measured["runs"] = {"tried": len(tried), "manners": list(tried), "failed": sorted(failed)}
        self._scores["flaky"] = len(failed) / len(tried)

    async def look_for_leaks(self, backend: SandboxBackend) -> None:
        leak = await search_workspace(backend, self._row)
        readable = {**leak.shown, **leak.found}
        self._measured["leaks"] = {
            "lines": max(leak.asked, len(readable)),
            "found": len(readable),
            "searched": leak.searched,
            "all_of_git": leak.whole,
        }
        self._measured["network"] = leak.online
        if leak.asked or leak.shown:
            self._scores["leaky"] = leak.share
        for line, place in readable.items():
            what = "an agent can read a line of the reference"
            self._findings.append(Finding(kind="leaky", what=what, where=place, shown=line))

    def complete(self, certificate: Certificate) -> Certificate:
        """The certificate with what was measured; a statement that holds the fix stays leaky."""
        scores, basis = dict(certificate.scores), dict(certificate.basis)
        for name, value in self._scores.items():
            if name == "leaky" and scores[name] >= value:
                continue
            scores[name] = round(value, 4)
            basis[name] = "measured"
        seen = {*self._scores, *(("unrelated",) if "reference" in self._measured else ())} - {"leaky"}
        first = [one for one in certificate.findings if one.kind not in seen]
        findings = [*self._findings, *first]
        measured_basis: dict[str, Basis] = {
            name: "measured" if b == "measured" else "signs" for name, b in basis.items()
        }
        kind, reason = classify(scores, measured_basis, findings, ran=True)
        tried = self._measured.get("mutants", {"tried": 0, "resolved": 0})
        if kind == "sound" and (why := unknown(tried, can_vary_runs=self._bench.can_vary_runs)):
            kind, reason = "unflagged", why
        return replace(
            certificate,
            scores=scores,
            basis=measured_basis,
            kind=kind,
            reason=reason,
            findings=tuple(findings[:MOST_FINDINGS]),
            measured={"runs": {"tried": 1}, **self._measured},
        )
