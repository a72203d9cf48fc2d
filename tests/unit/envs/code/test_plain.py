"""What crosses from a program is data of exact types, and nothing of its behaviour."""

import collections
import datetime
import decimal
import enum
import fractions

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.envs.code.plain import decode, dumps, encode, loads

HASHABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=6,
)
PLAIN = st.recursive(
    HASHABLE
    | st.complex_numbers(allow_nan=False)
    | st.fractions()
    | st.datetimes().map(lambda at: at.replace(fold=0))
    | st.sets(HASHABLE, max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HASHABLE, inner, max_size=3),
    max_leaves=8,
)


def exact(value):
    """Type and value all the way down."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, [exact(one) for one in value]
    if kind in (set, frozenset):
        return kind, sorted(repr(exact(one)) for one in value)
    if kind is dict:
        return kind, [(exact(key), exact(one)) for key, one in value.items()]
    return kind, repr(value)


@settings(max_examples=150)
@given(PLAIN)
def test_plain_data_comes_back_as_it_was(value):
    assert exact(decode(loads(dumps(encode(value))))) == exact(value)


class Lie:
    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0

    def __iter__(self):
        return iter([1])


def lying(base):
    return type("Lying", (base,), {name: (lambda *a, **k: True) for name in ("__eq__", "__iter__", "__str__")})


DERIVED = (
    (lying(int)(5), 5),
    (lying(str)("x"), "x"),
    (lying(list)([1]), [1]),
    (lying(tuple)((1,)), (1,)),
    (lying(float)(-0.0), -0.0),
    (enum.IntEnum("E", "A B").B, 2),
    (collections.namedtuple("P", "x y")(1, 2), (1, 2)),
    (collections.Counter("aab"), collections.Counter("aab")),
    (collections.defaultdict(int, {1: 2}), {1: 2}),
    (decimal.Decimal("1.10"), decimal.Decimal("1.10")),
    (fractions.Fraction(1, 3), fractions.Fraction(1, 3)),
    (datetime.date(2024, 2, 29), datetime.date(2024, 2, 29)),
    (range(3, 9, 2), range(3, 9, 2)),
    (int, int),
)


@pytest.mark.parametrize("number", range(len(DERIVED)))
def test_a_derived_object_is_the_value_it_holds(number):
    value, bare = DERIVED[number]
    found = decode(encode(value))
    assert type(found) is type(bare)
    assert repr(found) == repr(bare)


@pytest.mark.parametrize("value", [Lie(), [Lie()], {"a": Lie()}, print, Lie, iter([1]), open])
def test_what_is_no_plain_data_is_refused(value):
    with pytest.raises(TypeError, match="not plain data"):
        encode(value)


def test_deep_data_is_refused_and_not_followed():
    value: list = []
    value.append(value)
    with pytest.raises(TypeError, match="nested"):
        encode(value)


@pytest.mark.parametrize("row", [{"ref": 0}, {"type": "eval"}, {"type": "print"}, {"what": 1}, {"int": 3}, {}])
def test_forged_rows_are_no_values(row):
    with pytest.raises((ValueError, TypeError, KeyError)):
        decode(row)
