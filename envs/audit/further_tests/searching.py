"""The search for calls that tell wrong solutions from the reference: what is called, and with what."""

import ast
from collections.abc import Sequence

from ..bench import Bench, Manner, Outcome
from ..solutions.variants import Files, Variant, changed_functions, first_line_of
from ..text.wording import NAME
from .calls import Plan
from .notes import Notebook, Search
from .targets import Target, examples_in, look_at_calls, module_of, targets
from .ways import WAYS

CALLS, WALKS = 360, 40
"""Calls of functions, and objects whose methods are called, in a round."""


def search_of(found: Sequence[Target], seed: str, number: int = 0) -> Search:
    """A round of a search that calls these functions."""
    plan = Plan(calls=CALLS, walks=WALKS, seed=f"{seed}/{number}")
    return Search(targets=found, ways=WAYS, plan=plan, number=number)


async def tell_apart_by_calls(
    bench: Bench, neutral: Sequence[Variant], alive: Sequence[Variant], *, most: int
) -> dict[int, str]:
    """Which wrong solutions some call tells from the reference, after one round: number -> one sentence.

    Args:
        neutral: right solutions; a call on which one of them differs says nothing.
        most: copies of tests, at most.
    """
    found = targets(bench.base, bench.gold, spelled_names(bench))
    near = concerning(found, bench.gold, alive)
    if not near:
        return {}
    (gold,) = await bench.run([{}], Manner(whole=True, trace=True, calls=tuple(one.place for one in near)))
    see(near, bench, gold)
    book = await Notebook.make(bench, gold, neutral, most=most, search=search_of(near, bench.row.instance_id))
    noted = await book.notes([one.files for one in alive])
    book = await book.confirmed({test for seen in noted for test in book.telling(seen)}, neutral)
    return await book.tell_apart([one.files for one in alive])


def spelled_names(bench: Bench) -> set[str]:
    """Names that the statement or the hidden tests spell."""
    texts = (bench.row.problem_statement, *bench.tests.values())
    return {name for text in texts if text for name in NAME.findall(text)}


def see(found: Sequence[Target], bench: Bench, gold: Outcome) -> None:
    """Note what functions are given in tests, by what ran and by what is written, and in examples."""
    look_at_calls(found, [text for text in bench.tests.values() if text])
    documented = [doc for one in found if (doc := ast.get_docstring(one.node))]
    for text in (bench.row.problem_statement, *documented):
        look_at_calls(found, list(examples_in(text)))
    by_place = {one.place: one for one in found}
    for calls in (gold.traced.calls if gold.traced is not None else {}).values():
        for path, line, given in calls:
            target = by_place[path, line]
            told = {name: "?" if _is_new(value, bench) else value for name, value in given.items()}
            target.see({name: value for name, value in told.items() if name in _known(target)})
            receiver = told.get("self", "?")
            if target.owner and not receiver.startswith("?") and receiver not in target.receivers:
                target.receivers.append(receiver)


def _is_new(source: str, bench: Bench) -> bool:
    """Whether an object's source has attributes that may be the reference's own choice: its class is of a changed file,
    and they do not stand there at base."""
    if not any(f"VerigymNotes.made({module_of(path)!r}" in source for path in bench.gold):
        return False
    known = {name for text in bench.base.values() if text for name in NAME.findall(text)}
    states = [one for one in ast.walk(ast.parse(source)) if isinstance(one, ast.Dict)]
    keys = {key.value for one in states for key in one.keys if isinstance(key, ast.Constant)}
    return not all(isinstance(key, str) and key in known for key in keys)


def _known(target: Target) -> set[str]:
    return {*target.parameters, *(one.arg for one in target.node.args.kwonlyargs), "*", "**"}


def concerning(found: Sequence[Target], gold: Files, left: Sequence[Variant]) -> list[Target]:
    """Targets in whose code the wrong solutions that are left differ, and the rest of their classes; all where they
    differ elsewhere."""
    places: set[tuple[str, int]] = set()
    for one in left:
        for path, text in one.files.items():
            after = gold.get(path)
            if after is not None:
                places |= {(path, first_line_of(node)) for node in changed_functions(text or "", after).values()}
    owners = {one.name.partition(".")[0] for one in found if one.place in places and (one.owner or "." in one.name)}
    near = [one for one in found if one.place in places or one.name.partition(".")[0] in owners]
    return near or list(found)
