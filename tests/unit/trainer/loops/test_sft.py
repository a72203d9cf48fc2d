import random

import pytest
import torch

from verigym.errors import ConfigError
from verigym.trainer.loops.loop import SFT
from verigym.trainer.recipe.config import OptimConfig, SFTConfig

NAN = float("nan")
OPTIM = OptimConfig(lr=3e-3, warmup_steps=2)


@pytest.fixture
def demonstrations(make_segment, make_trajectory):
    """Counting up by a step that the prompt tells: predictable, but only by reading it."""
    rng = random.Random(0)
    found = []
    for _ in range(24):
        start, stride, length = rng.randrange(50), rng.randrange(1, 4), rng.randrange(5, 12)
        ids = [100 + stride, *[start + stride * i for i in range(length)]]
        mask = [0, 0] + [1] * (length - 1)
        found.append(make_trajectory(make_segment(ids, mask, [NAN] * len(ids), version=-1)))
    return found


def config(**changes):
    return SFTConfig(**{"max_steps": 12, "batch_tokens": 64, "microbatch_tokens": 32, "patience": 0, **changes})


def test_it_learns_what_is_demonstrated(make_decoder, demonstrations):
    losses = []
    trainer = SFT(make_decoder(), demonstrations, config=config(max_steps=60), optim=OPTIM)
    trainer.run(on_step=lambda result: losses.append(result.metrics["trainer/loss/mean"]))
    assert losses[0] == pytest.approx(5.7, abs=0.1)  # log 300
    assert losses[-1] < 2.5
    assert trainer.finished


def test_a_plateau_of_the_held_out_loss_ends_it(make_decoder, demonstrations, make_segment, make_trajectory):
    held_out = [make_trajectory(make_segment([7, 299, 298], [0, 1, 1]))]  # tokens that nobody demonstrates
    settings = config(max_steps=30, eval_every=2, patience=2, min_delta=10.0)
    trainer = SFT(make_decoder(), demonstrations, config=settings, optim=OPTIM, held_out=held_out)
    measured = []
    trainer.run(on_step=lambda result: measured.append(result.metrics.get("trainer/held_out_loss/mean")))
    # the first measure is better than none, the next two are not better by 10 nats
    assert trainer.plateaued
    assert [value is not None for value in measured] == [False, True] * 3


@pytest.mark.parametrize(
    ("limits", "seconds", "steps"), [({"max_steps": 3}, None, 3), ({"epochs": 2.0}, None, None), ({}, 0.0, 0)]
)
def test_it_ends_where_it_is_told_to(make_decoder, demonstrations, limits, seconds, steps):
    trainer = SFT(
        make_decoder(), demonstrations, config=config(**{"max_steps": None, "epochs": 9.0, **limits}), optim=OPTIM
    )
    trainer.run(seconds=seconds)
    if steps is None:
        assert trainer.state_dict()["cursor"]["epoch"] == 2
    else:
        assert trainer.num_steps == steps


def test_stop_ends_it_between_steps(make_decoder, demonstrations):
    trainer = SFT(make_decoder(), demonstrations, config=config(), optim=OPTIM)
    trainer.run(on_step=lambda result: trainer.stop() if result.step == 2 else None)
    assert trainer.num_steps == 2


def test_bad_input_is_refused_before_the_first_step(make_decoder, demonstrations, make_segment, make_trajectory):
    with pytest.raises(ConfigError, match="set patience = 0"):
        SFT(make_decoder(), demonstrations, config=config(patience=3), optim=OPTIM)
    with pytest.raises(ValueError, match="no demonstration"):
        SFT(make_decoder(), [], config=config(), optim=OPTIM)
    long = make_trajectory(make_segment(range(40), [0] + [1] * 39))
    with pytest.raises(ValueError, match="raise microbatch_tokens"):
        SFT(make_decoder(), [*demonstrations, long], config=config(), optim=OPTIM)


def test_a_resumed_run_repeats_the_losses_of_an_uninterrupted_one(make_decoder, demonstrations):
    def run(trainer, until):
        losses = []
        while trainer.num_steps < until:
            losses.append(trainer.step().metrics["trainer/loss/mean"])
        return losses

    settings = config(max_steps=100, eval_every=3, patience=3)
    optim = OptimConfig(lr=3e-3, warmup_steps=7, schedule="cosine", total_steps=20)
    held_out = demonstrations[:3]
    whole = SFT(make_decoder(), demonstrations, config=settings, optim=optim, held_out=held_out, seed=5)
    expected = run(whole, 16)

    first = SFT(make_decoder(), demonstrations, config=settings, optim=optim, held_out=held_out, seed=5)
    losses = run(first, 8)
    decoder = make_decoder()
    second = SFT(decoder, demonstrations, config=settings, optim=optim, held_out=held_out, seed=5)
    decoder.load_state_dict(first.decoder.state_dict())
    second.load_state_dict(first.state_dict())
    losses += run(second, 16)
    assert losses == expected
    assert second.best_loss == whole.best_loss
    assert all(torch.equal(a, b) for a, b in zip(second.decoder.parameters(), whole.decoder.parameters(), strict=True))


def test_a_resume_knows_the_best_loss_and_how_often_it_was_missed(make_decoder, demonstrations):
    settings = config(max_steps=100, eval_every=1, patience=9, min_delta=10.0)
    first, second = (
        SFT(make_decoder(), demonstrations, config=settings, optim=OPTIM, held_out=demonstrations[:3]) for _ in range(2)
    )
    for _ in range(3):
        first.step()
    assert first.best_loss < 10.0
    assert first.state_dict()["num_worse"] == 2
    second.load_state_dict(first.state_dict())
    assert second.best_loss == first.best_loss
    assert second.state_dict()["num_worse"] == 2


def test_a_resume_goes_on_with_the_random_numbers_of_then(make_decoder, demonstrations):
    trainer = SFT(make_decoder(), demonstrations, config=config(), optim=OPTIM)
    torch.manual_seed(5)
    state = trainer.state_dict()
    expected = torch.rand(3)
    torch.manual_seed(6)
    trainer.load_state_dict(state)
    assert torch.equal(torch.rand(3), expected)
