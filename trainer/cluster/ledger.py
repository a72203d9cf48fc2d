"""Who runs which episode: an answer counts once, and only from whom it was last asked."""

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One asking of one episode.

    Attributes:
        ticket: of the episode.
        worker, incarnation: who was asked; a worker that was started anew is another incarnation.
        attempt: how often the episode had been asked for before.
    """

    ticket: int
    worker: int
    incarnation: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of it.

    Attributes:
        assignment: of the request, with the incarnation that answers.
        result: the trajectory, whose tokens say which version of the weights sampled them; of a grading the score.
        patch: of an episode, see ``ToolEnv.patch``.
    """

    assignment: Assignment
    result: Any
    patch: str | None = None


class EpisodeLedger:
    """The state of every episode that is open.

    An episode changes what it touches, so nobody runs it again by himself (Ray does not either): it is asked for anew
    here, when whoever was asked is known to be lost. From then on answers to the earlier asking are not taken, for a
    worker that is given up may still answer.

    Attributes:
        counts: "answered", "asked_again", "discarded" (answers that were not taken), "dropped".
    """

    def __init__(self) -> None:
        self._open: dict[int, Assignment | None] = {}
        self._attempts: Counter[int] = Counter()
        self._tickets = itertools.count()
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        """Episodes that are open."""
        return len(self._open)

    def open(self) -> int:
        """The ticket of an episode that is to be run."""
        ticket = next(self._tickets)
        self._open[ticket] = None
        return ticket

    def assign(self, ticket: int, worker: int, incarnation: int) -> Assignment:
        """Ask a worker for it; what was asked before is void."""
        if ticket not in self._open:
            raise KeyError(f"episode {ticket} has ended")
        attempt = self._attempts[ticket]
        self._attempts[ticket] += 1
        if attempt:
            self.counts["asked_again"] += 1
        found = Assignment(ticket=ticket, worker=worker, incarnation=incarnation, attempt=attempt)
        self._open[ticket] = found
        return found

    def lose(self, worker: int, incarnation: int) -> list[int]:
        """A worker is gone: tickets of the episodes that it had; what it still answers is void."""
        lost = [
            ticket
            for ticket, one in self._open.items()
            if one is not None and (one.worker, one.incarnation) == (worker, incarnation)
        ]
        for ticket in lost:
            self._open[ticket] = None
        return lost

    def take(self, assignment: Assignment) -> bool:
        """Whether an answer counts; it then ends the episode."""
        if self._open.get(assignment.ticket) != assignment:
            self.counts["discarded"] += 1
            return False
        del self._open[assignment.ticket], self._attempts[assignment.ticket]
        self.counts["answered"] += 1
        return True

    def drop(self, ticket: int) -> None:
        """Nobody wants it any more."""
        if ticket in self._open:
            del self._open[ticket]
            self._attempts.pop(ticket, None)
            self.counts["dropped"] += 1
