"""Our divergences beside TRL's own code: DistillationTrainer on whole models, GKD, SDPO and SDFT on distributions.

Of the last three the note in docs/design/029-teachers.md says where they differ; each is held to its definition here.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from verigym.model.checkpoint import to_hf_state
from verigym.model.divergence import Divergence, TeacherStates, compare
from verigym.model.families.find import write_config
from verigym.trainer.batching.documents import Document
from verigym.trainer.batching.packs import pack
from verigym.trainer.learning.optim import Optimizer
from verigym.trainer.learning.step import TrainStep
from verigym.trainer.objective.objective import divergence_of, loss_of
from verigym.trainer.objective.teacher import Teachers
from verigym.trainer.recipe.algorithms import OPDConfig
from verigym.trainer.recipe.config import OptimConfig

transformers = pytest.importorskip("transformers")

VOCAB = 64
TEMPERATURE = 0.7
# (prompt, completion, of which the tool wrote) in tokens
SHAPES = [(4, 7, ()), (6, 5, (1, 2)), (2, 9, (0, 5, 6)), (5, 1, ())]
KINDS = {"forward": 0.0, "reverse": 1.0, "jensen_shannon": 0.5}


def of_trl(name):
    """A module of TRL's: they import pandas, datasets and peft, which only the workers that run these tests need."""
    return pytest.importorskip(f"trl.{name}", reason="trl is the peer")


