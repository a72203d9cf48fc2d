"""Right solutions: the reference with its changed functions written another way; nothing that they do is another."""

import ast
import copy
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence

from ...synthesis.spans import FunctionNode
from .inlining import inlined, moved
from .variants import Solved, Variant, changed_functions, first_line_of, lines_of, parsed, with_lines

_ASKS_ITSELF = frozenset(
    {"locals", "super", "eval", "exec", "vars", "dir", "globals", "_getframe", "stack", "currentframe"}
)
"""Calls that may see where they stand."""

Way = Callable[[FunctionNode], bool]


def structures(solved: Solved) -> list[Variant]:
    """Every changed function in other ways, one way a variant."""
    found = []
    for path, before, after in solved.pairs():
        tree = parsed(after)
        top = tree.body if tree else []
        for name, node in changed_functions(before, after).items():
            if _looks_at_itself(node):
                continue
            for kind, way in WAYS.items():
                text = _rewritten(after, node, way)
                if text is not None:
                    found.append(Variant(kind=kind, what=name, files={path: text}))
            text = _extracted(after, name, node, top)
            if text is not None:
                found.append(Variant(kind="extracted", what=name, files={path: text}))
    return [*found, *inlined(solved), *moved(solved)]


def _looks_at_itself(node: FunctionNode) -> bool:
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    names |= {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
    return bool(names & _ASKS_ITSELF)


def _rewritten(text: str, node: FunctionNode, way: Way) -> str | None:
    """A source with one function changed; None where the way has nothing to change in it."""
    changed = copy.deepcopy(node)
    if not way(changed):
        return None
    assert node.end_lineno is not None
    part = textwrap.indent(ast.unparse(ast.fix_missing_locations(changed)), " " * node.col_offset) + "\n"
    result = with_lines(text, first_line_of(node), node.end_lineno, part)
    return result if parsed(result) is not None else None


def swap_branches(node: FunctionNode) -> bool:
    """``if c: A else: B`` is ``if not c: B else: A``."""
    for one in ast.walk(node):
        is_elif = isinstance(one, ast.If) and len(one.orelse) == 1 and isinstance(one.orelse[0], ast.If)
        if isinstance(one, ast.If) and one.orelse and not is_elif:
            one.test = ast.UnaryOp(op=ast.Not(), operand=one.test)
            one.body, one.orelse = one.orelse, one.body
            return True
    return False


_TURNED: Mapping[type[ast.cmpop], Callable[[], ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}


def turn_comparison(node: FunctionNode) -> bool:
    """``a < b`` is ``b > a``, where one side is a number and the other a name."""
    for one in ast.walk(node):
        if not isinstance(one, ast.Compare) or len(one.ops) != 1 or type(one.ops[0]) not in _TURNED:
            continue
        sides = (one.left, one.comparators[0])
        plain = [isinstance(side, ast.Constant) and type(side.value) in (int, float) for side in sides]
        if any(plain) and all(a or isinstance(b, ast.Name) for a, b in zip(plain, sides)):
            one.left, one.comparators = sides[1], [sides[0]]
            one.ops = [_TURNED[type(one.ops[0])]()]
            return True
    return False


def name_results(node: FunctionNode) -> bool:
    """``return expression`` is ``the_result = expression`` and ``return the_result``."""
    done = False
    for one in ast.walk(node):
        if isinstance(one, ast.Lambda | ast.ClassDef) or (isinstance(one, FunctionNode) and one is not node):
            continue
        for field in ("body", "orelse", "finalbody"):
            block = getattr(one, field, None)
            if not isinstance(block, list):
                continue
            for index in range(len(block) - 1, -1, -1):
                last = block[index]
                if isinstance(last, ast.Return) and last.value is not None and not isinstance(last.value, ast.Name):
                    target = ast.Name(id="the_result", ctx=ast.Store())
                    block.insert(index, ast.Assign(targets=[target], value=last.value))
                    last.value = ast.Name(id="the_result", ctx=ast.Load())
                    done = True
    return done


def rename_locals(node: FunctionNode) -> bool:
    """A local variable has another name, where no inner function, class, comprehension or ``del`` can be concerned."""
    inner = (FunctionNode, ast.Lambda, ast.ClassDef, ast.Global, ast.Nonlocal, ast.ListComp, ast.SetComp, ast.DictComp)
    inner += (ast.GeneratorExp, ast.ExceptHandler, ast.Import, ast.ImportFrom, ast.Delete)
    if any(isinstance(one, inner) and one is not node for one in ast.walk(node)):
        return False
    every = node.args
    taken = {one.arg for one in (*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg) if one}
    bound = {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    local = sorted(name for name in bound - taken if not name.startswith("__"))
    for one in ast.walk(node):
        if isinstance(one, ast.Name) and one.id in local:
            one.id = f"{one.id}_here"
    return bool(local)


WAYS: Mapping[str, Way] = {
    "branches swapped": swap_branches,
    "comparison turned": turn_comparison,
    "result named": name_results,
    "locals renamed": rename_locals,
}


def _extracted(text: str, name: str, node: FunctionNode, top: Sequence[ast.stmt]) -> str | None:
    """A source where the function's body stands in another function, which it calls; functions of a module and
    methods of its classes only."""
    owner = next((one for one in top if any(_same(child, node) for child in _not_nested(one))), None)
    inside = {type(one) for one in ast.walk(node)}
    if owner is None or inside & {ast.Yield, ast.YieldFrom, ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Nonlocal}:
        return None
    private = any(isinstance(one, ast.Attribute) and one.attr.startswith("__") for one in ast.walk(node))
    private |= any(isinstance(one, ast.Name) and one.id.startswith("__") for one in ast.walk(node))
    if private or isinstance(node, ast.AsyncFunctionDef) or len(list(_body(node))) == 0:
        return None
    helper = copy.deepcopy(node)
    helper.name, helper.decorator_list, helper.returns = f"_extracted_{node.name}", [], None
    helper.body = list(_body(helper))
    helper.args.defaults, helper.args.kw_defaults = [], [None] * len(helper.args.kwonlyargs)
    every = helper.args
    for one in (*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg):
        if one is not None:
            one.annotation = None
    caller = copy.deepcopy(node)
    doc = [one for one in caller.body if one not in list(_body(caller))]
    caller.body = [*doc, ast.Return(value=_call_of(helper))]
    assert node.end_lineno is not None
    part = textwrap.indent(ast.unparse(ast.fix_missing_locations(caller)), " " * node.col_offset) + "\n"
    changed = with_lines(text, first_line_of(node), node.end_lineno, part)
    decorators = getattr(owner, "decorator_list", [])
    at = min([owner.lineno, *(one.lineno for one in decorators)])
    made = ast.unparse(ast.fix_missing_locations(helper)) + "\n\n\n"
    result = with_lines(changed, at, at, made + lines_of(changed, at, at))
    return result if parsed(result) is not None else None


def _not_nested(one: ast.stmt) -> Iterator[ast.AST]:
    """A statement of a module and what stands in it; a function in a function sees what that one has."""
    yield one
    if not isinstance(one, FunctionNode):
        yield from getattr(one, "body", ())


def _same(one: ast.AST, node: FunctionNode) -> bool:
    """Whether two readings of one source mean the same function."""
    return isinstance(one, FunctionNode) and (one.lineno, one.name) == (node.lineno, node.name)


def _body(node: FunctionNode) -> Iterator[ast.stmt]:
    """The statements without the docstring."""
    for index, one in enumerate(node.body):
        is_doc = index == 0 and isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
        if not is_doc:
            yield one


def _call_of(helper: FunctionNode) -> ast.Call:
    every = helper.args
    positional: list[ast.expr] = [ast.Name(id=one.arg, ctx=ast.Load()) for one in (*every.posonlyargs, *every.args)]
    if every.vararg:
        positional.append(ast.Starred(value=ast.Name(id=every.vararg.arg, ctx=ast.Load()), ctx=ast.Load()))
    named = [ast.keyword(arg=one.arg, value=ast.Name(id=one.arg, ctx=ast.Load())) for one in every.kwonlyargs]
    if every.kwarg:
        named.append(ast.keyword(arg=None, value=ast.Name(id=every.kwarg.arg, ctx=ast.Load())))
    return ast.Call(func=ast.Name(id=helper.name, ctx=ast.Load()), args=positional, keywords=named)
