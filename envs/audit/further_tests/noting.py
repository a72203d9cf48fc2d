"""What a further test notes: the text of what it saw, alike on every machine and for every right solution.

Iterators are drained, objects are told by their public attributes, arguments that a call changed are noted beside its
result, of an exception its type. Long texts keep a digest of the rest.
"""

import ast
import copy
import json

MARK = "verigym noted "
MOST_NOTED = 16
"""Values of one test; their text has to fit the message of a failure."""
UNTOLD = ("raises RecursionError", "raises MemoryError", "cannot be shown")
"""What says more of the machine than of the code: nothing is asked for that the reference ends with so."""

_END = f"import json, pytest\npytest.fail({MARK!r} + json.dumps(verigym_notes), pytrace=False)"
_START = "verigym_notes = VerigymNotes()"

HELPER = f'''

class VerigymNotes(list):
    """What a test saw, as text."""

    def note(self, value, drain=True):
        self.late(value)
        self.tell(self.text(value, drain))
        return value

    def tell(self, text):
        if len(self) < {MOST_NOTED}:
            self.append(text)

    @staticmethod
    def made(module, name, state):
        """An object of a class by its attributes; None where there is no such class."""
        import importlib

        try:
            kind = importlib.import_module(module)
            for part in name.split("."):
                kind = getattr(kind, part)
            one = object.__new__(kind)
            one.__dict__.update(state)
        except Exception:
            return None
        return one

    def late(self, error):
        """A test whose time is over ends; it would not be ended a second time."""
        if isinstance(error, TimeoutError) and error.args == ("the test takes too long",):
            raise error

    def call(self, function, *args, **kwargs):
        """What a call gives or raises, and its arguments where it changed them."""
        given = [*args, *kwargs.values()]
        before = [self.text(one) for one in given]
        try:
            value = function(*args, **kwargs)
        except Exception as error:
            self.note(error)
            return None
        told = [self.text(value, True), *(now for one, was in zip(given, before) if (now := self.text(one)) != was)]
        self.tell(" and changes to ".join(told))
        return value

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        """Arguments that cannot be made are noted as what a call raises."""
        if isinstance(error, Exception):
            self.note(error)
        return isinstance(error, Exception)

    def method(self, one, name, *args, **kwargs):
        def called(*args, **kwargs):
            found = getattr(one, name)
            return found(*args, **kwargs) if callable(found) else found

        return self.call(called, *args, **kwargs)

    def text(self, value, drain=False, depth=3):
        import hashlib

        try:
            text = self.whole(value, drain, depth)
        except Exception as error:
            self.late(error)
            text = "cannot be shown: " + type(error).__name__
        return text if len(text) <= 160 else text[:120] + "... " + hashlib.sha256(repr(text).encode()).hexdigest()[:12]

    def whole(self, value, drain, depth):
        kind = type(value)
        if kind in (bool, int, float, complex, str, bytes, type(None)):
            return repr(value)
        if isinstance(value, BaseException):
            return "raises " + kind.__name__
        if isinstance(value, type):
            return "type " + kind.__name__ + " " + value.__name__
        if hasattr(kind, "__next__"):
            return "iterator(" + self.drained(value, depth) + ")" if drain else "iterator"
        if kind in (list, tuple) and depth:
            return kind.__name__ + "(" + ", ".join(self.text(one, drain, depth - 1) for one in value[:50]) + ")"
        if kind in (set, frozenset) and depth:
            texts = sorted(self.text(one, drain, depth - 1) for one in value)
            return kind.__name__ + "(" + ", ".join(texts[:50]) + ")"
        if isinstance(value, dict) and depth:
            pairs = [(self.text(key), self.text(one, drain, depth - 1)) for key, one in list(value.items())[:50]]
            return kind.__name__ + "(" + ", ".join(key + ": " + one for key, one in pairs) + ")"
        text = repr(value)
        if " at 0x" not in text and "_here" not in text:
            return text
        own = getattr(value, "__dict__", {{}}) if depth and not callable(value) else {{}}
        shown = [name + "=" + self.text(own[name], False, depth - 1) for name in sorted(own) if name[:1] != "_"]
        return kind.__name__ + "(" + ", ".join(shown) + ")"

    def drained(self, iterator, depth):
        texts = []
        try:
            for one in iterator:
                texts.append(self.text(one, True, max(depth - 1, 0)))
                if len(texts) == 50:
                    break
        except Exception as error:
            self.late(error)
            texts.append(self.text(error))
        return ", ".join(texts)
'''


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


