"""A checkpoint with a flipped byte is loaded by nothing."""

import pytest

from verigym.errors import CheckpointError
from verigym.model.checkpoint import load_checkpoint, load_decoder, load_weights, save_checkpoint
from verigym.model.parallel.checkpoint import load_into_shards
from verigym.model.weights.convert import convert


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_every_way_of_reading_finds_it(decoder, tokenizer, tmp_path, name):
    path = tmp_path / "checkpoint"
    save_checkpoint(path, decoder, tokenizer)
    ways = {
        "load_checkpoint": lambda: load_checkpoint(path),
        "load_decoder": lambda: load_decoder(path),
        "load_weights": lambda: load_weights(path, decoder),
        "load_into_shards": lambda: load_into_shards(path, decoder),
        "convert": lambda: convert(path, tmp_path / "converted", to="dcp"),
    }
    for way in list(ways.values())[:-1]:
        way()
    flip(path / name)
    for told, way in ways.items():
        with pytest.raises(CheckpointError):
            way()
        assert not (tmp_path / "converted").exists(), told
