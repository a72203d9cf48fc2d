"""Logs as each runner of SWE-bench Verified's repositories writes them: what is broken never makes a verdict better."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.rewards.logs.judge import judge_log
from verigym.rewards.logs.parsers import R2E_PARSER

START, END = "+ : '>>>>> Start Test Output'", "+ : '>>>>> End Test Output'"
Entries = list[tuple[str, str]]


def wrapped(lines: list[str]) -> str:
    return "\n".join(["+ git status", START, *lines, END, "+ git checkout abc tests", ""])


def counts(entries: Entries) -> str:
    words = {"FAILED": "failed", "PASSED": "passed", "SKIPPED": "skipped", "ERROR": "error"}
    found = [(sum(status == key for status, _ in entries), word) for key, word in words.items()]
    return ", ".join(f"{n} {word}" for n, word in found if n) or "no tests ran"


def modern(entries: Entries) -> str:
    """pytest -rA: the summary names each test; skipped ones only by their place."""
    said = {"FAILED": " - assert 1 == 2", "ERROR": " - ValueError", "PASSED": ""}
    order = sorted(entries, key=lambda entry: ["PASSED", "SKIPPED", "FAILED", "ERROR"].index(entry[0]))
    lines = [f"{status} {test}{said[status]}" for status, test in order if status != "SKIPPED"]
    lines += [f"SKIPPED [1] t.py:{n}: no" for n, (status, _) in enumerate(entries) if status == "SKIPPED"]
    return wrapped(["=== short test summary info ===", *lines, f"=== {counts(entries)} in 1.20s ==="])


def old(entries: Entries) -> str:
    """pytest 3 with -v: the status stands at the line's end, in colour."""
    lines = [f"{test} \x1b[32m{status}\x1b[0m" for status, test in entries]
    return wrapped([*lines, "", f"=== {counts(entries)} in 1.20 seconds ==="])


def tox(entries: Entries) -> str:
    """Sphinx: pytest inside tox, whose own last lines follow."""
    failed = any(status in ("FAILED", "ERROR") for status, _ in entries)
    end = ["py39: exit 1 (2.00 seconds)", "  py39: FAIL code 1"] if failed else ["  py39: OK"]
    return modern(entries).replace(f"\n{END}", "\n" + "\n".join([*end, END]))


def captured(entries: Entries) -> str:
    """pytest's own tests: the output of another pytest stands in the log."""
    inner = ["=== PASSES ===", "--- Captured stdout call ---", "=== 1 failed in 0.01s ===", "=== 5 passed in 0.1s ==="]
    return modern(entries).replace(START, "\n".join([START, *inner]))


def django(entries: Entries) -> str:
    words = {"PASSED": "ok", "FAILED": "FAIL", "ERROR": "ERROR", "SKIPPED": "skipped 'no'"}
    lines = [f"{test} (m.T) ... {words[status]}" for status, test in entries]
    lines += [f"{words[status]}: {test} (m.T)" for status, test in entries if status in ("FAILED", "ERROR")]
    bad = {key: sum(status == key for status, _ in entries) for key in ("FAILED", "ERROR")}
    parts = [f"{word}={bad[key]}" for key, word in (("FAILED", "failures"), ("ERROR", "errors")) if bad[key]]
    return wrapped(
        [*lines, f"Ran {len(entries)} tests in 0.123s", "", f"FAILED ({', '.join(parts)})" if parts else "OK"]
    )


def sympy(entries: Entries) -> str:
    words = {"PASSED": "ok", "FAILED": "F", "ERROR": "E", "SKIPPED": "s"}
    lines = [f"{test} {words[status]}" for status, test in entries]
    lines += [f"____ sympy/a/tests/test_a.py:{test} ____" for status, test in entries if status in ("FAILED", "ERROR")]
    told = counts(entries).replace("error", "exceptions")
    return wrapped(["sympy/a/tests/test_a.py[3]", *lines, f"=== tests finished: {told}, in 1.2 seconds ==="])


FORMATS: dict[str, tuple[str, Callable[[Entries], str], list[str]]] = {
    "astropy": ("parse_log_astropy", old, ["t.py::test_a", "t.py::test_b[x y]", "t.py::test_c"]),
    "astropy, new": ("parse_log_astropy", modern, ["t.py::test_a", "t.py::test_b[x y]", "t.py::test_c"]),
    "django": ("parse_log_django", django, ["test_a", "test_b", "test_c"]),
    "flask": ("parse_log_flask", modern, ["t.py::test_a", "t.py::test_b[x", "t.py::test_c"]),
    "matplotlib": ("parse_log_matplotlib", modern, ["t.py::test_a[png]", "t.py::test_b", "t.py::test_c"]),
    "pylint": ("parse_log_pylint", modern, ["t.py::test_a[/x]", "t.py::test_b", "t.py::test_c"]),
    "pytest": ("parse_log_pytest", captured, ["testing/t.py::test_a", "testing/t.py::test_b", "testing/t.py::test_c"]),
    "requests": ("parse_log_requests", modern, ["t.py::T::test_a", "t.py::T::test_b", "t.py::T::test_c"]),
    "scikit-learn": ("parse_log_scikit", modern, ["t.py::test_a", "t.py::test_b", "t.py::test_c"]),
    "seaborn": ("parse_log_seaborn", modern, ["t.py::test_a", "t.py::test_b", "t.py::test_c"]),
    "sphinx": ("parse_log_sphinx", tox, ["t.py::test_a", "t.py::test_b", "t.py::test_c"]),
    "sympy": ("parse_log_sympy", sympy, ["test_a", "test_b", "test_c"]),
    "xarray": ("parse_log_xarray", modern, ["t.py::test_a", "t.py::test_b", "t.py::test_c"]),
    "R2E-Gym": (R2E_PARSER, modern, ["t.py::T::test_a", "t.py::test_b", "t.py::test_c"]),
}
NAMES = {
    "django": lambda test: f"{test} (m.T)",
    "R2E-Gym": lambda test: test.partition("::")[2].replace("::", "."),
}
STATUSES = st.lists(st.sampled_from(["PASSED", "PASSED", "FAILED", "ERROR", "SKIPPED"]), min_size=3, max_size=3)
MILD = settings(max_examples=15)


