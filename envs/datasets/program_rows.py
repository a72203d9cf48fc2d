"""Rows of the published training sets of programming, as tasks of ``verigym/Code-v0``.

Sources of the schemas, each the data card of its set on the Hugging Face hub:

- ``taco``: BAAI/TACO (arXiv:2312.14852) and codeparrot/apps (arXiv:2105.09938): ``question``, ``input_output`` (JSON:
  inputs, outputs, fn_name), ``solutions`` (JSON), ``starter_code``, ``time_limit``, ``memory_limit``.
- ``code_contests``: deepmind/code_contests (Li et al. 2022, arXiv:2203.07814): ``description``, ``public_tests``,
  ``private_tests``, ``generated_tests`` {input, output}, ``solutions`` {language, solution}, ``time_limit``.
- ``synthetic1``: PrimeIntellect's SYNTHETIC-1 and verifiable-coding-problems: ``prompt``, ``verification_info``
  {language, test_cases} or {ground_truth}, ``task_type`` (github.com/PrimeIntellect-ai/genesys,
  ``verifiers/code_test_verifier.py``, ``math_verifier.py``). Its mathematics become tasks of ``verigym/Math-v0``.
- ``deepcoder``: agentica-org/DeepCoder-Preview-Dataset: ``problem``, ``tests`` (JSON, in the form of the set that the
  problem is from), ``starter_code``, ``metadata``.
- ``livecodebench``: rows in LiveCodeBench's schema (arXiv:2403.07974); see ``livecodebench.py``.
"""

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...errors import TaskError
from ..task import Task
from .livecodebench import PRELUDE
from .math_rows import answer_of
from .row_format import Row, RowFormat, has, structure_at, task_from, text_at

LEAST_TIME_S = 6.0
"""Limits that sets state are of compiled languages; no Python program gets less than LiveCodeBench's checker gives."""

LEAST_MEMORY_MIB = 1024
PYTHON3 = 3
"""CodeContests' number of the language."""


def _taco(row: Row) -> Task:
    cases = structure_at(row, "input_output")
    if not isinstance(cases, Mapping) or not cases.get("inputs"):
        raise TaskError("no tests")
    hidden = {
        **_tests_of_columns(cases),
        **_solution(structure_at(row, "solutions") if row.get("solutions") else ()),
        **_limits(_number_in(row.get("time_limit")), _number_in(row.get("memory_limit"))),
    }
    prompt = _prompt(text_at(row, "question"), row.get("starter_code"), hidden)
    return task_from("taco", "code", prompt, hidden, row, "difficulty", "source", "name")


def _code_contests(row: Row) -> Task:
    description = text_at(row, "description")
    if row.get("input_file") or row.get("output_file"):
        raise TaskError("its programs read or write a file")
    if "<image>" in description:
        raise TaskError("its statement shows an image")
    parts = [row.get(key) or {} for key in ("public_tests", "private_tests", "generated_tests")]
    tests = [
        {"input": given, "output": output}
        for part in parts
        for given, output in zip(part.get("input") or (), part.get("output") or (), strict=True)
    ]
    if not tests:
        raise TaskError("no tests")
    solved = row.get("solutions") or {}
    ours = [
        source
        for language, source in zip(solved.get("language") or (), solved.get("solution") or (), strict=True)
        if language == PYTHON3
    ]
    limit = row.get("time_limit") or {}
    seconds = float(limit.get("seconds") or 0) + float(limit.get("nanos") or 0) / 1e9
    hidden = {"tests": tests, **_solution(ours), **_limits(seconds, (row.get("memory_limit_bytes") or 0) / 2**20)}
    return task_from("code_contests", "code", _prompt(description, "", hidden), hidden, row, "name", "cf_rating")


def _synthetic1(row: Row) -> Task:
    info = structure_at(row, "verification_info")
    if not isinstance(info, Mapping):
        raise TaskError("no verification_info")
    prompt = text_at(row, "prompt")
    if "test_cases" not in info:
        if info.get("ground_truth") is None:
            raise TaskError(f"a task of type {row.get('task_type')!r} has neither test_cases nor ground_truth")
        hidden = {"answer": answer_of(info["ground_truth"])}
        return task_from("synthetic1", "math", prompt, hidden, row, "source", "task_type")
    if info.get("language", "python") != "python":
        raise TaskError(f"its language is {info['language']!r}")
    hidden = {**_tests_of_cases(info["test_cases"]), **_solution([row.get("gold_standard_solution")])}
    return task_from("synthetic1", "code", prompt, hidden, row, "source", "task_type")


def _deepcoder(row: Row) -> Task:
    cases = structure_at(row, "tests")
    if isinstance(cases, Mapping):
        hidden = _tests_of_columns(cases)
    else:
        described = structure_at(row, "metadata") if row.get("metadata") else None
        name = described.get("func_name") if isinstance(described, Mapping) else None
        hidden = _tests_of_cases(cases, str(name) if name else "")
    solutions = row.get("solutions") or ()
    hidden |= _solution([solutions] if isinstance(solutions, str) else solutions)
    prompt = _prompt(text_at(row, "problem"), row.get("starter_code"), hidden)
    return task_from("deepcoder", "code", prompt, hidden, row, "difficulty")


