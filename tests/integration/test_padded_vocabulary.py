"""Heads with more rows than the tokenizer has ids, as Qwen's: padding is neither drawn nor trained."""

import asyncio
import json
import shutil

import pytest
import torch

from verigym.errors import RequestRefused
from verigym.model.attention import Documents
from verigym.model.chat.sampling import Sampling
from verigym.model.engine.open import open_checkpoint
from verigym.model.format import load_tokenizer
from verigym.trainer.learning.trainee import open_trainee
from verigym.trainer.recipe.model import ModelConfig

PADDING = 24


@pytest.fixture(scope="module", params=["family", "huggingface"])
def padded(request, tmp_path_factory):
    """The padding's logits are by far the largest: whatever looks at them shows it."""
    from transformers import AutoModelForCausalLM

    source = request.getfixturevalue(f"{request.param}_checkpoint")
    folder = tmp_path_factory.mktemp("padded") / "model"
    shutil.copytree(source, folder)
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    model = AutoModelForCausalLM.from_pretrained(source)
    known = model.config.vocab_size
    model.resize_token_embeddings(known + PADDING, mean_resizing=False)
    config = json.loads((source / "config.json").read_text())
    model.config.tie_word_embeddings = config["tie_word_embeddings"] = False
    head = torch.nn.Linear(model.config.hidden_size, known + PADDING, bias=False)
    with torch.no_grad():
        head.weight.copy_(model.get_input_embeddings().weight)
        head.weight[known:] = 50 * head.weight[:PADDING]
    model.set_output_embeddings(head)
    model.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == known + PADDING
    return folder, known


def config(folder):
    return ModelConfig(checkpoint=folder, max_context=128)


def test_padding_is_neither_drawn_nor_scored_and_trainer_and_engine_agree(padded):
    folder, known = padded
    assert len(load_tokenizer(folder)) <= known
    trainee = open_trainee(config(folder), lambda parser: (), seed=0, device="cpu")
    prompt = [5, 9, 2, 30]
    sampling = Sampling(max_tokens=60, temperature=1.3, seed=1)
    with trainee.engine(4) as engine:
        completion = asyncio.run(engine.generate(prompt, sampling, ()))
        with pytest.raises(RequestRefused, match=f"knows 0 to {known - 1}"):
            asyncio.run(engine.generate([*prompt, known], sampling, ()))
    assert max(completion.token_ids) < known
    ids = torch.tensor([*prompt, *completion.token_ids])
    place = torch.arange(len(prompt) - 1, len(ids) - 1)
    with torch.no_grad():
        logprobs, _ = trainee.decoder.score(ids, Documents.from_lengths([len(ids)]), ids[place + 1], 1.3, index=place)
    torch.testing.assert_close(logprobs, torch.tensor(completion.logprobs), atol=2e-5, rtol=2e-5)
    opened = open_checkpoint(folder, max_batch=2, max_context=128)
    with opened.engine as engine:
        again = asyncio.run(engine.generate(prompt, sampling, ()))
    assert again.token_ids == completion.token_ids
