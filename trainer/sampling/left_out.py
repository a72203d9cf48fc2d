"""The account of what a run did not learn, because it measures by it."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ...envs.task import write_jsonl


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """One item of a source that is not learned.

    Attributes:
        source: "tasks NAME", "demonstrations", or the name of a source of midtrain.
        item: what it is, as far as it has a name.
        reason: by what it is like a held-out task: "task", "program", "repository", "commit", "patch", "statement",
            "instance"; the same words for all that have it.
        like: the held-out task, or the problem of an evaluation suite.
    """

    source: str
    item: str
    reason: str
    like: str


@dataclass(slots=True)
class Account:
    """What was left out, by source."""

    rows: list[LeftOut] = field(default_factory=list)

    def counts(self) -> dict[str, dict[str, int]]:
        """Source -> reason -> items."""
        found: dict[str, Counter[str]] = {}
        for row in self.rows:
            found.setdefault(row.source, Counter())[row.reason] += 1
        return {source: dict(reasons) for source, reasons in found.items()}

    def lines(self) -> list[str]:
        """One line a source, for people."""
        return [
            f"{source}: {sum(reasons.values())} left out as held out, by "
            + ", ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items()))
            for source, reasons in self.counts().items()
        ]

    def write(self, path: Path) -> None:
        """One row for each item, also where there is none, so that a reader knows that it was looked into."""
        write_jsonl(path, (asdict(row) for row in self.rows))
