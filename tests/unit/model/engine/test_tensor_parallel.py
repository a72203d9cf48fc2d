"""Two processes that share the heads say what one says."""

import asyncio
import multiprocessing
from pathlib import Path

import pytest
import torch

from verigym.__main__ import main
from verigym.errors import CheckpointError, ConfigError, PolicyError
from verigym.model.chat.sampling import Sampling
from verigym.model.checkpoint import load_decoder, save_checkpoint
from verigym.model.decoder import Decoder
from verigym.model.engine.open import OpenModel, open_checkpoint
from verigym.model.tokenizer import Tokenizer

from .conftest import answers, assert_scored, prompt_of


def opened(folder: Path, ranks: int = 1) -> OpenModel:
    """Too few pages for all: some give way."""
    return open_checkpoint(
        folder, max_batch=5, max_context=64, cache_tokens=128, device="cpu", num_threads=1, tensor_parallel=ranks
    )


def test_tokens_numbers_and_new_weights_are_those_of_one_process(
    decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    old, new, broken = (tmp_path / name for name in ("old", "new", "broken"))
    save_checkpoint(old, decoder, tokenizer)
    save_checkpoint(new, Decoder(decoder.config, seed=9), tokenizer)
    with torch.no_grad():
        decoder.layers[2].mlp.down.weight[3, 7] = float("nan")  # pyright: ignore
    save_checkpoint(broken, decoder, tokenizer)
    common = prompt_of(0, 20)
    requests = [
        ([*common[: 4 * seed], *prompt_of(seed, 9)], Sampling(max_tokens=25, temperature=0.3 * seed, seed=seed))
        for seed in range(6)
    ]
    model, alone = opened(old, ranks=2), opened(old)
    try:
        assert len(multiprocessing.active_children()) == 1
        for version, folder in ((0, old), (3, new)):
            if version:
                for one in (model, alone):
                    with pytest.raises(CheckpointError, match=r"layers\.2\.mlp\.down_proj\.weight holds NaN"):
                        one.load_weights(broken, 2, None)
                    one.load_weights(folder, version, None)
            whole = load_decoder(folder)
            found, expected = answers(model.engine, *requests), answers(alone.engine, *requests)
            for (prompt, sampling), ours, theirs in zip(requests, found, expected, strict=True):
                assert ours.token_ids == theirs.token_ids
                assert ours.policy_version == (version,) * len(ours.token_ids)
                assert_scored(whole, prompt, ours, sampling.temperature or 1.0)
            scores = [asyncio.run(one.engine.score(common, 2)) for one in (model, alone)]
            assert scores[0].logprobs[1:] == pytest.approx(scores[1].logprobs[1:], abs=1e-5)
            assert [[i for i, _ in top] for top in scores[0].top_logprobs[1:]] == [
                [i for i, _ in top] for top in scores[1].top_logprobs[1:]
            ]
        assert model.engine.stats().num_preemptions > 0
        with pytest.raises(ConfigError, match="take weights from a folder"):
            model.engine.update_weights(4, lambda decoder: None)  # pyright: ignore[reportCallIssue]
    finally:
        for one in (model, alone):
            asyncio.run(one.engine.aclose())
    assert not multiprocessing.active_children()
    assert not torch.distributed.is_initialized()
    with pytest.raises(PolicyError, match="closed"):
        answers(model.engine, requests[0])


def test_what_cannot_be_split_is_told_before_a_process_starts(
    decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tmp_path / "model", decoder, tokenizer)
    for argv, told in (
        (["--tensor-parallel", "3"], "num_heads 4 cannot be split 3 ways; choose tensor to divide it"),
        (["--tensor-parallel", "4"], "num_kv_heads 2 cannot be split 4 ways"),
        (["--tensor-parallel", "0"], "tensor_parallel is 0"),
    ):
        assert main(["serve", str(tmp_path / "model"), "--port", "0", "--device", "cpu", *argv]) == 2
        assert told in capsys.readouterr().err
    assert not multiprocessing.active_children()
