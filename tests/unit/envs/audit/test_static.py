"""Certificates from a row's text: evidence, classes, signatures, files, and the command."""

import json
import subprocess
from dataclasses import replace

import pytest

from verigym.__main__ import main
from verigym.envs.audit.certificate import SCORES, VERSION, Certificate, Finding, check_signature, signed
from verigym.envs.audit.classes import classify
from verigym.envs.audit.ledger import read_certificates
from verigym.envs.audit.many import Strengthened
from verigym.envs.audit.text.base import standing_in
from verigym.envs.audit.text.demands import demanded, functions_of, unrelated_tests
from verigym.envs.audit.text.static import audit_text
from verigym.envs.runs.lock import RunLock
from verigym.errors import TaskError

STATEMENT = "load takes empty paths\nIt should raise a ValueError instead."


@pytest.fixture
def raw(row):
    """Makes the row as it would be read from a file."""
    return lambda **more: {**row(STATEMENT).model_dump(mode="json"), **more}


def write(path, *rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def test_the_evidence_names_what_nobody_was_told(row):
    found = {(one.what, one.shown) for one in demanded(row(STATEMENT))}
    assert ("the tests use a function that the reference names", "def read_checked(path):") in found
    assert ("the tests expect text that the reference words", "no path was given") in found
    told = STATEMENT + " Name the helper read_checked, and say 'no path was given'."
    assert list(demanded(row(told))) == []


def test_what_stands_at_base_is_no_demand(tmp_path, row):
    clone = tmp_path / "me__pkg"
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        clone.mkdir(exist_ok=True)
        (clone / "old.py").write_text("def read_checked(): return 'no path was given'\n")
        subprocess.run(["git", "-C", str(clone), *command], check=True)
    head = subprocess.run(["git", "-C", str(clone), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    one = row(STATEMENT, repo="me/pkg", base_commit=head.stdout.strip())
    stands = standing_in(one, folder=tmp_path, clones=tmp_path)
    assert stands is not None
    assert stands({"read_checked", "nowhere"}) == {"read_checked"}
    assert list(demanded(one, stands)) == []


def test_a_statement_that_holds_the_fix_is_leaky(raw, reference):
    certificate = audit_text(raw(problem_statement=STATEMENT + "\nThe fix:\n" + reference))
    assert certificate.scores["leaky"] == 1.0
    assert certificate.kind == "leaky"
    assert certificate.findings[0].shown.startswith(("if not", "raise", "return", "def"))


def test_a_test_that_shares_nothing_with_the_task_is_told(row, hidden_tests):
    other = "+def test_weather():\n+    assert forecast(tomorrow).rainfall < umbrella_limit\n"
    one = row(
        STATEMENT, tests=hidden_tests.replace("+1,7", "+1,9") + other, FAIL_TO_PASS=["tests/test_core.py::test_weather"]
    )
    assert [found.where for found in unrelated_tests(one)] == ["tests/test_core.py::test_weather"]
    assert list(unrelated_tests(row(STATEMENT))) == []


def test_functions_are_cut_out_by_their_indentation():
    code = (
        "    def test_a(self):\n        x = 1\n        def inner():\n            pass\n    def test_b(self):\n        y"
    )
    assert functions_of(code)["test_a"].splitlines()[-1].strip() == "pass"
    assert functions_of(code)["test_b"].endswith("y")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"problem_statement": ""}, "no problem_statement"),
        ({"patch": ""}, "no reference patch"),
        ({"FAIL_TO_PASS": []}, "FAIL_TO_PASS is empty"),
        ({"patch": "see the pull request"}, "'patch' is no unified diff ('see the pull request')"),
        ({"test_patch": "404: Not Found"}, "'test_patch' is no unified diff ('404: Not Found')"),
    ],
)
def test_a_row_that_lacks_something_is_broken_and_says_what_to_give(changes, told, raw):
    certificate = audit_text(raw(**changes))
    assert certificate.kind == "broken"
    assert told in certificate.problem
    assert set(certificate.scores) == set(SCORES)


def test_tests_that_do_not_parse_are_read_all_the_same(raw, hidden_tests):
    assert audit_text(raw(test_patch=hidden_tests + "+def broken(:\n+  '''\n")).problem == ""


@pytest.mark.parametrize(
    ("scores", "basis", "ran", "kind"),
    [
        ({}, "measured", True, "sound"),
        ({}, "signs", False, "unflagged"),
        ({"weak": 0.5}, "measured", True, "weak"),
        ({"weak": 0.5}, "signs", False, "unflagged"),
        ({"narrow": 0.1, "weak": 0.9}, "measured", True, "narrow"),
        ({"leaky": 1.0, "narrow": 1.0}, "measured", True, "leaky"),
        ({"underspecified": 0.6}, "signs", False, "underspecified"),
        ({"underspecified": 0.6}, "signs", True, "sound"),
    ],
)
def test_the_first_rule_that_holds_gives_the_class(scores, basis, ran, kind):
    everything = {**dict.fromkeys(SCORES, 0.0), **scores}
    assert classify(everything, dict.fromkeys(SCORES, basis), [], ran=ran)[0] == kind


def test_broken_comes_before_all():
    finding = Finding(kind="broken", what="gold fails")
    scores = dict.fromkeys(SCORES, 1.0)
    assert classify(scores, dict.fromkeys(SCORES, "measured"), [finding], ran=True) == ("broken", "gold fails")


def test_a_certificate_is_read_back_and_a_change_shows(raw):
    certificate = audit_text(raw())
    content = json.loads(json.dumps(signed(certificate, b"0123456789abcdef")))
    assert Certificate.from_json(content) == certificate
    assert check_signature(content, b"0123456789abcdef")
    assert not check_signature(content, b"another key......")
    assert not check_signature({**content, "kind": "sound"}, b"0123456789abcdef")


