"""Turn games with several players: TextArena's and PettingZoo's, each where it is installed, and one of our own."""

# Stand-ins, and what no type allows.
# pyright: reportOptionalOperand=false

import asyncio
import importlib.util
import random
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, Turn, play
from verigym.agent.speakers import Seat
from verigym.envs.adapters.pettingzoo import PettingZoo
from verigym.envs.adapters.textarena import TextArena
from verigym.envs.adapters.turn_game import bracketed
from verigym.errors import ConfigError
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Sampling


class Says:
    """Says these texts one after the other, and keeps what it saw last."""

    def __init__(self, *texts):
        self.texts, self.seen = list(texts), []

    async def respond(self, conversation, tools, sampling):
        self.seen = [(one.message if isinstance(one, Turn) else one).content for one in conversation]
        text = self.texts.pop(0)
        return Turn(message=Message(role="assistant", content=text), action=text)


def episode(env, texts, rival=None, seat=0):
    policy = ScriptedPolicy(play([Message(role="assistant", content=text) for text in texts]))
    task = next(one for one in env.load() if one.metadata["seat"] == seat)
    seats = {} if rival is None else {f"player_{1 - seat}": Seat(policy=rival)}
    return asyncio.run(rollout(env, policy, task, budget=Budget(), sampling=Sampling(), seats=seats))


class Nim:
    """Three matches, take one or two; who takes the last wins. PettingZoo's interface."""

    possible_agents = ("first", "second")

    def reset(self, seed=None):
        self.left, self.agent_selection = 3, "first"
        self.rewards = dict.fromkeys(self.possible_agents, 0)
        self.over = False

    def action_space(self, agent):
        return gymnasium.spaces.Discrete(2, start=1)

    def last(self):
        return {"left": self.left, "action_mask": [0, 1, int(self.left > 1)]}, 0, self.over, False, {}

    def step(self, action):
        self.left -= action
        other = self.possible_agents[self.agent_selection == "first"]
        if self.left == 0:
            self.rewards = {self.agent_selection: 1, other: -1}
            self.over = True
        self.agent_selection = other

    def close(self):
        self.left = None


def nim():
    return PettingZoo(Nim, render=lambda seen, player: f"{player}: {seen['left']} left", num_tasks=4)


def test_two_policies_play_and_each_sees_its_own_side():
    rival = Says("I take 1")
    found = episode(nim(), ["1", "1"], rival)
    assert (found.reward, found.passed, found.ending) == (1.0, True, "answered")
    assert [one.content for one in found.messages][:3] == ["first: 3 left", "1", "first: 1 left"]
    assert rival.seen == ["second: 2 left"]
    assert found.detail.startswith("results [1.0, -1.0]")


def test_the_agent_may_have_the_other_seat_and_lose():
    rival = Says("1", "1")
    found = episode(nim(), ["1"], rival, seat=1)
    assert (found.reward, found.passed) == (-1.0, False)
    assert found.messages[0].content == "second: 2 left"


def test_illegal_moves_are_asked_again_and_a_rival_that_makes_none_loses():
    rival = Says("5", "two?", "9")
    found = episode(nim(), ["two", "2", "1"], rival)
    assert found.messages[2].content == "error: answer with a whole number from 1 to 2"
    assert rival.seen[-1] == "error: answer with a whole number from 1 to 2"
    assert (found.reward, "player 1 made no legal move" in found.detail) == (1.0, True)
    found = episode(nim(), ["2", "1"], Says("2", "1"))
    assert found.reward == -1.0
    assert bracketed("I choose [3] or rather [ 4 ]") == "4"


def test_an_empty_seat_is_said():
    with pytest.raises(ConfigError, match="player_1"):
        episode(nim(), ["1"])


def test_a_library_that_is_missing_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "textarena", None)
    with pytest.raises(ConfigError, match="pip install 'textarena'"):
        TextArena("TicTacToe-v0")


# The libraries themselves.


@pytest.fixture
def textarena():
    return pytest.importorskip("textarena", reason="textarena is not installed")


