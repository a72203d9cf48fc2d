"""What scores a student's tokens: a checkpoint that does not learn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...model.checkpoint import load_config, load_decoder
from ...model.decoder import Decoder
from ...model.families.find import why_not_ours
from ...model.huggingface import HuggingFaceDecoder
from ...model.lora import AnyDecoder
from ...model.parallel.checkpoint import load_into_shards
from ...model.parallel.place import Place


def open_teacher(checkpoint: Path, student: AnyDecoder, place: Place | None = None) -> AnyDecoder:
    """The teacher on the student's device, in its dtype, and over the same ranks.

    Raises:
        CheckpointError: it is missing or broken. ConfigError: it knows fewer ids than the student.
    """
    dtype, device = student.head.weight.dtype, student.head.weight.device
    teacher: AnyDecoder
    if why_not_ours(checkpoint) is not None:
        if place is not None:
            raise ConfigError(f"the teacher {checkpoint} is of no family of our decoder, which alone is sharded")
        teacher = HuggingFaceDecoder.load(checkpoint, dtype=dtype, local_files_only=True).to(device)
        teacher.num_ids = _known(student, teacher.head.weight.shape[0], checkpoint)
    else:
        if place is None:
            teacher = load_decoder(checkpoint, device).to(dtype)
        else:
            teacher = place.empty_decoder(load_config(checkpoint), dtype)
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
        known = student.head_matrix().shape[0]
    if rows < known:
        raise ConfigError(f"the teacher {checkpoint} knows {rows} ids, fewer than the {known} the student may sample")
    return known
