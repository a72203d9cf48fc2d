"""What is not given on the command line of ``verigym eval``: the suite's, a small model's, or the model's own."""

import argparse
import json

import pytest

from verigym.agent.options import sampling_of
from verigym.agent.sources import PolicySource
from verigym.envs.datasets.files import SourceRow
from verigym.errors import ConfigError
from verigym.evals import cli
from verigym.evals.preset import budget, fill
from verigym.evals.suites.mathematics import CWM_SETTINGS
from verigym.evals.suites.registry import suite_named
from verigym.evals.suites.spec import LoadOptions
from verigym.model.families import find


def parsed(*words):
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers())
    return parser.parse_args(["eval", "math500", *words])


def policy(context=None, **generation):
    return PolicySource(name="engine:X", policy_for=lambda env, task: None, max_context=context, generation=generation)


def test_published_settings_are_cut_to_a_small_context_and_that_is_told():
    args = parsed()
    filled = fill(args, CWM_SETTINGS, policy(2048))
    assert (args.max_tokens, args.samples, args.temperature, args.top_p) == (2047, 20, 1.0, 0.95)
    assert budget(args, filled).tokens == 2048
    assert filled.cut == {"max_tokens": (65_536, 2047), "context": (131_072, 2048)}
    assert filled.told() == "cut to the model's context: max_tokens 65,536 -> 2,047, context 131,072 -> 2,048"
    assert sampling_of(args).max_tokens == 2047


def test_a_large_context_and_a_server_leave_them_as_they_are():
    for source in (policy(131_072), policy(None)):
        args = parsed()
        filled = fill(args, CWM_SETTINGS, source)
        assert (args.max_tokens, filled.cut, filled.told()) == (65_536, {}, "")
        assert budget(args, filled).tokens == 131_072
        assert "eval_math.yaml" in filled.sources["temperature"]


def test_small_is_one_greedy_answer():
    args = parsed("--preset", "small")
    filled = fill(args, CWM_SETTINGS, policy(8192))
    assert (args.max_tokens, args.samples, args.temperature, args.max_turns, args.timeout) == (1024, 1, 0.0, 1, 900.0)
    assert budget(args, filled).tokens == 8192
    assert filled.sources["samples"] == "preset small"
    tiny = parsed("--preset", "small")
    assert fill(tiny, None, policy(512)).cut == {"max_tokens": (1024, 511)}
    assert tiny.max_turns == 32


def test_model_is_the_checkpoints_own_sampling():
    args = parsed("--preset", "model", "--top-p", "0.5")
    filled = fill(args, CWM_SETTINGS, policy(40_960, temperature=0.6, top_p=0.95))
    assert (args.max_tokens, args.temperature, args.top_p, args.samples) == (20_480, 0.6, 0.5, 1)
    assert filled.sources == {"temperature": "generation_config.json", "max_tokens": "half of the model's context"}
    assert budget(args, filled).tokens == 40_960
    with pytest.raises(ConfigError, match="--preset model is of engine:CHECKPOINT"):
        fill(parsed("--preset", "model"), CWM_SETTINGS, policy(None))


def test_what_is_given_wins():
    args = parsed("--preset", "small", "--max-tokens", "77", "--temperature", "0.3", "--samples", "4")
    filled = fill(args, CWM_SETTINGS, policy(8192))
    assert (args.max_tokens, args.temperature, args.samples) == (77, 0.3, 4)
    assert "max_tokens" not in filled.sources


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20}, {"temperature": 0.6, "top_p": 0.9}),
        ({"do_sample": False, "temperature": 0.6}, {"temperature": 0.0}),
        ({"eos_token_id": 3}, {}),
    ],
)
def test_a_checkpoints_sampling_is_read(tmp_path, row, found):
    (tmp_path / "generation_config.json").write_text(json.dumps(row))
    assert find.sampling_of(tmp_path) == found
    assert find.sampling_of(tmp_path / "nowhere") == {}


def test_gsm8ks_answers_stand_behind_their_mark():
    rows = [
        SourceRow(where="line 1", value={"question": "1 + 1?", "answer": "Two ones. #### 1,002"}),
        SourceRow(where="line 2", value={"question": "2 + 2?", "answer": "4"}),
    ]
    first, second = suite_named("gsm8k").tasks_of(rows, LoadOptions())
    assert (first.id, first.hidden) == ("gsm8k/0", {"answer": "1002"})
    assert "behind '####'" in second.metadata["no_answer"]
