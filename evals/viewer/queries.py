"""What is asked of an index: a page of episodes, their groups, what there is to filter by, and a search in texts."""

import json
import mmap
import sqlite3
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ...errors import ConfigError

COLUMNS = (
    "id, key, stage, step, sample, grp, task, family, ending, passed, reward, advantage, turns, format_errors, "
    "sampled, tokens, has_tokens, has_messages, seconds, time, version, label, detail"
)
SORTED_BY = ("id", "step", "task", "family", "ending", "passed", "reward", "advantage", "turns", "sampled", "seconds")
RANGES = ("step", "reward", "advantage", "sampled", "turns", "seconds")
"""Columns that may be asked for as NAME_min and NAME_max."""
MOST_ROWS = 500
SEARCH_SECONDS = 2.0
MOST_FOUND = 20_000
MOST_CHOICES = 50


def page_of(base: sqlite3.Connection, asked: Mapping[str, str]) -> dict[str, Any]:
    """Some rows, in the order asked for, and how many there are in all."""
    where, values, searched = condition(base, asked)
    sort = asked.get("sort", "id")
    if sort not in SORTED_BY:
        raise ConfigError(f"episodes are sorted by {', '.join(SORTED_BY)}, not by {sort!r}")
    down = asked.get("down", "1") != "0"
    limit, offset = min(_int(asked, "limit", 100), MOST_ROWS), _int(asked, "offset", 0)
    order = f"{sort} {'DESC' if down else 'ASC'}" + ("" if sort == "id" else ", id DESC")
    rows = base.execute(
        f"SELECT {COLUMNS} FROM episodes WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?", (*values, limit, offset)
    ).fetchall()
    total = base.execute(f"SELECT count(*) FROM episodes WHERE {where}", values).fetchone()[0]
    return {"rows": [dict(row) for row in rows], "total": total, "offset": offset, **searched}


def groups_of(base: sqlite3.Connection, asked: Mapping[str, str]) -> dict[str, Any]:
    """Groups of episodes, the newest first: samples, those that passed, and rewards."""
    where, values, searched = condition(base, asked)
    limit, offset = min(_int(asked, "limit", 50), MOST_ROWS), _int(asked, "offset", 0)
    grouped = f"FROM episodes WHERE {where} GROUP BY stage, step, grp"
    # Which groups are on the page first: the samples of all of them are five times the work.
    rows = base.execute(
        f"""WITH page (its_stage, its_step, its_grp, last) AS MATERIALIZED (
            SELECT stage, step, grp, max(id) AS last {grouped} ORDER BY last DESC LIMIT ? OFFSET ?)
          SELECT stage, step, grp, min(task) AS task, min(family) AS family, count(*) AS samples,
          sum(passed) AS passed, avg(reward) AS reward, min(reward) AS low, max(reward) AS high,
          sum(ending LIKE '%failure') AS failures, last,
          json_group_array(json_array(key, reward, passed, advantage, ending)) AS members
          FROM page JOIN episodes ON stage = its_stage AND step IS its_step AND grp = its_grp
          WHERE {where} GROUP BY stage, step, grp ORDER BY last DESC""",
        (*values, limit, offset, *values),
    ).fetchall()
    total = base.execute(f"SELECT count(*) FROM (SELECT 1 {grouped})", values).fetchone()[0]
    found = [{**dict(row), "members": json.loads(row["members"])} for row in rows]
    return {"rows": found, "total": total, "offset": offset, **searched}


def facets_of(base: sqlite3.Connection) -> dict[str, Any]:
    """What there is to choose from: value -> episodes of each; and the range of steps."""

    stages, families, endings, passed = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    # One pass over an index that has all that is asked for.
    rows = base.execute("SELECT stage, family, ending, passed, count(*) FROM episodes GROUP BY 1, 2, 3, 4")
    for stage, family, ending, verdict, count in rows:
        stages[stage] += count
        families[family] += count
        endings[ending] += count
        passed["none" if verdict is None else "yes" if verdict else "no"] += count
    first = base.execute("SELECT min(step) FROM episodes").fetchone()[0]
    last = base.execute("SELECT max(step) FROM episodes").fetchone()[0]

    def told(counts: Counter[str]) -> dict[str, int]:
        return {value: count for value, count in counts.most_common(MOST_CHOICES) if value}

    return {
        "stages": told(stages),
        "families": told(families),
        "endings": told(endings),
        "passed": {name: passed[name] for name in ("yes", "no", "none")},
        "steps": [first, last],
        "total": passed.total(),
    }


