"""Clients that leave, pauses, and new weights while the server runs."""

import asyncio
import json
import os
import pickle
import random
import threading
import time

import httpx
import pytest
import torch

from verigym.model.attention import Documents
from verigym.model.checkpoint import save_checkpoint
from verigym.model.decoder import Decoder
from verigym.model.engine.generator import Generator
from verigym.model.engine.open import open_checkpoint
from verigym.model.server.gate import Gate

from .conftest import Endless, model_of, running

LONG = {"model": "tiny", "prompt": [7, 8, 9], "max_tokens": 240, "ignore_eos": True}


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def idle(engine):
    stats = engine.stats()
    return stats.num_running == stats.num_waiting == stats.pages_used == 0


BODIES = {
    "/v1/completions": {"model": "tiny", "prompt": [7, 8, 9]},
    "/v1/chat/completions": {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "n": 2},
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("abortable", [False, True])
def test_a_client_that_leaves_ends_its_request(tokenizer, path, stream, abortable):
    engine = Endless(tokenizer)
    body = {**BODIES[path], "stream": stream}
    with running(model_of(engine, tokenizer), allow_weight_updates=abortable) as server:

        async def leave():
            async with httpx.AsyncClient() as client:
                task = asyncio.create_task(client.post(server.url + path, json=body, timeout=60))
                while engine.num_inside < body.get("n", 1) or engine.num_steps < 4:
                    assert not task.done()
                    await asyncio.sleep(0.01)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        asyncio.run(leave())
        wait_until(lambda: engine.num_inside == 0)
        if not stream:
            wait_until(lambda: f'route="{path}",status="499"}} 1.0' in httpx.get(f"{server.url}/metrics").text)


def soak(server, engine, count, seed):
    """``count`` requests of all kinds from 16 clients, a third of which leave at some moment."""
    outcomes = []

    async def one(client, number, random_):
        kind = random_.choice(["ids", "text", "chat", "stream", "echo"])
        body = {"model": "tiny", "max_tokens": random_.randint(1, 40), "seed": number}
        if kind == "chat":
            body["messages"] = [{"role": "user", "content": "naïve " * random_.randint(1, 9)}]
        else:
            body["prompt"] = (
                "def add " * random_.randint(1, 9) if kind == "text" else random_.choices(range(7, 320), k=30)
            )
        body |= {"stream": {"stream": True, "n": 2}, "echo": {"echo": True, "logprobs": 2}}.get(kind, {})
        path = "/v1/chat/completions" if kind == "chat" else "/v1/completions"
        post = asyncio.create_task(client.post(server.url + path, json=body))
        if number % 3 == 0:
            await asyncio.wait((post,), timeout=random_.random() * 0.2)
            post.cancel()
            await asyncio.gather(post, return_exceptions=True)
            outcomes.append("left")
        else:
            outcomes.append((await post).status_code)

    async def all_of_them():
        random_, numbers = random.Random(seed), iter(range(count))
        async with httpx.AsyncClient(timeout=300) as client:

            async def worker():
                for number in numbers:
                    await one(client, number, random_)

            await asyncio.gather(*(worker() for _ in range(16)))

    asyncio.run(all_of_them())
    wait_until(lambda: idle(engine))
    assert outcomes.count("left") == (count + 2) // 3
    assert outcomes.count(200) == count - outcomes.count("left")
    assert engine.stats().pages_free > 0
    rows = dict(line.rsplit(" ", 1) for line in httpx.get(f"{server.url}/metrics").text.splitlines() if line[0] != "#")
    assert [float(rows[f"verigym_engine_{name}"]) for name in ("num_running", "num_waiting", "pages_used")] == [0, 0, 0]


@pytest.mark.parametrize("count", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_nothing_stays_behind_requests_of_which_a_third_leave(decoder, tokenizer, count):
    engine = Generator(decoder, max_batch=8, max_context=256, num_threads=1, decode=tokenizer.decode)
    with running(model_of(engine, tokenizer)) as server:
        soak(server, engine, count, seed=1)
        free = engine.stats().pages_free
        soak(server, engine, 12, seed=2)
        assert engine.stats().pages_free == free


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, mark):
        self._mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self._mark}",)


def _weights_that_run(folder, mark, *, index):
    """A checkpoint whose weights are a pickle: the index of torch's distributed format, or of torch.save."""
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    pickled = pickle.dumps(Payload(mark))
    (folder / (".metadata" if index else "pytorch_model.bin")).write_bytes(pickled)


def _code_in_the_folder(folder, mark):
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "modeling.Model")}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "unheard-of"}))
    (folder / "modeling.py").write_text(f"import os\nos.system('touch {mark}')\nclass Model:\n    pass\n")


