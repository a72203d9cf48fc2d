"""Recipes: what they refuse, and that the message says what to write instead."""

# What a recipe may lack (sft, rl) is there in these, or the test fails.
# pyright: reportOptionalMemberAccess=false, reportAttributeAccessIssue=false

import subprocess
import sys
from pathlib import Path

import pytest

from verigym.errors import ConfigError
from verigym.model.config import preset
from verigym.trainer.recipe.algorithms import ALGORITHMS
from verigym.trainer.recipe.load import load_recipe
from verigym.trainer.recipe.recipe import Recipe

ROOT = Path(__file__).resolve().parents[4]
SMALL = """
name = "small"

[[families]]
name = "math"
env = "verigym/Math-v0"

[rl]
steps = 4
"""


@pytest.fixture
def write(tmp_path):
    def write(text=SMALL):
        (tmp_path / "recipe.toml").write_text(text)
        return tmp_path / "recipe.toml"

    return write


@pytest.mark.parametrize("path", [*(ROOT / "recipes").glob("*.toml"), *ROOT.glob("examples/*/recipe.toml")], ids=str)
def test_ours_can_be_read(path):
    assert isinstance(load_recipe(path), Recipe)


@pytest.mark.parametrize(
    ("sets", "algorithm", "lag"),
    [
        (["rl.train.algorithm=ppo", "rl.train.critic_warmup_steps=1"], "ppo", 1),
        (["rl.asynchronous.max_lag=2"], "grpo", 2),
        (["rl.asynchronous=false"], "grpo", None),
    ],
)
def test_the_quickstart_under_other_algorithms(sets, algorithm, lag):
    rl = load_recipe(ROOT / "recipes" / "quickstart.toml", sets).rl
    assert (rl.train.algorithm, rl.train.num_tasks, rl.train.group_size) == (algorithm, 12, 8)
    assert (rl.asynchronous and rl.asynchronous.max_lag) == lag


def test_the_quick_demo_can_be_read():
    """What `make demo QUICK=1` runs."""
    quick, whole = (load_recipe("quickstart", quick=some) for some in (True, False))
    assert (quick.control, whole.control) == (False, True)
    assert (quick.rl.steps, quick.sft.train.max_steps) < (whole.rl.steps, whole.sft.train.max_steps)
    assert quick.rl.optim.total_steps == quick.rl.steps * quick.rl.train.num_epochs


def test_defaults_are_filled_in(write):
    recipe = load_recipe(write())
    assert (recipe.rl.steps, recipe.rl.train.group_size, recipe.sft is not None) == (4, 8, True)
    assert recipe.num_workers >= 1
    assert load_recipe(write(), ["workers=3"]).num_workers == 3


def test_set_changes_a_value(write):
    recipe = load_recipe(
        write(),
        ["rl.steps=9", "rl.train.scale=std", 'name="other"', "families.0.turns=2", "families.0.experts.empty=0.5"],
    )
    assert (recipe.rl.steps, recipe.rl.train.scale, recipe.name) == (9, "std", "other")
    assert (recipe.families[0].turns, recipe.families[0].experts) == (2, {"empty": 0.5})


def test_a_preset_can_have_other_layers(write):
    assert load_recipe(write()).model.changes == {}
    changed = load_recipe(
        write(), ["model.layer_types=['sliding_attention', 'full_attention']", "model.sliding_window=32"]
    ).model.changes
    config = preset("cwm-tiny", **changed)
    assert (config.num_layers, config.window_of(0), config.window_of(1)) == (2, 32, None)


def test_the_algorithm_is_chosen_by_name(write):
    for name, kind in ALGORITHMS.items():
        more = ["rl.train.teacher='there'"] if name == "opd" else []
        recipe = load_recipe(write(), [f"rl.train.algorithm='{name}'", "rl.train.kl.coef=0.1", *more])
        assert type(recipe.rl.train) is kind
        assert recipe.rl.train.kl.coef == 0.1
        assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_stage_is_left_out_with_false(write):
    recipe = load_recipe(write(SMALL.replace("[rl]\nsteps = 4", "")), ["rl=false"])
    assert (recipe.rl, recipe.sft is not None) == (None, True)
    recipe = load_recipe(write(), ["sft=false", "model.checkpoint=there"])
    assert (recipe.sft, recipe.rl.steps) == (None, 4)


