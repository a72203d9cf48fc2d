"""The issue text of a synthesized task: what goes wrong, in plain words, and nothing of where.

No word of the fixed text is a Python keyword that a removed line could consist of (return, pass, raise, ...).
"""

import ast
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from .removal import first_line
from .secrecy import leak
from .spans import FunctionNode

MAX_EXAMPLES = 2
MAX_SNIPPET_LINES = 12
MAX_VALUE_CHARACTERS = 240
MAX_INPUT_CHARACTERS = 600
LITERALS = (ast.Constant, ast.List, ast.Dict)

ASSERTED = re.compile(r"(?:AssertionError: )?assert (?P<left>.+) == (?P<right>.+)")
UNEQUAL = re.compile(r"AssertionError: (?:\w+ differ: )?(?P<left>.+) != (?P<right>.+)")
NOT_RAISED = re.compile(r"(?:AssertionError: (\w+) not raised|Failed: DID NOT RAISE (?:<class '([\w.]+)'>|(\w+)))")
SCRUBBED = (
    (re.compile(r" at 0x[0-9a-f]+"), ""),
    (re.compile(r"[\w./\\-]+\.pyi?\b(:\d+)*"), "<file>"),
    (re.compile(r"/workspace\b[\w./-]*"), "<folder>"),
    (re.compile(r"\(?\bline \d+\)?"), ""),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One failing test, as the statement tells of it.

    Attributes:
        function: the test function's source file, as text, and the first line of the function in it.
        lines: lines of that file on the exception's way.
        message: the exception's last words, as pytest prints them.
        inputs: name -> text of plain values that the test could name ("count", "self.count").
    """

    function: tuple[str, int]
    lines: tuple[int, ...]
    message: str
    inputs: Mapping[str, str] = field(default_factory=dict)


def problem_statement(
    package: str, examples: Sequence[Example], *, num_failing: int, patch: str, secrets: Sequence[str] = ()
) -> str | None:
    """Tell what goes wrong, as fully as can be done without giving away the place.

    Args:
        package: what users call the code.
        examples: failing tests, the most telling first.
        num_failing: how many tests fail in all.
        patch: the fix; none of its paths and changed lines is in the statement.
        secrets: further words that must not be in it: names of hidden tests, the module's dotted name.
    Returns:
        Markdown, or None where even the plainest words would give it away, or all that shows an input, where a test has
        one.
    """
    told = sorted((example for example in examples if example.message), key=lambda example: not shows_input(example))
    count = f"In all, {num_failing} checks of its behaviour fail for this reason." if num_failing > 1 else ""
    wish = "Find the cause in the package's own code and correct it; the rest has to stay as it is."
    opening = f"`{package}` does not behave as it should."
    for body in _bodies(told):
        text = "\n\n".join(part for part in (opening, *dict.fromkeys(body), count, wish) if part) + "\n"
        if leak(text, patch, secrets) is None:
            return text
    return None


def _bodies(told: Sequence[Example]) -> Iterator[list[str]]:
    """What may stand between a statement's first and last words, the fullest first: some of the examples with code and
    values, with code alone, and where not one example has an input their outcomes, or nothing."""
    bare = [replace(example, inputs={}) for example in told]
    has_input = any(map(_has_input, told))
    for examples in (told, bare):
        for chosen in (examples[:MAX_EXAMPLES], *([example] for example in examples)):
            if not has_input or any(map(shows_input, chosen)):
                yield [with_code(example) for example in chosen]
    if not has_input:
        outcomes = [_sentence(outcome(example.message, _expected_side(example))) for example in told[:MAX_EXAMPLES]]
        yield from (outcomes, outcomes[:1], [])


def shows_input(example: Example) -> bool:
    """Whether what is shown of a test holds a value: one that it was given, or a literal in its code."""
    snippet = _snippet(example)
    return bool(_given(example, snippet)) or any(isinstance(node, LITERALS) for node in _nodes(snippet))


def _has_input(example: Example) -> bool:
    """Whether a test has a value to show, though what is shown of it may hold none, or be too long."""
    function = _function(example)
    statements = [] if function is None else _body(function)
    return shows_input(example) or any(isinstance(node, LITERALS) for one in statements for node in ast.walk(one))


def _body(function: FunctionNode) -> list[ast.stmt]:
    """A function's statements, without its docstring."""
    return function.body[1:] if ast.get_docstring(function) is not None else function.body


def _nodes(snippet: str) -> list[ast.AST]:
    try:
        return list(ast.walk(ast.parse(snippet)))
    except SyntaxError:
        return []


def with_code(example: Example) -> str:
    """What was run, and what came of it."""
    snippet = _snippet(example)
    came = outcome(example.message, _expected_side(example))
    if not snippet:
        return _sentence(came)
    given = ", ".join(f"`{name} = {_short(text)}`" for name, text in _given(example, snippet).items())
    return f"After\n\n```python\n{snippet}\n```\n\n{f'with {given}, ' if given else ''}{came}"


def _given(example: Example, snippet: str) -> dict[str, str]:
    """The values that the shown code uses and does not itself make: parameters, a loop's variables, attributes of
    ``self``, constants of the module; the first ones where they are many."""
    nodes, made = _nodes(snippet), set[str]()
    for node in nodes:
        if isinstance(node, ast.Assign):
            made = made.union(*map(_names, node.targets))
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
            made |= set(_names(node.target))
    chosen, length = {}, 0
    for name in _names(*nodes[:1]):
        if name in example.inputs and name not in made:
            length += len(example.inputs[name])
            if length <= MAX_INPUT_CHARACTERS:
                chosen[name] = example.inputs[name]
    return chosen


def _names(*trees: ast.AST) -> Iterator[str]:
    """Names and attributes of ``self`` in code, as they are written."""
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)]
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node.value, ast.Name) and node.value.id == "self":
            yield f"self.{node.attr}"


