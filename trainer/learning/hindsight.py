"""Where a teacher reads what the student was not shown: blocks of text as tokens inside the student's own segments."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...agent.hindsight import block_of
from ...agent.trajectory import Segment, Trajectory
from ...model.chat.protocols import Rendered
from ..batching.documents import Hint
from ..recipe.algorithms import OPDConfig, RLConfig
from ..recipe.teachers import OWN, HindsightConfig

LEAST_TOKENS = 8
"""A block that must be cut to fewer says nothing, and its episode is not taught."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """Of each episode, for each of its segments a hint or None; () where it is not taught.

    Attributes:
        num_cut: blocks that lost tokens.
    """

    of_episodes: tuple[tuple[Hint | None, ...], ...]
    num_cut: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hindsight:
    """Makes the hints of a step's episodes.

    Attributes:
        encode: text to ids, reserved tokens in it as text.
        max_context: tokens that a teacher may read at once.
        reference, demonstration: see ``agent.hindsight.block_of``.
        decode: ids to text; None: teachers are not played (``loops.teacher_plays``).
        own: names of the teachers that are the policy itself.
    """

    encode: Callable[[str], Sequence[int]]
    max_context: int
    reference: Callable[[Trajectory], str] = field(default=lambda _: "")
    demonstration: Callable[[Trajectory], str] = field(default=lambda _: "")
    decode: Callable[[Sequence[int]], str] | None = None
    own: Collection[str] = OWN

    def __call__(self, trajectories: Sequence[Trajectory], configs: Sequence[RLConfig]) -> Hints:
        """
        Args:
            configs: the settings of each episode; those without hindsight are given no hints, and are not left out.
        """
        groups: dict[str, list[Trajectory]] = {}
        for one in trajectories:
            if one.reward is not None:
                groups.setdefault(one.group_id, []).append(one)
        found: list[tuple[Hint | None, ...]] = []
        num_cut = 0
        for one, config in zip(trajectories, configs, strict=True):
            settings = config.hindsight if isinstance(config, OPDConfig) else None
            if settings is None:
                found.append((None,) * len(one.segments))
                continue
            hints, was_cut = self._of(one, groups.get(one.group_id, []), settings)
            found.append(hints)
            num_cut += was_cut
        return Hints(of_episodes=tuple(found), num_cut=num_cut)

    def _of(
        self, episode: Trajectory, group: Sequence[Trajectory], settings: HindsightConfig
    ) -> tuple[tuple[Hint | None, ...], bool]:
        if episode.reward is None or (settings.of == "failed" and episode.passed is not False):
            return (), False
        text = block_of(
            episode,
            group,
            settings.parts,
            reference=self.reference,
            demonstration=self.demonstration,
            feedback_with_sibling=settings.feedback_with_sibling,
        )
        if not text:
            return (), False
        ids = np.asarray(list(self.encode(text)), np.int64)
        places = places_of(episode.segments, settings.before_turn)
        hints: list[Hint | None] = []
        was_cut = False
        for segment, place in zip(episode.segments, places, strict=True):
            room = min(settings.max_tokens, self.max_context - len(segment.token_ids))
            if place is None or room < min(LEAST_TOKENS, len(ids)):
                hints.append(None)
                continue
            was_cut |= room < len(ids)
            hints.append(Hint(token_ids=shortened(ids, room, settings.cut), before=place))
        return (tuple(hints), was_cut) if any(hints) else ((), was_cut)


def shortened(ids: np.ndarray, room: int, cut: str) -> np.ndarray:
    """At most ``room`` of the ids: without their middle, end or start."""
    if len(ids) <= room:
        return ids
    if cut == "end":
        return ids[:room]
    if cut == "start":
        return ids[len(ids) - room :]
    head = (room + 1) // 2
    return np.concatenate((ids[:head], ids[len(ids) - (room - head) :]))


def places_of(segments: Sequence[Segment], before_turn: int) -> list[int | None]:
    """Before which token of each segment a block stands; None: nowhere in it.

    Args:
        before_turn: see ``HindsightConfig``. Segments that begin after that turn have the block in their first user
            message, those that end before it have none.
    """
    turns = [(number, start) for number, segment in enumerate(segments) for start in _turns(segment)]
    if not turns:
        return [None] * len(segments)
    chosen = turns[min(before_turn, len(turns)) - 1] if before_turn else None
    found: list[int | None] = []
    for number, segment in enumerate(segments):
        starts = _turns(segment)
        if not starts or (chosen is not None and number < chosen[0]):
            found.append(None)
        elif chosen is not None and number == chosen[0]:
            found.append(_end_of_last(segment, chosen[1]))
        else:
            found.append(_end_of_first_user(segment, starts[0]))
    return found


def _turns(segment: Segment) -> list[int]:
    """Where runs of sampled tokens begin."""
    mask = np.asarray(segment.loss_mask, bool)
    return np.flatnonzero(mask & ~np.concatenate(([False], mask[:-1]))).tolist()


def _end_of_first_user(segment: Segment, before: int) -> int:
    """The end of the first user's text before a turn, else of what else was last said there."""
    roles = list(segment.roles[:before])
    if "user" not in roles:
        return _end_of_last(segment, before)
    place = roles.index("user")
    while place < before and roles[place] == "user":
        place += 1
    return place


def _end_of_last(segment: Segment, before: int) -> int:
    """The end of the last text that somebody, and not the template, wrote before a turn; else the turn's beginning."""
    roles = list(segment.roles[:before])
    place = before
    while place > 1 and roles[place - 1] in ("template", "assistant"):
        place -= 1
    return place if place > 1 and roles[place - 1] not in ("template", "assistant") else before


def encoder_of(tokenizer: object) -> Callable[[str], Sequence[int]]:
    """Text to ids by a tokenizer of ours or of transformers, reserved tokens as text."""
    from ...model.tokenizer import Tokenizer

    if isinstance(tokenizer, Tokenizer):
        return tokenizer.encode
    from ...model.chat.piece_ids import PieceIds

    pieces = PieceIds(tokenizer)

    def encode(text: str) -> Sequence[int]:
        found: Rendered = pieces.encode([(text, "user")], after="\n")
        return found.token_ids

    return encode