REFUSED = [
    (["families.0.rl={group_size=1}"], "rl of family 'math': group_size is 1; a lone episode has no baseline"),
    (["families.0.rl={scale='std'}", "rl={train={algorithm='dapo'}}"], "scale is no setting of dapo"),
    (["families.0.rl={temperature=0.5}", "rl=false", "control=false"], "settings of rl, and that stage is left out"),
    (["rl.difficulty={low=0.5, high=0.5}"], "no task would be left"),
    (["rl.evaluation={num_tasks=100}"], "lower num_tasks, or raise num_held_out"),
    (["rl.evaluation={samples=2, temperature=0}"], "set samples = 1, or temperature above 0"),
    (["rl.train.max_lag=1"], "rl.train.max_lag is a setting of rl.asynchronous, without which sampling and training"),
    (["rl.max_lag=1"], "move it there"),
    (["decontaminate=['suite.jsonl']"], "no family has one; remove it"),
    (["families.0.format='taco'"], "format means nothing to tasks = 'environment'"),
    # unknown keys, at every depth, with the nearest known one
    (["sed=1"], "unknown key 'sed'; did you mean 'seed'?"),
    (["rl.stps=1"], "unknown key 'rl.stps'; did you mean 'steps'?"),
    (["rl.train.algorithm='grp'"], "algorithm must be one of grpo, dr_grpo, dapo"),
    (["rl.train.critic.kind='head'"], "rl.train.critic is a setting of ppo, not of grpo; remove it, or change"),
    (
        ["rl.train.algorithm='ppo'", "rl.train.critic.knd='head'"],
        "unknown key 'rl.train.critic.knd'; did you mean 'kind'?",
    ),
    (["rl.train.algorithm='rloo'", "rl.train.group_size=1"], "rl.train: group_size is 1"),
    (["rl.train.group_sze=4"], "unknown key 'rl.train.group_sze'; did you mean 'group_size'?"),
    (["families.0.turn=4"], "unknown key 'families.0.turn'; did you mean 'turns'?"),
    (["sft.optim.learning_rate=4"], "unknown key 'sft.optim.learning_rate'; known keys: lr, betas"),
    # values
    (["rl.steps=0"], "rl.steps: Input should be greater than or equal to 1"),
    (["rl.steps=many"], "rl.steps: Input should be a valid integer"),
    (["name=a/b"], "name: String should match pattern"),
    (["families=3"], "families: Input should be a valid list"),
    (["families=[]"], "there is no family of tasks"),
    (["families.0.experts={}"], "experts are {}; each share must be at least 0, and one above it"),
    (["families.0.experts.gold=-1"], "each share must be at least 0"),
    # what does not work together (trap 11)
    (["rl.train.top_p=0.9"], "Set top_p = 1.0"),
    (["rl.train.group_size=1"], "Set it to 2 or more"),
    (["sft=false"], "set model.checkpoint"),
    (["sft=false", "rl=false", "model.checkpoint=x"], "there is no stage; set midtrain, sft, distill or rl"),
    (["families.0.num_demonstrations=0"], "set num_demonstrations of a family above 0"),
    (["families.0.tasks=small-sums", "families.0.num_train=0"], "say how many tasks to make"),
    (["control=true", "rl=false"], "remove control"),
    (["distill={steps=3, train={num_tasks=8}}"], "distill: grpo has no teacher; set distill.train.algorithm to opd"),
    (["distill={train={algorithm='opd', teacher='x'}, evaluation={every=1}}"], "remove distill.evaluation"),
    (["families.0.distill.reward_weight=1"], "has settings of distill, and that stage is left out; remove them"),
    (["teachers.a.policy='engine:x'"], "nobody asks the teacher 'a'"),
    (["teachers.a.policy='server:x'"], "policy is 'server:x'; write 'self', 'ema', 'engine:CHECKPOINT'"),
    (["rl.train={algorithm='opd', teacher='x', teacher_weight=0}"], "learns nothing in rl"),
    (
        ["rl.train={algorithm='opd', teacher='x', hindsight={parts=['verdict'], sample_every=3}}"],
        "family 'math' is 'engine:x', which plays no episodes; leave it out",
    ),
    (["model.checkpoint=x", "model.vocab_size=400"], "remove vocab_size of model"),
    (["model.lora.rank=4"], "model: lora adapts a trained model, and there is none; set model.checkpoint"),
    (["model.checkpoint=x", "model.dtype=bfloat16"], "set model.lora, or model.dtype = 'float32'"),
    (["model.checkpoint=x", "model.lora.dropout=0.1"], "set it to 0, or rl = false"),
    (["model.checkpoint=x", "model.lora.rank=1", "layout.tensor=2"], "every rank has adapters (model.lora) whole"),
    (["rl.train.share_prefixes='on'", "layout.tensor=2"], "2 ranks split the tokens of a pack"),
    (["model.checkpoint=x", "model.lora.alfa=1"], "unknown key 'model.lora.alfa'; did you mean 'alpha'?"),
    (["model.checkpoint=x", "model.sliding_window=4"], "remove layer_types and sliding_window of model"),
    (["engines.tensor_parallel=2"], "engines: count is 0 and there are 0 urls; set count to start servers, or urls"),
    (["engines={count=1, urls=['http://a:1']}"], "count is 1 and there are 1 urls; set count"),
    (["engines={count=2, tensor_parallel=2, gpus=[4, 5, 5]}"], "2 servers of 2 GPUs need 4, and gpus names 2"),
    (["engines={urls=['http://a:1'], gpus=[0], weights='/tmp'}"], "remove them, or urls"),
    (["engines={urls=['http://a:1']}"], "set engines.weights"),
    (["engines.url='http://a:1'"], "unknown key 'engines.url'; did you mean 'urls'?"),
    (["rl.optim.total_steps=9"], "total_steps does nothing in a constant schedule"),
    (["rl.train.num_tasks=0"], "rl.train.num_tasks"),
    # the option itself
    (["rl.steps"], "--set 'rl.steps': KEY=VALUE is expected"),
    (["families.7.turns=3"], "there is no 'families.7.turns' in the recipe"),
    (["families.math.turns=3"], "there is no 'families.math.turns' in the recipe"),
    (["name.first=3"], "there is no 'name.first' in the recipe"),
]


@pytest.mark.parametrize(("overrides", "told"), REFUSED)
def test_what_cannot_be_is_refused_with_the_remedy(write, overrides, told):
    with pytest.raises(ConfigError) as refused:
        load_recipe(write(), overrides)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('\n[[families]]\nname = "math"\nenv = "x/Y-v0"\n', "give each its own"),
        ("\n[rl.train]\nnum_tasks = 1\n" + '[[families]]\nname = "b"\nenv = "x/Y-v0"\n', "every step takes tasks of"),
    ],
)
def test_families_that_do_not_fit_together(write, more, told):
    with pytest.raises(ConfigError, match=told):
        load_recipe(write(SMALL + more))


def test_files_that_cannot_be_read(write, tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: no such recipe; by name there are .*quickstart"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"not readable as TOML \(.*line 1"):
        load_recipe(write("name = \n"))
    with pytest.raises(ConfigError, match="is no run; give a recipe"):
        load_recipe(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not readable"):
        load_recipe(tmp_path / "binary.toml")
    with pytest.raises(ConfigError, match="name: Field required"):
        load_recipe(write(""))


def test_reading_a_recipe_imports_no_torch():
    script = "import sys, verigym.trainer.recipe; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
