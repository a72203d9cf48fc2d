"""Verdicts of evaluation logs. Trap 14: a missing line never makes a verdict better."""

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.rewards.logs.judge import UngradableLog, grade_log, judge_log, read_log

START, END = "+ : '>>>>> Start Test Output'", "+ : '>>>>> End Test Output'"
TESTS = ["t.py::a", "t.py::b", "t.py::c"]
TRACE = ["+ SWEBENCH_TEST_EXIT_CODE={}", ">>>>> Test Exit Code: {}"]


def pytest_log(entries: list[tuple[str, str]], *, exit_code: bool = True) -> str:
    """What ``pytest -rA`` prints; an entry is (status, test)."""
    count = {word: sum(status == word for status, _ in entries) for word in ("PASSED", "FAILED", "ERROR", "SKIPPED")}
    words = {"FAILED": "failed", "PASSED": "passed", "SKIPPED": "skipped", "ERROR": "errors"}
    last = ", ".join(f"{count[word]} {name}" for word, name in words.items() if count[word]) or "no tests ran"
    code = int(bool(count["FAILED"] or count["ERROR"]))
    lines = ["+ git apply", START, "collected 3 items", "=== short test summary info ==="]
    lines += [f"{status} {test}" + (" - assert 0" if status == "FAILED" else "") for status, test in entries]
    lines += [f"===== {last} in 0.10s ====="]
    return "\n".join([*lines, *([line.format(code) for line in TRACE] if exit_code else []), END, "+ git checkout"])


def django_log(entries: list[tuple[str, str]]) -> str:
    """What Django's runner prints; an entry is (ok, FAIL or ERROR, test)."""
    lines = [START, *(f"{test} (m.T) ... {status}" for status, test in entries)]
    lines += [f"{status}: {test} (m.T)" for status, test in entries if status != "ok"]
    failures, errors = (sum(status == word for status, _ in entries) for word in ("FAIL", "ERROR"))
    parts = [f"{name}={n}" for name, n in (("failures", failures), ("errors", errors)) if n]
    return "\n".join(
        [*lines, f"Ran {len(entries)} tests in 0.1s", f"FAILED ({', '.join(parts)})" if parts else "OK", END]
    )


def grade(text: str) -> float:
    return grade_log(text, parser="parse_log_pytest", fail_to_pass=TESTS[:1], pass_to_pass=TESTS[1:]).value


def test_a_log_of_passes_passes():
    text = pytest_log([("PASSED", test) for test in TESTS])
    assert grade(text) == 1.0
    assert read_log(text, "parse_log_pytest").statuses == dict.fromkeys(TESTS, "passed")


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{START}\n{END}",
        pytest_log([]),
        pytest_log([("PASSED", test) for test in TESTS[:2]]),
        pytest_log([("PASSED", test) for test in TESTS]).replace(END, ""),
        pytest_log([("PASSED", test) for test in TESTS]).replace("Code: 0", "Code: 1"),
        pytest_log([("PASSED", test) for test in TESTS]) + "\n>>>>> Tests Timed Out",
        pytest_log([("PASSED", test) for test in TESTS] + [("ERROR", TESTS[0])]),
        pytest_log([("FAILED", TESTS[0])] + [("PASSED", test) for test in TESTS]),
    ],
)
def test_what_is_absent_broken_or_contradicted_fails(text):
    assert grade(text) == 0.0


def test_an_unknown_parser_is_named():
    with pytest.raises(ValueError, match="parse_log_cobol"):
        read_log("", "parse_log_cobol")


# pytest reports a test once; of a test that is named as passed and as skipped the last line would count.
ENTRIES = st.lists(
    st.tuples(st.sampled_from(["PASSED", "FAILED", "ERROR", "SKIPPED"]), st.sampled_from(TESTS)),
    max_size=7,
    unique_by=lambda entry: entry[1],
)


@given(ENTRIES, st.booleans())
def test_dropping_any_line_of_a_pytest_log_never_improves_it(entries, exit_code):
    lines = pytest_log(entries, exit_code=exit_code).split("\n")
    whole = grade("\n".join(lines))
    for n in range(len(lines)):
        assert grade("\n".join(lines[:n] + lines[n + 1 :])) <= whole, lines[n]


@given(st.lists(st.tuples(st.sampled_from(["ok", "FAIL", "ERROR"]), st.sampled_from("abc")), max_size=6))
def test_dropping_any_line_of_a_django_log_never_improves_it(entries):
    def verdict(lines):
        names = [f"{name} (m.T)" for name in "abc"]
        return grade_log(
            "\n".join(lines), parser="parse_log_django", fail_to_pass=names[:1], pass_to_pass=names[1:]
        ).value

    lines = django_log(entries).split("\n")
    whole = verdict(lines)
    for n in range(len(lines)):
        assert verdict(lines[:n] + lines[n + 1 :]) <= whole, lines[n]


