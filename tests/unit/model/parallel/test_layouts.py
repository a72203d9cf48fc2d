"""Every way to split a decoder gives the loss and the gradients of one process."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from verigym.errors import ConfigError
from verigym.model.attention import Documents
from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.model.parallel.layout import Layout, Meshes
from verigym.model.parallel.packs import share_of
from verigym.model.parallel.sharded import shard_decoder
from verigym.model.parallel.views import views

from ..conftest import EVERYTHING, small_config
from .ranks import run_ranks

LENGTHS = [5, 1, 9, 0, 30, 13, 8, 3]  # 69: padded where it is cut; stretches begin in the middle of documents


def make_decoder(everything: bool = False) -> Decoder:
    changes = EVERYTHING if everything else {}
    decoder = Decoder(small_config(num_heads=8, num_kv_heads=4, **changes), seed=1)
    with torch.no_grad():  # sharp distributions and strong attention: errors show
        for parameter in decoder.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.linspace(-0.3, 0.3, parameter.numel()))
            else:
                parameter.mul_(3.0)
    return decoder


def pack(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(ids, targets, weights of the loss, some of them 0), of the lengths above."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 320, (sum(LENGTHS),), generator=generator)
    weights = torch.rand(sum(LENGTHS), generator=generator)
    return ids, ids.roll(-1), torch.where(weights < 0.3, 0.0, weights) / sum(LENGTHS)


def one_process(num_packs: int, everything: bool = False) -> tuple[float, dict[str, Tensor]]:
    decoder = make_decoder(everything)
    total = 0.0
    for seed in range(num_packs):
        ids, targets, weights = pack(seed)
        logprobs, entropy = decoder.score(ids, Documents.from_lengths(LENGTHS), targets, 0.7)
        loss = -(weights * (logprobs + 0.1 * entropy)).sum()
        loss.backward()
        total += loss.item()
    return total, dict(views(decoder, lambda p: p.grad))


def of_rank(rank: int, layout: Layout, everything: bool, folder: str) -> None:
    decoder = make_decoder(everything)
    meshes = Meshes.of(layout, "cpu")
    shard_decoder(decoder, layout, meshes)
    # Data-parallel ranks have packs of their own; the ranks of one pack have stretches of it.
    ids, targets, weights = pack(rank // layout.token_split)
    share = share_of(LENGTHS, layout, meshes)
    logprobs, entropy = decoder.score(share.take(ids), share.documents, share.take(targets), 0.7, cache=share.cache)
    loss = -(share.take(weights) * (logprobs + 0.1 * entropy)).sum()
    loss.backward()
    total = loss.detach().clone()
    dist.all_reduce(total)
    grads = {name: grad.full_tensor() for name, grad in views(decoder, lambda p: p.grad)}  # type: ignore[attr-defined]
    if rank == 0:
        torch.save((total.item(), grads), f"{folder}/found.pt")


slow = pytest.mark.slow

LAYOUTS = [
    pytest.param(Layout(shard=2, recompute="full"), id="fsdp2-full"),
    pytest.param(Layout(tensor=2), id="tp2-sp"),
    pytest.param(Layout(context=2, recompute="selective"), id="cp2-selective"),
    pytest.param(Layout(replicate=2), id="ddp2", marks=slow),
    pytest.param(Layout(shard=2, tensor=2, recompute="full", offload=True), id="fsdp2-tp2-full-offload", marks=slow),
    pytest.param(Layout(replicate=2, shard=2), id="hsdp2x2", marks=slow),
    pytest.param(Layout(context=2, tensor=2, recompute="full"), id="cp2-tp2", marks=slow),
    pytest.param(Layout(shard=2, context=2, offload=True), id="fsdp2-cp2-offload", marks=slow),
    pytest.param(Layout(context=4), id="cp4", marks=slow),
    pytest.param(Layout(tensor=4), id="tp4", marks=slow),
]


@pytest.mark.parametrize("everything", [False, pytest.param(True, id="all families")])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_and_gradients_are_those_of_one_process(layout: Layout, everything: bool, tmp_path: Path) -> None:
    run_ranks(of_rank, tmp_path, layout.num_ranks, layout, everything)
    loss, grads = torch.load(tmp_path / "found.pt", weights_only=True)
    expected_loss, expected = one_process(layout.replicate * layout.shard, everything)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert grads.keys() == expected.keys()
    for name, grad in expected.items():
        largest = grad.abs().max().item()
        torch.testing.assert_close(grads[name], grad, rtol=1e-5, atol=1e-5 * largest, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout(tensor=16), "num_kv_heads 8 cannot be split 16 ways; choose tensor"),
        (Layout(tensor=5), "num_heads 48 cannot be split 5 ways; choose tensor"),
        (Layout(shard=25), "hidden_size 6144 cannot be split 25 ways; choose shard x context"),
    ],
)
def test_what_cannot_be_split_is_named(layout: Layout, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        layout.check(preset("cwm-32b"))


def test_a_document_beyond_the_context_is_refused() -> None:
    Layout().check(preset("cwm-32b"), 131_072)
    with pytest.raises(ConfigError, match="131073 tokens is beyond the model's 131072"):
        Layout().check(preset("cwm-32b"), 131_073)


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="tensor is 0"):
        Layout(tensor=0)
    with pytest.raises(ConfigError, match="'some'"):
        Layout(recompute="some")  # type: ignore[arg-type]
