"""The engine of transformers' models: a request enters when another ends, and says what it says alone."""

import asyncio
import logging

import numpy as np
import pytest
import torch
import transformers

from verigym.model.chat.sampling import Sampling
from verigym.model.engine.huggingface import HuggingFaceEngine
from verigym.model.engine.slots import why_rounds

VOCAB = 100
SHAPE = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "head_dim": 8,
}  # fmt: skip
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 6, "head_dim": 4,
    "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "num_key_value_heads": 4,
}  # fmt: skip
OLD = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "hidden_size": 32}
FAMILIES = {
    "llama": lambda c: c.LlamaConfig(**SHAPE),
    "window": lambda c: c.MistralConfig(**SHAPE, sliding_window=5),
    "gemma": lambda c: c.Gemma3TextConfig(
        **SHAPE, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
    "experts": lambda c: c.Qwen3MoeConfig(**SHAPE, **MOE),
    "latent": lambda c: c.DeepseekV3Config(**{**SHAPE, **LATENT}),
    "learned positions": lambda c: c.GPT2Config(**OLD),
    "alibi": lambda c: c.BloomConfig(**OLD),
    "positions of the mask": lambda c: c.OPTConfig(
        vocab_size=VOCAB, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, word_embed_proj_dim=32, pad_token_id=0,
    ),
    "parallel": lambda c: c.GPTNeoXConfig(**SHAPE),
}  # fmt: skip


def make(kind):
    torch.manual_seed(0)
    config = FAMILIES[kind](transformers)
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None if kind != "positions of the mask" else 0
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # sharp distributions: errors show
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model


def logprobs_of(model, prompt, sampled):
    """Of one forward of the whole, alone and without a cache."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *sampled]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1).gather(1, torch.tensor(sampled)[:, None])[:, 0].tolist()


async def idle(engine):
    """What it counts once it has nothing in work: a caller hears of the last token before the slot is free."""
    while engine.stats().num_running or engine.stats().num_waiting:
        await asyncio.sleep(0.001)
    return engine.stats()


def counted(model):
    """(the same model, rows and columns of each of its forwards)."""
    forward, forwards = model.forward, []

    def counting(input_ids=None, *args, position_ids=None, logits_to_keep=0, **kwargs):
        forwards.append(tuple(input_ids.shape))
        return forward(input_ids, *args, position_ids=position_ids, logits_to_keep=logits_to_keep, **kwargs)

    model.forward = counting
    return model, forwards


@pytest.mark.parametrize("kind", FAMILIES)
def test_rows_that_come_and_go_say_what_a_forward_says_of_them_alone(kind):
    """Ragged prompts and answers, more than there are slots, that come at any time; twice, with the same seeds."""
    model = make(kind)
    assert why_rounds(model) is None
    random = np.random.default_rng(3)
    asked = [
        (random.integers(1, VOCAB, random.integers(1, 40)).tolist(), int(random.integers(1, 20)), number)
        for number in range(10)
    ]

    async def ask(engine, prompt, count, number):
        await asyncio.sleep(0.002 * (number % 5))
        return await engine.generate(prompt, Sampling(max_tokens=count, seed=number), ())

    async def main():
        async with HuggingFaceEngine(model, max_batch=3, max_context=128, num_threads=1) as engine:
            first = await asyncio.gather(*(ask(engine, *one) for one in asked))
            again = [await ask(engine, *one) for one in asked[:4]]
            return first, again

    first, again = asyncio.run(main())
    assert [one.token_ids for one in again] == [one.token_ids for one in first[:4]]
    for (prompt, count, _), one in zip(asked, first, strict=True):
        assert len(one.token_ids) == count
        assert one.logprobs == pytest.approx(logprobs_of(model, prompt, list(one.token_ids)), abs=1e-4)


def test_a_ragged_load_computes_no_row_that_has_ended():
    """Rounds would take 4 x 40 steps of 4 rows each, most of them for nobody."""
    model, forwards = counted(make("llama"))
    budgets = [40, 2, 3, 4] * 4

    async def main():
        async with HuggingFaceEngine(model, max_batch=4, num_threads=1) as engine:
            asked = [engine.generate([5, 6], Sampling(max_tokens=count, seed=count), ()) for count in budgets]
            return await asyncio.gather(*asked), await idle(engine)

    found, stats = asyncio.run(main())
    assert [len(one.token_ids) for one in found] == budgets
    steps = [rows for rows, columns in forwards if columns == 1]
    assert sum(steps) == sum(budgets) - len(budgets)  # the first token comes of the prompt's forward
    assert len(steps) < 2 * 40
    assert stats.generated_tokens == sum(budgets)
    assert (stats.prompt_tokens_computed, stats.num_running, stats.pages_free) == (32, 0, 4)


def test_one_token_waits_for_nobody():
    """Another client draws 200 tokens meanwhile, and is not at its end."""

    async def main():
        async with HuggingFaceEngine(make("llama"), max_batch=2, num_threads=1) as engine:
            long = engine.stream([5, 6], Sampling(max_tokens=200, seed=1), ())
            heard = [await anext(long)]
            short = asyncio.create_task(engine.generate([7], Sampling(max_tokens=1, seed=2), ()))
            async for part in long:
                heard.append(part)
                if short.done():
                    break
            await long.aclose()
            return len(heard), (await short).token_ids

    heard, said = asyncio.run(main())
    assert len(said) == 1
    assert heard < 100


def test_callers_that_leave_free_their_slots():
    async def main():
        async with HuggingFaceEngine(make("llama"), max_batch=2, num_threads=1) as engine:
            streams = [engine.stream([5, number], Sampling(max_tokens=250), ()) for number in range(2)]
            for stream in streams:
                await anext(stream)
            for stream in streams:
                await stream.aclose()
            found = await engine.generate([5, 6], Sampling(max_tokens=3), ())
            return len(found.token_ids), await idle(engine)

    count, stats = asyncio.run(main())
    assert count == 3
    assert (stats.num_waiting, stats.pages_free) == (0, 2)
    assert stats.generated_tokens < 200


def test_new_weights_wait_for_the_rows_in_work_alone():
    """What has a slot ends under the old ones; what waits begins under the new."""

    async def main():
        async with HuggingFaceEngine(make("llama"), max_batch=1, num_threads=1) as engine:
            stream = engine.stream([5], Sampling(max_tokens=60), ())
            parts = [await anext(stream)]
            waits = asyncio.create_task(engine.generate([6], Sampling(max_tokens=2), ()))
            while not engine.stats().num_waiting:
                await asyncio.sleep(0.001)
            update = asyncio.create_task(asyncio.to_thread(engine.update_weights, 1, lambda model: None))
            parts += [part async for part in stream]
            await update
            return parts, await waits

    parts, waited = asyncio.run(main())
    assert (len(parts), {part.policy_version for part in parts}) == (60, {(0,)})
    assert waited.policy_version == (1, 1)


def test_a_model_that_cannot_go_on_answers_all_and_the_next_ones():
    model = make("llama")
    forward, fails = model.forward, [True]

    def failing(input_ids, *args, **kwargs):
        if fails[0] and input_ids.shape[1] == 1:
            raise RuntimeError("out of memory")
        return forward(input_ids, *args, **kwargs)

    model.forward = failing

    async def main():
        async with HuggingFaceEngine(model, max_batch=2, num_threads=1) as engine:
            asked = [engine.generate([5, 6], Sampling(max_tokens=9), ()) for _ in range(3)]
            lost = await asyncio.gather(*asked, return_exceptions=True)
            fails[0] = False
            return lost, await engine.generate([5, 6], Sampling(max_tokens=9), ()), await idle(engine)

    lost, found, stats = asyncio.run(main())
    assert [type(one).__name__ for one in lost] == ["PolicyError"] * 3
    assert len(found.token_ids) == 9
    assert (stats.num_running, stats.num_waiting) == (0, 0)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            transformers.Lfm2Config(**SHAPE, layer_types=["conv", "full_attention"], block_ff_dim=48),
            "other state than keys and values",
        ),
        (transformers.MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2), "other state"),
        (
            transformers.LlamaConfig(
                **SHAPE, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
            ),
            "frequencies depend on the longest row",
        ),
    ],
    ids=["conv", "mamba", "dynamic"],
)
def test_models_whose_rows_cannot_come_and_go_are_asked_in_rounds(config, reason, caplog):
    torch.manual_seed(0)
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    prompts = [[5, 6, 7], [8, 9, 10]]

    async def main():
        async with HuggingFaceEngine(model, max_batch=2, max_context=64, num_threads=1) as engine:
            greedy = Sampling(max_tokens=5, temperature=0.0)
            return await asyncio.gather(*(engine.generate(prompt, greedy, ()) for prompt in prompts))

    with caplog.at_level(logging.WARNING):
        found = asyncio.run(main())
    assert reason in caplog.text
    expected = model.generate(
        torch.tensor(prompts), max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert [list(one.token_ids) for one in found] == expected[:, 3:].tolist()
