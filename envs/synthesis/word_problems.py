"""Word problems of two or three steps. What is held out: other numbers in the stories that are trained on, and other
stories."""

import ast
import random
from collections.abc import Iterator, Sequence
from string import Formatter

from ...errors import TaskError
from ..task import Task
from .small_sums import NAMES, THINGS

NUMBERS = {"a": range(50, 100), "b": range(20, 50), "x": range(2, 10), "y": range(2, 10), "z": range(2, 10)}
"""What the numbers of a story are drawn from, by their names in it."""

TRAIN: tuple[tuple[str, str], ...] = (
    ("{name} has {a} {things} and buys {x} bags of {y} each. How many are there now?", "{a} + {x} * {y}"),
    ("{name} has {a} {things} and gives {x} to each of {y} friends. How many are left?", "{a} - {x} * {y}"),
    ("{name} finds {a} {things} in the morning and {b} at noon, and loses {x}. How many are left?", "{a} + {b} - {x}"),
    (
        "{name} sorts {a} {things} into {x} equal rows and takes {y} from one row. How many stay in that row?",
        "{a} // {x} - {y}",
    ),
    (
        "{name} packs {x} boxes with {a} {things} each and {y} boxes with {b} each. How many in all?",
        "{x} * {a} + {y} * {b}",
    ),
    ("{name} has {a} {things}, {x} times as many as Sam. How many more does {name} have?", "{a} - {a} // {x}"),
    ("A train has {x} cars with {a} seats. {b} seats are taken. How many are free?", "{x} * {a} - {b}"),
    ("{name} reads {x} pages a day for {y} days and then {a} more. How many pages is that?", "{x} * {y} + {a}"),
    ("A farm has {a} hens. Each lays {x} eggs, and {b} eggs break. How many eggs are whole?", "{a} * {x} - {b}"),
    ("{name} saves {x} coins a week. After {y} weeks {z} coins are spent. How many are left?", "{x} * {y} - {z}"),
    (
        "There are {a} {things} in a shop. It sells {b}, then gets {x} boxes of {y}. How many are there?",
        "{a} - {b} + {x} * {y}",
    ),
    (
        "{name} cuts a rope of {a} feet into {x} equal pieces and ties {y} of them together. How long is that?",
        "{a} // {x} * {y}",
    ),
    ("{name} has {a} {things}, {b} more than Sam. How many do both have?", "{a} + {a} - {b}"),
    ("There are {a} {things} on a table. {x} people take {y} each. How many are on the table now?", "{a} - {x} * {y}"),
    (
        "A pond has {a} ducks. In each of {x} hours {y} more arrive. How many ducks are there at the end?",
        "{a} + {x} * {y}",
    ),
    ("{name} owns {a} {things} and gets {x} every day for {y} days. How many does {name} own now?", "{a} + {x} * {y}"),
    ("A candle is {a} cm long and burns {x} cm an hour. How long is it after {y} hours?", "{a} - {x} * {y}"),
    ("{name} prints {x} books of {a} pages and throws {b} pages away. How many pages are kept?", "{x} * {a} - {b}"),
    (
        "A cook fills {x} pots with {a} spoons of soup each and spills {y}. How many spoons are in the pots?",
        "{x} * {a} - {y}",
    ),
    ("{name} earns {a} coins on each of {x} days and spends {b}. How many coins remain?", "{a} * {x} - {b}"),
    ("A wall has {x} rows of {a} bricks. {y} bricks are added on top. How many bricks is that?", "{x} * {a} + {y}"),
    (
        "{name} had {a} {things}, gave {b} away and found {x} bags with {y} each. How many are there?",
        "{a} - {b} + {x} * {y}",
    ),
    (
        "A bank holds {a} coins. {b} are taken out, then {x} people bring {y} each. How many are in it?",
        "{a} - {b} + {x} * {y}",
    ),
    (
        "{name} has {a} points, loses {b}, then scores {y} points {x} times. How many points are that?",
        "{a} - {b} + {x} * {y}",
    ),
    (
        "{name} sells {x} big cakes for {a} coins each and {y} small ones for {b}. How many coins is that?",
        "{x} * {a} + {y} * {b}",
    ),
    ("A hall has {x} rows of {a} seats and {y} rows of {b}. How many seats are in the hall?", "{x} * {a} + {y} * {b}"),
    (
        "{x} trucks carry {a} {things} each and {y} carts carry {b} each. How many do they carry?",
        "{x} * {a} + {y} * {b}",
    ),
    (
        "{a} {things} lie in {x} equal heaps. {name} adds {y} to one heap. How many lie in that heap?",
        "{a} // {x} + {y}",
    ),
    (
        "{a} coins are split among {x} workers. Each also gets {y} as a gift. How many coins does each get?",
        "{a} // {x} + {y}",
    ),
    ("{name} divides {a} {things} among {x} children. One child eats {y}. How many has it left?", "{a} // {x} - {y}"),
    (
        "A ribbon of {a} inches is cut into {x} equal strips, and {y} inches are cut off one. How long is it?",
        "{a} // {x} - {y}",
    ),
    ("{name} buys {x} packs of {y} {things} and already had {a}. How many are there in all?", "{x} * {y} + {a}"),
    ("{name} has {a} stamps, Sam has {b} fewer. How many stamps do they have together?", "{a} + {a} - {b}"),
    ("A tank holds {a} litres. {b} are poured in and {x} leak out. How many litres are in it?", "{a} + {b} - {x}"),
    ("{name} has {a} {things} in each of {x} drawers and gives {b} away. How many are left?", "{a} * {x} - {b}"),
    ("A baker makes {x} loaves an hour for {y} hours and sells {z}. How many loaves are left?", "{x} * {y} - {z}"),
)
HELD_OUT: tuple[tuple[str, str], ...] = (
    ("{name} picks {a} {things} and puts {x} into each of {y} baskets. How many are over?", "{a} - {x} * {y}"),
    ("A bus has {a} people. At {x} stops {y} people get on. How many people are on it then?", "{a} + {x} * {y}"),
    ("{name} bakes {x} trays of {a} buns and eats {y}. How many buns are left?", "{x} * {a} - {y}"),
    ("{name} has {a} {things}, loses {b} and wins {x} games that pay {y} each. How many now?", "{a} - {b} + {x} * {y}"),
    ("A library buys {x} shelves for {a} books and {y} for {b}. How many books fit?", "{x} * {a} + {y} * {b}"),
    (
        "{a} {things} are shared among {x} friends. One then gets {y} more. How many does that one have?",
        "{a} // {x} + {y}",
    ),
    (
        "{name} plants {x} rows of {y} trees and {z} more by the gate. How many trees are planted?",
        "{x} * {y} + {z}",
    ),
    ("A barrel has {a} litres. {b} are poured out and {x} poured in. How many litres are in it?", "{a} - {b} + {x}"),
)
HELD_OUT_OF = 4
"""Numbers whose sum this divides are held out."""
MAX_ATTEMPTS = 1000


