"""What midtrain learns from and measures by: the items of its sources as documents, on disk."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...agent.demonstrations import tokenize
from ...envs.trace.examples import Example
from ...envs.trace.twins import twin_key
from ...model.chat.protocols import Parser, Renderer
from ...model.chat.trace_tokens import TraceFormat
from ...model.tokenizer import Tokenizer
from ..batching.documents import Document
from ..batching.stored import StoredDocuments
from ..recipe.stages import MidtrainStage
from .midtrain import trace_document, trajectory_documents
from .midtrain_groups import Group, Grouped
from .midtrain_sources import Episode, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """What is trained on and what measures.

    Attributes:
        learned: source -> documents.
        held_out: of all sources, weighing frames and episodes alone.
        too_long: source -> documents to be learned that are longer than a microbatch.
        overlapping: source -> traces that hold a call of a function whose own traces measure.
    """

    learned: Mapping[str, Sequence[Document]]
    held_out: Sequence[Document]
    too_long: Mapping[str, int]
    overlapping: Mapping[str, int]


def documents_of(
    sources: Sequence[Source],
    stage: MidtrainStage,
    tokenizer: Tokenizer,
    renderer: Renderer,
    parser: Parser,
    *,
    seed: int,
    folder: Path | None = None,
) -> Documents:
    """Documents of every source; some of each are held out, and what a microbatch cannot hold is left out.

    Traces are held out by function (of a library) or program, episodes by task, in all sources alike: what another
    trace holds of a held-out function neither measures nor is learned.

    Args:
        folder: for files without names that hold the documents; None: where temporary files are.
    Raises:
        TaskError: a source's file has changed since it was gathered.
    """
    form = TraceFormat(tokenizer)
    grouped: list[Grouped] = []
    held: list[np.ndarray] = []
    for source in sources:
        found = Grouped()
        for item in source.items():
            found.add(groups_of(item))
        grouped.append(found)
        held.append(found.hold_out(stage.held_out_share, random.Random(f"{seed}/{source.config.name}/held out")))
    measuring = np.unique(np.concatenate(held))

    def made(item: Example | Episode, weight: float) -> list[Document]:
        if isinstance(item, Example):
            return [trace_document(item.trace, form, context_weight=weight)]
        return trajectory_documents([tokenize(item.trajectory, item.tools, renderer, parser)])

    def kept(item: Example | Episode, weight: float) -> Iterator[Document | None]:
        """None in the place of a document that is too long."""
        return (one if len(one) <= stage.train.microbatch_tokens else None for one in made(item, weight))

    learned = {source.config.name: StoredDocuments(folder) for source in sources}
    held_out = StoredDocuments(folder)
    too_long = dict.fromkeys(learned, 0)
    overlapping = dict.fromkeys(learned, 0)
    for source, found in zip(sources, grouped, strict=True):
        name = source.config.name
        for item, side in zip(source.items(), found.sides(measuring), strict=True):
            if side < 0:
                overlapping[name] += 1
                continue
            for document in kept(item, 0.0 if side else stage.train.context_weight):
                if document is not None:
                    (held_out if side else learned[name]).append(document)
                elif not side:
                    too_long[name] += 1
    return Documents(learned=learned, held_out=held_out, too_long=too_long, overlapping=overlapping)


def groups_of(item: Example | Episode) -> list[Group]:
    """The group that an item belongs to, and then those it holds parts of: a library's function by its line in the
    source, as call frames show it; a generated program by all of it; an episode by its task."""
    if isinstance(item, Episode):
        return [item.task]
    if item.kind != "library":
        return [("program", twin_key(item.trace.context))]
    called = (frame.source.strip() for frame in item.trace.frames if frame.event == "call")
    return [("function", line) for line in dict.fromkeys(called)]
