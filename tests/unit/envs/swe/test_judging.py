"""Logs judged in other processes: the same verdicts, several at once, and an end to what takes too long."""

import asyncio
import os
import signal

import pytest

from verigym.envs.swe.judging import LogJudge
from verigym.rewards.logs.accounts import unaccounted
from verigym.rewards.logs.judge import UngradableLog, judge_log
from verigym.rewards.logs.parsers import PARSERS as OWN

START, END = "+ : '>>>>> Start Test Output'", "+ : '>>>>> End Test Output'"
GOOD = f"{START}\nPASSED t.py::a\n== 1 passed in 0.1s ==\n{END}\n"
ASKED = {"parser": "parse_log_pytest", "fail_to_pass": ["t.py::a"], "pass_to_pass": ["t.py::b"]}
MIB = 1 << 20

HOSTILE = {
    "equal signs": "=" * MIB,
    "blank lines": "\n" * MIB,
    "blanks": " " * MIB,
    "digits": "1" * MIB + " passed in 1s",
    "counts": "1 a" * (MIB // 3),
    "failures": "9" * MIB + " failed in 1s",
    "underscores": "_" * MIB,
    "headings": "_ a.py:" * (MIB // 7),
    "django": "a ... Testing against Django installed in " * (MIB // 42),
    "django outcomes": "a ... " * (MIB // 6),
    "statuses": "FAILED " * (MIB // 7),
    "sympy": "test_ a" * (MIB // 7),
    "colours": "\x1b[31" * (MIB // 5),
    "brackets": "PASSED " + "[" * MIB,
    "options": "PASSED t.py::a" + "[x" * (MIB // 2),
    "exit codes": ">>>>> Test Exit Code: " + "9" * MIB,
    "hyphens": "PASSED a::" + " - " * (MIB // 3),
}


@pytest.fixture
def judge():
    judge = LogJudge(num_workers=2, cpu_seconds=2)
    yield judge
    judge.close()


def test_verdicts_are_judge_logs_own_at_any_number_at_once(judge):
    texts = [GOOD, GOOD.replace("PASSED", "FAILED"), "", "\ud83d\x00", GOOD.replace("t.py::a", "t.py::b"), GOOD] * 3

    async def every():
        return await asyncio.gather(*(judge.judge(text, **ASKED) for text in texts))

    assert asyncio.run(every()) == [judge_log(text, **ASKED) for text in texts]
    assert asyncio.run(every()) == [judge_log(text, **ASKED) for text in texts]  # on another event loop


def test_errors_are_judge_logs_own(judge):
    with pytest.raises(ValueError, match="parse_log_cobol"):
        asyncio.run(judge.judge("", **{**ASKED, "parser": "parse_log_cobol"}))
    with pytest.raises(UngradableLog):
        asyncio.run(judge.judge("Task Metadata:\n", **ASKED, stored=True))


PARSERS = ("parse_log_pytest", "parse_log_pytest_options", "parse_log_pytest_v2", "parse_log_django", "parse_log_sympy")
PARSERS += ("parse_log_seaborn", "parse_log_matplotlib", "parse_log_r2e", "parse_log_smith", "parse_log_smith_unittest")


@pytest.mark.slow
@pytest.mark.parametrize("parser", PARSERS)
def test_no_log_holds_up_anybody(parser, judge):
    """1 MiB of each is judged, or given up at the limit, as no pass."""

    async def every():
        texts = [f"{START}\n{text}\n{END}\n" for text in HOSTILE.values()]
        found = await asyncio.gather(*(judge.judge(text, **{**ASKED, "parser": parser}) for text in texts))
        return dict(zip(HOSTILE, found, strict=True))

    found = asyncio.run(every())
    assert [name for name, verdict in found.items() if verdict.score.passed] == []


def test_what_takes_too_long_has_not_passed_and_the_next_log_is_judged(judge):
    text = f"{START}\n{HOSTILE['django']}\n{END}\n"
    verdict = asyncio.run(judge.judge(text, **{**ASKED, "parser": "parse_log_django"}))
    assert not verdict.score.passed
    assert verdict.score.detail == "the log could not be read within 2 s of processor time"
    assert verdict.tests["FAIL_TO_PASS"] == {"success": [], "failure": ["t.py::a"]}
    assert asyncio.run(judge.judge(GOOD, **{**ASKED, "pass_to_pass": []})).score.passed


def test_the_event_loop_goes_on_while_a_log_is_judged(judge):
    """The process that judges is stopped: all else on the loop is done, and the verdict comes when it goes on."""

    async def work():
        await judge.judge(GOOD, **ASKED)  # a process is there
        (worker,) = judge._workers._idle
        os.kill(worker._process.pid, signal.SIGSTOP)
        judging = asyncio.ensure_future(judge.judge(GOOD, **ASKED))
        for _ in range(20):
            await asyncio.sleep(0.01)
        waiting = not judging.done()
        os.kill(worker._process.pid, signal.SIGCONT)
        return waiting, (await judging).score

    waiting, score = asyncio.run(work())
    assert waiting
    assert score == judge_log(GOOD, **ASKED).score


def test_our_own_readers_take_hostile_texts_whole():
    """1 MiB of each; a pattern that takes quadratic time would not come back."""
    for text in HOSTILE.values():
        for parser in ("parse_log_pytest", "parse_log_django", "parse_log_sympy"):
            assert unaccounted(text, parser, 1)
        for parse in OWN.values():
            assert len(parse(text, None)) <= 1
