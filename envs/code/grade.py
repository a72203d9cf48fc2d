"""The verdict on a program: which kind of check a task has, the runs it needs, and what they must give.

One place for the training environment and for ``verigym grade``. A task's ``hidden`` has one of these:

- ``tests``: ``{"input", "output"}`` each, for programs that read stdin and print; or, with ``fn_name``,
  ``{"args", "expected"}`` each, for a function (or a method of a class ``Solution``). ``compare``: a word of
  ``COMPARISONS`` (default "tokens").
- ``encoded_tests``: the same, as LiveCodeBench publishes them (``envs.datasets.livecodebench``); read when needed.
- ``test_code``: source with the expected values in it; ``setup``: source it stands on; ``names``: the names in it
  that are the program's.
- ``reference``: a right program, ``fn_name``, and ``inputs``: argument lists for both; ``tolerance``: absolute.
- ``call``: CruxEval: ``call["program"]``, ``["mode"]`` "input" or "output", ``["input"]``, ``["output"]``.

Beside it: ``time_limit_s``, ``memory_mib`` (of one test: processor time, address space), ``prelude`` (source before
the program) and ``head`` (source of a function's head that a response may continue, with ``fn_name``).
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ...errors import TaskError
from ...rewards.code import score_tests
from ...rewards.extraction import answered_expression, complete_function, extract_program, side_of_assertion
from ...rewards.score import Score, verdict
from ..datasets.livecodebench import read_tests
from ..sandbox.background import call
from ..sandbox.types import SandboxBackend
from ..task import Task
from .box import ProgramBox, ProgramRun, RunLimits
from .compare import same
from .feedback import feedback_of, value_text

COMPARISONS = {"tokens": ("printed", "value"), "livecodebench": ("lines", "returned")}
"""Word -> (of printed text, of returned values), kinds of ``compare.same``."""

CALLS_PER_PROCESS = 64
"""Of a program compared with a reference: hundreds of calls, of which EvalPlus makes all in one process."""

NO_PROGRAM = "no program was given"


class ProgramGrader:
    """Grades responses to tasks of programs. It holds nothing that must be closed."""

    def __init__(self, backend: SandboxBackend, *, limits: RunLimits | None = None) -> None:
        """
        Args:
            limits: of one run, where the task states none.
        """
        self._backend = backend
        self._limits = limits or RunLimits()
        self._references: dict[str, list[ProgramRun]] = {}

    async def score(self, task: Task, response: str) -> Score:
        """The score alone; raises as ``score_and_tell``."""
        return (await self.score_and_tell(task, response))[0]

    async def score_and_tell(self, task: Task, response: str) -> tuple[Score, str]:
        """(the score, what the first failing test says, for a teacher; "" where there is nothing to say).

        Raises:
            TaskError: the task has nothing to grade by. SandboxError, GradingError: it could not be found out.
        """
        hidden = task.hidden
        check_task(task)
        if "call" in hidden:
            return await self._by_execution(task, response), ""
        program = program_of(hidden, response)
        if not program.strip():
            return score_tests([False] * len(hidden.get("tests", [0])), NO_PROGRAM), ""
        if "test_code" in hidden:
            return await self._by_test_code(task, program)
        if "reference" in hidden:
            return await self._by_reference(task, program)
        return await self._by_tests(task, program)

    async def _by_tests(self, task: Task, program: str) -> tuple[Score, str]:
        hidden = task.hidden
        tests = await _tests_of(task)
        word = hidden.get("compare", "tokens")
        printed, returned = COMPARISONS[word]
        box = ProgramBox(self._backend, limits=limits_of(hidden, self._limits, tests))
        prelude = hidden.get("prelude", "")
        if by_call := "fn_name" in hidden:
            arguments = [test["args"] for test in tests]
            runs = await box.run_calls(program, hidden["fn_name"], arguments, prelude=prelude)
            passed = [
                run.status == "ok" and run.has_value and await same(returned, run.report, test["expected"])
                for run, test in zip(runs, tests, strict=True)
            ]
        else:
            inputs = [test["input"] for test in tests]
            # LiveCodeBench's checker takes any ``sys.exit`` for the program's end.
            runs = await box.run_stdin(program, inputs, prelude=prelude, any_exit=word == "livecodebench")
            passed = [
                run.status == "ok" and await same(printed, run.stdout, test["output"])
                for run, test in zip(runs, tests, strict=True)
            ]
        score = score_tests(passed, _detail(passed, runs))
        if score.passed:
            return score, ""
        first = passed.index(False)
        asked, wanted = ("args", "expected") if by_call else ("input", "output")
        return score, feedback_of(runs[first], input=tests[first][asked], expected=tests[first][wanted])

    async def _by_test_code(self, task: Task, program: str) -> tuple[Score, str]:
        hidden = task.hidden
        run = await ProgramBox(self._backend, limits=limits_of(hidden, self._limits)).run_tests(
            program,
            hidden["test_code"],
            setup=hidden.get("setup", ""),
            names=hidden.get("names", ()),
            prelude=hidden.get("prelude", ""),
        )
        passed = run.status == "ok" and run.passed
        if passed:
            return score_tests([True], "the tests passed"), ""
        return score_tests([False], f"the tests failed: {_reason(run)}"), feedback_of(run, test=run.asked)

    async def _by_reference(self, task: Task, program: str) -> tuple[Score, str]:
        hidden = task.hidden
        box = ProgramBox(self._backend, limits=limits_of(hidden, self._limits))
        name, inputs = hidden["fn_name"], hidden["inputs"]
        if task.id not in self._references:
            self._references[task.id] = await box.run_calls(
                hidden["reference"], name, inputs, per_process=CALLS_PER_PROCESS
            )
        expected = self._references[task.id]
        known = [at for at, run in enumerate(expected) if run.status == "ok" and run.has_value]
        if not known:
            raise TaskError(f"task {task.id!r}: its reference gives no value on any input: {_reason(expected[0])}")
        runs = await box.run_calls(program, name, [inputs[at] for at in known], per_process=CALLS_PER_PROCESS)
        tolerance = float(hidden.get("tolerance", 0.0))
        passed = [
            run.status == "ok" and run.has_value and await same("reference", run.report, expected[at].report, tolerance)
            for run, at in zip(runs, known, strict=True)
        ]
        score = score_tests(passed, _detail(passed, runs))
        if score.passed:
            return score, ""
        first = passed.index(False)
        at = known[first]
        return score, feedback_of(runs[first], input=inputs[at], expected=value_text(expected[at]))

    async def _by_execution(self, task: Task, response: str) -> Score:
        """CruxEval: the predicted expression is evaluated, and its value compared."""
        call = task.hidden["call"]
        expression = side_of_assertion(answered_expression(response), call["mode"])
        box = ProgramBox(self._backend, limits=limits_of(task.hidden, self._limits))
        if task.id not in self._references:
            self._references[task.id] = await box.run_expressions("", [call["output"]])
        (gold,) = self._references[task.id]
        if not gold.has_value:
            raise TaskError(f"task {task.id!r}: its output {call['output']!r} is no plain data: {gold.stderr[-200:]}")
        refusal = refused(call, expression)
        if refusal:
            return verdict(False, refusal)
        if call["mode"] == "output":
            # Evaluated where the function is not: only its imports are there.
            (run,) = await box.run_expressions(_imports_of(call["program"]), [expression])
        elif _is_literal_call(expression):
            (run,) = await box.run_expressions(call["program"], [expression])
        else:
            run = await box.run_call(call["program"], "f", expression)
        if not run.has_value:
            return verdict(False, _reason(run))
        right = await same("equal", run.report, gold.report)
        return verdict(right, f"its value {'equals' if right else 'differs from'} the output")


def program_of(hidden: Mapping[str, Any], response: str) -> str:
    """The program that a response to the task holds."""
    name = hidden.get("fn_name", "")
    return complete_function(response, hidden["head"], name) if "head" in hidden else extract_program(response, name)


def check_task(task: Task) -> None:
    """
    Raises:
        TaskError: the task has nothing to grade by.
    """
    hidden = task.hidden
    if isinstance(hidden.get("test_code"), str) and hidden["test_code"].strip():
        return
    if isinstance(hidden.get("reference"), str) and hidden.get("inputs"):
        return
    if "call" in hidden:
        return
    if any(hidden.get("encoded_tests", {}).values()):
        return
    tests = hidden.get("tests")
    keys = {"args", "expected"} if "fn_name" in hidden else {"input", "output"}
    listed = tests if isinstance(tests, list | tuple) else ()
    if not listed or not all(isinstance(test, Mapping) and keys <= set(test) for test in listed):
        raise TaskError(
            f"task {task.id!r}: hidden['tests'] must be a list of objects with {' and '.join(sorted(keys))}, "
            "at least one"
        )


def limits_of(hidden: Mapping[str, Any], limits: RunLimits, tests: Sequence[Mapping[str, Any]] = ()) -> RunLimits:
    """The limits of one run of this task's programs."""
    lengths = [len(str(test.get("output", test.get("expected")))) for test in tests]
    longest = max(lengths, default=0)
    return replace(
        limits,
        cpu_s=float(hidden.get("time_limit_s", limits.cpu_s)),
        memory_mib=int(hidden.get("memory_mib", limits.memory_mib)),
        # A power of two, so that the limit does not tell the length of the answer.
        output_bytes=max(limits.output_bytes, 1 << (4 * longest).bit_length()),
        total_output_bytes=max(limits.total_output_bytes, 1 << (4 * sum(lengths)).bit_length()),
    )


