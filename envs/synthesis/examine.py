"""Which bugs the tests see, and of which something can be told."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .baseline import Baseline
from .diffs import git_diff
from .mutate import Candidate
from .probing import Failure, Job, JobResult, Probe, file_of
from .removal import without_functions
from .secrecy import secret_words
from .share import beside, near_files
from .sources import Source, read_source
from .statement import Example, problem_statement

MAX_FAILING = 12
"""Most tests a bug may break; one that breaks more is seen at once and teaches little."""

SMALL_SUITE_S = 1.0
"""A suite as short as this is PASS_TO_PASS as a whole; of a longer one, the files of the failing tests."""

HUNG_S, HUNG_FACTOR = 1.0, 5.0
"""A test hangs that takes so many processor seconds, and as many more for one that the slowest of the run took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A bug that tests see.

    Attributes:
        candidate: where it is.
        buggy: the file's text with the bug.
        hidden: test file -> its text without the failing tests.
        fail_to_pass: test ids, in running order.
        patch: the fix.
        statement: what is told of it.
    """

    candidate: Candidate
    buggy: str
    hidden: Mapping[str, str]
    fail_to_pass: tuple[str, ...]
    patch: str
    statement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """A bug that tests see, and the tests that pass beside it, in running order."""

    seen: Seen
    pass_to_pass: tuple[str, ...]


async def find_failing(
    probe: Probe, source: Source, baseline: Baseline, chunk: Sequence[Candidate]
) -> list[Seen | str]:
    """Try some bugs: what their functions' tests say, or in words why a bug is not to be used.

    It is, if between 1 and MAX_FAILING passing tests fail with it and none hangs, every file is still collected, the
    failing tests can be taken out of their files, and something can be told of them (``problem_statement``).
    """
    jobs: dict[int, Job] = {}
    found: list[Seen | str] = ["it changes nothing"] * len(chunk)
    for index, candidate in enumerate(chunk):
        if candidate.mutation.is_change(read_source(source, candidate.path)):
            jobs[index] = _first_job(source, baseline, candidate)
    for index, result in zip(jobs, await probe.run(list(jobs.values())), strict=True):
        found[index] = _seen(source, baseline, chunk[index], result)
    return found


async def find_passing(probe: Probe, baseline: Baseline, seen: Seen) -> Bug | str:
    """Run the other tests beside a bug, without those that fail; in words why it is not to be used where one does not
    pass, or there is none."""
    (result,) = await probe.run([_second_job(baseline, seen)])
    known = set(baseline.passing)
    if any(test in known for test in result.with_outcome("failed", "error")):
        return "others fail when the failing tests are taken out"
    if problem := _trouble(result):
        return problem
    passing = tuple(test for test in result.with_outcome("passed") if test in known)
    return Bug(seen=seen, pass_to_pass=passing) if passing else "no other test passes"


def _first_job(source: Source, baseline: Baseline, candidate: Candidate) -> Job:
    """The tests that enter the function, with the bug."""
    return Job(
        key=f"{candidate.path}:{candidate.mutation.start}",
        collect=tuple(dict.fromkeys(file_of(test) for test in candidate.tests)),
        files={candidate.path: candidate.mutation.apply(read_source(source, candidate.path))},
        keep=candidate.tests,
        deadline_s=baseline.deadline_s(candidate.tests),
        test_s=_hung_s(baseline, candidate.tests),
        max_failing=MAX_FAILING + 1,
    )


def _second_job(baseline: Baseline, seen: Seen) -> Job:
    """The files of the failing tests without these tests, with the bug; of a share, some of its other tests. Up to the
    first that fails."""
    candidate, failing = seen.candidate, seen.fail_to_pass
    key = f"{candidate.path}:{candidate.mutation.start}, hidden"
    if baseline.share is not None:
        reaching = [test for test in candidate.tests if test not in set(failing)]
        collect = near_files(failing, reaching)
        inside = [test for test in baseline.passing if file_of(test) in collect]
        keep = beside(inside, reaching, f"{baseline.share.seed}/{key}")
    else:
        small = baseline.total_s <= SMALL_SUITE_S
        collect = baseline.test_files if small else tuple(dict.fromkeys(file_of(test) for test in failing))
        keep = tuple(test for test in baseline.passing if file_of(test) in collect)
    return Job(
        key=key,
        collect=collect,
        files={**seen.hidden, candidate.path: seen.buggy},
        keep=keep,
        deadline_s=baseline.deadline_s(keep),
        test_s=_hung_s(baseline, keep),
        max_failing=1,
    )


def _hung_s(baseline: Baseline, tests: Sequence[str]) -> float:
    return HUNG_S + HUNG_FACTOR * max((baseline.durations.get(test, 0.0) for test in tests), default=0.0)


def _seen(source: Source, baseline: Baseline, candidate: Candidate, result: JobResult) -> Seen | str:
    """What the tests that enter the function say of a bug; why it is not to be used."""
    failing = result.with_outcome("failed", "error")
    if problem := _trouble(result):
        return problem
    if not failing:
        return "no test fails"
    if len(failing) > MAX_FAILING:
        return f"more than {MAX_FAILING} tests fail"
    hidden = _without_tests(source, baseline, failing)
    if hidden is None:
        return "the failing tests cannot be taken out of their files"
    clean = read_source(source, candidate.path)
    buggy = candidate.mutation.apply(clean)
    patch = git_diff({candidate.path: buggy}, {candidate.path: clean})
    statement = problem_statement(
        source.name,
        _examples(source, baseline, failing, result.failures),
        num_failing=len(failing),
        patch=patch,
        secrets=secret_words(candidate.path, failing, baseline.locations),
    )
    if statement is None:
        return "no statement shows an input and keeps the place to itself"
    return Seen(
        candidate=candidate,
        buggy=buggy,
        hidden=hidden,
        fail_to_pass=tuple(failing),
        patch=patch,
        statement=statement,
    )


def _trouble(result: JobResult) -> str:
    """Why a run says nothing of a bug; "" where it does."""
    if result.ended == "deadline" or result.hung:
        return "a test hangs"
    if not result.is_whole:
        return "the tests cannot be run"
    exhausted = any("MemoryError" in failure.message for failure in result.failures.values())
    return "memory is exhausted" if exhausted else ""


def _examples(
    source: Source, baseline: Baseline, failing: Sequence[str], failures: Mapping[str, Failure]
) -> list[Example]:
    """The failing tests, one for each function, those with the shortest words first."""
    examples: dict[tuple[str, int], Example] = {}
    for test in failing:
        failure = failures.get(test)
        path, line = baseline.locations[test]
        if failure is None or (path, line) in examples:
            continue
        lines = tuple(number for file, number in failure.frames if file == path)
        text = read_source(source, path)
        examples[path, line] = Example(
            function=(text, line), lines=lines, message=failure.message, inputs=failure.inputs
        )
    return sorted(examples.values(), key=lambda example: len(example.message))


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
