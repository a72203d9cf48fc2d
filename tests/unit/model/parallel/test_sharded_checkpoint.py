"""Training states cross from 2 ranks to 1 to 4; weights of every format load straight into shards."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from verigym.errors import CheckpointError
from verigym.model.checkpoint import load_checkpoint, save_checkpoint, to_hf_state
from verigym.model.decoder import Decoder
from verigym.model.parallel.checkpoint import load_into_shards, load_state, save_state
from verigym.model.parallel.layout import Layout, Meshes
from verigym.model.parallel.optim import clip_gradients
from verigym.model.parallel.packs import share_of
from verigym.model.parallel.sharded import shard_decoder
from verigym.model.parallel.views import views
from verigym.model.tokenizer import Tokenizer
from verigym.model.weights.convert import convert

from ..conftest import small_config
from .ranks import run_ranks
from .test_layouts import LENGTHS, make_decoder, pack


def train(
    decoder: Decoder, optimizer: torch.optim.Optimizer, layout: Layout, meshes: Meshes, seeds: range
) -> list[tuple[float, float]]:
    """(loss, norm of the gradient) of one update for each seed, all ranks on the same pack."""
    found = []
    ranks_alike = layout.replicate * layout.shard
    for seed in seeds:
        ids, targets, weights = pack(seed)
        share = share_of(LENGTHS, layout, meshes)
        logprobs, _ = decoder.score(share.take(ids), share.documents, share.take(targets), cache=share.cache)
        loss = -(share.take(weights) * logprobs).sum() / ranks_alike
        optimizer.zero_grad()
        loss.backward()
        norm = clip_gradients(decoder.parameters(), 0.5)
        optimizer.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        found.append((total.item(), norm.item()))
    return found


def part_of_a_run(rank: int, layout: Layout, seeds: range, before: str, after: str, folder: str) -> None:
    decoder = make_decoder()
    meshes = Meshes.of(layout, "cpu")
    shard_decoder(decoder, layout, meshes)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-3, fused=True)
    if before:
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.zero_()
        load_state(f"{folder}/{before}", decoder, optimizer)
    found = train(decoder, optimizer, layout, meshes, seeds)
    if after:
        save_state(f"{folder}/{after}", decoder, optimizer)
    if rank == 0:
        torch.save(found, f"{folder}/losses-{seeds.start}-{seeds.stop}.pt")


@pytest.mark.slow
def test_a_run_goes_on_from_two_ranks_on_one_and_on_four(tmp_path: Path) -> None:
    run_ranks(part_of_a_run, tmp_path, 1, Layout(), range(4), "", "")
    run_ranks(part_of_a_run, tmp_path, 2, Layout(tensor=2), range(2), "", "two")
    run_ranks(part_of_a_run, tmp_path, 1, Layout(), range(2, 3), "two", "three")
    run_ranks(part_of_a_run, tmp_path, 4, Layout(shard=2, tensor=2), range(3, 4), "three", "four")
    expected = torch.load(tmp_path / "losses-0-4.pt")
    found = [row for name in ("0-2", "2-3", "3-4") for row in torch.load(tmp_path / f"losses-{name}.pt")]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-5, atol=0.0)
    assert expected[0][0] != expected[1][0]
    weights = load_into_one(tmp_path / "four")
    assert all(bool(value.isfinite().all()) for value in weights.values())


def load_into_one(folder: Path) -> dict[str, torch.Tensor]:
    decoder = make_decoder()
    load_into_shards(folder, decoder)
    return to_hf_state(decoder)


def loading(rank: int, layout: Layout, folder: str) -> None:
    expected = to_hf_state(load_checkpoint(f"{folder}/hf")[0])
    for name in ("hf", "dcp"):
        with torch.device("meta"):
            decoder = Decoder(small_config(num_heads=8, num_kv_heads=4))
        shard_decoder(decoder, layout, Meshes.of(layout, "cpu"))
        decoder.to_empty(device="cpu")
        load_into_shards(f"{folder}/{name}", decoder)
        for key, view in views(decoder):
            assert torch.equal(view.full_tensor(), expected[key]), (name, key)  # type: ignore[attr-defined]
    broken = Path(folder) / "hf" / "model.safetensors"
    whole = broken.read_bytes()
    dist.barrier()
    if rank == 0:
        broken.write_bytes(whole[:-4])
    dist.barrier()
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        load_into_shards(f"{folder}/hf", decoder)


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(Layout(tensor=2), id="tp2"),
        pytest.param(Layout(shard=2, tensor=2), id="fsdp2-tp2", marks=pytest.mark.slow),
    ],
)
def test_both_formats_load_into_shards(layout: Layout, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "hf", make_decoder(), tokenizer)
    convert(tmp_path / "hf", tmp_path / "dcp", to="dcp")
    run_ranks(loading, tmp_path, layout.num_ranks, layout)
