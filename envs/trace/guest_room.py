"""Inside the sandbox: how a text is kept within its room, and what is noted where it is not the whole value.

Standard library only, Python 3.8 and newer.
"""

import itertools

from .guest_classes import mro, pairs_of, qualname

MARK = "..."
"""What was left out: of a container its further items; after a string its rest; of an object what only C can see."""


class Bounded:
    """Texts of items, pairs and attributes, each within ``max_chars`` characters or so; what one item is written as
    (``_show``) is for others to say. ``cut`` tells whether a text was too long, ``hidden`` whether a value has a state
    that cannot be seen from here, ``whole`` whether neither is so of the last one: only then do equal texts mean that
    it has not changed."""

    def __init__(self, max_chars=400, max_items=40, max_depth=6):
        self.max_chars, self.max_items, self.max_depth = max_chars, max_items, max_depth
        self.cut = self.hidden = False
        self.whole = True
        self._room = 0

    def _show(self, value):
        raise NotImplementedError

    def _cut(self):
        self.cut, self.whole = True, False

    def _hide(self):
        self.hidden, self.whole = True, False

    def _items(self, start, items, size, end):
        shown = []
        for item in itertools.islice(items, self.max_items):
            if self._room <= 0:
                break
            shown.append(self._show(item))
            self._room -= 2
        if len(shown) < size:
            self._cut()
            shown.append(MARK)
            end = end.lstrip(",")
        return start + ", ".join(shown) + end

    def _pairs(self, start, value, end):
        shown = []
        for key, one in itertools.islice(pairs_of(value), self.max_items):
            if self._room <= 0:
                break
            shown.append(self._show(key) + ": " + self._show(one))
            self._room -= 4
        if len(shown) < dict.__len__(value):
            self._cut()
            shown.append(MARK)
        return start + ", ".join(shown) + end

    def _set(self, value, kind):
        """Sorted, numbers by size: the order of a set is that of hashes."""
        base = set if set in mro(kind) else frozenset
        size = base.__len__(value)
        name = qualname(kind)
        if not size:
            return name + "()"
        if size > 10 * self.max_items:  # which ones would be shown is a matter of hashes
            self._cut()
            return f"<{name} of {size} {MARK}>"
        items = list(base.__iter__(value))
        if all(type(item) is int for item in items):
            items.sort()
            shown = self._items("{", iter(items), size, "}")
        else:
            texts = self._in_any_order(items)
            left_out = size > self.max_items
            if left_out:
                self._cut()
            shown = "{" + ", ".join(texts[: self.max_items] + [MARK] * left_out) + "}"
        return shown if kind is set else name + "(" + shown + ")"

    def _in_any_order(self, items):
        """Sorted texts that do not depend on which item comes first: where not all have room, each gets as much."""
        cut, room, self.cut = self.cut, self._room, False
        texts = [self._show(item) for item in items]
        if self.cut:
            texts = []
            for item in items:
                self._room = room // len(items)
                texts.append(self._show(item))
            self._room = room - sum(map(len, texts))
        self.cut = self.cut or cut
        return sorted(texts)

    def _named(self, start, pairs, end):
        shown = []
        for key, one in pairs:
            if self._room <= 0 or len(shown) >= self.max_items:
                self._cut()
                shown.append(MARK)
                break
            shown.append((key if type(key) is str else "?") + "=" + self._show(one))
        return start + ", ".join(shown) + end

    def _also(self, shown, own, hides):
        """Attributes beside what a value is, before its closing bracket, and a mark where it ``hides`` some."""
        if not own and not hides:
            return shown
        start = shown[:-1] + ("" if shown[-2] == "(" else ", ")
        return self._named(start, own.items(), (", " if own and hides else "") + MARK * hides + shown[-1])
