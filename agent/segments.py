"""Segments: the tokens of an episode as forward passes see them, and how turns become segments."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..model.chat.protocols import Rendered
from .columns import Column, Flags, Ids, Logprobs, Roles, Versions

PIECE_TOKENS = 4096
"""Tokens of one column that are turned into text at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Tokens that one forward pass sees together: a prompt, and turns appended to it exactly.

    Every field is a column of its kind (``columns``), whatever sequence it is made from.

    Attributes:
        token_ids: [T].
        loss_mask: [T], True on the assistant's tokens, the stop token it ended with included.
        logprobs: [T] nats as sampled; NaN where nothing was sampled, never 0.
        policy_version: [T] version that sampled the token; -1 where nothing was sampled: observations, and turns
            that a script wrote (their mask is True, so that imitation can learn from them).
        roles: [T] who wrote the token: "assistant" where sampled, else as the renderer said.
    """

    token_ids: Sequence[int]
    loss_mask: Sequence[bool]
    logprobs: Sequence[float]
    policy_version: Sequence[int]
    roles: Sequence[str]

    def __post_init__(self) -> None:
        for name, kind in COLUMNS.items():
            object.__setattr__(self, name, kind.of(getattr(self, name)))
        lengths = {len(self.token_ids), len(self.loss_mask), len(self.logprobs), len(self.policy_version)}
        if lengths != {len(self.roles)}:
            raise ValueError(f"a segment's fields have lengths {sorted(lengths | {len(self.roles)})}; they must be one")

    @property
    def num_sampled(self) -> int:
        return Flags.of(self.loss_mask).count_true()

    @property
    def columns(self) -> dict[str, Any]:
        """Columns by name."""
        return {name: getattr(self, name) for name in COLUMNS}

    def to_json(self) -> dict[str, Any]:
        """Columns by name; NaN log-probabilities become null."""
        row: dict[str, Any] = {name: tuple(getattr(self, name)) for name in COLUMNS}
        return row | {"logprobs": [None if value != value else value for value in self.logprobs]}


COLUMNS: Mapping[str, type[Column[Any]]] = {
    "token_ids": Ids,
    "loss_mask": Flags,
    "logprobs": Logprobs,
    "policy_version": Versions,
    "roles": Roles,
}


def json_pieces(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The text that ``json.dumps`` makes of a list of objects, in pieces; values that are columns come in several, the
    NaN of log-probabilities as null."""
    yield "["
    for number, row in enumerate(rows):
        yield ", " if number else ""
        for place, (name, column) in enumerate(row.items()):
            yield f"{', ' if place else '{'}{json.dumps(name)}: "
            if not isinstance(column, Column):
                yield json.dumps(column)
                continue
            yield "["
            for start in range(0, len(column), PIECE_TOKENS):
                values: list[Any] = column[start : start + PIECE_TOKENS].tolist()
                if isinstance(column, Logprobs):
                    values = [None if value != value else value for value in values]
                yield f"{', ' if start else ''}{json.dumps(values)[1:-1]}"
            yield "]"
        yield "}"
    yield "]"


def segment_from_json(row: Mapping[str, Any]) -> Segment:
    """Inverse of ``Segment.to_json``."""
    columns = {name: row[name] for name in COLUMNS}
    columns["logprobs"] = [float("nan") if value is None else value for value in row["logprobs"]]
    return Segment(**columns)