def word_problems(*, num: int, seed: int, held_out: bool) -> list[Task]:
    """Distinct problems of one split, as tasks of family "math": story after story, evenly. Who shows the first of them
    shows some stories, and leaves the others to be found out. Answers are whole numbers above 0 that neither the story
    states nor its first step gives.

    Half of the problems held out tell stories of ``TRAIN`` with numbers that training does not draw
    (``word-numbers-…``), and half those of ``HELD_OUT`` (``word-stories-…``).

    Raises:
        TaskError: more are asked for than can be found.
    """
    rng = random.Random(f"{seed}/{held_out}")
    if held_out:
        found = [*_told("numbers", TRAIN, num // 2, rng), *_told("stories", HELD_OUT, num - num // 2, rng)]
    else:
        found = list(_told("train", TRAIN, num, rng))
    if len(found) < num:
        raise TaskError(f"{num} word problems were asked for, and {len(found)} were found; ask for fewer")
    return found


def _told(split: str, stories: Sequence[tuple[str, str]], num: int, rng: random.Random) -> Iterator[Task]:
    """So many distinct problems, as many of each story; fewer where a story has no more."""
    seen: set[str] = set()
    for number in range(num):
        place = number * len(stories) // num
        for _ in range(MAX_ATTEMPTS):
            task = _draw(split, place, stories[place], rng)
            if task is not None and task.id not in seen:
                seen.add(task.id)
                yield task
                break
        else:
            return


def _draw(split: str, place: int, told: tuple[str, str], rng: random.Random) -> Task | None:
    """A problem with numbers drawn at random; None where they are another split's, or its answer none to ask for."""
    story, rule = told
    slots = sorted({slot for _, slot, _, _ in Formatter().parse(story) if slot in NUMBERS})
    numbers = {slot: rng.choice(NUMBERS[slot]) for slot in slots}
    if (sum(numbers.values()) % HELD_OUT_OF == 0) != (split != "train"):
        return None
    solution = rule.format(**numbers)
    answer = _value(solution)
    step = _first_step(solution)
    if answer is None or answer <= 0 or answer in (*numbers.values(), _value(step)):
        return None
    return Task(
        id=f"word-{split}-{place}-{'-'.join(map(str, numbers.values()))}",
        family="math",
        prompt=story.format(name=rng.choice(NAMES), things=rng.choice(THINGS), **numbers),
        hidden={"answer": str(answer), "solution": solution, "mistakes": [step]},
    )


def _first_step(solution: str) -> str:
    """The operation that is done first."""
    node = ast.parse(solution, mode="eval").body
    assert isinstance(node, ast.BinOp)
    while deeper := next((side for side in (node.left, node.right) if isinstance(side, ast.BinOp)), None):
        node = deeper
    return ast.unparse(node)


def _value(solution: str) -> int | None:
    """What a rule of this module's gives; None where a division leaves a rest."""
    value = eval(solution)
    return value if value == eval(solution.replace("//", "/")) else None