def judged(name: str, text: str) -> bool:
    parser, _, tests = FORMATS[name]
    named = [NAMES.get(name, str)(test) for test in tests]
    return judge_log(text, parser=parser, fail_to_pass=named[:1], pass_to_pass=named[1:]).score.passed


def log_of(name: str, statuses: list[str]) -> str:
    _, write, tests = FORMATS[name]
    return write(list(zip(statuses, tests, strict=True)))


@pytest.mark.parametrize("name", FORMATS)
def test_a_log_says_what_its_statuses_say(name):
    assert judged(name, log_of(name, ["PASSED"] * 3))
    for n in range(3):
        for status in ("FAILED", "ERROR"):
            statuses = ["PASSED"] * 3
            statuses[n] = status
            assert not judged(name, log_of(name, statuses)), (n, status)


@pytest.mark.parametrize("name", FORMATS)
@MILD
@given(statuses=STATUSES, seed=st.integers(0, 2**32))
def test_dropping_lines_never_improves_a_verdict(name, statuses, seed):
    lines, dice = log_of(name, statuses).split("\n"), random.Random(seed)
    if judged(name, "\n".join(lines)):
        return
    for n in range(len(lines)):
        assert not judged(name, "\n".join(lines[:n] + lines[n + 1 :])), lines[n]
    for _ in range(5):
        share = dice.random()
        assert not judged(name, "\n".join(line for line in lines if dice.random() > share))


@pytest.mark.parametrize("name", FORMATS)
def test_a_log_cut_anywhere_before_its_end_mark_fails(name):
    text = log_of(name, ["PASSED"] * 3)
    for cut in range(text.index(END) + len(END) - 1):
        assert not judged(name, text[:cut])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("statuses", [["PASSED"] * 3, ["PASSED", "FAILED", "PASSED"]])
def test_line_ends_and_what_follows_the_end_mark_change_nothing(name, statuses):
    text, good = log_of(name, statuses), log_of(name, ["PASSED"] * 3)
    passed = judged(name, text)
    assert passed is ("FAILED" not in statuses)
    assert judged(name, text.replace("\n", "\r\n")) is passed
    without_marks = good.replace(START, "").replace(END, "")
    assert judged(name, f"{text}\n{without_marks}\n1 failed in 0.1s\nFAILED x\nRan 3 tests in 0.1s\nOK\n") is passed
    assert judged(name, f"{without_marks}\n{text}") is passed


@pytest.mark.parametrize("name", FORMATS)
def test_a_second_pair_of_marks_is_believed_by_nobody(name):
    good, bad = log_of(name, ["PASSED"] * 3), log_of(name, ["PASSED", "FAILED", "PASSED"])
    inner = good[good.index(START) : good.index(END) + len(END)]
    for text in (f"{good}\n{bad}", f"{bad}\n{good}", bad.replace(START, f"{START}\n{inner}"), bad.replace(END, inner)):
        assert not judged(name, text)
    assert not judged(name, good.replace(START, "@").replace(END, START).replace("@", END))


def test_per_test_sets_are_swebenchs():
    text = log_of("astropy, new", ["FAILED", "PASSED", "SKIPPED"])
    tests = FORMATS["astropy, new"][2]
    verdict = judge_log(text, parser="parse_log_astropy", fail_to_pass=tests[:1], pass_to_pass=tests[1:])
    assert verdict.tests == {
        "FAIL_TO_PASS": {"success": [], "failure": tests[:1]},
        "PASS_TO_PASS": {"success": [tests[1]], "failure": [tests[2]]},
    }
    assert verdict.score.breakdown == {"fail_to_pass": 0.0, "pass_to_pass": 0.5, "resolved": 0.0}


def test_a_summary_that_counts_failures_contradicts_exit_code_zero():
    text = modern([("PASSED", "t.py::a"), ("FAILED", "t.py::other")])
    text = text.replace(f"\n{END}", f"\n+ SWEBENCH_TEST_EXIT_CODE=0\n{END}")
    verdict = judge_log(text, parser="parse_log_pytest", fail_to_pass=["t.py::a"], pass_to_pass=[])
    assert (verdict.score.passed, "contradicts" in verdict.score.detail) == (False, True)
    honest = judge_log(
        text.replace("CODE=0", "CODE=1"), parser="parse_log_pytest", fail_to_pass=["t.py::a"], pass_to_pass=[]
    )
    assert honest.score.passed
