"""Engines in processes of their own: the same answers as one in this process, through new weights and lost servers."""

import asyncio
import os
import re
import signal
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import uvicorn

from verigym.errors import ConfigError, PolicyError
from verigym.model.chat.sampling import Sampling
from verigym.model.checkpoint import load_decoder, save_checkpoint
from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.model.engine.generator import Generator
from verigym.model.engine.open import open_checkpoint
from verigym.model.server.access import Access
from verigym.model.server.app import build_app
from verigym.model.server.served import Served
from verigym.model.tokenizer import train_tokenizer
from verigym.trainer.engines.fleet import Fleet
from verigym.trainer.engines.sizes import Sizes
from verigym.trainer.recipe.config import EnginesConfig

PROMPTS = [[7, 30, 20 + number] for number in range(8)]
SIZES = Sizes(concurrency=8, max_context=1024, request_seconds=600.0)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["def add(a, b):\n    return a + b\n" * 4], 320)


class Trainer:
    """Weights that change."""

    def __init__(self, tokenizer):
        self.tokenizer, self.saved = tokenizer, []
        self.step(0)

    def step(self, seed):
        vocab_size = self.tokenizer.vocab_size + self.tokenizer.vocab_size % 2  # so that two ranks can share it
        config = preset("cwm-tiny", vocab_size=vocab_size, max_position_embeddings=1024)
        self.decoder = Decoder(config, seed=seed)
        self.decoder.config = config.with_known_ids(self.tokenizer.vocab_size)  # as whoever opens it from a folder

    def save(self, folder, whole=True):
        self.saved.append(folder)
        save_checkpoint(folder, self.decoder, self.tokenizer)


@pytest.fixture
def trainer(tokenizer):
    return Trainer(tokenizer)


def sampling(number, max_tokens=20):
    return Sampling(max_tokens=max_tokens, seed=number)


async def asked(engine):
    requests = [engine.generate(prompt, sampling(number), ()) for number, prompt in enumerate(PROMPTS)]
    return await asyncio.gather(*requests)


async def in_process(decoder):
    async with Generator(decoder, max_batch=8, max_context=256, num_threads=1) as engine:
        return await asked(engine)


def compare(found, expected, version):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.token_ids == theirs.token_ids
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)
        assert set(ours.policy_version) == {version}


def fleet_of(trainer, folder, sizes=SIZES, **config):
    return Fleet(EnginesConfig(**(config or {"count": 2})), folder, sizes, save=trainer.save)


@pytest.fixture(scope="module")
def shared(tokenizer, tmp_path_factory):
    """(trainer, fleet of two servers, what runs a coroutine on the fleet's loop): a start costs seconds of a core.

    At the end no server is left, nor any weights that were written for them.
    """
    trainer = Trainer(tokenizer)
    fleet = fleet_of(trainer, tmp_path_factory.mktemp("fleet"))
    with asyncio.Runner() as runner:
        yield trainer, fleet, runner.run
        processes = [server.process for server in fleet.servers]
        runner.run(fleet.aclose())
    assert not any(process.is_alive for process in processes)
    assert not any(folder.exists() for folder in trainer.saved)


def test_two_servers_say_what_one_engine_says(shared):
    trainer, fleet, run = shared

    async def main():
        already = len(trainer.saved)
        trainer.step(0)
        async with fleet.open() as engine:
            compare(await asked(engine), await in_process(trainer.decoder), 0)
            assert [one.num_inside for one in fleet.servers] == [0, 0]
            trainer.step(1)
            engine.update_weights(1)
            compare(await asked(engine), await in_process(trainer.decoder), 1)
            async with fleet.open() as same:  # inside of the first, nothing is sent
                assert (same.policy_version, len(trainer.saved) - already) == (1, 2)
        trainer.step(2)
        async with fleet.open() as engine:
            compare(await asked(engine), await in_process(trainer.decoder), 0)
        assert [folder.exists() for folder in trainer.saved[already:]] == [False, False, True]

    run(main())


def test_a_server_over_two_processes(trainer, tmp_path):
    """Told to end, it does, with 0."""

    async def main():
        fleet = fleet_of(trainer, tmp_path, count=1, tensor_parallel=2)
        try:
            async with fleet.open() as engine:
                compare(await asked(engine), await in_process(trainer.decoder), 0)
                trainer.step(1)
                engine.update_weights(1)
                compare(await asked(engine), await in_process(trainer.decoder), 1)
        finally:
            await fleet.aclose()
        assert fleet.servers[0].process._process.returncode == 0

    asyncio.run(main())


async def tokens_of(http, server):
    """How many tokens a server has sampled."""
    text = (await http.get(f"{server.url}/metrics")).text
    return int(float(re.search(r"generated_tokens_total ([\d.e+]+)$", text, re.M)[1]))


