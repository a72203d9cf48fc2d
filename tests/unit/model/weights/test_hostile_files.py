"""Files of a checkpoint that would run code, or lead out of its folder, were they read as their libraries do."""

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorStorageMetadata,
)

from verigym.__main__ import main
from verigym.errors import CheckpointError
from verigym.model.checkpoint import load_checkpoint, load_decoder, load_weights, save_checkpoint
from verigym.model.decoder import Decoder
from verigym.model.engine.open import open_checkpoint
from verigym.model.engine.weights import from_checkpoint
from verigym.model.format import open_format
from verigym.model.huggingface import load_model
from verigym.model.parallel.checkpoint import load_into_shards, load_state, save_state
from verigym.model.tokenizer import Tokenizer
from verigym.model.weights.convert import convert
from verigym.model.weights.dcp_index import read_index


class Payload:
    """Runs a shell command where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._mark}",)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "code-ran"


@pytest.fixture
def folder(decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A small checkpoint in torch's distributed format."""
    save_checkpoint(tmp_path / "hf", decoder, tokenizer)
    convert(tmp_path / "hf", tmp_path / "dcp", to="dcp")
    return tmp_path / "dcp"


def _index(folder: Path) -> Metadata:
    return pickle.loads((folder / ".metadata").read_bytes())


def _write(folder: Path, index: Any) -> None:
    (folder / ".metadata").write_bytes(index if isinstance(index, bytes) else pickle.dumps(index))


def _instead(index: Metadata, mark: Path) -> Any:
    return Payload(mark)


def _in_planner_data(index: Metadata, mark: Path) -> Any:
    index.planner_data = {"a": Payload(mark)}
    return index


def _in_a_size(index: Metadata, mark: Path) -> Any:
    entry: Any = next(iter(index.state_dict_metadata.values()))
    entry.size = Payload(mark)
    return index


def _as_a_key(index: Metadata, mark: Path) -> Any:
    index.storage_data[Payload(mark)] = 1
    return index


def _by_name(line: str) -> Callable[[Metadata, Path], bytes]:
    """A pickle of protocol 0 that calls a name of the standard library with the mark's path."""

    def make(index: Metadata, mark: Path) -> bytes:
        module, name, code = line.partition(" ")[0], *line.partition(" ")[2].split("|")
        return f"c{module}\n{name}\n(V{code.format(mark=mark)}\ntR.".encode()

    return make


def _through_a_name_with_dots(index: Metadata, mark: Path) -> bytes:
    """From an allowed module to one that it imports."""

    def text(value: str) -> bytes:
        return b"\x8c" + bytes([len(value)]) + value.encode()

    return b"\x80\x04" + text("torch.serialization") + text("os.system") + b"\x93" + text(f"touch {mark}") + b"\x85R."


ATTACKS = {
    "instead of the index": _instead,
    "in what the planner keeps": _in_planner_data,
    "in a size": _in_a_size,
    "as a key": _as_a_key,
    "os.system": _by_name("os system|touch {mark}"),
    "posix.system": _by_name("posix system|touch {mark}"),
    "builtins.eval": _by_name("builtins eval|__import__('os').system('touch {mark}')"),
    "builtins.exec": _by_name("builtins exec|import os; os.system('touch {mark}')"),
    "subprocess.getoutput": _by_name("subprocess getoutput|touch {mark}"),
    "torch.hub": _by_name("torch.hub os.system|touch {mark}"),
    "builtins.getattr": lambda index, mark: b"cbuiltins\ngetattr\n(cos\nsystem\nV__call__\ntR.",
    "a name with dots": _through_a_name_with_dots,
}
"""What stands in .metadata; each ran code, or would have, with torch's own reader."""

