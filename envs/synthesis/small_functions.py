"""Functions of one line for small repositories, each with a comment that says what it computes, and calls that tell
whether it does."""

import operator
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

WORDS = (
    "price", "count", "weight", "speed", "height", "volume", "score", "length", "rate", "stock", "debt", "power",
    "width", "depth", "heat", "load", "gain", "cost", "limit", "total", "balance", "bill", "blend", "charge",
    "draw", "grade", "level", "lift", "measure", "mix", "order", "pack", "pay", "plan", "press", "rank",
    "scale", "shift", "trade", "value",
)  # fmt: skip
"""Names of functions and of their arguments: what learns to copy one of them learns to copy the other."""
SUMS = {"+": "plus", "-": "minus", "*": "times", "//": "over", "%": "modulo"}
BOUNDS = {"<": "below", "<=": "within", ">": "above", ">=": "reaches"}
OPERATORS = {**SUMS, **BOUNDS}
"""And what a comment says of each."""
OFF_BY_ONE = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_DOES: dict[str, Callable[[int, int], int]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
KINDS = ("operator", "operand", "constant", "bound")
"""What a mistake has changed: what is done, with which argument, with which number, or whether the bound counts."""
NUM_ARGUMENTS = 3
CONSTANTS = range(2, 30)
MAX_ARGUMENT = 40
_Form = tuple[int, Callable[[int, int], int], int]
"""What a line could return: (place of an argument, operator, place among arguments and then numbers)."""
_FORMS: Sequence[_Form] = [
    (left, does, right)
    for left in range(NUM_ARGUMENTS)
    for does in _DOES.values()
    for right in range(NUM_ARGUMENTS + len(CONSTANTS))
    if left != right
]
NUM_TRIED = 80
"""Calls among which those are looked for that tell a mistake."""

Call = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a function returns: an argument, an operator, and another argument or a number."""

    left: str
    operator: str
    right: str

    @property
    def code(self) -> str:
        return f"{self.left} {self.operator} {self.right}"

    @property
    def words(self) -> str:
        """As a comment says it."""
        return f"{self.left} {OPERATORS[self.operator]} {self.right}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallFunction:
    """A function of one line.

    Attributes:
        rule: what it should return.
        said: what its comment says. Where that is another rule, the comment is out of date.
        calls: arguments of its tests; the repository has the first of them, the hidden tests may have all.
    """

    name: str
    arguments: tuple[str, ...]
    rule: Rule
    said: Rule
    calls: tuple[Call, ...] = ()

    @property
    def test_names(self) -> list[str]:
        return [f"test_{self.name}" + (f"_{number}" if number > 1 else "") for number in range(1, len(self.calls) + 1)]

    def source(self, rule: Rule | None = None) -> str:
        """Its text, with another rule in the place of its own where one is given."""
        head = f"def {self.name}({', '.join(self.arguments)}):  # {self.said.words}"
        return f"{head}\n    return {(rule or self.rule).code}\n"

    def tests(self, num: int | None = None) -> str:
        """The text of tests of its first calls; None: of all."""
        named = list(zip(self.test_names, self.calls, self.results(), strict=True))[:num]
        return "\n\n".join(
            f"def {name}():\n    assert {self.name}({', '.join(map(str, call))}) == {value}\n"
            for name, call, value in named
        )

    def results(self, rule: Rule | None = None) -> list[int]:
        """What its calls give, with another rule in the place of its own where one is given."""
        return [value_of(rule or self.rule, self.arguments, call) for call in self.calls]


def value_of(rule: Rule, arguments: Sequence[str], call: Call) -> int:
    """What the rule gives: ``eval`` of its code, faster."""
    left = call[arguments.index(rule.left)]
    right = int(rule.right) if rule.right.isdecimal() else call[arguments.index(rule.right)]
    return _DOES[rule.operator](left, right)


def draw_function(name: str, rng: random.Random, *, kind: str) -> SmallFunction:
    """A function without a mistake, in which one of this kind could be made. It has no calls yet."""
    arguments = tuple(rng.sample([word for word in WORDS if word != name], NUM_ARGUMENTS))
    left, right = rng.sample(arguments, 2)
    operators = {"operator": SUMS, "bound": BOUNDS}.get(kind, OPERATORS)
    if kind == "constant" or (kind != "operand" and rng.random() < 0.5):
        right = str(rng.choice(CONSTANTS))
    rule = Rule(left=left, operator=rng.choice(list(operators)), right=right)
    return SmallFunction(name=name, arguments=arguments, rule=rule, said=rule)


def mistaken(function: SmallFunction, rng: random.Random, *, kind: str) -> Rule:
    """The function's rule with a mistake of this kind."""
    rule = function.rule
    if kind == "operator":
        return replace(rule, operator=rng.choice([one for one in SUMS if one != rule.operator]))
    if kind == "operand":
        free = [one for one in function.arguments if one not in (rule.left, rule.right)]
        return replace(rule, right=rng.choice(free))
    if kind == "constant":
        return replace(rule, right=str(rng.choice([one for one in CONSTANTS if one != int(rule.right)])))
    return replace(rule, operator=OFF_BY_ONE[rule.operator])


def with_calls(
    function: SmallFunction, mistake: Rule | None, rng: random.Random, *, thorough: bool
) -> SmallFunction | None:
    """The function with calls; None where no call tells the mistake.

    Args:
        mistake: what the first call must tell from the function's rule.
        thorough: enough of them to tell every other line of the same form that any of ``NUM_TRIED`` calls tells.
    """
    tried = [_call(function, rng) for _ in range(NUM_TRIED)]
    first = 0 if mistake is None else _first_told(function, mistake, tried)
    if first is None:
        return None
    chosen = [tried.pop(first)]
    others = _others(function, _FORMS if thorough else (), chosen[0])
    for call in tried if others else ():
        left = _others(function, others, call)
        if len(left) < len(others):
            chosen.append(call)
        others = left
    if thorough and len(chosen) == 1:
        chosen.append(tried[0])  # the hidden tests have one that the repository does not
    return replace(function, calls=tuple(chosen))


def _first_told(function: SmallFunction, mistake: Rule, calls: Sequence[Call]) -> int | None:
    def value(rule: Rule, call: Call) -> int:
        return value_of(rule, function.arguments, call)

    return next((at for at, call in enumerate(calls) if value(function.rule, call) != value(mistake, call)), None)


def _others(function: SmallFunction, forms: Sequence[_Form], call: Call) -> list[_Form]:
    """The forms that give what the function gives for this call."""
    value = value_of(function.rule, function.arguments, call)
    places = (*call, *CONSTANTS)
    return [form for form in forms if form[1](call[form[0]], places[form[2]]) == value]


def _call(function: SmallFunction, rng: random.Random) -> Call:
    """Arguments: any, or about as large as the function's number, or as each other."""
    about = int(function.rule.right) if function.rule.right.isdecimal() else rng.randrange(2, MAX_ARGUMENT)
    near = [max(2, about + step) for step in (-1, 0, 0, 1)]
    return tuple(rng.choice(near) if rng.random() < 0.5 else rng.randrange(2, MAX_ARGUMENT) for _ in function.arguments)
