"""Policies in the seats that an environment asks by name: simulated users, opponents, judges."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from weakref import WeakValueDictionary

from ..envs.runs.files import mend_lines
from ..envs.speakers import Keep, Speaker
from ..envs.task import read_jsonl
from ..errors import PolicyError
from ..model.chat.messages import Message
from ..model.chat.sampling import Sampling
from .policy import Entry, Policy, ScriptedPolicy, Turn
from .seeds import SeededPolicy, derive_seed


class Answers:
    """Answers that are kept for a run: the same question is asked once. With a file, for later runs too."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._known: dict[str, str] = {}
        self._locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()
        if file is not None and file.exists():
            mend_lines(file)
            self._known = {row["asked"]: row["answered"] for row in read_jsonl(file)}

    def asking(self, asked: str) -> asyncio.Lock:
        """Held by who asks it: whoever has the same question meanwhile waits, and finds the answer."""
        return self._locks.setdefault((id(asyncio.get_running_loop()), asked), asyncio.Lock())

    def get(self, asked: str) -> str | None:
        return self._known.get(asked)

    def put(self, asked: str, answered: str) -> None:
        self._known[asked] = answered
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as out:
                out.write(json.dumps({"asked": asked, "answered": answered}) + "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Who speaks under a name.

    Attributes:
        policy: answers; None: the policy of the episode itself, under its weights of then (self-play).
        spec: its name for people, and part of what a kept answer is found by.
        max_tokens, temperature: of a turn; an answer that is kept is drawn at temperature 0.
        train: learn from its turns too, by what ``Score.others`` says that it earned; of the policy itself alone.
        answers: those that are kept.
    """

    policy: Policy | None = None
    spec: str = "self"
    max_tokens: int = 512
    temperature: float = 1.0
    train: bool = False
    answers: Answers = field(default_factory=Answers)


class PolicySpeaker:
    """A policy in a seat, for one episode.

    Its own earlier turns go on as they were sampled where the conversation repeats them: no sampled token is encoded
    again.
    """

    def __init__(self, name: str, seat: Seat, policy: Policy, sampling: Sampling) -> None:
        self.name, self.seat = name, seat
        self._policy = policy.beside(name) if isinstance(policy, SeededPolicy) else policy
        self._sampling = replace(sampling, max_tokens=seat.max_tokens, temperature=seat.temperature)
        self._seen: list[Entry] = []
        self.turns: list[Turn] = []

    async def say(self, messages: Sequence[Message], *, keep: Keep = False) -> Message:
        """As ``envs.speakers.Speaker``."""
        if keep is False:
            return await self._asked(messages, self._sampling)
        asked = json.dumps([self.seat.spec, [asdict(message) for message in messages]], default=str)
        async with self.seat.answers.asking(asked):
            known = self.seat.answers.get(asked)
            if known is not None:
                return Message(role="assistant", content=known)
            said = await self._asked(messages, replace(self._sampling, temperature=0.0))
            if keep is True or keep(said.content):
                self.seat.answers.put(asked, said.content)
            return said

    async def _asked(self, messages: Sequence[Message], sampling: Sampling) -> Message:
        if sampling.seed is not None:
            sampling = replace(sampling, seed=derive_seed(sampling.seed, self.name, len(self.turns)))
        conversation = self._continued(messages)
        turn = await self._policy.respond(conversation, (), sampling)
        if turn.finish_reason == "abort":
            raise PolicyError(f"the engine aborted a turn of {self.name!r}")
        self._seen = [*conversation, turn]
        self.turns.append(turn)
        return turn.message

    def _continued(self, messages: Sequence[Message]) -> list[Entry]:
        """The conversation with this speaker's turns in the place of the messages that repeat them, where it goes on
        from the last one; one that does not begins anew."""
        known = [entry.message if isinstance(entry, Turn) else entry for entry in self._seen]
        if len(known) > len(messages) or any(not _same(*pair) for pair in zip(known, messages)):
            return list(messages)
        return [*self._seen, *messages[len(known) :]]


def _same(left: Message, right: Message) -> bool:
    return (left.role, left.content) == (right.role, right.content)


def seated(seats: Mapping[str, Seat], policy: Policy, sampling: Sampling) -> dict[str, Speaker]:
    """The speakers of one episode. A script plays the agent alone: what would be its seat stays free, and the
    environment's ``stand_in`` speaks there.

    Args:
        policy: of the episode, which has the seats of nobody else.
        sampling: of the episode, for its seed.
    """
    own = policy.inner if isinstance(policy, SeededPolicy) else policy
    return {
        name: PolicySpeaker(name, seat, policy if seat.policy is None else seat.policy, sampling)
        for name, seat in seats.items()
        if seat.policy is not None or not isinstance(own, ScriptedPolicy)
    }
