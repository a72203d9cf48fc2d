"""Programs with their names taken away: every symbol, told apart by the scope that owns it, becomes a number."""

import ast
import builtins
import symtable
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any

BUILT_IN = frozenset(dir(builtins))
Functions = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_NAMING = ("__slots__", "__match_args__")
"""What a class calls by texts that are names of its attributes."""
_NAMED_TUPLE = "namedtuple"
"""Called with a name and with the names of fields, as texts."""
_REPLACING = ("replace", "_replace")
"""Called with names of fields."""
_Symbol = tuple[Any, str]
"""(the scope that owns a name, the name)."""


class _Scope:
    """A table of symbols, and the tables of the scopes within it in the order in which they are met."""

    def __init__(self, table: symtable.SymbolTable) -> None:
        self.table = table
        self._inner: dict[tuple[str, int], deque[symtable.SymbolTable]] = defaultdict(deque)
        for child in table.get_children():
            self._inner[child.get_name(), child.get_lineno()].append(child)

    def enter(self, name: str, line: int) -> "_Scope | None":
        waiting = self._inner[name, line]
        return _Scope(waiting.popleft()) if waiting else None


class _Comprehension:
    """The names that a comprehension binds, whether or not it has a table: from Python 3.12 most have none, and what
    stands in them is among the tables of the scope around it."""

    def __init__(self, around: "_Scope | _Comprehension", names: frozenset[str], number: int) -> None:
        self.names, self.number, self.enter = names, number, around.enter


class Renamed(ast.NodeTransformer):
    """Names become numbers, in the order in which they are met."""

    def __init__(self, tree: ast.Module, table: symtable.SymbolTable) -> None:
        self._numbers: dict[_Symbol, str] = {}
        self._scopes: list[_Scope | _Comprehension] = [_Scope(table)]
        self._module = table
        self._num_comprehensions = 0
        self._attributes = set(_own_attributes(tree))
        self._parameters = _parameters(tree)

    # Which symbol a name is.

    def _number(self, symbol: _Symbol) -> str:
        sign = "g" if symbol[0] == "global" else "_"  # the statements that say so are left out
        return self._numbers.setdefault(symbol, f"{sign}{len(self._numbers)}")

    def _name(self, name: str) -> str:
        for at in range(len(self._scopes) - 1, 0, -1):
            scope = self._scopes[at]
            if isinstance(scope, _Comprehension):
                if name in scope.names:
                    return self._number((scope.number, name))
                continue
            table = scope.table
            try:
                symbol = table.lookup(name)
            except KeyError:
                continue  # a scope of type parameters, or a mangled name
            if symbol.is_global():
                break
            if symbol.is_local() and not symbol.is_free():
                return self._attribute(name) if table.get_type() == "class" else self._number((table.get_id(), name))
        return self._global(name)

    def _global(self, name: str) -> str:
        try:
            symbol = self._module.lookup(name)
            own = symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()
        except KeyError:
            own = False
        return self._number(("global", name)) if own or name not in BUILT_IN else name

    def _attribute(self, name: str) -> str:
        is_special = name.startswith("__") and name.endswith("__")
        return name if is_special or name not in self._attributes else self._number(("attribute", name))

    # Scopes.

    def _within(self, name: str, line: int, node: ast.AST, outside: tuple[str, ...] = ()) -> None:
        """Visit a scope's own parts; those named ``outside`` belong to the scope around it and come first."""
        for field in outside:
            self._visit_field(node, field)
        scope = self._scopes[-1].enter(name, line)
        self._scopes += [scope] if scope else []
        nested = scope is not None and "type param" in str(scope.table.get_type()).lower().replace("_", " ")
        inner = scope.enter(name, line) if nested and scope is not None else None
        self._scopes += [inner] if inner else []
        for field in node._fields:
            if field not in outside:
                self._visit_field(node, field)
        del self._scopes[len(self._scopes) - bool(scope) - bool(inner) :]

    def _visit_field(self, node: ast.AST, field: str) -> None:
        value = getattr(node, field, None)
        if isinstance(value, list):
            setattr(node, field, [self.visit(one) if isinstance(one, ast.AST) else one for one in value])
        elif isinstance(value, ast.AST):
            setattr(node, field, self.visit(value))

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        name, node.name = node.name, self._name(node.name)
        for field in ("defaults", "kw_defaults"):
            self._visit_field(node.args, field)
        kept = node.args.defaults, node.args.kw_defaults
        node.args.defaults, node.args.kw_defaults = [], []
        self._within(name, node.lineno, node, ("decorator_list", "returns"))
        node.args.defaults, node.args.kw_defaults = kept
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        for field in ("defaults", "kw_defaults"):
            self._visit_field(node.args, field)
        kept = node.args.defaults, node.args.kw_defaults
        node.args.defaults, node.args.kw_defaults = [], []
        self._within("lambda", node.lineno, node)
        node.args.defaults, node.args.kw_defaults = kept
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        name, node.name = node.name, self._name(node.name)
        self._within(name, node.lineno, node, ("decorator_list", "bases", "keywords"))
        return node

    def _comprehension(self, node: Any) -> ast.AST:
        first = node.generators[0]
        first.iter = self.visit(first.iter)  # evaluated in the scope around it
        kept, first.iter = first.iter, ast.Constant(value=None)
        kind = {"ListComp": "listcomp", "SetComp": "setcomp", "DictComp": "dictcomp"}.get(type(node).__name__)
        scope = self._scopes[-1].enter(kind or "genexpr", node.lineno)
        self._num_comprehensions += 1
        around = scope or self._scopes[-1]
        targets = (name for one in node.generators for name in ast.walk(one.target) if isinstance(name, ast.Name))
        names = frozenset(name.id for name in targets if isinstance(name.ctx, ast.Store))
        own = [*([scope] if scope else []), _Comprehension(around, names, self._num_comprehensions)]
        self._scopes += own
        node.generators = [self.visit(one) for one in node.generators]
        for field in ("elt", "key", "value"):
            self._visit_field(node, field)
        del self._scopes[-len(own) :]
        first.iter = kept
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    # Names, wherever the grammar writes them as text.

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._name(node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self._name(node.arg)
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        node.attr = self._attribute(node.attr)
        return node

    def visit_Global(self, node: ast.Global | ast.Nonlocal) -> ast.AST:
        return ast.Pass()  # which symbol a name is, its number says

    visit_Nonlocal = visit_Global

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        if node.name is not None:
            node.name = self._name(node.name)
        return self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs | ast.MatchStar) -> ast.AST:
        if node.name is not None:
            node.name = self._name(node.name)
        return self.generic_visit(node)

    visit_MatchStar = visit_MatchAs

    def visit_MatchMapping(self, node: ast.MatchMapping) -> ast.AST:
        if node.rest is not None:
            node.rest = self._name(node.rest)
        return self.generic_visit(node)

    def visit_MatchClass(self, node: ast.MatchClass) -> ast.AST:
        node.kwd_attrs = [self._attribute(name) for name in node.kwd_attrs]
        return self.generic_visit(node)

    def visit_alias(self, node: ast.alias) -> ast.AST:
        """``import a`` and ``import a as b`` bind a name alike; ``import a.b`` binds ``a``, whatever it is called."""
        bound = node.asname or node.name
        if "." not in bound and bound != "*":
            node.asname = self._name(bound)
        elif bound != "*":
            self._numbers.setdefault(("global", bound.split(".")[0]), bound.split(".")[0])
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """An argument that is given by name has the number of the parameter, where the program defines one."""
        called = _called(node)
        known = self._parameters.get(called or "", {}) or self._parameters[""]
        named = [(keyword, known.get(keyword.arg or "")) for keyword in node.keywords]
        self.generic_visit(node)
        for keyword, place in named:
            if place is not None:
                keyword.arg = f"_{place}"
            elif keyword.arg in self._attributes and (called in self._parameters or called in _REPLACING):
                keyword.arg = self._attribute(keyword.arg or "")  # a field of a class
        if called == _NAMED_TUPLE and node.args:
            node.args = [ast.Constant(value=""), *map(self._fields, node.args[1:])]
        return node

    def _fields(self, node: ast.expr) -> ast.expr:
        names = _texts(node)
        return node if not names else ast.Tuple(elts=[ast.Constant(value=self._attribute(name)) for name in names])

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        if any(isinstance(one, ast.Name) and one.id in _NAMING for one in node.targets):
            for one in ast.walk(node.value):
                if isinstance(one, ast.Constant) and isinstance(one.value, str):
                    one.value = self._attribute(one.value)
        return self.generic_visit(node)

    # From Python 3.12.

    def visit_TypeVar(self, node: Any) -> ast.AST:
        node.name = self._name(node.name)
        return self.generic_visit(node)

    visit_ParamSpec = visit_TypeVarTuple = visit_TypeVar


