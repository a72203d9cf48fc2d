"""Any model of transformers as what is trained, whole or by adapters: token-exact, resumable, with its own template."""

import asyncio
import copy
import json
import math
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, SmolLM3Config

from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy
from verigym.envs.task import Task
from verigym.errors import CheckpointError, ConfigError
from verigym.model.attention import Documents
from verigym.model.chat.actions import encode_format_error
from verigym.model.chat.huggingface import HuggingFaceRenderer
from verigym.model.chat.messages import Message
from verigym.model.checkpoint import save_checkpoint
from verigym.model.decoder import Decoder
from verigym.model.engine.generator import Generator
from verigym.model.families.find import why_not_ours
from verigym.model.format import open_format
from verigym.model.lora import adapter_weights, copy_trained
from verigym.model.tokenizer import train_tokenizer
from verigym.trainer.batching.documents import document_of
from verigym.trainer.batching.packs import pack
from verigym.trainer.learning.scores import score
from verigym.trainer.learning.trainee import open_trainee
from verigym.trainer.loops.asynchronous import AsyncRL
from verigym.trainer.loops.loop import SFT
from verigym.trainer.loops.reinforce import RL
from verigym.trainer.objective.reference import AdapterReference, reference_of
from verigym.trainer.recipe.algorithms import AsyncConfig, GRPOConfig
from verigym.trainer.recipe.config import LoRAConfig, OptimConfig, SFTConfig
from verigym.trainer.recipe.load import load_recipe
from verigym.trainer.recipe.model import ModelConfig
from verigym.trainer.run.checkpoint import load_training, save_training
from verigym.trainer.sampling.rollouts import EpisodePlan, TaskStream

LORA = LoRAConfig(rank=4, alpha=8.0)


class OddParser:
    """A turn of an odd number of characters is a format error; any other is the answer."""

    def parse(self, text, tools):
        action = encode_format_error("odd") if len(text) % 2 else text
        return Message(role="assistant", content=text), action


class ManyStops(HuggingFaceRenderer):
    """A model of random weights would seldom end its turn: a third of all tokens do."""

    @property
    def stop_token_ids(self):
        return tuple(range(0, 260, 3))


@pytest.fixture
def learn(huggingface_checkpoint):
    def learn(lora=None, *, learned=False, checkpoint=huggingface_checkpoint, **changes):
        config = ModelConfig(checkpoint=checkpoint, lora=lora, max_context=400, **changes)
        trainee = open_trainee(config, lambda parser: [], seed=0)
        if learned:
            torch.manual_seed(5)
            with torch.no_grad():
                for weight in adapter_weights(trainee.decoder).values():
                    weight.normal_(0.0, 0.1)
        return trainee

    return learn


@pytest.fixture
def reinforce(words):
    engines = []

    def reinforce(trainee, *, lag=None, lr=1e-2, **changes):
        sampled = None if lag is None else copy_trained(trainee.decoder)
        engine = trainee.engine(8, sampled)
        engines.append(engine)
        policy = TokenPolicy(engine, ManyStops(trainee.tokenizer), OddParser())
        plan = EpisodePlan(make_env=LengthEnv, budget=Budget(turns=3, tokens=400, seconds=60), turn_tokens=5)
        options = {"num_tasks": 2, "group_size": 8, "microbatch_tokens": 512, **changes}
        rest = {"optim": OptimConfig(lr=lr), "tasks": TaskStream(tasks(4), seed=3), "seed": 3}
        if lag is None:
            return RL(trainee.decoder, engine, policy, lambda task: plan, config=GRPOConfig(**options), **rest)
        rest["asynchronous"] = AsyncConfig(max_lag=lag)
        return AsyncRL(trainee.decoder, engine, policy, lambda task: plan, config=GRPOConfig(**options), **rest)

    class LengthEnv(words.env):
        """The more of the answer's characters come early in the alphabet, the better."""

        def score(self, task, submission):
            from verigym.rewards.score import Score

            value = sum(ord(letter) % 7 for letter in submission) / (7.0 * max(1, len(submission)))
            return Score(value=value, passed=value > 0.5, breakdown={"value": value})

    yield reinforce
    for engine in engines:
        engine.close()


def tasks(count):
    return [Task(id=str(number), family="guess", prompt=f"else{number} lesser") for number in range(count)]


