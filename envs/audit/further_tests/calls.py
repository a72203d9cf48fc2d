"""Further tests that call functions by themselves: with what tests and examples give them, and with values near it; of
an object's methods some after another."""

import ast
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .noting import MOST_NOTED, calling
from .snapshots import PREFIX, Snapshot
from .targets import Given, Target, look_at_calls
from .values import ANYTHING, CALLABLES, ITERATORS, Hints, varied

AT_ONCE = 12
"""Calls of one test."""
STEPS = 6
"""Calls of methods on one object."""
MOST_LEARNED = 60
"""Calls of one function that are taken on for what they gave."""
CHANGED = 4
"""Calls of a changed function for each of one near it."""
FEW = 24
"""Guesses for a function that nobody is seen to call, for each of its parameters; fewer where somebody is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many calls are tried in a round.

    Attributes:
        calls: of functions, each by itself.
        walks: objects, of which some methods are called.
        seed: another one, other calls.
    """

    calls: int
    walks: int
    seed: str


def calling_tests(targets: Sequence[Target], hints: Hints, plan: Plan, *, prefix: str) -> list[Snapshot]:
    """Tests of calls, the unvaried ones first."""
    rng = random.Random(plan.seed)
    single = [one for one in targets if not one.owner]
    found: list[Snapshot] = []
    shares = sum(CHANGED if one.is_changed else 1 for one in single)
    for target in single:
        most = plan.calls * (CHANGED if target.is_changed else 1) // shares
        lines = list(dict.fromkeys(_calls(target, hints, rng, most=most)))[: max(most, FEW)]
        for start in range(0, len(lines), AT_ONCE):
            found.append(_test(f"{prefix}{len(found)}", target, lines[start : start + AT_ONCE]))
    walked = [one for one in targets if one.owner]
    makers = {one.name: one for one in single}
    modules = {one.owner: one.module for one in walked}
    for owner, lines in dict.fromkeys(_walks(walked, makers, hints, rng, most=plan.walks)):
        found.append(_walk(f"{prefix}{len(found)}", owner, modules[owner], lines))
    return found


def learn(targets: Sequence[Target], tests: Iterable[tuple[Snapshot, Sequence[str | None]]]) -> None:
    """Take calls that gave something, and no two the same, as seen: the next round varies them.

    Args:
        tests: with what the reference noted of each.
    """
    by_name = {f"{one.name}()": one for one in targets}
    for test, notes in tests:
        target = by_name.get(test.test)
        for line, note in zip(test.calls, notes) if target is not None else ():
            assert target is not None
            if note is None or note.startswith("raises") or note in target.gave or len(target.gave) >= MOST_LEARNED:
                continue
            target.gave.add(note)
            name, _, arguments = line.removeprefix("verigym_notes.call(").partition(",")
            look_at_calls([target], [f"{name.rstrip(')')}({arguments or ')'}"])


def combined(name: str, like: Snapshot, lines: Sequence[str]) -> Snapshot:
    """A test of other calls of the same function."""
    node = calling(name, [like.start, *lines])
    return Snapshot(name=name, test=like.test, what="", node=node, calls=tuple(lines), start=like.start)


def _test(name: str, target: Target, lines: Sequence[str]) -> Snapshot:
    start = f"from {target.module} import {target.name.partition('.')[0]}"
    node = calling(f"{PREFIX}{name}", [start, *lines])
    return Snapshot(name=node.name, test=f"{target.name}()", what="", node=node, calls=tuple(lines), start=start)


def _walk(name: str, owner: str, module: str, lines: Sequence[str]) -> Snapshot:
    node = calling(f"{PREFIX}{name}", [f"from {module} import {owner.partition('.')[0]}", *lines])
    return Snapshot(name=node.name, test=f"{owner}()", what="; ".join(lines)[:300], node=node)


def _calls(target: Target, hints: Hints, rng: random.Random, *, most: int) -> Iterator[str]:
    """Statements that call a function: as it was seen to be called, then otherwise; the first are the nearest."""
    for given in _givens(target, hints, rng, most=max(most, FEW)):
        yield f"verigym_notes.call({', '.join([target.name, *_arguments(target, given)])})"


def _givens(target: Target, hints: Hints, rng: random.Random, *, most: int) -> list[Given]:
    seen = [_filled(one, rng) for one in target.seen]
    guesses = 0 if len(seen) > 2 else FEW // 4 if seen else min(FEW * max(1, len(target.required)), most // 2)
    rng.shuffle(seen)
    starts = [*seen, *(_guess(target, rng) for _ in range(guesses))]
    single = [other for given in starts[:40] for other in _one_otherwise(target, given, hints, rng)]
    rng.shuffle(single)
    double: list[Given] = []
    pool = _pool(starts)
    while starts and len(double) < most // 2:
        given = rng.choice(starts)
        for _ in range(2):
            others = _one_otherwise(target, given, hints, rng)
            given = rng.choice(others) if others else given
        if len(starts) > 1 and given and rng.random() < 0.4:  # what was given there elsewhere
            key = rng.choice(sorted(given))
            given = {**given, key: rng.choice(pool[key])} if key in pool else given
        double.append(given)
    room = max(0, most - len(starts) - len(double))
    return [*starts[:most], *single[:room], *double]


