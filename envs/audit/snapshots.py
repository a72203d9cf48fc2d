"""Tests that note what they see instead of judging it, with the arguments of the hidden tests and others near them.

A hidden test is copied; what it compares is noted, literals that it passes are varied, and the copy ends by failing
with its notes as the message. What it notes under the reference, three times and under every neutral rewrite alike, is
what a further test may ask for; where it notes something else under a mutant, the mutant is no solution.
"""

import ast
import copy
import json
import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .variants import parsed

MARK = "verigym noted "
MOST_NOTED = 16
"""Values of one test; their text has to fit the message of a failure."""
PREFIX = "test_varied_"
MOST_OTHERS = 4
"""Other literals of the same test that take a literal's place."""
_DIGITS = re.compile(r"[0-9]{1,9}")

_END = f"import json, pytest\npytest.fail({MARK!r} + json.dumps(verigym_notes), pytrace=False)"

HELPER = f'''

class VerigymNotes(list):
    """What a test saw, as text."""

    def note(self, value):
        if len(self) < {MOST_NOTED}:
            self.append(self.text(value))
        return value

    def text(self, value, depth=3):
        kind = type(value)
        if kind in (bool, int, float, complex, str, bytes, type(None)):
            text = repr(value)
        elif kind in (list, tuple) and depth:
            text = kind.__name__ + "(" + ", ".join(self.text(one, depth - 1) for one in list(value)[:50]) + ")"
        elif kind in (set, frozenset) and depth:
            text = kind.__name__ + "(" + ", ".join(sorted(self.text(one, depth - 1) for one in list(value)[:50])) + ")"
        elif isinstance(value, dict) and depth:
            few = list(value.items())[:50]
            pairs = [self.text(key, depth - 1) + ": " + self.text(one, depth - 1) for key, one in few]
            text = kind.__name__ + "(" + ", ".join(pairs) + ")"
        elif isinstance(value, BaseException):
            text = "raises " + kind.__name__
        else:
            text = repr(value)
            if " at 0x" in text or "_here" in text:
                text = kind.__name__
        return text[:200]
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A copy of a test.

    Attributes:
        name: of the copy.
        test: the function that it was copied from, dotted.
        what: the literal that was varied, as "old -> new"; "" where none was.
        node: the copy, which ends by telling its notes.
    """

    name: str
    test: str
    what: str
    node: ast.FunctionDef


def snapshots(
    text: str,
    tests: Collection[str],
    *,
    most: int,
    seed: str,
    hints: Collection[int | str] = (),
    options: Mapping[str, Sequence[tuple[str, Any]]] = MappingProxyType({}),
) -> list[Snapshot]:
    """Copies of some tests of a file.

    Args:
        tests: dotted names of functions ("TestA.test_b").
        hints: numbers and texts of the code under test: at them it may turn.
        options: name of a function under test -> its parameters with defaults: calls that leave them out give them.
        most: copies of all tests together; each test gets its share, the copy as it is among them.
    """
    tree = parsed(text)
    if tree is None:
        return []
    found: list[Snapshot] = []
    nodes = [(name, node) for name, node in _tests(tree) if name in tests]
    share = max(2, most // max(1, len(nodes)))
    for number, (name, node) in enumerate(nodes):
        rng = random.Random(f"{seed}/{name}")
        variations = list(_variations(node, hints))
        rng.shuffle(variations)
        # What no test gives at all comes first: it is what a test that looks away from it would not notice.
        variations = [*given_options(node, options), *variations]
        kept = [("", node), *variations[: share - 1]]
        for index, (what, varied) in enumerate(kept):
            copied = _noting(varied)
            copied.name = f"{PREFIX}{number}_{index}"
            found.append(Snapshot(name=copied.name, test=name, what=what, node=copied))
    return found[:most]


def noting_file(text: str, taken: Collection[Snapshot]) -> str:
    """A test file with its copies beside the tests: run, each fails with its notes."""
    return _with_copies(text, taken, lambda one: one.node)


def judging_file(text: str, expected: Mapping[str, tuple[Snapshot, Sequence[str]]]) -> str:
    """A test file with copies that judge.

    Args:
        expected: name of a copy -> (the copy, its notes under the reference; of a test with parameters, of each).
    """

    def judge(one: Snapshot) -> ast.FunctionDef:
        node = copy.deepcopy(one.node)
        notes = [json.loads(text) for text in expected[one.name][1]]
        told = f"== {notes[0]!r}" if len(notes) == 1 else f"in {notes!r}"
        node.body[-1] = ast.parse(f"assert verigym_notes {told}").body[0]
        if isinstance(node.body[0], ast.Assign) and one.what:
            node.body.insert(0, ast.Expr(ast.Constant(f"As {one.test}, with {one.what}.")))
        return node

    return _with_copies(text, [one for one, _ in expected.values()], judge)


def notes_in(message: str) -> str | None:
    """The notes in the message of a copy's failure; None where it did not come to its end."""
    _, found, rest = message.partition(MARK)
    if not found:
        return None
    end = rest.rfind("]")
    try:
        return json.dumps(json.loads(rest[: end + 1]))
    except ValueError:
        return None


def _with_copies(text: str, taken: Collection[Snapshot], made: Callable[[Snapshot], ast.FunctionDef]) -> str:
    """Module-level copies at the end; those of methods in a class beside the one that they come from."""
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    tree = parsed(text)
    assert tree is not None
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    inserted: dict[int, list[str]] = {}
    for one in taken:
        owner = classes.get(one.test.split(".")[0]) if "." in one.test else None
        source = ast.unparse(ast.fix_missing_locations(made(one)))
        if owner is None:
            inserted.setdefault(len(lines), []).append(f"\n\n{source}\n")
            continue
        assert owner.end_lineno is not None
        indent = " " * owner.body[0].col_offset
        body = "".join(f"{indent}{line}\n" if line.strip() else "\n" for line in source.splitlines())
        inserted.setdefault(owner.end_lineno, []).append(f"\n{body}")
    result = [*lines]
    for at in sorted(inserted, reverse=True):
        result[at:at] = inserted[at]
    return "".join(result) + HELPER


def _tests(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for child in node.body:
                if isinstance(child, ast.FunctionDef):
                    yield f"{node.name}.{child.name}", child


def _variations(node: ast.FunctionDef, hints: Collection[int | str]) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The test with one literal otherwise: of its body, and of what its decorators give it."""
    own = [one.value for one in _literals(node)]
    for position, constant in enumerate(_literals(node)):
        others = [one for one in dict.fromkeys(own) if type(one) is type(constant.value) and one != constant.value]
        values = [*_near(constant.value), *_hinted(constant.value, hints), *others[:MOST_OTHERS]]
        for value in dict.fromkeys(values):
            changed = copy.deepcopy(node)
            target = list(_literals(changed))[position]
            target.value = value
            yield f"{constant.value!r} -> {value!r}"[:120], changed


def given_options(
    node: ast.FunctionDef, options: Mapping[str, Sequence[tuple[str, Any]]]
) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The test with one more argument in each call of a function that leaves a parameter with a default out."""
    for name, parameters in options.items():
        for parameter, default in parameters:
            for value in _near(default) if default is not None else (True, 0, 1, 3, "", "a"):
                changed = copy.deepcopy(node)
                count = 0
                for one in (part for part in ast.walk(changed) if isinstance(part, ast.Call)):
                    given = {keyword.arg for keyword in one.keywords}
                    if _method(one) == name and parameter not in given and None not in given:
                        one.keywords.append(ast.keyword(arg=parameter, value=ast.Constant(value)))
                        count += 1
                if count:
                    yield f"{name}(..., {parameter}={value!r})"[:120], changed


def _literals(node: ast.FunctionDef) -> Iterator[ast.Constant]:
    """Numbers and texts that a test uses, in order; not what it says of itself or of its failures."""
    spared: set[int] = set()
    for one in ast.walk(node):
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant):
            spared.add(id(one.value))
        elif isinstance(one, ast.JoinedStr):
            spared |= {id(part) for part in ast.walk(one)}
        elif isinstance(one, ast.Assert) and one.msg is not None:
            spared |= {id(part) for part in ast.walk(one.msg)}
        elif isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr == "parametrize":
            spared |= {id(part) for argument in one.args[:1] for part in ast.walk(argument)}
            spared |= {id(part) for keyword in one.keywords for part in ast.walk(keyword)}
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and id(one) not in spared and type(one.value) in (int, float, str, bool):
            yield one


def _near(value: Any) -> list[Any]:
    """Values near a literal: neighbours, the other sign, zero, the empty one."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [near for near in (value + 1, value - 1, -value, 0, 2 * value + 1) if near != value]
    if isinstance(value, float):
        return [near for near in (-value, value / 2, value + 1.0, 0.0) if near != value]
    assert isinstance(value, str)
    cut = value[:-1]
    near = ["", f"{value}{value[-1:] or 'a'}", value[::-1], cut, value.upper(), f" {value}", value.replace(" ", "", 1)]
    near += [f"{value[: one.start()]}{int(one[0]) + 1}{value[one.end() :]}" for one in _DIGITS.finditer(value)]
    near += [value + value, value.swapcase(), value.replace(value[:1], "", 1)]
    return [text for text in dict.fromkeys(near) if text != value]


def _hinted(value: Any, hints: Collection[int | str]) -> list[Any]:
    """Hints of a literal's own type; of a number its neighbours too."""
    if type(value) is str:
        return [one for one in hints if type(one) is str and one != value]
    if type(value) is not int:
        return []
    near = {one + step for one in hints if type(one) is int for step in (-1, 0, 1)}
    return sorted(near - {value, *_near(value)})


def _noting(node: ast.FunctionDef) -> ast.FunctionDef:
    """A test that notes the operands of its checks, goes on after them, and fails with its notes."""
    made = _Noter().visit(copy.deepcopy(node))
    start = ast.parse("verigym_notes = VerigymNotes()").body
    end = ast.parse(_END).body
    body: list[ast.stmt] = [
        one for one in made.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
    ]
    guarded = ast.parse(
        "try:\n    pass\nexcept Exception as verigym_error:\n    verigym_notes.note(verigym_error)"
    ).body[0]
    assert isinstance(guarded, ast.Try)
    guarded.body = [*body, ast.Pass()]
    made.body = [*start, guarded, ast.If(test=ast.Constant(True), body=end, orelse=[])]
    made.returns = None
    return made


def _note(value: ast.expr) -> ast.Expr:
    return ast.Expr(ast.Call(ast.Attribute(ast.Name("verigym_notes", ast.Load()), "note", ast.Load()), [value], []))


class _Noter(ast.NodeTransformer):
    """Checks become notes."""

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        test = node.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            noted: list[ast.stmt] = [
                _note(one) for one in (test.left, *test.comparators) if not isinstance(one, ast.Constant)
            ]
            return noted
        return [_note(test)]

    def visit_Expr(self, node: ast.Expr) -> ast.stmt | list[ast.stmt]:
        call = node.value
        name = _method(call)
        if not name.startswith("assert") or not isinstance(call, ast.Call):
            # What a test calls without looking at it is noted too.
            return node if isinstance(call, ast.Constant | ast.Await | ast.Yield | ast.YieldFrom) else _note(call)
        if name in ("assertRaises", "assertRaisesRegex", "assertWarns") and len(call.args) > 1:
            used = call.args[2:] if name == "assertRaisesRegex" else call.args[1:]
            if not used:
                return node
            return [_note(ast.Call(used[0], used[1:], call.keywords))]
        return [_note(one) for one in call.args if not isinstance(one, ast.Constant)] or [node]

    def visit_Assign(self, node: ast.Assign) -> ast.stmt | list[ast.stmt]:
        target = node.targets[0]
        if isinstance(node.value, ast.Call) and len(node.targets) == 1 and isinstance(target, ast.Name):
            return [node, _note(ast.Name(target.id, ast.Load()))]
        return node

    def visit_With(self, node: ast.With) -> ast.stmt | list[ast.stmt]:
        self.generic_visit(node)
        names = [_method(item.context_expr) for item in node.items]
        if len(names) == 1 and names[0] in ("raises", "assertRaises", "assertRaisesRegex", "assertRaisesRegexp"):
            if node.items[0].optional_vars is not None:
                return node  # it looks at the exception
            guarded = ast.parse(
                "try:\n    pass\nexcept Exception as verigym_error:\n    verigym_notes.note(verigym_error)"
            )
            whole = guarded.body[0]
            assert isinstance(whole, ast.Try)
            end: list[ast.stmt] = [_note(ast.Constant("nothing is raised"))]
            whole.body = [one for block in (node.body, end) for one in block]
            return whole
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.stmt:
        self.generic_visit(node)
        return node


def _method(call: ast.expr) -> str:
    if not isinstance(call, ast.Call):
        return ""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