def run(trainer, until):
    rows = []
    asyncio.run(trainer.run(until, on_step=rows.append))
    names = [f"trainer/{name}/mean" for name in ("loss", "grad_norm", "approx_kl", "kl")]
    return [[row.metrics.get(name, math.nan) for name in names] for row in rows]


def _logits(decoder, ids):
    """Of the next token."""
    if isinstance(decoder, Decoder):
        return decoder.logits(decoder(ids, Documents.from_lengths([len(ids)])))[-1]
    return decoder.model(ids[None]).logits[0, -1]


def test_a_base_model_is_trained_and_saved_with_the_template_it_is_given(family_checkpoint, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(family_checkpoint, base)
    (base / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=r"model\.chat_template"):
        open_trainee(ModelConfig(checkpoint=base), lambda parser: [], seed=0)
    assert "--chat-template" in open_format(base).chat_problem
    trainee = open_trainee(ModelConfig(checkpoint=base, chat_template="plain"), lambda parser: [], seed=0)
    trainee.save(tmp_path / "out", {})
    asked = [Message(role="user", content="1 + 1?")]
    ids = trainee.renderer.start(asked, []).token_ids
    assert trainee.renderer.decode(ids).endswith("Question: 1 + 1?\nAnswer:\n")
    for text in (open_format(tmp_path / "out"), open_format(base, chat_template="plain")):
        assert text.renderer is not None
        assert text.renderer.start(asked, []).token_ids == ids


def test_a_family_of_ours_is_saved_with_all_that_belongs_to_it(learn, family_checkpoint, tmp_path):
    trainee = learn(checkpoint=family_checkpoint, tools="text")
    trainee.save(tmp_path / "out", {})
    again = learn(checkpoint=tmp_path / "out")
    assert again.decoder.config == trainee.decoder.config
    model = open_format(tmp_path / "out")
    assert model.renderer is not None
    asked = [Message(role="user", content="else")]
    assert model.renderer.start(asked, []).token_ids == trainee.renderer.start(asked, []).token_ids
    assert model.renderer.stop_token_ids == trainee.renderer.stop_token_ids
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ids = torch.arange(9)
    torch.testing.assert_close(theirs(ids[None]).logits[0, -1], _logits(trainee.decoder, ids), rtol=1e-4, atol=1e-4)


def test_the_recipe_for_one_gpu_trains_its_adapters_in_our_decoder(tmp_path, family_checkpoint):
    """SmolLM3-3B, which it names, is of a family of ours; here in its shape's kind and a small size."""
    recipe = load_recipe("single-gpu-lora")
    assert recipe.model.checkpoint.name == "SmolLM3-3B"
    SmolLM3Config().save_pretrained(tmp_path / "shape")  # whose defaults are the 3B model's
    assert why_not_ours(tmp_path / "shape") is None
    shutil.copytree(family_checkpoint, tmp_path / "small")
    tokenizer = AutoTokenizer.from_pretrained(family_checkpoint)
    config = SmolLM3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "small")
    small = ModelConfig(checkpoint=tmp_path / "small", max_context=200, lora=recipe.model.lora)
    trainee = open_trainee(small, lambda parser: [], seed=0)
    assert isinstance(trainee.decoder, Decoder)
    assert isinstance(trainee.engine(1), Generator)


