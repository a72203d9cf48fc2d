"""A model of transformers in the decoder's place."""

import numpy as np
import pytest
import torch

from verigym.errors import CheckpointError, ConfigError
from verigym.model.attention import Documents
from verigym.model.huggingface import HuggingFaceDecoder
from verigym.trainer.batching.documents import Document
from verigym.trainer.batching.packs import join
from verigym.trainer.learning.optim import Optimizer
from verigym.trainer.learning.step import TrainStep
from verigym.trainer.objective.losses import sft_loss
from verigym.trainer.recipe.config import OptimConfig

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "attn_implementation": "sdpa",
}


def make(kind: str = "Qwen3", **changes):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZES, **changes)
    return transformers.AutoModelForCausalLM.from_config(config)


def documents():
    rng = np.random.default_rng(0)
    return [
        Document(
            token_ids=rng.integers(0, 64, length),
            targets=rng.integers(0, 64, length),
            loss_mask=np.asarray([True] * length),
            old_logprobs=np.zeros(length, np.float32),
        )
        for length in (7, 1, 12, 1, 4)
    ]


@pytest.mark.parametrize("kind", ["Qwen3", "Llama", "Mistral"])
def test_the_trainers_step_gives_the_gradient_of_transformers_own_loss(kind):
    model = make(kind, attention_dropout=0.5) if kind == "Llama" else make(kind)
    decoder = HuggingFaceDecoder(model).train()
    TrainStep(decoder, Optimizer(decoder, OptimConfig()), sft_loss).accumulate([join(documents())])
    found = [parameter.grad.clone() for parameter in decoder.parameters()]
    decoder.zero_grad()
    total = sum(len(one) for one in documents())
    for one in documents():
        logits = model(torch.from_numpy(one.token_ids)[None]).logits[0]
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(one.targets), reduction="sum") / total
        loss.backward()
    for grad, parameter in zip(found, decoder.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad, rtol=1e-4, atol=1e-6)


def test_one_update_lowers_the_loss():
    decoder = HuggingFaceDecoder(make())
    step = TrainStep(decoder, Optimizer(decoder, OptimConfig(lr=1e-2)), sft_loss)
    losses = [step([join(documents())])["loss"] for _ in range(3)]
    assert losses[2] < losses[0]


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ConfigError, match="more of its logits"):
        HuggingFaceDecoder(make("Granite", logits_scaling=4.0))
    leaky = make("Qwen3")
    forward = leaky.model.forward
    leaky.model.forward = lambda **kwargs: forward(**kwargs | {"position_ids": None})
    with pytest.raises(ConfigError, match="see each other"):
        HuggingFaceDecoder(leaky)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_frequencies_that_the_longest_document_chooses_are_refused(kind):
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
    if kind == "longrope":
        half = 32 // 4 // 2
        rope |= {"short_factor": [1.0] * half, "long_factor": [2.0] * half}
    ids = {"pad_token_id": None, "bos_token_id": 0, "eos_token_id": 1}
    model = make("Phi3" if kind == "longrope" else "Llama", rope_parameters=rope, **ids)
    with pytest.raises(ConfigError, match=f"type '{kind}' are chosen by the longest"):
        HuggingFaceDecoder(model)


def test_a_folder_that_lacks_a_tensor_is_refused_not_filled_with_random_numbers(tmp_path):
    model = make()
    state = model.state_dict()
    name = next(name for name in state if name.endswith("down_proj.weight"))
    model.save_pretrained(tmp_path, state_dict={key: value for key, value in state.items() if key != name})
    with pytest.raises(CheckpointError, match=rf"lacks the tensor {name} \(1 in all\)"):
        HuggingFaceDecoder.load(tmp_path)


def test_a_missing_folder_is_one_message(tmp_path):
    with pytest.raises(CheckpointError, match="transformers cannot load"):
        HuggingFaceDecoder.load(tmp_path)


def test_it_loads_from_a_folder(tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    decoder = HuggingFaceDecoder.load(tmp_path)
    ids = torch.arange(9)
    pack = Documents.from_lengths([4, 5])
    logprobs, entropy = decoder.score(ids, pack, torch.tensor([1, 2]), index=torch.tensor([0, 6]))
    expected = model(ids[None, 4:]).logits[0, 2].log_softmax(-1)
    assert logprobs[1].item() == pytest.approx(expected[2].item(), abs=1e-5)
    assert entropy[1].item() == pytest.approx(-(expected.exp() * expected).sum().item(), abs=1e-5)


def test_a_model_that_is_its_own_base_is_refused():
    config = transformers.Llama4TextConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        intermediate_size_mlp=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_local_experts=2,
        pad_token_id=0,
    )
    with pytest.raises(ConfigError, match="Llama4ForCausalLM gives no hidden states without its head"):
        HuggingFaceDecoder(transformers.Llama4ForCausalLM(config))
