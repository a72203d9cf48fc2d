"""A real step against a teacher, in a process of its own, needs no more memory than was planned for it."""

import subprocess
import sys

import pytest

from verigym.model.config import DecoderConfig
from verigym.model.divergence import Divergence
from verigym.model.parallel.layout import Layout
from verigym.model.plan.trace import Teaching, trace_step

MIB = 2**20
SETTINGS = {
    "vocab_size": 16384,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_layers": 1,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 16,
    "layer_types": ("full_attention",),
    "sliding_window": 64,
    "max_position_embeddings": 8192,
}
TOKENS = 2048
STEP = f"""
import resource, sys
import torch
from verigym.model.attention import Documents
from verigym.model.config import DecoderConfig
from verigym.model.decoder import Decoder
from verigym.model.divergence import Divergence, TeacherStates, score_against
from verigym.model.parallel.optim import clip_gradients

torch.set_num_threads(1)
config = DecoderConfig(**{SETTINGS!r})
support = None if sys.argv[1] == "None" else int(sys.argv[1])


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()


def step(count):
    ids = torch.randint(0, config.vocab_size, (count,))
    documents = Documents.from_lengths([count])
    decoder, teacher = Decoder(config, seed=0), Decoder(config, seed=1).requires_grad_(False)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-6, fused=True)
    with torch.no_grad():
        hidden, weight = teacher.states(ids, documents)
    against = [(torch.arange(count), TeacherStates(hidden=hidden, weight=weight))]
    divergence = Divergence(beta=0.5, support=support)
    found = score_against(decoder, ids, documents, ids, against, divergence, cached=False)
    (found.divergence + 0.001 * found.entropy + found.logprobs).sum().backward()
    clip_gradients(decoder.parameters(), 1.0)
    optimizer.step()


step(8)  # what libraries load at their first use is no tensor
before = resident()
step({TOKENS})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("support", [None, 32])
def test_a_step_stays_within_its_plan(support: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DecoderConfig(**SETTINGS)  # type: ignore[arg-type]
    teaching = Teaching(divergence=Divergence(beta=0.5, support=support), config=config)
    planned = trace_step(config, Layout(), [TOKENS], teaching=teaching).peak_bytes
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(MIB))  # what is freed is given back
    done = subprocess.run([sys.executable, "-c", STEP, str(support)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 0.6 * planned < int(done.stdout) < planned + 32 * MIB