@pytest.mark.parametrize(
    ("checkpoint", "temperature"),
    [("huggingface_checkpoint", 0.7), ("huggingface_checkpoint", 1.0), ("family_checkpoint", 0.7)],
    ids=["transformers-0.7", "transformers-1.0", "ours-0.7"],
)
@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "adapters"])
def test_what_is_trained_is_what_was_sampled(learn, reinforce, lora, checkpoint, temperature, request):
    trainee = learn(lora, learned=lora is not None, checkpoint=request.getfixturevalue(checkpoint))
    assert isinstance(trainee.decoder, Decoder) == (checkpoint == "family_checkpoint")
    trainer = reinforce(trainee, temperature=temperature)
    rollouts = asyncio.run(trainer.collect(tasks(2)))
    assert max(one.num_turns for one in rollouts.trajectories) > 1
    documents = []
    for trajectory in rollouts.trajectories:
        # The template only appends, so an episode is one segment, whatever its text would be encoded to.
        [segment] = trajectory.segments
        documents.append(document_of(segment, sampled=True))
        for place in [i for i, trained in enumerate(segment.loss_mask) if trained][::3]:
            ids = torch.tensor(segment.token_ids[:place])
            with torch.no_grad():
                theirs = _logits(trainee.decoder, ids) / temperature
            expected = theirs.log_softmax(-1)[segment.token_ids[place]]
            assert segment.logprobs[place] == pytest.approx(float(expected), abs=2e-5)
    texts = [trainee.tokenizer.decode(one.token_ids) for one in documents]
    assert any(trainee.tokenizer.encode(text) != one.token_ids.tolist() for text, one in zip(texts, documents))
    for batch in pack(documents, max_tokens=512, temperature=temperature):
        with torch.no_grad():
            ratio = (score(trainee.decoder, batch).logprobs - batch.old_logprobs[batch.loss_mask]).exp()
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=2e-5)


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "adapters"])
def test_a_resume_from_disk_repeats_the_losses(learn, reinforce, lora, tmp_path):
    settings = {"kl": {"coef": 0.05}}
    expected = run(reinforce(learn(lora), **settings), 4)
    first = learn(lora)
    trainer = reinforce(first, **settings)
    rows = run(trainer, 2)
    path = save_training(
        tmp_path, step=2, decoder=first.decoder, tokenizer=first.tokenizer, trainer=trainer.state_dict()
    )
    names = sorted(file.name for file in (path / "model").iterdir())
    assert (names == ["adapter_config.json", "adapter_model.safetensors"]) is (lora is not None)
    second = learn(lora)
    resumed = reinforce(second, **settings)
    resumed.load_state_dict(load_training(path, second.decoder).trainer)
    rows += run(resumed, 4)
    assert rows == [pytest.approx(row, rel=1e-4, abs=1e-6, nan_ok=True) for row in expected]
    learned = [row for row in expected if math.isfinite(row[0])]
    assert len(learned) >= 3
    assert learned[0][3] < 1e-6 < learned[-1][3]  # the distance to the reference grows from 0


def test_only_adapters_are_optimized(learn, reinforce):
    trainee = learn(LORA)
    frozen = {n: p.detach().clone() for n, p in trainee.decoder.named_parameters() if not p.requires_grad}
    trainer = reinforce(trainee)
    assert len(trainer.learning.optimizer.parameters) == len(adapter_weights(trainee.decoder)) == 2 * 2 * 7
    before = {name: weight.detach().clone() for name, weight in adapter_weights(trainee.decoder).items()}
    run(trainer, 2)
    assert any(not torch.equal(before[name], weight) for name, weight in adapter_weights(trainee.decoder).items())
    assert all(torch.equal(frozen[n], p) for n, p in trainee.decoder.named_parameters() if n in frozen)


@pytest.mark.parametrize("learned", [False, True], ids=["fresh", "after sft"])
def test_the_reference_is_the_model_of_then_without_a_copy(learn, learned):
    trainee = learn(LORA, learned=learned)
    reference, whole = reference_of(trainee.decoder), copy.deepcopy(trainee.decoder)
    assert isinstance(reference, AdapterReference)
    with torch.no_grad():
        for weight in adapter_weights(trainee.decoder).values():
            weight.add_(0.2)
    now = {name: weight.detach().clone() for name, weight in adapter_weights(trainee.decoder).items()}
    ids = torch.arange(40, 60)
    inputs = (ids, Documents.from_lengths([12, 8]), ids.roll(-1))
    with torch.no_grad():
        expected = whole.score(*inputs)[0]
        assert (trainee.decoder.score(*inputs)[0] - expected).abs().max() > 0.01
    torch.testing.assert_close(reference.score(*inputs)[0], expected, rtol=0, atol=1e-6)
    assert all(torch.equal(now[name], weight) for name, weight in adapter_weights(trainee.decoder).items())


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "adapters"])
def test_sampling_ahead_with_an_engine_that_gets_the_new_weights_between_rounds(learn, reinforce, lora):
    trainee = learn(lora)
    trainer = reinforce(trainee, lag=1)
    steps = []
    asyncio.run(trainer.run(4, on_step=steps.append))
    versions = {v for row in steps for one in row.trajectories for s in one.segments for v in s.policy_version}
    assert max(versions) >= 1
    assert max(row.metrics["trainer/lag/max"] for row in steps) <= 1
    sampled = dict(trainer._engine._batch._model.named_parameters())
    for name, weight in trainee.decoder.model.named_parameters():
        assert torch.equal(sampled[name], weight), name


