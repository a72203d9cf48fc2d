"""What was found out about an evaluation afterwards: flags on its passes, and what its figures are worth.

Both are files of the run that other commands write; whatever they hold instead is passed over.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..passes import PASSES
from ..worth_told import worth_figures
from .tail import Rows

MOST_FLAGGED = 200
Flags = dict[tuple[str, int], list[str]]


def flags_of(folder: Path) -> Flags | None:
    """(task, sample) -> what a person should look at in it, of every pass that was looked at; None where none was."""
    rows = Rows(folder / PASSES).read()
    found: Flags = {}
    for row in rows:
        try:
            found[str(row["task_id"]), int(row["index"])] = [_told(flag) for flag in row["flags"]]
        except (KeyError, TypeError, ValueError):
            continue
    return found if rows else None


def _told(flag: Mapping[str, Any]) -> str:
    place = f"turn {flag['turn']}" if flag["turn"] else "patch"
    return f"{place}: {flag['what']} ({str(flag['shown'])[:100]})"


def passes_of(folder: Path) -> dict[str, Any] | None:
    """ "looked_at" and "flagged" (episodes), and the first "rows" of those flagged; None where none was looked at."""
    flags = flags_of(folder)
    if flags is None:
        return None
    flagged = [{"task": task, "sample": sample, "flags": told} for (task, sample), told in flags.items() if told]
    return {"looked_at": len(flags), "flagged": len(flagged), "rows": flagged[:MOST_FLAGGED]}


def worth_shown(report: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """ "audited", "num_tasks" and "rows" ("what", "pass@1", "interval", "tasks") of a report; None without them."""
    try:
        worth: Mapping[str, Any] = (report or {})["worth"]
        rows: Sequence[Any] = worth_figures(worth)
        return {
            "audited": int(worth["audited"]),
            "num_tasks": int(worth["num_tasks"]),
            "rows": [
                {"what": what, "pass@1": figure["pass@1"], "interval": list(figure["interval"]), "tasks": tasks}
                for what, figure, tasks in rows
            ],
            "against_on_sound": worth.get("against_on_sound"),
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
