"""Whether two programs are the same but for their names and for the call that is traced."""

import ast
import builtins
import re
import symtable
import textwrap
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any

from ...model.chat.trace import START_MARKER

BUILT_IN = frozenset(dir(builtins))
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
Functions = (ast.FunctionDef, ast.AsyncFunctionDef)
_Symbol = tuple[Any, str]
"""(the scope that owns a name, the name)."""


def twin_key(context: str) -> str:
    """Equal for programs that differ in names, comments, docstrings, annotations and layout alone.

    Names are told apart by the scopes that own them: variables, parameters (also where a call names them), functions,
    classes, imports, and the attributes that the program itself gives. Built-ins and others' attributes keep theirs.

    Args:
        context: of a trace, or a program. The function that only makes the traced call does not count, so a function
            has the same key whatever it is called with.
    """
    try:
        tree = ast.parse(context)
        tree.body = [node for node in tree.body if not _only_calls(node, context)]
        return _key(tree)
    except UNREADABLE:
        return context


def function_keys(source: str) -> dict[str, str]:
    """The ``twin_key`` of each function and class of a program by itself: its key -> its name.

    A held-out function is found so in another file, in a class, or among others.
    """
    try:
        nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (*Functions, ast.ClassDef))]
    except UNREADABLE:
        return {}
    found = {}
    for node in nodes:
        if not _only_calls(node, source):
            node.decorator_list = []
            try:
                found[_key(ast.Module(body=[node], type_ignores=[]))] = node.name
            except UNREADABLE:
                continue
    return found


_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_OPENS = re.compile(r"(?m)^([ \t]*)(?:@|(?:async[ \t]+)?def[ \t]|class[ \t])")


def programs_in(text: str) -> Iterator[str]:
    """Pieces of a text that may be programs: the whole, what stands in fences, and each run of definitions."""
    yield text
    yield from (match[1] for match in _FENCE.finditer(text))
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        opened = _OPENS.match(lines[at])
        end = at + 1
        if opened:
            while end < len(lines) and _goes_on(lines[end], len(opened[1])):
                end += 1
            yield textwrap.dedent("\n".join(lines[at:end])) + "\n"
        at = end


def _goes_on(line: str, indent: int) -> bool:
    """Whether a line belongs to the definition that an earlier line of this indentation begins."""
    return not line.strip() or len(line) - len(line.lstrip()) > indent or bool(_OPENS.match(line))


def _only_calls(node: ast.AST, context: str) -> bool:
    """Whether this is the function that ``run.context_of`` adds."""
    if not isinstance(node, ast.FunctionDef) or not (len(node.body) == 1 and isinstance(node.body[0], ast.Return)):
        return False
    return context.split("\n")[node.lineno - 1] == f"def {node.name}():{START_MARKER}"


def _key(tree: ast.Module) -> str:
    source = ast.unparse(_Bare().visit(tree))  # so that lines are those of the symbol table
    tree = ast.parse(source)
    return ast.dump(_Renamed(tree, symtable.symtable(source, "program", "exec")).visit(tree))


class _Bare(ast.NodeTransformer):
    """Without what changes nothing that a function does: docstrings, ``pass`` and lone constants among statements,
    annotations (those in the body of a class may make fields), the ``u`` of a text."""

    def __init__(self) -> None:
        self._in_class = False

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                kept = [one for one in block if not _does_nothing(one)]
                setattr(node, field, kept or [ast.Pass()] * (field != "orelse"))
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        around, self._in_class = self._in_class, False
        self.generic_visit(node)
        self._in_class = around
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        around, self._in_class = self._in_class, True
        self.generic_visit(node)
        self._in_class = around
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if self._in_class:
            return node
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value, lineno=node.lineno), node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        node.kind = None
        return node


def _does_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


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


class _Renamed(ast.NodeTransformer):
    """Names become numbers, in the order in which they are met."""

    def __init__(self, tree: ast.Module, table: symtable.SymbolTable) -> None:
        self._numbers: dict[_Symbol, str] = {}
        self._scopes = [_Scope(table)]
        self._attributes = set(_own_attributes(tree))
        self._parameters = _parameters(tree)

    # Which symbol a name is.

    def _number(self, symbol: _Symbol) -> str:
        return self._numbers.setdefault(symbol, f"_{len(self._numbers)}")

    def _name(self, name: str) -> str:
        for at in range(len(self._scopes) - 1, 0, -1):
            table = self._scopes[at].table
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
            symbol = self._scopes[0].table.lookup(name)
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
        self._scopes += [scope] if scope else []
        node.generators = [self.visit(one) for one in node.generators]
        for field in ("elt", "key", "value"):
            self._visit_field(node, field)
        del self._scopes[len(self._scopes) - bool(scope) :]
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
        node.names = [self._name(name) for name in node.names]
        return node

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
        called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)
        known = self._parameters.get(called or "", {}) or self._parameters[""]
        named = [(keyword, known.get(keyword.arg or "")) for keyword in node.keywords]
        self.generic_visit(node)
        for keyword, place in named:
            if place is not None:
                keyword.arg = f"_{place}"
            elif keyword.arg is not None and keyword.arg in self._attributes and called in self._parameters:
                keyword.arg = self._attribute(keyword.arg)  # a field of a class
        return node

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
        elif isinstance(node, ast.ClassDef):
            for one in _same_scope(node):
                if isinstance(one, (*Functions, ast.ClassDef)):
                    yield one.name
                elif isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
                    yield one.id


def _same_scope(node: ast.ClassDef) -> Iterator[ast.AST]:
    waiting: list[ast.AST] = list(node.body)
    while waiting:
        one = waiting.pop()
        yield one
        if not isinstance(one, (*Functions, ast.ClassDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(one)


def _parameters(tree: ast.Module) -> dict[str, dict[str, str]]:
    """Name of a function, or of a class by its ``__init__`` -> parameter -> its place as text; "" has all of them."""
    found: dict[str, dict[str, str]] = {"": {}}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            own = [one for one in node.body if isinstance(one, Functions) and one.name == "__init__"]
            found.setdefault(node.name, {}).update(_places(own[0]) if own else {})
        elif isinstance(node, Functions):
            found.setdefault(node.name, {}).update(_places(node))
            for name, place in _places(node).items():
                found[""].setdefault(name, place)
    return found


def _places(node: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, str]:
    named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return {one.arg: f"p{place}" for place, one in enumerate(named)}
