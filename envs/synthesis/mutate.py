"""Which bugs to try, and which of them the tests see."""

import ast
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .baseline import Baseline
from .mutations import Mutation, proposals
from .operators import OPERATORS, Operator
from .probing import Failure, Job, JobResult, Probe, file_of
from .removal import first_line, without_functions
from .share import beside, near_files
from .sources import Source
from .spans import FunctionNode

MAX_FAILING = 12
"""Most tests a bug may break; one that breaks more is seen at once and teaches little."""

SMALL_SUITE_S = 1.0
"""A suite as short as this is PASS_TO_PASS as a whole; of a longer one, the files of the failing tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A bug to try, and the tests that enter its function."""

    path: str
    mutation: Mutation
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """A bug that tests see.

    Attributes:
        candidate: where it is.
        buggy: the file's text with the bug.
        hidden: test file -> its text without the failing tests.
        fail_to_pass, pass_to_pass: test ids, in running order.
        failures: how the failing tests failed.
    """

    candidate: Candidate
    buggy: str
    hidden: Mapping[str, str]
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    failures: Mapping[str, Failure]


def read_source(source: Source, path: str) -> str:
    """A file of the tree, line ends as they are, without a byte-order mark: offsets are then the parser's own."""
    return (source.root / path).read_bytes().decode("utf-8-sig")


def candidates(
    source: Source, baseline: Baseline, *, seed: int, operators: Mapping[str, Operator] = OPERATORS
) -> list[Candidate]:
    """All bugs in functions that passing tests enter, in the order to try them, some of which ``examine`` finds to be
    no change.

    Each round takes one bug of every function, in a random order of functions, and of each the operator least taken
    so far: any beginning of the list is spread over files, functions and operators. The same seed, the same order.
    """
    rng = random.Random(f"{seed}/{source.name}/{source.version}")
    by_function: dict[tuple[str, int], list[Candidate]] = defaultdict(list)
    for path in source.package_files:
        covered = {line for place, line in baseline.covering if place == path}
        if not covered:
            continue
        text = read_source(source, path)
        code_lines = {
            node.lineno: first_line(node) for node in ast.walk(ast.parse(text)) if isinstance(node, FunctionNode)
        }
        for mutation in proposals(text, operators):
            place = (path, code_lines[mutation.function_lineno])
            if place in baseline.covering:
                found = Candidate(path=path, mutation=mutation, tests=baseline.covering[place])
                by_function[place].append(found)
    order, taken = [], Counter()
    for group in by_function.values():
        rng.shuffle(group)
    while by_function:
        round_of_functions = sorted(by_function)
        rng.shuffle(round_of_functions)
        for place in round_of_functions:
            group = by_function[place]
            chosen = min(range(len(group)), key=lambda index: taken[group[index].mutation.operator])
            candidate = group.pop(chosen)
            taken[candidate.mutation.operator] += 1
            order.append(candidate)
            if not group:
                del by_function[place]
    return order


async def examine(probe: Probe, source: Source, baseline: Baseline, chunk: Sequence[Candidate]) -> list[Bug | None]:
    """Try some bugs: a Bug where it is worth finding, None where it is not.

    It is, if between 1 and MAX_FAILING passing tests fail with it, every file is still collected in time, the
    failing tests can be taken out of their files, and all other tests still pass then, at least one of them.
    """
    first = {
        index: _first_job(source, baseline, candidate)
        for index, candidate in enumerate(chunk)
        if candidate.mutation.is_change(read_source(source, candidate.path))
    }
    tried = dict(zip(first, await probe.run(list(first.values())), strict=True))
    half_way: dict[int, tuple[list[str], dict[str, str]]] = {}
    jobs: dict[int, Job] = {}
    for index, result in tried.items():
        candidate, failing = chunk[index], _failing(result)
        hidden = _without_tests(source, baseline, failing) if failing else None
        if hidden is not None:
            half_way[index] = (failing, hidden)
            jobs[index] = _second_job(source, baseline, candidate, failing, hidden)
    second = dict(zip(jobs, await probe.run(list(jobs.values()))))
    bugs: list[Bug | None] = []
    for index, candidate in enumerate(chunk):
        passing = _others_passing(second[index], baseline, jobs[index]) if index in second else ()
        if not passing:
            bugs.append(None)
            continue
        failing, hidden = half_way[index]
        bugs.append(
            Bug(
                candidate=candidate,
                buggy=candidate.mutation.apply(read_source(source, candidate.path)),
                hidden=hidden,
                fail_to_pass=tuple(failing),
                pass_to_pass=passing,
                failures={test: tried[index].failures[test] for test in failing if test in tried[index].failures},
            )
        )
    return bugs


def _first_job(source: Source, baseline: Baseline, candidate: Candidate) -> Job:
    """The tests that enter the function, with the bug."""
    return Job(
        key=f"{candidate.path}:{candidate.mutation.start}",
        collect=tuple(dict.fromkeys(file_of(test) for test in candidate.tests)),
        files={candidate.path: candidate.mutation.apply(read_source(source, candidate.path))},
        keep=candidate.tests,
        deadline_s=baseline.deadline_s(candidate.tests),
        max_failing=MAX_FAILING + 1,
    )


def _second_job(
    source: Source, baseline: Baseline, candidate: Candidate, failing: Sequence[str], hidden: Mapping[str, str]
) -> Job:
    """The files of the failing tests without these tests, with the bug; of a share, some of its other tests."""
    key = f"{candidate.path}:{candidate.mutation.start}, hidden"
    keep = None
    if baseline.share is not None:
        reaching = [test for test in candidate.tests if test not in set(failing)]
        collect = near_files(failing, reaching)
        inside = [test for test in baseline.passing if file_of(test) in collect]
        expected = keep = beside(inside, reaching, f"{baseline.share.seed}/{key}")
    else:
        small = baseline.total_s <= SMALL_SUITE_S
        collect = baseline.test_files if small else tuple(dict.fromkeys(file_of(test) for test in failing))
        expected = [test for test in baseline.passing if file_of(test) in collect]
    return Job(
        key=key,
        collect=collect,
        files={**hidden, candidate.path: candidate.mutation.apply(read_source(source, candidate.path))},
        keep=keep,
        deadline_s=baseline.deadline_s(expected),
        max_failing=0,
    )


def _failing(result: JobResult) -> list[str]:
    """The tests that the bug breaks; none where the bug is not to be used."""
    failing = result.with_outcome("failed", "error")
    exhausted = any("MemoryError" in failure.message for failure in result.failures.values())
    return failing if result.is_whole and len(failing) <= MAX_FAILING and not exhausted else []


def _without_tests(source: Source, baseline: Baseline, tests: Sequence[str]) -> dict[str, str] | None:
    """Test files without the functions of some tests; None where a function cannot be found or cut out."""
    lines: dict[str, set[int]] = defaultdict(set)
    for test in tests:
        if test not in baseline.locations:
            return None
        path, line = baseline.locations[test]
        lines[path].add(line)
    hidden = {}
    for path, first_lines in lines.items():
        if path in source.package_files or not (source.root / path).is_file():
            return None  # a test made by the package itself, or outside the tree
        text = without_functions(read_source(source, path), first_lines)
        if text is None:
            return None
        hidden[path] = text
    return hidden


def _others_passing(result: JobResult, baseline: Baseline, job: Job) -> tuple[str, ...]:
    """The tests that pass beside the bug; none where one fails that should not."""
    known = set(baseline.passing)
    if not result.is_whole or any(test in known for test in result.with_outcome("failed", "error")):
        return ()
    return tuple(test for test in result.with_outcome("passed") if test in known)
