import copy
import math

import pytest
import torch

from verigym.trainer.learning.optim import Optimizer, learning_rate
from verigym.trainer.recipe.config import OptimConfig


def test_learning_rates_are_exact():
    constant = OptimConfig(lr=1.0, warmup_steps=4)
    assert [learning_rate(constant, step) for step in (0, 1, 3, 4, 99)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    cosine = OptimConfig(lr=1.0, warmup_steps=2, schedule="cosine", total_steps=12, min_lr_ratio=0.1)
    found = [learning_rate(cosine, step) for step in (0, 1, 2, 7, 12, 50)]
    assert found == pytest.approx([0.5, 1.0, 1.0, 0.55, 0.1, 0.1])


def test_updates_equal_a_reference_and_norms_do_not_decay():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False), torch.nn.LayerNorm(2))
    optimizer = Optimizer(model, OptimConfig(lr=0.1, weight_decay=0.5, grad_clip=0.0))
    matrix, norm = model[0].weight, model[1].weight
    before = matrix.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.update()
    torch.testing.assert_close(matrix, before * (1 - 0.1 * 0.5))
    assert torch.equal(norm, torch.ones(2))


def test_a_gradient_is_clipped_by_its_global_norm():
    model = torch.nn.Linear(2, 1)
    optimizer = Optimizer(model, OptimConfig(lr=0.1, grad_clip=1.0, warmup_steps=2))
    model.weight.grad, model.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    metrics = optimizer.update()
    assert metrics == {"grad_norm": 5.0, "lr": 0.05, "skipped": 0.0}
    moment = optimizer.state_dict()["adamw"]["weight"]["exp_avg"]
    torch.testing.assert_close(moment, torch.tensor([[0.6 * 0.1, 0.0]]))
    assert model.weight.grad is None


def test_a_gradient_that_is_not_finite_changes_nothing():
    model = torch.nn.Linear(2, 1)
    optimizer = Optimizer(model, OptimConfig())
    before = model.weight.detach().clone()
    model.weight.grad, model.bias.grad = torch.tensor([[math.nan, 0.0]]), torch.tensor([1.0])
    assert optimizer.update()["skipped"] == 1.0
    assert torch.equal(model.weight, before)
    assert optimizer.state_dict()["adamw"] == {}


def test_a_state_of_another_shape_is_refused():
    model = torch.nn.Linear(2, 1)
    optimizer = Optimizer(model, OptimConfig())
    model.weight.grad, model.bias.grad = torch.ones(1, 2), torch.ones(1)
    optimizer.update()
    with pytest.raises(ValueError, match="shape"):
        Optimizer(torch.nn.Linear(3, 1), OptimConfig()).load_state_dict(optimizer.state_dict())


def test_muon_takes_the_layers_matrices_alone_and_its_state_goes_on():
    def model():
        torch.manual_seed(0)
        parts = {"embed": torch.nn.Embedding(5, 4), "layer": torch.nn.Linear(4, 4), "head": torch.nn.Linear(4, 5)}
        return torch.nn.ModuleDict(parts)

    def update(optimizer, parts):
        for parameter in parts.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=noise)
        optimizer.update()

    noise = torch.Generator().manual_seed(1)
    config = OptimConfig(matrices="muon", lr=0.01, muon_lr=0.02)
    first = model()
    optimizer = Optimizer(first, config)
    before = {name: parameter.detach().clone() for name, parameter in first.named_parameters()}
    update(optimizer, first)
    steps = {name: (parameter.detach() - before[name]) for name, parameter in first.named_parameters()}
    # AdamW's first step is lr in every entry; Muon's is a nearly orthogonal matrix of about the same size.
    for name in ("embed.weight", "head.weight", "layer.bias"):
        torch.testing.assert_close(steps[name].abs(), torch.full_like(steps[name], 0.01), rtol=1e-3, atol=0)
    singular = torch.linalg.svdvals(steps["layer.weight"])
    assert singular.max() / singular.min() < 3
    assert 0.2 * 0.02 * 0.6 < steps["layer.weight"].square().mean().sqrt() < 0.2 * 0.02 * 1.3

    second = model()
    second.load_state_dict(first.state_dict())
    resumed = Optimizer(second, config)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    noise.manual_seed(2)
    update(optimizer, first)
    noise.manual_seed(2)
    update(resumed, second)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(ValueError, match="muon"):
        Optimizer(model(), OptimConfig()).load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("matrices", ["adamw", "muon"])
def test_nothing_in_a_saved_state_changes_later(matrices):
    model = torch.nn.ModuleDict({"layer": torch.nn.Linear(3, 3), "head": torch.nn.Linear(3, 2)})
    optimizer = Optimizer(model, OptimConfig(matrices=matrices))

    def update():
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.update()

    update()
    state = optimizer.state_dict()
    before = copy.deepcopy(state)
    update()
    assert state["num_updates"] == before["num_updates"] == 1
    moments = [
        (kind, name, key)
        for kind in before
        if kind != "num_updates"
        for name in before[kind]
        for key in before[kind][name]
    ]
    assert moments
    assert all(torch.equal(state[kind][name][key], before[kind][name][key]) for kind, name, key in moments)