def noting(node: ast.FunctionDef) -> ast.FunctionDef:
    """A test that notes the operands of its checks, goes on after them, tells at last what became of what it named, and
    fails with its notes."""
    made = _Noter().visit(copy.deepcopy(node))
    body: list[ast.stmt] = [
        one for one in made.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
    ]
    guarded = _guard([*body, *map(_note, _named(node)), ast.Pass()])
    made.body = [*ast.parse(_START).body, guarded, *ending()]
    made.returns = None
    return made


def ending() -> list[ast.stmt]:
    """How a test ends that notes: one statement, which a test that judges replaces."""
    return [ast.If(test=ast.Constant(True), body=ast.parse(_END).body, orelse=[])]


def calling(name: str, lines: list[str]) -> ast.FunctionDef:
    """A test of some statements, among them calls of ``verigym_notes``."""
    node = ast.parse(f"def {name}():\n    pass").body[0]
    assert isinstance(node, ast.FunctionDef)
    body = [f"with verigym_notes:\n    {line}" if line.count("(") > 1 else line for line in lines[1:]]
    node.body = [*ast.parse("\n".join([*lines[:1], _START, *body])).body, *ending()]
    return node


def _named(node: ast.FunctionDef) -> list[ast.expr]:
    """What a test's own statements give a name to, but for modules, functions and classes."""
    found: dict[str, ast.expr] = {}
    for one in node.body:
        targets = one.targets if isinstance(one, ast.Assign) else []
        for target in targets:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            found |= {name.id: ast.Name(name.id, ast.Load()) for name in names if isinstance(name, ast.Name)}
    return list(found.values())


def _guard(body: list[ast.stmt]) -> ast.Try:
    guarded = ast.parse(
        "try:\n    pass\nexcept Exception as verigym_error:\n    verigym_notes.note(verigym_error)"
    ).body[0]
    assert isinstance(guarded, ast.Try)
    guarded.body = body
    return guarded


def _note(value: ast.expr) -> ast.Expr:
    return ast.Expr(ast.Call(ast.Attribute(ast.Name("verigym_notes", ast.Load()), "note", ast.Load()), [value], []))


class _Noter(ast.NodeTransformer):
    """Checks become notes."""

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        test = node.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            noted: list[ast.stmt] = [_note(one) for one in (test.left, *test.comparators) if not is_written_out(one)]
            return noted or [ast.Pass()]
        return [_note(test)]

    def visit_Expr(self, node: ast.Expr) -> ast.stmt | list[ast.stmt]:
        call = node.value
        name = called(call)
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
            seen = _note(ast.Name(target.id, ast.Load()))
            assert isinstance(seen.value, ast.Call)
            seen.value.args.append(ast.Constant(False))  # the test is to find an iterator as it came
            return [node, seen]
        return node

    def visit_With(self, node: ast.With) -> ast.stmt | list[ast.stmt]:
        self.generic_visit(node)
        names = [called(item.context_expr) for item in node.items]
        if len(names) == 1 and names[0] in ("raises", "assertRaises", "assertRaisesRegex", "assertRaisesRegexp"):
            if node.items[0].optional_vars is not None:
                return node  # it looks at the exception
            end: list[ast.stmt] = [_note(ast.Constant("nothing is raised"))]
            return _guard([one for block in (node.body, end) for one in block])
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.stmt:
        self.generic_visit(node)
        return node


def is_written_out(node: ast.expr) -> bool:
    """Whether an expression is a value written out, with nothing in it to look up."""
    return not any(isinstance(one, ast.Call | ast.Name | ast.Attribute) for one in ast.walk(node))


def expected_in(node: ast.FunctionDef) -> set[int]:
    """``id`` of the nodes that a test compares with, written out."""
    checks = [one.test for one in ast.walk(node) if isinstance(one, ast.Assert) and isinstance(one.test, ast.Compare)]
    sides = [one for check in checks for one in (check.left, *check.comparators) if is_written_out(one)]
    return {id(part) for side in sides for part in ast.walk(side)}


def called(call: ast.AST) -> str:
    """The last name of what is called; "" where nothing is."""
    if not isinstance(call, ast.Call):
        return ""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