READERS: dict[str, Callable[[Path, Decoder], Any]] = {
    "load_checkpoint": lambda folder, decoder: load_checkpoint(folder),
    "load_weights": lambda folder, decoder: load_weights(folder, decoder),
    "load_into_shards": lambda folder, decoder: load_into_shards(folder, decoder),
    "from_checkpoint": lambda folder, decoder: from_checkpoint(folder)(decoder),
    "convert": lambda folder, decoder: convert(folder, folder.parent / "out", to="hf"),
    "open_checkpoint": lambda folder, decoder: open_checkpoint(folder, max_batch=1, num_threads=1),
    "load_state": lambda folder, decoder: load_state(folder, decoder, torch.optim.AdamW(decoder.parameters())),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_index_runs_nothing(attack: str, folder: Path, mark: Path) -> None:
    _write(folder, ATTACKS[attack](_index(folder), mark))
    with pytest.raises(CheckpointError, match=r"\.metadata"):
        read_index(folder)
    assert not mark.exists()


@pytest.mark.parametrize("reader", READERS)
def test_no_way_to_read_a_checkpoint_runs_its_index(reader: str, folder: Path, decoder: Decoder, mark: Path) -> None:
    _write(folder, Payload(mark))
    with pytest.raises(CheckpointError, match="system, which no index of weights has a use for"):
        READERS[reader](folder, decoder)
    assert not mark.exists()


def test_the_commands_say_why(folder: Path, mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(folder, Payload(mark))
    assert main(["convert", str(folder), str(folder.parent / "out"), "--to", "hf"]) != 0
    assert "source that you trust" in capsys.readouterr().err
    assert main(["serve", str(folder), "--port", "0"]) != 0
    assert "source that you trust" in capsys.readouterr().err
    assert not mark.exists()


def test_a_tensor_that_is_a_pickled_object_is_not_unpickled(decoder: Decoder, mark: Path, tmp_path: Path) -> None:
    """An index may say that a name is an object; torch unpickles objects without asking what they are."""
    optimizer = torch.optim.AdamW(decoder.parameters())
    save_state(tmp_path / "state", decoder, optimizer)
    index = _index(tmp_path / "state")
    key = MetadataIndex(fqn="optimizer.step")
    place = next(value for index_key, value in index.storage_data.items() if index_key.fqn == "optimizer.step")
    index.storage_data = {k: v for k, v in index.storage_data.items() if k.fqn != "optimizer.step"} | {key: place}
    index.state_dict_metadata["optimizer.step"] = BytesStorageMetadata()
    data = io.BytesIO()
    torch.save(Payload(mark), data)
    with (tmp_path / "state" / place.relative_path).open("ab") as file:
        place.offset, place.length = file.tell(), len(data.getvalue())
        file.write(data.getvalue())
    _write(tmp_path / "state", index)
    with pytest.raises(CheckpointError, match="pickled object"):
        load_state(tmp_path / "state", decoder, optimizer)
    assert not mark.exists()


def test_stored_pieces_run_nothing(folder: Path, mark: Path) -> None:
    index = _index(folder)
    data = io.BytesIO()
    torch.save(Payload(mark), data)
    for place in index.storage_data.values():
        (folder / place.relative_path).write_bytes(data.getvalue())
        place.offset, place.length = 0, len(data.getvalue())
    _write(folder, index)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_decoder(folder)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", ""])
def test_an_index_names_no_file_outside(name: str, folder: Path) -> None:
    index = _index(folder)
    (folder.parent / "secret").write_bytes(b"0" * 1000)
    for place in index.storage_data.values():
        place.relative_path = name
    _write(folder, index)
    with pytest.raises(CheckpointError, match="outside its folder"):
        load_decoder(folder)


@pytest.mark.parametrize("name", ["../hf/model.safetensors", "/etc/passwd"])
def test_an_index_of_safetensors_names_no_file_outside(name: str, folder: Path) -> None:
    target = folder.parent / "other"
    shutil.copytree(folder.parent / "hf", target)
    (target / "model.safetensors").unlink()
    (target / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    with pytest.raises(CheckpointError, match="outside its folder"):
        load_decoder(target)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("size", (1, 2), "has a tuple for a size"),
        ("size", torch.Size([1, -2]), "has a size of"),
        ("chunks", {}, "has a dict where a list is expected"),
        ("properties", "float32", "has a str for the properties"),
    ],
)
def test_an_index_with_the_wrong_kind_of_thing_is_told(field: str, value: Any, told: str, folder: Path) -> None:
    index = _index(folder)
    setattr(next(iter(index.state_dict_metadata.values())), field, value)
    _write(folder, index)
    with pytest.raises(CheckpointError, match=told):
        read_index(folder)


@pytest.mark.parametrize("data", [b"", b"\x80", b"not a pickle", b"\x80\x04K\x01.", b"\x80\x04]\x94."])
def test_a_broken_index_is_told(data: bytes, folder: Path) -> None:
    _write(folder, data)
    with pytest.raises(CheckpointError, match=r"copy the checkpoint anew|source that you trust"):
        load_decoder(folder)


def test_what_torch_writes_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    state = {
        "model": {"a": torch.randn(3, 4), "b": torch.zeros(2, dtype=torch.bfloat16), "c": torch.ones(())},
        "more": {"text": "x", "list": [1, 2], "flag": torch.ones(2, dtype=torch.bool)},
    }
    dcp.save(state, checkpoint_id=tmp_path / "saved", no_dist=True)
    theirs, ours = _index(tmp_path / "saved"), read_index(tmp_path / "saved")
    assert ours.state_dict_metadata == theirs.state_dict_metadata
    assert ours.storage_data == theirs.storage_data
    kept = ours.state_dict_metadata["model.b"]
    assert isinstance(kept, TensorStorageMetadata)
    assert kept.properties.dtype == torch.bfloat16


EVIL = "from pathlib import Path\nPath({mark!r}).write_text('ran')\n"


def _with_code(folder: Path, mark: Path) -> None:
    """Code beside a model of transformers, as repositories on the hub bring it."""
    for name in ("modeling_evil.py", "tokenization_evil.py", "configuration_evil.py"):
        (folder / name).write_text(EVIL.format(mark=str(mark)))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "architectures": ["Evil"]}
    config["auto_map"] = {
        "AutoConfig": "configuration_evil.Evil",
        "AutoModelForCausalLM": "modeling_evil.Evil",
        "AutoTokenizer": ["tokenization_evil.Evil", None],
    }
    (folder / "config.json").write_text(json.dumps(config))
    settings = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_code_beside_a_model_is_not_run_nor_asked_about(
    folder: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = folder.parent / "hf"
    _with_code(target, mark)
    (target / "SHA256SUMS").unlink(missing_ok=True)  # whoever planted the code has mended the sums too
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # what a script's standard input may say
    for read in (load_model, open_format, lambda path: open_checkpoint(path, max_batch=1)):
        with pytest.raises(CheckpointError, match="trust_remote_code"):
            read(target)
    assert not mark.exists()


def test_weights_of_transformers_in_a_pickle_run_nothing(mark: Path, tmp_path: Path) -> None:
    import transformers

    settings = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = transformers.LlamaConfig(**settings, num_attention_heads=2, num_key_value_heads=1)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(tmp_path / "llama")
    torch.save(Payload(mark), tmp_path / "llama" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="transformers cannot load"):
        load_model(tmp_path / "llama", local_files_only=True)
    (tmp_path / "llama" / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(CheckpointError, match="transformers cannot load"):
        load_model(tmp_path / "llama", local_files_only=True)
    assert not mark.exists()
