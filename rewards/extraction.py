"""The program, or the expression, that a response holds. Text only; nothing is run."""

import ast
import re
from typing import NamedTuple

_PYTHON = frozenset({"python", "python3", "py", "py3", "sage"})
_FENCE = re.compile(r"((?<!`)`{3,}+|(?<!~)~{3,}+)[ \t]*+[{.]*+([\w+#-]*+)[^\n`~]*+")
_INLINE = re.compile(r"(?<!`)(`{3,}+)[ \t]*+([\w+#-]++)[ \t]+")
_TAGGED = re.compile(r"\[PYTHON\]\n?(.*?)(?:\[/PYTHON\]|\Z)", re.S)


class _Block(NamedTuple):
    language: str
    body: str


def extract_program(text: str, defines: str = "") -> str:
    """The program of a response: its last fenced Python block.

    Blocks named ``python``, ``python3`` or ``py`` come first, then those without a name; blocks of another language
    are not programs. A response without any fence is the program itself, less its thinking (thinking that never ends
    leaves none). A response whose only blocks are of another language holds no program: "".

    Args:
        defines: a function that is asked for: of several blocks, the last that defines it is taken, if there is one.
    """
    text = _answer(text)
    blocks = _blocks(text)
    if not blocks:
        tagged = _TAGGED.findall(text)
        return tagged[-1] if tagged else text
    for wanted in (_PYTHON, frozenset({""})):
        found = [block.body for block in blocks if block.language in wanted]
        if found:
            return next((body for body in reversed(found) if defines and defines_function(body, defines)), found[-1])
    return ""


def _answer(text: str) -> str:
    """A response less its thinking; "" where that never ends."""
    if "</think>" in text:
        return text.rpartition("</think>")[2]
    return "" if text.lstrip().startswith("<think>") else text


def _blocks(text: str) -> list[_Block]:
    """Fenced blocks, in order. A fence may follow prose on its line, and the last block may lack its end."""
    lines = text.replace("\r\n", "\n").split("\n")
    blocks: list[_Block] = []
    at = 0
    while at < len(lines):
        if "```" not in lines[at] and "~~~" not in lines[at]:
            at += 1
            continue
        inline = _inline(lines[at])
        if inline is not None:
            blocks.append(_Block(language="python", body=inline))
            at += 1
            continue
        opened = _FENCE.search(lines[at])
        before = lines[at][: opened.start()] if opened else ""
        # Behind prose only a fence that names Python opens a block: "the ``` marks".
        prose = before.strip() and not (opened and opened[2].casefold() in _PYTHON)
        if opened is None or opened.end() != len(lines[at]) or prose:
            at += 1
            continue
        end = _end(lines, at + 1, opened.group(1))
        if end == len(lines) and not opened.group(2) and not "".join(lines[at + 1 :]).strip():
            # The only fence of a response that goes on from a prompt's opened block.
            return blocks or [_Block(language="", body="\n".join(lines[:at]) + "\n")]
        # In an item of a list the block is as far in as its fence.
        body = [line.removeprefix("" if before.strip() else before) for line in lines[at + 1 : end + 1]]
        if end < len(lines):
            body[-1] = body[-1].partition(opened.group(1))[0].rstrip()
            body = body if body[-1] else [*body[:-1], ""]
        blocks.append(_Block(language=opened.group(2).casefold(), body="\n".join(body)))
        at = end + 1
    return blocks


def _is_word(letter: str) -> bool:
    return letter.isalnum() or letter == "_"


def _inline(line: str) -> str | None:
    """The Python between two fences of one line; None where there is none."""
    if line.rfind("```") < line.find("```") + 3:
        return None  # one fence, if any
    opened = _INLINE.search(line)
    if opened is None or opened[2].casefold() not in _PYTHON:
        return None
    end = line.find(opened[1], opened.end())
    return None if end < 0 else line[opened.end() : end].rstrip(" \t")


def _end(lines: list[str], start: int, fence: str) -> int:
    """The line that closes a block: it begins with the fence, or ends with it; their number where none does."""
    for at in range(start, len(lines)):
        line = lines[at].strip()
        if line.startswith(fence) and not _is_word(line[len(fence) :].lstrip(" \t")[:1]):
            return at
        if line.endswith(fence) and line.count(fence) == 1:
            return at
    return len(lines)


