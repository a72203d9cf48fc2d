"""Formats that a processor is slow at are kept from it."""

import logging

import pytest
import torch

from verigym.model import arithmetic
from verigym.model.arithmetic import is_slow, product_ratio, suited, warn_where_slow


@pytest.fixture
def slow(monkeypatch):
    monkeypatch.setattr(arithmetic, "product_ratio", lambda dtype: 80.0)


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(arithmetic, "product_ratio", lambda dtype: 0.7)


def test_the_ratio_is_measured_once_and_leaves_the_threads_alone():
    before = torch.get_num_threads()
    assert product_ratio(torch.bfloat16) > 0
    assert product_ratio(torch.bfloat16) == product_ratio(torch.bfloat16)
    assert torch.get_num_threads() == before


def test_a_slow_processor_computes_in_float32(slow, caplog):
    assert suited(torch.bfloat16, "cpu") == suited(torch.float16, "cpu") == torch.float32
    assert not is_slow(torch.float32, "cpu")
    assert suited(torch.float64, "cpu") == torch.float64
    assert suited(torch.bfloat16, "cuda") == torch.bfloat16  # of a GPU nothing is measured
    with caplog.at_level(logging.WARNING):
        warn_where_slow(torch.bfloat16, "cpu", "model.dtype")
    assert "model.dtype" in caplog.text
    assert "80 times slower" in caplog.text


def test_a_fast_processor_keeps_what_was_chosen(fast, caplog):
    assert suited(torch.bfloat16, "cpu") == torch.bfloat16
    warn_where_slow(torch.bfloat16, "cpu", "model.dtype")
    assert not caplog.text


@pytest.mark.parametrize("kind", ["slow", "fast"])
def test_an_engine_computes_in_what_the_processor_is_fast_at(kind, request, tmp_path):
    from verigym.model.checkpoint import save_checkpoint
    from verigym.model.config import preset
    from verigym.model.decoder import Decoder
    from verigym.model.engine.open import open_checkpoint
    from verigym.model.tokenizer import train_tokenizer

    request.getfixturevalue(kind)
    tokenizer = train_tokenizer(["a b c"], 300)
    decoder = Decoder(preset("cwm-tiny", vocab_size=tokenizer.vocab_size)).bfloat16()
    save_checkpoint(tmp_path / "model", decoder, tokenizer)
    opened = open_checkpoint(tmp_path / "model", max_batch=1, device="cpu")
    found = opened.engine._forward.decoder.head.weight
    opened.engine.close()
    assert found.dtype == (torch.float32 if kind == "slow" else torch.bfloat16)
    assert torch.equal(found.bfloat16(), decoder.head.weight)
