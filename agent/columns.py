"""Columns of tokens: values of one kind in a few bytes each, of which a growing context keeps every one once."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self, TypeVar, cast, overload

import numpy as np

T = TypeVar("T")
_MOST_SHOWN = 64


class Column(Sequence[T]):
    """A part of an array that may grow behind it; a sequence that never changes, equal to a tuple of its values.

    ``column + more`` writes into the same array where nothing stands behind the column yet, so that a context which
    grows turn by turn costs what is added, and what was there before is shared. A second continuation of the same
    column copies it.
    """

    __slots__ = ("_data", "_start", "_stop")
    typecode: ClassVar[str]

    def __init__(self, values: Iterable[T] = ()) -> None:
        self._data = self._encoded(values)
        self._start, self._stop = 0, len(self._data)

    @classmethod
    def of(cls, values: Iterable[T]) -> Self:
        """The values as a column; a column of this kind is taken as it is."""
        return values if type(values) is cls else cls(values)

    @classmethod
    def _encoded(cls, values: Iterable[Any]) -> "array[Any]":
        if type(values) is cls:
            return values._data[values._start : values._stop]
        return array(cls.typecode, values)

    @classmethod
    def _decoded(cls, codes: "array[Any]") -> list[Any]:
        return codes.tolist()

    def _view(self, start: int, stop: int) -> Self:
        view = type(self).__new__(type(self))
        view._data, view._start, view._stop = self._data, start, stop
        return view

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Self: ...
    def __getitem__(self, place: int | slice) -> T | Self:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            if step == 1:
                return self._view(self._start + start, self._start + max(start, stop))
            return type(self)(self.tolist()[place])
        index = range(self._start, self._stop)[place]
        return self._decoded(self._data[index : index + 1])[0]

    def __iter__(self) -> Iterator[T]:
        return iter(self.tolist())

    def tolist(self) -> list[T]:
        """The values as a list."""
        return self._decoded(self._codes())

    def tobytes(self) -> bytes:
        """The values as the machine has them."""
        return self._codes().tobytes()

    def _codes(self) -> "array[Any]":
        return self._data[self._start : self._stop]

    def as_stored(self) -> np.ndarray:
        """[n] the values as the column stores them, copied: numbers themselves, bytes for flags, numbers of roles."""
        return np.frombuffer(self._codes(), dtype=self.typecode)

    @classmethod
    def of_stored(cls, values: np.ndarray) -> Self:
        """The inverse of ``as_stored``."""
        column = cls()
        column._data.frombytes(values.astype(cls.typecode, copy=False).tobytes())
        column._stop = len(column._data)
        return column

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        # A copy: an array that numpy looks into cannot grow.
        found = self.as_stored()
        return found if dtype is None else found.astype(dtype)

    def __add__(self, more: Sequence[T]) -> Self:
        if isinstance(more, Column) and more._data is self._data and more._start == self._stop:
            return self._view(self._start, more._stop)
        added = self._encoded(more)
        if self._stop != len(self._data):
            column = type(self)()
            column._data = self._codes()
        else:
            column = self._view(self._start, self._stop)
        column._data.extend(added)
        column._stop = len(column._data)
        return column

    def __radd__(self, before: Sequence[T]) -> Self:
        return type(self)(before) + self

    def starts_with(self, other: "Column[T]") -> bool:
        """Whether the other's values are the first of this one's; at once where they share their array."""
        if self._data is other._data and self._start == other._start:
            return len(other) <= len(self)
        return len(other) <= len(self) and self[: len(other)]._codes() == other._codes()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Column):
            if self._data is other._data:
                return (self._start, self._stop) == (other._start, other._stop) or self.tolist() == other.tolist()
            mine, others = self._codes(), other._codes()
            if type(self) is type(other):
                return mine == others or mine.tobytes() == others.tobytes()  # NaN is equal to itself here
            return self.tolist() == other.tolist()
        if isinstance(other, tuple | list):
            return len(self) == len(other) and self.tolist() == list(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        if len(self) <= _MOST_SHOWN:
            return repr(tuple(self))
        first = ", ".join(map(repr, self[:_MOST_SHOWN]))
        return f"({first}, ... {len(self):,} values)"  # asyncio writes the result of a task where it tells of it

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.tolist(),)


BLOCK = 64
"""Tokens of a block, the unit in which contexts are compared."""


class Ids(Column[int]):
    """Token ids; 8 bytes each."""

    __slots__ = ("_hashes",)
    typecode = "q"

    def __init__(self, values: Iterable[int] = ()) -> None:
        super().__init__(values)
        self._hashes = array("q")  # of the array's whole blocks, shared by all views as the array is

    def _view(self, start: int, stop: int) -> Self:
        view = super()._view(start, stop)
        view._hashes = self._hashes
        return view

    def block_hashes(self) -> "array[int]":
        """The hash of each whole block with all before it. A context that grows hashes each block once."""
        if self._start:
            return hash_blocks(self._codes(), array("q"))
        count = len(self) // BLOCK
        if len(self._hashes) < count:
            done = len(self._hashes)
            self._hashes.extend(hash_blocks(self._data[done * BLOCK : count * BLOCK], self._hashes[-1:]))
        return self._hashes[:count]


def hash_blocks(codes: "array[int] | Ids", before: "array[int]") -> "array[int]":
    """Of the whole blocks of ``codes``, which follow those with the hashes ``before``, of which the last is enough."""
    found, last = array("q"), before[-1] if before else 0
    for start in range(0, len(codes) - BLOCK + 1, BLOCK):
        last = hash((last, codes[start : start + BLOCK].tobytes()))
        found.append(last)
    return found


class Versions(Column[int]):
    """Versions of weights; 4 bytes each."""

    __slots__ = ()
    typecode = "i"


class Logprobs(Column[float]):
    """Nats; 8 bytes each."""

    __slots__ = ()
    typecode = "d"


class Flags(Column[bool]):
    """Yes or no; a byte each."""

    __slots__ = ()
    typecode = "b"

    @classmethod
    def _encoded(cls, values: Iterable[Any]) -> "array[Any]":
        return super()._encoded(values) if type(values) is cls else array("b", map(bool, values))

    @classmethod
    def _decoded(cls, codes: "array[Any]") -> list[Any]:
        return list(map(bool, codes))

    def count_true(self) -> int:
        return self._codes().count(1)


_names: list[str] = []
_codes: dict[str, int] = {}


class Roles(Column[str]):
    """Who wrote a token; 2 bytes each. A process knows 65,536 different roles at most."""

    __slots__ = ()
    typecode = "H"

    @classmethod
    def _encoded(cls, values: Iterable[Any]) -> "array[Any]":
        if type(values) is cls:
            return super()._encoded(values)
        values = list(values)
        for name in dict.fromkeys(values):
            if name not in _codes:
                if len(_names) == 1 << 16:
                    raise ValueError(f"role {name!r} is one more than the 65,536 that can be told apart")
                _codes[name] = len(_names)
                _names.append(name)
        return array("H", map(_codes.__getitem__, values))

    @classmethod
    def _decoded(cls, codes: "array[Any]") -> list[Any]:
        return list(map(_names.__getitem__, codes))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.tolist(), dtype=dtype)


def repeated(kind: type[Column[T]], value: T, count: int) -> Column[T]:
    """A value so many times."""
    column = kind([value])
    column._data = column._data * count
    column._stop = count
    return cast("Column[T]", column)
