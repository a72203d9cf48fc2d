"""Weighted draws by a tree: a draw, or another weight, costs the logarithm of the number of weights."""

from collections.abc import Sequence


class Weights:
    """Weights of at least 0. Each node is the sum of its two children and never a sum of changes, so that the sums are
    those of the weights, whatever they were before."""

    def __init__(self, weights: Sequence[float]) -> None:
        width = 1
        while width < len(weights):
            width *= 2
        self._width = width
        self._sums = [0.0] * width + list(weights) + [0.0] * (width - len(weights))
        for node in range(width - 1, 0, -1):
            self._sums[node] = self._sums[2 * node] + self._sums[2 * node + 1]

    @property
    def total(self) -> float:
        return self._sums[1]

    def set(self, index: int, weight: float) -> None:
        """Another weight."""
        sums, node = self._sums, self._width + index
        sums[node] = weight
        while node > 1:
            node //= 2
            sums[node] = sums[2 * node] + sums[2 * node + 1]

    def at(self, draw: float) -> int:
        """The index that a draw from [0, 1) falls on, each as often as its weight says; never one of the weight 0."""
        sums, node, left = self._sums, 1, draw * self._sums[1]
        while node < self._width:
            node *= 2
            # Rounding may leave more than the right side has: where that is empty it is not entered.
            if left >= sums[node] and sums[node + 1] > 0:
                left -= sums[node]
                node += 1
        return node - self._width