def test_sft_by_adapters_drops_and_measures_without_dropping(learn, make_segment, make_trajectory):
    demonstrations = [make_trajectory(make_segment(range(k, k + 9), [0] + [1] * 8)) for k in range(6)]
    config = SFTConfig(max_steps=9, batch_tokens=64, microbatch_tokens=32, patience=0, eval_every=1)

    def losses(dropout, seed=0):
        trainee = learn(LoRAConfig(rank=4, dropout=dropout), learned=True)
        torch.manual_seed(seed)
        loop = SFT(trainee.decoder, demonstrations, config=config, optim=OptimConfig(lr=1e-2), held_out=demonstrations)
        return [loop.step().metrics for _ in range(2)]

    plain, dropped, again = losses(0.0), losses(0.5), losses(0.5)
    assert [row["trainer/loss/mean"] for row in dropped] == [row["trainer/loss/mean"] for row in again]
    assert plain[0]["trainer/loss/mean"] != dropped[0]["trainer/loss/mean"]
    assert plain[1]["trainer/loss/mean"] < plain[0]["trainer/loss/mean"]


def test_what_is_saved_is_read_by_the_next_stage_and_by_transformers(learn, tmp_path):
    trainee = learn(LORA, learned=True)
    trainee.save(tmp_path / "out", {"verigym/Math-v0": {"system_prompt": ""}})
    assert json.loads((tmp_path / "out" / "verigym.json").read_text()) == {
        "environments": {"verigym/Math-v0": {"system_prompt": ""}}
    }
    other = learn(LORA)
    other.load(tmp_path / "out")
    ids = torch.arange(30, 50)
    with torch.no_grad():
        expected = trainee.decoder.model(ids[None]).logits
        assert torch.equal(other.decoder.model(ids[None]).logits, expected)
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
        torch.testing.assert_close(merged(ids[None]).logits, expected, rtol=1e-4, atol=1e-4)
    assert merged.generation_config.eos_token_id == trainee.tokenizer.eos_token_id
    # A stage without adapters goes on from the merged model.
    whole = learn(checkpoint=tmp_path / "out")
    torch.testing.assert_close(whole.decoder.model(ids[None]).logits, expected, rtol=1e-4, atol=1e-4)


def test_adapters_on_cwms_decoder(learn, make_decoder, tmp_path):
    tokenizer = train_tokenizer(["else lesser " * 20], 300)
    save_checkpoint(tmp_path / "cwm", make_decoder(vocab_size=tokenizer.vocab_size), tokenizer)
    trainee = learn(LORA, checkpoint=tmp_path / "cwm", learned=True)
    assert len(adapter_weights(trainee.decoder)) == 2 * 2 * 4
    trainee.save(tmp_path / "out", {})
    merged = learn(checkpoint=tmp_path / "out")
    ids, pack_of = torch.arange(30, 50), Documents.from_lengths([20])
    with torch.no_grad():
        torch.testing.assert_close(merged.decoder(ids, pack_of), trainee.decoder(ids, pack_of), rtol=1e-4, atol=1e-4)


def test_what_does_not_go_together_is_refused(learn, huggingface_checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"set model\.checkpoint"):
        ModelConfig(lora=LORA)
    with pytest.raises(ValueError, match=r"and there is none; set model\.checkpoint"):
        ModelConfig(chat_template="plain")
    (tmp_path / "cwm").mkdir()
    (tmp_path / "cwm" / "config.json").write_text('{"model_type": "cwm"}')
    with pytest.raises(ConfigError, match=r"takes no model\.chat_template"):
        learn(checkpoint=tmp_path / "cwm", chat_template="plain")
    with pytest.raises(ValueError, match=r"set model\.lora"):
        ModelConfig(checkpoint=huggingface_checkpoint, dtype="bfloat16")
    with pytest.raises(ConfigError, match=r"model\.preset names a shape of CWM"):
        learn(preset="cwm-tiny")
    with pytest.raises(ValueError, match=r"from a checkpoint; set model\.checkpoint"):
        ModelConfig(preset="qwen3-32b")
    with pytest.raises(CheckpointError, match="has attention_bias True"):
        learn(preset="llama-3.3-70b")
    with pytest.raises(ConfigError, match="remove it"):
        learn().cwm_tokenizer  # noqa: B018
    with pytest.raises(CheckpointError):
        learn(checkpoint=tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="has no tokenizer"):
        learn(checkpoint=tmp_path)
