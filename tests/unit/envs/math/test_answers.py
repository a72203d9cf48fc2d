"""The whole grader of mathematics: what a reader takes as the same, and answers that mean harm."""

import json
import os
import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from verigym.envs.math.equivalence import EquivalenceChecker
from verigym.rewards.math.grade import grade_math

PAIRS = runpy.run_path(str(Path(__file__).with_name("answer_pairs.py")))
DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
NINES = "9^{9^{9^{9}}}"

HOSTILE = [
    # (response, gold, verdict): what never ends, or grows without end, is not the answer
    (f"\\boxed{{{NINES}}}", "5", False),
    ("\\boxed{9^9^9^9}", "5", False),
    ("\\boxed{10^{10^{10}}}", "5", False),
    ("\\boxed{99999999!}", "5", False),
    ("\\boxed{(10^{8})!}", "5", False),
    ("\\boxed{10!!!!}", "5", False),
    ("\\boxed{\\binom{10^{9}}{10^{8}}}", "5", False),
    ("\\boxed{\\sum_{k=1}^{10^{12}} \\frac{1}{k}}", "5", False),
    ("\\boxed{\\prod_{k=1}^{10^{9}} k}", "5", False),
    ("\\boxed{\\int_0^1 e^{-x^{2}} \\sin(x^{3}) \\ln(1+x^{5}) dx}", "5", False),
    ("\\boxed{\\int \\frac{1}{\\sqrt{\\sin(x^{7})+x^{11}}} dx}", "5", False),
    ("\\boxed{(x+y+z)^{5000}}", "(x+y+z)^{4999}", False),
    ("\\boxed{(1+x)^{100000}}", "x", False),
    ("\\boxed{\\lim_{x \\to 0} \\frac{\\sin(\\sin(\\sin(\\sin x)))}{x^{x^{x}}}}", "5", False),
    ("\\boxed{2^{2^{2^{2^{2^{2}}}}}}", "5", False),
    ("\\boxed{1e999999999}", "5", False),
    ("\\boxed{1.5 \\times 10^{999999999}}", "5", False),
    ("\\boxed{10^{-999999999}}", "0", False),
    ("\\boxed{\\sqrt[99999999]{2^{99999999}}}", "5", False),
    ("\\boxed{" + "(" * 300 + "5" + ")" * 300 + "}", "6", False),
    ("\\boxed{" + "\\frac{1}{" * 200 + "2" + "}" * 200 + "}", "5", False),
    ("\\boxed{" + "\\sqrt{" * 300 + "2" + "}" * 300 + "}", "5", False),
    ("\\boxed{" + "+".join(f"x_{{{i}}}^{{2}}" for i in range(150)) + "}", "5", False),
    ("\\boxed{" + "9" * 10_000 + "}", "5", False),
    ("\\boxed{0." + "3" * 1_500 + "}", "5", False),
    ("\\boxed{\\det\\begin{pmatrix}" + "\\\\".join("&".join("xyzab"[(i + j) % 5] for j in range(9)) for i in range(9))
     + "\\end{pmatrix}}", "5", False),
    ("\\boxed{x^{x^{x^{x^{x^{x}}}}}}", "x", False),
    # code for whoever evaluates text
    ("\\boxed{__import__('os').system('touch verigym-owned')}", "5", False),
    ("\\boxed{exec(\"import os; os._exit(0)\")}", "5", False),
    ("\\boxed{().__class__.__bases__[0].__subclasses__()}", "5", False),
    ("\\boxed{open('/etc/passwd').read()}", "5", False),
    ("\\boxed{lambda: 5}", "5", False),
    ("\\boxed{5 if True else 6}", "6", False),
    ("\\boxed{\\text{import sys; sys.exit(0)}}", "5", False),
    ("\\boxed{true}", "1", False),
    ("\\boxed{\\input{/etc/passwd}}", "5", False),
    ("\\boxed{%s%s%n}", "5", False),
    ("\\boxed{{answer}}", "5", False),
    # nothing, or next to nothing
    ("", "5", False),
    ("\\boxed{}", "5", False),
    ("5 \\boxed{ }", "5", False),
    ("\\boxed{\\text{}}", "5", False),
    ("\\boxed{$$}", "5", False),
    ("\\boxed{?}", "5", False),
    ("\\boxed{...}", "5", False),
    ("\\boxed{\\boxed{}}", "5", False),
    ("<think>\\boxed{5}", "5", False),
    ("\\boxed{5}</think>", "5", False),
    ("<think>\\boxed{6}</think>\\boxed{5}", "5", True),
    # braces that do not close, boxes in boxes
    ("\\boxed{\\frac{1}{2}", "\\frac{1}{2}", True),
    ("\\boxed{5}}}}", "5", True),
    ("\\boxed{{{5}", "6", False),
    ("\\boxed{\\boxed{\\boxed{5}}}", "5", True),
    ("\\boxed{5} \\boxed", "5", True),
    ("\\boxed{\\}5}", "5", False),
    # hedges
    ("\\boxed{5 or 6}", "5", False),
    ("\\boxed{5} or \\boxed{6}", "6", False),
    ("\\boxed{5, 6, 7, 8}", "7", False),
    ("\\boxed{\\{1,2,3,4,5,6,7,8,9\\}}", "5", False),
    ("\\boxed{5 \\text{ or } 6}", "6", False),
    ("\\boxed{\\pm 5}", "5", False),
    ("\\boxed{x}", "5", False),
    ("\\boxed{(-\\infty, \\infty)}", "5", False),
    ("\\boxed{5 \\le x \\le 6}", "5", False),
    ("The answer is 5 or 6.", "6", False),
    ("\\boxed{5 \\vee 6}", "5", False),
    ("\\boxed{" + ", ".join(map(str, range(1000))) + "}", "5", False),
    ("\\boxed{5=6}", "5", False),
    # digits of other scripts, signs that look alike
    ("\\boxed{５}", "5", True),
    ("\\boxed{٥}", "5", True),
    ("\\boxed{५}", "5", True),
    ("\\boxed{²}", "2", False),
    ("\\boxed{⑤}", "6", False),
    ("\\boxed{Ⅴ}", "6", False),
    ("\\boxed{−5}", "-5", True),
    ("\\boxed{5\u200b}", "5", True),
    ("\\boxed{\u202e5}", "6", False),
    ("\\boxed{5\x00}", "6", False),
    ("\\boxed{\ud800}", "5", False),
    # values that are no number
    ("\\boxed{\\frac{5}{0}}", "5", False),
    ("\\boxed{\\frac{0}{0}}", "0", False),
    ("\\boxed{\\text{NaN}}", "5", False),
    ("\\boxed{0/0}", "0/1", False),
    ("\\boxed{\\infty - \\infty}", "0", False),
    ("\\boxed{\\log 0}", "0", False),
    # a megabyte
    ("a" * 1_000_000 + "\\boxed{5}", "5", True),
    ("\\boxed{" + "5" * 1_000_000 + "}", "5", False),
    ("\\boxed{" * 100_000, "5", False),
    ("(" * 1_000_000, "5", False),
    ("5 " * 500_000 + "\\boxed{6}", "5", False),
    ("\\boxed{5}" * 100_000, "5", True),
    ("$" * 1_000_000, "5", False),
]  # fmt: skip


