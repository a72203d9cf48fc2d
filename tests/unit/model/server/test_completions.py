"""/v1/completions against transformers' own numbers, by the official client."""

from itertools import chain

import httpx
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from verigym.model.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def theirs(decoder, tokenizer, tmp_path_factory):
    """The same model as transformers loads it."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_checkpoint(folder, decoder, tokenizer)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def prompt_of(seed, length):
    return np.random.default_rng(seed).integers(7, 320, length).tolist()


def their_logprobs(theirs, ids):
    """[T, V] at temperature 1."""
    with torch.no_grad():
        return theirs(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)


def test_echoed_logprobs_are_those_of_transformers(server, theirs):
    for seed, length in enumerate((1, 2, 7, 60)):
        ids = prompt_of(seed, length)
        # The temperature is that of the draw: the log-probabilities stay the model's own.
        answer = server.client.completions.create(
            model="tiny", prompt=ids, max_tokens=4, echo=True, logprobs=3, temperature=0.6, seed=seed,
            extra_body={"return_token_ids": True, "ignore_eos": True},
        )  # fmt: skip
        choice = answer.choices[0]
        whole = ids + choice.token_ids
        expected = their_logprobs(theirs, whole)
        found = choice.logprobs.token_logprobs
        assert found[0] is None
        assert choice.logprobs.top_logprobs[0] is None
        own = expected[:-1].gather(1, torch.tensor(whole[1:])[:, None])[:, 0]
        assert found[1:] == pytest.approx(own.tolist(), abs=1e-5)
        for told, row in zip(choice.logprobs.top_logprobs[1:], expected[:-1]):
            assert sorted(told.values(), reverse=True) == pytest.approx(row.topk(3).values.tolist(), abs=1e-5)
        assert answer.usage.prompt_tokens == length
        assert answer.usage.completion_tokens == len(choice.token_ids) == 4


def test_echo_without_sampling_scores_the_prompt_alone(server, theirs):
    ids = prompt_of(9, 256)  # as long as the context
    answer = server.client.completions.create(model="tiny", prompt=ids, max_tokens=0, echo=True, logprobs=0)
    choice = answer.choices[0]
    own = their_logprobs(theirs, ids)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    assert choice.logprobs.token_logprobs == pytest.approx([None, *own.tolist()], abs=1e-5)
    assert choice.logprobs.top_logprobs is None
    assert (choice.finish_reason, answer.usage.completion_tokens) == ("length", 0)
    assert choice.text == server.served.model.decode(ids)


def test_text_prompts_offsets_and_usage(server, tokenizer):
    text = "def add(東京"
    answer = server.client.completions.create(
        model="tiny", prompt=text, max_tokens=3, echo=True, logprobs=1, temperature=0, extra_body={"ignore_eos": True}
    )
    choice = answer.choices[0]
    assert choice.text.startswith(text)
    ids = tokenizer.encode(text)
    assert answer.usage.prompt_tokens == len(ids)
    told = choice.logprobs
    assert len(told.tokens) == len(told.text_offset) == len(told.token_logprobs) == len(ids) + 3
    assert told.text_offset == sorted(told.text_offset)
    before = ""
    for name, offset in zip(told.tokens, told.text_offset):
        # A part of a character has no place of its own in the text, and what follows it has none before it ends.
        if not name.startswith("token_id:") and not before.startswith("token_id:"):
            assert choice.text[offset : offset + len(name)] == name
        before = name


def test_several_prompts_and_samples(server):
    prompts = [prompt_of(1, 5), prompt_of(2, 6)]
    options = {"model": "tiny", "max_tokens": 6, "n": 3, "seed": 7, "extra_body": {"return_token_ids": True}}
    answer = server.client.completions.create(prompt=prompts, **options)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3, 4, 5]
    told = [choice.token_ids for choice in answer.choices]
    assert len({tuple(ids) for ids in told[:3]}) == 3  # each sample has noise of its own
    assert [choice.prompt_token_ids for choice in answer.choices] == [prompts[0]] * 3 + [prompts[1]] * 3
    again = server.client.completions.create(prompt=prompts[1], **options)
    assert [choice.token_ids for choice in again.choices] == told[3:]
    assert answer.usage.prompt_tokens == 11
    assert answer.usage.completion_tokens == sum(map(len, told))


def test_a_stream_says_what_the_whole_answer_says(server):
    options = {
        "model": "tiny", "prompt": [prompt_of(4, 9), prompt_of(5, 3)], "max_tokens": 20, "n": 2, "seed": 1,
        "logprobs": 2, "echo": True, "extra_body": {"return_token_ids": True},
    }  # fmt: skip
    whole = server.client.completions.create(**options)
    events = list(server.client.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert events[-1].usage == whole.usage
    assert events[-1].choices == []
    for choice in whole.choices:
        parts = [event.choices[0] for event in events[:-1] if event.choices[0].index == choice.index]
        assert "".join(part.text for part in parts) == choice.text
        assert list(chain(*(part.token_ids for part in parts))) == choice.token_ids
        for name in ("tokens", "text_offset"):
            assert list(chain(*(getattr(part.logprobs, name) for part in parts))) == getattr(choice.logprobs, name)
        told = list(chain(*(part.logprobs.token_logprobs for part in parts)))
        assert told == pytest.approx(choice.logprobs.token_logprobs, abs=1e-5)  # other neighbours in the batch
        assert len(list(chain(*(part.logprobs.top_logprobs for part in parts)))) == len(told)
        assert [part.finish_reason for part in parts[:-1]] == [None] * (len(parts) - 1)
        assert parts[-1].finish_reason == choice.finish_reason


def test_stop_texts_end_the_text_and_may_be_kept(server):
    options = {"model": "tiny", "prompt": prompt_of(6, 8), "temperature": 0, "max_tokens": 40}
    text = server.client.completions.create(**options).choices[0].text
    assert len(text) > 8, "the tiny model says nothing; choose another prompt"
    stop = text[4:6]
    first = text.index(stop)
    for extra, expected in (({}, text[:first]), ({"include_stop_str_in_output": True}, text[: first + 2])):
        choice = server.client.completions.create(**options, stop=["never said", stop], extra_body=extra).choices[0]
        assert (choice.text, choice.finish_reason, choice.stop_reason) == (expected, "stop", stop)
        events = server.client.completions.create(**options, stop=stop, stream=True, extra_body=extra)
        assert "".join(event.choices[0].text for event in events) == expected


def test_stop_tokens_have_an_id_and_a_logprob_and_no_text(server):
    options = {"model": "tiny", "prompt": prompt_of(6, 8), "temperature": 0, "max_tokens": 40, "logprobs": 0}
    extra = {"return_token_ids": True}
    free = server.client.completions.create(**options, extra_body=extra).choices[0]
    stop = free.token_ids[3]
    first = free.token_ids.index(stop)
    choice = server.client.completions.create(**options, extra_body={**extra, "stop_token_ids": [stop]}).choices[0]
    assert choice.token_ids == free.token_ids[: first + 1]
    assert len(choice.logprobs.token_logprobs) == first + 1
    assert choice.text == server.served.model.decode(free.token_ids[:first])
    assert (choice.finish_reason, choice.stop_reason) == ("stop", stop)
    kept = {"stop_token_ids": [stop], "include_stop_str_in_output": True, "skip_special_tokens": False}
    choice = server.client.completions.create(**options, extra_body=kept).choices[0]
    assert choice.text == server.served.model.decode(free.token_ids[: first + 1])


def test_versions_come_with_the_ids(server):
    answer = server.client.completions.create(
        model="tiny", prompt=prompt_of(1, 4), max_tokens=3, extra_body={"return_token_ids": True}
    )
    choice = answer.choices[0]
    assert choice.policy_version == [0] * len(choice.token_ids)


def test_models_health_and_metrics(server):
    assert [model.id for model in server.client.models.list()] == ["tiny"]
    assert server.client.models.retrieve("tiny").max_model_len == 256
    assert httpx.get(f"{server.url}/health").json()["status"] == "ok"
    server.client.completions.create(model="tiny", prompt=[7, 8, 9], max_tokens=2)
    text = httpx.get(f"{server.url}/metrics").text
    assert 'verigym_requests_total{route="/v1/completions",status="200"}' in text
    rows = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(rows["verigym_engine_generated_tokens_total"]) >= 1
    assert float(rows["verigym_engine_num_running"]) == 0