def refused(call: Mapping[str, Any], expression: str) -> str:
    """Why an answer to CruxEval cannot count, whatever it evaluates to; "" where it can."""
    if not expression:
        return "no answer was given"
    if len(expression) > MOST_EXPRESSION:
        return f"an answer of {len(expression)} characters; more than {MOST_EXPRESSION} are not read"
    try:
        tree = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        return f"not an expression: {error}"
    if call["mode"] == "input" and not (
        isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "f"
    ):
        return "not a call of f"
    return ""


MOST_EXPRESSION = 1 << 16
"""Characters of an answer to CruxEval, whose own have a hundred."""


def _is_literal_call(expression: str) -> bool:
    """Whether the arguments of a call are literals, which do nothing where they are evaluated."""
    call = ast.parse(expression, mode="eval").body
    assert isinstance(call, ast.Call)
    given = [one.value if isinstance(one, ast.Starred) else one for one in call.args]
    given += [keyword.value for keyword in call.keywords]
    try:
        for one in given:
            ast.literal_eval(one)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


async def _tests_of(task: Task) -> Sequence[Mapping[str, Any]]:
    hidden = task.hidden
    if "encoded_tests" not in hidden:
        return hidden["tests"]
    encoded = hidden["encoded_tests"]
    tests = await call(_unpacked, encoded.get("public"), encoded.get("private"), "fn_name" in hidden)
    if not tests:
        raise TaskError(f"task {task.id!r} has no tests")
    return tests


@lru_cache(maxsize=4)
def _unpacked(public: str | None, private: str | None, functional: bool) -> list[dict[str, Any]]:
    """Samples of a problem are graded one after another: its tests, a hundred megabytes of some, are read once."""
    return read_tests({"public": public or "", "private": private or ""}, functional=functional)


def _imports_of(program: str) -> str:
    tree = ast.parse(program)
    return "\n".join(ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))


def _detail(passed: Sequence[bool], runs: Sequence[ProgramRun]) -> str:
    if all(passed):
        return f"{len(passed)} of {len(passed)} tests passed"
    first = list(passed).index(False)
    return f"{sum(passed)} of {len(passed)} tests passed; test {first}: {_reason(runs[first])}"


def _reason(run: ProgramRun) -> str:
    reasons = {"ok": "wrong answer", "error": "failed", "timeout": "time limit", "output": "output limit"}
    if run.status in ("ok", "error") and run.stderr.strip() and not run.has_value and not run.stdout:
        return run.stderr.strip().splitlines()[-1][:120]
    if run.status == "error" and run.stderr.strip():
        return run.stderr.strip().splitlines()[-1][:120]
    if run.status == "ok" and not run.stdout and not run.has_value:
        return "no output"
    return reasons.get(run.status, "not run")
