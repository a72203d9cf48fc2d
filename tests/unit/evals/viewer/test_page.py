"""The page of a run's episodes, read as a browser reads it."""

import json
from html.parser import HTMLParser

import pytest

from verigym.__main__ import main
from verigym.agent.trajectory import Segment, Trajectory
from verigym.evals.viewer import page as pages
from verigym.model.chat.messages import Message, ToolCall

NAN = float("nan")
HOSTILE = (
    "</pre></td><script>alert(1)</script><img src=x onerror=alert(2)> \" ' onmouseover=x & &lt; \x1b[2J\ud800 \u202e"
)
SAFE = (
    "</pre></td><script>alert(1)</script><img src=x onerror=alert(2)> \" ' onmouseover=x & &lt; \\x1b[2J\\ud800 \\u202e"
)
VOID = {"meta"}
KNOWN = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "section", "span", "table", "tr", "th", "td"}
KNOWN |= {"details", "summary", "div", "pre", "b", "p", "i"}


class Reader(HTMLParser):
    """What a page is made of; a tag that closes another one is an error."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.attributes, self.texts = [], [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)


def shown(*rows):
    return "".join(pages.page("run", rows))


def episode(**changes):
    segment = Segment(
        token_ids=(5, 6, 7, 8),
        loss_mask=(False, False, True, True),
        logprobs=(NAN, NAN, -0.25, -2.0),
        policy_version=(-1, -1, 3, 4),
        roles=("user", "tool", "assistant", "assistant"),
    )
    fields = {
        "task_id": "a__b-1",
        "family": "swe",
        "ending": "submitted",
        "segments": (segment,),
        "messages": (
            Message(role="user", content="Mend it."),
            Message(
                role="assistant",
                content="",
                thinking="hm",
                calls=(ToolCall(name="bash", arguments={"command": "ls\nls", "n": 3}),),
            ),
            Message(role="tool", content="calc.py\n", name="bash"),
            Message(role="assistant", content="Done."),
        ),
        "reward": 1.0,
        "passed": True,
        "breakdown": {"resolved": 1.0},
        "detail": "all tests passed",
        "num_turns": 2,
        "timings": {"total": 1.5},
    }
    return Trajectory(**{**fields, **changes})


def test_an_episode_is_told():
    reader = Reader(shown({**episode().to_json(), "index": 2}))
    assert "".join(reader.texts["h2"] + reader.texts["span"]) == "a__b-1, sample 2"
    facts = dict(zip(reader.texts["th"], reader.texts["td"]))
    assert facts["ended"] == "submitted, reward 1"
    assert (facts["parts"], facts["detail"]) == ("resolved 1", "all tests passed")
    assert reader.texts["pre"] == ["Mend it.", "hm", "ls\nls", "3", "calc.py\n", "Done."]
    assert reader.texts["b"] == ["bash"]
    assert [text for text in reader.texts["div"] if text.startswith(("assistant", "tool", "user"))] == [
        "user",
        "assistant, turn 1",
        "tool bash",
        "assistant, turn 2",
    ]
    assert reader.texts["i"] == ["5", "6", "7", "8"]
    titles = [value for tag, name, value in reader.attributes if (tag, name) == ("i", "title")]
    told = ["assistant, log-probability -0.2500, version 3", "assistant, log-probability -2.0000, version 4"]
    assert titles == ["user", "tool", *told]
    shades = [value for tag, name, value in reader.attributes if (tag, name) == ("i", "style")]
    assert shades == ["--u:0.05", "--u:0.40"]
    assert "segment 1: 4 tokens, 2 in the loss, mean log-probability -1.125" in reader.texts["summary"]


def test_nothing_that_an_episode_holds_is_more_than_text():
    message = Message(role="tool", content=HOSTILE, thinking=HOSTILE, name=HOSTILE)
    call = Message(role="assistant", content=HOSTILE, calls=(ToolCall(name=HOSTILE, arguments={HOSTILE: HOSTILE}),))
    one = episode(task_id=HOSTILE, detail=HOSTILE, breakdown={HOSTILE: 1.0}, timings={HOSTILE: 1.0})
    row = json.loads(json.dumps(one.to_json()))
    row["messages"] = [
        json.loads(json.dumps(m)) for m in (Trajectory.to_json(episode(messages=(message, call))))["messages"]
    ]
    row["messages"][0]["role"] = row["ending"] = HOSTILE
    row["segments"][0]["roles"][0] = HOSTILE
    text = "".join(pages.page(HOSTILE, [row]))
    text.encode("utf-8")  # no lone surrogate is left
    reader = Reader(text)
    assert set(reader.tags) <= KNOWN
    assert {name for _, name, _ in reader.attributes} <= {
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "class",
        "title",
        "style",
    }
    assert ("meta", "content", pages.POLICY) in reader.attributes
    assert "script" not in pages.POLICY
    assert not any(ord(char) < 32 and char not in "\n\t" for char in text)
    assert reader.texts["title"] == [SAFE]
    assert reader.texts["pre"].count(SAFE) == 4
    found = {tag: sum(SAFE in data for data in texts) for tag, texts in reader.texts.items()}
    wanted = {"title": 1, "h1": 1, "h2": 1, "td": 4, "div": 1, "pre": 4, "b": 1, "th": 1}
    assert {tag: count for tag, count in found.items() if count} == wanted


def test_what_is_long_is_cut_and_says_so(monkeypatch):
    monkeypatch.setattr(pages, "MAX_CHARS", 10)
    monkeypatch.setattr(pages, "MAX_TOKENS", 3)
    reader = Reader(shown(episode(messages=(Message(role="user", content="0123456789abc"),)).to_json()))
    assert reader.texts["pre"] == ["01234\n[… 3 characters left out …]\n89abc"]
    assert reader.texts["i"] == ["5", "6", "7"]
    assert " … 1 more" in reader.texts["p"]


def test_failures_have_no_reward_and_text_policies_no_tokens():
    one = episode(ending="sandbox_failure", reward=None, passed=None, segments=(), messages=())
    reader = Reader(shown(one.to_json(), one.to_json()))
    assert reader.texts["td"].count("sandbox_failure, no reward") == 2
    assert "i" not in reader.tags
    assert "2 episodes." in reader.texts["p"]


def test_the_command(tmp_path, capsys):
    with (tmp_path / "trajectories.jsonl").open("w") as out:
        for index in range(3):
            out.write(json.dumps({"index": index, **episode().to_json()}) + "\n")
    assert main(["view", str(tmp_path), "--limit", "2", "--html", str(tmp_path / "view.html")]) == 0
    assert Reader((tmp_path / "view.html").read_text(encoding="utf-8")).tags.count("section") == 2
    assert main(["view", str(tmp_path / "trajectories.jsonl"), "--html", str(tmp_path / "page.html")]) == 0
    assert Reader((tmp_path / "page.html").read_text(encoding="utf-8")).tags.count("section") == 3
    assert "wrote" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (None, "has no episodes to write"),
        ('{"task_id": "a"}\n', "does not hold episodes"),
        ("oops\n", "line 1: not JSON"),
    ],
)
def test_what_cannot_be_shown_is_one_message(tmp_path, capsys, rows, told):
    if rows is not None:
        (tmp_path / "trajectories.jsonl").write_text(rows)
    assert main(["view", str(tmp_path), "--html", str(tmp_path / "view.html")]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("view*"))
