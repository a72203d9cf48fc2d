"""What episodes ask for and what engines and trainer take for it: measured in a run, or stated in a file."""

import json
import random
import statistics
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from ...errors import ConfigError
from ..recipe.config import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of an episode.

    Attributes:
        prompt_tokens: that are new to the engine.
        sampled_tokens: that it answers.
        tool_seconds: until the next turn, or the end.
    """

    prompt_tokens: int
    sampled_tokens: int
    tool_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """Its turns, and the seconds of its grading."""

    turns: tuple[Turn, ...]
    grading_seconds: float = 0.0

    @property
    def num_tokens(self) -> int:
        return sum(turn.prompt_tokens + turn.sampled_tokens for turn in self.turns)


class Speed(Settings):
    """An engine: a round of n sequences takes ``token_seconds + n * crowd_seconds``, and gives each of them a token."""

    token_seconds: float = Field(gt=0)
    """Of a round, however few sequences there are."""
    crowd_seconds: float = Field(default=0.0, ge=0)
    """More, for each sequence."""
    prompt_seconds: float = Field(default=0.0, ge=0)
    """Of each token of a prompt that is new to the engine; no round is run meanwhile."""
    max_batch: int = Field(default=256, ge=1)
    """Sequences in work at once; others wait."""
    gpus: int = Field(default=1, ge=1)
    """Of one engine."""


class Trainer(Settings):
    """What an update and its weights take."""

    step_seconds: float = Field(gt=0)
    """Of an update over ``step_tokens`` on ``gpus``; taken to fall with their number and to grow with the tokens."""
    step_tokens: int = Field(ge=1)
    """Tokens of that update, prompts and observations included."""
    gpus: int = Field(default=1, ge=1)
    """That took so long."""
    publish_seconds: float = Field(default=0.0, ge=0)
    """From the end of an update until the engines sample under its weights; they sample nothing meanwhile."""


class Stated(Settings):
    """A file that states what was not measured: distributions as lists of which each value is as likely."""

    turns: list[int] = Field(min_length=1)
    """Turns of an episode."""
    prompt_tokens: list[int] = Field(min_length=1)
    """New to the engine in a turn: the task in the first, what was observed in later ones."""
    sampled_tokens: list[int] = Field(min_length=1)
    """Of a turn's answer."""
    tool_seconds: list[float] = Field(min_length=1)
    """Between an answer and the next turn."""
    grading_seconds: list[float] = Field(default=[0.0], min_length=1)
    """At the end of an episode."""
    engine: Speed
    """Engines."""
    trainer: Trainer
    """Training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Episodes to draw from, and who works on them."""

    episodes: tuple[Episode, ...]
    engine: Speed
    trainer: Trainer


def read_stated(path: Path, *, seed: int = 0, count: int = 2000) -> Workload:
    """Draw episodes from the distributions of a TOML file.

    Raises:
        ConfigError: it cannot be read, or lacks something.
    """
    try:
        stated = Stated.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML ({error}); mend it") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    draw = random.Random(seed)
    episodes = tuple(
        Episode(
            turns=tuple(
                Turn(
                    prompt_tokens=draw.choice(stated.prompt_tokens),
                    sampled_tokens=draw.choice(stated.sampled_tokens),
                    tool_seconds=draw.choice(stated.tool_seconds),
                )
                for _ in range(draw.choice(stated.turns))
            ),
            grading_seconds=draw.choice(stated.grading_seconds),
        )
        for _ in range(count)
    )
    return Workload(episodes=episodes, engine=stated.engine, trainer=stated.trainer)


def read_run(folder: Path, *, concurrency: int, engines: int) -> Workload:
    """Take the episodes and the speeds of a run's reinforcement learning.

    What a run tells does not separate a round's own cost from a sequence's share in it: it gives the seconds of a token
    at the run's concurrency, which is taken to be the same at any other. State a speed of your own (a file) where that
    is not so, as on GPUs, whose rounds get longer slowly.

    Args:
        concurrency, engines: of that run.
    Raises:
        ConfigError: there is nothing measured in it.
    """
    rows = [json.loads(line) for part in sorted((folder / "rl" / "episodes").glob("*.jsonl")) for line in _lines(part)]
    steps = [json.loads(line) for line in _lines(folder / "rl" / "metrics.jsonl")]
    rows = [row for row in rows if row.get("turn_tokens") and not row.get("speaker")]
    if not rows or not steps:
        raise ConfigError(f"{folder} has no episodes of reinforcement learning; give a run, or a file that states them")
    episodes = tuple(_episode(row) for row in rows)
    rates = [sum(row["turn_tokens"]) / row["timings"]["policy"] for row in rows if row["timings"]["policy"] > 0]
    seconds = statistics.median(row["trainer/seconds/update"] for row in steps)
    tokens = statistics.median(row.get("trainer/tokens/count", 0.0) for row in steps)
    return Workload(
        episodes=episodes,
        engine=Speed(token_seconds=1.0 / statistics.median(rates), max_batch=max(1, -(-concurrency // engines))),
        trainer=Trainer(step_seconds=max(seconds, 1e-9), step_tokens=max(1, round(tokens))),
    )


def _episode(row: dict[str, Any]) -> Episode:
    sampled: Sequence[int] = row["turn_tokens"]
    others = max(0, int(row.get("num_tokens") or sum(sampled)) - sum(sampled))
    tools = float(row["timings"].get("environment", 0.0)) / len(sampled)
    each = others // len(sampled)
    turns = tuple(Turn(prompt_tokens=each, sampled_tokens=count, tool_seconds=tools) for count in sampled)
    return Episode(turns=turns, grading_seconds=float(row["timings"].get("grading", 0.0)))


def _lines(path: Path) -> Iterable[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else ()
