"""A trajectory: one episode with its tokens, from the rollout to the loss. One type from here on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..model.chat.messages import Message, ToolCall
from ..model.chat.protocols import Rendered

Ending = Literal[
    "submitted",  # the agent handed in its work through a tool
    "answered",  # the agent ended with a final message
    "test_timeout",  # likewise, and the tests of its work met their time limit: 0
    "turn_limit",
    "token_limit",
    "wall_clock",
    "sandbox_failure",
    "grader_failure",
    "policy_failure",
    "environment_failure",  # an environment's own code raised what it should not
]
TERMINATED: frozenset[str] = frozenset({"submitted", "answered", "test_timeout"})
TRUNCATED: frozenset[str] = frozenset({"turn_limit", "token_limit", "wall_clock"})
INFRASTRUCTURE: frozenset[str] = frozenset(
    {"sandbox_failure", "grader_failure", "policy_failure", "environment_failure"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Tokens that one forward pass sees together: a prompt, and turns appended to it exactly.

    Attributes:
        token_ids: [T].
        loss_mask: [T], True on the assistant's tokens, the stop token it ended with included.
        logprobs: [T] nats as sampled; NaN where nothing was sampled, never 0.
        policy_version: [T] version that sampled the token; -1 where nothing was sampled: observations, and turns
            that a script wrote (their mask is True, so that imitation can learn from them).
        roles: [T] who wrote the token: "assistant" where sampled, else as the renderer said.
    """

    token_ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]
    logprobs: tuple[float, ...]
    policy_version: tuple[int, ...]
    roles: tuple[str, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.token_ids), len(self.loss_mask), len(self.logprobs), len(self.policy_version)}
        if lengths != {len(self.roles)}:
            raise ValueError(f"a segment's fields have lengths {sorted(lengths | {len(self.roles)})}; they must be one")

    @property
    def num_sampled(self) -> int:
        return sum(self.loss_mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One finished episode.

    Attributes:
        task_id, family: of the task.
        group_id: samples of one task in one step share it; advantages are taken within it.
        segments: tokens; empty where the policy has none (text-only policies).
        messages: the conversation as text, for people and reports.
        reward: None where the infrastructure failed (such an episode carries no reward) and in demonstrations.
        passed: the benchmark's verdict; None as above.
        breakdown: named parts of the reward.
        detail: one line on what decided the score, or the error's text.
        ending: why it ended.
        num_turns: assistant turns.
        num_format_errors: turns whose action was a format error.
        timings: seconds by stage ("policy", "environment", "grading", "total").
    """

    task_id: str
    family: str
    ending: Ending
    group_id: str = ""
    segments: tuple[Segment, ...] = ()
    messages: tuple[Message, ...] = ()
    reward: float | None = None
    passed: bool | None = None
    breakdown: Mapping[str, float] = field(default_factory=dict)
    detail: str = ""
    num_turns: int = 0
    num_format_errors: int = 0
    timings: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_infrastructure_failure(self) -> bool:
        return self.ending in INFRASTRUCTURE

    @property
    def num_sampled(self) -> int:
        return sum(segment.num_sampled for segment in self.segments)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; NaN log-probabilities become null."""
        row = asdict(self)
        for segment in row["segments"]:
            segment["logprobs"] = [None if value != value else value for value in segment["logprobs"]]
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Trajectory":
        """Inverse of ``to_json``."""
        fields: dict[str, Any] = dict(row)
        fields["segments"] = tuple(_segment_from_json(segment) for segment in row.get("segments", ()))
        fields["messages"] = tuple(_message_from_json(message) for message in row.get("messages", ()))
        return cls(**fields)


def _segment_from_json(row: Mapping[str, Any]) -> Segment:
    logprobs = tuple(float("nan") if value is None else value for value in row["logprobs"])
    columns = {key: tuple(row[key]) for key in ("token_ids", "loss_mask", "policy_version", "roles")}
    return Segment(logprobs=logprobs, **columns)


def _message_from_json(row: Mapping[str, Any]) -> Message:
    return Message(**{**row, "calls": tuple(ToolCall(**call) for call in row.get("calls", ()))})


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
        if builder.token_ids and list(turn.prompt_ids[: len(builder.token_ids)]) != builder.token_ids:
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
    """The tokens of one assistant turn.

    Attributes:
        prompt_ids: [P] everything the model saw before it sampled.
        prompt_roles: [P].
        token_ids, logprobs, policy_version: [T] as the engine returned them; NaN and -1 where a script wrote them.
    """

    prompt_ids: tuple[int, ...]
    prompt_roles: tuple[str, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    policy_version: tuple[int, ...]


class _SegmentBuilder:
    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.loss_mask: list[bool] = []
        self.logprobs: list[float] = []
        self.policy_version: list[int] = []
        self.roles: list[str] = []

    def append(self, turn: TokenTurn) -> None:
        for value, version in zip(turn.logprobs, turn.policy_version, strict=True):
            if version >= 0 and not float("-inf") < value <= 1e-6:
                raise ValueError(f"a sampled token has log-probability {value}; a finite one, at most 0, is needed")
        start = len(self.token_ids)
        observed = turn.prompt_ids[start:]
        self.token_ids += [*observed, *turn.token_ids]
        self.loss_mask += [False] * len(observed) + [True] * len(turn.token_ids)
        self.logprobs += [float("nan")] * len(observed) + list(turn.logprobs)
        self.policy_version += [-1] * len(observed) + list(turn.policy_version)
        self.roles += [*turn.prompt_roles[start:], *["assistant"] * len(turn.token_ids)]

    def observe(self, observed: Rendered) -> None:
        count = len(observed.token_ids)
        self.token_ids += observed.token_ids
        self.loss_mask += [False] * count
        self.logprobs += [float("nan")] * count
        self.policy_version += [-1] * count
        self.roles += observed.roles

    def build(self) -> Segment:
        return Segment(
            token_ids=tuple(self.token_ids),
            loss_mask=tuple(self.loss_mask),
            logprobs=tuple(self.logprobs),
            policy_version=tuple(self.policy_version),
            roles=tuple(self.roles),
        )
