"""What the page asks, answered from runs that real writers made, also while they are being written."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from verigym.agent.segments import TokenTurn
from verigym.agent.tree import MessageTree, Node
from verigym.envs.runs.lock import RunLock
from verigym.evals.viewer.runs import find_runs
from verigym.model.chat.messages import Message

from .conftest import HOSTILE, PATCH, episode, evaluation, segment


def files_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Everything below a folder: its bytes and when they were written."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def only(client):
    [run] = client("runs")["runs"]
    return run["id"]


def test_the_list_has_every_kind_of_run_with_its_state_and_figures(runs, training, client):
    training(runs / "ended", steps=3)
    training(runs / "deep" / "er" / "live", steps=2, end=False)
    evaluation(runs / "verified", {"astropy-1": (True, False), "django-2": (True, True)})
    (runs / "unrelated").mkdir()
    found = {run["name"]: run for run in client("runs")["runs"]}
    assert found.keys() == {"ended", "deep/er/live", "verified"}
    assert (found["ended"]["kind"], found["ended"]["state"], found["ended"]["step"]) == ("training", "ended", 3)
    assert found["ended"]["recipe"] == "smoke"
    assert found["ended"]["spark"] == pytest.approx([0.375, 0.25, 0.375], abs=0.13)
    assert (found["deep/er/live"]["state"], found["deep/er/live"]["step"]) == ("running", 2)
    assert found["verified"]["kind"] == "evaluation"
    assert found["verified"]["state"] == "stopped"  # its report was never written
    assert found["verified"]["figure"] == {"name": "pass@1", "value": 0.75}


def test_a_run_whose_process_is_gone_has_died_and_one_elsewhere_may_live(runs, training, client):
    one = training(runs / "a", steps=1, end=False)
    lock = one.path / ".lock"
    holder = json.loads(lock.read_text())
    lock.write_text(json.dumps({**holder, "started": "1"}))
    assert client("runs")["runs"][0]["state"] == "died"
    lock.write_text(json.dumps({**holder, "place": "another boot"}))
    assert client("runs")["runs"][0]["state"] == "elsewhere"
    lock.write_text("")
    assert client("runs")["runs"][0]["state"] == "stopped"
    lock.write_text(json.dumps(holder))


def test_episodes_are_filtered_sorted_and_paged(runs, training, client):
    training(runs / "a", steps=5)
    run = only(client)
    every = client("episodes", run=run, limit=500)
    assert every["total"] == len(every["rows"]) == 40
    assert [row["id"] for row in every["rows"]] == list(range(40, 0, -1))
    assert every["rows"][0]["key"] == "rl:5:7"
    page = client("episodes", run=run, limit=3, offset=5)
    assert [row["id"] for row in page["rows"]] == [35, 34, 33]
    passed = client("episodes", run=run, passed="yes", limit=500)
    assert 0 < passed["total"] < 40
    assert all(row["passed"] == 1 for row in passed["rows"])
    assert client("episodes", run=run, family="code")["total"] == 20
    assert client("episodes", run=run, step_min="2", step_max="3")["total"] == 16
    assert client("episodes", run=run, task="TASK-1", stage="rl")["total"] == 20
    assert client("episodes", run=run, reward_min="0.5", family="swe")["total"] == sum(
        row["passed"] == 1 and row["family"] == "swe" for row in every["rows"]
    )
    assert client("episodes", run=run, tokens="yes")["total"] == 20
    rewards = [row["reward"] for row in client("episodes", run=run, sort="reward", down="0", limit=500)["rows"]]
    assert rewards == sorted(rewards)
    facets = client("facets", run=run)
    assert facets["families"] == {"swe": 20, "code": 20}
    assert facets["steps"] == [1, 5]
    assert sum(facets["passed"].values()) == facets["total"] == 40


@pytest.mark.parametrize("asked", [{"sort": "path"}, {"limit": "x"}, {"reward_min": "much"}, {"offset": "-1"}])
def test_what_cannot_be_asked_is_told(runs, training, client, asked):
    training(runs / "a", steps=1)
    assert "error" in client("episodes", run=only(client), status=400, **asked)
    assert "no run" in client("episodes", run="nothing", status=404)["error"]
    assert "no episode" in client("episode", run=only(client), key="rl:9:9", status=404)["error"]


@pytest.mark.parametrize(
    "text", ["1 failed", "pytest -q", "sum(values) - 1", "test_mean", "naïve \u202e ∑", 'quo"te\\']
)
def test_any_text_of_a_conversation_is_found(runs, training, client, text):
    one = training(runs / "a", steps=1, end=False)
    one.step(2, make=lambda **changes: episode(**{**changes, "text": text}))
    found = client("episodes", run=only(client), text=text, limit=500)
    steps = {row["step"] for row in found["rows"]}
    assert found["searched_all"] is True
    assert steps == ({1, 2} if text in ("1 failed", "pytest -q", "sum(values) - 1", "test_mean") else {2})
    assert client("episodes", run=only(client), text="nobody said this")["total"] == 0


def test_groups_have_their_samples_with_advantages(runs, training, client):
    training(runs / "a", steps=2)
    found = client("groups", run=only(client))
    assert found["total"] == 4
    group = found["rows"][0]
    assert (group["step"], group["task"], group["samples"]) == (2, "task-1", 4)
    assert [member[0] for member in group["members"]] == ["rl:2:4", "rl:2:5", "rl:2:6", "rl:2:7"]
    assert [member[3] for member in group["members"]] == [member[1] - 0.5 for member in group["members"]]


def test_an_episode_has_its_conversation_score_and_evidence(runs, training, client):
    training(runs / "a", steps=2)
    one = client("episode", run=only(client), key="rl:1:2")
    assert [message["role"] for message in one["messages"]][:3] == ["system", "user", "assistant"]
    assert one["messages"][2]["calls"][0] == {"name": "bash", "arguments": {"command": "pytest -q"}, "id": None} | {
        name: value for name, value in one["messages"][2]["calls"][0].items() if name not in ("name", "arguments")
    }
    assert one["evidence"]["patch"] == PATCH
    assert one["timings"]["policy"] == 1.0
    assert (one["older"], one["newer"]) == ("rl:1:1", "rl:1:3")
    assert [row["key"] for row in one["group"]] == ["rl:1:0", "rl:1:1", "rl:1:2", "rl:1:3"]
    assert one["again"] == f"verigym rollout verigym/SWE-v0 --data {runs / 'a/tasks/swe.train.jsonl'} --task task-0"


def test_tokens_have_every_column_that_was_kept(runs, training, client):
    training(runs / "a", steps=2)
    [one] = client("tokens", run=only(client), key="rl:2:1")["segments"]
    assert one["token_ids"] == list(range(100, 108))
    assert one["text"][0] == " t100"
    assert one["loss_mask"] == [0] * 4 + [1] * 4
    assert one["logprobs"] == [None] * 4 + [-0.25, -0.5, -0.75, -1.0]
    for name in ("trainer_logprobs", "entropy", "advantage", "ratio", "clipped", "correction"):
        assert one[name] == [None] * 4 + [0.5] * 4
    assert client("tokens", run=only(client), key="rl:2:6")["segments"] == []


def test_branches_are_a_tree_in_words_and_in_tokens(runs, client):
    def node(parent, text, ids, trained):
        turn = TokenTurn(
            prompt_ids=(), prompt_roles=(), token_ids=ids, logprobs=(-0.5,) * len(ids), policy_version=(1,) * len(ids)
        )
        role = "assistant" if trained else "user"
        return Node(
            parent=parent,
            messages=(Message(role=role, content=text),),
            token_ids=turn.token_ids,
            roles=(role,) * len(ids),
            logprobs=(-0.5 if trained else float("nan"),) * len(ids),
            policy_version=(1 if trained else -1,) * len(ids),
            trained=trained,
        )

    tree = MessageTree(
        (node(-1, "ask", (1, 2, 3), False), node(0, "one way", (4, 5), True), node(0, "another", (6,), True))
    )
    one = replace(episode(), tree=tree, segments=tree.segments(), messages=tree.messages((0, 2)))
    (runs / "tree").mkdir(parents=True)
    (runs / "tree" / "trajectories.jsonl").write_text(json.dumps({"index": 0, **one.to_json()}) + "\n")
    run = only(client)
    found = client("episode", run=run, key="0:calc-1")
    assert [(node["parent"], node["messages"][0]["content"]) for node in found["branches"]] == [
        (-1, "ask"),
        (0, "one way"),
        (0, "another"),
    ]
    first, second = client("tokens", run=run, key="0:calc-1")["segments"]
    assert (first["parent"], second["parent"], second["shared"]) == (None, 0, 3)
    assert client("episodes", run=run)["rows"][0]["sampled"] == 3


def test_curves_come_in_columns_and_what_differs_between_recipes(runs, training, client):
    training(runs / "a", steps=3)
    training(runs / "b", steps=2, recipe="stages")
    found = {run["name"]: run["id"] for run in client("runs")["runs"]}
    [stage] = client("metrics", run=found["a"])["stages"]
    assert stage["columns"]["step"] == [1, 2, 3]
    assert stage["columns"]["tokens"] == [1000, 2000, 3000]
    assert stage["columns"]["trainer/loss/mean"] == pytest.approx([1, 1 / 2, 1 / 3])
    rows = {row["key"]: row["values"] for row in client("differences", runs=f"{found['a']},{found['b']}")["rows"]}
    assert rows["name"] == {found["a"]: "smoke", found["b"]: "stages"}
    assert "seed" not in rows
    assert "no stage" in client("metrics", run=found["a"], stage="../b", status=400)["error"]


def test_two_evaluations_are_compared_task_by_task(runs, client):
    evaluation(runs / "a", {"astropy-1": (True, False), "django-1": (False,), "django-2": (False,), "sympy-3": (None,)})
    evaluation(runs / "b", {"astropy-1": (True, True), "django-1": (False,), "django-2": (True,), "flask-1": (True,)})
    found = {run["name"]: run["id"] for run in client("runs")["runs"]}
    summary = client("evaluation", run=found["a"])
    assert summary["summary"]["pass@1"] == pytest.approx(0.5 / 3)
    assert summary["summary"]["num_infrastructure_failures"] == 1
    assert summary["breakdown"]["repo"]["django"]["n"] == 2
    compared = client("compare", first=found["a"], second=found["b"])
    assert (compared["shared"], compared["difference"]["num_better"], compared["difference"]["num_worse"]) == (3, 2, 0)
    assert compared["difference"]["p_value"] == 0.5
    assert [row["task"] for row in compared["flipped"]] == ["django-2", "astropy-1"]
    assert client("compare", first=found["a"], second=found["a"])["flipped"] == []


def test_an_evaluation_without_trajectories_has_its_verdicts(runs, client):
    evaluation(runs / "a", {"astropy-1": (True, None)}, trajectories=False)
    rows = client("episodes", run=only(client), sort="task")["rows"]
    assert [(row["key"], row["passed"], row["label"]) for row in rows] == [
        ("1:astropy-1", None, "astropy"),
        ("0:astropy-1", 1, "astropy"),
    ]
    one = client("episode", run=only(client), key="0:astropy-1")
    assert one["messages"] is None
    assert one["breakdown"]["fail_to_pass"] == 1.0


def test_with_trajectories_a_row_knows_both_and_a_sample_taken_again_counts_once(runs, client):
    evaluation(runs / "a", {"astropy-1": (None,)})
    run = only(client)
    [row] = client("episodes", run=run)["rows"]
    assert (row["passed"], row["label"], row["has_messages"], row["has_tokens"]) == (None, "astropy", 1, 1)
    evaluation(runs / "a", {"astropy-1": (True,)})
    [row] = client("episodes", run=run)["rows"]
    assert (row["passed"], row["ending"], row["label"]) == (1, "submitted", "astropy")
    assert client("episode", run=run, key="0:astropy-1")["messages"][-1]["content"] == "Done."
    assert client("tokens", run=run, key="0:astropy-1")["segments"][0]["logprobs"][-1] == -1.0
    summary = client("evaluation", run=run)["summary"]
    assert (summary["num_predictions"], summary["pass@1"]) == (1, 1.0)


def test_what_is_written_meanwhile_is_seen_and_what_a_resume_cuts_is_gone(runs, training, client):
    one = training(runs / "a", steps=2, end=False)
    run = only(client)
    assert client("episodes", run=run)["total"] == 16
    before = client("poll", run=run)
    one.step(3)
    after = client("poll", run=run)
    assert after["episodes"] > before["episodes"]
    assert after["metrics"] > before["metrics"]
    assert client("episodes", run=run)["total"] == 24
    part = one.path / "rl" / "episodes" / "000001.jsonl"
    lines = part.read_bytes().splitlines(keepends=True)
    with part.open("r+b") as file:  # as a resume from step 1 does, which then makes step 2 anew
        file.truncate(sum(map(len, lines[:8])))
        file.seek(0, os.SEEK_END)
        for line in lines[8:16]:
            file.write(line.replace(b'"detail": "', b'"detail": "again: '))
    rows = client("episodes", run=run, limit=500)["rows"]
    assert len(rows) == 16
    assert all(row["detail"].startswith("again: ") == (row["step"] == 2) for row in rows)
    with part.open("ab") as file:
        file.write(b'{"step": 4, "ind')  # a line that is being written is not one yet
    assert client("episodes", run=run)["total"] == 16
    part.unlink()
    assert client("episodes", run=run)["total"] == 0


def test_lines_that_are_none_do_not_hide_the_others(runs, training, client):
    one = training(runs / "a", steps=1)
    part = one.path / "rl" / "episodes" / "000001.jsonl"
    whole = part.read_bytes()
    part.write_bytes(b"rubbish\n[1]\n{}\n" + b'{"step": "x"}\n' + b"\xff\xfe\n" + whole)
    with (one.path / "rl" / "metrics.jsonl").open("a") as file:
        file.write('oops\n[3]\n{"step": 2, "trainer/loss/mean": 0.5}\n')
    run = only(client)
    assert client("episodes", run=run)["total"] == 8
    assert client("metrics", run=run)["stages"][0]["columns"]["step"] == [1, 2]


def test_a_run_is_only_read(runs, training, client):
    training(runs / "a", steps=2)
    evaluation(runs / "b", {"astropy-1": (True,)})
    before = files_of(runs)
    for run in (run["id"] for run in client("runs")["runs"]):
        for name in ("run", "overview", "metrics", "poll", "episodes", "groups", "facets"):
            client(name, run=run)
        key = client("episodes", run=run)["rows"][0]["key"]
        client("episode", run=run, key=key)
        client("tokens", run=run, key=key)
        client("episodes", run=run, text="x")
    assert files_of(runs) == before


def test_nothing_is_held_that_a_run_wants(runs, training, client):
    training(runs / "a", steps=1)
    client("runs")
    with RunLock(runs / "a"):  # a resume is not kept out
        assert client("runs")["runs"][0]["state"] == "running"


def test_hostile_texts_leave_as_text(runs, training, client):
    def make(**changes):
        one = episode(**{**changes, "text": HOSTILE})
        return replace(
            one,
            task_id=HOSTILE,
            detail=HOSTILE,
            breakdown={HOSTILE: 1.0},
            evidence={"patch": HOSTILE, "tests": {HOSTILE: HOSTILE}},
        )

    training(runs / "a", steps=1, make=make)
    run = only(client)
    for name in ("run", "overview", "episodes", "groups", "facets"):
        response = client.http.get(f"/api/{name}", params={"run": run})
        assert response.status_code == 200
    key = client("episodes", run=run)["rows"][0]["key"]
    response = client.http.get("/api/episode", params={"run": run, "key": key})
    text = response.content.decode("utf-8")
    assert response.headers["content-type"] == "application/json"
    assert not any(ord(char) < 32 for char in text)
    for char in ("\x1b", "\u202e", "\ud800", "\x00", "\\u001b", "\\u0000"):
        assert char not in text
    one = response.json()
    assert "\\x1b[2J" in one["messages"][1]["content"]
    assert "\\ud800" in one["task"]
    assert "\\u202e" in one["detail"]


def test_headers_forbid_what_the_page_does_not_need(client, runs):
    runs.mkdir()
    for path in ("/", "/app.js", "/style.css", "/api/runs", "/vendor/uplot/uPlot.esm.js", "/nothing", "/api/nothing"):
        response = client.http.get(path)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in response.headers
    assert client.http.get("/nothing").status_code == 404
    for host in ("evil.example", "localhost.evil.example", "testserver", "127.0.0.1.nip.io"):
        assert client.http.get("/api/runs", headers={"host": host}).status_code == 400
    assert client.http.get("/api/runs", headers={"host": "localhost:7654"}).status_code == 200
    assert client.http.post("/api/runs").status_code == 405


@pytest.mark.parametrize(
    "path", ["/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "//etc/passwd", "/vendor/../../cli.py"]
)
def test_no_other_file_is_served(client, runs, path):
    runs.mkdir()
    assert client.http.get(path).status_code == 404


def test_the_page_has_no_markup_from_texts_and_no_address_elsewhere():
    folder = Path(__file__).parents[4] / "evals" / "viewer" / "page"
    for path in folder.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "DOMParser",
        ):
            assert word not in text, (path.name, word)
    for path in [*folder.glob("*"), folder / "vendor" / "uplot" / "uPlot.min.css"]:
        if path.is_file() and path.suffix != ".svg":
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert "http://" not in text, path.name
            assert "https://" not in text, path.name


def test_links_are_not_followed_out_of_the_folders(tmp_path, training):
    training(tmp_path / "elsewhere" / "secret", steps=1)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    assert find_runs([tmp_path / "runs"]) == []


def test_a_damaged_index_is_made_anew_and_a_second_server_makes_its_own(runs, training, tmp_path, client):
    training(runs / "a", steps=1)
    run = only(client)
    assert client("episodes", run=run)["total"] == 8
    code = (
        "import sys, pathlib\nfrom starlette.testclient import TestClient\n"
        "from verigym.evals.viewer.app import make_app\n"
        "root, cache = map(pathlib.Path, sys.argv[1:])\n"
        "http = TestClient(make_app([root], cache=lambda: cache, fresh_s=20.0), base_url='http://localhost')\n"
        "run = http.get('/api/runs').json()['runs'][0]['id']\n"
        "print(http.get('/api/episodes', params={'run': run}).json()['total'])"
    )
    command = [sys.executable, "-c", code, str(runs), str(tmp_path / "cache")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "8\n"
    (tmp_path / "other").mkdir()
    for path in (tmp_path / "cache").glob("*.sqlite"):
        (tmp_path / "other" / path.name).write_bytes(b"no database at all" * 100)
    command[-1] = str(tmp_path / "other")
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "8\n"


def test_segments_of_the_corpus_are_what_is_said():
    assert segment().num_sampled == 4
