"""One-line repairs: a function that contradicts its comment, to be written again as the comment says."""

import hashlib
import random

from ...errors import TaskError
from ..task import Task
from .small_functions import KINDS, WORDS, SmallFunction, draw_function, mistaken, with_calls

ASKED = "This function does not do what its comment says. Write it again without the mistake."
MAX_ATTEMPTS = 1000


def is_held_out(function: SmallFunction) -> bool:
    """A fifth of all functions, by a hash of what they compute: those that differ in names alone are of one split."""
    rule, places = function.rule, {name: str(place) for place, name in enumerate(function.arguments)}
    computed = f"argument {places[rule.left]} {rule.operator} {places.get(rule.right, f'number {rule.right}')}"
    return hashlib.sha256(computed.encode()).digest()[0] % 5 == 0


def small_repairs(*, num: int, seed: int, held_out: bool) -> list[Task]:
    """Distinct repairs of one split, as tasks of family "code", evenly over the kinds of mistakes. No right function
    of one split has a twin by other names in the other. Tests tell the right line from every other of its form, the
    mistaken one among them.

    Raises:
        TaskError: more are asked for than can be found.
    """
    rng = random.Random(f"{seed}/{held_out}")
    tasks: dict[str, Task] = {}
    for _ in range(MAX_ATTEMPTS * num):
        if len(tasks) == num:
            break
        kind = KINDS[len(tasks) % len(KINDS)]
        function = draw_function(rng.choice(WORDS), rng, kind=kind)
        if is_held_out(function) is held_out and (task := _task(function, kind, rng)) is not None:
            tasks.setdefault(task.prompt, task)
    if len(tasks) < num:
        raise TaskError(f"{num} repairs were asked for, and {len(tasks)} were found; ask for fewer")
    return list(tasks.values())


def _task(function: SmallFunction, kind: str, rng: random.Random) -> Task | None:
    """None where no call tells the mistake."""
    rule = mistaken(function, rng, kind=kind)
    called = with_calls(function, rule, rng, thorough=True)
    if called is None:
        return None
    broken = function.source(rule)
    tests = [{"args": list(call), "expected": value} for call, value in zip(called.calls, called.results())]
    return Task(
        id=f"repair-{kind}-{hashlib.sha256(broken.encode()).hexdigest()[:12]}",
        family="code",
        prompt=f"{ASKED}\n```python\n{broken}```",
        hidden={
            "fn_name": function.name,
            "tests": tests,
            "solution": function.source(),
            "mistakes": [broken],
        },
    )
