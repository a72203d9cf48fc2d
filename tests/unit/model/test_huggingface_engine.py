"""Models of transformers behind the engine's interface, and through the commands that take a checkpoint."""

import asyncio
import json
import time

import httpx
import numpy as np
import pytest
import tokenizers
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from verigym.errors import CheckpointError, ConfigError, PolicyError, QueueFull, RequestRefused
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Sampling
from verigym.model.engine.huggingface import HuggingFaceEngine
from verigym.model.engine.open import open_checkpoint

from .server.conftest import running

VOCAB = 300
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPE = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "eos_token_id": 1, "bos_token_id": 0,
}  # fmt: skip


def make(kind):
    torch.manual_seed(0)
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    else:
        sliding = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "head_dim": 8}
        model = Qwen3ForCausalLM(Qwen3Config(**SHAPE, **sliding, tie_word_embeddings=True))
    with torch.no_grad():  # sharp distributions: errors show
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    return model.eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A Llama with a tokenizer trained here and a chat template."""
    folder = tmp_path_factory.mktemp("hf") / "llama"
    model = make("llama")
    # What a model's own file may say must not change what is drawn.
    model.generation_config.update(do_sample=True, temperature=0.1, top_k=3, repetition_penalty=1.5)
    model.save_pretrained(folder)
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=special,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["the quick brown fox jumps over it, 東京\n"] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": special[2:]})
    tokenizer.add_tokens([f"<{number}>" for number in range(len(tokenizer), VOCAB)])  # no row of the head is padding
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def prompt_of(seed, length):
    return np.random.default_rng(seed).integers(4, VOCAB, length).tolist()


def logprobs_of(model, prompt, sampled, temperature):
    """Brute force: of each sampled token from a forward of its whole prefix."""
    found = []
    for index, token in enumerate(sampled):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *sampled[:index]]])).logits[0, -1].float()
        found.append(float((logits / temperature).log_softmax(-1)[token]))
    return found


def together(engine, *requests, stop=()):
    async def main():
        return list(await asyncio.gather(*(engine.generate(ids, sampling, stop) for ids, sampling in requests)))

    return asyncio.run(main())


def wait_until_idle(engine):
    deadline = time.monotonic() + 60
    while engine.stats().num_running or engine.stats().num_waiting:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["llama", "qwen"])
def test_tokens_are_those_of_generate_and_logprobs_those_of_a_forward(kind):
    """In padded batches of ragged prompts, over several rounds, across a window."""
    model = make(kind)
    prompts = [prompt_of(seed, length) for seed, length in enumerate((1, 5, 17, 30, 2))]
    expected = []
    for prompt in prompts:
        out = model.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        expected.append(out[0, len(prompt) :].tolist())
    with HuggingFaceEngine(model, max_batch=3) as engine:
        greedy = Sampling(max_tokens=12, temperature=0.0)
        assert [list(one.token_ids) for one in together(engine, *((p, greedy) for p in prompts))] == expected
        warm = Sampling(max_tokens=9, temperature=0.6, raw_logprobs=True, num_top_logprobs=2)
        for prompt, one in zip(prompts, together(engine, *((p, warm) for p in prompts)), strict=True):
            assert one.logprobs == pytest.approx(logprobs_of(model, prompt, one.token_ids, 0.6), abs=1e-5)
            assert one.raw_logprobs == pytest.approx(logprobs_of(model, prompt, one.token_ids, 1.0), abs=1e-5)
            assert [len(top) for top in one.top_logprobs] == [2] * 9
        score = asyncio.run(engine.score(prompts[2], 2))
        assert score.logprobs[0] is None
        assert score.logprobs[1:] == pytest.approx(logprobs_of(model, prompts[2][:1], prompts[2][1:], 1.0), abs=1e-5)
        stats = engine.stats()
        assert (stats.num_running, stats.num_waiting, stats.generated_tokens) == (0, 0, 5 * 12 + 5 * 9)


def test_a_seed_makes_a_sample_independent_of_its_neighbours():
    with HuggingFaceEngine(make("llama"), max_batch=4) as engine:
        seeded = (prompt_of(1, 6), Sampling(max_tokens=10, seed=5))
        (alone,) = together(engine, seeded)
        others = [(prompt_of(seed, 3 * seed + 1), Sampling(max_tokens=4 * seed + 1, seed=seed)) for seed in range(3)]
        assert together(engine, *others, seeded)[-1].token_ids == alone.token_ids
        assert together(engine, (seeded[0], Sampling(max_tokens=10, seed=6)))[0].token_ids != alone.token_ids


def test_streams_stops_and_what_is_refused(checkpoint):
    model = open_checkpoint(checkpoint, max_batch=2, device="cpu", max_waiting=1)
    engine = model.engine
    greedy = Sampling(max_tokens=12, temperature=0.0)

    async def parts(sampling, stop=()):
        return [part async for part in engine.stream([5, 6, 7], sampling, stop)]

    free = asyncio.run(engine.generate([5, 6, 7], greedy, ()))
    found = asyncio.run(parts(greedy))
    assert [part.token_ids for part in found] == [(one,) for one in free.token_ids]
    assert [part.finish_reason for part in found] == [None] * 11 + ["length"]
    stop = free.token_ids[4]
    first = free.token_ids.index(stop)
    stopped = asyncio.run(engine.generate([5, 6, 7], greedy, (stop,)))
    assert stopped.token_ids == free.token_ids[: first + 1]
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", stop)
    text = model.decode(free.token_ids)[2:4]
    by_text = asyncio.run(engine.generate([5, 6, 7], Sampling(max_tokens=12, temperature=0.0, stop=(text,)), ()))
    assert text in model.decode(by_text.token_ids)
    assert (by_text.finish_reason, by_text.stop_reason) == ("stop", text)

    for ids, told in (([], "empty"), ([300], "holds id 300"), ([-1], "holds id -1"), ([5] * 128, "128 tokens")):
        with pytest.raises(RequestRefused, match=told):
            asyncio.run(engine.generate(ids, greedy, ()))
    with pytest.raises(QueueFull):
        together(engine, *([([5], Sampling(max_tokens=50))] * 4))
    wait_until_idle(engine)  # the three others are cancelled, and leave at the next step
    assert asyncio.run(engine.generate([5] * 120, Sampling(max_tokens=50), ())).finish_reason == "length"

    async def leave():
        stream = engine.stream([5, 6, 7], Sampling(max_tokens=120), ())
        await anext(stream)
        await stream.aclose()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(engine.generate([5], Sampling(max_tokens=120), ()), timeout=0.001)

    asyncio.run(leave())
    wait_until_idle(engine)
    engine.close()
    with pytest.raises(PolicyError, match="closed"):
        asyncio.run(engine.generate([5], greedy, ()))


def test_broken_weights_are_told():
    model = make("llama")
    with torch.no_grad():
        model.get_output_embeddings().weight[:] = float("nan")
    with HuggingFaceEngine(model) as engine, pytest.raises(PolicyError, match="not finite"):
        together(engine, ([5, 6], Sampling(max_tokens=3)))


def test_an_opened_checkpoint_has_its_format_and_takes_weights(checkpoint, tmp_path):
    model = open_checkpoint(checkpoint, max_batch=2, device="cpu")
    assert model.eos_token_ids == (1,)
    ids = model.renderer.start([Message(role="user", content="<|im_end|>")], ()).token_ids
    assert model.decode(ids) == "<|im_start|>user\n<|im_end|><|im_end|>\n<|im_start|>assistant\n"
    assert ids.count(3) == 1  # what a message spells is text
    greedy = Sampling(max_tokens=6, temperature=0.0)
    before = asyncio.run(model.engine.generate([5, 6], greedy, ()))
    other = AutoModelForCausalLM.from_pretrained(checkpoint)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    other.save_pretrained(tmp_path / "new")
    model.load_weights(tmp_path / "new", 2, None)
    after = asyncio.run(model.engine.generate([5, 6], greedy, ()))
    assert after.policy_version == (2,) * 6
    assert after.logprobs == pytest.approx(logprobs_of(other, [5, 6], after.token_ids, 1.0), abs=1e-5)
    assert after.logprobs != pytest.approx(before.logprobs, abs=1e-3)
    with pytest.raises(CheckpointError):
        model.load_weights(tmp_path / "nowhere", 3, None)
    with pytest.raises(ConfigError, match="max_context is 129"):
        open_checkpoint(checkpoint, max_batch=2, max_context=129, device="cpu")
    with pytest.raises(ConfigError, match="cache_tokens"):
        open_checkpoint(checkpoint, max_batch=2, cache_tokens=64, device="cpu")
    model.engine.close()


def test_eval_and_rollout_of_such_a_checkpoint(checkpoint, tmp_path, capsys):
    from verigym.__main__ import main

    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "a", "problem": "1 + 1?", "answer": "2"}) + "\n")
    argv = ["eval", "math500", "--data", str(tmp_path / "rows.jsonl"), "--policy", f"engine:{checkpoint}"]
    assert (
        main([*argv, "--max-tokens", "4", "--samples", "2", "--out", str(tmp_path / "run"), "--save-trajectories"]) == 0
    )
    segment = json.loads((tmp_path / "run" / "trajectories.jsonl").read_text().splitlines()[0])["segments"][0]
    assert len(segment["token_ids"]) == len(segment["logprobs"])
    capsys.readouterr()
    assert main(["rollout", "verigym/Math-v0", "--policy", f"engine:{checkpoint}", "--max-tokens", "4"]) == 0
    assert "sampled tokens: " in capsys.readouterr().out


def test_new_weights_come_between_rounds_while_requests_keep_coming():
    model = make("llama")
    loads = []

    async def main(engine):
        busy = True

        async def ask():
            found = []
            while busy:
                found.append(await engine.generate(prompt_of(1, 5), Sampling(max_tokens=4, temperature=0.0), ()))
            return found

        askers = [asyncio.create_task(ask()) for _ in range(3)]
        for version in (1, 2):
            await asyncio.sleep(0.05)

            def load(given, version=version):
                assert given is model
                loads.append(version)
                with torch.no_grad():
                    given.get_output_embeddings().weight.neg_()

            await asyncio.to_thread(engine.update_weights, version, load, on_weight_update="keep")
        await asyncio.sleep(0.05)
        busy = False
        return [one for found in await asyncio.gather(*askers) for one in found]

    with HuggingFaceEngine(model, max_batch=2) as engine:
        found = asyncio.run(main(engine))
    assert loads == [1, 2]
    by_version = {}
    for one in found:
        [version] = set(one.policy_version)  # no completion has tokens of two versions
        by_version.setdefault(version, set()).add(one.token_ids)
    # Negated twice, the weights are the first ones again.
    assert by_version[2] == by_version[0]
    assert len(by_version[0]) == 1
    assert by_version.get(1, set()).isdisjoint(by_version[0])


def test_a_load_that_fails_leaves_the_version_and_the_engine_goes_on():
    with HuggingFaceEngine(make("llama"), max_batch=2) as engine:

        def load(model):
            raise CheckpointError("broken")

        with pytest.raises(CheckpointError, match="broken"):
            engine.update_weights(1, load)
        assert engine.policy_version == 0
        found = asyncio.run(engine.generate(prompt_of(1, 5), Sampling(max_tokens=2), ()))
    assert len(found.token_ids) == 2


def test_it_is_served_with_streams_logprobs_and_clients_that_leave(checkpoint):
    model = open_checkpoint(checkpoint, max_batch=3, device="cpu")
    exact = AutoModelForCausalLM.from_pretrained(checkpoint)
    asked = {"model": "llama", "prompt": [5, 6, 7], "max_tokens": 9, "temperature": 0.6, "seed": 4}
    with running(model, name="llama") as server:
        create = server.client.completions.create
        extra = {"return_token_ids": True, "ignore_eos": True}
        whole = create(**asked, logprobs=2, extra_body=extra).choices[0]
        assert whole.logprobs.token_logprobs == pytest.approx(
            logprobs_of(exact, asked["prompt"], whole.token_ids, 1.0), abs=1e-5
        )
        assert all(len(top) == 2 for top in whole.logprobs.top_logprobs)
        events = list(create(**asked, stream=True, extra_body=extra))
        assert [event.choices[0].token_ids for event in events] == [[one] for one in whole.token_ids]
        assert "".join(event.choices[0].text for event in events) == whole.text
        assert [event.choices[0].finish_reason for event in events] == [None] * 8 + ["length"]
        echoed = create(**{**asked, "max_tokens": 0}, echo=True, logprobs=0).choices[0]
        assert echoed.logprobs.token_logprobs[0] is None
        assert echoed.logprobs.token_logprobs[1:] == pytest.approx(
            logprobs_of(exact, asked["prompt"][:1], asked["prompt"][1:], 1.0), abs=1e-5
        )
        said = server.client.chat.completions.create(
            model="llama", messages=[{"role": "user", "content": "fox"}], max_tokens=4, logprobs=True
        ).choices[0]
        assert len(said.logprobs.content) >= 1
        before = model.engine.stats().generated_tokens
        stream = create(**{**asked, "max_tokens": 120}, stream=True, extra_body=extra)
        next(iter(stream))
        stream.close()  # the client leaves
        wait_until_idle(model.engine)
        assert model.engine.stats().generated_tokens - before < 120
        assert create(**asked, extra_body=extra).choices[0].token_ids == whole.token_ids
        response = httpx.post(f"{server.url}/v1/completions", json={**asked, "prompt": [5, VOCAB]})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "prompt")
