"""Exact divergences, in blocks, against their definitions in float64."""

import itertools

import pytest
import torch

from verigym.model.divergence import Divergence, TeacherStates, TeacherTop, compare

BETAS = (0.0, 0.3, 0.5, 1.0)
SUPPORTS = [
    Divergence(beta=0.0),
    Divergence(beta=0.0, support=4),
    Divergence(beta=0.0, support=4, support_of="teacher"),
    Divergence(beta=0.0, support=4, tail=False),
    Divergence(beta=0.0, support=40),
]
NAMES = ["whole", "student's 4", "teacher's 4", "no tail", "more than there are"]


def settings(beta: float, like: Divergence) -> Divergence:
    return Divergence(beta=beta, support=like.support, support_of=like.support_of, tail=like.tail)


def inputs(dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden, weight, theirs, head = drawn(11, 6), 1.5 * drawn(17, 6), drawn(11, 5), 1.5 * drawn(17, 5)
    targets = torch.randint(0, 17, (11,), generator=generator)
    temperature = torch.linspace(0.5, 1.5, 11, dtype=torch.float64)
    hidden, weight = hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()
    return hidden, weight, targets, TeacherStates(hidden=theirs.to(dtype), weight=head.to(dtype)), temperature


def outcomes(logp, logq, what: Divergence):
    """Probabilities of the outcomes that are compared, by the definition."""
    p, q = logp.exp(), logq.exp()
    if what.support is None:
        return p, q
    ids = (p if what.support_of == "student" else q).topk(min(what.support, p.shape[1])).indices
    others = torch.ones_like(p).scatter(1, ids, 0.0)
    rest = [(one * others).sum(1, keepdim=True) for one in (p, q)]
    p, q = p.gather(1, ids), q.gather(1, ids)
    if what.tail and ids.shape[1] < logp.shape[1]:
        return torch.cat((p, rest[0]), 1), torch.cat((q, rest[1]), 1)
    return p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)


def defined(hidden, weight, targets, teacher, temperature, what: Divergence):
    logp = (hidden @ weight.T / temperature[:, None]).log_softmax(-1)
    logq = (teacher.hidden @ teacher.weight.T / temperature[:, None]).log_softmax(-1)
    p, q = outcomes(logp, logq, what)

    def kl(a, b):
        return (a * (a / b).log()).sum(1)

    m = (1 - what.beta) * p + what.beta * q
    found = {0.0: lambda: kl(q, p), 1.0: lambda: kl(p, q)}.get(
        what.beta, lambda: what.beta * kl(q, m) + (1 - what.beta) * kl(p, m)
    )()
    at = targets[:, None]
    return logp.gather(1, at)[:, 0], -(logp.exp() * logp).sum(1), found, logq.gather(1, at)[:, 0]


@pytest.mark.parametrize("max_elements", [17 * 4, 10_000], ids=["in blocks", "at once"])
@pytest.mark.parametrize("like", SUPPORTS, ids=NAMES)
@pytest.mark.parametrize("beta", BETAS)
def test_values_and_gradients_are_the_definitions(beta, like, max_elements):
    what = settings(beta, like)
    factors = torch.linspace(-1, 2, 11, dtype=torch.float64)

    def loss(found):
        factor = factors.to(found[0].dtype)
        return (found[0] * factor + 0.3 * found[1] + found[2] * (2 + factor)).sum()

    exact_inputs = inputs(torch.float64)
    exact = defined(*exact_inputs, what)
    exact_grads = torch.autograd.grad(loss(exact), exact_inputs[:2])
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 3e-5)):
        hidden, weight, targets, teacher, temperature = inputs(dtype)
        one = compare(hidden, weight, targets, teacher, what, temperature, max_elements=max_elements)
        found = (one.logprobs, one.entropy, one.divergence, one.teacher_logprobs)
        grads = torch.autograd.grad(loss(found), (hidden, weight))
        for value, wanted in zip((*found, *grads), (*exact, *exact_grads), strict=True):
            assert value.dtype == dtype
            torch.testing.assert_close(value.double(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("beta", BETAS)
def test_a_servers_top_is_the_teachers_support(beta):
    hidden, weight, targets, teacher, temperature = inputs(torch.float64)
    logq = (teacher.hidden @ teacher.weight.T / temperature[:, None]).log_softmax(-1)
    top = logq.topk(5)
    given = TeacherTop(ids=top.indices, logprobs=top.values)
    of_teacher = Divergence(beta=beta, support=5, support_of="teacher")
    whole = compare(hidden, weight, targets, teacher, of_teacher, temperature)
    told = compare(hidden, weight, targets, given, Divergence(beta=beta, support=5), temperature, max_elements=17 * 3)
    torch.testing.assert_close(told.divergence, whole.divergence)
    for mine, theirs in zip(
        torch.autograd.grad(told.divergence.sum(), (hidden, weight)),
        torch.autograd.grad(whole.divergence.sum(), (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)
    known = (top.indices == targets[:, None]).any(1)
    assert known.any()
    assert not known.all()
    torch.testing.assert_close(told.teacher_logprobs[known], whole.teacher_logprobs[known])
    assert told.teacher_logprobs[~known].isnan().all()


def test_the_tail_bounds_the_whole_from_below_and_a_teacher_of_the_same_weights_is_at_no_distance():
    hidden, weight, targets, teacher, _ = inputs(torch.float64)
    for beta, size in itertools.product(BETAS, (1, 4, 9)):
        whole = compare(hidden, weight, targets, teacher, Divergence(beta=beta)).divergence
        part = compare(hidden, weight, targets, teacher, Divergence(beta=beta, support=size)).divergence
        assert (part <= whole + 1e-12).all()  # outcomes that are not told apart cannot differ
        assert (part >= -1e-12).all()
        own = TeacherStates(hidden=hidden.detach(), weight=weight.detach())
        same = compare(hidden, weight, targets, own, Divergence(beta=beta, support=size))
        assert same.divergence.abs().max() < 1e-12
        grads = torch.autograd.grad(same.divergence.sum(), (hidden, weight))
        assert max(float(one.abs().max()) for one in grads) < 1e-9


def test_certain_distributions_stay_finite():
    hidden, weight = torch.tensor([[400.0]]).requires_grad_(), torch.tensor([[1.0], [-1.0], [0.0]])
    far = TeacherStates(hidden=torch.tensor([[-400.0]]), weight=weight)
    for beta, support in itertools.product(BETAS, (None, 2)):
        found = compare(hidden, weight, torch.tensor([0]), far, Divergence(beta=beta, support=support))
        (grad,) = torch.autograd.grad(found.divergence.sum(), (hidden,))
        assert found.divergence.isfinite().all()
        assert grad.isfinite().all()


def test_two_vocabularies_are_refused():
    hidden, weight, targets, teacher, _ = inputs(torch.float64)
    other = TeacherStates(hidden=teacher.hidden, weight=teacher.weight[:-1])
    with pytest.raises(ValueError, match="knows 16 ids and the student's 17"):
        compare(hidden, weight, targets, other, Divergence(beta=1.0))