def saved(decoder, folder):
    folder.mkdir()
    save_file({name: value.contiguous() for name, value in to_hf_state(decoder).items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(write_config(decoder.config)))
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture
def pair(make_decoder):
    student = make_decoder(vocab_size=VOCAB)
    teacher = make_decoder(vocab_size=VOCAB, hidden_size=40)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for decoder in (student, teacher):
            for weight in decoder.parameters():
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return student, teacher


def batch():
    rng = np.random.default_rng(0)
    return [(rng.integers(3, VOCAB, p), rng.integers(3, VOCAB, c), tools) for p, c, tools in SHAPES]


def padded(rows):
    """As DistillationTrainer pads: prompts on the left, completions on the right."""
    prompt, completion = max(len(p) for p, _, _ in rows), max(len(c) for _, c, _ in rows)
    out = {
        "prompt_ids": torch.zeros(len(rows), prompt, dtype=torch.long),
        "prompt_mask": torch.zeros(len(rows), prompt, dtype=torch.long),
        "completion_ids": torch.zeros(len(rows), completion, dtype=torch.long),
        "completion_mask": torch.zeros(len(rows), completion, dtype=torch.long),
        "tool_mask": torch.ones(len(rows), completion, dtype=torch.long),
    }
    for index, (p, c, tools) in enumerate(rows):
        out["prompt_ids"][index, prompt - len(p) :] = torch.from_numpy(p)
        out["prompt_mask"][index, prompt - len(p) :] = 1
        out["completion_ids"][index, : len(c)] = torch.from_numpy(c)
        out["completion_mask"][index, : len(c)] = 1
        out["tool_mask"][index, list(tools)] = 0
    return out


def ours(student, teacher, rows, kind):
    """(loss, gradients by Hugging Face's names) of a step over packs."""
    documents = []
    for prompt, completion, tools in rows:
        ids = np.concatenate((prompt, completion))
        mask = np.zeros(len(ids), bool)
        mask[len(prompt) :] = True
        mask[[len(prompt) + tool for tool in tools]] = False
        old = np.where(mask, -1.0, np.nan).astype(np.float32)
        documents.append(
            Document(
                token_ids=ids[:-1], targets=ids[1:], loss_mask=mask[1:], old_logprobs=old[1:], advantage=0.0, taught="t"
            )
        )
    config = OPDConfig(teacher="t", divergence={"kind": kind})
    teachers = Teachers({"t": teacher}, divergence_of(config))
    step = TrainStep(student, Optimizer(student, OptimConfig()), loss_of(config), teachers=teachers)
    metrics = step.accumulate(pack(documents, max_tokens=20, temperature=TEMPERATURE))
    with torch.no_grad():
        for weight in student.parameters():
            weight.copy_(weight.grad)
    return metrics["loss"], to_hf_state(student)


def theirs(student, teacher, rows, beta):
    """(loss, gradients) by DistillationTrainer._compute_loss, its models those of transformers."""
    trainer = of_trl("trainer.distillation_trainer").DistillationTrainer
    stub = SimpleNamespace(
        **{"teacher_model": teacher, "beta": beta, "temperature": TEMPERATURE, "_is_vlm": False},
        accelerator=SimpleNamespace(unwrap_model=lambda model: model, is_main_process=False),
        model_kwarg_keys={"logits_to_keep"},
        _forward_redirection=lambda wrapper, model, method, *args, **kwargs: method(*args, **kwargs),
    )
    stub._get_last_hidden_state = lambda *args, **kwargs: trainer._get_last_hidden_state(stub, *args, **kwargs)
    inputs = padded(rows)
    count = (inputs["completion_mask"] * inputs["tool_mask"]).sum()
    loss, _, _ = trainer._compute_loss(stub, student, inputs, count)
    loss.backward()
    return loss.item(), {name: weight.grad for name, weight in student.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_equal_those_of_the_distillation_trainer(pair, kind, tmp_path):
    student, teacher = pair
    models = saved(student, tmp_path / "student"), saved(teacher, tmp_path / "teacher")
    loss, gradients = ours(student, teacher, batch(), kind)
    expected, wanted = theirs(*models, batch(), KINDS[kind])
    assert expected > 0.01
    assert loss == pytest.approx(expected, rel=1e-5)
    assert gradients.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-5, atol=1e-5, msg=name)
        assert (gradients[name] - gradient).norm() < 1e-4 * gradient.norm(), name


def distributions(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    student = 2 * torch.randn(9, VOCAB, generator=generator)
    teacher = 2 * torch.randn(9, VOCAB, generator=generator)
    return student.to(dtype).requires_grad_(), teacher.to(dtype)


def by_ours(student, teacher, what: Divergence):
    """Logits as the product of themselves with the identity."""
    eye = torch.eye(VOCAB, dtype=student.dtype)
    given = TeacherStates(hidden=teacher, weight=eye)
    found = compare(student, eye, torch.zeros(9, dtype=torch.long), given, what)
    (grad,) = torch.autograd.grad(found.divergence.sum(), student)
    return found.divergence.detach(), grad


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
def test_gkd(beta):
    student, teacher = distributions()
    trainer = of_trl("experimental.gkd.gkd_trainer").GKDTrainer
    loss = trainer.generalized_jsd_loss(student[None], teacher[None], beta=beta, reduction="sum")
    (wanted,) = torch.autograd.grad(loss, student)
    found, grad = by_ours(student, teacher, Divergence(beta=beta))
    assert float(found.sum()) == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(grad, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["sdpo", "sdft"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("tail", [True, False], ids=["tail", "no tail"])
@pytest.mark.parametrize("support", [None, 8])
def test_sdpo_and_sdft(method, alpha, tail, support):
    losses = of_trl(f"experimental.{method}.loss_utils")
    student, teacher = distributions()
    if support is None:
        loss = losses.compute_full_logit_self_distillation_loss(student, teacher, distillation_alpha=alpha)
    else:
        told = {"distillation_topk": support, "distillation_alpha": alpha, "distillation_add_tail": tail}
        loss = losses.compute_topk_self_distillation_loss(student, teacher, **told)
    (wanted,) = torch.autograd.grad(loss.sum(), student)
    found, grad = by_ours(student, teacher, Divergence(beta=alpha, support=support, tail=tail))
    torch.testing.assert_close(found, loss.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad, wanted, rtol=1e-5, atol=1e-5)


def test_where_a_tail_is_smaller_than_theirs_can_be_ours_is_the_definition():
    """TRL takes what is left of 1, and at least 1e-7: of a teacher that is surer than that, its tail is wrong."""
    student, teacher = distributions(torch.float64)
    with torch.no_grad():
        student[:, 0] += 4.0
    teacher = teacher + 30.0 * torch.nn.functional.one_hot(student.argmax(1), VOCAB)
    ids = student.topk(8).indices
    p, q = student.softmax(-1), teacher.softmax(-1)
    others = torch.ones_like(p).scatter(1, ids, 0.0)
    rest = (p * others).sum(1), (q * others).sum(1)
    top = (p * (p / q).log()).gather(1, ids).sum(1)
    defined = (top + rest[0] * (rest[0] / rest[1]).log()).detach()
    found, _ = by_ours(student, teacher, Divergence(beta=1.0, support=8))
    torch.testing.assert_close(found, defined, rtol=1e-9, atol=1e-9)
    told = {"distillation_topk": 8, "distillation_alpha": 1.0, "distillation_add_tail": True}
    losses = of_trl("experimental.sdpo.loss_utils")
    loss = losses.compute_topk_self_distillation_loss(student, teacher, **told).detach()
    assert (defined - loss).max() > 0.1
    assert (defined - loss).min() > 0
