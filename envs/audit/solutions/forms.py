"""Decisions on forms that a reference makes and nobody told: texts put around values, upper or lower case, what is not
looked at in a text, defaults, what an object can be asked without a name. Each is made otherwise only where neither the
statement nor the file at base speaks of it."""

import ast
import copy
import re
from collections.abc import Iterator, Mapping, Sequence

from .variants import Brought, Solved, Variant, brought, defaults_of

_TELLS_OF_FORMS = re.compile(
    r"\b(?:iso|rfc|pep|json|csv|html|xml|yaml|toml|sql|ur[li]s?|http|posix|markdown|roman|hex\w*|binary|octal|base\d+|"
    r"unicode|ascii|format\w*|syntax|like|as in|same as|repr|dates?|times?|paths?|email|quot\w+)\b",
    re.I,
)
_TELLS_OF_BLANKS = re.compile(
    r"\b(?:white|spaces?|blanks?|newlines?|lines?|tabs?|separat\w*|words?|join\w*|indent\w*|strip\w*|trim\w*|pad\w*)\b",
    re.I,
)
_TELLS_OF_CASE = re.compile(r"case|upper|lower|capital|slug|snake|camel|kebab|title|normal|hex|>>>", re.I)
_TELLS_OF_DEFAULTS = re.compile(r"\b(?:default\w*|unless|true|false|on|off|optional\w*|without)\b", re.I)
_SIGNS = {
    "-": "hyphen|dash|minus|kebab|negative", "_": "underscore|snake", ",": "comma", ".": "dot|period|point",
    "/": "slash", ":": "colon", ";": "semicolon", "|": "pipe|bar", "#": "hash", "%": "percent", "+": "plus",
    "=": "equals?", "(": "parenthes|bracket", "[": "bracket", "{": "brace", "<": "angle", "*": "star|asterisk",
}  # fmt: skip
_SHOWN = re.compile(r"sep|delim|prefix|suffix|joiner|fill|placeholder|label|title|ellipsis|marker", re.I)
"""Names of parameters whose texts are put around values."""
_PROTOCOLS: Mapping[str, str] = {
    "__eq__": r"equal|==|compar|same|identical|\beq\b",
    "__hash__": r"hash|\bsets?\b|\bdict|\bkeys?\b",
    "__len__": r"\blen|how (?:many|long)|number of|count|size",
    "__iter__": r"iter|loop|\bfor\b|\blist|unpack|\*",
    "__bool__": r"\btrue|\bfalse|empty|bool|truth",
    "__contains__": r"\bin\b|contain|member|holds?\b",
    "__lt__": r"sort|order|less|great|compar|<|>|smaller|larger|\bmin|\bmax",
    "__getitem__": r"index|\[|item|slice|sequence|subscript",
    "__add__": r"\+|\badd|operator|\bsum|concat",
    "__sub__": r"-|subtract|differ|minus",
    "__or__": r"\||union|merge|\bor\b",
    "__and__": r"&|intersect|\band\b",
    "__enter__": r"\bwith\b|context|closed?",
}
"""What an object can be asked -> how a statement speaks of it."""
_OTHER_CASE = {"upper": "lower", "lower": "upper", "title": "capitalize", "capitalize": "title", "casefold": "upper"}


def forms(solved: Solved) -> Iterator[Variant]:
    """Every decision of these kinds made otherwise."""
    for one in brought(solved):
        for decision in (_texts, _case, _normalised, _defaults, _protocols):
            yield from decision(one, solved.statement)


def _texts(one: Brought, statement: str) -> Iterator[Variant]:
    """Texts that a new function puts around what it gives back, each another one."""
    if not one.is_new or _TELLS_OF_FORMS.search(statement) or one.name.rpartition(".")[2].startswith("__"):
        return
    for node in ast.walk(one.node):
        value = node.value if isinstance(node, ast.Return | ast.Yield) else None
        if value is None:
            continue
        changed = copy.deepcopy(value)
        texts = [part for part in _put_around(changed) if not _is_told(str(part.value), statement, one.before)]
        if texts:
            shown = ", ".join(repr(part.value) for part in texts)
            for part in texts:
                part.value = f"zz{part.value}"
            written = f"({ast.unparse(changed)})"
            yield from one.variant("another text", f"{one.name} puts others than {shown}", [(value, written)])


