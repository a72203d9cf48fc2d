"""Which of an episode's known contexts a request goes on from: its messages compared with those of the branches."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...model.chat.messages import Message, ToolSpec
from ..policy import Entry, Turn

Key = tuple[object, ...]


@dataclass(slots=True, eq=False)
class Place:
    """A message of a branch.

    Attributes:
        parent: the message before; None for the first.
        entry: the message, or the policy's own turn.
        told: the message as the harness was told it.
        children: what has followed, by its key; several where the same was said twice.
        order: of its making.
    """

    parent: "Place | None"
    entry: Entry | None
    told: Message | None
    order: int
    children: dict[Key, list["Place"]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """Where a request stands.

    Attributes:
        place: its last message.
        conversation: its context: turns as they were sampled, as far as the branch is known, and what is new.
        changed: whether it leaves a branch: something else is known to follow, or to begin, where it goes on.
    """

    place: Place
    conversation: list[Entry]
    changed: bool


class Branches:
    """The messages of an episode's contexts; those with other tools are apart, because tools stand in the prompt.

    A message is the same where role, text and calls are; not its ids, which gateways and clients invent. An assistant's
    message that comes back without its reasoning is the same: clients leave it out. With another reasoning it is not.
    """

    def __init__(self) -> None:
        self._roots: dict[str, Place] = {}
        self._num_places = 0

    def match(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Matched:
        """Follow a request along the branches as far as it goes, and put down what is new of it."""
        known = json.dumps([spec.to_openai() for spec in tools], sort_keys=True, default=str)
        changed = known not in self._roots and bool(self._roots)
        root = self._roots.setdefault(known, self._new(None, None, None))
        found, count = [root], 0
        for message in messages:
            key = _key(message)
            same = [child for place in found for child in place.children.get(key, ()) if _same(message, child)]
            if not same:
                break
            found, count = same, count + 1
        place = max(found, key=lambda one: one.order)
        changed = changed or (count < len(messages) and any(one.children for one in found))
        for message in messages[count:]:
            place = self.put(place, message, message)
        return Matched(
            place=place, conversation=[one.entry for one in path_to(place) if one.entry is not None], changed=changed
        )

    def put(self, after: Place, entry: Entry, told: Message) -> Place:
        """A message behind another."""
        place = self._new(after, entry, told)
        after.children.setdefault(_key(told), []).append(place)
        return place

    def _new(self, parent: Place | None, entry: Entry | None, told: Message | None) -> Place:
        self._num_places += 1
        return Place(parent=parent, entry=entry, told=told, order=self._num_places)


def followed(place: Place) -> bool:
    """Whether anything was said behind a message."""
    return bool(place.children)


def last_turn(place: Place) -> Place | None:
    """The last of the policy's turns on the way to a message."""
    one: Place | None = place
    while one is not None and not isinstance(one.entry, Turn):
        one = one.parent
    return one


def unanswered(first: Place) -> list[Message]:
    """The messages from one on where no turn is behind them, on the way that was taken last; else none."""
    news, one = [], first
    while True:
        if isinstance(one.entry, Turn):
            return []
        if isinstance(one.entry, Message):
            news.append(one.entry)
        if not one.children:
            return news
        one = taken_last(one)


def last_words(place: Place) -> Place:
    """The end of the way on from a message that was taken last."""
    while place.children:
        place = taken_last(place)
    return place


def following(place: Place) -> list[Place]:
    """The messages right behind one."""
    return [child for children in place.children.values() for child in children]


def taken_last(place: Place) -> Place:
    """Of the messages right behind one that which came last."""
    return max(following(place), key=lambda child: child.order)


def path_to(place: Place) -> list[Place]:
    """From a branch's first message to one, that one included."""
    found: list[Place] = []
    one: Place | None = place
    while one is not None and one.entry is not None:
        found.append(one)
        one = one.parent
    return found[::-1]


def told_until(place: Place) -> list[Message]:
    """A branch's messages up to one, that one included, as the harness was told them."""
    return [one.told for one in path_to(place) if one.told is not None]


def _key(message: Message) -> Key:
    calls = tuple(call.name for call in message.calls)
    return message.role, message.content, calls, message.name if message.role == "tool" else None


def _same(message: Message, known: Place) -> bool:
    """Whether the arguments of calls are the same, and the reasoning where there is any; the key says the rest."""
    assert known.told is not None
    if message.thinking is not None and message.thinking != known.told.thinking:
        return False
    return all(one.arguments == other.arguments for one, other in zip(message.calls, known.told.calls, strict=True))
