"""What documents share is computed once on every rank, and trains what one process trains from flat packs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from verigym.errors import ConfigError
from verigym.model.huggingface import HuggingFaceDecoder
from verigym.model.parallel.layout import Layout
from verigym.trainer.batching import sharing
from verigym.trainer.batching.documents import Document
from verigym.trainer.batching.packs import pack
from verigym.trainer.batching.sharing import SharedPack, shared_pack
from verigym.trainer.learning.experience import annotate
from verigym.trainer.learning.learner import Learner, Learning, Lesson, sharing_of
from verigym.trainer.recipe.algorithms import GSPOConfig, KLConfig, PPOConfig, RLConfig

from .ranks import run_team
from .test_identity import PLAIN, check_same, make_decoder


def groups() -> list[Document]:
    """Three groups of a prompt each, with branches that part later."""
    rng = np.random.default_rng(1)
    made = []
    for _ in range(3):
        prompt = rng.integers(0, 300, 14)
        for length in (6, 9, 3, 12):
            ids = np.concatenate([prompt, rng.integers(0, 300, length)])
            if made and length == 3:
                ids = np.concatenate([made[-1].token_ids[:18], ids[14:]])
            mask = np.arange(len(ids) - 1) >= 13
            made.append(
                Document(
                    token_ids=ids[:-1],
                    targets=ids[1:],
                    loss_mask=mask,
                    old_logprobs=np.where(mask, -5.7, np.nan).astype(np.float32),
                    advantage=float(rng.standard_normal()),
                    weight=0.5,
                    columns={"returns": rng.standard_normal(len(mask)).astype(np.float32)},
                )
            )
    return made


def one_step(learning: Learning, rl: RLConfig) -> dict[str, Any]:
    ways, share = learning.ways, learning.share
    assert share == rl.share_prefixes
    given = annotate(groups(), rl, learning.columns, ways=ways, share=share)
    packs = pack(given, max_tokens=rl.microbatch_tokens, ways=ways, share=share)
    assert all(one.share == share for one in packs)
    if ways > 1:
        assert len(packs) % ways == 0
    metrics = learning.step(packs)
    learning.sync()
    return {"metrics": metrics, "state": learning.state_dict()}


def by_team(team: Any, lesson: Lesson) -> dict[str, Any]:
    assert lesson.rl is not None
    decoder, sizes = make_decoder(), []

    def counted(token_ids: Tensor, *rest: Any) -> SharedPack | None:
        found = shared_pack(token_ids, *rest)
        sizes.append((token_ids.numel(), None if found is None else found.token_ids.numel()))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "shared_pack", counted)
        found = one_step(team.learning(decoder, lesson), lesson.rl) | {"weights": decoder.state_dict()}
    assert len(sizes) >= 2  # before the step and in it, of rank 0
    assert all(computed is not None and computed < 0.8 * given for given, computed in sizes), sizes
    return found


LESSONS = {
    "kl": GSPOConfig(clip_low=0.2, clip_high=0.2, kl=KLConfig(coef=0.1), microbatch_tokens=70),
    "ppo": PPOConfig(microbatch_tokens=70),
}


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        pytest.param(Layout(shard=2), "kl", id="shard2-kl"),
        pytest.param(Layout(replicate=2), "ppo", id="replicate2-ppo"),
    ],
)
def test_two_ranks_equal_one_process(layout: Layout, name: str, tmp_path: Path) -> None:
    rl, decoder = LESSONS[name], make_decoder()
    flat = Lesson(optim=PLAIN, rl=rl)
    expected = one_step(Learner(decoder, flat), rl) | {"weights": decoder.state_dict()}
    assert expected["metrics"]["grad_norm"] > 0.1
    shared = Lesson(optim=PLAIN, rl=rl.model_copy(update={"share_prefixes": "on"}))
    check_same(run_team(by_team, tmp_path, layout, shared), expected)


def test_what_cannot_share_says_so() -> None:
    decoder, on = make_decoder(), GSPOConfig(share_prefixes="on")
    assert sharing_of(on, decoder) == "on"
    with pytest.raises(ConfigError, match=r"2 ranks split the tokens of a pack .* set it to 'auto' or 'off'"):
        sharing_of(on, decoder, 2)
    with pytest.raises(ConfigError, match="the model is a HuggingFaceDecoder, whose attention takes no tree"):
        sharing_of(on, HuggingFaceDecoder.__new__(HuggingFaceDecoder))
    auto = on.model_copy(update={"share_prefixes": "auto"})
    assert [sharing_of(auto, decoder, split) for split in (1, 2)] == ["auto", "off"]