def _put_around(value: ast.expr) -> Iterator[ast.Constant]:
    """Texts of which a value is made, as far as it shows; not those that other functions are given."""
    if isinstance(value, ast.Constant) and type(value.value) is str:
        yield value
    parts: Sequence[ast.expr] = ()
    if isinstance(value, ast.JoinedStr):
        parts = [part for part in value.values if isinstance(part, ast.Constant)]
    elif isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        parts = (value.left, value.right)
    elif isinstance(value, ast.IfExp):
        parts = (value.body, value.orelse)
    elif isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "join":
        parts = (value.func.value,)
    for part in parts:
        yield from _put_around(part)


def _is_told(text: str, statement: str, before: str) -> bool:
    core = text.strip()
    if not core:
        return not text or _TELLS_OF_BLANKS.search(statement) is not None
    named = re.search(_SIGNS[core], statement, re.I) if core in _SIGNS else None
    return named is not None or core.lower() in statement.lower() or core in before


def _case(one: Brought, statement: str) -> Iterator[Variant]:
    """A new function gives its text in the other case."""
    if not one.is_new or _TELLS_OF_CASE.search(statement):
        return
    for node in ast.walk(one.node):
        call = node.value if isinstance(node, ast.Return | ast.Yield) else None
        name = call.func.attr if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) else ""
        if name in _OTHER_CASE and isinstance(call, ast.Call) and f".{name}()" not in one.before:
            other = f"({ast.unparse(call)}).{_OTHER_CASE[name]}()"
            yield from one.variant("another case", f"{one.name} gives another case than {name}", [(call, other)])


def _normalised(one: Brought, statement: str) -> Iterator[Variant]:
    """A new function heeds case, or blanks at the ends, where it compares."""
    kinds = ((("lower", "upper", "casefold"), _TELLS_OF_CASE), (("strip", "lstrip", "rstrip"), _TELLS_OF_BLANKS))
    for names, told in kinds if one.is_new else ():
        compared = (node for node in ast.walk(one.node) if isinstance(node, ast.Compare))
        calls = [call for node in compared for part in ast.walk(node) if (call := _call_of(part, names))]
        if calls and not told.search(statement) and not any(f".{name}()" in one.before for name in names):
            edits = [(call, f"({ast.unparse(method.value)})") for call, method in _outermost(calls)]
            yield from one.variant("as it is given", f"{one.name} without {calls[0][1].attr}()", edits)


def _call_of(node: ast.AST, names: Sequence[str]) -> tuple[ast.Call, ast.Attribute] | None:
    """A call without arguments of a method that has one of the names, and the method."""
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and not node.args
        and node.func.attr in names
    ):
        return node, node.func
    return None


def _outermost(calls: Sequence[tuple[ast.Call, ast.Attribute]]) -> list[tuple[ast.Call, ast.Attribute]]:
    within = {id(part) for call, _ in calls for part in ast.walk(call) if part is not call}
    return [one for one in calls if id(one[0]) not in within]


def _defaults(one: Brought, statement: str) -> Iterator[Variant]:
    """What a new function takes where it is given nothing: numbers, texts that are shown and True, each another one."""
    for argument, default in defaults_of(one.node) if one.is_new else ():
        if not isinstance(default, ast.Constant) or f"{argument.arg}=" in f"{statement} {one.before}":
            continue
        value, other = default.value, ""
        if value is True and not _TELLS_OF_DEFAULTS.search(statement):
            other = "False"
        elif type(value) in (int, float) and value not in (0, 1):
            is_told = re.search(rf"(?<![\w.]){re.escape(str(value))}(?![\w.]*\w)", statement)
            other = "" if is_told else f"{value} * 2"
        elif type(value) is str and _SHOWN.search(argument.arg) and not _is_told(value, statement, ""):
            other = repr(f"zz{value}")
        if other:
            what = f"{one.name} takes another {argument.arg} where it is given none"
            yield from one.variant("another default", what, [(default, other)])


def _protocols(one: Brought, statement: str) -> Iterator[Variant]:
    """A new method that Python calls by itself (``len(x)``, ``x == y``) has another name."""
    told = _PROTOCOLS.get(one.node.name)
    if not one.is_new or told is None or one.node.name in statement or re.search(told, statement, re.I):
        return
    lines = one.text.splitlines(keepends=True)
    at = one.node.lineno - 1
    lines[at] = lines[at].replace(one.node.name, f"{one.node.name.strip('_')}_here", 1)
    what = f"{one.name} is not there"
    yield Variant(kind="another protocol", what=what, files={one.path: "".join(lines)})