def row_of(base: sqlite3.Connection, key: str) -> dict[str, Any] | None:
    """The index's row of an episode."""
    row = base.execute("SELECT * FROM episodes WHERE key = ?", (key,)).fetchone()
    return None if row is None else dict(row)


def neighbours(base: sqlite3.Connection, row: Mapping[str, Any]) -> dict[str, Any]:
    """The keys before and after an episode, and the members of its group."""
    older = base.execute("SELECT key FROM episodes WHERE id < ? ORDER BY id DESC LIMIT 1", (row["id"],)).fetchone()
    newer = base.execute("SELECT key FROM episodes WHERE id > ? ORDER BY id LIMIT 1", (row["id"],)).fetchone()
    group = base.execute(
        f"SELECT {COLUMNS} FROM episodes WHERE stage = ? AND step IS ? AND grp = ? ORDER BY sample LIMIT 64",
        (row["stage"], row["step"], row["grp"]),
    ).fetchall()
    return {
        "older": older and older["key"],
        "newer": newer and newer["key"],
        "group": [dict(one) for one in group],
    }


def condition(base: sqlite3.Connection, asked: Mapping[str, str]) -> tuple[str, list[Any], dict[str, Any]]:
    """(SQL, its values, what to tell of a search) of what was asked for."""
    parts, values = ["1"], []
    for name in ("stage", "family", "ending", "grp"):
        if asked.get(name):
            parts.append(f"{name} = ?")
            values.append(asked[name])
    if asked.get("passed") in ("yes", "no", "none"):
        parts.append({"yes": "passed = 1", "no": "passed = 0", "none": "passed IS NULL"}[asked["passed"]])
    if asked.get("tokens") == "yes":
        parts.append("has_tokens = 1")
    if asked.get("task"):
        parts.append("instr(lower(task), lower(?))")
        values.append(asked["task"])
    for name in RANGES:
        for end, sign in (("min", ">="), ("max", "<=")):
            if asked.get(f"{name}_{end}"):
                parts.append(f"{name} {sign} ?")
                values.append(_number(asked, f"{name}_{end}"))
    searched: dict[str, Any] = {}
    if asked.get("text"):
        found, whole = search(base, " AND ".join(parts), values, asked["text"])
        parts.append("id IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(found))
        searched = {"searched_all": whole}
    return " AND ".join(parts), values, searched


def search(base: sqlite3.Connection, where: str, values: list[Any], text: str) -> tuple[list[int], bool]:
    """(ids of episodes whose row, conversation and all, has a text, whether all were looked at), within
    ``SEARCH_SECONDS``; the newest files first. Upper and lower case differ."""
    # As the file has it: JSON in ASCII. What begins or ends in the middle of an escape is not found by itself.
    needle = json.dumps(text)[1:-1].encode("ascii")
    deadline = time.monotonic() + SEARCH_SECONDS
    places: dict[str, list[tuple[int, int, int]]] = {}
    for row in base.execute(
        f"SELECT id, path, offset, length FROM episodes WHERE {where} ORDER BY path, offset", values
    ):
        places.setdefault(row["path"], []).append((row["offset"], row["length"], row["id"]))
    found: list[int] = []
    for path in sorted(places, reverse=True):
        rows = places[path]
        starts = [offset for offset, _, _ in rows]
        try:
            with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                at = content.find(needle)
                while at >= 0:
                    if time.monotonic() > deadline or len(found) >= MOST_FOUND:
                        return found, False
                    place = bisect_right(starts, at) - 1
                    offset, length, number = rows[place] if place >= 0 else (-1, 0, 0)
                    if offset <= at < offset + length:
                        found.append(number)
                        at = content.find(needle, offset + length)  # once is enough
                    else:
                        next_start = starts[place + 1] if place + 1 < len(starts) else len(content)
                        at = content.find(needle, max(at + 1, next_start))
        except (OSError, ValueError):
            continue
    return found, True


def _int(asked: Mapping[str, str], name: str, default: int) -> int:
    text = asked.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or len(text) > 12:
        raise ConfigError(f"{name} is {text!r}; a whole number is expected")
    return int(text)


def _number(asked: Mapping[str, str], name: str) -> float:
    try:
        value = float(asked[name])
    except ValueError:
        raise ConfigError(f"{name} is {asked[name]!r}; a number is expected") from None
    if value != value:
        raise ConfigError(f"{name} is no number; give one")
    return value
