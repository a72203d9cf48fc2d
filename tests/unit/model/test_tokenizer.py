import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.errors import CheckpointError, ConfigError
from verigym.model.tokenizer import RESERVED_TOKENS, Tokenizer, train_tokenizer

from .conftest import TEXTS

SHARED = train_tokenizer(TEXTS, 320)


@settings(max_examples=150)
@given(st.text(max_size=60) | st.text(st.sampled_from("<|eot_id|>a1 \n\r\t'tÀ\u0301"), max_size=40))
def test_any_text_survives_and_yields_no_reserved_id(text: str) -> None:
    ids = SHARED.encode(text)
    assert SHARED.decode(ids) == text
    assert not set(ids) & set(SHARED.reserved_tokens.values())


def test_a_reserved_token_spelled_out_is_text(tokenizer: Tokenizer) -> None:
    for name in RESERVED_TOKENS:
        ids = tokenizer.encode(f"a{name}b")
        assert tokenizer.reserved(name) not in ids
        assert tokenizer.decode(ids) == f"a{name}b"


def test_reserved_tokens_decode_to_their_spelling(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("add"), tokenizer.reserved("<|eot_id|>"), *tokenizer.encode(" b")]
    assert tokenizer.decode(ids) == "add<|eot_id|> b"


def test_digits_stand_alone(tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode([i]) for i in tokenizer.encode("1234")] == ["1", "2", "3", "4"]


def test_broken_utf8_is_replaced(tokenizer: Tokenizer) -> None:
    first_byte = tokenizer.encode("é" if len(tokenizer.encode("é")) > 1 else "\u20ac")[0]
    assert tokenizer.decode([first_byte]) == "\ufffd"
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a?b"


def test_an_unknown_reserved_token_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(KeyError, match="nothing_here"):
        tokenizer.reserved("<|nothing_here|>")


def test_a_vocabulary_without_room_for_the_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match="272"):
        train_tokenizer(TEXTS, 272)


def test_saved_files_load_here_and_in_transformers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    text = "def naïve(x):\n\treturn 12 # 東京"
    assert Tokenizer.load(tmp_path).encode(text) == tokenizer.encode(text)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text)
    assert theirs.encode("<|eot_id|>", add_special_tokens=False) == [tokenizer.reserved("<|eot_id|>")]
    assert theirs.pad_token_id == tokenizer.reserved("<|pad|>")
    assert theirs.decode(tokenizer.encode(text)) == text


def test_a_missing_or_broken_tokenizer_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="copy it anew"):
        Tokenizer.load(tmp_path)


def test_config_and_tokenizer_import_no_torch() -> None:
    code = "import sys, verigym.model.config, verigym.model.tokenizer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_learns_from_text_with_half_of_a_surrogate_pair() -> None:
    found = train_tokenizer(["half \ud800 of it", "half of it"], 320)
    assert found.decode(found.encode("half \ud800")) == "half ?"
