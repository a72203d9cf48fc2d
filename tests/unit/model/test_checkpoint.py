import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from verigym.errors import CheckpointError
from verigym.model.attention import Documents
from verigym.model.checkpoint import from_hf_state, load_checkpoint, load_weights, save_checkpoint
from verigym.model.decoder import Decoder
from verigym.model.tokenizer import Tokenizer

from .conftest import small_config

IDS = torch.arange(3, 29)


def _logits(decoder: Decoder) -> torch.Tensor:
    with torch.no_grad():
        return decoder.logits(decoder(IDS, Documents.from_lengths([len(IDS)])))


def test_a_round_trip_is_exact(decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", decoder, tokenizer)
    loaded, loaded_tokenizer = load_checkpoint(tmp_path / "c")
    assert loaded.config == decoder.config
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert torch.equal(_logits(loaded), _logits(decoder))
    assert loaded_tokenizer.encode("add(1)") == tokenizer.encode("add(1)")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


def test_transformers_computes_the_same_logits_both_ways(
    decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    save_checkpoint(tmp_path / "ours", decoder, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert type(theirs).__name__ == "CwmForCausalLM"
    with torch.no_grad():
        expected = theirs(IDS[None]).logits[0]
    torch.testing.assert_close(_logits(decoder), expected, atol=2e-5, rtol=1e-5)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    back, _ = load_checkpoint(tmp_path / "theirs")
    assert torch.equal(_logits(back), _logits(decoder))
    automatic = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert automatic.encode("def f(): 12", add_special_tokens=False) == tokenizer.encode("def f(): 12")


def test_transformers_computes_the_same_gradients(decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_checkpoint(tmp_path, decoder, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    upstream = torch.randn(len(IDS), 320, generator=torch.Generator().manual_seed(0))
    (decoder.logits(decoder(IDS, Documents.from_lengths([len(IDS)]))) * upstream).sum().backward()
    (theirs(IDS[None]).logits[0] * upstream).sum().backward()
    expected = from_hf_state(decoder.config, {name: value.grad for name, value in theirs.named_parameters()})
    for name, parameter in decoder.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected[name], atol=1e-3, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def _drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["model.layers.1.self_attn.k_proj.weight"]


def _reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.weight"] = torch.ones(31)


def _spoil(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"][7, 3] = float("nan")


def _add(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.3.mlp.down_proj.weight"] = torch.ones(32, 48)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop, r"lacks the tensor model\.layers\.1\.self_attn\.k_proj\.weight"),
        (_reshape, r"model\.norm\.weight has shape \[31\], but config\.json asks for \[32\]"),
        (_spoil, r"lm_head\.weight holds NaN"),
        (_add, r"holds model\.layers\.3\.mlp\.down_proj\.weight"),
    ],
)
def test_a_broken_checkpoint_is_refused_before_anything_is_assigned(
    damage: Callable[[dict[str, torch.Tensor]], None],
    message: str,
    decoder: Decoder,
    tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:
    save_checkpoint(tmp_path, decoder, tokenizer)
    tensors = load_file(tmp_path / "model.safetensors")
    damage(tensors)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path)
    other = Decoder(decoder.config, seed=9)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_weights(tmp_path, other)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_weights_of_another_shape_name_the_field(decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", decoder, tokenizer)
    load_weights(tmp_path / "c", Decoder(decoder.config, seed=9))
    with pytest.raises(CheckpointError, match="intermediate_size is 48, expected 64"):
        load_weights(tmp_path / "c", Decoder(small_config(intermediate_size=64)))


def test_missing_and_cut_files_are_one_message(decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "nowhere")
    save_checkpoint(tmp_path / "c", decoder, tokenizer)
    weights = tmp_path / "c" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path / "c")
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        load_checkpoint(tmp_path / "c")
    (tmp_path / "c" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        load_checkpoint(tmp_path / "c")
    (tmp_path / "c" / "config.json").write_text(json.dumps({"model_type": "phi3"}))
    with pytest.raises(CheckpointError, match="'phi3'"):
        load_checkpoint(tmp_path / "c")


def test_a_full_disk_leaves_the_old_checkpoint_whole(decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", decoder, tokenizer)
    newer = Decoder(decoder.config, seed=9)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))  # the weights are larger
    try:
        with pytest.raises(CheckpointError, match=r"could not be written.*the one before, if any, is whole"):
            save_checkpoint(tmp_path / "c", newer, tokenizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert torch.equal(load_checkpoint(tmp_path / "c")[0].head.weight, decoder.head.weight)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


def test_a_crash_between_the_renames_loses_nothing(decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", decoder, tokenizer)
    (tmp_path / "c").rename(tmp_path / ".c.previous")
    assert torch.equal(load_checkpoint(tmp_path / "c")[0].head.weight, decoder.head.weight)
    save_checkpoint(tmp_path / "c", Decoder(decoder.config, seed=9), tokenizer)
    assert not torch.equal(load_checkpoint(tmp_path / "c")[0].head.weight, decoder.head.weight)


def test_a_tokenizer_larger_than_the_decoder_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="320 ids but the decoder 300"):
        save_checkpoint(tmp_path / "c", Decoder(small_config(vocab_size=300)), tokenizer)


def test_it_is_opened_and_asked_without_torchs_compiler(decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """torch imports it by itself in unlikely places, and sympy with it: as long as all the rest of a start."""
    save_checkpoint(tmp_path / "c", decoder, tokenizer)
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nimport verigym.model.server.app\n"
        "from verigym.model.chat.sampling import Sampling\nfrom verigym.model.engine.open import open_checkpoint\n"
        "engine = open_checkpoint(Path(sys.argv[1]), max_batch=1, num_threads=1).engine\n"
        "async def main():\n"
        "    async with engine:\n        await engine.generate([7], Sampling(max_tokens=2, seed=1), ())\n"
        "asyncio.run(main())\n"
        "sys.exit(str({'sympy', 'torch._dynamo', 'torch.distributed.tensor', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "c"], capture_output=True, text=True, check=False)
    assert done.stderr == "set()\n"