def test_the_command_writes_a_certificate_a_row_in_order(tmp_path, capsys, raw):
    rows = write(tmp_path / "rows.jsonl", raw(), raw(instance_id="two"), {"nonsense": 1}, raw(instance_id="three"))
    out = tmp_path / "audit.jsonl"
    assert main(["tasks", "audit", str(rows), "--static", "--out", str(out)]) == 0
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [one["instance_id"] for one in found] == ["one", "two", "?", "three"]
    assert found[2]["kind"] == "broken"
    assert "4 rows" in capsys.readouterr().out


def test_a_row_that_stands_twice_is_taken_once_and_two_of_one_name_are_refused(tmp_path, capsys, raw):
    out = tmp_path / "audit.jsonl"
    rows = write(tmp_path / "rows.jsonl", raw(), raw(instance_id="two"), raw())
    assert main(["tasks", "audit", str(rows), "--static", "--out", str(out)]) == 0
    assert [json.loads(line)["instance_id"] for line in out.read_text().splitlines()] == ["one", "two"]
    write(rows, raw(), raw(hints_text="another"))
    assert main(["tasks", "audit", str(rows), "--static", "--out", str(out), "--resume"]) == 2
    assert "2 different rows with the instance_id 'one'" in " ".join(capsys.readouterr().err.split())


def test_certificates_by_other_rules_and_half_a_file_are_told(tmp_path, caplog, raw):
    old = replace(audit_text(raw()), version=VERSION - 2)
    path = write(tmp_path / "audit.jsonl", audit_text(raw(instance_id="two")).to_json(), old.to_json())
    assert set(read_certificates(path)) == {"one", "two"}
    assert f"1 of 2 certificates are by other rules than these, version {VERSION} (1 of version" in caplog.text
    path.write_text(path.read_text()[:-30])
    with pytest.raises(TaskError, match=r"line 2: not JSON.*interrupted.*--resume goes on"):
        read_certificates(path)
    with pytest.raises(TaskError, match=r"no such file; verigym tasks audit ROWS --out .*nowhere makes certificates$"):
        read_certificates(tmp_path / "nowhere")


def test_a_file_of_stronger_rows_has_the_others_too(tmp_path, monkeypatch, capsys, raw):
    """Else predictions for all rows could not be graded by it."""
    rows = write(tmp_path / "rows.jsonl", *(raw(instance_id=name) for name in ("one", "two", "three")))

    async def made(given, **settings):
        return [Strengthened(task_id=one["instance_id"], row={**one, "strengthened": {}}, num_tests=1) for one in given]

    monkeypatch.setattr("verigym.envs.audit.many.strengthen_rows", made)
    monkeypatch.setattr("verigym.envs.sandbox.choose.make_backend", lambda name: None)
    out = tmp_path / "strong.jsonl"
    assert main(["tasks", "strengthen", str(rows), "--out", str(out), "--limit", "2"]) == 0
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(one["instance_id"], "strengthened" in one) for one in written] == [
        ("one", True), ("two", True), ("three", False)
    ]  # fmt: skip
    assert "2 of 2 rows are stronger" in capsys.readouterr().out


def test_resume_takes_what_is_there_and_makes_the_rest(tmp_path, monkeypatch, raw):
    from verigym.envs.audit.text import static

    rows = write(tmp_path / "rows.jsonl", raw(), raw(instance_id="two"))
    out = tmp_path / "audit.jsonl"
    command = ["tasks", "audit", str(rows), "--static", "--out", str(out)]
    assert main([*command, "--limit", "1"]) == 0
    with out.open("a") as file:
        file.write('{"instance_id": "tw')  # the machine went away here
    made = []
    original = static.audit_text
    monkeypatch.setattr(
        static, "audit_text", lambda one, **more: made.append(one["instance_id"]) or original(one, **more)
    )
    assert main(command) == 2  # there is something
    assert main([*command, "--resume"]) == 0
    assert made == ["two"]
    assert [json.loads(line)["instance_id"] for line in out.read_text().splitlines()] == ["one", "two"]
    write(rows, raw(hints_text="changed"), raw(instance_id="two"))
    assert main([*command, "--resume"]) == 0
    assert made == ["two", "one"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--clones", "nowhere"], "--clones nowhere is no folder"),
        (["--sign-with", "nowhere"], "--sign-with nowhere cannot be read"),
    ],
)
def test_bad_options_get_one_message(tmp_path, capsys, options, told, raw):
    rows = write(tmp_path / "rows.jsonl", raw())
    assert main(["tasks", "audit", str(rows), "--static", "--out", str(tmp_path / "a"), *options]) == 2
    assert told in capsys.readouterr().err


def test_a_file_of_something_else_is_left_alone(tmp_path, capsys, raw):
    rows = write(tmp_path / "rows.jsonl", raw())
    out = write(tmp_path / "notes.jsonl", {"mine": 1})
    assert main(["tasks", "audit", str(rows), "--static", "--out", str(out), "--resume"]) == 2
    assert "is no certificate" in capsys.readouterr().err
    assert json.loads(out.read_text()) == {"mine": 1}


def test_one_audit_at_a_time_writes_a_file(tmp_path, raw, capsys):
    rows, out = write(tmp_path / "rows.jsonl", raw()), tmp_path / "a.jsonl"
    with RunLock(out, is_file=True):
        assert main(["tasks", "audit", str(rows), "--static", "--out", str(out)]) == 2
    assert "in use by another run" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()
    assert main(["tasks", "audit", str(rows), "--static", "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 1
