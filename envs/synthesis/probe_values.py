"""Inside the sandbox: the plain values that a test was given and sees, as text. Standard library only."""

import re
import types

VALUE_CHARACTERS = 200
MOST_ITEMS = 50
REPRODUCED = {
    "datetime": ("date", "datetime", "time", "timedelta"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "pathlib": ("PurePosixPath", "PosixPath"),
}
"""Kinds of the standard library whose text is their source; of a datetime with another zone than UTC it is not."""
FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType, type)
PLAIN = (bool, int, float, complex, str, bytes, type(None))


def plain_text(value, depth=3):
    """The text of plain data, as ``repr`` writes it; None for anything else, too much of it, or a NaN's like.

    Types are compared by identity: a subclass can show what it likes.
    """
    kind = type(value)
    if (kind is int and value.bit_length() > 600) or (kind in (str, bytes) and len(value) > VALUE_CHARACTERS):
        return None  # before it is written out
    if kind in PLAIN:
        text = repr(value)
    elif kind in (list, tuple, set, frozenset, dict) and depth and len(value) <= MOST_ITEMS:
        keys = list(value)
        texts = [plain_text(one, depth - 1) for one in keys]
        if kind is dict:
            others = [plain_text(one, depth - 1) for one in value.values()]
            if None in others or None in texts:
                return None
            return _short("{" + ", ".join(f"{key}: {one}" for key, one in zip(texts, others)) + "}")
        if None in texts:
            return None
        if kind in (set, frozenset):
            texts.sort()
            text = "{" + ", ".join(texts) + "}" if texts else "set()"
            text = f"frozenset({text if texts else ''})" if kind is frozenset else text
        elif kind is list:
            text = "[" + ", ".join(texts) + "]"
        else:
            text = "(" + ", ".join(texts) + ("," if len(texts) == 1 else "") + ")"
    else:
        return None
    return _short(text)


def _short(text):
    return text if len(text) <= VALUE_CHARACTERS else None


def seen_in(frame):
    """Name -> text of the plain values that a frame's code can name, attributes of ``self`` as "self.name"."""
    found = {}
    names = frame.f_code.co_names
    for name in names:
        if name in frame.f_globals:
            found[name] = frame.f_globals[name]
    found.update(frame.f_locals)
    me = found.get("self")
    if me is not None:
        own = getattr(me, "__dict__", {})
        for name in names:
            if name in own:
                found[f"self.{name}"] = own[name]
            else:
                held = [vars(kind)[name] for kind in type(me).__mro__ if name in vars(kind)]
                if held:
                    found[f"self.{name}"] = held[0]
    texts = {name: plain_text(value) for name, value in found.items()}
    return {name: text for name, text in texts.items() if text is not None}


def given_in(frame):
    """Parameter -> source of what a call was given, as its frame begins; "*" and "**" for the further ones. What has no
    source is told by its kind: "?iterator", "?callable", "?"."""
    code, found = frame.f_code, {}
    count = code.co_argcount + code.co_kwonlyargcount
    for name in code.co_varnames[:count]:
        if name in frame.f_locals:  # not where it is shared with a function inside
            found[name] = source_of(frame.f_locals[name])
    further = [("*", 0x04), ("**", 0x08)]  # CO_VARARGS, CO_VARKEYWORDS
    for mark, flag in further:
        if code.co_flags & flag:
            value = frame.f_locals.get(code.co_varnames[count])
            if value:
                found[mark] = source_of(value)
            count += 1
    return found


def source_of(value, depth=3):
    """The source of plain data, of some kinds of the standard library, of a built-in function, and of an object by its
    class and attributes, as ``VerigymNotes.made`` of further tests takes them (envs/audit/further_tests/noting.py)."""
    kind = type(value)
    text = plain_text(value)
    if text is not None:
        return text
    if kind is re.Pattern and len(repr(value.pattern)) <= VALUE_CHARACTERS:
        flags = value.flags & ~re.UNICODE if isinstance(value.pattern, str) else value.flags
        return f"__import__('re').compile({value.pattern!r}{f', {int(flags)}' if flags else ''})"
    if kind.__module__ in REPRODUCED and kind.__qualname__ in REPRODUCED[kind.__module__]:
        return _short(f"__import__({kind.__module__!r}).{repr(value).removeprefix(kind.__module__ + '.')}") or "?"
    if kind is range:
        return repr(value)
    if hasattr(kind, "__next__"):
        return "?iterator"
    state = getattr(value, "__dict__", None)
    if (
        type(state) is dict
        and depth
        and isinstance(kind, type)
        and kind not in FUNCTIONS
        and "<" not in kind.__qualname__
    ):
        texts = {name: source_of(one, depth - 1) for name, one in state.items()}
        texts = {name: "len" if text == "?callable" else text for name, text in texts.items()}
        if not any(text.startswith("?") for text in texts.values()) and len(texts) <= MOST_ITEMS:
            shown = ", ".join(f"{name!r}: {text}" for name, text in texts.items())
            text = f"VerigymNotes.made({kind.__module__!r}, {kind.__qualname__!r}, {{{shown}}})"
            return text if len(text) <= 3 * VALUE_CHARACTERS else "?"
    if callable(value):
        is_builtin = getattr(value, "__module__", "") == "builtins" and "." not in getattr(value, "__qualname__", ".")
        return value.__name__ if is_builtin else "?callable"
    return "?"
