"""Pages of keys and values: who uses them, and which prefix each holds. Accounting only, free of torch."""

import hashlib
from collections import OrderedDict

import numpy as np

# The page that rows without a sequence write to. It is never given to one.
SCRATCH = 0
ROOT = b""


def chain_key(parent: bytes, tokens: np.ndarray) -> bytes:
    """The name of a full page: of its own tokens and, through ``parent``, of all before them.

    128 bits of BLAKE2b: two prefixes with one name are not to be expected, and are not looked for.
    """
    return hashlib.blake2b(parent + tokens.tobytes(), digest_size=16).digest()


class PagePool:
    """The pages of one group of layers.

    A page is *used* (by as many sequences as it has references), *idle* (used by none, but it still holds a prefix that
    a later sequence may share) or *fresh*. Only full pages are ever shared: a sequence writes to its last page, which
    is its own.

    Attributes:
        refs: [P] sequences that use the page.
        tokens: [P, C] tokens whose keys and values it holds; filled: [P] how many.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.refs = np.zeros(num_pages, np.int64)
        self.tokens = np.zeros((num_pages, page_size), np.int64)
        self.filled = np.zeros(num_pages, np.int64)
        self._fresh = [page for page in range(num_pages - 1, -1, -1) if page != SCRATCH]
        self._idle: OrderedDict[int, None] = OrderedDict()  # the one unused for longest first
        self._parent: dict[int, bytes] = {}
        self._key: dict[int, bytes] = {}
        self._children: dict[bytes, dict[int, None]] = {}
        self._full: dict[bytes, int] = {}

    @property
    def num_pages(self) -> int:
        """All that sequences can have."""
        return len(self.refs) - 1

    @property
    def num_free(self) -> int:
        return len(self._fresh) + len(self._idle)

    @property
    def num_idle(self) -> int:
        return len(self._idle)

    def take(self) -> int:
        """An empty page, with one reference. Where all free ones are idle, the one unused for longest is forgotten."""
        if self._fresh:
            page = self._fresh.pop()
        else:
            assert self._idle, "no page is free"
            page, _ = self._idle.popitem(last=False)
            self._unregister(page)
        self.refs[page] = 1
        self.filled[page] = 0
        return page

    def share(self, page: int) -> None:
        """One more sequence uses the page."""
        if not self.refs[page]:
            del self._idle[page]
        self.refs[page] += 1

    def release(self, page: int) -> None:
        """One sequence less uses the page."""
        assert self.refs[page] > 0, f"page {page} is not in use"
        self.refs[page] -= 1
        if self.refs[page]:
            return
        if page in self._parent:
            self._idle[page] = None
        else:
            self._fresh.append(page)

    def register(self, page: int, parent: bytes) -> None:
        """Let others find what the page holds, now and as it fills: tokens that follow the prefix ``parent``."""
        self._parent[page] = parent
        self._children.setdefault(parent, {})[page] = None

    def complete(self, page: int, key: bytes) -> None:
        """A page is full. Where another holds the same, this one is not found any more."""
        if page not in self._parent:
            return
        if self._full.setdefault(key, page) == page:
            self._key[page] = key
        else:
            self._unregister(page)

    def find(self, key: bytes) -> int | None:
        """The full page of this name."""
        return self._full.get(key)

    def best_child(self, parent: bytes, tokens: np.ndarray) -> tuple[int, int]:
        """(the page after the prefix ``parent`` that begins with most of ``tokens``, how many)."""
        children = self._children.get(parent)
        if not children or not len(tokens):
            return SCRATCH, 0
        pages = np.fromiter(children, np.int64, len(children))
        count = min(len(tokens), self.tokens.shape[1])
        same = self.tokens[pages, :count] == tokens[:count]
        common = np.where(same.all(axis=1), count, same.argmin(axis=1))
        common = np.minimum(common, self.filled[pages])
        best = int(common.argmax())
        return int(pages[best]), int(common[best])

    def forget(self) -> None:
        """No page is found any more. Those in use stay with their sequences."""
        self._parent.clear()
        self._key.clear()
        self._children.clear()
        self._full.clear()
        self._fresh.extend(self._idle)
        self._idle.clear()

    def _unregister(self, page: int) -> None:
        parent = self._parent.pop(page)
        siblings = self._children[parent]
        del siblings[page]
        if not siblings:
            del self._children[parent]
        key = self._key.pop(page, None)
        if key is not None:
            del self._full[key]

    def check(self) -> None:
        """Assert what must hold at any time."""
        fresh, idle = set(self._fresh), set(self._idle)
        used = set(np.flatnonzero(self.refs).tolist())
        assert len(fresh) == len(self._fresh), "a page is fresh twice"
        assert not (fresh & idle | used & (fresh | idle)), "a page is both free and used"
        assert fresh | idle | used == set(range(len(self.refs))) - {SCRATCH}, "a page is lost"
        assert (self.refs >= 0).all()
        assert not self.refs[SCRATCH]
        assert (self.filled[self.refs > 1] == self.tokens.shape[1]).all(), "a page that is not full is shared"
        assert idle <= set(self._parent)
        assert not fresh & set(self._parent), "a fresh page can be found"
        assert set(self._key) <= set(self._parent)
        assert self._full == {key: page for page, key in self._key.items()}
        assert {page for pages in self._children.values() for page in pages} == set(self._parent)
