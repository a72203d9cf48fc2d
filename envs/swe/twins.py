"""Twins of test functions: the same test, made to fail by a means of its own.

A twin that fails by a bare ``raise`` shows that a test's outcome is reported; it does not show that its assertions
assert. So each means that a test uses (an assertion of a form, a helper of unittest or numpy, ``pytest.raises``) gets
a statement that fails by it. This module is loaded in sandboxes too: standard library only, Python 3.8 or later.
"""

import ast
import copy
from typing import Any

CALLS = {
    # unittest
    "assertEqual": "(1, 2)",
    "assertEquals": "(1, 2)",
    "assertNotEqual": "(1, 1)",
    "assertTrue": "(0)",
    "assertFalse": "(1)",
    "assertIs": "(1, None)",
    "assertIsNot": "(None, None)",
    "assertIsNone": "(1)",
    "assertIsNotNone": "(None)",
    "assertIn": "(1, ())",
    "assertNotIn": "(1, (1,))",
    "assertIsInstance": "(1, str)",
    "assertNotIsInstance": "(1, int)",
    "assertIsSubclass": "(int, str)",
    "assertAlmostEqual": "(1, 2)",
    "assertNotAlmostEqual": "(1, 1)",
    "assertGreater": "(1, 2)",
    "assertGreaterEqual": "(1, 2)",
    "assertLess": "(2, 1)",
    "assertLessEqual": "(2, 1)",
    "assertRegex": "('a', 'b')",
    "assertNotRegex": "('a', 'a')",
    "assertCountEqual": "([1], [2])",
    "assertListEqual": "([1], [2])",
    "assertTupleEqual": "((1,), (2,))",
    "assertSetEqual": "({1}, {2})",
    "assertDictEqual": "({1: 1}, {1: 2})",
    "assertSequenceEqual": "([1], [2])",
    "assertMultiLineEqual": "('a', 'b')",
    "assertHTMLEqual": "('<p>a</p>', '<p>b</p>')",
    "assertXMLEqual": "('<p>a</p>', '<p>b</p>')",
    "assertJSONEqual": "('1', '2')",
    # numpy.testing, and nose, whose names others took over
    "assert_equal": "(1, 2)",
    "assert_equals": "(1, 2)",
    "assert_array_equal": "([1], [2])",
    "assert_allclose": "(1, 2)",
    "assert_almost_equal": "(1, 2)",
    "assert_array_almost_equal": "([1], [2])",
    "assert_true": "(0)",
    "assert_false": "(1)",
    "eq_": "(1, 2)",
    "ok_": "(0)",
}
"""Last name of a helper -> arguments that it must not accept."""

CONTEXTS = {
    "raises": "(ZeroDivisionError{})",
    "warns": "(UserWarning{})",
    "assertRaises": "(ZeroDivisionError{})",
    "assertRaisesRegex": "(ZeroDivisionError, 'a'{})",
    "assertRaisesMessage": "(ZeroDivisionError, 'a'{})",
    "assertWarns": "(UserWarning{})",
    "assertWarnsRegex": "(UserWarning, 'a'{})",
    "assertLogs": "()",
    "assert_raises": "(ZeroDivisionError{})",
}
"""Last name of a context manager that wants something to happen -> arguments; {}: a function, where it is called."""

COMPARED = {
    ast.Eq: "1 == 2",
    ast.NotEq: "1 != 1",
    ast.Lt: "2 < 1",
    ast.LtE: "2 <= 1",
    ast.Gt: "1 > 2",
    ast.GtE: "1 >= 2",
    ast.Is: "None is False",
    ast.IsNot: "None is not None",
    ast.In: "1 in ()",
    ast.NotIn: "1 not in (1,)",
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPES = (*FUNCTIONS, ast.Lambda, ast.ClassDef)


def first_line(node):
    """A definition's first line as its code object has it: of its first decorator."""
    return min([node.lineno, *(one.lineno for one in node.decorator_list)])


def definitions(tree):
    """Every function of a module: a list of chains [outer class or function, ..., function]."""
    found = []

    def visit(node, chain):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.ClassDef, *FUNCTIONS)):
                here = [*chain, child]
                if not isinstance(child, ast.ClassDef):
                    found.append(here)
                visit(child, here)
            elif not isinstance(child, ast.expr):
                visit(child, chain)

    visit(tree, [])
    return found


