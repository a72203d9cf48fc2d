"""A policy asked about rows: what it says is kept beside the scores."""

import json

import pytest

from verigym.__main__ import main

GOOD = "Narrow: 3\n- underspecified: 1\nbecause: the message is nowhere told"


@pytest.fixture
def raw(row):
    return row("load takes empty paths\nIt should raise a ValueError instead.").model_dump(mode="json")


@pytest.fixture
def audit(tmp_path, raw, scripted_server):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "audit.jsonl"
    rows.write_text(json.dumps(raw) + "\n" + json.dumps({**raw, "instance_id": "two", "problem_statement": ""}) + "\n")

    def run(*options):
        assert main(["tasks", "audit", str(rows), "--out", str(out), "--static", *options]) == 0
        return [json.loads(line) for line in out.read_text().splitlines()]

    return run


def test_a_judge_reads_statement_reference_and_tests(audit, scripted_server, raw):
    scripted_server.answer = lambda asked, prompt: GOOD
    plain = audit()
    one, broken = audit("--judge", scripted_server.policy, "--resume")
    said = one["asked"]["judge"]
    assert (said["narrow"], said["underspecified"], said["because"]) == (1.0, 0.3333, "the message is nowhere told")
    assert said["policy"] == scripted_server.policy
    assert (one["scores"], one["kind"]) == (plain[0]["scores"], plain[0]["kind"])
    assert broken["asked"] == {}
    (body,) = scripted_server.asked
    for part in (raw["problem_statement"], raw["patch"], raw["test_patch"]):
        assert part in body["messages"][-1]["content"]
    audit("--judge", scripted_server.policy, "--resume")
    assert len(scripted_server.asked) == 1


def test_an_answer_of_another_form_is_a_problem_and_asked_for_again(audit, scripted_server):
    scripted_server.answer = lambda asked, prompt: "It is fine."
    one, _ = audit("--judge", scripted_server.policy)
    assert "no line 'narrow: NUMBER'" in one["asked"]["judge"]["problem"]
    scripted_server.answer = lambda asked, prompt: GOOD
    one, _ = audit("--judge", scripted_server.policy, "--resume")
    assert one["asked"]["judge"]["narrow"] == 1.0


def test_memory_is_the_share_of_the_references_lines_written_unseen(audit, scripted_server, raw):
    line = 'raise ValueError("no path was given")'
    scripted_server.answer = lambda asked, prompt: f"```python\n+    {line}\n```"
    one, _ = audit("--memory", scripted_server.policy)
    said = one["asked"]["memory"]
    assert said["lines"] == [line]
    assert (said["share"], said["asked"]) == (0.5, 2)  # what base holds already is not asked for
    prompt = scripted_server.asked[0]["messages"][-1]["content"]
    assert raw["problem_statement"] in prompt
    assert line not in prompt
    assert raw["test_patch"] not in prompt