def _pool(starts: Sequence[Given]) -> dict[str, list[str]]:
    pool: dict[str, list[str]] = {}
    for given in starts:
        for key, source in given.items():
            pool.setdefault(key, []).append(source)
    return pool


def _one_otherwise(target: Target, given: Given, hints: Hints, rng: random.Random) -> list[Given]:
    """One value another; parameters with defaults given that were not, or not given."""
    found: list[Given] = []
    for key, source in given.items():
        if key in ("*", "**"):
            kind = ("(", "{")[key == "**"]
            found += [
                {**given, key: one} for one in varied(source, hints) if one.startswith(kind) and "None" not in one
            ]
        else:
            found += [{**given, key: one} for one in varied(source, hints)]
    required = target.required
    found += [{name: one for name, one in given.items() if name != key} for key in given if key not in required]
    for name in (*target.parameters, *(one.arg for one in target.node.args.kwonlyargs)):
        if name not in given:
            found += [{**given, name: one} for one in (*_of_default(target, name, hints), rng.choice(ANYTHING))]
    return found


def _of_default(target: Target, name: str, hints: Hints) -> list[str]:
    args = target.node.args
    positional = [one.arg for one in (*args.posonlyargs, *args.args)]
    defaults = dict(zip(positional[::-1], args.defaults[::-1]))
    defaults |= {one.arg: value for one, value in zip(args.kwonlyargs, args.kw_defaults) if value is not None}
    return varied(ast.unparse(defaults[name]), hints) if name in defaults else []


def _guess(target: Target, rng: random.Random) -> Given:
    given = {name: rng.choice(ANYTHING) for name in target.required}
    if target.node.args.vararg is not None:
        given["*"] = f"({rng.choice(ANYTHING)}, {rng.choice(ANYTHING)})"
    return given


def _filled(given: Given, rng: random.Random) -> Given:
    """What cannot be written down, by something of its kind."""
    kinds = {"?iterator": ITERATORS, "?callable": CALLABLES}
    return {
        key: rng.choice(kinds.get(source, ANYTHING)) if source.startswith("?") else source
        for key, source in given.items()
        if not (key in ("*", "**") and source.startswith("?"))
    }


def _arguments(target: Target, given: Given) -> list[str]:
    """Those that have to be given by position, the others by name."""
    only = {one.arg for one in target.node.args.posonlyargs}
    found: list[str] = []
    names = target.parameters
    by_position = [name for name in names if name in only or name in target.required or "*" in given]
    for name in names:
        if name not in given or name not in by_position:
            break
        found.append(given[name])
    used = set(names[: len(found)])
    if "*" in given:
        found.append(f"*{given['*']}")
    rest = [name for name in given if name not in used and name not in ("*", "**")]
    found += [f"{name}={given[name]}" for name in rest]
    if "**" in given:
        found.append(f"**{given['**']}")
    return found


def _walks(
    targets: Sequence[Target], makers: dict[str, Target], hints: Hints, rng: random.Random, *, most: int
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(class, statements): an object and calls of its methods in turn; what is seen of it at last is noted."""
    owners = list(dict.fromkeys(one.owner for one in targets))
    for _ in range(most if owners else 0):
        owner = rng.choice(owners)
        methods = [one for one in targets if one.owner == owner]
        maker = makers.get(owner)
        made = _arguments(maker, rng.choice(_few(maker, hints, rng))) if maker is not None else []
        lines = [f"one = verigym_notes.call({', '.join([owner, *made])})"]
        receivers = [source for one in methods for source in one.receivers]
        if receivers and rng.random() < 0.5:
            source = rng.choice(receivers)
            lines = [f"one = {rng.choice([source, source, *varied(source, hints)])}"]
        first = methods[0]  # what the reference changes is called in each
        for step in range(rng.randint(1, STEPS)):
            target = first if step == 0 or rng.random() < 0.4 else rng.choice(methods)
            given = _arguments(target, rng.choice(_few(target, hints, rng)))
            lines.append(f"verigym_notes.method({', '.join(['one', repr(target.node.name), *given])})")
        head, rest = lines[0], lines[1:]
        if rng.random() < 0.5:
            rng.shuffle(rest)
        yield owner, (head, *rest[: MOST_NOTED - 2], "verigym_notes.note(one)")


def _few(target: Target, hints: Hints, rng: random.Random) -> list[Given]:
    """Some arguments for a method: mostly as seen."""
    seen = [_filled(one, rng) for one in target.seen]
    starts = seen or [_guess(target, rng) for _ in range(4)]
    given = rng.choice(starts)
    others = _one_otherwise(target, given, hints, rng)
    return [*rng.sample(starts, min(2, len(starts))), *rng.sample(others, min(1, len(others)))]
