"""Pages as accounting: any order of sequences that begin, grow, end, move and change weights keeps every page with
exactly its users, and gives no sequence keys and values of another prefix or of other weights."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from verigym.model.engine.pages import ROOT, SCRATCH, PagePool, chain_key
from verigym.model.engine.tables import PageTables

SIZE, ROWS, CAPACITY, WINDOW = 4, 4, 24, 6
PAGES = (13, 9)  # far too few for all rows at once
# Few different ones, so that sequences meet again and again.
prompts = st.builds(
    lambda text, length: text[:length],
    st.sampled_from([[0] * CAPACITY, [0] * 6 + [1] * 18, [0, 1] * 12]),
    st.integers(1, CAPACITY - 1),
)


class Pages(RuleBasedStateMachine):
    """``content`` stands for the tensors: at each place the history that its keys and values were computed from."""

    def __init__(self) -> None:
        super().__init__()
        self.content = [np.zeros((count, SIZE), np.int64) for count in PAGES]
        self.tables = PageTables(
            [None, WINDOW], PAGES, page_size=SIZE, num_rows=ROWS, capacity=CAPACITY, copy_page=self.copy
        )
        self.known: list[list[int]] = [[] for _ in range(ROWS)]
        self.histories: list[list[int]] = [[] for _ in range(ROWS)]
        self.epoch = 0

    def copy(self, group: int, source: int, target: int, count: int) -> None:
        self.content[group][target, :count] = self.content[group][source, :count]

    def _extended(self, histories: list[int], tokens: list[int]) -> list[int]:
        histories = list(histories)
        for token in tokens:
            histories.append(hash((histories[-1] if histories else 0, token, self.epoch)))
        return histories

    def _feed(self, row: int, count: int) -> None:
        start = len(self.histories[row])
        tokens = self.known[row][start : start + count]
        self.histories[row] = self._extended(self.histories[row], tokens)
        for group, content in zip(self.tables.groups, self.content):
            for place in range(start, start + count):
                content[group.page(row, place // SIZE), place % SIZE] = self.histories[row][place]

    def idle(self) -> list[int]:
        return [row for row in range(ROWS) if not self.known[row]]

    @precondition(lambda self: self.idle())
    @rule(prompt=prompts)
    def begin(self, prompt: list[int]) -> None:
        prefix = self.tables.find(np.array(prompt))
        assert prefix.length < len(prompt)
        if not self.tables.has_room(prefix, len(prompt), most=SIZE, promised=0):
            return
        row = self.idle()[0]
        self.tables.begin(row, prefix)
        self.known[row] = prompt
        # What is reused was computed from these very tokens, under the weights of now.
        self.histories[row] = self._extended([], prompt[: prefix.length])

    @rule(row=st.integers(0, ROWS - 1), count=st.integers(1, 9))
    def feed(self, row: int, count: int) -> None:
        start = len(self.histories[row])
        count = min(count, len(self.known[row]) - start)
        if count > 0 and self.tables.extend(row, start + count):
            self._feed(row, count)
            self.tables.fed(row, start, np.array(self.known[row][start : start + count]))

    @rule(data=st.data())
    def decode(self, data: st.DataObject) -> None:
        """One token more in every row that has been fed but for its last."""
        rows = [row for row in range(ROWS) if self.known[row] and len(self.known[row]) - 1 == len(self.histories[row])]
        rows = [row for row in rows if self.tables.extend(row, len(self.known[row]))]
        if not rows:
            return
        places = np.array([len(self.histories[row]) for row in rows])
        for row in rows:
            self._feed(row, 1)
        self.tables.fed_one(np.array(rows), places, np.array([self.known[row][-1] for row in rows]))
        for row in rows:
            if len(self.known[row]) < CAPACITY:
                self.known[row] = [*self.known[row], data.draw(st.sampled_from((0, 0, 0, 1)))]

    @rule(row=st.integers(0, ROWS - 1))
    def release(self, row: int) -> None:
        self.tables.release(row)
        self.known[row], self.histories[row] = [], []

    @precondition(lambda self: self.idle() and len(self.idle()) < ROWS)
    @rule()
    def move(self) -> None:
        source, target = next(row for row in range(ROWS) if self.known[row]), self.idle()[-1]
        self.tables.move(source, target)
        for of_row in (self.known, self.histories):
            of_row[target], of_row[source] = of_row[source], []

    @rule()
    def new_weights(self) -> None:
        self.epoch += 1
        self.tables.forget(offered=False)

    @rule()
    def forget_prefixes(self) -> None:
        self.tables.forget(offered=True)

    @invariant()
    def every_page_has_its_users(self) -> None:
        self.tables.check()

    @invariant()
    def every_row_has_its_own_history(self) -> None:
        for group, content in zip(self.tables.groups, self.content):
            for row, histories in enumerate(self.histories):
                oldest = 0 if group.window is None else max(0, len(histories) - WINDOW + 1)
                for place in range(oldest, len(histories)):
                    assert content[group.page(row, place // SIZE), place % SIZE] == histories[place]

    def teardown(self) -> None:
        for row in range(ROWS):
            self.tables.release(row)
        self.tables.forget(offered=True)
        for group in self.tables.groups:
            assert group.pool.num_idle == 0
            assert group.pool.num_free == group.pool.num_pages


TestPages = Pages.TestCase
TestPages.settings = settings(max_examples=100, stateful_step_count=50)


def test_pages_behind_the_window_are_given_back() -> None:
    tables = PageTables([None, WINDOW], (9, 9), page_size=SIZE, num_rows=1, capacity=32, copy_page=lambda *_: None)
    tables.begin(0, tables.nothing)
    held = []
    for length in range(1, 29):
        assert tables.extend(0, length)
        tables.fed_one(np.array([0]), np.array([length - 1]), np.array([7]))
        held.append(tuple(group.pool.num_pages - group.pool.num_free for group in tables.groups))
    assert held[-1] == (7, 2)  # tokens 23 to 27 and the next one to come lie on two pages
    assert max(sliding for _, sliding in held) == 2


def test_the_prefix_of_a_freed_window_is_not_found() -> None:
    """A prefix counts only as far as both groups have it: the sliding one needs the window before its end."""
    tables = PageTables([None, WINDOW], (9, 9), page_size=SIZE, num_rows=2, capacity=32, copy_page=lambda *_: None)
    tokens = np.arange(24)
    tables.begin(0, tables.nothing)
    tables.extend(0, 24)
    tables.fed(0, 0, tokens)
    assert tables.find(tokens).length == 23
    assert tables.find(np.append(tokens[:11], 99)).length == 11  # in the midst, from pages that are idle
    pool = tables.groups[1].pool
    while pool.num_idle:  # others take what is free of the sliding group
        pool.take()
    assert tables.find(tokens).length == 23
    assert tables.find(np.append(tokens[:11], 99)).length == 0


def test_of_idle_pages_the_end_of_the_oldest_prefix_goes_first() -> None:
    pool = PagePool(4, 2)
    pages = [pool.take() for _ in range(3)]
    keys, parent = [], ROOT
    for page, tokens in zip(pages, ([1, 2], [3, 4], [5, 6])):
        pool.tokens[page], pool.filled[page] = tokens, 2
        pool.register(page, parent)
        parent = chain_key(parent, pool.tokens[page])
        pool.complete(page, parent)
        keys.append(parent)
    for page in reversed(pages):
        pool.release(page)
    assert pool.num_idle == 3
    assert pool.take() == pages[2]
    assert [pool.find(key) for key in keys] == [pages[0], pages[1], None]
    assert SCRATCH not in pages


def test_names_of_pages_tell_their_whole_prefix() -> None:
    one, two = np.array([1, 2]), np.array([3, 4])
    assert chain_key(chain_key(ROOT, one), two) != chain_key(chain_key(ROOT, two), one)
    assert chain_key(ROOT, two) != chain_key(chain_key(ROOT, one), two)
    with pytest.raises(AssertionError, match="not in use"):
        PagePool(3, 2).release(1)


def test_the_page_that_begins_with_most_of_a_prompt_is_found() -> None:
    pool = PagePool(4, 4)
    pages = [pool.take() for _ in range(3)]
    for page, tokens in zip(pages, ([1, 2, 9, 9], [1, 2, 3, 9], [1, 2, 3, 4])):
        pool.tokens[page], pool.filled[page] = tokens, 4
        pool.register(page, ROOT)
    pool.filled[pages[2]] = 2  # what else it says is of an earlier use
    assert pool.best_child(ROOT, np.array([1, 2, 3, 4, 5])) == (pages[1], 3)
    assert pool.best_child(ROOT, np.array([1, 5])) == (pages[0], 1)
    assert pool.best_child(ROOT, np.array([7, 1])) == (pages[0], 0)
