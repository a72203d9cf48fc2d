"""A whole run with other speakers and wrappers: a user at a server, and a rival, the policy itself, that is trained."""

import json

from verigym.__main__ import main

from .small_recipe import LEARNING, metrics

DUEL = '''
import gymnasium
from verigym.envs.core import Submission, ToolEnv
from verigym.envs.speakers import other_side
from verigym.envs.task import Task
from verigym.model.chat.messages import Message
from verigym.rewards.score import Score


class Duel(ToolEnv):
    """A user asks, the rival answers too; the longer answer wins."""

    reward_bounds = (-1.0, 1.0)

    def load(self):
        return [Task(id=f"q{n}", family="duel", prompt=f"question {n}") for n in range(8)]

    def start(self, task):
        self.turns = 0

    async def reply(self, task, message):
        self.turns += 1
        if self.turns == 2:
            return Submission(value=(len(message), self.other))
        self.other = len((await self.model("rival").say([Message(role="user", content=task.prompt)])).content)
        return await self.model("user").say(other_side(self.transcript, system="You are a user."))

    def unfinished(self, task):
        return (0, self.other) if self.turns else None

    def score(self, task, submission):
        own, other = submission
        worth = (own > other) - (own < other)
        return Score(value=worth, passed=worth > 0, bounds=(-1.0, 1.0), others={"rival": -worth})

    def stand_in(self, name, messages):
        return "And then?" if name == "user" else "no"

    def gold(self, task):
        return [Message(role="assistant", content="well"), Message(role="assistant", content="yes indeed")]


class Shout(gymnasium.ObservationWrapper):
    def observation(self, observation):
        return observation.upper()
'''


RECIPE = """
name = "duel"
threads = 1
control = false

[model]
vocab_size = 320
max_context = 256

[[families]]
name = "duel"
env = "duel_for_speakers:Duel"
num_train = 6
num_held_out = 2
turns = 3
turn_tokens = 24
num_demonstrations = 12
reward = "unit"
wrappers = ["duel_for_speakers:Shout", {{ wrapper = "gymnasium.wrappers:TimeLimit", max_episode_steps = 9 }}]

[families.models]
user = {{ policy = "{user}", max_tokens = 16 }}
rival = {{ policy = "self", train = true, max_tokens = 12 }}
"""


def test_a_run_with_other_speakers_and_wrappers(tmp_path, monkeypatch, scripted_server):
    (tmp_path / "duel_for_speakers.py").write_text(DUEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    scripted_server.answer = lambda asked, prompt: "tell me more"
    (tmp_path / "recipe.toml").write_text(RECIPE.format(user=scripted_server.policy) + LEARNING)
    assert main(["train", "recipe.toml", "--out", "run"]) == 0
    rows = metrics(tmp_path / "run", "rl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(0.0 <= row["rollout/reward_duel/mean"] <= 1.0 for row in rows)  # mapped from [-1, 1]
    rival = "rollout/reward_duel_rival/mean"
    assert [row for row in rows if 0.0 <= row.get(rival, -1.0) <= 1.0]
    asked = [body["messages"] for body in scripted_server.asked]
    assert asked[0][0] == {"role": "system", "content": "You are a user."}
    assert {body.get("max_tokens", body.get("max_completion_tokens")) for body in scripted_server.asked} == {16}
    verdicts = (tmp_path / "run").rglob("verdicts.jsonl")
    assert all(json.loads(line)["ending"] != "environment_failure" for file in verdicts for line in file.open())
    demonstrations = next((tmp_path / "run").rglob("*demonstrations*.jsonl")).read_text()
    assert "TELL ME MORE" in demonstrations  # what a wrapper makes of it is what is imitated
