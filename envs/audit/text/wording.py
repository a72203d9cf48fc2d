"""Text taken apart: prose from code in a statement, names, words and literals in code that need not parse."""

import builtins
import keyword
import re

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_WORD = re.compile(r"[A-Za-z]{2,}|\d+")
_LITERAL = re.compile(r"""("{3}|'{3}|"|')((?:\\.|(?!\1).)*?)\1""", re.S)
_DOC = re.compile(r"""("{3}|'{3}).*?\1""", re.S)
_COMMENT = re.compile(r"#.*$", re.M)
_FENCE = re.compile(r"```.*?```|<details>.*?</details>", re.S)
_HIDDEN = re.compile(r"<!--.*?-->", re.S)
_CODE_LINE = re.compile(r"\s*(?:>>>|\.\.\.|In ?\[|Out ?\[|File \"|Traceback|\$ )|    |\t\t")
_CODE_MARK = re.compile(r"[=(){}\[\]\"_]")

COMMON = frozenset(keyword.kwlist) | frozenset(dir(builtins)) | {"self", "cls"}
"""Names that say nothing of a task."""
_PLAIN = """
the and for with this that from are not was but have has you can import def self return test tests assert class none
true false should when which will there what use using does would
"""
PLAIN = frozenset(_PLAIN.split())
"""Words that say nothing of a task."""


def prose_and_code(statement: str) -> tuple[str, str]:
    """A statement's prose, and its code: fenced, indented, sessions, tracebacks, and lines full of brackets."""
    code = _FENCE.findall(statement)
    prose = []
    for line in _HIDDEN.sub("", _FENCE.sub(" \n", statement)).split("\n"):
        marks = len(_CODE_MARK.findall(line))
        is_code = _CODE_LINE.match(line) or marks > max(3, len(line) / 12)
        (code if is_code else prose).append(line)
    return "\n".join(prose), "\n".join(code)


def title_of(statement: str) -> str:
    return statement.strip().partition("\n")[0]


def words(text: str) -> list[str]:
    """Words of two letters and more, and numbers, in lower case."""
    return _WORD.findall(text.lower())


def parts(text: str) -> set[str]:
    """What names are made of: "getHTTPName" and "get_http_name" are get, http, name; of three letters and more."""
    return {part.lower() for name in NAME.findall(text) for part in _PART.findall(name) if len(part) > 2}


def names(code: str) -> set[str]:
    """Names in code that are neither keywords nor builtins."""
    return set(NAME.findall(code)) - COMMON


def literals(code: str) -> list[str]:
    """Contents of string literals, docstrings among them, as they are written."""
    return [found[2] for found in _LITERAL.finditer(code)]


def without_literals(code: str) -> str:
    """Code without comments, its string literals empty."""
    return _LITERAL.sub('""', _COMMENT.sub("", code))


def without_docs(code: str) -> str:
    """Code without comments and triple-quoted text."""
    return _COMMENT.sub("", _DOC.sub("", code))
