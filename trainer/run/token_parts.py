"""Tokens of chosen episodes with what the sampler and the trainer said of each, as Parquet in numbered parts."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...agent.trajectory import Trajectory
from ...envs.runs.files import write_with
from ..learning.kept import FOUND, KeptTokens

if TYPE_CHECKING:
    import pyarrow as pa

FLUSH_SECONDS = 10.0
"""A part is written once so many have passed since the last, at each checkpoint, and at the end."""
FLUSH_TOKENS = 1 << 20
"""And once it has as many tokens."""


class TokenParts:
    """``FOLDER/FIRST-LAST.parquet``, each of the steps that its name says, whole or not there.

    A row is a segment: "step", "episode" (place in the step), "segment", "task_id", "family", "group", and lists with
    an element for each token: "token_ids", "text", "roles", "loss_mask", "logprobs" (as sampled), "policy_version" (-1:
    not sampled) and those of ``KeptTokens.columns``. NaN: there is none.
    """

    def __init__(self, folder: Path, *, resume_step: int, decode: Callable[[Sequence[int]], str] | None = None) -> None:
        self._folder, self._decode = folder, decode
        self._texts: dict[int, str] = {}
        self._rows: list[dict[str, Any]] = []
        self._num_tokens, self._flushed = 0, time.monotonic()
        for path in folder.glob("*.parquet"):
            _drop_steps(path, resume_step)
        self.num_bytes = sum(path.stat().st_size for path in folder.glob("*.parquet"))

    def add(self, step: int, trajectories: Sequence[Trajectory], kept: Sequence[KeptTokens]) -> None:
        """Take what is kept of a step; write a part where one is due."""
        for one in kept:
            trajectory = trajectories[one.episode]
            segment = trajectory.segments[one.segment]
            self._rows.append(
                {
                    "step": step,
                    "episode": one.episode,
                    "segment": one.segment,
                    "task_id": _plain(trajectory.task_id),
                    "family": _plain(trajectory.family),
                    "group": _plain(trajectory.group_id),
                    "token_ids": np.asarray(segment.token_ids, np.int32),
                    "text": [self._text(token) for token in segment.token_ids],
                    "roles": list(segment.roles),
                    "loss_mask": np.asarray(segment.loss_mask, bool),
                    "logprobs": np.asarray(segment.logprobs, np.float32),
                    "policy_version": np.asarray(segment.policy_version, np.int32),
                    **one.columns,
                }
            )
            self._num_tokens += len(segment.token_ids)
        if self._num_tokens >= FLUSH_TOKENS or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was taken since the last part."""
        self._flushed = time.monotonic()
        if not self._rows:
            return
        import pyarrow as pa

        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._rows[0]['step']:07d}-{self._rows[-1]['step']:07d}.parquet"
        _write(pa.Table.from_pylist(self._rows, schema=_schema()), path)
        self.num_bytes += path.stat().st_size
        self._rows, self._num_tokens = [], 0

    def _text(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = "" if self._decode is None else _plain(self._decode([token]))
        return self._texts[token]


def _plain(text: str) -> str:
    """What UTF-8 can hold of it."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _schema() -> "pa.Schema":
    import pyarrow as pa

    numbers = [(name, pa.list_(pa.float32())) for name in ("logprobs", "advantage", *FOUND)]
    return pa.schema(
        [
            ("step", pa.int32()),
            ("episode", pa.int32()),
            ("segment", pa.int32()),
            ("task_id", pa.string()),
            ("family", pa.string()),
            ("group", pa.string()),
            ("token_ids", pa.list_(pa.int32())),
            ("text", pa.list_(pa.string())),
            ("roles", pa.list_(pa.string())),
            ("loss_mask", pa.list_(pa.bool_())),
            ("policy_version", pa.list_(pa.int32())),
            *numbers,
        ]
    )


def _write(table: "pa.Table", path: Path) -> None:
    import pyarrow.parquet as pq

    write_with(path, lambda partial: pq.write_table(table, partial, compression="zstd"))


def _drop_steps(path: Path, resume_step: int) -> None:
    """Leave out of a part what is of later steps: they come again."""
    first, _, last = path.stem.partition("-")
    if not (first.isdigit() and last.isdigit()):
        path.unlink()  # of a write that a kill cut off
    elif int(first) > resume_step:
        path.unlink()
    elif int(last) > resume_step:
        import pyarrow.parquet as pq

        _write(
            pq.read_table(path, filters=[("step", "<=", resume_step)]),
            path.with_name(f"{int(first):07d}-{resume_step:07d}.parquet"),
        )
        path.unlink()
