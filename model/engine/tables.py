"""Which pages each row's sequence has, in every group of layers. Accounting only, free of torch.

Groups: the global layers keep all tokens of a sequence; the sliding layers keep those the next token sees, and give the
pages behind them back. Block b of a sequence is its tokens b x C to (b + 1) x C, C tokens a page.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .pages import ROOT, SCRATCH, PagePool, chain_key

CopyPage = Callable[[int, int, int, int], None]
"""(group, from page, to page, tokens): copy the first tokens' keys and values."""


class Group:
    """One group's pool and tables.

    Attributes:
        window: keys a token sees, itself included; None for all.
        table: [R, blocks] page of each block; SCRATCH where there is none.
        first: [R] the first block whose page is held.
    """

    def __init__(self, window: int | None, pool: PagePool, num_rows: int, num_blocks: int) -> None:
        self.window, self.pool = window, pool
        self.table = np.full((num_rows, num_blocks), SCRATCH, np.int64)
        self.first = np.zeros(num_rows, np.int64)

    def page(self, row: int, block: int) -> int:
        return int(self.table[row, block])

    def first_block(self, length: int) -> int:
        """The first block of which the token at place ``length`` sees a key."""
        return 0 if self.window is None else max(0, length - self.window + 1) // self.pool.tokens.shape[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """What is there of a prompt: ``length`` tokens; full pages by group and block (None: not there), and the page to
    copy the rest from by group."""

    length: int
    keys: list[bytes]
    pages: list[list[int | None]]
    tails: list[int]


class PageTables:
    """Page tables of R rows. A row holds one sequence, or nothing."""

    def __init__(
        self,
        windows: Sequence[int | None],
        num_pages: Sequence[int],
        *,
        page_size: int,
        num_rows: int,
        capacity: int,
        copy_page: CopyPage,
    ) -> None:
        """
        Args:
            windows: of each group.
            num_pages: of each group, the scratch page included.
            capacity: most tokens of a sequence.
        """
        self.page_size = page_size
        num_blocks = -(-capacity // page_size)
        self.groups = [
            Group(window, PagePool(count, page_size), num_rows, num_blocks)
            for window, count in zip(windows, num_pages, strict=True)
        ]
        self._copy_page = copy_page
        self.blocks = np.zeros(num_rows, np.int64)
        self._keys: list[list[bytes]] = [[] for _ in range(num_rows)]
        # Rows whose pages may be found by others; not those whose keys and values are of weights that are gone.
        self._offered = np.zeros(num_rows, bool)

    @property
    def nothing(self) -> Prefix:
        """The prefix of no tokens."""
        none = [SCRATCH] * len(self.groups)
        return Prefix(length=0, keys=[], pages=[[] for _ in self.groups], tails=none)

    def find(self, tokens: np.ndarray) -> Prefix:
        """The longest prefix of ``tokens``, without the last one, whose keys and values are there in all groups."""
        size, limit = self.page_size, len(tokens) - 1
        keys: list[bytes] = []
        pages: list[list[int | None]] = [[] for _ in self.groups]
        for start in range(0, limit - size + 1, size):
            key = chain_key(keys[-1] if keys else ROOT, tokens[start : start + size])
            found = [group.pool.find(key) for group in self.groups]
            if any(page is None and group.window is None for page, group in zip(found, self.groups)):
                break
            keys.append(key)
            for row, page in zip(pages, found):
                row.append(page)
        full = len(keys)
        parent = keys[-1] if keys else ROOT
        children = [group.pool.best_child(parent, tokens[full * size : limit]) for group in self.groups]
        extra = min((common for _, common in children), default=0)
        lengths = ([full * size + extra] if extra else []) + [count * size for count in range(full, -1, -1)]
        length = next(length for length in lengths if self._all_there(pages, length))
        return Prefix(
            length=length,
            keys=keys[: length // size],
            pages=[row[: length // size] for row in pages],
            tails=[page for page, _ in children],
        )

    def _all_there(self, pages: list[list[int | None]], length: int) -> bool:
        full = length // self.page_size
        return all(None not in row[group.first_block(length) : full] for row, group in zip(pages, self.groups))

    def has_room(self, prefix: Prefix, known: int, *, most: int, promised: int) -> bool:
        """Whether a sequence of ``known`` tokens that begins with ``prefix`` can be computed up to its next token
        without taking pages from another.

        Args:
            most: tokens that are computed at once.
            promised: pages that others will take for what they are known to need.
        """
        for index, group in enumerate(self.groups):
            shared = prefix.pages[index][group.first_block(prefix.length) :]
            pinned = [*shared, prefix.tails[index]] if prefix.length % self.page_size else shared
            idle = sum(not group.pool.refs[page] for page in pinned)
            needed = self.num_blocks(known + 1) - len(prefix.keys)
            if group.window is not None:
                needed = min(needed, self.num_blocks(group.window + most) + 2)
            if needed + idle + promised > group.pool.num_free:
                return False
        return True

    def slots(self, rows: np.ndarray, places: np.ndarray) -> list[np.ndarray]:
        """Of each group [T]: where the keys and values of rows' tokens at some places lie, page x C + place in it."""
        blocks, offsets = np.divmod(places, self.page_size)
        return [group.table[rows, blocks] * self.page_size + offsets for group in self.groups]

    def num_blocks(self, length: int) -> int:
        return -(-length // self.page_size)

    def begin(self, row: int, prefix: Prefix) -> None:
        """Give an empty row a prefix for which there is room: full pages are shared, the rest is copied."""
        assert not self.blocks[row], f"row {row} is not empty"
        full = len(prefix.keys)
        count = prefix.length - full * self.page_size
        for index, group in enumerate(self.groups):
            first = group.first_block(prefix.length)
            group.first[row] = min(first, full)
            for block in range(first, full):
                page = prefix.pages[index][block]
                assert page is not None
                group.pool.share(page)
                group.table[row, block] = page
            if count:
                source = prefix.tails[index]
                group.pool.share(source)  # or it might be forgotten for the page that is taken
                page = group.pool.take()
                self._copy_page(index, source, page, count)
                group.pool.tokens[page, :count] = group.pool.tokens[source, :count]
                group.pool.filled[page] = count
                group.pool.release(source)
                group.table[row, full] = page
        self._keys[row] = list(prefix.keys)
        self.blocks[row] = full + (count > 0)
        self._offered[row] = True
        if count:
            self._register(row, full)

    def extend(self, row: int, length: int) -> bool:
        """Pages for ``length`` tokens. False, and nothing is taken, where there are too few."""
        missing = self.num_blocks(length) - int(self.blocks[row])
        if any(group.pool.num_free < missing for group in self.groups):
            return False
        for block in range(int(self.blocks[row]), int(self.blocks[row]) + missing):
            for group in self.groups:
                group.table[row, block] = group.pool.take()
        self.blocks[row] += max(0, missing)
        return True

    def fed(self, row: int, start: int, tokens: np.ndarray) -> None:
        """The keys and values of ``tokens``, from place ``start`` on, have been written."""
        size, end = self.page_size, start + len(tokens)
        for block in range(start // size, self.num_blocks(end)):
            low, high = max(start, block * size), min(end, (block + 1) * size)
            for group in self.groups:
                page = group.table[row, block]
                group.pool.tokens[page, low - block * size : high - block * size] = tokens[low - start : high - start]
                group.pool.filled[page] = high - block * size
            if low == block * size:
                self._register(row, block)
            if high == (block + 1) * size:
                self._complete(row, block)
        self._give_back(row, end)

    def fed_one(self, rows: np.ndarray, places: np.ndarray, tokens: np.ndarray) -> None:
        """``fed`` for one token of each of several rows."""
        blocks, offsets = np.divmod(places, self.page_size)
        for group in self.groups:
            pages = group.table[rows, blocks]
            group.pool.tokens[pages, offsets] = tokens
            group.pool.filled[pages] = offsets + 1
        for index in np.flatnonzero(offsets == 0):
            self._register(int(rows[index]), int(blocks[index]))
        for index in np.flatnonzero(offsets == self.page_size - 1):
            self._complete(int(rows[index]), int(blocks[index]))
        for group in self.groups:
            if group.window is not None:
                behind = np.maximum(0, places + 2 - group.window) // self.page_size > group.first[rows]
                for index in np.flatnonzero(behind):
                    self._give_back(int(rows[index]), int(places[index]) + 1)

    def release(self, row: int) -> None:
        """The row's sequence ends; what its pages hold can still be found."""
        for group in self.groups:
            # The last first: of a prefix that nobody uses, the end is forgotten before the beginning.
            for block in range(int(self.blocks[row]) - 1, int(group.first[row]) - 1, -1):
                group.pool.release(int(group.table[row, block]))
            group.table[row] = SCRATCH
            group.first[row] = 0
        self.blocks[row] = 0
        self._keys[row] = []
        self._offered[row] = False

    def move(self, source: int, target: int) -> None:
        """Move a row's sequence to an empty row."""
        assert not self.blocks[target], f"row {target} is not empty"
        for group in self.groups:
            group.table[target] = group.table[source]
            group.table[source] = SCRATCH
            group.first[target], group.first[source] = group.first[source], 0
        self.blocks[target], self.blocks[source] = self.blocks[source], 0
        self._keys[target], self._keys[source] = self._keys[source], []
        self._offered[target], self._offered[source] = self._offered[source], False

    def forget(self, *, offered: bool) -> None:
        """No page is found any more. ``offered``: what the rows fill from now on may be, as before; not so where they
        hold keys and values of other weights."""
        for group in self.groups:
            group.pool.forget()
        self._offered &= offered

    def _register(self, row: int, block: int) -> None:
        if not self._offered[row]:
            return
        parent = self._keys[row][block - 1] if block else ROOT
        for group in self.groups:
            group.pool.register(int(group.table[row, block]), parent)

    def _complete(self, row: int, block: int) -> None:
        parent = self._keys[row][block - 1] if block else ROOT
        pool = self.groups[0].pool
        key = chain_key(parent, pool.tokens[self.groups[0].page(row, block)])
        self._keys[row].append(key)
        for group in self.groups:
            group.pool.complete(group.page(row, block), key)

    def _give_back(self, row: int, length: int) -> None:
        """Release the pages of which the token at place ``length`` sees nothing."""
        for group in self.groups:
            first = min(group.first_block(length), int(self.blocks[row]))
            for block in range(int(group.first[row]), first):
                group.pool.release(group.page(row, block))
                group.table[row, block] = SCRATCH
            group.first[row] = max(first, int(group.first[row]))

    def counts(self) -> tuple[int, int, int]:
        """(used, free, and of the free those that hold a prefix), of all groups."""
        pools = [group.pool for group in self.groups]
        free = sum(pool.num_free for pool in pools)
        return sum(pool.num_pages for pool in pools) - free, free, sum(pool.num_idle for pool in pools)

    def check(self) -> None:
        """Assert what must hold at any time: each page is used by as many rows as it has references."""
        for group in self.groups:
            group.pool.check()
            refs = np.zeros_like(group.pool.refs)
            for row, blocks in enumerate(self.blocks):
                held = group.table[row, int(group.first[row]) : int(blocks)]
                assert (held != SCRATCH).all(), f"row {row} lacks a page"
                assert (group.table[row] != SCRATCH).sum() == len(held), f"row {row} has pages outside its blocks"
                np.add.at(refs, held, 1)
            assert (refs == group.pool.refs).all(), "references and tables differ"
