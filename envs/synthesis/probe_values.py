"""Inside the sandbox: the plain values that a test was given and sees, as text. Standard library only."""

VALUE_CHARACTERS = 200
MOST_ITEMS = 50
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
