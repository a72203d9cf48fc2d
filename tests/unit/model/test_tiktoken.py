"""Meta's tokenizer file against a plain implementation of tiktoken's merging, and against the BPE it came from."""

import base64
import json
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.errors import CheckpointError
from verigym.model.tiktoken import RESERVED_IDS, WORDS
from verigym.model.tokenizer import Tokenizer, train_tokenizer

from .conftest import TEXTS


def _ranks() -> dict[bytes, int]:
    """The byte strings of a trained BPE in the order it learnt them: what a tiktoken file holds."""
    from verigym.model.tiktoken import _letters

    trained = train_tokenizer(TEXTS, 340)
    model = json.loads(trained.files()["tokenizer.json"])["model"]
    byte_of = {letter: byte for byte, letter in _letters().items()}
    ranks = {bytes([byte]): byte for byte in range(256)}
    for left, right in model["merges"]:
        ranks.setdefault(bytes(byte_of[letter] for letter in left + right), len(ranks))
    return ranks


RANKS = _ranks()


def _write(path: Path, ranks: dict[bytes, int]) -> None:
    lines = [base64.b64encode(piece) + b" " + str(rank).encode() for piece, rank in ranks.items()]
    path.write_bytes(b"\n".join(lines) + b"\n")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("meta")
    _write(folder / "tokenizer.model", RANKS)
    return Tokenizer.load(folder)


def _plain(text: str) -> list[int]:
    ids: list[int] = []
    for word in regex.findall(WORDS, text):
        pieces = [bytes([byte]) for byte in word.encode()]
        if word.encode() in RANKS:
            pieces = [word.encode()]
        while True:
            ranked = [(RANKS[pieces[i] + pieces[i + 1]], i) for i in range(len(pieces) - 1)
                      if pieces[i] + pieces[i + 1] in RANKS]  # fmt: skip
            if not ranked:
                break
            _, i = min(ranked)
            pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
        ids += [RANKS[piece] for piece in pieces]
    return ids


@settings(max_examples=100)
@given(
    text=st.text(max_size=60)
    | st.lists(st.sampled_from([*" \n(,)adefrtu_1234", "return", "def ", "assert"])).map("".join)
)
def test_ids_are_tiktokens(loaded: Tokenizer, text: str) -> None:
    ids = loaded.encode(text)
    assert ids == _plain(text)
    assert loaded.decode(ids) == text


def test_the_reserved_tokens_have_cwms_ids(loaded: Tokenizer) -> None:
    base = len(RANKS)  # 128000 in CWM: the trace tokens are 128100 to 128107 there
    assert loaded.vocab_size == base + 256
    trace = ["frame", "action", "return", "call", "line", "exception", "arg"]
    names = [*(f"<|{name}_sep|>" for name in trace), "<|trace_context_start|>"]
    assert [loaded.reserved(name) - base for name in names] == list(range(100, 108))
    assert loaded.reserved("<|eot_id|>") == base + 9
    assert loaded.reserved("<|reserved_special_token_2|>") == base + 2
    assert all(loaded.reserved(name) == base + offset for name, offset in RESERVED_IDS.items())


def test_reserved_tokens_come_from_text_only_where_asked_for(loaded: Tokenizer, tokenizer: Tokenizer) -> None:
    for one in (loaded, tokenizer):
        text = "a<|frame_sep|>b<|eot_id|>"
        assert not set(one.encode(text)) & set(one.reserved_tokens.values())
        asked = one.encode(text, allow_reserved=True)
        assert [i for i in asked if i in one.reserved_tokens.values()] == [
            one.reserved("<|frame_sep|>"),
            one.reserved("<|eot_id|>"),
        ]
        assert one.decode(asked) == text


def test_it_saves_as_hugging_faces(loaded: Tokenizer, tmp_path: Path) -> None:
    loaded.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.encode("def add(a, 123)") == loaded.encode("def add(a, 123)")
    assert again.reserved_tokens == loaded.reserved_tokens


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.model"
    file.write_bytes(b"IQ== 0\nnot base64\n")
    with pytest.raises(CheckpointError, match="line 2"):
        Tokenizer.load(tmp_path)
    _write(file, {piece: rank for piece, rank in RANKS.items() if piece != b"a"})
    with pytest.raises(CheckpointError, match="gaps"):
        Tokenizer.load(tmp_path)
