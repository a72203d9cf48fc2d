"""Whatever ranks, packs and microbatches: the gradients, metrics and weights of one process."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from verigym.model.config import DecoderConfig
from verigym.model.decoder import Decoder
from verigym.model.parallel.layout import Layout
from verigym.trainer.batching.documents import Document
from verigym.trainer.batching.packs import join, pack
from verigym.trainer.learning.experience import annotate
from verigym.trainer.learning.learner import Learner, Learning, Lesson
from verigym.trainer.recipe.algorithms import DrGRPOConfig, GRPOConfig, GSPOConfig, KLConfig, PPOConfig, RLConfig
from verigym.trainer.recipe.config import OptimConfig

from .ranks import run_team

# With a first beta of 0 the first moment is the gradient, after clipping. A large eps: AdamW divides a gradient by its
# own size, and of one that is nothing but rounding it would make a whole step.
PLAIN = OptimConfig(lr=1e-2, betas=(0.0, 0.95), eps=1e-3, grad_clip=0.0, weight_decay=0.1)
CLIPPED = PLAIN.model_copy(update={"grad_clip": 0.05})


def make_decoder() -> Decoder:
    config = DecoderConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        layer_types=("sliding_attention", "full_attention"),
        sliding_window=4,
        max_position_embeddings=256,
    )
    return Decoder(config, seed=3)


def documents() -> list[Document]:
    """Nine documents of ragged lengths and weights; in one a single token is trained, in one none."""
    rng = np.random.default_rng(0)
    made = []
    for index, length in enumerate([17, 3, 9, 6, 1, 12, 5, 8, 24]):
        mask = rng.random(length) < 0.6
        mask[-1] = True
        if index in (3, 8):
            mask[:] = False
        mask[0] |= index == 8
        made.append(
            Document(
                token_ids=rng.integers(0, 300, length),
                targets=rng.integers(0, 300, length),
                loss_mask=mask,
                old_logprobs=np.where(mask, -5.7 + 0.3 * rng.standard_normal(length), np.nan).astype(np.float32),
                advantage=float(rng.standard_normal()),
                weight=float(1 / (1 + index)),
                columns={"returns": rng.standard_normal(length).astype(np.float32)},
            )
        )
    return made


def observed(document: Document) -> dict[str, np.ndarray]:
    """Observations that are learned, at a temperature of 1, beside tokens sampled at another."""
    mask = document.loss_mask
    return {
        "echo": np.where(mask, 0.0, 0.3).astype(np.float32),
        "temperature": np.where(mask, 0.7, 1.0).astype(np.float32),
    }


def one_step(learning: Learning, rl: RLConfig | None, max_tokens: int) -> dict[str, Any]:
    """What an update brings: metrics, gradients (see PLAIN), and the held-out loss before."""
    ways, given = learning.ways, documents()
    if rl is not None:
        given = annotate(
            given, rl.model_copy(update={"microbatch_tokens": max(24, max_tokens)}), learning.columns, ways=ways
        )
    if rl is not None and rl.echo:
        given = [replace(one, columns={**one.columns, **observed(one)}) for one in given]
    # 0: each document for itself.
    packs = pack(given, max_tokens=max_tokens, ways=ways) if max_tokens else [join([one]) for one in given]
    before = learning.mean_loss(packs) if rl is None else 0.0
    divisor = 100.0 if isinstance(rl, DrGRPOConfig) else None
    metrics = learning.step(packs, divisor=divisor)
    learning.sync()
    return {"before": before, "metrics": metrics, "state": learning.state_dict()}


def by_team(team, lesson: Lesson, sizes: list[int]) -> list[dict[str, Any]]:
    found = []
    for size in sizes:
        decoder = make_decoder()
        found.append(one_step(team.learning(decoder, lesson), lesson.rl, size) | {"weights": decoder.state_dict()})
    return found


def alone(lesson: Lesson) -> dict[str, Any]:
    decoder = make_decoder()
    return one_step(Learner(decoder, lesson), lesson.rl, 256) | {"weights": decoder.state_dict()}


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {key: value for name, inner in tree.items() for key, value in flat(inner, f"{prefix}/{name}").items()}


def check_same(found: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-6) -> None:
    mine, theirs = flat(found), flat(expected)
    assert mine.keys() == theirs.keys()
    for name, wanted in theirs.items():
        if isinstance(wanted, torch.Tensor):
            torch.testing.assert_close(
                mine[name], wanted, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )
        else:
            assert mine[name] == pytest.approx(wanted, rel=1e-5, abs=1e-6), name


TWO = {"shard2": Layout(shard=2), "tp2": Layout(tensor=2), "cp2": Layout(context=2)}
FOUR = {
    "shard4": Layout(shard=4),
    "shard2-tp2": Layout(shard=2, tensor=2),
    "replicate2-shard2": Layout(replicate=2, shard=2),
    "cp2-tp2": Layout(context=2, tensor=2),
}
GRPO = GRPOConfig(entropy_coef=0.01)
KL = GSPOConfig(clip_low=0.2, clip_high=0.2, kl=KLConfig(coef=0.1))  # ratios of whole sequences, which ranks share


def layouts(*, four: bool = True) -> list[Any]:
    slow = [pytest.param(layout, id=name, marks=pytest.mark.slow) for name, layout in FOUR.items()]
    return [*(pytest.param(layout, id=name) for name, layout in TWO.items()), *(slow if four else [])]


@pytest.mark.parametrize("layout", layouts())
def test_gradients_do_not_depend_on_ranks_packing_and_microbatches(layout: Layout, tmp_path: Path) -> None:
    """One pack (a rank has none), several (a rank has fewer), and each document for itself."""
    lesson = Lesson(optim=PLAIN, rl=GRPO)
    expected = alone(lesson)
    assert expected["metrics"]["grad_norm"] > 0.1
    sizes = [256, 30, 0]
    for size, found in zip(sizes, run_team(by_team, tmp_path, layout, lesson, sizes), strict=True):
        for one in found["state"]["optimizer"]["adamw"].values():
            assert one["exp_avg"].abs().max() > 1e-5, size
        check_same(found, expected)


@pytest.mark.parametrize(
    "layout", [pytest.param(Layout(tensor=2), id="tp2"), pytest.param(Layout(shard=2), id="shard2")]
)
def test_muon_updates_whole_matrices_whatever_splits_them(layout: Layout, tmp_path: Path) -> None:
    """Momentum to 1e-6. Muon makes it orthogonal in bfloat16, which makes large what was rounding in directions that
    hardly any gradient has: steps are the same to a few hundredths of their size."""
    lesson = Lesson(optim=PLAIN.model_copy(update={"matrices": "muon", "muon_lr": 1e-2}))
    start, expected = make_decoder().state_dict(), alone(lesson)
    [found] = run_team(by_team, tmp_path, layout, lesson, [30])
    for name, before in start.items():
        step, wanted = found["weights"].pop(name) - before, expected["weights"].pop(name) - before
        if name in expected["state"]["optimizer"]["muon"]:
            assert wanted.square().mean().sqrt() > 1e-3
            assert (step - wanted).norm() < 0.05 * wanted.norm()
        else:
            torch.testing.assert_close(step, wanted, rtol=1e-6, atol=1e-6)
    assert len(expected["state"]["optimizer"]["muon"]) == 8
    check_same(found, expected)


@pytest.mark.parametrize(
    ("layout", "lesson"),
    [
        pytest.param(Layout(tensor=2), Lesson(optim=CLIPPED, rl=KL), id="tp2-sequences-kl-clipped"),
        pytest.param(Layout(context=2), Lesson(optim=CLIPPED, rl=PPOConfig()), id="cp2-ppo-head"),
        pytest.param(Layout(shard=2), Lesson(optim=CLIPPED), id="shard2-supervised"),
        pytest.param(Layout(tensor=2), Lesson(optim=PLAIN, rl=GRPOConfig(echo={"tool": 0.3})), id="tp2-echo"),
        pytest.param(
            Layout(shard=2),
            Lesson(optim=PLAIN, rl=DrGRPOConfig(length=100)),
            id="shard2-divisor",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Layout(shard=2, tensor=2),
            Lesson(optim=CLIPPED, rl=PPOConfig(critic={"kind": "model", "optim": CLIPPED})),  # type: ignore[arg-type]
            id="shard2-tp2-ppo-model",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Layout(replicate=2, context=2), Lesson(optim=CLIPPED, rl=KL), id="replicate2-cp2", marks=pytest.mark.slow
        ),
    ],
)
def test_every_kind_of_loss_and_the_global_norm(layout: Layout, lesson: Lesson, tmp_path: Path) -> None:
    expected = alone(lesson)
    if lesson.optim == CLIPPED:
        assert expected["metrics"]["grad_norm"] > 2 * CLIPPED.grad_clip
    for found in run_team(by_team, tmp_path, layout, lesson, [30]):
        check_same(found, expected)


def test_bfloat16_computes_and_float32_is_updated(tmp_path: Path) -> None:
    """On one rank, where the layout says no more than how to compute."""
    lesson = Lesson(optim=PLAIN, rl=GRPO)
    expected = alone(lesson)
    [found] = run_team(by_team, tmp_path, Layout(bf16=True, recompute="full"), lesson, [256])
    name = "layers.0.mlp.down.weight"
    mine, theirs = (one["state"]["optimizer"]["adamw"][name]["exp_avg"] for one in (found, expected))
    assert mine.dtype == found["weights"][name].dtype == torch.float32
    assert not torch.equal(mine, theirs)
    assert torch.nn.functional.cosine_similarity(mine.flatten(), theirs.flatten(), dim=0) > 0.99


def kept_by(learning: Learning) -> list[dict[str, Any]]:
    """What is found at the tokens of every other document, by document."""
    given = [
        replace(one, columns={**one.columns, "kept": np.full(len(one), index if index % 2 else 0, np.float32)})
        for index, one in enumerate(documents())
    ]
    learning.step(pack(given, max_tokens=30, ways=learning.ways))
    found: dict[int, dict[str, Any]] = {}
    for one in learning.take_kept():
        for number in one["document"].unique().tolist():
            mine = one["document"] == number
            found[int(number)] = {name: value[mine] for name, value in one.items()}
    assert learning.take_kept() == []
    return [found[number] for number in sorted(found)]


def kept_by_team(team, lesson: Lesson) -> list[dict[str, Any]]:
    return kept_by(team.learning(make_decoder(), lesson))


@pytest.mark.parametrize("layout", [pytest.param(layout, id=name) for name, layout in TWO.items()])
def test_what_is_kept_of_a_token_comes_once_from_whichever_rank_had_it(layout: Layout, tmp_path: Path) -> None:
    lesson = Lesson(optim=PLAIN, rl=GRPO)
    expected = kept_by(Learner(make_decoder(), lesson))
    assert [len(one["entropy"]) for one in expected] == [
        int(one.loss_mask.sum()) for one in documents()[1::2] if one.loss_mask.any()
    ]
    found = run_team(kept_by_team, tmp_path, layout, lesson)
    assert len(found) == len(expected)
    for mine, wanted in zip(found, expected, strict=True):
        assert mine.keys() == wanted.keys() >= {"document", "trainer_logprobs", "entropy", "ratio", "clipped"}
        for name, value in wanted.items():
            torch.testing.assert_close(mine[name], value, rtol=1e-5, atol=1e-5)
