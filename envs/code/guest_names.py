"""Inside the sandbox: what a name means in a program. Standard library only; sent as source (see box.py)."""

import opcode
from types import CodeType
from typing import Any


def find(namespace: dict[str, Any], name: str, *, given: bool = False) -> Any:
    """A method of a fresh instance of the program's class ``Solution``, else its function of that name.

    The class comes first, as in LiveCodeBench's checker: a module may have a helper of the method's own name.

    Args:
        given: whether what the name stands for is the prelude's, which is no answer.
    """
    solution = namespace.get("Solution")
    if isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)
    if name in namespace and not given:
        return namespace[name]
    if solution is not None:
        return getattr(solution(), name)
    raise NameError(f"the program defines no function {name!r}")


def binds(code: CodeType, name: str) -> bool:
    """Whether a module's code binds a name at its outermost level, or may: it imports all of another module."""
    words, number = iter(code.co_code), 0
    for operation, word in zip(words, words):
        number = number << 8 | word
        if operation == opcode.EXTENDED_ARG:
            continue
        if opcode.opname[operation] == "STORE_NAME" and code.co_names[number] == name:
            return True
        if opcode.opname[operation] in ("IMPORT_STAR", "CALL_INTRINSIC_1") and number in (0, IMPORT_STAR):
            return True
        number = 0
    return False


IMPORT_STAR = 2
"""Of ``CALL_INTRINSIC_1``, which replaced the operation of that name in Python 3.12."""
