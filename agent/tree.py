"""A tree of messages: the tokens of an episode whose context was changed, forked or begun anew, each stored once.

A harness compacts, edits, truncates and forks what it sends. Each context that a turn was sampled in is a path from the
root; what two contexts have in common, from their beginning on, is the same nodes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..model.chat.messages import Attachment, Message, ToolCall
from ..model.chat.protocols import Rendered
from .columns import Column, Flags, Ids, Logprobs, Roles, Versions, repeated
from .segments import Segment, TokenTurn, json_pieces

CONTEXT = "context"
"""The role, in a branch, of a token that an earlier branch has too: there it is learned, here it only stands before."""

_COLUMNS: Mapping[str, type[Column[Any]]] = {
    "token_ids": Ids,
    "roles": Roles,
    "logprobs": Logprobs,
    "policy_version": Versions,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What one step adds to the context before it.

    Attributes:
        parent: the node before, which has a lower number; -1: none, a context begins here.
        messages: those that end in it: one, or several that were rendered together. None where contexts part inside a
            message: it ends behind.
        token_ids: [T] its own tokens.
        roles: [T] who wrote each, as ``Segment.roles``.
        logprobs: [T] nats as sampled; NaN where nothing was.
        policy_version: [T] version that sampled the token; -1 where none did.
        trained: whether the policy wrote the tokens.
    """

    parent: int
    messages: tuple[Message, ...] = ()
    token_ids: Sequence[int] = ()
    roles: Sequence[str] = ()
    logprobs: Sequence[float] = ()
    policy_version: Sequence[int] = ()
    trained: bool = False

    def __post_init__(self) -> None:
        for name, kind in _COLUMNS.items():
            object.__setattr__(self, name, kind.of(getattr(self, name)))
        lengths = {len(getattr(self, name)) for name in _COLUMNS}
        if len(lengths) != 1:
            raise ValueError(f"a node's columns have lengths {sorted(lengths)}; they must be one")

    def to_json(self) -> dict[str, Any]:
        """A JSON object whose token columns are columns still."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return own | {"messages": [asdict(message) for message in self.messages]}


@dataclass(frozen=True, slots=True)
class MessageTree:
    """Nodes, each behind its parent. A branch is the path to a leaf."""

    nodes: tuple[Node, ...] = ()

    def __post_init__(self) -> None:
        wrong = [(place, node.parent) for place, node in enumerate(self.nodes) if not -1 <= node.parent < place]
        if wrong:
            raise ValueError(f"node {wrong[0][0]} has the parent {wrong[0][1]}; a parent stands before its children")

    def branches(self) -> list[tuple[int, ...]]:
        """The path to each leaf, as numbers of nodes; in the order of the leaves."""
        inner = {node.parent for node in self.nodes}
        return [self.path(place) for place in range(len(self.nodes)) if place not in inner]

    def path(self, place: int) -> tuple[int, ...]:
        """The nodes from the root to one, that one included."""
        found = []
        while place >= 0:
            found.append(place)
            place = self.nodes[place].parent
        return tuple(reversed(found))

    def messages(self, branch: Sequence[int]) -> tuple[Message, ...]:
        """The conversation of a branch."""
        return tuple(message for place in branch for message in self.nodes[place].messages)

    def segments(self) -> tuple[Segment, ...]:
        """A segment for each branch. A node's tokens are in the loss, and have their writer's role, in the first branch
        that has it; in later ones they are context (``CONTEXT``), so that nothing is learned twice."""
        owned: set[int] = set()
        found = []
        for branch in self.branches():
            found.append(self._segment(branch, owned))
            owned.update(branch)
        return tuple(one for one in found if len(one.token_ids))

    def _segment(self, branch: Sequence[int], owned: set[int]) -> Segment:
        ids, mask, logprobs, versions, roles = Ids(), Flags(), Logprobs(), Versions(), Roles()
        for place in branch:
            node, count, new = self.nodes[place], len(self.nodes[place].token_ids), place not in owned
            ids += node.token_ids
            mask += repeated(Flags, new and node.trained, count)
            logprobs += node.logprobs if new else repeated(Logprobs, float("nan"), count)
            versions += node.policy_version if new else repeated(Versions, -1, count)
            roles += node.roles if new else repeated(Roles, CONTEXT, count)
        return Segment(token_ids=ids, loss_mask=mask, logprobs=logprobs, policy_version=versions, roles=roles)

    def to_json(self) -> list[dict[str, Any]]:
        """A JSON list; NaN log-probabilities become null."""
        rows = []
        for node in self.nodes:
            row = node.to_json() | {name: tuple(getattr(node, name)) for name in _COLUMNS}
            rows.append(row | {"logprobs": [None if value != value else value for value in node.logprobs]})
        return rows

    def json_pieces(self) -> Iterator[str]:
        """The text of ``to_json``, in pieces."""
        return json_pieces([node.to_json() for node in self.nodes])

    @classmethod
    def from_json(cls, rows: Sequence[Mapping[str, Any]]) -> "MessageTree":
        """Inverse of ``to_json``."""
        return cls(tuple(_node_from_json(row) for row in rows))


def message_from_json(row: Mapping[str, Any]) -> Message:
    """Inverse of ``dataclasses.asdict``."""
    calls = tuple(ToolCall(**call) for call in row.get("calls", ()))
    return Message(
        **{**row, "calls": calls, "attachments": tuple(Attachment(**one) for one in row.get("attachments", ()))}
    )


def _node_from_json(row: Mapping[str, Any]) -> Node:
    told: dict[str, Any] = dict(row)
    told["messages"] = tuple(message_from_json(message) for message in row["messages"])
    told["logprobs"] = [float("nan") if value is None else value for value in row["logprobs"]]
    return Node(**told)


class Growing:
    """A node of a tree under construction. ``context`` is all ids up to its end."""

    __slots__ = ("children", "context", "logprobs", "messages", "num_before", "roles", "trained", "versions")

    def __init__(self, context: Ids, num_before: int, roles: Roles, messages: Sequence[Message]) -> None:
        self.context, self.num_before, self.roles, self.messages = context, num_before, roles, tuple(messages)
        self.logprobs = repeated(Logprobs, float("nan"), len(roles))
        self.versions = repeated(Versions, -1, len(roles))
        self.trained = False
        self.children: list[Growing] = []

    @property
    def own_ids(self) -> Ids:
        return self.context[self.num_before :]


class TreeBuilder:
    """Turns in the order in which they were sampled, to a tree. A turn costs what it adds where it goes on from the
    turn that the caller names."""

    def __init__(self) -> None:
        self._root = Growing(Ids(), 0, Roles(), ())
        self._parents: dict[int, Growing] = {}

    def add(
        self, turn: TokenTurn, conversation: Sequence[Message], said: Message, after: "Growing | None" = None
    ) -> Growing:
        """Put a turn behind the longest beginning of its prompt that is known.

        What was sampled is always a node of its own, also where the same ids have been sampled there before: each draw
        is trained.

        Args:
            conversation: what the prompt says.
            said: what the turn says.
            after: the turn that the prompt may go on from; it is looked at first.
        Raises:
            ValueError: a sampled token without a finite log-probability.
        """
        turn.check()
        prompt = Ids.of(turn.prompt_ids)
        node = after if after is not None and prompt.starts_with(after.context) else self._root
        node = self._descend(node, prompt)
        known = sum(len(one.messages) for one in self._path(node))
        node = self._grow(node, prompt, Roles.of(turn.prompt_roles), conversation[known:])
        sampled = len(turn.token_ids)
        leaf = Growing(turn.context, len(prompt), Roles.of(repeated(Roles, "assistant", sampled)), (said,))
        leaf.logprobs, leaf.versions, leaf.trained = Logprobs.of(turn.logprobs), Versions.of(turn.policy_version), True
        self._adopt(node, leaf)
        return leaf

    def observe(self, after: Growing, observed: Rendered, messages: Sequence[Message]) -> None:
        """What a turn was answered, though no turn follows."""
        context = after.context + observed.token_ids
        node = self._descend(after, context)
        roles = repeated(Roles, CONTEXT, len(after.context)) + Roles.of(observed.roles)
        known = sum(len(one.messages) for one in self._path(node)) - sum(len(one.messages) for one in self._path(after))
        self._grow(node, context, Roles.of(roles), messages[known:])

    def build(self) -> MessageTree:
        """Children in the order in which they came, each subtree before the next."""
        nodes: list[Node] = []
        waiting = [(child, -1) for child in reversed(self._root.children)]
        while waiting:
            one, parent = waiting.pop()
            waiting += [(child, len(nodes)) for child in reversed(one.children)]
            nodes.append(
                Node(
                    parent=parent,
                    messages=one.messages,
                    token_ids=one.own_ids,
                    roles=one.roles,
                    logprobs=one.logprobs,
                    policy_version=one.versions,
                    trained=one.trained,
                )
            )
        return MessageTree(tuple(nodes))

    def _descend(self, node: Growing, ids: Ids) -> Growing:
        """The node at the end of the longest beginning of ``ids`` that is known; one in which contexts part is cut."""
        while True:
            rest = ids[len(node.context) :]
            shared = [_common(child.own_ids, rest) for child in node.children]
            best = max(range(len(shared)), key=shared.__getitem__, default=-1)
            if best < 0 or not shared[best]:
                return node
            child = node.children[best]
            if shared[best] < len(child.own_ids):
                return self._cut(node, best, shared[best])
            node = child

    def _cut(self, parent: Growing, place: int, count: int) -> Growing:
        """Part a node's first ``count`` tokens from the others; the messages end behind."""
        whole = parent.children[place]
        first = Growing(whole.context[: whole.num_before + count], whole.num_before, whole.roles[:count], ())
        first.logprobs, first.versions, first.trained = whole.logprobs[:count], whole.versions[:count], whole.trained
        whole.num_before += count
        whole.roles, whole.logprobs, whole.versions = (
            whole.roles[count:],
            whole.logprobs[count:],
            whole.versions[count:],
        )
        parent.children[place] = first
        self._parents[id(first)] = parent
        self._adopt(first, whole)
        return first

    def _grow(self, node: Growing, context: Ids, roles: Roles, messages: Sequence[Message]) -> Growing:
        known = len(node.context)
        if known == len(context) and not messages:
            return node
        grown = Growing(context, known, Roles.of(roles[known:]), messages)
        self._adopt(node, grown)
        return grown

    def _adopt(self, parent: Growing, child: Growing) -> None:
        parent.children.append(child)
        self._parents[id(child)] = parent

    def _path(self, node: Growing) -> Iterator[Growing]:
        while node is not self._root:
            yield node
            node = self._parents[id(node)]


def _common(left: Ids, right: Ids) -> int:
    """How many ids two sequences begin with alike."""
    count = min(len(left), len(right))
    if right[:count].starts_with(left[:count]):
        return count
    return int(np.argmax(np.asarray(left[:count]) != np.asarray(right[:count])))
