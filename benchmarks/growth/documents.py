"""Documents of midtraining: gathered, held out, tokenized and stored; then batched and packed."""

import random
from pathlib import Path

from verigym.envs.trace.examples import Example
from verigym.envs.trace.shards import ShardWriter, read_shards
from verigym.model.chat.cwm import CwmParser, CwmRenderer
from verigym.model.chat.trace import Frame, Trace
from verigym.model.tokenizer import train_tokenizer
from verigym.trainer.batching.packs import pack, plan_packs
from verigym.trainer.batching.stored import StoredDocuments
from verigym.trainer.loops.midtrain import DocumentMixture
from verigym.trainer.loops.midtrain_data import documents_of
from verigym.trainer.loops.midtrain_sources import Drawn, Source
from verigym.trainer.recipe.stages import MidtrainSource, MidtrainStage

from .harness import Subject, Work


def _example(number: int) -> Example:
    name = f"f{number % 997}"
    frames = (
        Frame(event="call", source=f"def {name}(x):\n", locals={"x": str(number)}),
        Frame(event="return", source="    return x\n", value=str(number)),
    )
    context = f"def {name}(x):\n    return x\n"
    return Example(
        trace=Trace(context=context, frames=frames), kind="library", origin=f"lib==1 a.py:{name}", function=name
    )


def streamed(size: int, folder: Path) -> Work:
    """Shards on disk -> documents on disk -> one epoch of packs."""
    writer = ShardWriter(folder / "traces")
    for number in range(size):
        writer.add(_example(number))
    writer.finish({})
    tokenizer = train_tokenizer([_example(n).trace.context for n in range(100)], 400)
    config = MidtrainSource(name="a", traces=str(folder / "traces"), num=size)
    stage = MidtrainStage(sources=[config])

    def work() -> None:
        places = range(size)
        source = Source(config=config, examples=Drawn(read=lambda: read_shards(folder / "traces"), places=places))
        renderer = CwmRenderer(tokenizer)
        found = documents_of([source], stage, tokenizer, renderer, CwmParser(), seed=0, folder=folder)
        mixture = DocumentMixture(found.learned, {"a": 1.0}, batch_tokens=65_536)
        while mixture.epochs_done < 1:
            pack(mixture.next_batch(), max_tokens=16_384)

    return work


class _Lengths(StoredDocuments):
    def __init__(self, lengths: list[int]) -> None:
        super().__init__()
        self._lengths = lengths

    def __len__(self) -> int:
        return len(self._lengths)

    def lengths(self):
        import numpy as np

        return np.array(self._lengths)


def planned(ways: int):
    """First fit by falling length of documents of 100 to 32,000 tokens."""

    def make(size: int, folder: Path) -> Work:
        draw = random.Random(0)
        documents = _Lengths([int(100 * 320 ** draw.random()) for _ in range(size)])
        return lambda: plan_packs(documents, max_tokens=32_768, ways=ways)

    return make


def _short(size: int) -> list[int]:
    """1 to 320 tokens, as the planned ones in hundreds."""
    draw = random.Random(0)
    return [int(320 ** draw.random()) for _ in range(size)]


def planned_short(size: int, folder: Path) -> Work:
    """First fit by falling length of the documents that the peer packs."""
    documents = _Lengths(_short(size))
    return lambda: f"{len(plan_packs(documents, max_tokens=328))} packs"


def packed_by_trl(size: int, folder: Path) -> Work:
    """TRL's best fit by falling length over all documents; it moves the tokens too."""
    import datasets
    from trl.data_utils import pack_dataset

    datasets.disable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = folder
    given = datasets.Dataset.from_dict({"input_ids": [[0] * length for length in _short(size)]})
    options = {"batch_size": size, "keep_in_memory": True, "load_from_cache_file": False}
    return lambda: f"{len(pack_dataset(given, 328, 'bfd', options))} packs"


_SIZES = (15_625, 62_500, 250_000, 1_000_000)
_QUICK = (1_000, 4_000, 16_000, 64_000)
SUBJECTS = {
    "midtrain, shards to packs": Subject(
        make=streamed, sizes=_SIZES, quick=(250, 1_000, 4_000, 16_000), unit="documents"
    ),
    "planning packs": Subject(make=planned(1), sizes=_SIZES, quick=_QUICK, unit="documents"),
    "planning packs of short ones": Subject(make=planned_short, sizes=_SIZES, quick=_QUICK, unit="documents"),
    "packs of TRL": Subject(make=packed_by_trl, sizes=_SIZES, quick=_QUICK, unit="documents"),
    "planning packs of 8 ranks": Subject(make=planned(8), sizes=_SIZES, quick=_QUICK, unit="documents"),
}
