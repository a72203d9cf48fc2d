"""vLLM's servers as engines, against a stand-in that speaks its routes (tests/integration/test_vllm.py has a real
one): how they are started and ended, how weights reach them, and what is refused."""

import asyncio
import itertools
import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from verigym.agent.vllm_engine import VllmEngine
from verigym.errors import ConfigError, PolicyError, RequestRefused, TrainingError
from verigym.model.chat.sampling import Sampling
from verigym.trainer.engines.fleet import Fleet
from verigym.trainer.engines.in_vllm import verigym_vllm_worker as worker
from verigym.trainer.engines.sizes import Sizes
from verigym.trainer.engines.vllm import VllmProcess, interpreter
from verigym.trainer.recipe.config import EnginesConfig
from verigym.trainer.recipe.recipe import Recipe

STAND_IN = Path(__file__).parent / "stand_in"
SIZES = Sizes(concurrency=4, max_context=64, request_seconds=30.0)
SHAPES = {"embed.weight": (8, 4), "layers.0.q.weight": (4, 4), "layers.0.k.weight": (2, 4)}


@pytest.fixture(autouse=True)
def _a_vllm(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))


def write(folder, shapes=SHAPES, settings=None):
    """A checkpoint's folder, as far as anyone here reads it."""
    folder.mkdir(parents=True)
    header = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    data = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(data)) + data)
    if settings:
        (folder / "stand_in.json").write_text(json.dumps(settings))
    return folder


def fleet_of(folder, save=None, sizes=SIZES, **config):
    config = {"count": 1, "python": Path(sys.executable), **config}
    return Fleet(EnginesConfig(kind="vllm", **config), folder, sizes, save=save or (lambda path, _: write(path)))


async def said(url):
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{url}/told")).json()


def test_servers_that_a_run_starts(tmp_path):
    """They begin with the trainer's weights, tell each token's version, and are gone at the end."""

    async def main():
        fleet = fleet_of(tmp_path, count=2, options=["--gpu-memory-utilization", "0.6"])
        async with fleet.open() as engine:
            begun = await engine.generate([1], Sampling(max_tokens=2), ())
            for version, mode in ((1, None), (2, "recompute"), (3, "abort")):
                await asyncio.to_thread(engine.update_weights, version, on_weight_update=mode)
            found = await engine.generate([1], Sampling(max_tokens=2), ())
            told = [await said(server.url) for server in fleet.servers]
            processes = [server.process for server in fleet.servers]
        await fleet.aclose()
        return begun, found, told, processes

    begun, found, told, processes = asyncio.run(main())
    assert (begun.token_ids, begun.policy_version, begun.logprobs) == ((0, 0), (0, 0), (-1.0, -1.0))
    assert (found.token_ids, found.policy_version) == ((3, 3), (3, 3))
    load = "reload_weights"
    assert [one["told"] for one in told] == [
        [
            *("pause wait true", load, "update_weight_version 1", "resume"),
            *("pause keep true", load, "reset_prefix_cache true", "update_weight_version 2", "resume"),
            *("pause abort true", load, "update_weight_version 3", "resume"),
        ]
    ] * 2
    words = told[0]["words"]
    assert words[-2:] == ["--gpu-memory-utilization", "0.6"]
    pairs = dict(itertools.pairwise(words))
    assert (pairs["--logprobs-mode"], pairs["--dtype"], pairs["--max-num-seqs"]) == (
        "processed_logprobs",
        "float32",
        "2",
    )
    assert told[0]["key"]
    assert told[0]["key"] != told[1]["key"]
    assert not any(process.is_alive for process in processes)


