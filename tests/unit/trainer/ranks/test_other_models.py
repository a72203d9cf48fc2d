"""Models of transformers, and adapters, over ranks: the losses of one process, under any number of ranks."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from verigym.model.checkpoint import load_decoder, save_checkpoint
from verigym.model.engine.deltas import published_id
from verigym.model.engine.weights import from_checkpoint
from verigym.model.huggingface import HuggingFaceDecoder, load_model
from verigym.model.lora import AnyDecoder, add_adapters, load_adapters, plain_state, save_adapters
from verigym.model.parallel.layout import Layout
from verigym.model.tokenizer import Tokenizer, train_tokenizer
from verigym.model.trained import load_trained, save_beside, stream_pieces
from verigym.trainer.learning.learner import Learner, Learning, Lesson
from verigym.trainer.ranks.sharded import ShardedLearning
from verigym.trainer.recipe.algorithms import GRPOConfig, KLConfig
from verigym.trainer.recipe.config import OptimConfig

from .ranks import run_team
from .test_identity import make_decoder, one_step

OPTIM = OptimConfig(lr=1e-2, eps=1e-3, grad_clip=0.05, warmup_steps=2)
LESSONS = (Lesson(optim=OPTIM), Lesson(optim=OPTIM, rl=GRPOConfig(entropy_coef=0.01, kl=KLConfig(coef=0.1))))
TWO, CONTEXT = Layout(shard=2), Layout(context=2)
SIZES = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 128, "intermediate_size": 48}
LORA: dict[str, Any] = {"rank": 4, "alpha": 8.0, "seed": 5}


class NoTokenizer:
    def save_pretrained(self, folder: Path) -> None:
        pass


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of three experts, which two ranks cannot have alike, and which its files hold one by one."""
    config = transformers.Qwen3MoeConfig(
        **SIZES, num_key_value_heads=2, head_dim=8, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=24
    )
    return saved(config, tmp_path_factory.mktemp("experts") / "model")


