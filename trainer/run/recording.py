"""What a stage of reinforcement keeps of its episodes: scores and conversations as JSON Lines, tokens as Parquet."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...agent.trajectory import Trajectory
from ...envs.runs.parts import LineParts
from ..loops.loop import StepResult
from ..recipe.record import RecordConfig
from .token_parts import TokenParts

logger = logging.getLogger(__name__)

MIB = 1 << 20


class EpisodeRecorder:
    """Writes ``FOLDER/episodes/NNNNNN.jsonl`` and ``FOLDER/tokens/*.parquet``; what a killed sitting wrote of steps
    that come again is dropped when it is opened.

    A row of ``episodes``: "step", "index" (place in the step), "time" (seconds since 1970), "advantage" (None: left out
    of training), "version" ([oldest, newest] of its sampled tokens), "num_sampled", "num_tokens", "tokens" (whether
    they are kept), the fields of ``Trajectory`` but for its tokens, and last "evidence", "branches" (of a conversation
    that has several: {"parent", "messages"} each node) and "messages": None where the recipe's share or limit leaves
    them out.
    """

    def __init__(
        self,
        folder: Path,
        config: RecordConfig,
        *,
        seed: int,
        resume_step: int,
        decode: Callable[[Sequence[int]], str] | None = None,
    ) -> None:
        """
        Args:
            folder: of the stage.
            seed: of the choice of groups.
            resume_step: steps whose episodes stand; those of later ones are made again.
            decode: the text of token ids, which is kept beside them.
        """
        self._config, self._seed = config, seed
        self._lines = LineParts(folder / "episodes")
        self._lines.drop_from(lambda row: row["step"] > resume_step)
        self._tokens = TokenParts(folder / "tokens", decode=decode, resume_step=resume_step)
        self._told: set[str] = set()

    def keeps(self, step: int, groups: Sequence[str]) -> set[str]:
        """The groups of a step whose tokens are kept (``RL.keeps``)."""
        if not self._room("tokens", self._tokens.num_bytes, self._config.tokens_mib):
            return set()
        return self._chosen("tokens", self._config.tokens, step, groups)

    def write(self, result: StepResult) -> None:
        """The episodes of a step; readers see them when this returns."""
        groups = sorted({one.group_id for one in result.trajectories})
        share = self._config.conversations
        if not self._room("conversations", self._lines.num_bytes, self._config.conversations_mib):
            share = 0.0
        chosen = self._chosen("conversations", share, result.step, groups)
        kept = {one.episode for one in result.kept}
        advantages = result.advantages or (None,) * len(result.trajectories)
        now = round(time.time(), 3)
        self._lines.append(
            _row(one, result.step, index, now, advantage, index in kept, one.group_id in chosen)
            for index, (one, advantage) in enumerate(zip(result.trajectories, advantages, strict=True))
        )
        if result.kept:
            self._tokens.add(result.step, result.trajectories, result.kept)

    def flush(self) -> None:
        """Put kept tokens on the disk; before a checkpoint, after which their step does not come again."""
        self._tokens.flush()

    def close(self) -> None:
        self._tokens.flush()
        self._lines.close()

    def _room(self, what: str, num_bytes: int, most_mib: float) -> bool:
        if num_bytes < most_mib * MIB:
            return True
        if what not in self._told and most_mib:
            self._told.add(what)
            logger.warning("record.%s_mib = %g is used up: no more %s are kept", what, most_mib, what)
        return False

    def _chosen(self, what: str, share: float, step: int, groups: Sequence[str]) -> set[str]:
        chosen = {group for group in groups if _draw(f"{self._seed}/{what}/{step}/{group}") < share}
        if step == 1 and share and groups:
            chosen.add(groups[0])
        return chosen


def _draw(text: str) -> float:
    """A number in [0, 1) of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=7).digest()) / 2**56


def _row(
    one: Trajectory, step: int, index: int, now: float, advantage: float | None, has_tokens: bool, whole: bool
) -> dict[str, Any]:
    found = [np.asarray(segment.policy_version) for segment in one.segments]
    sampled = np.concatenate([column[column >= 0] for column in found] or [np.zeros(0, np.int64)])
    row = replace(one, segments=(), tree=None).to_json()
    left_out = ("segments", "tree", "messages", "evidence")
    return {
        "step": step,
        "index": index,
        "time": now,
        "advantage": advantage,
        "version": [int(sampled.min()), int(sampled.max())] if len(sampled) else None,
        "num_sampled": one.num_sampled,
        "num_tokens": sum(len(segment.token_ids) for segment in one.segments),
        "tokens": has_tokens,
        **{name: value for name, value in row.items() if name not in left_out},
        # Last, and in this order: whoever wants the head alone cuts a line at the first of them.
        "evidence": row["evidence"] if whole else None,
        **({"branches": branches_of(one)} if whole and one.tree is not None else {}),
        "messages": row["messages"] if whole else None,
    }


def branches_of(one: Trajectory) -> list[dict[str, Any]] | None:
    """The conversation as a tree, {"parent", "messages"} each node; None where it has one branch."""
    if one.tree is None or len(one.tree.branches()) < 2:
        return None
    return [
        {"parent": node.parent, "messages": [asdict(message) for message in node.messages]} for node in one.tree.nodes
    ]


def read_episodes(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a stage's ``episodes``, in order; a last line that was cut off is left out."""
    for path in LineParts(folder / "episodes").paths():
        with path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    yield json.loads(line)