def test_textarena_scores_the_same_game_the_same(textarena):
    moves = ["[0]", "[3]", "[1]", "[4]", "[2]"]
    own = textarena.make("TicTacToe-v0")
    own.reset(num_players=2, seed=0)
    for move in moves:
        own.get_observation()
        own.step(move)
    rewards, _ = own.close()
    rival = Says("[3]", "[4]")
    found = episode(TextArena("TicTacToe-v0", num_tasks=2), moves[::2], rival)
    assert (found.reward, rewards) == (1.0, {0: 1, 1: -1})
    assert "You are Player 0" in found.messages[0].content
    assert "You are Player 1" in rival.seen[0]
    assert "placed their symbol" in found.messages[2].content
    assert "You are Player 0" not in found.messages[2].content  # no history is repeated


def example(name):
    """A module of examples/environments."""
    file = Path(__file__).resolve().parents[4] / "examples" / "environments" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_our_wordle_marks_and_scores_as_textarenas(textarena):
    from textarena.envs.Wordle.env import WordleEnv

    ours, rng = example("wordle"), random.Random(1)
    theirs = WordleEnv.__new__(WordleEnv)  # its word lists are downloads; marks and worth are its own
    theirs.word_length = 5
    for secret in ours.WORDS:
        game = {"secret_word": secret, "word_length": 5, "guess_history": []}
        theirs.state = SimpleNamespace(game_state=game)
        guesses = rng.sample([word for word in ours.WORDS if word != secret], 6)
        for guess in guesses:
            game["guess_history"].append((guess, theirs._evaluate_guess(guess)))
            assert "".join(game["guess_history"][-1][1]) == ours.colors(guess, secret)
        env = ours.Wordle()
        env.reset(options={"task": next(task for task in env.load() if task.id == secret)})
        rewards = [env.step(guess)[1] for guess in guesses]
        assert rewards == [0.0] * 5 + [pytest.approx(theirs._get_percentage_completion())]


def test_our_tictactoe_ends_as_pettingzoos():
    theirs = pytest.importorskip("pettingzoo.classic.tictactoe_v3", reason="pettingzoo[classic] is not installed")
    ours, rng = example("tictactoe"), random.Random(2)
    for _ in range(40):
        game, moves = theirs.env(), []
        game.reset(seed=0)
        got = dict.fromkeys(game.possible_agents, 0)
        while not game.last()[2]:
            moves.append(rng.choice([n for n, free in enumerate(game.last()[0]["action_mask"]) if free]))
            game.step(moves[-1])
            got = {agent: got[agent] + game.rewards[agent] for agent in got}
        # Its squares are numbered by columns, ours by rows: the same lines, and so the same ends.
        env, texts = ours.TicTacToe(), [str(move) for move in moves]
        found = episode(env, texts[::2], Says(*texts[1::2]))
        first, second = got.values()
        assert (found.reward, found.detail) == (first, f"results {[float(first), float(second)]}")


def test_textarena_of_one_player(textarena):
    env = TextArena("GuessTheNumber-v0", num_players=1, num_tasks=1)
    env.reset(seed=0)
    number = env._env.state.game_state["game_number"]
    env.close()
    other = number - 1 if number > 1 else number + 1
    found = episode(env, [f"[{other}]", f"my guess is [{number}]"])
    assert found.reward == 1.0
    assert found.num_turns == 2


def test_pettingzoo_scores_the_same_game_the_same():
    tictactoe = pytest.importorskip("pettingzoo.classic.tictactoe_v3", reason="pettingzoo[classic] is not installed")
    moves = [0, 3, 1, 4, 2]
    own = tictactoe.env()
    own.reset(seed=0)
    got = dict.fromkeys(own.possible_agents, 0)
    for move in moves:
        own.step(move)
        for agent, reward in own.rewards.items():
            got[agent] += reward
    env = PettingZoo(tictactoe.env, render=lambda seen, player: str(seen["observation"].tolist()), num_tasks=2)
    found = episode(env, ["0", "1", "2"], Says("0", "3", "4"))  # 0 is taken: it is asked again
    assert [found.reward, -found.reward] == list(got.values())


def test_games_with_random_moves_end_and_pay_within_bounds():
    rng = random.Random(1)
    for _ in range(20):
        texts = [str(rng.randint(1, 2)) for _ in range(60)]
        found = episode(nim(), texts, Says(*(str(rng.randint(1, 2)) for _ in range(60))), seat=rng.randint(0, 1))
        assert found.reward in (1.0, -1.0)