def means_of(function):
    """Statements that fail by what a test function uses, each in one line or two; at least one, in a fixed order."""
    found = {}
    contexts = {item.context_expr for node in ast.walk(function) for item in getattr(node, "items", ())}
    # A helper whose answer is used may say no by it, and not raise.
    calls = contexts | {node.value for node in ast.walk(function) if isinstance(node, ast.Expr)}
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            found[f"assert {_form_of(node.test)}"] = None
        elif isinstance(node, ast.Call):
            statement = _failing_call(node, function, as_context=node in contexts, alone=node in calls)
            if statement:
                found[statement] = None
    return list(found) or ["assert not 1", "raise AssertionError"]


def _form_of(test):
    """A false expression of the form of an assertion's."""
    if isinstance(test, ast.Compare):
        return COMPARED[type(test.ops[0])]
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return "not 1"
    if isinstance(test, ast.BoolOp):
        parts = [_form_of(value) for value in test.values[:2]]
        return (" and " if isinstance(test.op, ast.And) else " or ").join(parts)
    if isinstance(test, ast.Call) and isinstance(test.func, ast.Name):
        arguments = {"isinstance": "(1, str)", "issubclass": "(int, str)", "all": "([0])", "callable": "(1)"}
        arguments.update({"hasattr": "(1, 'a')", "any": "([0])"})
        return test.func.id + arguments[test.func.id] if test.func.id in arguments else "bool(0)"
    return "bool(0)" if isinstance(test, ast.Call) else "0"


def _failing_call(call, function, as_context, alone):
    dotted = _dotted(call.func)
    if not dotted or not _is_at_hand(dotted, function):
        return ""
    name = dotted.rpartition(".")[2]
    if name == "approx":
        return f"assert 1.0 == {dotted}(2.0)"
    if not alone:
        return ""
    if name in CALLS and len(call.args) >= CALLS[name].count(", ") + 1 - CALLS[name].count("(1,), ("):
        return dotted + CALLS[name]
    if name in CONTEXTS:
        if as_context:
            return f"with {dotted}{CONTEXTS[name].format('')}:\n    pass"
        # pytest.raises(E, f) and sympy's raises(E, f); others take a function last too.
        return dotted + CONTEXTS[name].format(", int") if len(call.args) > 1 and name != "assertLogs" else ""
    if name == "fail" and dotted in ("self.fail", "pytest.fail"):
        return f"{dotted}('no')"
    return ""


def _dotted(node):
    """ "a.b.c" of an expression of names, else ""."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def _is_at_hand(dotted, function):
    """Whether a dotted name means the same anywhere in a function's body: its ``self``, or nothing it assigns."""
    root = dotted.partition(".")[0]
    arguments = [one.arg for one in (*function.args.args, *function.args.kwonlyargs)]
    if root in arguments or root == "self":
        return arguments[:1] == [root] == ["self"]
    return not any(isinstance(node, ast.Name) and node.id == root and isinstance(node.ctx, ast.Store)
                   for node in ast.walk(function))  # fmt: skip


def leaves_early(function):
    """Whether a body may end elsewhere than at its last statement."""
    queue = list(function.body)
    while queue:
        node = queue.pop()
        if isinstance(node, (ast.Return, ast.Yield, ast.YieldFrom, ast.Raise)):
            return True
        if not isinstance(node, SCOPES):
            queue += ast.iter_child_nodes(node)
    return False


def has_docstring(function):
    first = function.body[0]
    return isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str)


def literals_of(function):
    """Literals that a value is compared with by a statement that runs whenever the test passes.

    In the place of one of them stands, in some twins, another value: what equals everything, or reads in the running
    test what it expects, passes then too.
    """
    if leaves_early(function):
        return []
    found = []
    for statement in function.body:
        plain = [side for side in _sides(statement) if _is_literal(side)]
        if len(plain) == 1:
            found.append(plain[0])
    return found


