"""What a Python tool prints for a matrix, a set or an interval, as LaTeX. Formulas are read as they are."""

import ast
import re

_MODULE = re.compile(r"(?<![\w.\\])(?:sympy|sp|np|numpy|math|cmath)\.(?=[a-zA-Z])")
_MATRIX = re.compile(r"(?:(?:Mutable|Immutable)(?:Dense)?)?(?:Matrix|array)\((\[.*\])\)|(\[\s*\[.*\]\s*\])", re.S)
_INTERVAL = re.compile(r"(?<![\w\\])Interval(?:\.(open|Lopen|Ropen))?\(([^(),]+(?:\([^()]*\)[^(),]*)*),([^,]+)\)")
_UNION = re.compile(r"Union\((.*)\)", re.S)
_SET = re.compile(r"FiniteSet\((.*)\)", re.S)
_DICTIONARY = re.compile(r"\{\s*([a-zA-Z]\w*+\s*+:[^{}:,]++(?:,\s*+[a-zA-Z]\w*+\s*+:[^{}:,]++)*+)\}")
_EQUATION = re.compile(r"Eq\(([^(),]+),([^,]+)\)")
_BOTH = re.compile(r"\(([^()&|]+)\) & \(([^()&|]+)\)")
_NAMED = (
    "Matrix",
    "array",
    "Interval",
    "Union",
    "FiniteSet",
    "EmptySet",
    "Eq(",
    "set(",
    ") & (",
    "[[",
    "[ [",
    "{",
    "sympy.",
    "sp.",
    "np.",
)
_BRACKETS = {None: "[]", "open": "()", "Lopen": "(]", "Ropen": "[)"}
_MOST_ROWS = 64


def from_python(text: str) -> str:
    """The text with Python's forms of matrices, sets, intervals and equations in LaTeX's; others as they are."""
    if "math." not in text and not any(name in text for name in _NAMED):
        return text
    text = _MODULE.sub("", text.strip())
    if text in ("EmptySet", "EmptySet()", "set()"):
        return r"\emptyset"
    if match := _MATRIX.fullmatch(text):
        return _matrix(match.group(1) or match.group(2)) or text
    if match := _SET.fullmatch(text):
        return rf"\{{{match.group(1)}\}}"
    if (match := _DICTIONARY.fullmatch(text)) and "\\" not in text:
        return re.sub(r"\s*:\s*", " = ", match.group(1))
    if match := _BOTH.fullmatch(text):
        return rf"{match.group(1)} \text{{ and }} {match.group(2)}"
    if match := _EQUATION.fullmatch(text):
        return f"{match.group(1).strip()} = {match.group(2).strip()}"
    if "Interval" in text:
        text = _INTERVAL.sub(_interval, text)
        if match := _UNION.fullmatch(text):
            return re.sub(r"(?<=[)\]])\s*,\s*(?=[(\[])", r" \\cup ", match.group(1))
    return text


def _interval(match: re.Match[str]) -> str:
    opener, closer = _BRACKETS[match.group(1)]
    ends = [end.strip() for end in match.groups()[1:]]
    if ends[0] == "-oo":
        opener = "("
    if ends[1] == "oo":
        closer = ")"
    return f"{opener}{ends[0]}, {ends[1]}{closer}".replace("oo", r"\infty")


def _matrix(text: str) -> str | None:
    """Rows of expressions; a plain list is a column, as sympy prints it. None where the text is no such list."""
    try:
        tree = ast.parse(text.replace("^", "**"), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    if not isinstance(tree, ast.List) or not 1 <= len(tree.elts) <= _MOST_ROWS:
        return None
    rows = [one.elts if isinstance(one, ast.List) else [one] for one in tree.elts]
    if len({len(row) for row in rows}) != 1 or any(isinstance(cell, ast.List) for row in rows for cell in row):
        return None
    try:
        cells = [" & ".join(ast.unparse(cell) for cell in row) for row in rows]
    except RecursionError:
        return None
    return r"\begin{pmatrix}" + r" \\ ".join(cells) + r"\end{pmatrix}"
