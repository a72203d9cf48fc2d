"""A sample of tests, spread evenly. Standard library only: it is used inside the sandbox and outside."""

import random

FIRST_ROUND = 64


def spread(tests, word):
    """Test ids in an order of which every beginning is spread over functions: each gives one of its tests, then each
    that has more gives another of its parameters.

    Args:
        tests: pytest's node ids.
        word: draws the order; the same word and tests, the same order.
    """
    rng, functions = random.Random(word), {}
    for test in tests:
        functions.setdefault(test.partition("[")[0], []).append(test)
    queues = list(functions.values())
    for queue in (queues, *queues):
        rng.shuffle(queue)
    longest = max(map(len, queues), default=0)
    return [queue[n] for n in range(longest) for queue in queues if n < len(queue)]


def rounds(tests, word):
    """The order of ``spread`` cut into rounds, each twice as long as the one before, and each in the order given."""
    order, place, cut, size = spread(tests, word), {test: n for n, test in enumerate(tests)}, [], FIRST_ROUND
    while order:
        cut.append(sorted(order[:size], key=place.__getitem__))
        order, size = order[size:], 2 * size
    return cut