def outcome(message: str, expected_side: str | None = None) -> str:
    """The end of a sentence for an exception's last words.

    Args:
        message: as pytest prints it: "assert 1 == 2", "AssertionError: 1 != 2", "KeyError: 3".
        expected_side: "left" or "right" of the comparison is what should be; None where that is not known.
    """
    for pattern, replacement in SCRUBBED:
        message = pattern.sub(replacement, message)
    lines = [line for line in message.splitlines() if line.strip()] or ["an error without a message"]
    first = lines[0].strip()
    if absent := NOT_RAISED.search(first):
        return f"`{next(name for name in absent.groups() if name)}` was expected, but there was no exception."
    equal = ASSERTED.fullmatch(first) or UNEQUAL.fullmatch(first)
    if equal and first.count(" == ") + first.count(" != ") == 1:
        left, right = _short(equal["left"]), _short(equal["right"])
        if expected_side == "left":
            left, right = right, left
        if expected_side is None:
            return f"two values that should be equal are `{left}` and `{right}`."
        return f"the result was `{left}`, but `{right}` was expected."
    if first.startswith(("assert ", "AssertionError: assert ")):
        claim = first.removeprefix("AssertionError: ").removeprefix("assert ")
        where = [re.sub(r"^\+\s+where ", "", line.strip()) for line in lines[1:] if re.match(r"\s*\+\s+where ", line)]
        ground = f", where `{_short(where[0])}`" if where else ""
        return f"this should be true, but is not: `{_short(claim)}`{ground}."
    if first.startswith("AssertionError"):
        first = " ".join(line.strip() for line in lines[:4]) if first.endswith(":") else first
        return f"a check says: `{_short(first.removeprefix('AssertionError').lstrip(': ') or 'not true')}`."
    return f"there was an unexpected exception: `{_short(first)}`."


def _sentence(text: str) -> str:
    return f"In one case, {text}"


def _short(text: str) -> str:
    """A value as it is shown in backquotes."""
    text = text.replace("`", "'").strip()
    return text if len(text) <= MAX_VALUE_CHARACTERS else text[: MAX_VALUE_CHARACTERS - 4] + " ..."