def sympy_log(failed: tuple[str, ...] = ()) -> str:
    lines = [START, *(f"test_{name} {'F' if name in failed else 'ok'}" for name in "abcd")]
    lines += [f"____ sympy/core/tests/test_x.py:test_{name} ____" for name in failed]
    counted = f", {len(failed)} failed" if failed else ""
    return "\n".join([*lines, f"=== tests finished: {4 - len(failed)} passed{counted}, in 0.10 seconds ===", END])


@pytest.mark.parametrize(
    ("parser", "text", "without", "reason"),
    [
        ("django", django_log([("ok", name) for name in "abc"]), "Ran 3 tests", "last line"),
        ("django", django_log([("ok", name) for name in "abc"]), "OK", "verdict"),
        ("django", django_log([*(("ok", name) for name in "abc"), ("FAIL", "d")]), "FAIL: d", "1 failures, and not"),
        ("django", django_log([*(("ok", name) for name in "abc"), ("ERROR", "d")]), "ERROR: d", "1 errors, and not"),
        ("sympy", sympy_log(), "=== tests finished", "last line"),
        ("sympy", sympy_log(("d",)), ("test_d F", "____ sympy"), "1 failures, and not"),
        ("pytest", pytest_log([("PASSED", test) for test in TESTS]), "===== 3 passed", "last line"),
        ("pytest", pytest_log([*(("PASSED", t) for t in TESTS), ("FAILED", "d")]), "FAILED d", "1 failed, and not"),
        ("pytest", pytest_log([*(("PASSED", t) for t in TESTS), ("ERROR", "d")]), "ERROR d", "1 error, and not"),
    ],
)  # fmt: skip
def test_what_the_last_words_count_and_no_line_names_is_told(parser, text, without, reason):
    forms = {"django": "{} (m.T)", "sympy": "test_{}", "pytest": "t.py::{}"}
    names = [forms[parser].format(name) for name in "abc"]

    def score(text):
        return judge_log(text, parser=f"parse_log_{parser}", fail_to_pass=names[:1], pass_to_pass=names[1:]).score

    assert (score(text).value, score(text).detail) == (1.0, "all tests passed")
    lines = [line for line in text.split("\n") if not line.startswith(without)]
    assert len(lines) < len(text.split("\n"))
    assert score("\n".join(lines)).value == 0.0
    assert reason in score("\n".join(lines)).detail


def out_of_order(text: str) -> str:
    """A log whose standard output was written before its standard error, which has the markers."""
    lines = text.split("\n")
    errors = [line for line in lines if line.startswith("+ ")]
    return "\n".join([*(line for line in lines if not line.startswith("+ ")), *errors])


STORED = [
    ([("PASSED", test) for test in TESTS], True),
    ([("PASSED", TESTS[0]), ("FAILED", TESTS[1]), ("PASSED", TESTS[2])], False),
    ([("PASSED", TESTS[0]), ("PASSED", TESTS[1])], False),
    ([("PASSED", test) for test in TESTS] + [("FAILED", "t.py::other")], True),
    ([("FAILED", TESTS[0]), ("PASSED", TESTS[1]), ("PASSED", TESTS[2])], False),
    ([("PASSED", TESTS[0]), ("SKIPPED", "[1] t.py:1: no"), ("PASSED", TESTS[1]), ("PASSED", TESTS[2])], True),
    ([], False),
]


def stored(text: str, parser: str = "parse_log_pytest", tests=TESTS, **options):
    return judge_log(text, parser=parser, fail_to_pass=tests[:1], pass_to_pass=tests[1:], **options).score


@pytest.mark.parametrize(("entries", "resolved"), STORED)
def test_a_stored_log_whose_markers_hold_nothing_is_read_as_swebench_reads_it(entries, resolved, tmp_path):
    from swebench.harness.grading import get_eval_report
    from swebench.types import TestSpec

    text = out_of_order(pytest_log(entries))
    score = stored(text, stored=True)
    assert score.passed is resolved, score.detail
    if resolved:
        assert "the whole log was read, as swebench does" in score.detail
        assert stored(pytest_log(entries), stored=True).detail == "all tests passed"
    assert not stored(text).passed  # a grading of our own, and --strict
    (tmp_path / "log").write_text(text)
    fields = {"instance_id": "i", "log_parser": "parse_log_pytest", "eval_type": "pass_and_fail"}
    known = {name: fields.get(name, "") for name in TestSpec.__dataclass_fields__}
    spec = TestSpec(**{**known, "FAIL_TO_PASS": TESTS[:1], "PASS_TO_PASS": TESTS[1:]})
    prediction = {"instance_id": "i", "model_patch": "x", "model_name_or_path": "m"}
    official = get_eval_report(spec, prediction, str(tmp_path / "log"), include_tests_status=False)
    assert official["i"]["resolved"] is resolved


def test_statuses_between_the_markers_are_all_that_counts_where_there_are_any():
    text = pytest_log([("PASSED", TESTS[0]), ("FAILED", TESTS[1]), ("PASSED", TESTS[2])])
    text = "\n".join([*(f"PASSED {test}" for test in TESTS), text, *(f"PASSED {test}" for test in TESTS)])
    assert not stored(text, stored=True).passed
    contradicted = out_of_order(pytest_log([("PASSED", test) for test in TESTS]).replace("Code: 0", "Code: 1"))
    assert not stored(contradicted, stored=True).passed


