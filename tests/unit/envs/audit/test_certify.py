"""Rows with a fault that was planted are set apart, and a sound one is certified."""

import json
import os
import subprocess
import tarfile
import time

import pytest

from verigym.__main__ import main
from verigym.envs.audit.certificate import Certificate
from verigym.envs.audit.certify import Demand, with_gradings
from verigym.envs.audit.text.static import audit_text
from verigym.envs.datasets.swe import pack_repository
from verigym.envs.datasets.swe_examples import unified
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.sandbox.python import cache_folder
from verigym.envs.synthesis.validate import Check
from verigym.errors import SandboxError

BASE = "def fee(days):\n    if days > 30:\n        return 5 * (days - 30)\n    return 0\n"
GOLD = BASE.replace("if days > 30:", "if days >= 30:").replace("5 * (days - 30)", "5 * (days - 29)")
VISIBLE = "from fees import fee\n\n\ndef test_none():\n    assert fee(0) == 0\n"
HIDDEN = VISIBLE + "\n\ndef test_fee():\n    assert [fee(days) for days in (29, 30, 31, 45)] == [0, 5, 10, 80]\n"
STATEMENT = (
    "fee charges from the 31st day on\nThe 30th day should cost a fee of 5 already: fee(30) must be 5, fee(31) 10."
)
LATER = "\n\ndef test_year():\n    import time\n\n    assert time.time() < {soon}\n    assert fee(30) == 5\n"
ROWS = {
    "sound": (GOLD, HIDDEN),
    "gold fails": (GOLD.replace("29", "28"), HIDDEN),
    "empty passes": (GOLD, VISIBLE + "\n\ndef test_fee():\n    assert fee(31) > 0\n"),
    "flaky": (GOLD, HIDDEN + LATER),
    "in history": (GOLD, HIDDEN),
}
WANTED = {"gold fails": "broken", "empty passes": "broken", "flaky": "flaky", "in history": "leaky"}


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """A cache without earlier audits; Python environments are those that there are."""
    folder = tmp_path_factory.mktemp("cache")
    shared = cache_folder() / "python"
    shared.mkdir(parents=True, exist_ok=True)
    (folder / "python").symlink_to(shared)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERIGYM_CACHE", str(folder))
        yield folder


