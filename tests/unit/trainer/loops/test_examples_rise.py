"""Two of the example environments train a tiny model for five steps, and its reward rises."""

import asyncio
import importlib.util
from pathlib import Path

from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy
from verigym.model.chat.messages import Message
from verigym.model.chat.protocols import Rendered
from verigym.model.engine.generator import Generator
from verigym.trainer.loops.reinforce import RL
from verigym.trainer.recipe.algorithms import RLOOConfig
from verigym.trainer.recipe.config import OptimConfig
from verigym.trainer.sampling.rollouts import EpisodePlan, TaskStream

FOLDER = Path(__file__).resolve().parents[4] / "examples" / "environments"


def example(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Moves:
    """A token is a move, and a turn: 4 and up are the moves, 1 begins, 2 is the assistant's header. Of what the
    environment says the last ``seen`` characters are shown, as tokens by their rank among those it can say."""

    def __init__(self, moves, alphabet, seen):
        self.moves, self.alphabet, self.seen = moves, alphabet, seen
        self.stop_token_ids = tuple(range(4 + len(moves) + len(alphabet)))

    def _encode(self, text):
        return [
            4 + len(self.moves) + self.alphabet.index(letter)
            for letter in text[-self.seen :]
            if letter in self.alphabet
        ]

    def start(self, messages, tools):
        ids = (1, *self._encode(messages[-1].content), 2)
        return Rendered(token_ids=ids, roles=("user",) * len(ids))

    def extend(self, sampled, messages):
        ids = []
        for message in messages:
            ids += self._encode(message.content)
        return Rendered(token_ids=(*ids, 2), roles=("user",) * (len(ids) + 1))

    def decode(self, token_ids):
        return " ".join(
            self.moves[token - 4] if 4 <= token < 4 + len(self.moves) else "?" for token in token_ids if token
        )

    def parse(self, text, tools):
        return Message(role="assistant", content=text), text


def rewards(make_decoder, env, moves, alphabet, *, seen, turns, group, seed=0, **changes):
    format_ = Moves(moves, alphabet, seen)
    decoder = make_decoder(vocab_size=4 + len(moves) + len(alphabet), max_position_embeddings=128)
    generator = Generator(decoder, max_context=96, seed=1)
    plan = EpisodePlan(make_env=env, budget=Budget(turns=turns, tokens=96), turn_tokens=2, unit=True)
    loop = RL(
        decoder,
        generator,
        TokenPolicy(generator, format_, format_),
        lambda task: plan,
        config=RLOOConfig(num_tasks=4, group_size=group, microbatch_tokens=2048, **changes),
        optim=OptimConfig(lr=1e-2),
        tasks=TaskStream(env().load()[:8:2]),
        seed=seed,
    )
    found = []
    try:
        asyncio.run(loop.run(5, on_step=lambda step: found.append(step.metrics["rollout/reward/mean"])))
    finally:
        generator.close()
    return found


def test_sql_rises(make_decoder):
    """Answered at once: the database says what is right."""
    answers = ["3", "40", "9", "12"]
    found = rewards(make_decoder, example("sql").Sql, answers, "aceh", seen=24, turns=1, group=48)
    assert found[-1] > 3 * found[0] > 0


def test_wordle_rises(make_decoder):
    wordle = example("wordle")
    found = rewards(make_decoder, wordle.Wordle, wordle.WORDS, "GYX", seen=5, turns=6, group=24, credit="turn")
    assert found[-1] > found[0] + 0.2
