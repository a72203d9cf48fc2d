from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.model.plan.attention import num_pairs


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=4), st.none() | st.integers(1, 15))
def test_pairs_are_those_the_mask_leaves(documents: list[tuple[int, int]], window: int | None) -> None:
    queries = [own for own, _ in documents]
    keys = [own + before for own, before in documents]
    counted = sum(
        1
        for own, before in documents
        for query in range(before, before + own)
        for key in range(before + own)
        if key <= query and (window is None or query - key < window)
    )
    assert num_pairs(queries, keys, window) == counted
