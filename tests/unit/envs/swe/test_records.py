"""What the host believes of what a guest sent: two signed lines, an end as agreed, and nothing else."""

import hashlib
import hmac
import json

import pytest

from verigym.envs.sandbox.types import ProcessResult
from verigym.envs.swe.testing import _read
from verigym.errors import GradingError

KEY, CODE = b"k" * 32, 77
READY = {"kind": "ready", "pytest": "8"}
DONE = {
    **{"kind": "done", "statuses": {"t.py::a": "passed"}, "complete": True, "exit_code": 0, "canaries_ok": True},
    **{"strange": [], "messages": {}, "problem": "", "tampered": None, "dropped": []},
}


def signed(record, key=KEY):
    body = json.dumps(record).encode()
    return hmac.new(key, body, hashlib.sha256).hexdigest().encode() + b" " + body + b"\n"


def read(*lines, code: int | None = CODE, killed=None):
    return _read(ProcessResult(stdout=b"".join(lines), stderr=b"why", exit_code=code, killed=killed), KEY, CODE)[0]


def test_what_was_agreed_on_is_believed():
    report = read(signed(READY), signed(DONE))
    assert (report.statuses, report.complete, report.canaries_ok) == (DONE["statuses"], True, True)


@pytest.mark.parametrize(
    ("report", "told"),
    [
        (lambda: read(signed(READY), signed(DONE), code=0), "exit code 0, not with the one agreed on"),
        (lambda: read(signed(READY), signed(DONE), code=None, killed="memory"), "stopped: memory"),
        (lambda: read(signed(READY), signed(DONE), killed="timeout"), "stopped: timeout"),  # as it was about to end
        (lambda: read(signed(READY)), "ended early"),
        (lambda: read(signed(READY), signed(DONE, b"another")), "something else wrote"),
        (lambda: read(signed(READY), signed(DONE), signed(DONE)), "something else wrote"),
        (lambda: read(signed(READY), signed(DONE), b"5 passed\n"), "something else wrote"),
        (lambda: read(signed(READY), signed(DONE), b"5 passed"), "something else wrote"),
        (lambda: read(signed(READY), signed({**DONE, "kind": "again"})), "something else wrote"),
    ],
)
def test_anything_else_is_no_run(report, told):
    found = report()
    assert (found.statuses, found.complete) == ({}, False)
    assert told in found.detail


@pytest.mark.parametrize("first", [b"", b"5 passed\n", signed(READY, b"another"), signed(DONE)])
def test_a_guest_that_never_was_ready_is_an_error_of_the_grading(first):
    with pytest.raises(GradingError, match=r"could not be started.*why"):
        read(first, signed(DONE))