def _own_attributes(tree: ast.Module) -> Iterator[str]:
    """Names of attributes that the program itself gives: in the bodies of classes, and by assignment."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node.attr
        elif isinstance(node, ast.Call) and _called(node) == _NAMED_TUPLE:
            yield from (name for one in node.args[1:] for name in _texts(one))
        elif isinstance(node, ast.ClassDef):
            for one in _same_scope(node):
                if isinstance(one, (*Functions, ast.ClassDef)):
                    yield one.name
                elif isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
                    yield one.id
                elif isinstance(one, ast.Assign) and any(getattr(to, "id", "") in _NAMING for to in one.targets):
                    texts = (text.value for text in ast.walk(one.value) if isinstance(text, ast.Constant))
                    yield from (text for text in texts if isinstance(text, str))


def _called(node: ast.Call) -> str | None:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)


def _texts(node: ast.expr) -> list[str]:
    """The names in a text, or in a list of texts."""
    texts = (one.value for one in ast.walk(node) if isinstance(one, ast.Constant))
    return [name for text in texts if isinstance(text, str) for name in text.replace(",", " ").split()]


def _same_scope(node: ast.ClassDef) -> Iterator[ast.AST]:
    waiting: list[ast.AST] = list(node.body)
    while waiting:
        one = waiting.pop()
        yield one
        if not isinstance(one, (*Functions, ast.ClassDef, ast.Lambda, *_COMPREHENSIONS)):
            waiting += ast.iter_child_nodes(one)


def _parameters(tree: ast.Module) -> dict[str, dict[str, str]]:
    """Name of a function, or of a class by its ``__init__`` -> parameter -> its place as text; "" has all of them."""
    found: dict[str, dict[str, str]] = {"": {}}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            own = [one for one in node.body if isinstance(one, Functions) and one.name == "__init__"]
            found.setdefault(node.name, {}).update(_places(own[0]) if own else {})
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _called(node.value) == _NAMED_TUPLE:
            found |= {one.id: {} for one in node.targets if isinstance(one, ast.Name)}
        elif isinstance(node, Functions):
            found.setdefault(node.name, {}).update(_places(node))
            for name, place in _places(node).items():
                found[""].setdefault(name, place)
    return found


def _places(node: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, str]:
    named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return {one.arg: f"p{place}" for place, one in enumerate(named)}
