import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from verigym.model.plan.meter import Meter


def test_storages_count_while_they_live() -> None:
    with FakeTensorMode(), Meter({}) as meter:
        one = torch.ones(1000)
        view = one[10:]
        two = one + one
        assert (meter.live, meter.peak) == (8000, 8000)
        del one
        assert meter.live == 8000  # the view holds it
        del view
        assert meter.live == 4000
        three = two.half()
        assert (meter.live, meter.peak) == (6000, 8000)
        three.untyped_storage().resize_(0)
        assert meter.live == 4000
        three.untyped_storage().resize_(2000)
        del two, three
        assert (meter.live, meter.peak) == (0, 8000)


def test_products_are_counted_forward_and_backward() -> None:
    with FakeTensorMode(), Meter({}) as meter:
        weight = torch.ones(5, 7, requires_grad=True)
        x = torch.ones(3, 7, requires_grad=True)
        (x @ weight.T).sum().backward()
    assert meter.flops == 3 * 2 * 3 * 5 * 7
