"""``verigym debug --check`` with a real checkpoint: right where the model knows a run, marked where it is wrong."""

import asyncio
import io

import pytest

from verigym.__main__ import main
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.trace.run import TraceBox, TraceJob
from verigym.errors import SandboxError
from verigym.model.chat.trace import texts_of_trace
from verigym.model.chat.trace_tokens import TraceFormat
from verigym.model.checkpoint import save_checkpoint
from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.model.tokenizer import train_tokenizer
from verigym.trainer.loops.midtrain import Midtrain, trace_document
from verigym.trainer.recipe.config import MidtrainConfig, OptimConfig

SOURCE = "def f(x):\n    y = x + 2\n    return y\n"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model that knows one run by heart: f(1)."""
    try:
        (run,) = asyncio.run(TraceBox(make_backend("local")).trace([TraceJob(source=SOURCE, call="f(1)")]))
    except SandboxError as error:
        pytest.skip(f"no sandbox works here: {error}")
    tokenizer = train_tokenizer(texts_of_trace(run.trace) * 3, 320)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1}
    layers = ("sliding_attention", "full_attention")
    decoder = Decoder(preset("cwm-tiny", vocab_size=tokenizer.vocab_size, layer_types=layers, **shape), seed=0)
    document = trace_document(run.trace, TraceFormat(tokenizer), context_weight=0.0)
    config = MidtrainConfig(
        batch_tokens=len(document), microbatch_tokens=len(document), max_steps=80, patience=0, context_weight=0.0
    )
    loop = Midtrain(decoder, {"run": [document]}, {"run": 1.0}, config=config, optim=OptimConfig(lr=3e-3))
    losses = []
    loop.run(on_step=lambda step: losses.append(step.metrics["trainer/loss/mean"]))
    assert losses[-1] < 0.05, losses[::10]
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(folder, decoder, tokenizer)
    return folder


def debugged(checkpoint, tmp_path, monkeypatch, capsys, call, typed):
    """(exit status, what was told)."""
    program = tmp_path / "program.py"
    program.write_text(SOURCE)
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    options = ["--policy", f"engine:{checkpoint}", "--check", "--sandbox", "local"]
    status = main(["debug", str(program), "--call", call, *options])
    return status, capsys.readouterr().out


def test_a_run_that_the_model_knows_is_right(checkpoint, tmp_path, monkeypatch, capsys):
    status, told = debugged(checkpoint, tmp_path, monkeypatch, capsys, "f(1)", "s\ns\ns\ns\ns\ns\ns\ns\n")
    assert (status, told.count("wrong")) == (0, 0), told
    assert "return return y -> 3\n  right" in told
    assert "the run is over\n  right" in told


def test_where_the_model_is_wrong_is_marked(checkpoint, tmp_path, monkeypatch, capsys):
    """It was never shown another call, and answers as it knows."""
    status, told = debugged(checkpoint, tmp_path, monkeypatch, capsys, "f(9)", "s\ns\ns\np x\nt\np x\n")
    assert status == 1
    assert "  wrong: " in told
    assert "9" in told.partition("  wrong: ")[2].splitlines()[0], told
