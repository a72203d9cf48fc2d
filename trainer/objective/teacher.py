"""What scores a student's tokens: models that do not learn from them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError
from ...model.checkpoint import load_config, load_decoder
from ...model.decoder import Decoder
from ...model.divergence import Divergence, TeacherStates, TeacherTop
from ...model.families.find import why_not_ours
from ...model.huggingface import HuggingFaceDecoder
from ...model.lora import AnyDecoder
from ...model.parallel.checkpoint import load_into_shards
from ...model.parallel.packs import share_of, whole_of
from ...model.parallel.place import Place
from ...model.shape import Shape
from ..batching.documents import TOP
from ..batching.hints import as_read_by, rows_of
from ..batching.packs import PackedBatch
from ..batching.sharing import laid


class Teachers:
    """The teachers of a stage that this process (or these ranks) have, by name, and how they are compared with."""

    def __init__(self, models: Mapping[str, AnyDecoder], divergence: Divergence | None) -> None:
        """
        Args:
            models: with the student's ids; they may be the student itself.
            divergence: compared in the step; None: teachers say the log-probability of sampled tokens before it.
        """
        self.models = dict(sorted(models.items()))  # all ranks ask them in this order
        self._divergence = divergence

    @property
    def divergence(self) -> Divergence:
        assert self._divergence is not None, "sampled tokens are scored before the step"
        return self._divergence

    @torch.no_grad()
    def states(self, pack: PackedBatch, place: Place | None = None) -> list[tuple[str, TeacherStates | TeacherTop]]:
        """What each teacher's distributions at the trained tokens of its documents are made of, in the order of the
        pack; on every rank that shares it, for all of it. Teachers without a document in it are left out."""
        found: list[tuple[str, TeacherStates | TeacherTop]] = []
        for name, model in self.models.items():
            if place is None and name not in pack.taught:
                continue
            read = as_read_by(name, pack).to(pack.token_ids.device)
            index = read.loss_mask.nonzero().squeeze(1)
            if place is None:
                share = read.share if isinstance(model, Decoder) else "off"
                ids, documents, where = laid(read.token_ids, read.lengths, index, share)
                hidden, weight = model.states(ids, documents, index=where)
            else:
                # Also where no document is this teacher's: the other ranks wait for it in every layer.
                part = share_of(read.lengths, place.layout, place.meshes, read.token_ids.device)
                own, weight = model.states(part.take(read.token_ids), part.documents, cache=part.cache)
                hidden = whole_of(own, place.layout, place.meshes).index_select(0, index)
            if name in pack.taught:
                found.append((name, TeacherStates(hidden=hidden, weight=weight)))
        return found + _told_by_servers(pack, self.models)

    @torch.no_grad()
    def logprobs(self, pack: PackedBatch, score: Callable[[AnyDecoder, PackedBatch], Tensor]) -> Tensor:
        """[N] nats of the trained tokens of a pack, NaN where no teacher scores them.

        Args:
            score: (model, pack) -> [n] log-probabilities of the pack's trained tokens.
        """
        index = pack.loss_mask.nonzero().squeeze(1)
        found = torch.full((len(index),), torch.nan, device=index.device)
        for name, model in self.models.items():
            said = score(model, as_read_by(name, pack).to(index.device))
            rows = rows_of(name, pack, index)
            if len(rows):
                found[rows] = said.float()
        return found


def _told_by_servers(pack: PackedBatch, models: Mapping[str, AnyDecoder]) -> list[tuple[str, TeacherTop]]:
    """Of the teachers that are none of the models what came along with the pack."""
    if TOP not in pack.columns:
        return []
    index = pack.scored.nonzero().squeeze(1)
    found = []
    for name in sorted(set(pack.taught) - {"", *models}):
        ids, logprobs = pack.columns[TOP][index[rows_of(name, pack, index)]].unbind(dim=1)
        found.append((name, TeacherTop(ids=ids.long(), logprobs=logprobs)))
    return found


def open_teacher(checkpoint: Path, student: AnyDecoder, place: Place | None = None) -> AnyDecoder:
    """The teacher on the student's device, in its dtype, and over the same ranks.

    Raises:
        CheckpointError: it is missing or broken. ConfigError: it knows fewer ids than the student.
    """
    dtype, device = student.head.weight.dtype, student.head.weight.device
    teacher: AnyDecoder
    if why_not_ours(checkpoint) is not None:
        if place is None:
            teacher = HuggingFaceDecoder.load(checkpoint, dtype=dtype, local_files_only=True).to(device)
        else:
            shape = Shape.of(HuggingFaceDecoder.shape_of(checkpoint, dtype))
            teacher = place.empty_decoder(shape)
            assert isinstance(teacher, HuggingFaceDecoder), "it is of no family of ours"
            load_into_shards(checkpoint, teacher)
            teacher.probe()
        teacher.num_ids = _known(student, teacher.head.weight.shape[0], checkpoint)
    else:
        if place is None:
            teacher = load_decoder(checkpoint, device).to(dtype)
        else:
            sharded = place.empty_decoder(Shape(config=load_config(checkpoint), dtype=dtype))
            assert isinstance(sharded, Decoder), "its configuration is ours"
            teacher = sharded
            load_into_shards(checkpoint, teacher)
        teacher.use_attention(student.attention if isinstance(student, Decoder) else "auto")
        teacher.config = teacher.config.with_known_ids(_known(student, teacher.config.vocab_size, checkpoint))
    return teacher.requires_grad_(False)


def check_teacher(checkpoint: Path, student: Any, load: Callable[[Path], Any]) -> None:
    """Compare tokenizers, by what they make of every id.

    Args:
        student: the student's tokenizer.
        load: opens the one of a checkpoint.
    Raises:
        ConfigError: they differ; it names a token. CheckpointError: there is none.
    """
    mine, theirs = _vocabulary(student), _vocabulary(load(checkpoint))
    if mine == theirs:
        return
    token, place = min(mine.items() ^ theirs.items(), key=lambda item: (item[1], item[0]))
    raise ConfigError(
        f"the teacher {checkpoint} has another tokenizer than the student: they differ in the id {place} ({token!r}). "
        "A teacher scores the student's ids; take one of the same family, or train the student on its answers "
        "(verigym forage, then sft.sources)"
    )


def _vocabulary(tokenizer: Any) -> dict[str, int]:
    return dict(tokenizer.get_vocab())


def _known(student: AnyDecoder, rows: int, checkpoint: Path) -> int:
    """The ids that the student may sample, of which the teacher has ``rows`` at least."""
    if isinstance(student, Decoder):  # by its configuration: its head may be in shards
        known = student.config.num_ids or student.config.vocab_size
    else:
        known = student.num_ids or student.head.weight.shape[0]
    if rows < known:
        raise ConfigError(f"the teacher {checkpoint} knows {rows} ids, fewer than the {known} the student may sample")
    return known
