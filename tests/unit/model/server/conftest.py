"""Servers on local ports, of tiny models and of a scripted engine."""

import asyncio
import functools
import io
import socket
import threading
import traceback
from contextlib import contextmanager

import pytest
import torch
import uvicorn

from verigym.envs.stacks import frame_of
from verigym.model.chat.cwm import CwmParser, CwmRenderer
from verigym.model.chat.sampling import Completion, CompletionPart
from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.model.engine.generator import Generator
from verigym.model.engine.open import OpenModel
from verigym.model.engine.stats import EngineStats
from verigym.model.server.app import build_app
from verigym.model.server.served import Served
from verigym.model.tokenizer import train_tokenizer

TEXTS = [
    "def add(a, b):\n    return a + b\n" * 4,
    "the quick brown fox; naïve café, 東京 \U0001f600. what is here?\n" * 4,
]


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(TEXTS, 320)


@pytest.fixture(scope="session")
def decoder(tokenizer):
    torch.set_num_threads(1)
    config = preset(
        "cwm-tiny",
        vocab_size=tokenizer.vocab_size,
        max_position_embeddings=256,
        hidden_size=32,
        intermediate_size=32,
        num_heads=2,
        num_kv_heads=1,
        head_dim=16,
    )
    model = Decoder(config, seed=3)
    with torch.no_grad():  # sharp distributions: errors show
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3.0)
    return model


def model_of(engine, tokenizer, *, reasoning=False, parser=None, **fields):
    """An OpenModel of CWM's format around an engine."""
    return OpenModel(
        engine=engine,
        encode=lambda text, special: tokenizer.encode_prompt(text, add_special_tokens=special),
        decode=tokenizer.decode,
        renderer=CwmRenderer(tokenizer, reasoning=reasoning),
        parser=parser or CwmParser(reasoning=reasoning),
        **{"eos_token_ids": (1, 5, 6), "load_weights": lambda path, version, mode: None, **fields},
    )


class Running:
    """A server in a thread."""

    def __init__(self, served, *, http="auto", **options):
        self.served = served
        self.engine = served.model.engine
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = build_app(served, **options)
        # As the command has it (--drain-timeout): a client that never reads its answer does not keep the server.
        config = uvicorn.Config(app, http=http, log_level="warning", timeout_graceful_shutdown=20)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()

    @functools.cached_property
    def client(self):
        """The official one: a second of imports, for whoever asks by it."""
        import openai

        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def close(self):
        if "client" in vars(self):
            self.client.close()
        self._server.should_exit = True
        self._thread.join(timeout=60)
        assert not self._thread.is_alive(), self._what_it_waits_for()

    def _what_it_waits_for(self):
        """What every task of the server's loop awaits, down to the innermost, and where every thread stands."""
        told = io.StringIO()
        for server in self._server.servers:
            for task in asyncio.all_tasks(server.get_loop()):
                told.write(f"\n{task!r}\n")
                awaited = task.get_coro()
                while awaited is not None:
                    told.write(f"  awaits {awaited!r}\n")
                    awaited = getattr(awaited, "cr_await", None)
        for thread in threading.enumerate():
            told.write(f"\nThread {thread.name}:\n" + "".join(traceback.format_stack(frame_of(thread.ident))))
        return told.getvalue()


@contextmanager
def running(model, *, name="tiny", logprobs_mode="raw_logprobs", **options):
    server = Running(Served(name=name, model=model, logprobs_mode=logprobs_mode), **options)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def server(decoder, tokenizer):
    """A tiny random CWM model."""
    engine = Generator(decoder, max_batch=8, max_context=256, num_threads=1, decode=tokenizer.decode)
    with running(model_of(engine, tokenizer)) as one:
        yield one


class Scripted:
    """An engine that says given texts, one token a part; every token has the log-probability -0.5."""

    policy_version, max_context = 3, 512

    def __init__(self, tokenizer, *texts):
        self.tokenizer, self.texts, self.prompts, self.samplings = tokenizer, list(texts), [], []

    async def generate(self, prompt_ids, sampling, stop_token_ids):
        parts = [part async for part in self.stream(prompt_ids, sampling, stop_token_ids)]
        return Completion(
            token_ids=sum((part.token_ids for part in parts), ()),
            logprobs=sum((part.logprobs for part in parts), ()),
            policy_version=sum((part.policy_version for part in parts), ()),
            raw_logprobs=sum((part.raw_logprobs for part in parts), ()),
            finish_reason=parts[-1].finish_reason,
            stop_reason=parts[-1].stop_reason,
        )

    async def stream(self, prompt_ids, sampling, stop_token_ids):
        self.prompts.append(self.tokenizer.decode(prompt_ids))
        self.samplings.append(sampling)
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        stop = self.tokenizer.reserved("<|eot_id|>")
        ids = [*self.tokenizer.encode(text), stop][: sampling.max_tokens]
        for index, token_id in enumerate(ids):
            last = index == len(ids) - 1
            await asyncio.sleep(0)
            yield CompletionPart(
                token_ids=(token_id,),
                logprobs=(-0.5,),
                policy_version=(3,),
                raw_logprobs=(-0.5,),
                finish_reason=None if not last else "stop" if token_id == stop else "length",
                stop_reason=stop if last and token_id == stop else None,
            )

    def stats(self):
        names = EngineStats.__dataclass_fields__
        return EngineStats(**dict.fromkeys(names, 0))

    def update_weights(self, version):
        self.policy_version = version

    async def aclose(self):
        pass


class Endless(Scripted):
    """An engine that never comes to an end by itself; it counts whom it works for."""

    num_inside = num_steps = 0

    async def generate(self, prompt_ids, sampling, stop_token_ids):
        async for _ in self.stream(prompt_ids, sampling, stop_token_ids):
            pass
        raise AssertionError

    async def stream(self, prompt_ids, sampling, stop_token_ids):
        self.num_inside += 1
        try:
            while True:
                await asyncio.sleep(0.005)
                self.num_steps += 1
                yield CompletionPart(token_ids=(7,), logprobs=(-0.5,), policy_version=(3,), raw_logprobs=(-0.5,))
        finally:
            self.num_inside -= 1


@pytest.fixture
def scripted(tokenizer):
    """A context manager: a server whose model says the given texts."""

    @contextmanager
    def serve(*texts, **options):
        engine = Scripted(tokenizer, *texts)
        keep = {name: options.pop(name) for name in ("reasoning", "parser") if name in options}
        with running(model_of(engine, tokenizer, **keep), **options) as one:
            yield one

    return serve