def _a_way_out(folder, mark):
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "../old/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


HOSTILE = {
    "a pickled index": lambda folder, mark: _weights_that_run(folder, mark, index=True),
    "pickled weights": lambda folder, mark: _weights_that_run(folder, mark, index=False),
    "code in the folder": _code_in_the_folder,
    "a name that leads out": _a_way_out,
}


def test_a_hostile_folder_runs_nothing_and_leaves_the_weights(decoder, tokenizer, tmp_path):
    mark = tmp_path / "ran"
    save_checkpoint(tmp_path / "old", decoder, tokenizer)
    model = open_checkpoint(tmp_path / "old", max_batch=4, num_threads=1, device="cpu")
    with running(model, allow_weight_updates=True) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        asked = {**LONG, "temperature": 0, "max_tokens": 6, "return_token_ids": True}
        before = http.post("/v1/completions", json=asked).json()["choices"]
        assert http.post("/pause?mode=wait").status_code == 200
        for name, spoil in HOSTILE.items():
            folder = tmp_path / name.replace(" ", "-")
            save_checkpoint(folder, Decoder(decoder.config, seed=9), tokenizer)
            spoil(folder, mark)
            refused = http.post("/update_weights", json={"update_info": {"path": str(folder), "version": 3}})
            assert (refused.status_code, mark.exists()) == (400, False), (name, refused.text)
        assert http.get("/weight_info").json() == {"weight_version": "0"}
        assert http.post("/resume").status_code == 200
        assert http.post("/v1/completions", json=asked).json()["choices"] == before


def test_weights_are_changed_in_a_pause(decoder, tokenizer, tmp_path):
    other = Decoder(decoder.config, seed=9)
    save_checkpoint(tmp_path / "old", decoder, tokenizer)
    save_checkpoint(tmp_path / "new", other, tokenizer)
    model = open_checkpoint(tmp_path / "old", max_batch=4, num_threads=1, device="cpu")
    asked = {**LONG, "temperature": 0, "max_tokens": 6, "return_token_ids": True, "logprobs": 0}
    with running(model, allow_weight_updates=True) as server, httpx.Client(base_url=server.url, timeout=60) as http:

        def complete(**change):
            return http.post("/v1/completions", json={**asked, **change}).json()["choices"][0]

        before = complete()
        assert before["policy_version"] == [0] * 6
        update = {"update_info": {"path": str(tmp_path / "new"), "version": 4}}
        assert http.post("/update_weights", json=update).status_code == 409  # not paused
        assert http.post("/pause?mode=wait").json() == {"status": "paused"}
        assert http.get("/is_paused").json() == {"is_paused": True}
        for bad in ({}, {"update_info": {}}, {"update_info": {"path": str(tmp_path / "new"), "version": "x"}}):
            assert http.post("/update_weights", json=bad).status_code == 400
        missing = http.post("/update_weights", json={"update_info": {"path": str(tmp_path / "nowhere")}})
        assert (missing.status_code, "no checkpoint" in missing.text) == (400, True)
        waiting = []
        thread = threading.Thread(target=lambda: waiting.append(complete()))
        thread.start()
        assert http.post("/start_weight_update", json={}).status_code == 200
        assert http.post("/update_weights", json=update).json()["weight_version"] == "4"
        assert http.post("/finish_weight_update", json={"weight_version": "5"}).status_code == 200
        assert not waiting
        assert http.post("/resume").json() == {"status": "resumed"}
        thread.join(60)
        after = complete()
        assert http.get("/weight_info").json() == {"weight_version": "5"}
    assert waiting[0]["token_ids"] == after["token_ids"]
    assert after["policy_version"] == [5] * 6
    cold = open_checkpoint(tmp_path / "new", max_batch=4, num_threads=1, device="cpu")
    with running(cold) as server:
        expected = httpx.post(f"{server.url}/v1/completions", json=asked, timeout=60).json()["choices"][0]
    assert after["token_ids"] == expected["token_ids"]
    assert after["logprobs"]["token_logprobs"] == pytest.approx(expected["logprobs"]["token_logprobs"], abs=1e-5)


