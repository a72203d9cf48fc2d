"""Segments: the tokens of an episode as forward passes see them, and how turns become segments."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..model.chat.protocols import Rendered
from .columns import Column, Flags, Ids, Logprobs, Roles, Versions, repeated

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
        if observed is not None:
            builder.observe(observed)
        segments.append(builder.build())
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
        values, versions = np.asarray(self.logprobs), np.asarray(self.policy_version)
        if len(values) != len(versions) or len(values) != len(self.token_ids):
            raise ValueError(
                f"a turn has {len(self.token_ids)} tokens, {len(values)} log-probabilities and {len(versions)} versions"
            )
        bad = np.flatnonzero((versions >= 0) & ~(np.isfinite(values) & (values <= 1e-6)))
        if len(bad):
            raise ValueError(
                f"a sampled token has log-probability {values[bad[0]]}; a finite one, at most 0, is needed"
            )


class _SegmentBuilder:
    """A segment while turns are appended; each costs what it adds."""

    def __init__(self) -> None:
        self.token_ids: Column[int] = Ids()
        self.loss_mask: Column[bool] = Flags()
        self.logprobs: Column[float] = Logprobs()
        self.policy_version: Column[int] = Versions()
        self.roles: Column[str] = Roles()

    def append(self, turn: TokenTurn) -> None:
        turn.check()
        observed, sampled = len(turn.prompt_ids) - len(self.token_ids), len(turn.token_ids)
        self.roles = self.roles + turn.prompt_roles[len(self.token_ids) :] + repeated(Roles, "assistant", sampled)
        self.token_ids = Ids.of(turn.prompt_ids) + turn.token_ids
        self.loss_mask = self.loss_mask + repeated(Flags, False, observed) + repeated(Flags, True, sampled)
        self.logprobs = self.logprobs + repeated(Logprobs, float("nan"), observed) + turn.logprobs
        self.policy_version = self.policy_version + repeated(Versions, -1, observed) + turn.policy_version

    def observe(self, observed: Rendered) -> None:
        count = len(observed.token_ids)
        self.token_ids += observed.token_ids
        self.loss_mask += [False] * count
        self.logprobs += [float("nan")] * count
        self.policy_version += [-1] * count
        self.roles += observed.roles

    def build(self) -> Segment:
        return Segment(
            token_ids=self.token_ids,
            loss_mask=self.loss_mask,
            logprobs=self.logprobs,
            policy_version=self.policy_version,
            roles=self.roles,
        )