OLD = """Task Metadata:
\t- Instance ID: a__b-1
>>>>> Applied Patch (test)
>>>>> Applied Patch (pred)
Test Script: pytest -rA t.py;
Output:
PASSED t.py::a
PASSED t.py::b
PASSED t.py::c
===== 3 passed in 0.10s =====
{}
"""


@pytest.mark.parametrize(
    "text",
    [
        OLD.format(">>>>> All Tests Passed"),
        OLD.format(">>>>> Some Tests Failed"),
        OLD.format(">>>>> Tests Timed Out after 900 seconds"),
        OLD.partition(">>>>> Applied Patch (pred)")[0] + ">>>>> Patch Apply Failed; (pred)\n",
        OLD.partition("Task")[0] + "PASSED t.py::a\n1 passed in 0.1s\n",
    ],
)
def test_a_stored_log_without_markers_is_ungradable(text):
    with pytest.raises(UngradableLog, match=r"swebench 1\.x|no marker"):
        stored(text, stored=True)
    assert not stored(text).passed
    for unfinished in ("", "+ source activate\n"):
        assert not stored(unfinished, stored=True).passed


class Counted(str):
    """A test's id that counts how often ids are compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other):
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_ids_that_are_cut_are_resolved_as_swebench_does_without_looking_at_every_status(monkeypatch):
    from swebench.harness.grading import get_eval_tests_report

    dice = random.Random(0)
    outcomes = ["PASSED", "PASSED", "FAILED", "SKIPPED", "XFAIL"]
    entries = {f"t.py::f[{n % 40} {n}]": dice.choice(outcomes) for n in range(100)}
    lines = "".join(f"{status} {test}\n" for test, status in entries.items())
    tests = [*(f"t.py::f[{n}" for n in range(45)), "t.py::f[", "t.py::f", "t.py::f[0 0]", "t.py::f[0 0"]
    monkeypatch.setattr("verigym.rewards.logs.judge.unaccounted", lambda *_: "")
    text = f"{START}\n{lines}{END}"
    for listed in ((tests, []), ([], tests)):
        gold = dict(zip(("FAIL_TO_PASS", "PASS_TO_PASS"), map(list, listed), strict=True))
        found = judge_log(text, parser="parse_log_pytest_v2", fail_to_pass=listed[0], pass_to_pass=listed[1]).tests
        official: dict = get_eval_tests_report(entries, gold)  # type: ignore[arg-type]
        assert found == {name: official[name] for name in gold}


@pytest.mark.parametrize("there", [True, False])
def test_the_work_of_a_verdict_grows_with_its_tests_not_with_their_square(there, monkeypatch):
    """Whole ids and cut ones: no list of tests is searched, and what begins like a cut id is found without a scan."""
    from swebench.harness import grading

    scanned, resolve = [], grading._resolve_case
    monkeypatch.setattr(
        grading, "_resolve_case", lambda case, sm: scanned.append(case) if case not in sm else resolve(case, sm)
    )
    size = 300
    entries = [("PASSED", f"t.py::f[{n} x]") for n in range(size)]
    cut = [f"t.py::{'f' if there else 'g'}[{n}" for n in range(size)]
    tests = [Counted(test) for test in (*(test for _, test in entries), *cut)]
    text = pytest_log(entries)
    Counted.compared = 0
    verdict = judge_log(text, parser="parse_log_pytest_v2", fail_to_pass=tests[:1], pass_to_pass=tests[1:])
    assert verdict.score.passed is there
    assert scanned == []
    assert Counted.compared < 20 * size


def test_published_verdicts_are_repeated():
    """Real logs, where $VERIGYM_DATA has them (swebench/logs/index.jsonl beside swe_bench_verified.jsonl)."""
    folder = Path(os.environ.get("VERIGYM_DATA", "")) / "swebench"
    if not os.environ.get("VERIGYM_DATA") or not (folder / "logs" / "index.jsonl").exists():
        pytest.skip("set VERIGYM_DATA to a folder with swebench/logs to compare verdicts of real logs")
    lines = (folder / "swe_bench_verified.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row["instance_id"]: row for row in map(json.loads, lines)}
    index = [json.loads(line) for line in (folder / "logs" / "index.jsonl").read_text(encoding="utf-8").splitlines()]
    for entry in index:
        row = rows[entry["instance_id"]]
        text = (folder / "logs" / entry["dir"] / "test_output.txt").read_text(encoding="utf-8")
        score = grade_log(
            text,
            parser=row["log_parser"],
            fail_to_pass=json.loads(row["FAIL_TO_PASS"]),
            pass_to_pass=json.loads(row["PASS_TO_PASS"]),
        )
        assert score.passed == entry["resolved"], (entry["instance_id"], score.detail)
