"""Weights that arrive as changes: those of the publisher after fifty updates, also in an engine that was away."""

import json
import shutil

import pytest
import torch

from verigym.errors import CheckpointError
from verigym.model.checkpoint import hf_views, save_checkpoint
from verigym.model.decoder import Decoder
from verigym.model.engine.deltas import bring, published_id
from verigym.model.engine.weights import checksums, from_checkpoint
from verigym.model.weights.delta import DELTA, Block, Published, encoded, sum_of, write_blocks

from ..conftest import small_config


class Publisher:
    """A trainer of one process that publishes in bfloat16, cut into two blocks of rows as two ranks would."""

    def __init__(self, decoder, tokenizer, root):
        self.decoder, self.tokenizer, self.root, self.count = decoder, tokenizer, root, 0
        self.told = None

    def now(self):
        return {name: view.detach().to(torch.bfloat16) for name, view in hf_views(self.decoder).items()}

    def step(self, seed, lr=1e-6):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.decoder.parameters():
                parameter -= lr * torch.randn(parameter.shape, generator=generator).sign()

    def publish(self, whole=False):
        self.count += 1
        name, now = f"weights-{self.count:06d}", self.now()
        folder = self.root / name
        if whole:
            save_checkpoint(folder, self.decoder, self.tokenizer, dtype=torch.bfloat16, sums=False)
        else:
            folder.mkdir()
            for rank in range(2):
                blocks = {}
                for key, value in now.items():
                    half = value.shape[0] // 2
                    cut = slice(0, half) if rank == 0 else slice(half, value.shape[0])
                    cuts = (cut, *(slice(0, size) for size in value.shape[1:]))
                    block = Block.of(tuple(value.shape), cuts)
                    blocks[key] = (block, encoded(self.last[key][cut].contiguous(), value[cut].contiguous()))
                write_blocks(folder, rank, blocks)
        told = Published(
            id=f"id-{self.count}",
            base=None if whole else self.told.id,
            previous=None if whole else f"weights-{self.count - 1:06d}",
            sums={key: sum_of(value, Block.of(tuple(value.shape), None)) for key, value in now.items()},
            dtype="bfloat16",
        )
        told.write(folder)
        self.told, self.last = told, now
        return folder


@pytest.fixture
def publisher(tokenizer, tmp_path):
    return Publisher(Decoder(small_config(), seed=0), tokenizer, tmp_path)


@pytest.fixture
def engines():
    """One in bfloat16 and one that computes in float32, of other weights."""
    return [Decoder(small_config(), seed=9).to(torch.bfloat16), Decoder(small_config(), seed=8)]


def same(engine, publisher):
    expected = publisher.now()
    return all(torch.equal(view.to(torch.bfloat16), expected[name]) for name, view in hf_views(engine).items())


def test_fifty_updates_with_an_engine_that_was_away_for_ten(publisher, engines):
    for update in range(51):
        publisher.step(update)
        folder = publisher.publish(whole=update == 0)
        for number, engine in enumerate(engines):
            if number == 1 and 20 <= update < 30:
                continue
            from_checkpoint(folder)(engine)
            assert published_id(engine) == publisher.told.id
            assert same(engine, publisher)
    assert checksums(engines[0]) == checksums(engines[1].to(torch.bfloat16))


def test_what_is_broken_leaves_the_weights_as_they_were(publisher, engines):
    engine = engines[0]
    publisher.step(0)
    from_checkpoint(publisher.publish(whole=True))(engine)
    before, had = checksums(engine), published_id(engine)
    publisher.step(1, lr=1e-2)
    good = publisher.publish()
    folder = good.with_name("weights-wrong")
    shutil.copytree(good, folder)
    told = json.loads((folder / DELTA).read_text())
    key = next(iter(told["sums"]))
    told["sums"][key] += 1
    (folder / DELTA).write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match="is not what was published: its sum differs"):
        from_checkpoint(folder)(engine)
    assert (checksums(engine), published_id(engine)) == (before, had)
    from_checkpoint(good)(engine)
    assert same(engine, publisher)


def test_changes_of_weights_that_are_gone(publisher, engines):
    publisher.step(0)
    first = publisher.publish(whole=True)
    publisher.step(1)
    second = publisher.publish()
    shutil.rmtree(first)
    with pytest.raises(CheckpointError, match="publish the weights whole"):
        from_checkpoint(second)(engines[0])


def test_a_folder_that_nobody_published_is_read_as_ever(publisher, engines, tmp_path):
    publisher.step(0)
    from_checkpoint(publisher.publish(whole=True))(engines[0])
    plain = tmp_path / "plain"
    save_checkpoint(plain, publisher.decoder, publisher.tokenizer)
    from_checkpoint(plain)(engines[0])
    assert published_id(engines[0]) is None
    with pytest.raises(CheckpointError, match="does not say what it has published"):
        bring(plain, engines[0], lambda folder, decoder: None)
