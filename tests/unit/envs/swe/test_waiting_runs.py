"""What is believed of a run that waits for its rounds: records that are signed, and a fork that ended as agreed."""

# pyright: reportOptionalSubscript=false, reportOptionalMemberAccess=false, reportArgumentType=false
# A guest that plays a sandbox; a finding that is None fails the test as it should.

import asyncio
import hashlib
import hmac
import json

import pytest

from verigym.envs.sandbox.types import ProcessResult
from verigym.envs.swe import testing
from verigym.envs.swe.testing import TestRun, execute_and_doubt, find_forgery
from verigym.rewards.swe import TestReport

RUN = TestRun(workdir="/w", python="python", tests=("t.py",))
DONE = {
    **{"kind": "done", "statuses": {"t.py::a": "passed"}, "complete": True, "exit_code": 0, "canaries_ok": True},
    **{"strange": [], "messages": {}, "problem": "", "tampered": None, "dropped": [], "finished": True, "waits": True},
}


class Guest:
    """A process that says what it is told to say, by its own key."""

    def __init__(self, first, rounds, code=None, forged=False):
        self._first, self._rounds, self._code, self._forged = first, rounds, code, forged
        self._said, self._order, self.ended = [], None, False

    async def astart(self, argv, *, cwd, env):
        return self

    def write(self, data):
        if self._order is None:
            at = 4 + int.from_bytes(data[:4], "big")
            self._order = json.loads(data[at + 4 :])
            self._say({"kind": "ready"})
            for record in self._first:
                self._say(record)
            self.ended = self._first[-1].get("kind") != "waits"
        else:
            if len(data) > 4:
                self._say(self._rounds(json.loads(data[4:])))
            self.ended = True

    def _say(self, record):
        if record is not None:
            body = json.dumps(record).encode()
            key = b"" if self._forged and record["kind"] == "again" else bytes.fromhex(self._order["key"])
            self._said.append(hmac.new(key, body, hashlib.sha256).hexdigest().encode() + b" " + body + b"\n")

    async def read(self):
        return self._said.pop(0) if self._said else b"" if self.ended else await asyncio.sleep(99)

    async def wait(self):
        code = self._order["exit_code"] if self._code is None else self._code
        return ProcessResult(stdout=b"", stderr=b"", exit_code=code)

    def kill(self):
        self.ended = True


def honest(asked, *, alive=False, **more):
    rounds = [
        {
            **{"statuses": {t: "failed" if n and not alive else "passed" for t, n in plan.items()}, "tampered": None},
            **{"finished": True, "canaries_ok": True},
        }
        for plan in asked["rounds"]
    ]
    return {**DONE, "kind": "again", "rounds": rounds, "untwinned": [], **more}


def doubted(first, rounds=honest, choose=lambda report: (["t.py::a"], []), **more):
    return asyncio.run(execute_and_doubt(Guest(first, rounds, **more), RUN, choose, timeout_s=5))


WAITS = {"kind": "waits"}


def test_a_run_that_waits_is_believed_and_then_its_rounds():
    report, finding = doubted([DONE, WAITS])
    assert report.complete
    assert (finding.forged, finding.untrusted) == ("", ())
    assert doubted([DONE, WAITS], lambda asked: honest(asked, untwinned=["t.py::a"]))[1].untrusted == ("t.py::a",)


def test_nothing_is_asked_where_tests_failed():
    report, finding = doubted([DONE, WAITS], choose=lambda report: None)
    assert report.complete
    assert finding is None


@pytest.mark.parametrize("first", [[DONE], [{**DONE, "waits": False}], [{**DONE, "waits": False}, {"kind": "x"}]])
def test_a_fork_that_nobody_saw_end_leaves_no_report_that_waits(first):
    """The record alone is not enough: the process ends, and with which code counts."""
    report, finding = doubted(first, code=3)
    assert not report.complete
    assert finding is None


@pytest.mark.parametrize(
    ("rounds", "more"),
    [
        (lambda asked: None, {}),
        (lambda asked: {**honest(asked), "kind": "done"}, {}),
        (lambda asked: honest(asked, rounds=[]), {}),
        (honest, {"code": 1}),
        (honest, {"forged": True}),
    ],
)
def test_rounds_that_do_not_come_as_agreed_are_played_again_elsewhere(rounds, more):
    report, finding = doubted([DONE, WAITS], rounds, **more)
    assert report.complete
    assert finding is None


def test_a_twin_that_passes_and_tampering_are_seen():
    assert doubted([DONE, WAITS], lambda asked: honest(asked, alive=True))[1].forged.startswith(
        "t.py::a passed although"
    )
    assert doubted([DONE, WAITS], lambda asked: honest(asked, tampered="x"))[1].forged.endswith(
        "x was replaced while the tests ran"
    )


def test_a_second_run_says_what_has_no_twin(monkeypatch):
    async def executed(sandbox, run, *, again, timeout_s):
        return TestReport(statuses={}, complete=True, exit_code=0), honest(again, untwinned=["t.py::a"])

    monkeypatch.setattr(testing, "_execute", executed)
    asked = asyncio.run(find_forgery(None, RUN, ["t.py::a", "t.py::b"], ["t.py::c"], timeout_s=5, limit_s=1))  # type: ignore[arg-type]
    assert (asked.forged, asked.untrusted) == ("", ("t.py::a",))