def _sides(statement):
    """The two expressions that a statement wants to be equal, or ()."""
    if isinstance(statement, ast.Assert) and isinstance(statement.test, ast.Compare):
        compare = statement.test
        is_one = len(compare.ops) == 1 and isinstance(compare.ops[0], ast.Eq)
        return (compare.left, compare.comparators[0]) if is_one else ()
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        call = statement.value
        return call.args[:2] if _dotted(call.func) == "self.assertEqual" and len(call.args) >= 2 else ()
    return ()


def _is_literal(node):
    if isinstance(node, (ast.List, ast.Tuple, ast.Dict, ast.Set)):
        children = list(ast.iter_child_nodes(node))
        return all(isinstance(child, ast.expr_context) or _is_literal(child) for child in children)
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str, bytes))


def unseen(node, number):
    """Another literal of a literal's own type and size, as text: what looks at types sees no difference."""
    value, step = ast.literal_eval(node), 1 + 7919 * number % 997
    if isinstance(value, bool):
        return repr(not value)
    if isinstance(value, (int, float)):
        moved = value + step
        return repr(moved if moved != value and moved == moved and abs(moved) != float("inf") else float(step))
    if isinstance(value, (str, bytes)):
        word = "%x" % (7919 * number + 10**9)
        return repr(value + (word if isinstance(value, str) else word.encode()))
    if isinstance(value, dict):
        return repr({**value, step: step})
    if isinstance(value, set):
        return repr(value | {step, step + 1000})
    return repr(value + type(value)([step]))


def asserting(function):
    """Statements that assert, run whenever the test passes, and can give way to one that fails by the same means:
    [(statement, failing statement)]. What answers falsely just once is used up by the failing one."""
    if leaves_early(function):
        return []
    found = []
    for statement in function.body:
        if isinstance(statement, ast.Assert):
            approximated = [one for one in ast.walk(statement.test) if isinstance(one, ast.Call)]
            means = [_failing_call(one, function, as_context=False, alone=False) for one in approximated]
            found.append((statement, next(filter(None, means), f"assert {_form_of(statement.test)}")))
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            text = _failing_call(statement.value, function, as_context=False, alone=True)
            if text:
                found.append((statement, text))
    return found


def choose(function, number):
    """What the twin of a number does; consecutive ones take the ways there are in turn, and those below 0 fail at once.

    Returns:
        (failing statement, "start" or "end", None), (failing statement, "instead", the statement that it replaces), or
        (another value, "literal", the literal that it replaces).
    """
    means, literals, replaced = means_of(function), literals_of(function), asserting(function)
    if number < 0:
        return means[-number % len(means)], "start", None
    turn, place = divmod(number, len(means) + bool(literals) + bool(replaced))
    if place == len(means) and literals:
        literal = literals[turn % len(literals)]
        return unseen(literal, number), "literal", literal
    if place >= len(means):
        statement, text = replaced[turn % len(replaced)]
        return text, "instead", statement
    # Where names are imported inside the function, they are not there yet at its start.
    local = any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.walk(function))
    return means[place], "end" if local or turn % 4 else "start", None


class _Replace(ast.NodeTransformer):
    def __init__(self, old, new):
        self._old, self._new = old, new

    def visit(self, node):
        return self._new if node is self._old else self.generic_visit(node)


def failing(function, number):
    """A copy of a function's node that fails whatever the code under test does."""
    function = copy.deepcopy(function)
    text, place, old = choose(function, number)
    if old is not None and place == "literal":
        new = ast.parse(text, mode="eval").body
        return _Replace(old, ast.copy_location(new, old)).visit(function)
    statements = ast.parse(text).body
    if old is not None:
        return _Replace(old, ast.copy_location(statements[0], old)).visit(function)
    nodes: Any = [inner for statement in statements for inner in ast.walk(statement)]
    for node in nodes:
        if hasattr(node, "lineno"):
            node.lineno = node.end_lineno = function.lineno
    if place == "start":
        function.body[has_docstring(function) : has_docstring(function)] = statements
    elif leaves_early(function):
        function.body = [ast.Try(body=function.body, handlers=[], orelse=[], finalbody=statements)]
    else:
        function.body += statements
    return function