def test_other_weights_are_refused_and_the_server_goes_on(tmp_path):
    shapes = [SHAPES]

    async def main():
        fleet = fleet_of(tmp_path, lambda folder, _: write(folder, shapes[0]))
        async with fleet.open() as engine:
            shapes[0] = {name: shape for name, shape in SHAPES.items() if "k.weight" not in name}
            with pytest.raises(TrainingError, match=r"lacks layers\.0\.k\.weight"):
                await asyncio.to_thread(engine.update_weights, 1)
            told = await said(fleet.servers[0].url)
        await fleet.aclose()
        return told["told"], told["paused"]

    assert asyncio.run(main()) == (["pause wait true", "resume"], False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers.0.k.weight": None}, "lacks layers.0.k.weight"),
        ({"layers.0.bias": (4,)}, "has, and this model has not, layers.0.bias"),
        ({"embed.weight": (9, 4)}, "has in another shape embed.weight"),
        (dict.fromkeys(SHAPES), "lacks embed.weight, layers.0.k.weight, layers.0.q.weight"),
        (None, "cannot be read"),
    ],
)
def test_what_a_worker_refuses_before_it_touches_anything(tmp_path, monkeypatch, changed, message):
    """vLLM itself would go on with the old weights, or with a third of a stacked matrix."""
    monkeypatch.setattr(worker, "_EXPECTED", SHAPES)
    folder = write(
        tmp_path / "new", {name: shape for name, shape in {**SHAPES, **(changed or {})}.items() if shape is not None}
    )
    if changed is None:
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", 10**6) + b"{")
    told = worker.FolderWeights().verigym_load(str(folder))  # it has no reload_weights to call
    assert message in told["refused"]


def test_servers_that_run_already(tmp_path):
    """They read new weights by vLLM's own means; those that cannot be used are told what they lack."""

    async def use(url, sizes=SIZES):
        fleet = fleet_of(tmp_path, None, sizes, count=0, python=None, urls=[url], weights=tmp_path / "shared")
        try:
            async with fleet.open() as engine:
                await asyncio.to_thread(engine.update_weights, 4)
                found = await engine.generate([1], Sampling(max_tokens=1), ())
        finally:
            await fleet.aclose()
        return found, (await said(url))["told"]

    async def main(settings, then):
        model = write(tmp_path / f"model-{len(list(tmp_path.iterdir()))}", settings=settings)
        process = VllmProcess(
            sys.executable, model, log=tmp_path / "log", options=["--max-model-len", "64"], cuda=False
        )
        try:
            return await then(await process.url(30))
        finally:
            await process.aclose()

    found, told = asyncio.run(main({}, use))
    assert found.policy_version == (4,)
    assert [line for line in told if line.startswith("reload")] == [
        "reload_weights weights-000001",
        "reload_weights weights-000002",
    ]
    with pytest.raises(ConfigError, match="processed_logprobs"):
        asyncio.run(main({"raw": True}, use))
    with pytest.raises(ConfigError, match="--enable-scale-out"):
        asyncio.run(main({"closed": True}, use))
    longer = Sizes(concurrency=4, max_context=128, request_seconds=30.0)
    with pytest.raises(ConfigError, match="--max-model-len 128"):
        asyncio.run(main({}, lambda url: use(url, longer)))


def test_a_server_ends_with_whoever_started_it(tmp_path):
    """Also one that is killed."""
    model = write(tmp_path / "model")
    script = f"""
        import asyncio, os, signal
        from pathlib import Path
        from verigym.trainer.engines.vllm import VllmProcess

        process = VllmProcess({sys.executable!r}, Path({str(model)!r}), log=Path({str(tmp_path / "log")!r}), cuda=False)
        asyncio.run(process.url(30))
        print(process.process_id, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    server = Path("/proc", done.stdout.strip())
    deadline = time.monotonic() + 10
    while server.exists() and server.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "the server outlives the trainer"
        time.sleep(0.05)


def test_one_that_cannot_start_says_why(tmp_path):
    async def main(python):
        with pytest.raises(PolicyError, match=r"could not start: .*error: argument --port: .*engine-0.log"):
            async with fleet_of(tmp_path, python=python, options=["--port", "nothing"]).open():
                pass

    asyncio.run(main(Path(sys.executable)))


def test_who_has_vllm(tmp_path, monkeypatch):
    assert interpreter(EnginesConfig(kind="vllm", count=1, python=Path(sys.executable))) == sys.executable
    with pytest.raises(ConfigError, match="which is no program"):
        interpreter(EnginesConfig(kind="vllm", count=1, python=tmp_path / "none"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'verigym\[vllm\]'"):
        interpreter(EnginesConfig(kind="vllm", count=1))


class Endpoint:
    """Remembers what it was asked, and answers with what it was given."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def url(self, path):
        return f"http://server{path}"

    async def post(self, path, body, **_):
        self.asked.append((path, body))
        return self.answers.pop(0) if self.answers else {}


def choice(**told):
    whole = {
        "token_ids": [5, 6, 7],
        "logprobs": {"content": [{"token_id": one, "logprob": -float(one)} for one in (5, 6, 7)]},
        "finish_reason": "stop",
        "stop_reason": 7,
        "weight_versions": [{"version": "default", "start": 0, "end": 1}, {"version": "8", "start": 1, "end": 3}],
    }
    return {"choices": [{**whole, **told}]}


def asked_of(answer, sampling=Sampling(max_tokens=3), **own):  # noqa: B008  # it is frozen
    endpoint = Endpoint(answer)
    engine = VllmEngine(endpoint, "policy", 64, 2, **own)  # type: ignore[arg-type]
    return asyncio.run(engine.generate([1, 2], sampling, (9,))), endpoint.asked


def test_each_token_has_the_version_that_vllm_tells():
    found, asked = asked_of(choice(), Sampling(max_tokens=3, seed=4, stop=("x",)), padding=range(10, 12))
    assert (found.token_ids, found.logprobs, found.policy_version) == ((5, 6, 7), (-5.0, -6.0, -7.0), (2, 8, 8))
    assert (found.finish_reason, found.stop_reason) == ("stop", 7)
    ((path, body),) = asked
    assert path == "/inference/v1/generate"
    assert body["sampling_params"] == {
        "max_tokens": 3, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0,
        "stop_token_ids": [9], "ignore_eos": True, "stop": ["x"], "seed": 4, "logprobs": 0, "detokenize": True,
        "logit_bias": {"10": -100.0, "11": -100.0},
    }  # fmt: skip
    assert asked_of(choice(weight_versions=None))[0].policy_version == (2, 2, 2)


@pytest.mark.parametrize(
    "told", [{"logprobs": None}, {"logprobs": {"content": [{"logprob": -1.0}]}}, {"token_ids": None}]
)
def test_an_answer_without_what_training_needs(told):
    with pytest.raises(PolicyError, match="log-probabilities"):
        asked_of(choice(**told))


def test_keys_of_old_weights_are_never_offered():
    engine = VllmEngine(Endpoint(), "policy", 64, 0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="use recompute"):
        asyncio.run(engine.update_weights(1, {"path": "/weights"}, mode="keep"))


def test_a_refusal_lets_the_server_go_on():
    endpoint = Endpoint({}, {"results": [{"tensors": 3}, {"refused": "/weights lacks all"}]})
    engine = VllmEngine(endpoint, "policy", 64, 0, extended=True)  # type: ignore[arg-type]
    with pytest.raises(RequestRefused, match="lacks all"):
        asyncio.run(engine.update_weights(1, {"path": "/weights"}))
    assert [path.partition("?")[0] for path, _ in endpoint.asked] == ["/pause", "/collective_rpc", "/resume"]
    assert engine.policy_version == 0


@pytest.mark.parametrize("answer", [{"results": [None]}, {"results": []}, {}])
def test_a_server_without_our_part_stays_paused(answer):
    endpoint = Endpoint({}, answer)
    engine = VllmEngine(endpoint, "policy", 64, 0, extended=True)  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="collective_rpc"):
        asyncio.run(engine.update_weights(1, {"path": "/weights"}))
    assert endpoint.asked[-1][0] == "/collective_rpc"


def test_a_folder_of_several_files(tmp_path):
    folder = write(tmp_path / "one")
    split = write(tmp_path / "split", {"embed.weight": (8, 4)})
    rest = write(tmp_path / "rest", {name: SHAPES[name] for name in list(SHAPES)[1:]})
    os.rename(rest / "model.safetensors", split / "model-2.safetensors")
    assert worker.difference(split, worker.shapes_in(folder)) is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"engines": {"kind": "vllm", "count": 1}, "rl": {"asynchronous": {}}}, "on_weight_update = 'recompute'"),
        ({"engines": {"count": 1, "python": "python"}}, "are of vLLM servers"),
        ({"engines": {"kind": "vllm", "urls": ["http://a"], "weights": "w", "options": ["-x"]}}, "are of vLLM servers"),
    ],
)
def test_recipes_that_cannot_be(config, message):
    with pytest.raises(ValidationError, match=message):
        Recipe(name="toy", families=[{"name": "sums", "env": "verigym/Math-v0", "tasks": "small-sums"}], **config)