def children():
    me = str(os.getpid())
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and (folder / "stat").read_text().rpartition(")")[2].split()[1] == me:
                found.append(folder.name)
        except OSError:
            continue
    return set(found)


@pytest.fixture(scope="module")
def checker():
    before = children()
    checker = EquivalenceChecker(num_workers=2, cpu_seconds=2.0, memory_mib=1024)
    yield checker
    checker.close()
    assert children() <= before


def verdicts(cases, checker):
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(lambda case: grade_math(case[0], case[1], verify=checker), cases))


@pytest.mark.parametrize(("name", "same"), [("SAME", True), ("DIFFERENT", False)])
def test_what_a_reader_takes_as_the_same(checker, name, same):
    pairs = PAIRS[name]
    scores = verdicts([(f"\\boxed{{{answer}}}", gold) for gold, answer in pairs], checker)
    wrong = [(pair, score.detail) for pair, score in zip(pairs, scores, strict=True) if score.passed is not same]
    assert wrong == []


@pytest.mark.slow
def test_answers_that_mean_harm_get_the_right_verdict_and_leave_nothing(checker):
    """Trap 20: each returns by its deadline, which is of processor time; a worker that overruns it is gone."""
    scores = verdicts(HOSTILE, checker)
    wrong = [
        (case[0][:60], score.detail) for case, score in zip(HOSTILE, scores, strict=True) if score.passed is not case[2]
    ]
    assert wrong == []
    assert len(HOSTILE) >= 60
    assert not Path("verigym-owned").exists()
    assert checker("x + x", "2x")


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the benchmark data lies beside the checkout only where it was put")
@pytest.mark.parametrize("name", ["math500", "aime24"])
def test_verdicts_on_answers_of_models_agree_with_their_labels(checker, name):
    key = {"math500": "unique_id", "aime24": "id"}[name]
    golds = {row[key]: str(row["answer"]) for row in rows_of(DATA / "math" / f"{name}.jsonl")}
    rows = rows_of(DATA / "predictions" / f"{name}.jsonl")
    scores = verdicts([(row["prediction"], golds[row["task_id"]]) for row in rows], checker)
    agreed = sum(score.passed == row["label"] for score, row in zip(scores, rows, strict=True))
    assert agreed >= 0.99 * len(rows)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