def defines_function(source: str, name: str) -> bool:
    """Whether a source defines a function or a class, or assigns a name, at its outermost level."""
    if name not in source:
        return False
    word = re.escape(name)
    found = re.search(rf"^(?:(?:async[ \t]+)?def|class)[ \t]+{word}\b|^{word}[ \t]*(?::[^=\n]*)?=(?!=)", source, re.M)
    return found is not None


def complete_function(text: str, prompt: str, name: str) -> str:
    """The program of a response to a prompt that is the head of a function, as HumanEval's are.

    A response that defines the function is a whole program; in a fence, as an answer to who showed the prompt, it has
    before it the imports and helpers that stand before the function there. A bare one is graded as it is, as by
    EvalPlus. Anything else continues the prompt where it ends: the body, indented as written.
    """
    program = extract_program(text, name)
    if not program.strip():
        return program
    if defines_function(program, name):
        return _behind(_before(prompt, name), program) if _blocks(_answer(text)) else program
    first = next(line for line in program.split("\n") if line.strip())
    if first[:1] not in " \t":
        # A body that a fence, or a model, moved to the margin.
        program = "\n".join("    " + line if line.strip() else line for line in program.split("\n"))
    return prompt + program


def _before(prompt: str, name: str) -> str:
    """What stands before the last head of a function in a prompt."""
    heads = list(re.finditer(rf"^(?:async[ \t]+)?def[ \t]+{re.escape(name)}\b", prompt, re.M))
    return prompt[: heads[-1].start()] if heads else ""


def _behind(before: str, program: str) -> str:
    """A program with other source before it; what must come first of all stays first."""
    if not before.strip():
        return program
    first = [line for line in program.split("\n") if line.startswith("from __future__ import")]
    rest = "\n".join("" if line in first else line for line in program.split("\n"))
    return "\n".join([*first, before.rstrip(), "", "", rest])


def answered_expression(text: str) -> str:
    """The expression of a response to CruxEval: within its last ``[ANSWER]`` and ``[/ANSWER]``, else the whole text.

    Text that goes on from a prompt's opened ``[ANSWER]`` ends at its first ``[/ANSWER]``. Behind one that is never
    closed the first statement counts: models go on with assertions of their own.

    It may be written as the assertion that the prompt shows; ``side_of_assertion`` takes its half.
    """
    if "</think>" in text:
        text = text.rpartition("</think>")[2]
    before, closed, _ = text.partition(_CLOSED)
    last = text.rfind(_OPENED, 0, max(text.rfind(_CLOSED), 0))
    if closed and _OPENED not in before:
        text = before
    elif last >= 0:
        text = text[last + len(_OPENED) :].partition(_CLOSED)[0]
    elif _OPENED in text:
        text = _first_statement(text.rpartition(_OPENED)[2])
    elif (program := extract_program(text)) != text and program.strip():
        text = program
    return text.strip()


_OPENED, _CLOSED = "[ANSWER]", "[/ANSWER]"
_MOST_LINES = 40


def _first_statement(text: str) -> str:
    """The first statement of a text that may go on in any way; the whole text where it does not begin with one."""
    program = (extract_program(text) if _blocks(text) else text).strip()
    lines = program[:_MOST_CHARACTERS].split("\n")[:_MOST_LINES]
    for count in range(1, len(lines) + 1):
        source = "\n".join(lines[:count])
        try:
            body = ast.parse(source).body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue
        if body:
            return ast.get_source_segment(source, body[0]) or source
    return program


_MOST_CHARACTERS = 1 << 16
"""Of an expression that is parsed: CruxEval's own have a hundred."""


def side_of_assertion(expression: str, mode: str) -> str:
    """Of ``assert f(x) == y``, the call where the input was asked for, ``y`` where the output was; else unchanged."""
    if not expression.startswith("assert ") or len(expression) > _MOST_CHARACTERS:
        return expression
    try:
        (statement,) = ast.parse(expression).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return expression
    test = statement.test if isinstance(statement, ast.Assert) else None
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq):
        return expression
    return ast.unparse(test.left if mode == "input" else test.comparators[0])
