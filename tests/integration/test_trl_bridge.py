"""TRL's GRPOTrainer over one of our environments with a tool: rewards are those of our own loop."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils import get_json_schema

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.code.env import CodeEnv
from verigym.envs.core import Submission, ToolEnv
from verigym.envs.registry.opening import open_env
from verigym.envs.synthesis.small_sums import small_sums
from verigym.envs.task import Task
from verigym.envs.tools.spec import tool
from verigym.errors import ConfigError, GradingError, SandboxError
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Sampling
from verigym.rewards.score import verdict
from verigym.trainer.trl_bridge import TrlEnvironments, _class_of


@pytest.fixture(scope="module")
def trl():
    """Its trainer imports pandas, datasets and peft, which only the workers that run these tests need."""
    import trl

    return trl


@pytest.fixture
def scripted(trl):
    """A trainer that samples as ever, but says what it is told where there is something to say."""

    class Scripted(trl.GRPOTrainer):
        script = ()
        turn = 0

        def _generate_single_turn(self, prompt_ids, *args, **kwargs):
            sampled, logprobs = super()._generate_single_turn(prompt_ids, *args, **kwargs)
            for row, text in enumerate(self.script[self.turn]):
                if text is not None:
                    sampled[row] = self.processing_class.encode(text + "<|im_end|>")
            self.turn += 1
            return sampled, logprobs

    return Scripted


@pytest.fixture
def tiny(huggingface_checkpoint, trl):
    """(model, tokenizer) with the chat template of Qwen 3."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(huggingface_checkpoint)
    words = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
    tokenizer.add_tokens(words)
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    model = AutoModelForCausalLM.from_pretrained(huggingface_checkpoint)
    model.resize_token_embeddings(len(tokenizer))
    return model, tokenizer


