"""A real vLLM as the engine of a run: VERIGYM_TEST_VLLM names the interpreter of an environment that has it."""

import asyncio
import hashlib
import os
from pathlib import Path

import httpx
import pytest

from verigym.errors import TrainingError
from verigym.model.chat.sampling import Sampling
from verigym.trainer.engines.fleet import Fleet
from verigym.trainer.engines.sizes import Sizes
from verigym.trainer.learning.trainee import open_trainee
from verigym.trainer.recipe.config import EnginesConfig
from verigym.trainer.recipe.model import ModelConfig

from .small_recipe import metrics, train

PYTHON = os.environ.get("VERIGYM_TEST_VLLM", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="VERIGYM_TEST_VLLM names no interpreter that has vLLM"),
]
VOCABULARY = 320  # a multiple of 64: vLLM pads it to one, and the sum of what it pads would be another
RECIPE = """
name = "over-vllm"
episode_seconds = 3600
sandbox = "unsafe"
threads = 1
control = false
sft = false

[model]
checkpoint = "{checkpoint}"
max_context = 512

[[families]]
name = "sums"
env = "verigym/Math-v0"
tasks = "small-sums"
options = {{ system_prompt = "" }}
num_train = 8
num_held_out = 2
turns = 1
turn_tokens = 24
num_demonstrations = 2
experts = {{ solve = 1.0 }}

[rl]
steps = 3

[rl.optim]
lr = 1e-3

[rl.train]
num_tasks = 2
group_size = 4
microbatch_tokens = 1024
drop_uniform_groups = false
entropy_coef = 0.01
max_useless_steps = 99

[eval]
samples = 1
controls = []

[engines]
kind = "vllm"
count = 1
python = "{python}"
start_seconds = 900
"""


@pytest.fixture(scope="module")
def llama(tmp_path_factory, huggingface_checkpoint):
    """A tiny Llama whose heads vLLM's attention can take (64 channels), with rows that its tokenizer does not know."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("vllm") / "llama"
    tokenizer = AutoTokenizer.from_pretrained(huggingface_checkpoint)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=64, max_position_embeddings=1024,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # sharp distributions: errors show
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    return folder


def sums_of(weights):
    return {name: hashlib.sha256(value.detach().contiguous().numpy()).hexdigest() for name, value in weights.items()}


async def checksums(url):
    """Of what vLLM's worker has. On a CPU it packs the matrices of its layers, and has no sum of them."""
    async with httpx.AsyncClient(timeout=120) as client:
        told = (await client.post(f"{url}/weight_checker", json={"action": "checksum"})).json()["checksums"]
    return {name.rpartition(":")[2]: value for name, value in told.items()}


def differences(decoder, prompt, found):
    """Of what vLLM told of the tokens that it drew, and what the trainer's model says of them."""
    import torch

    from verigym.model.engine.generator import Generator

    async def scored():
        async with Generator(decoder, max_batch=1, max_context=512, num_threads=1) as engine:
            return await engine.score([*prompt, *found.token_ids])

    ours = asyncio.run(scored()).logprobs[len(prompt) :]
    return torch.tensor(ours) - torch.tensor(found.logprobs)


