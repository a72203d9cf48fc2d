"""The source context of a recorded call: every line that its frames can show stands in it, wherever it is defined."""

import ast
import sysconfig
from pathlib import Path
from types import CodeType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.envs.trace.context import SourceTree
from verigym.envs.trace.examples import Example, Wanted
from verigym.model.chat.trace import START_MARKER, Frame, Trace

DEFINITION = """@decorated(
    1,
)
def total(
    items,
):
    key = lambda x: (
        x
    )
    return sum(items, key)
"""
BODIES = {
    "if": "if a:\n{0}elif b:\n{1}else:\n{2}",
    "for": "for a in b:\n{0}else:\n{1}",
    "while": "while a:\n{0}    break\nelse:\n{1}",
    "try": "try:\n{0}except (ImportError, OSError) as error:\n{1}except KeyError:\n    pass\nelse:\n{2}finally:\n{3}",
    "try*": "try:\n{0}except* ValueError:\n{1}",
    "with": "with a as b, (\n    c\n):\n{0}",
    "match": "match a:\n    case [b, *c] if b:\n{:4}    case {{'k': d}}:\n{:4}    case _:\n{:4}",
    "class": "class A(\n    list,\n):  # why\n    at = 1\n\n{0}",
    "async": "async def outer():\n    async with a:\n        pass\n{0}",
}
LIBRARY = Path(sysconfig.get_paths()["stdlib"])


def indented(text, depth=4):
    return "".join(" " * depth + line if line.strip() else line for line in text.splitlines(keepends=True))


def filled(template, parts):
    """The template with a part in each of its bodies, in turns."""
    parts = [parts[number % len(parts)] for number in range(4)]
    if "{:4}" in template:
        return template.format(*(_Deeper(part) for part in parts))
    return template.format(*map(indented, parts))


class _Deeper(str):
    def __format__(self, spec):
        return indented(self, 8)


SOURCES = st.recursive(
    st.sampled_from([DEFINITION, "one = 1\n", "pick = sorted(\n    one, key=lambda x: -x\n)\n"]),
    lambda inner: st.builds(filled, st.sampled_from(sorted(BODIES.values())), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=8,
)


def codes_of(code):
    """Code objects whose frames a recorder can meet first: those that no function holds."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if not inner.co_flags & 0x02:  # the body of a class: no CO_NEWLOCALS, or what stands in it
                yield from codes_of(inner)
            else:
                yield from ([inner] if inner.co_flags & 0x01 else codes_of(inner))


def lines_of(code):
    found = {line for _, _, line in code.co_lines() if line} | {code.co_firstlineno}
    return found.union(*(lines_of(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def missing_lines(path, compiled):
    """(function, line) of each line of a function that its context lacks."""
    tree = SourceTree(path.parent)
    for code in codes_of(compiled):
        context = tree.context((path.name, code.co_firstlineno), []).split("\n")
        assert sum(START_MARKER in line for line in context) == 1, code
        shown = {line.replace(START_MARKER, "") for line in context}
        for number in lines_of(code):
            if tree.line(path.name, number, entering=False)[:-1] not in shown:
                yield code.co_name, number


@pytest.mark.parametrize(
    "source",
    [
        "class A: pick = lambda x: x\n",
        "if a: pick = lambda x: x\n",
        "a = 1; pick = lambda x: x; b = 2\n",
        "def f(x=lambda y: y):\n    return x\n",
        "@dec(lambda y: y)\nclass A(\n    B\n): one = [i for i in B]; two = lambda: 1\n",
        "pick = {\n    'a': lambda: (\n        1\n    ),\n}\n",
        "x = 1\n\x0c\ndef f():\n    return '\u2028'\n",
        "if x:\r\n    def f():\r\n        return 1\r\n",
    ],
)
def test_functions_on_lines_that_hold_more(source, tmp_path):
    path = tmp_path / "a.py"
    path.write_bytes(source.encode())
    assert list(missing_lines(path, compile(source, "a.py", "exec"))) == []


@given(SOURCES)
def test_functions_in_any_compound_statement(source):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.py"
        path.write_text(source)
        assert list(missing_lines(path, compile(source, "a.py", "exec"))) == []


def test_every_compound_statement_of_the_grammar_is_among_them():
    """So a statement that a later Python brings is missed here first."""
    compound = {
        kind.__name__
        for kind in ast.stmt.__subclasses__()
        if {"body", "cases", "handlers"} & set(kind._fields) and "Def" not in kind.__name__
    }
    source = "".join(filled(template, [DEFINITION]) for template in BODIES.values())
    seen = {type(node).__name__ for node in ast.walk(ast.parse(source))}
    assert compound - {"AsyncFor", "AsyncWith"} <= seen


FILES = sorted(LIBRARY.glob("*.py"))


@pytest.mark.parametrize("start", range(4))
def test_functions_of_the_standard_library(start):
    functions = 0
    for path in FILES[start::12]:
        compiled = compile(path.read_bytes(), path.name, "exec")
        assert list(missing_lines(path, compiled)) == [], path
        functions += len(list(codes_of(compiled)))
    assert functions > 200


@pytest.mark.slow
def test_functions_of_the_whole_standard_library():
    functions = 0
    for path in FILES:
        compiled = compile(path.read_bytes(), path.name, "exec")
        assert list(missing_lines(path, compiled)) == [], path
        functions += len(list(codes_of(compiled)))
    assert functions > 5000


def test_the_usual_fallback(tmp_path):
    source = "try:\n    from fast import total\nexcept ImportError:\n    def total(items):\n        return sum(items)\n"
    (tmp_path / "a.py").write_text(source)
    found = SourceTree(tmp_path).context(("a.py", 4), [])
    assert found == f"# a.py\n    def total(items):{START_MARKER}\n        return sum(items)\n"


def test_the_head_of_a_class_is_whole(tmp_path):
    (tmp_path / "a.py").write_text("class A(\n    list,\n):  # why\n    at = 1\n\n    def f(self):\n        return 1\n")
    found = SourceTree(tmp_path).context(("a.py", 6), [])
    assert found == (f"# a.py\nclass A(\n    list,\n):  # why\n    def f(self):{START_MARKER}\n        return 1\n")


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfdef f(x):\n    return x\n",
        b"# coding: latin-1\ndef f(x):\n    return '\xe9'\n",
        b"def f(x):\r\n    return x\r\n",
        "def f(x):\n    return 'naïve\x0c'\n".encode(),
    ],
)
def test_files_are_read_as_python_reads_them(tmp_path, data):
    (tmp_path / "a.py").write_bytes(data)
    assert list(missing_lines(tmp_path / "a.py", compile(data, "a.py", "exec"))) == []


def test_a_trace_whose_context_lacks_a_line_is_not_kept():
    frames = (
        Frame(event="call", source="def f(x):\n", locals={"x": "1"}),
        Frame(event="line", source="    y = 1\n", locals={"x": ".."}),
        Frame(event="line", source="    return y\n", locals={"x": "..", "y": "1"}),
        Frame(event="return", source="    return y\n", value="1"),
    )
    whole = f"def f(x):{START_MARKER}\n    y = 1\n    return y\n"
    for context, objection in ((whole, ""), (whole.replace("    y = 1\n", ""), "outside_context")):
        example = Example(trace=Trace(context=context, frames=frames), kind="library", origin="", function="f")
        assert Wanted().objection(example) == objection