@pytest.mark.slow  # a process of its own: the example as a user runs it
def test_the_example_runs_where_there_is_no_gpu(tiny, local_sandbox, tmp_path):
    model, tokenizer = tiny
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    script = Path(__file__).resolve().parents[2] / "examples" / "trl_grpo.py"
    command = [sys.executable, str(script), str(tmp_path / "model"), "--steps", "1", "--tokens", "16"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, timeout=600, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "'reward'" in done.stdout
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").num_parameters() == model.num_parameters()


def call(**arguments):
    return "<tool_call>\n" + json.dumps({"name": "python", "arguments": arguments}) + "\n</tool_call>"


def test_it_trains_and_its_rewards_are_ours(tiny, trl, scripted, local_sandbox, tmp_path):
    model, tokenizer = tiny
    task = small_sums(num=1, seed=0, held_out=False)[0]
    answer = task.hidden["answer"]
    # Computes and answers; answers wrongly; calls and then says what the model of random weights says; that alone.
    script = (
        [call(code=f"print({answer})"), "<think>\n\n</think>\n\nIt is \\boxed{0.5}.", call(code="print(2 + 3)"), None],
        [f"It is \\boxed{{{answer}}}.", None],
    )
    with TrlEnvironments("verigym/Math-v0", [task], tools=True, sandbox="local") as environments:
        scored = []

        def reward(completions, environments, **rest):
            found = bridge.reward(completions=completions, environments=environments, **rest)
            scored.extend(zip(completions, found, strict=True))
            return found

        bridge = environments
        trainer = scripted(
            model=model,
            processing_class=tokenizer,
            args=trl.GRPOConfig(
                output_dir=str(tmp_path),
                use_cpu=True,
                bf16=False,
                max_steps=1,
                num_generations=4,
                per_device_train_batch_size=4,
                max_completion_length=120,
                max_tool_calling_iterations=2,
                report_to=[],
                disable_tqdm=True,
                save_strategy="no",
                learning_rate=1e-2,
            ),
            train_dataset=environments.dataset(),
            environment_factory=environments,
            reward_funcs=reward,
        )
        trainer.script = script
        before = model.get_input_embeddings().weight.detach().clone()
        trainer.train()
    rewards = [found for _, found in scored]
    assert rewards == [1.0, 0.0, 0.0, 0.0]
    tools = [[m["content"].strip() for m in said if m["role"] == "tool"] for said, _ in scored]
    assert str(answer) in tools[0][0]
    assert "5" in tools[2][0]
    assert (tools[1], tools[3]) == ([], [])
    assert trainer.state.log_history[0]["reward"] == pytest.approx(0.25)
    assert trainer.state.log_history[0]["tools/call_frequency"] == pytest.approx(0.5)
    assert not torch.equal(before, model.get_input_embeddings().weight)
    for completion, found in scored[:2]:
        assert asyncio.run(ours(task, completion)) == found


async def ours(task, completion):
    """The reward that our own loop gives an assistant who says the same."""
    said = []
    for row in completion:
        if row["role"] == "assistant":
            calls = tuple(
                ToolCall(name=one["function"]["name"], arguments=one["function"]["arguments"])
                for one in row.get("tool_calls") or ()
            )
            said.append(Message(role="assistant", content="" if calls else row["content"], calls=calls))
    env = open_env("verigym/Math-v0", {}, {"tools": True, "sandbox": "local"})
    budget = Budget(turns=4, tokens=10_000, seconds=60)
    played = await rollout(env, ScriptedPolicy(play(said)), task, budget=budget, sampling=Sampling(max_tokens=99))
    return played.reward


class BoxEnv(ToolEnv):
    """Hands in a number, or fails as it is told."""

    family = "box"

    @tool
    def look(self, where: str, times: int = 1) -> str:
        """Look somewhere.

        Args:
            where: a place.
            times: how often.
        """
        if where == "nowhere":
            raise SandboxError("the box is gone")
        return f"saw {where} {times}"

    @tool
    def submit(self, value: int) -> Submission:
        """Hand in a number."""
        return Submission(value=value)

    def score(self, task, submission):
        if submission == 13:
            raise GradingError("no verdict")
        return verdict(submission in (9, "9"))


@pytest.fixture
def boxes():
    bridge = TrlEnvironments.__new__(TrlEnvironments)
    task = Task(id="nine", family="box", prompt="nine")
    made = _class_of(BoxEnv())

    def make():
        environment = made(BoxEnv(), {"nine": task})
        environment.reset(prompt=[], task="nine")
        return environment

    return make, lambda *pairs: bridge.reward([said for _, said in pairs], [one for one, _ in pairs])


def says(text):
    return [{"role": "assistant", "content": text}]


def test_tools_carry_their_signature_and_documentation(boxes):
    make, _ = boxes
    found = get_json_schema(make().look)["function"]
    assert found["name"] == "look"
    assert found["description"] == "Look somewhere."
    assert found["parameters"]["properties"] == {
        "where": {"type": "string", "description": "a place."},
        "times": {"type": "integer", "description": "how often."},
    }
    assert found["parameters"]["required"] == ["where"]
    assert get_json_schema(make().submit)["function"]["parameters"]["required"] == ["value"]


def test_what_counts_is_what_was_handed_in_and_an_episode_ends_once(boxes):
    make, reward = boxes
    first, second, third, fourth = make(), make(), make(), make()
    assert first.look(where="here", times=2) == "saw here 2"
    assert "times" in first.look(where="here", times="often")
    assert first.submit(value=9) == "submitted"
    assert first.submit(value=8) == "error: the episode has ended"
    second.submit(value=8)
    cut = [{"role": "assistant", "content": "", "tool_calls": [{"type": "function"}]}]
    pairs = ((first, says("whatever")), (second, says("9")), (third, says("9")), (fourth, cut))
    assert reward(*pairs) == [1.0, 0.0, 1.0, 0.0]
    assert reward(*pairs) == [1.0, 0.0, 1.0, 0.0]
    first.reset(task="nine")
    assert reward((first, says("8"))) == [0.0]


def test_a_failure_of_the_infrastructure_is_no_reward(boxes):
    make, reward = boxes
    lost, ungraded, well = make(), make(), make()
    assert lost.look(where="nowhere") == "error: the box is gone"
    assert lost.look(where="here") == "error: the box is gone"
    assert ungraded.submit(value=13) == "error: no verdict"
    assert reward((lost, says("9")), (ungraded, says("9")), (well, says("9"))) == [None, None, 1.0]


def test_rows_name_their_task_and_bad_input_is_refused():
    bridge = TrlEnvironments("verigym/Code-v0", sandbox="unsafe")
    rows = bridge.dataset()
    assert rows.num_rows == len(bridge.tasks) > 0
    assert [message["role"] for message in rows[0]["prompt"]] == ["system", "user"]
    assert rows[0]["prompt"][0]["content"] == CodeEnv.system_prompt
    twice = (bridge.tasks[0], bridge.tasks[0])
    with pytest.raises(ConfigError, match="give each its own"):
        TrlEnvironments("verigym/Code-v0", twice, sandbox="unsafe")
    with pytest.raises(ConfigError, match="verigym/Nothing-v0"):
        TrlEnvironments("verigym/Nothing-v0")