def _livecodebench(row: Row) -> Task:
    encoded = {part: str(row.get(f"{part}_test_cases") or "") for part in ("public", "private")}
    if not any(encoded.values()):
        raise TaskError("no tests")
    hidden: dict[str, Any] = {"encoded_tests": encoded, "compare": "livecodebench", "prelude": PRELUDE}
    described = structure_at(row, "metadata") if row.get("metadata") else {}
    if isinstance(described, Mapping) and described.get("func_name"):
        hidden["fn_name"] = str(described["func_name"])
    hidden |= _limits(0.0, 0.0)
    prompt = _prompt(text_at(row, "question_content"), row.get("starter_code"), hidden)
    return task_from("livecodebench", "code", prompt, hidden, row, "difficulty", "platform", "contest_date")


def _tests_of_columns(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Tests as APPS has them: a list of inputs, a list of outputs, and the name of a function or none."""
    inputs, outputs = cases.get("inputs") or (), cases.get("outputs") or ()
    if len(inputs) != len(outputs):
        raise TaskError("not as many outputs as inputs")
    return _tests(inputs, outputs, str(cases.get("fn_name") or ""))


def _tests_of_cases(cases: Any, name: str = "") -> dict[str, Any]:
    """Tests as SYNTHETIC-1 has them: a list of {type, fn_name, input, output}."""
    if not isinstance(cases, Sequence) or isinstance(cases, str) or not cases:
        raise TaskError("no tests")
    if not all(isinstance(case, Mapping) and "input" in case and "output" in case for case in cases):
        raise TaskError("a test without input and output")
    kinds = {str(case.get("type") or case.get("testtype") or "stdin") for case in cases}
    if not (kinds <= {"stdin", "stdin_stdout"} or kinds <= {"functional", "function_call"}):
        raise TaskError(f"tests of the types {', '.join(sorted(kinds))} together")
    names = {str(case["fn_name"]) for case in cases if case.get("fn_name")} or ({name} if name else set())
    calls = not kinds <= {"stdin", "stdin_stdout"}
    if calls and len(names) != 1:
        raise TaskError("tests that call a function, without its one name")
    return _tests([case["input"] for case in cases], [case["output"] for case in cases], names.pop() if calls else "")


def _tests(inputs: Sequence[Any], outputs: Sequence[Any], name: str) -> dict[str, Any]:
    if not inputs:
        raise TaskError("no tests")
    if not name:
        return {"tests": [{"input": _lines(given), "output": _lines(out)} for given, out in zip(inputs, outputs)]}
    # APPS, and the sets made of it, put most returned values into a list of one, and its checker takes either.
    if all(isinstance(out, list) and len(out) == 1 for out in outputs):
        outputs = [out[0] for out in outputs]
    tests = [{"args": _arguments(given), "expected": _value(out)} for given, out in zip(inputs, outputs)]
    return {"tests": tests, "fn_name": name, "prelude": PRELUDE}


def _lines(value: Any) -> str:
    """A text, or the lines of one."""
    if isinstance(value, list) and all(isinstance(line, str | int | float) for line in value):
        return "\n".join(map(str, value)) + "\n"
    if not isinstance(value, str):
        raise TaskError("a test's input or output is no text")
    return value


def _arguments(value: Any) -> list[Any]:
    """A list of arguments, or LiveCodeBench's text with one on each line, as JSON."""
    if isinstance(value, list):
        return value
    try:
        return [json.loads(line) for line in str(value).split("\n") if line]
    except ValueError:
        raise TaskError("a test's arguments are neither a list nor JSON") from None


def _value(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _solution(sources: Iterable[Any]) -> dict[str, str]:
    """The first solution that is Python 3: sets mix it with Python 2, and some fence it."""
    for source in sources:
        if not isinstance(source, str):
            continue
        fenced = re.search(r"```(?:python3?)?\n(.*?)```", source, re.S)
        text = fenced[1] if fenced else source
        try:
            ast.parse(text)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue
        if text.strip():
            return {"solution": text}
    return {}


def _limits(seconds: float, mebibytes: float) -> dict[str, Any]:
    return {"time_limit_s": max(seconds, LEAST_TIME_S), "memory_mib": max(round(mebibytes), LEAST_MEMORY_MIB)}


def _number_in(value: Any) -> float:
    """The number that "2.0 seconds" begins with; 0 where there is none."""
    found = re.search(r"\d+(?:\.\d+)?", str(value or ""))
    return float(found[0]) if found else 0.0


def _prompt(problem: str, starter: Any, hidden: Mapping[str, Any]) -> str:
    if isinstance(starter, str) and starter.strip():
        return f"{problem}\n\nUse this signature:\n```python\n{starter.strip()}\n```"
    name = hidden.get("fn_name")
    return f"{problem}\n\nWrite the function `{name}`." if name else problem


PROGRAM_FORMATS = (
    RowFormat(name="livecodebench", tells=has("question_content", "public_test_cases"), task_of=_livecodebench),
    RowFormat(name="taco", tells=has("question", "input_output"), task_of=_taco),
    RowFormat(name="code_contests", tells=has("description", "private_tests"), task_of=_code_contests),
    RowFormat(name="synthetic1", tells=has("prompt", "verification_info"), task_of=_synthetic1),
    RowFormat(name="deepcoder", tells=has("problem", "tests"), task_of=_deepcoder),
)
"""The first that tells a row's keys is its format."""
