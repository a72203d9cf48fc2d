# pyright: reportCallIssue=false
# Settings are unpacked as arguments; their number is known to who reads.
import pytest
import torch

from verigym.model.engine.sampler import sample

NUM_DRAWS = 4000
LOGITS = torch.randn(20, generator=torch.Generator().manual_seed(0)) * 2


def _frequencies(temperature: float, top_k: int = 0, top_p: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """(frequency of each token over evenly spread noise, log-probability reported for it)."""
    rows = LOGITS.expand(NUM_DRAWS, -1)
    uniform = (torch.arange(NUM_DRAWS, dtype=torch.float64) + 0.5) / NUM_DRAWS
    settings = (torch.tensor([temperature]), torch.tensor([top_k]), torch.tensor([top_p]))
    token_ids, logprobs = sample(rows, *(x.expand(NUM_DRAWS) for x in settings), uniform)
    reported = torch.full((20,), float("-inf")).scatter_(0, token_ids, logprobs)
    return torch.bincount(token_ids, minlength=20) / NUM_DRAWS, reported


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_draws_follow_the_distribution_they_report(temperature: float) -> None:
    expected = (LOGITS / temperature).softmax(0)
    frequencies, reported = _frequencies(temperature)
    torch.testing.assert_close(frequencies, expected, atol=1.01 / NUM_DRAWS, rtol=0)
    drawn = frequencies > 0
    torch.testing.assert_close(reported[drawn], expected.log()[drawn])


def test_top_k_then_top_p() -> None:
    order = LOGITS.argsort(descending=True)
    weights = LOGITS[order[:4]].softmax(0)
    kept = order[: int((weights.cumsum(0) < 0.8).sum()) + 1]
    assert 1 < len(kept) < 4
    expected = torch.zeros(20).scatter_(0, kept, LOGITS[kept].softmax(0))
    frequencies, reported = _frequencies(1.0, top_k=4, top_p=0.8)
    torch.testing.assert_close(frequencies, expected, atol=1.01 / NUM_DRAWS, rtol=0)
    torch.testing.assert_close(reported, expected.log())


def test_min_p_is_a_share_of_the_likeliest_tokens_probability() -> None:
    chances = LOGITS.softmax(0)
    shares = (chances / chances.max()).sort(descending=True).values
    least = float((shares[2] + shares[3]) / 2)
    kept = (chances >= least * chances.max()).nonzero()[:, 0]
    assert len(kept) == 3
    uniform = (torch.arange(NUM_DRAWS, dtype=torch.float64) + 0.5) / NUM_DRAWS
    ones = torch.ones(NUM_DRAWS)
    rows = LOGITS.expand(NUM_DRAWS, -1)
    drawn, logprobs = sample(rows, ones, torch.zeros(NUM_DRAWS, dtype=torch.int64), ones, uniform, ones * least)
    assert drawn.unique().tolist() == sorted(kept.tolist())
    expected = torch.full((20,), float("-inf")).scatter_(0, kept, LOGITS[kept].log_softmax(0))
    torch.testing.assert_close(logprobs, expected[drawn])


def test_greedy_takes_the_largest_and_scores_it_at_temperature_one() -> None:
    frequencies, reported = _frequencies(0.0, top_k=3, top_p=0.1)
    assert frequencies[LOGITS.argmax()] == 1.0
    assert reported[LOGITS.argmax()] == pytest.approx(float(LOGITS.log_softmax(0).max()))


def test_a_row_ignores_the_settings_of_its_neighbours() -> None:
    uniform = torch.tensor([0.3, 0.3, 0.3], dtype=torch.float64)
    rows = LOGITS.expand(3, -1)
    mixed = sample(rows, torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0, 0, 2]), torch.tensor([1.0, 1.0, 0.9]), uniform)
    alone = sample(rows[1:2], torch.tensor([1.0]), torch.tensor([0]), torch.tensor([1.0]), uniform[1:2])
    assert mixed[0][1] == alone[0][0]
    assert mixed[1][1] == pytest.approx(float(alone[1][0]))


def test_extreme_noise_draws_only_what_has_probability() -> None:
    logits = torch.tensor([[float("-inf"), 0.0, 0.0, float("-inf")]] * 2)
    uniform = torch.tensor([0.0, 1.0 - 2**-53], dtype=torch.float64)
    token_ids, _ = sample(logits, torch.ones(2), torch.zeros(2, dtype=torch.int64), torch.ones(2), uniform)
    assert token_ids.tolist() == [1, 2]
