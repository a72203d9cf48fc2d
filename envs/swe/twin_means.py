"""Means by which a test function fails: a false statement for each kind of assertion that it uses.

Part of the program that runs in the sandbox, and used by the host: standard library only, Python 3.8 or later.
"""

import ast

_PAGE = "type('R',(),{'status_code':200,'streaming':False,'charset':'utf-8','content':b'b'})()"
"""What Django's assertions take for a response."""

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
    # Django's, beside those that it has in common with others
    "assertHTMLNotEqual": "('<p>a</p>', '<p>a</p>')",
    "assertXMLNotEqual": "('<p>a</p>', '<p>a</p>')",
    "assertJSONNotEqual": "('1', '1')",
    "assertInHTML": "('<p>a</p>', '<b>a</b>')",
    "assertURLEqual": "('/a', '/b')",
    "assertQuerySetEqual": "([1], [2])",
    "assertQuerysetEqual": "([1], [2])",
    "assertContains": f"({_PAGE}, 'a')",
    "assertNotContains": f"({_PAGE}, 'b')",
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
    "assertWarnsMessage": "(UserWarning, 'a'{})",
    "assertNumQueries": "(9999{})",
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
    path = dotted(call.func)
    if not path or not _is_at_hand(path, function):
        return ""
    name = path.rpartition(".")[2]
    if name == "approx":
        return f"assert 1.0 == {path}(2.0)"
    if not alone:
        return ""
    if name in CALLS and len(call.args) >= CALLS[name].count(", ") + 1 - CALLS[name].count("(1,), ("):
        return path + CALLS[name]
    if name in CONTEXTS:
        if as_context:
            return f"with {path}{CONTEXTS[name].format('')}:\n    pass"
        # pytest.raises(E, f) and sympy's raises(E, f); others take a function last too.
        return path + CONTEXTS[name].format(", int") if len(call.args) > 1 and name != "assertLogs" else ""
    if name == "fail" and path in ("self.fail", "pytest.fail"):
        return f"{path}('no')"
    return ""


def dotted(node):
    """ "a.b.c" of an expression of names, else ""."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def _is_at_hand(path, function):
    """Whether a dotted name means the same anywhere in a function's body: its ``self``, or nothing it assigns."""
    root = path.partition(".")[0]
    arguments = [one.arg for one in (*function.args.args, *function.args.kwonlyargs)]
    if root in arguments or root == "self":
        return arguments[:1] == [root] == ["self"]
    return not any(isinstance(node, ast.Name) and node.id == root and isinstance(node.ctx, ast.Store)
                   for node in ast.walk(function))  # fmt: skip


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