def _snippet(example: Example) -> str:
    """The test's statements up to the one that failed; that one alone where it would be long; "" where unknown."""
    source, _ = example.function
    function, failed = _function(example), _failed_statement(example)
    if function is None or failed is None:
        return ""
    body = _body(function)
    outer = next((statement for statement in body if _spans(statement, failed.lineno)), failed)
    lines = re.split(r"\r\n|\r|\n", source)
    for spans in ([(body[0].lineno, _span(outer)[1])], _needed(body, outer), [_span(outer)], [_span(failed)]):
        shown = [line for first, last in spans for line in lines[first - 1 : last]]
        chosen = [line for line in shown if line.strip() and not line.lstrip().startswith("#")]
        if len(chosen) <= MAX_SNIPPET_LINES:
            return textwrap.dedent("\n".join(chosen)).replace("```", "'''")
    return ""


def _needed(body: Sequence[ast.stmt], outer: ast.stmt) -> list[tuple[int, int]]:
    """First and last lines of the statements that make what one of them uses, and of that one."""
    wanted, chosen = set(_names(outer)), [_span(outer)]
    for statement in reversed([one for one in body if one.lineno < outer.lineno]):
        if wanted & _made(statement):
            wanted.update(_names(statement))
            chosen.append(_span(statement))
    return chosen[::-1]


def _made(statement: ast.stmt) -> set[str]:
    """Names that a statement binds, and those of what it calls a method of (``items.append(3)``)."""
    made: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            made.update(_names(node))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            made.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Attribute)
        ):
            made.update(name for name in _names(node.value.func.value) if name != "self")
    return made


def _expected_side(example: Example) -> str | None:
    """Which side of the failed comparison is written out as a constant, and so is what should be."""
    failed = _failed_statement(example)
    sides: Sequence[ast.expr] = ()
    if isinstance(failed, ast.Assert) and isinstance(failed.test, ast.Compare) and len(failed.test.ops) == 1:
        sides = (failed.test.left, failed.test.comparators[0])
    elif isinstance(failed, ast.Expr) and isinstance(failed.value, ast.Call) and len(failed.value.args) >= 2:
        sides = failed.value.args[:2]
    if len(sides) != 2:
        return None
    constant = [not any(isinstance(node, ast.Call | ast.Name | ast.Attribute) for node in ast.walk(s)) for s in sides]
    named = [isinstance(side, ast.Name) and "expect" in side.id for side in sides]
    for marks in (constant, named):
        if marks[0] != marks[1]:
            return "left" if marks[0] else "right"
    return None


def _function(example: Example) -> FunctionNode | None:
    """The test's own function; where the exception did not pass it, the one that did first: ``setUp``, a fixture."""
    source, line = example.function
    functions = _functions(source)
    own = next((node for node in functions if first_line(node) == line), None)
    if own is None or not example.lines or any(_spans(own, number) for number in example.lines):
        return own
    around = [node for node in functions if _spans(node, example.lines[0])]
    return max(around, key=lambda node: node.lineno, default=own)


@lru_cache(maxsize=8)
def _functions(source: str) -> list[FunctionNode]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, FunctionNode)]


def _failed_statement(example: Example) -> ast.stmt | None:
    """The innermost statement of the test's own function on the exception's way."""
    function = _function(example)
    if function is None:
        return None
    inside = [line for line in example.lines if _spans(function, line)]
    if not inside:
        return None
    # The outermost line is the test's own; further ones are of functions that it defines inside.
    found = [node for node in ast.walk(function) if isinstance(node, ast.stmt) and _spans(node, inside[0])]
    innermost = min(found, key=lambda node: (_span(node)[1] - node.lineno, -node.lineno))
    return None if innermost is function else innermost


def _spans(node: ast.stmt, line: int) -> bool:
    first, last = _span(node)
    return first <= line <= last


def _span(node: ast.stmt) -> tuple[int, int]:
    assert node.end_lineno is not None
    return node.lineno, node.end_lineno
