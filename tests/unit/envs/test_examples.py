"""The environments of examples/: what each must hold, and transcripts whose scores were worked out by hand."""

import asyncio
import importlib.util
from pathlib import Path

import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, Turn, play
from verigym.agent.speakers import Seat
from verigym.envs.registry import check
from verigym.errors import SandboxError
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Sampling

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "environments"
CLASSES = {
    "wordle": "Wordle",
    "sql": "Sql",
    "retail": "Retail",
    "search": "Search",
    "tictactoe": "TicTacToe",
    "gsm8k": "Gsm8k",
}


def module(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_every_example_is_tried():
    assert sorted(file.stem for file in FOLDER.glob("*.py")) == sorted(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_it_holds_what_every_environment_must(name, monkeypatch):
    monkeypatch.setattr(check, "NUM_EPISODES", 3)
    monkeypatch.setattr(check, "NUM_AT_ONCE", 4)
    make = getattr(module(name), CLASSES[name])
    findings = asyncio.run(check.check_environment(make, make().load()))
    if any("no sandbox works" in one.told for one in findings):
        pytest.skip("no sandbox works here")
    assert [one for one in findings if not one.passed] == []


class Says:
    def __init__(self, *texts):
        self.texts = list(texts)

    async def respond(self, conversation, tools, sampling):
        text = self.texts.pop(0)
        return Turn(message=Message(role="assistant", content=text), action=text)


def act(name, **arguments):
    return Message(role="assistant", content="", calls=(ToolCall(name=name, arguments=arguments),))


def episode(name, task_id, said, **models):
    env = getattr(module(name), CLASSES[name])()
    task = next(one for one in env.load() if one.id == task_id)
    messages = [one if isinstance(one, Message) else Message(role="assistant", content=one) for one in said]
    seats = {seat: Seat(policy=policy) for seat, policy in models.items()}
    policy = ScriptedPolicy(play(messages))
    return asyncio.run(rollout(env, policy, task, budget=Budget(), sampling=Sampling(), seats=seats))


@pytest.mark.parametrize(
    ("guess", "secret", "marks"),
    [
        ("speed", "abide", "XXYXY"),  # one e of two, and the d elsewhere
        ("allee", "apple", "GYXXG"),
        ("llama", "lemon", "GXXYX"),
        ("apple", "apple", "GGGGG"),
        ("eerie", "eagle", "GXXXG"),
    ],
)
def test_wordle_marks_letters_as_the_game_does(guess, secret, marks):
    assert module("wordle").colors(guess, secret) == marks


def test_wordle_scores_a_transcript():
    found = episode("wordle", "lemon", ["is it mango?", "lemons", "Lemon"])
    assert [one.content for one in found.messages if one.role == "user"][1:] == [
        "YXYXY",
        "that is no word of five letters",
        "GGGGG",
    ]
    assert (found.reward, found.passed) == (1.0, True)
    lost = episode("wordle", "lemon", ["mango"] * 5 + ["melon"])
    assert (lost.reward, lost.passed, lost.num_turns) == (pytest.approx((3 + 2 / 2) / 5), False, 6)


def test_sql_asks_a_real_database():
    found = episode(
        "sql",
        "cherry-0",
        [
            act("query", sql="SELECT price FROM fruits"),
            act("query", sql="SELECT price FROM fruit WHERE name='cherry'"),
            "9",
        ],
    )
    assert [one.content for one in found.messages if one.role == "tool"] == ["error: no such table: fruits", "9"]
    assert found.reward == 1.0
    harm = episode("sql", "cherry-0", [act("query", sql="DELETE FROM fruit"), "12"])
    assert "readonly" in harm.messages[-2].content
    assert harm.reward == 0.0


def test_retail_passes_where_the_database_ends_as_it_should():
    user = Says("Hi, cancel my lamp.", "I am mia.", "###STOP###")
    said = ["Who are you?", act("orders_of", user="mia"), act("cancel", order="A1"), "Done."]
    found = episode("retail", "cancel-lamp", said, user=user)
    assert (found.reward, found.ending) == (1.0, "answered")
    assert found.messages[1].content == "Hi, cancel my lamp."
    too_much = [act("cancel", order="A1"), act("cancel", order="C3"), "Done."]
    assert episode("retail", "cancel-lamp", too_much, user=Says("Hi", "###STOP###")).reward == 0.0
    refused = [act("cancel", order="B2"), "It was delivered."]
    kept = episode("retail", "late-kettle", refused, user=Says("Hi", "###STOP###"))
    assert kept.messages[3].content == "error: B2 is delivered, and cannot be changed"
    assert kept.reward == 1.0


def test_search_is_judged():
    said = [act("search", query="teal bridge rebuilt"), "In 1988, I think."]
    found = episode("search", "q2", said, judge=Says("The answer is right: yes."))
    assert "rebuilt in 1988" in found.messages[-2].content
    assert (found.reward, found.breakdown) == (1.0, {"judged": 1.0, "searched": 1.0, "short": 1.0})
    found = episode("search", "q2", ["1932"], judge=Says("No."))
    assert found.reward == pytest.approx(0.1 / 1.3)
    assert found.evidence["judged"][0]["answered"] == "No."


def test_tictactoe_is_played_by_both_sides():
    found = episode("tictactoe", "seat-0-0", ["4", "0", "8"], player_1=Says("1", "2"))
    assert (found.reward, found.passed) == (1.0, True)
    assert found.messages[2].content == "You are X.\n0O2\n3X5\n678"
    assert episode("tictactoe", "seat-0-0", ["4", "4"], player_1=Says("1")).reward == -1.0
    draw = episode("tictactoe", "seat-1-0", ["4", "1", "6", "5"], player_0=Says("0", "8", "7", "2", "3"))
    assert (draw.reward, draw.passed) == (0.0, False)


def test_gsm8k_reads_rows_as_published():
    env = module("gsm8k").Gsm8k()
    assert env.load()[0].hidden == {"answer": "7"}
    assert env.task_of(1, "?", "so 1,000 + 234\n#### 1,234").hidden == {"answer": "1234"}
    try:
        found = episode("gsm8k", "gsm8k-0", [act("python", code="print(3 * 4 - 5)"), "So it is \\boxed{7}."])
    except SandboxError as error:
        pytest.skip(f"no sandbox works here: {error}")
    assert (found.reward, found.messages[-2].content.strip()) == (1.0, "7")