def with_a_past(tree, archive):
    """The repository with a commit that held the fix, and one that took it back."""
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]}
    who = {f"GIT_{one}_{what}": "me" for one in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def git(*words):
        return subprocess.run(["git", *words], cwd=tree, env={**quiet, **who}, capture_output=True, check=True).stdout

    git("init", "-q")
    for text in (GOLD, BASE):
        (tree / "fees.py").write_text(text)
        git("add", ".")
        git("commit", "-qm", "fees")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tree, arcname=".")
    return git("rev-parse", "HEAD").decode().strip()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The file of the rows, and a key."""
    folder = tmp_path_factory.mktemp("rows")
    (folder / "a.archives").mkdir()
    found = []
    for name, (gold, tests) in ROWS.items():
        archive = f"a.archives/{name}.tar.gz"
        tests = tests.replace("{soon}", str(int(time.time()) + 86_400))
        tree = folder / name
        tree.mkdir()
        (tree / "fees.py").write_text(BASE)
        (tree / "test_fees.py").write_text(VISIBLE)
        commit = (with_a_past if name == "in history" else pack_repository)(tree, folder / archive)
        failing = [f"test_fees.py::{test}" for test in ("test_fee", "test_year") if f"def {test}(" in tests]
        found.append(
            {
                "instance_id": name,
                "repo": "me/fees",
                "base_commit": commit,
                "problem_statement": STATEMENT,
                "patch": unified("fees.py", BASE, gold),
                "test_patch": unified("test_fees.py", VISIBLE, tests),
                "FAIL_TO_PASS": failing,
                "PASS_TO_PASS": ["test_fees.py::test_none"],
                "archive": archive,
            }
        )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*found, {"nonsense": 1}]))
    (folder / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found[:2]))
    (folder / "key").write_bytes(b"0123456789abcdef")
    return folder / "rows.jsonl", folder / "key"


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def certify(rows, key, out, *options):
    """The command with as much work as a test has time for."""
    try:
        make_backend("local")
    except SandboxError as error:
        pytest.skip(f"no local sandbox: {error}")
    command = ["tasks", "certify", str(rows), "--out", str(out), "--sign-with", str(key), "--sandbox", "local"]
    return main([*command, "--times", "2", "--mutants", "4", "--notes", "2", *options])


@pytest.fixture(scope="module")
def certified(source, tmp_path_factory):
    """What the command wrote of a sound row and of one whose gold fails."""
    rows, key = source
    out = tmp_path_factory.mktemp("out") / "good.jsonl"
    assert certify(rows.with_name("two.jsonl"), key, out) == 0
    return out


def apart(out):
    return {row.get("instance_id", "?"): row["quarantined"] for row in read(out.with_suffix(".quarantine.jsonl"))}


def test_a_row_that_holds_is_kept_and_one_that_does_not_is_set_apart(certified):
    assert [row["instance_id"] for row in read(certified)] == ["sound"]
    assert "the reference fails test_fees.py::test_fee" in apart(certified)["gold fails"]


@pytest.mark.slow
def test_each_planted_fault_is_set_apart_with_its_reason(source, tmp_path):
    rows, key = source
    out = tmp_path / "good.jsonl"
    assert certify(rows, key, out) == 0
    assert [row["instance_id"] for row in read(out)] == ["sound"]
    reasons = apart(out)
    assert {name: reason.partition(":")[0] for name, reason in reasons.items()} == {**WANTED, "?": "broken"}
    assert "pass without the reference" in reasons["empty passes"]
    assert any(word in reasons["flaky"] for word in ("years ago", "later", "leap day", "Sunday"))
    found = {one["instance_id"]: one for one in read(out.with_suffix(".audit.jsonl"))}
    assert found["in history"]["measured"]["leaks"]["found"] == 1


def test_a_certificate_says_what_was_run(certified):
    found = {one["instance_id"]: one for one in read(certified.with_suffix(".audit.jsonl"))}
    assert set(found) == {"sound", "gold fails"}
    measured = found["sound"]["measured"]
    assert measured["graded"] == {"times": 2, "gold": "1 1", "empty": "0 0", "set_aside": []}
    assert {"shuffled", "on a busy machine (one)", "on the next leap day at 00:02"} <= set(measured["runs"]["manners"])
    assert measured["mutants"]["tried"] - measured["mutants"]["resolved"] > 0
    assert measured["network"] is False
    assert measured["leaks"] == {"lines": 1, "found": 0, "searched": True, "all_of_git": True}


def test_resume_does_nothing_again_and_check_finds_all_as_it_was(certified, source, monkeypatch, capsys):
    from verigym.envs.audit import certify as certifying
    from verigym.envs.audit import many

    rows, key = source
    out, rows = certified, rows.with_name("two.jsonl")
    before = out.read_bytes(), out.with_suffix(".audit.jsonl").read_bytes()
    assert certify(rows, key, out) == 2
    assert "go on with --resume" in capsys.readouterr().err

    async def never(*anything, **more):
        raise AssertionError("it was done already")

    monkeypatch.setattr(certifying, "check_task", never)
    monkeypatch.setattr(many, "measure", never)
    assert certify(rows, key, out, "--resume") == 0
    assert (out.read_bytes(), out.with_suffix(".audit.jsonl").read_bytes()) == before
    check = ["tasks", "certify", str(out), "--check", "--times", "2"]
    assert main([*check, "--sign-with", str(key)]) == 0
    assert main([*check[:-1], "3", "--sign-with", str(key)]) == 1
    assert main(check) == 1  # the key of this user is another one
    assert "signed with another key" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["row", "certificate", "archive"])
def test_what_was_changed_since_is_found(certified, source, tmp_path, capsys, what):
    out = certified
    (row,) = read(out)
    certificates = read(out.with_suffix(".audit.jsonl"))
    archive = tmp_path / row["archive"]
    archive.parent.mkdir()
    archive.write_bytes((out.parent / row["archive"]).read_bytes())
    told = {"row": "of this row as it stands", "certificate": "changed since", "archive": "another one"}[what]
    if what == "row":
        row["test_patch"] += "\n"
    elif what == "archive":
        archive.write_bytes(archive.read_bytes() + b"more")
    else:
        certificates[0]["measured"]["graded"]["times"] = 9
    (tmp_path / "good.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "good.audit.jsonl").write_text("".join(json.dumps(one) + "\n" for one in certificates))
    check = ["tasks", "certify", str(tmp_path / "good.jsonl"), "--check", "--times", "2"]
    assert main([*check, "--sign-with", str(source[1])]) == 1
    assert told in capsys.readouterr().out


def certificate(**more):
    raw = {"instance_id": "a", "problem_statement": "It breaks.", "patch": "", "FAIL_TO_PASS": ["t.py::t"]}
    measured = {"leaks": {"lines": 2, "found": 0, "searched": True}, "network": False, "graded": {"times": 3}}
    one = audit_text(raw).to_json()
    return Certificate.from_json({**one, "problem": "", "kind": "sound", "measured": measured, **more})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"kind": "weak"}, "weak"),
        ({"kind": "flaky"}, "flaky"),
        ({"problem": "nothing could be run: no sandbox"}, "not run"),
        ({"measured": {"leaks": {"lines": 1, "found": 1, "searched": True}, "network": False}}, "leaky"),
        ({"measured": {"leaks": {"lines": 1, "found": 0, "searched": False}, "network": False}}, "not run"),
        ({"measured": {"leaks": {"lines": 1, "found": 0, "searched": True}, "network": True}}, "not run"),
        ({"measured": {"leaks": {"lines": 0, "found": 0, "searched": True}, "network": False}}, "not run"),
    ],
)
def test_a_row_is_certified_only_with_all_that_is_asked(changes, reason):
    one = certificate(**changes)
    assert Demand().refusal(one).partition(":")[0] == reason
    if changes.get("kind"):
        assert bool(Demand(accept=frozenset({"weak"})).refusal(one)) == (changes["kind"] != "weak")


@pytest.mark.parametrize(
    ("golds", "empties", "problem", "set_aside", "kind"),
    [
        ("1 1 1", "0 0 0", "", (), "sound"),
        ("1 0 1", "0 0 0", "flaky: t.py::t", (), "flaky"),
        ("1 1 1", "0 0 0", "", ("t.py::other",), "flaky"),
        ("0 0 0", "0 0 0", "gold is not 1: t.py::t", (), "broken"),
        ("1 1 1", "1 1 1", "empty is not 0", (), "broken"),
    ],
)
def test_gradings_that_do_not_hold_change_the_class(golds, empties, problem, set_aside, kind):
    check = Check(task_id="a", row={}, golds=golds, empties=empties, problem=problem, quarantined=set_aside)
    found = with_gradings(certificate(), check, times=3, archive="")
    assert found.kind == kind
    assert bool(Demand().refusal(found)) == (kind != "sound")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--out", "{rows}"], "is the file of the rows"),
        ([], "needs --out FILE"),
        (["--out", "{folder}/x.jsonl", "--sandbox", "unsafe"], "hides nothing"),
        (["--out", "{folder}/x.jsonl", "--sign-with", "nowhere"], "--sign-with nowhere cannot be read"),
    ],
)
def test_bad_options_get_one_message(source, capsys, options, told):
    rows = source[0]
    options = [one.format(rows=rows, folder=rows.parent) for one in options]
    assert main(["tasks", "certify", str(rows), *options]) == 2
    assert told in capsys.readouterr().err


def test_the_key_of_a_user_is_made_once_and_is_the_users_alone(own_cache, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"instance_id": "a"}\n')
    (tmp_path / "a.audit.jsonl").write_text("{}\n")
    assert main(["tasks", "certify", str(tmp_path / "a.jsonl"), "--check"]) == 1
    key = own_cache / "certify.key"
    first = key.read_bytes()
    assert len(first) == 32
    assert key.stat().st_mode & 0o777 == 0o600
    assert main(["tasks", "certify", str(tmp_path / "a.jsonl"), "--check"]) == 1
    assert key.read_bytes() == first
