"""A trajectory: one episode with its tokens, from the rollout to the loss. One type from here on."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from ..model.chat.messages import Message
from .segments import PIECE_TOKENS, Segment, TokenTurn, json_pieces, segment_from_json, segments_of
from .tree import MessageTree, message_from_json

__all__ = ["INFRASTRUCTURE", "PIECE_TOKENS", "TERMINATED", "TRUNCATED", "Ending", "Segment", "TokenTurn", "Trajectory"]
__all__ += ["segments_of"]

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
    "agent_crash",  # an agent of others broke down after the model had spoken: scored as a truncated episode
    "agent_failure",  # it broke down before the model had any part in it
]
TERMINATED: frozenset[str] = frozenset({"submitted", "answered", "test_timeout"})
TRUNCATED: frozenset[str] = frozenset({"turn_limit", "token_limit", "wall_clock", "agent_crash"})
INFRASTRUCTURE: frozenset[str] = frozenset(
    {"sandbox_failure", "grader_failure", "policy_failure", "environment_failure", "agent_failure"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One finished episode.

    Attributes:
        task_id, family: of the task.
        group_id: samples of one task in one step share it; advantages are taken within it.
        segments: tokens; empty where the policy has none (text-only policies).
        tree: the messages and tokens of all branches, where the context may have any: ``segments`` is read from it.
            None: the segments are all there is.
        messages: the conversation as text, for people and reports; of a tree the branch of the last turn.
        reward: None where the infrastructure failed (such an episode carries no reward) and in demonstrations.
        passed: the benchmark's verdict; None as above.
        breakdown: named parts of the reward.
        detail: one line on what decided the score, or the error's text.
        failed_in: of an environment_failure, the hook that failed: "start", "score", ..., or "tool NAME".
        ending: why it ended.
        turn_rewards: what each assistant turn earned, the last the score too; their sum is the reward. () where the
            whole reward came at the end.
        turn_tokens: sampled tokens of each turn, in the order of the segments; () where that is not known.
        speaker: whose episode it is: "" the agent's, else that of another seat, which is trained too.
        companions: of the same episode, the trajectories of such seats; not saved with it.
        num_turns: assistant turns.
        num_format_errors: turns whose action was a format error.
        timings: seconds by stage ("policy", "environment", "grading", "total").
        evidence: what the score was taken from, for people: "patch" (a diff), "tests" {id: outcome}; none where the
            environment tells of none. No policy is shown it.
        agent: of an agent of others its name, how it ended ("exit"), the end of what it printed ("output"), and the
            counts of its requests; empty for our own loop.
    """

    task_id: str
    family: str
    ending: Ending
    group_id: str = ""
    segments: tuple[Segment, ...] = ()
    tree: MessageTree | None = None
    messages: tuple[Message, ...] = ()
    reward: float | None = None
    passed: bool | None = None
    breakdown: Mapping[str, float] = field(default_factory=dict)
    detail: str = ""
    failed_in: str = ""
    turn_rewards: tuple[float, ...] = ()
    turn_tokens: tuple[int, ...] = ()
    speaker: str = ""
    companions: tuple["Trajectory", ...] = ()
    num_turns: int = 0
    num_format_errors: int = 0
    timings: Mapping[str, float] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    agent: Mapping[str, Any] = field(default_factory=dict)

    @property
    def every_message(self) -> tuple[Message, ...]:
        """Those of all branches, each once; without a tree ``messages``."""
        if self.tree is None:
            return self.messages
        return tuple(message for node in self.tree.nodes for message in node.messages)

    @property
    def is_infrastructure_failure(self) -> bool:
        return self.ending in INFRASTRUCTURE

    @property
    def num_sampled(self) -> int:
        return sum(segment.num_sampled for segment in self.segments)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; NaN log-probabilities become null. Where there is a tree, it stands for the segments."""
        row = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "companions"}
        tokens = {"segments": tuple(segment.to_json() for segment in self.segments)}
        if not self.agent:
            del row["agent"]
        if self.tree is None:
            del row["tree"]
        else:
            tokens = {"segments": (), "tree": self.tree.to_json()}
        return {
            **row,
            **tokens,
            "messages": tuple(asdict(message) for message in self.messages),
            "breakdown": dict(self.breakdown),
            "timings": dict(self.timings),
            "evidence": dict(self.evidence),
        }

    def json_pieces(self, before: Mapping[str, Any] = MappingProxyType({})) -> Iterator[str]:
        """The text that ``json.dumps({**before, **self.to_json()})`` is, in pieces of a few milliseconds each: whoever
        writes a long episode on a thread lets others at the interpreter in between."""
        row = {**before, **replace(self, segments=(), tree=self.tree and MessageTree()).to_json()}
        for number, (name, value) in enumerate(row.items()):
            yield f"{', ' if number else '{'}{json.dumps(name)}: "
            if name == "segments" and self.tree is None:
                yield from json_pieces([segment.columns for segment in self.segments])
            elif name == "tree" and self.tree is not None:
                yield from self.tree.json_pieces()
            else:
                yield json.dumps(value)
        yield "}"

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Trajectory":
        """Inverse of ``to_json``."""
        told: dict[str, Any] = dict(row)
        told["messages"] = tuple(message_from_json(message) for message in row.get("messages", ()))
        for name in ("turn_rewards", "turn_tokens"):
            told[name] = tuple(row.get(name, ()))
        if "tree" in row:
            told["tree"] = MessageTree.from_json(row["tree"])
            told["segments"] = told["tree"].segments()
        else:
            told["segments"] = tuple(segment_from_json(segment) for segment in row.get("segments", ()))
        return cls(**told)