def saved(config: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # sharp distributions: errors show
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    model.save_pretrained(folder)
    return folder


def shape_of(start: Path, adapters: dict[str, Any] | None = None) -> AnyDecoder:
    """A decoder without numbers, but for adapters."""
    decoder = HuggingFaceDecoder.shape_of(start, torch.float32) if is_theirs(start) else make_decoder().to("meta")
    if adapters is not None:
        add_adapters(decoder, **adapters)
    return decoder


def whole(start: Path, adapters: dict[str, Any] | None = None) -> AnyDecoder:
    decoder = HuggingFaceDecoder.load(start) if is_theirs(start) else load_decoder(start)
    if adapters is not None:
        add_adapters(decoder, **adapters)
    return decoder


def is_theirs(start: Path) -> bool:
    return '"cwm"' not in (start / "config.json").read_text()


def step(learning: Learning, lesson: Lesson) -> dict[str, float]:
    return one_step(learning, lesson.rl, 48)["metrics"]


def of_ranks(team: Any, start: Path, adapters: dict[str, Any] | None, out: Path) -> list[list[dict[str, float]]]:
    """Three steps of each lesson; what the last one's ranks write after two of them."""
    found = []
    for lesson in LESSONS:
        decoder = shape_of(start, adapters)
        learning = ShardedLearning(team, decoder, lesson, start)
        rows = [step(learning, lesson), step(learning, lesson)]
        if lesson is LESSONS[-1]:
            learning.stage()
            learning.write(out / "state")
            learning.publish(out / "published", torch.float32)
            for name in ("state", "published"):
                save_beside(out / name, decoder, NoTokenizer() if is_theirs(start) else TOKENIZER, torch.float32)
            stream_pieces(out / "published", out / "hf", decoder, dtype=None, sums=False)
            if adapters is not None:
                save_adapters(out / "adapter", decoder, base=start)
        found.append([*rows, step(learning, lesson)])
    return found


def each(team: Any, cases: list[tuple[Path, dict[str, Any] | None, Path]]) -> list[Any]:
    return [of_ranks(team, *case) for case in cases]


def check_case(found: list[Any], start: Path, adapters: dict[str, Any] | None, out: Path) -> None:
    """What ranks did is what one process does, and it goes on from what they have written."""
    for lesson, rows in zip(LESSONS, found, strict=True):
        alone = Learner(whole(start, adapters), lesson)
        expected = [step(alone, lesson), step(alone, lesson)]
        two = {name: value.detach().clone() for name, value in plain_state(alone.decoder).items()}
        expected.append(step(alone, lesson))
        assert len({row["loss"] for row in expected}) == 3
        for row, wanted in zip(rows, expected, strict=True):
            assert row == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    resumed = Learner(whole(start, adapters), lesson)
    load_trained(out / "state", resumed.decoder)
    resumed.load_state_dict({"ranks": str(out / "state")})
    assert step(resumed, lesson) == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    check_written(out, start, two)
    if adapters is not None:
        beside = whole(start, adapters | {"seed": 9})
        load_adapters(out / "adapter", beside)
        for name, value in plain_state(beside).items():
            torch.testing.assert_close(value, two[name], rtol=1e-4, atol=1e-5)


def check_written(out: Path, start: Path, weights: dict[str, torch.Tensor]) -> None:
    """What engines read, and what transformers opens, are these weights."""
    if not is_theirs(start):
        engine = make_decoder()
        from_checkpoint(out / "published")(engine)
        assert published_id(engine) is not None
        exported = load_decoder(out / "hf").state_dict()
        read = engine.state_dict()
    else:
        read = load_model(out / "published").state_dict()
        exported, told = transformers.AutoModelForCausalLM.from_pretrained(out / "hf", output_loading_info=True)
        assert not told["missing_keys"]
        assert not told["unexpected_keys"]
        exported = exported.state_dict()
    for name, value in weights.items():
        torch.testing.assert_close(read[name], value, rtol=1e-4, atol=1e-5)
        assert torch.equal(exported[name], read[name])


def test_a_mixture_of_experts_over_two_ranks_learns_as_one_process(experts: Path, tmp_path: Path) -> None:
    case = (experts, None, tmp_path / "out")
    check_case(run_team(of_ranks, tmp_path, TWO, *case), *case)


@pytest.mark.parametrize(
    "layout", [pytest.param(TWO, id="shard2"), pytest.param(CONTEXT, id="cp2", marks=pytest.mark.slow)]
)
def test_adapters_over_two_ranks_learn_as_in_one_process(experts: Path, tmp_path: Path, layout: Layout) -> None:
    save_checkpoint(tmp_path / "ours", make_decoder(), TOKENIZER)
    cases = [(tmp_path / "ours", LORA, tmp_path / "of-ours")]
    if layout.context == 1:
        cases.append((experts, LORA | {"targets": ["q_proj", "v_proj"]}, tmp_path / "of-theirs"))
    for case, found in zip(cases, run_team(each, tmp_path, layout, cases), strict=True):
        check_case(found, *case)


def going_on(team: Any, start: Path, state: Path, adapters: dict[str, Any] | None) -> dict[str, float]:
    lesson = LESSONS[-1]
    learning = ShardedLearning(team, shape_of(start, adapters), lesson, start)
    learning.load_state_dict({"ranks": str(state)})
    return step(learning, lesson)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["experts", "adapters"])
def test_what_two_ranks_have_saved_three_go_on_with(experts: Path, tmp_path: Path, kind: str) -> None:
    adapters = None if kind == "experts" else LORA | {"targets": ["q_proj", "v_proj"]}
    found = run_team(of_ranks, tmp_path, TWO, experts, adapters, tmp_path / "out")
    (tmp_path / "three").mkdir()
    again = run_team(going_on, tmp_path / "three", Layout(shard=3), experts, tmp_path / "out" / "state", adapters)
    assert again == pytest.approx(found[-1][-1], rel=1e-5, abs=1e-6)


TOKENIZER: Tokenizer = train_tokenizer(["counting one two three " * 8], 300)
