"""Over 50,000 draws tokens come as often as the distribution says, with the noise that requests of these seeds get."""

import numpy as np
import pytest
import torch

from verigym.model.engine.rows import noise_of
from verigym.model.engine.sampler import sample

NUM_DRAWS = 50_000
LOGITS = torch.randn(24, generator=torch.Generator().manual_seed(3)) * 1.5


def _filtered(temperature: float, top_k: int, top_p: float, min_p: float) -> torch.Tensor:
    """The distribution by its definition, one token after the other."""
    order = LOGITS.argsort(descending=True).tolist()
    p = (LOGITS.double() / temperature).softmax(0)
    kept = order[:top_k] if top_k else order
    whole, mass, nucleus = float(p[kept].sum()), 0.0, []
    for token in kept:
        if mass >= top_p * whole:
            break
        nucleus.append(token)
        mass += float(p[token])
    kept = [token for token in nucleus if p[token] >= min_p * p.max()]
    out = torch.zeros(24, dtype=torch.float64)
    out[kept] = p[kept] / p[kept].sum()
    return out


def _p_value(observed: torch.Tensor, expected: torch.Tensor) -> float:
    """Of Pearson's chi-square test."""
    drawn = expected > 0
    statistic = ((observed - expected)[drawn] ** 2 / expected[drawn]).sum()
    freedom = torch.tensor((int(drawn.sum()) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic / 2))


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return torch.from_numpy(np.array([noise_of(seed, 1)[0] for seed in range(NUM_DRAWS)]))


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        pytest.param(1.0, 0, 1.0, 0.0, id="plain"),
        pytest.param(0.6, 0, 1.0, 0.0, id="temperature"),
        pytest.param(1.3, 0, 1.0, 0.0, id="hot"),
        pytest.param(1.0, 7, 1.0, 0.0, id="top-k"),
        pytest.param(1.0, 0, 0.8, 0.0, id="top-p"),
        pytest.param(1.0, 0, 1.0, 0.1, id="min-p"),
        pytest.param(0.8, 12, 0.9, 0.05, id="all"),
    ],
)
def test_draws_pass_a_chi_square_test(
    noise: torch.Tensor, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    settings = (
        torch.full((NUM_DRAWS,), temperature),
        torch.full((NUM_DRAWS,), top_k),
        torch.full((NUM_DRAWS,), top_p),
        noise,
        torch.full((NUM_DRAWS,), min_p),
    )
    drawn, logprobs = sample(LOGITS.expand(NUM_DRAWS, -1), *settings)
    exact = _filtered(temperature, top_k, top_p, min_p)
    observed = torch.bincount(drawn, minlength=24).double()
    assert not observed[exact == 0].any(), "a token was drawn that the settings leave out"
    assert _p_value(observed, exact * NUM_DRAWS) > 1e-3  # the seeds are fixed: no chance failure
    torch.testing.assert_close(logprobs.double(), exact[drawn].log(), atol=1e-5, rtol=0)
    wrong = (LOGITS.double() / (temperature * 1.1)).softmax(0)
    wrong = torch.where(exact > 0, wrong, 0.0)
    assert _p_value(observed, wrong / wrong.sum() * NUM_DRAWS) < 1e-6, "the test would not see a wrong temperature"