def alone(chain, function):
    """A module in which a function stands where its chain has it, so that its code has the same free names."""
    node = function
    node.decorator_list = []
    for outer in reversed(chain[:-1]):
        outer_copy = copy.copy(outer)
        if isinstance(outer, ast.ClassDef):
            outer_copy.body, outer_copy.bases, outer_copy.keywords = [node], [], []
            outer_copy.decorator_list = []
        else:
            outer_copy.body = copy.deepcopy(outer.body)
            if not _put(outer_copy.body, node):
                return None
        node = outer_copy
    return ast.fix_missing_locations(ast.Module(body=[node], type_ignores=[]))


def _put(body, node):
    """Put a definition in the place of that of its name and line, in any block."""
    for parent in ast.walk(ast.Module(body=body, type_ignores=[])):
        for name in ("body", "orelse", "finalbody"):
            block: Any = getattr(parent, name, None)
            for place, old in enumerate(block if isinstance(block, list) else ()):
                if type(old) is type(node) and old.name == node.name and old.lineno == node.lineno:
                    block[place] = node
                    return True
    return False


def twin_text(text, numbers):
    """A file's text in which functions fail, everything else as it is written.

    Args:
        text: of a Python file.
        numbers: (names, ...) of functions, as in ("Class", "method") -> number of the twin.
    Returns:
        (text, the functions found).
    Raises:
        SyntaxError, ValueError, RecursionError: it is no Python.
    """
    changes, found = [], set()
    lines = text.split("\n")
    for chain in definitions(ast.parse(text)):
        names = tuple(node.name for node in chain)
        if names in numbers:
            found.add(names)
            changes.append((chain[-1], numbers[names]))
    for function, number in sorted(changes, key=lambda change: -change[0].lineno):
        written, place, old = choose(function, number)
        if old is None:
            _insert(lines, function, written, place)
        else:
            _overwrite(lines, old, written)
    return "\n".join(lines), found


def _insert(lines, function, statement, place):
    first, last = function.body[0], function.body[-1]
    if place == "start" and has_docstring(function) and len(function.body) > 1:
        first = function.body[1]
    top = min([first.lineno, *(one.lineno for one in getattr(first, "decorator_list", ()))])
    line = lines[top - 1]
    margin = line[: len(line) - len(line.lstrip())]
    if first.lineno == function.body[0].lineno and _stands_after_colon(line, first):
        # def f(): x  ->  the body gets lines of its own
        head = _bytes(line)
        margin += "    "
        cut = [head[: first.col_offset], head[first.col_offset :]]
        front, rest = (part.decode("utf-8", errors="surrogateescape") for part in cut)
        lines[top - 1 : top] = [front.rstrip(), *_indented(statement, margin), margin + rest]
    elif place == "start":
        lines[top - 1 : top - 1] = _indented(statement, margin)
    elif leaves_early(function):
        # ``finally`` without moving a line that may be part of a string
        lines[top - 1 : top - 1] = _indented(statement, margin)
    else:
        lines[last.end_lineno : last.end_lineno] = _indented(statement, margin)


def _overwrite(lines, node, text):
    """Put text in the place of an expression or a statement; the lines keep their number."""
    first, last = (_bytes(lines[n - 1]) for n in (node.lineno, node.end_lineno))
    before, after = first[: node.col_offset], last[node.end_col_offset :]
    empty = [""] * (node.end_lineno - node.lineno)
    if len(text.encode()) == node.end_col_offset - node.col_offset:
        text += " "  # a file of the same size within the same second would be taken for the old one by its byte code
    joined = (before + text.encode() + after).decode("utf-8", errors="surrogateescape")
    lines[node.lineno - 1 : node.end_lineno] = [joined, *empty]


def _bytes(line):
    return line.encode("utf-8", errors="surrogateescape")


def _stands_after_colon(line, first):
    return _bytes(line)[: first.col_offset].strip() != b""


def _indented(statement, margin):
    return [margin + line for line in statement.split("\n")]
