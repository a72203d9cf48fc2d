"""Bins with room left, found by a tree: the first that holds a size costs the logarithm of their number."""


class Rooms:
    """Rooms in the order in which they were added."""

    def __init__(self) -> None:
        self._num, self._width = 0, 1
        self._most = [-1, -1]  # a heap of maxima: node i has the children 2i and 2i + 1, leaves begin at ``_width``

    def first(self, size: int) -> int | None:
        """The number of the first room of at least ``size``; None where there is none."""
        most = self._most
        if most[1] < size:
            return None
        node = 1
        while node < self._width:
            node *= 2
            if most[node] < size:
                node += 1
        return node - self._width

    def add(self, room: int) -> int:
        """A further room behind the others; its number."""
        if self._num == self._width:
            self._most = self._wider()
            self._width *= 2
        self._num += 1
        self._set(self._num - 1, room)
        return self._num - 1

    def left(self, number: int) -> int:
        """What is left of a room."""
        return self._most[self._width + number]

    def take(self, number: int, size: int) -> None:
        """So much less room."""
        self._set(number, self.left(number) - size)

    def _set(self, number: int, room: int) -> None:
        most, node = self._most, self._width + number
        most[node] = room
        while node > 1:
            node //= 2
            left, right = most[2 * node], most[2 * node + 1]
            larger = left if left >= right else right
            if most[node] == larger:
                return
            most[node] = larger

    def _wider(self) -> list[int]:
        """The tree with as many empty leaves beside: each level goes to the left half of the one below."""
        width = self._width
        wider = [-1] * (4 * width)
        level = 1
        while level <= width:
            wider[2 * level : 3 * level] = self._most[level : 2 * level]
            level *= 2
        wider[1] = self._most[1]
        return wider
