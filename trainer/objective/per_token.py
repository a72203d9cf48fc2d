"""Settings that differ from token to token of a step, as columns of its documents: each family's clips and temperature,
and the weights of observations that are learned (``RLConfig.echo``)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...agent.trajectory import Segment, Trajectory
from ..batching.documents import Document
from ..recipe.algorithms import RLConfig

CLIPS = ("clip_low", "clip_high")


def is_by_token(own: Sequence[RLConfig]) -> bool:
    """Whether one temperature for the whole step would not do: families differ, or observations, whose cross-entropy
    is taken at 1, are scored beside tokens sampled at another."""
    temperatures = {config.temperature for config in own} | {1.0 for config in own if config.echo}
    return len(temperatures) > 1


def with_temperature(document: Document, config: RLConfig) -> Document:
    """The document with the temperature of each target: its sampling's, and 1 for what was not sampled."""
    column = np.where(document.loss_mask, np.float32(config.temperature), np.float32(1.0))
    return replace(document, columns={**document.columns, "temperature": column})


def add_columns(
    documents: list[tuple[Document, ...]], trajectories: Sequence[Trajectory], own: Sequence[RLConfig]
) -> None:
    """Write the clips of each document's family, where families differ, and its "echo" weights, where there are any."""
    clips = [name for name in CLIPS if len({getattr(config, name, None) for config in own}) > 1]
    names = CLIPS if clips else ()
    if not names and not any(config.echo for config in own):
        return
    for index, (trajectory, config) in enumerate(zip(trajectories, own, strict=True)):
        segments = [segment for segment in trajectory.segments if any(segment.loss_mask)]
        found = []
        for document, segment in zip(documents[index], segments):
            columns = {name: np.full(len(document), getattr(config, name), np.float32) for name in names}
            if config.echo:
                columns["echo"] = _echo(document, segment, config)
            found.append(replace(document, columns={**document.columns, **columns}))
        documents[index] = tuple(found)


def _echo(document: Document, segment: Segment, config: RLConfig) -> np.ndarray:
    """[L] weight of each target that the environment wrote; 0 where the assistant did, or nobody's weight is given."""
    roles = segment.roles[1 : len(document) + 1]
    weights = np.array([config.echo.get(role, 0.0) for role in roles], np.float32)  # type: ignore[call-overload]
    return np.where(document.loss_mask, np.float32(0.0), weights)