def segments_of(turns: Sequence["TokenTurn"], observed: Rendered | None = None) -> tuple[Segment, ...]:
    """Join turns into segments: a turn whose prompt extends the tokens so far is appended, any other opens a new
    segment. No token is ever rendered or encoded again.

    Args:
        observed: what the environment answered to the last turn; it ends the last segment.
    Raises:
        ValueError: a sampled token (version >= 0) without a finite log-probability.
    """
    segments: list[Segment] = []
    builder = _SegmentBuilder()
    for turn in turns:
        if builder.token_ids and not Ids.of(turn.prompt_ids).starts_with(builder.token_ids):
            segments.append(builder.build())
            builder = _SegmentBuilder()
        builder.append(turn)
    if builder.token_ids:
        segments.append(builder.build(observed))
    return tuple(segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTurn:
    """The tokens of one assistant turn: columns, which share what the turns of an episode have in common.

    Attributes:
        prompt_ids: [P] everything the model saw before it sampled.
        prompt_roles: [P].
        token_ids, logprobs, policy_version: [T] as the engine returned them; NaN and -1 where a script wrote them.
    """

    prompt_ids: Sequence[int]
    prompt_roles: Sequence[str]
    token_ids: Sequence[int]
    logprobs: Sequence[float]
    policy_version: Sequence[int]

    def __post_init__(self) -> None:
        prompt_ids = Ids.of(self.prompt_ids)
        sampled = Ids.of(self.token_ids)
        columns = {
            "prompt_ids": prompt_ids,
            "prompt_roles": Roles.of(self.prompt_roles),
            # Behind the prompt, where the next turn's prompt goes on from.
            "token_ids": (prompt_ids + sampled)[len(prompt_ids) :],
            "logprobs": Logprobs.of(self.logprobs),
            "policy_version": Versions.of(self.policy_version),
        }
        for name, column in columns.items():
            object.__setattr__(self, name, column)

    @property
    def context(self) -> Ids:
        """[P + T] the prompt and what was sampled."""
        return Ids.of(self.prompt_ids) + self.token_ids

    def check(self) -> None:
        """Raises ValueError where a sampled token (version >= 0) has no finite log-probability."""
        self.check_lengths()
        check_sampled(np.asarray(self.logprobs), np.asarray(self.policy_version))

    def check_lengths(self) -> None:
        """Raises ValueError where the columns of what was sampled differ in length."""
        lengths = len(self.token_ids), len(self.logprobs), len(self.policy_version)
        if len(set(lengths)) > 1:
            raise ValueError(
                f"a turn has {lengths[0]} tokens, {lengths[1]} log-probabilities and {lengths[2]} versions"
            )


def check_sampled(logprobs: np.ndarray, versions: np.ndarray) -> None:
    """Raises ValueError where a sampled token (version >= 0) has no finite log-probability."""
    bad = np.flatnonzero((versions >= 0) & ~(np.isfinite(logprobs) & (logprobs <= 1e-6)))
    if len(bad):
        raise ValueError(f"a sampled token has log-probability {logprobs[bad[0]]}; a finite one, at most 0, is needed")


class _SegmentBuilder:
    """The turns of a segment. A turn costs a few microseconds: many episodes of one process may end at once."""

    def __init__(self) -> None:
        self.token_ids: Column[int] = Ids()
        self._turns: list[TokenTurn] = []

    def append(self, turn: TokenTurn) -> None:
        turn.check_lengths()
        self.token_ids = turn.context
        self._turns.append(turn)

    def build(self, observed: Rendered | None = None) -> Segment:
        """
        Args:
            observed: what follows the last turn.
        Raises:
            ValueError: as ``segments_of``.
        """
        token_ids = self.token_ids if observed is None else self.token_ids + observed.token_ids
        count = len(token_ids)
        mask, logprobs, versions = np.zeros(count, np.int8), np.full(count, np.nan), np.full(count, -1, np.int32)
        roles, end = np.empty(count, np.uint16), 0
        for turn in self._turns:
            start, before = len(turn.prompt_ids), end
            end = start + len(turn.token_ids)
            roles[before:start] = Roles.of(turn.prompt_roles)[before:].as_stored()
            roles[start:end] = _ASSISTANT
            mask[start:end] = 1
            logprobs[start:end] = Logprobs.of(turn.logprobs).as_stored()
            versions[start:end] = Versions.of(turn.policy_version).as_stored()
        if observed is not None:
            roles[end:] = Roles.of(observed.roles).as_stored()
        check_sampled(logprobs, versions)
        return Segment(
            token_ids=token_ids,
            loss_mask=Flags.of_stored(mask),
            logprobs=Logprobs.of_stored(logprobs),
            policy_version=Versions.of_stored(versions),
            roles=Roles.of_stored(roles),
        )


_ASSISTANT = Roles(["assistant"]).as_stored()[0]
