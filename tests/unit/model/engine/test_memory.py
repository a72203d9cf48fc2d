"""What an engine keeps where nobody says how much: no more than there is memory for."""

import pytest
import torch

from verigym.model.chat.sampling import Sampling
from verigym.model.decoder import Decoder
from verigym.model.engine import memory
from verigym.model.engine.generator import Generator
from verigym.model.engine.memory import free_bytes, tokens_kept

from .conftest import answers, assert_scored, prompt_of


def bytes_of(decoder: Decoder) -> int:
    """Keys and values of a token, in float32."""
    return 2 * 4 * decoder.config.num_layers * decoder.config.num_kv_heads * decoder.config.head_dim


def test_as_many_tokens_as_there_is_memory_for(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, kept in ((10**12, 8 * 64), (4 * 100 * bytes_of(decoder), 100), (0, 64)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        assert tokens_kept(decoder, max_batch=8, max_context=64) == kept


def test_the_limit_of_a_container_counts(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    whole = free_bytes(cpu)
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.max").write_text("3000000\n")
    assert free_bytes(cpu) == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(cpu) > whole / 2


def test_answers_are_the_same_where_memory_is_short(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    requests = [(prompt_of(seed, 9), Sampling(max_tokens=20, seed=seed)) for seed in range(6)]
    with Generator(decoder, max_batch=4, max_context=48, page_size=4) as engine:
        for (prompt, _), completion in zip(requests, answers(engine, *requests)):
            assert_scored(decoder, prompt, completion, 1.0)
        stats = engine.stats()
    assert stats.num_preemptions > 0
    assert stats.pages_free * 4 <= 2 * 48