def test_a_pause_aborts_what_is_in_work_with_what_it_has(tokenizer):
    engine = Endless(tokenizer)
    with running(model_of(engine, tokenizer), allow_weight_updates=True) as server:
        answers = []
        asked = {**BODIES["/v1/completions"], "return_token_ids": True, "logprobs": 0}

        def ask():
            answers.append(httpx.post(f"{server.url}/v1/completions", json=asked, timeout=60).json())

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_until(lambda: engine.num_inside == 3 and engine.num_steps > 9)
        assert httpx.post(f"{server.url}/pause", timeout=60).status_code == 200
        assert engine.num_inside == 0
        for thread in threads:
            thread.join(60)
        for answer in answers:
            choice = answer["choices"][0]
            assert choice["finish_reason"] == "abort"
            assert len(choice["token_ids"]) == len(choice["logprobs"]["token_logprobs"]) >= 1
        assert httpx.post(f"{server.url}/pause?mode=keep").status_code == 400
        late = threading.Thread(target=ask)
        late.start()
        time.sleep(0.1)
        assert engine.num_inside == 0
        assert httpx.post(f"{server.url}/resume").status_code == 200
        wait_until(lambda: engine.num_inside == 1)
        assert httpx.post(f"{server.url}/pause", timeout=60).status_code == 200
        late.join(60)


@pytest.mark.parametrize("clear", [False, True])
def test_a_pause_keeps_what_is_in_work_and_it_goes_on(decoder, tokenizer, tmp_path, monkeypatch, clear):
    """Frozen between two tokens; after new weights over its old keys, or, as asked for, over new ones."""
    save_checkpoint(tmp_path / "old", decoder, tokenizer)
    save_checkpoint(tmp_path / "new", Decoder(decoder.config, seed=9), tokenizer)
    model = open_checkpoint(tmp_path / "old", max_batch=2, num_threads=1, device="cpu")
    advance = model.engine._batch.advance  # slowly, so that it is still in work when the pause comes
    monkeypatch.setattr(model.engine._batch, "advance", lambda jobs: (time.sleep(0.005), advance(jobs))[1])
    asked = {**LONG, "temperature": 0, "return_token_ids": True, "logprobs": 0, "stream": True}
    with running(model, allow_weight_updates=True) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        with http.stream("POST", "/v1/completions", json=asked) as response:
            lines = (line for line in response.iter_lines() if line.startswith("data: {"))
            first = next(lines)
            mode = "keep&clear_cache=true" if clear else "keep"
            assert http.post(f"/pause?mode={mode}").json() == {"status": "paused"}
            assert http.post(f"/pause?mode={mode}").status_code == 200  # again changes nothing
            drawn = model.engine.stats().generated_tokens
            update = {"update_info": {"path": str(tmp_path / "new"), "version": 4}}
            assert http.post("/update_weights", json=update).status_code == 200
            assert http.post("/finish_weight_update", json={"weight_version": "5"}).status_code == 200
            time.sleep(0.05)
            assert model.engine.stats().generated_tokens == drawn
            assert http.post("/resume").json() == {"status": "resumed"}
            choices = [json.loads(line[6:])["choices"][0] for line in (first, *lines)]
        metrics = http.get("/metrics").text
    ids = [one for choice in choices for one in choice["token_ids"]]
    versions = [one for choice in choices for one in choice["policy_version"]]
    logprobs = [one for choice in choices for one in choice["logprobs"]["token_logprobs"]]
    assert len(ids) == 240
    assert choices[-1]["finish_reason"] == "length"
    assert versions == [0] * drawn + [5] * (240 - drawn)
    prefix = torch.tensor([*LONG["prompt"], *ids[:drawn]])
    with torch.no_grad():
        cold = Decoder(decoder.config, seed=9)
        scores = cold.logits(cold(prefix, Documents.from_lengths([len(prefix)])))[-1].log_softmax(-1)
    assert (logprobs[drawn] == pytest.approx(float(scores[ids[drawn]]), abs=1e-5)) == clear
    told = 'verigym_request_seconds_count{route="/v1/completions"} 1.0'
    assert told in metrics  # the stream is timed, once, at its end


def test_a_stream_is_timed_to_its_last_event(tokenizer):
    engine = Endless(tokenizer)
    with running(model_of(engine, tokenizer)) as server:
        body = {**BODIES["/v1/completions"], "stream": True}
        count = 'verigym_request_seconds_count{route="/v1/completions"} 1.0'
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            assert count not in httpx.get(f"{server.url}/metrics").text
        wait_until(lambda: count in httpx.get(f"{server.url}/metrics").text)


def test_an_abort_after_a_pause_that_froze_a_score_ends(decoder, tokenizer):
    """What cannot be aborted has to go on, or the abort would wait for it for ever."""

    async def main():
        async with Generator(decoder, max_batch=2, max_context=64, decode=tokenizer.decode) as engine:
            gate = Gate(engine, abortable=True)
            engine.pause()
            score = asyncio.create_task(gate.score([7, 8, 9], 0))
            while not engine.stats().num_waiting:
                await asyncio.sleep(0.001)
            await gate.pause("keep")
            engine.resume()
            async with asyncio.timeout(60):
                await gate.pause("abort")
            return await score

    assert len(asyncio.run(main()).logprobs) == 3