def test_weights_reach_a_real_vllm(llama, tmp_path):
    """They are the trainer's by checksum and by what is drawn; turns in flight go on, each token with its version; a
    padded row is never drawn; other weights are refused, and the server goes on as it was."""
    import torch

    trainee = open_trainee(ModelConfig(checkpoint=llama, max_context=512), lambda parser: [], seed=0)
    config = EnginesConfig(kind="vllm", count=1, python=Path(PYTHON), start_seconds=900)
    known = trainee.decoder.config.num_ids
    sizes = Sizes(concurrency=8, max_context=512, request_seconds=600.0, padding=range(known, VOCABULARY))
    broken = False

    def save(folder, whole):
        trainee.save(folder, {}, sums=False)
        if broken:
            from safetensors.torch import load_file, save_file

            weights = load_file(folder / "model.safetensors")
            del weights["model.layers.1.self_attn.k_proj.weight"]
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    fleet = Fleet(config, tmp_path / "engines", sizes, save=save)
    prompts = [[40 + number, 50, 60] for number in range(8)]

    async def main():
        nonlocal broken
        async with fleet.open() as engine:
            long = Sampling(max_tokens=400, seed=1)
            turns = [asyncio.create_task(engine.generate(prompt, long, ())) for prompt in prompts]
            await asyncio.sleep(1.0)
            with torch.no_grad():
                for parameter in trainee.decoder.parameters():
                    parameter.mul_(1.1)
            await asyncio.to_thread(engine.update_weights, 1, on_weight_update="recompute")
            in_flight = await asyncio.gather(*turns)
            after = await asyncio.gather(
                *(engine.generate(prompt, Sampling(max_tokens=100, seed=2), ()) for prompt in prompts)
            )
            sums = await checksums(fleet.servers[0].url)
            broken = True
            with pytest.raises(TrainingError, match=r"lacks model\.layers\.1\.self_attn\.k_proj\.weight"):
                await asyncio.to_thread(engine.update_weights, 2)
            again = await asyncio.gather(
                *(engine.generate(prompt, Sampling(max_tokens=100, seed=2), ()) for prompt in prompts)
            )
        process = fleet.servers[0].process
        await fleet.aclose()
        assert not process.is_alive
        return in_flight, after, sums, again

    in_flight, after, sums, again = asyncio.run(main())
    assert {(len(one.token_ids), tuple(sorted(set(one.policy_version)))) for one in in_flight} == {(400, (0, 1))}
    assert all(list(one.policy_version) == sorted(one.policy_version) for one in in_flight)
    assert max(max(one.token_ids) for one in (*in_flight, *after)) < known
    gaps = [differences(trainee.decoder, prompt, one) for prompt, one in zip(prompts, after, strict=True)]
    assert max(float(gap.abs().max()) for gap in gaps) < 1e-3
    assert [one.token_ids for one in again] == [one.token_ids for one in after]
    assert {one.policy_version for one in again} == {(1,) * 100}
    from safetensors.torch import load_file

    trainee.save(tmp_path / "trained", {})
    ours = sums_of(load_file(tmp_path / "trained" / "model.safetensors"))
    empty = hashlib.sha256(b"").hexdigest()
    same = [name for name, value in sums.items() if value != empty and ours.get(name) == value]
    assert {"model.embed_tokens.weight", "model.norm.weight", "model.layers.1.input_layernorm.weight"} <= {*same}
    assert [name for name, value in sums.items() if value != empty and name in ours and ours[name] != value] == []


def test_a_run_over_a_real_vllm(llama, tmp_path):
    """Three steps of reinforcement; what was sampled is what is trained."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(checkpoint=llama, python=PYTHON))
    train((), recipe, tmp_path / "run")
    rows = metrics(tmp_path / "run", "rl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["trainer/updates/count"] >= 1 for row in rows)
    assert max(row["trainer/mismatch/max"] for row in rows) < 1e-3
    assert max(abs(row["trainer/mismatch_kl/mean"]) for row in rows) < 1e-3


def test_a_real_vllm_says_how_likely_given_tokens_are(llama, tmp_path):
    """As a teacher: what our decoder says of the same tokens, with the padded rows that vLLM does not know of."""
    import torch
    from transformers import LlamaForCausalLM

    from verigym.agent.remote_scorer import RemoteScorer
    from verigym.model.engine.generator import Generator

    trainee = open_trainee(ModelConfig(checkpoint=llama, max_context=512), lambda parser: [], seed=0)
    config = EnginesConfig(kind="vllm", count=1, python=Path(PYTHON), start_seconds=900)
    known = trainee.decoder.config.num_ids
    sizes = Sizes(concurrency=8, max_context=512, request_seconds=600.0, padding=range(known, VOCABULARY))
    texts = [[(7 * place * number + 5) % known for place in range(1, 40 + number)] for number in range(1, 5)]

    async def main():
        fleet = Fleet(config, tmp_path / "engines", sizes, save=lambda folder, whole: trainee.save(folder, {}))
        try:
            async with fleet.open():
                server = fleet.servers[0]
                scorer = await RemoteScorer.connect(server.url, None, api_key=server.key)
                try:
                    theirs = await asyncio.gather(*map(scorer.score, texts))
                    likeliest = await asyncio.gather(*(scorer.likeliest(text, 20) for text in texts))
                finally:
                    await scorer.aclose()
        finally:
            await fleet.aclose()
        trainee.decoder.config = trainee.decoder.config.with_known_ids(VOCABULARY)
        async with Generator(trainee.decoder, max_batch=1, max_context=512, num_threads=1) as engine:
            return theirs, likeliest, [(await engine.score(text)).logprobs for text in texts]

    theirs, likeliest, ours = asyncio.run(main())
    for mine, told in zip(ours, theirs, strict=True):
        assert told[1:] == pytest.approx(list(mine)[1:], abs=1e-3)
    model = LlamaForCausalLM.from_pretrained(llama, dtype=torch.float32)
    for text, top in zip(texts, likeliest, strict=True):
        with torch.no_grad():
            whole = model(torch.tensor([text])).logits[0, :-1].log_softmax(-1)
        ids, nats = torch.from_numpy(top[1:]).unbind(1)
        torch.testing.assert_close(whole.gather(1, ids.long()), nats, atol=1e-3, rtol=0)
        torch.testing.assert_close(whole.topk(20).values, nats, atol=1e-3, rtol=0)