@pytest.mark.parametrize("mode", ["keep", "recompute", "abort"])
def test_new_weights_under_turns_in_flight(shared, mode):
    """Trap 6: each token says which weights sampled it, and no server is left with the old ones."""
    trainer, fleet, run = shared

    async def main():
        trainer.step(0)
        async with fleet.open() as engine, httpx.AsyncClient() as http:
            before = [await tokens_of(http, server) for server in fleet.servers]
            long = sampling(3, max_tokens=400)
            turns = [asyncio.create_task(engine.generate(prompt, long, ())) for prompt in PROMPTS]
            for server, already in zip(fleet.servers, before, strict=True):
                while await tokens_of(http, server) == already:
                    await asyncio.sleep(0.02)
            trainer.step(1)
            await asyncio.to_thread(engine.update_weights, 1, on_weight_update=mode)
            found = await asyncio.gather(*turns)
            seen = {version for one in found for version in one.policy_version}
            if mode == "abort":
                assert {one.finish_reason for one in found} == {"abort"}
            else:
                assert seen == {0, 1}
                assert all(list(one.policy_version) == sorted(one.policy_version) for one in found)
                assert {one.finish_reason for one in found} == {"length"}
            compare(await asked(engine), await in_process(trainer.decoder), 1)

    run(main())


def test_a_killed_server_costs_nobody_an_answer(shared):
    """The other server answers; the killed one comes back with the weights of the moment, not those it began with."""
    trainer, fleet, run = shared

    async def main():
        async with fleet.open() as engine:
            trainer.step(1)
            engine.update_weights(1)
            long = sampling(3, max_tokens=200)
            turns = [asyncio.create_task(engine.generate(prompt, long, ())) for prompt in PROMPTS]
            while not all(server.num_inside for server in fleet.servers):
                await asyncio.sleep(0.01)
            os.kill(fleet.servers[0].process._process.pid, signal.SIGKILL)
            found = await asyncio.gather(*turns)
            assert {(len(one.token_ids), set(one.policy_version) == {1}) for one in found} == {(200, True)}
            trainer.step(2)
            engine.update_weights(2)  # while one is away
            deadline = time.monotonic() + 60
            while fleet.servers[0].engine is None:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            fleet.servers[1].num_inside += 100  # the one that came back has to answer
            try:
                compare(await asked(engine), await in_process(trainer.decoder), 2)
            finally:
                fleet.servers[1].num_inside -= 100

    run(main())


@contextmanager
def serving(checkpoint, *, logprobs_mode="processed_logprobs", max_context=1024, **options):
    """The root of a server that somebody else has started: here, a thread."""
    model = open_checkpoint(checkpoint, max_batch=8, max_context=max_context, num_threads=1)
    app = build_app(Served(name="old", model=model, logprobs_mode=logprobs_mode), **options)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)


def test_servers_that_run_already(trainer, tmp_path, monkeypatch):
    monkeypatch.setenv("VERIGYM_API_KEY", "of these servers")
    monkeypatch.setenv("VERIGYM_WEIGHTS_KEY", "of their weights")
    access = Access(api_key="of these servers", weights_key="of their weights")
    save_checkpoint(tmp_path / "old", trainer.decoder, trainer.tokenizer)
    trainer.step(5)

    async def use(url, sizes=SIZES):
        fleet = fleet_of(trainer, tmp_path, sizes, urls=[url + "/"], weights=tmp_path / "shared")
        try:
            async with fleet.open() as engine:
                compare(await asked(engine), await in_process(trainer.decoder), 0)
        finally:
            await fleet.aclose()

    with serving(tmp_path / "old", access=access, allow_weight_updates=True) as url:
        asyncio.run(use(url))
        asyncio.run(use(url))  # it is left as it can be used again
        with pytest.raises(ConfigError, match="--max-context 2048"):
            asyncio.run(use(url, Sizes(concurrency=8, max_context=2048, request_seconds=600.0)))
        monkeypatch.setenv("VERIGYM_WEIGHTS_KEY", "another")
        with pytest.raises(ConfigError, match="give its key here in VERIGYM_WEIGHTS_KEY"):
            asyncio.run(use(url))
        monkeypatch.setenv("VERIGYM_WEIGHTS_KEY", "of their weights")
    with serving(tmp_path / "old", access=access) as url, pytest.raises(ConfigError, match="--allow-weight-updates"):
        asyncio.run(use(url))
    raw = serving(tmp_path / "old", access=access, allow_weight_updates=True, logprobs_mode="raw_logprobs")
    with raw as url, pytest.raises(ConfigError, match="processed_logprobs"):
        asyncio.run(use(url))
    assert not list((tmp_path / "shared").iterdir())


def test_no_server_is_left_where_one_cannot_start(trainer, tmp_path):
    async def main():
        fleet = fleet_of(trainer, tmp_path, Sizes(concurrency=8, max_context=100_000, request_seconds=600.0), count=1)
        with pytest.raises(PolicyError, match=r"could not start: .*max_context is 100000.*engine-0.log"):
            async with fleet.open():
                pass
        assert not any(server.process and server.process.is_alive for server in fleet.servers)

    asyncio.run(main())
    assert not (tmp_path / "weights").exists()


def test_weights_in_less(trainer, tokenizer, tmp_path):
    import torch

    from verigym.model.chat.cwm import CwmParser, CwmRenderer
    from verigym.trainer.learning.trainee import Trainee
    from verigym.trainer.recipe.model import ModelConfig

    trainee = Trainee(
        config=ModelConfig(),
        decoder=trainer.decoder,
        tokenizer=tokenizer,
        renderer=CwmRenderer(tokenizer),
        parser=CwmParser(),
        seed=0,
    )
    trainee.save(tmp_path / "less", {}, dtype=torch.bfloat16)
    found = load_decoder(tmp_path / "less")
    assert found.head.weight.dtype == torch.bfloat16
    assert torch.equal(found.head.weight, trainer.decoder.head.weight.to(torch.bfloat16))
    assert trainer.decoder.head.weight.dtype == torch.float32
