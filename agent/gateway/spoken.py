"""What an episode's turns answered and said, as trees of messages without tokens."""

from collections.abc import Sequence

from ...model.chat.messages import ToolSpec
from ..policy import Turn
from ..tree import MessageTree, Node
from .branches import Place, following, last_words, path_to, unanswered
from .drawing import Drawing

Spoken = tuple[tuple[ToolSpec, ...], MessageTree]
"""(the tools that were offered, a node for each message); what a policy said is ``trained``."""


def spoken(drawings: Sequence[Drawing]) -> list[Spoken]:
    """The branches of an episode, each message once.

    Contexts with other tools have nothing in common, because tools stand in the prompt: each set has its tree.

    Args:
        drawings: the turns that count (``Session.settle``).
    """
    trees: dict[int, tuple[tuple[ToolSpec, ...], list[Node]]] = {}
    numbers: dict[int, int] = {}
    for one in drawings:
        if one.said is None:
            continue
        path = path_to(one.said)
        _, nodes = trees.setdefault(id(path[0].parent), (one.tools, []))
        _put(path, nodes, numbers)
        for first in following(one.said):
            if unanswered(first):
                _put(path_to(last_words(first)), nodes, numbers)
    return [(tools, MessageTree(tuple(nodes))) for tools, nodes in trees.values()]


def _put(path: Sequence[Place], nodes: list[Node], numbers: dict[int, int]) -> None:
    for place in path:
        if id(place) in numbers or place.entry is None:
            continue
        entry, is_turn = place.entry, isinstance(place.entry, Turn)
        message = entry.message if isinstance(entry, Turn) else entry
        numbers[id(place)] = len(nodes)
        nodes.append(Node(parent=numbers.get(id(place.parent), -1), messages=(message,), trained=is_turn))
