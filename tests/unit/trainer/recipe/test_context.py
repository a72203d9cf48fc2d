"""How long episodes may be is known before any work: by the model, and by those that read it."""

import pytest

from verigym.errors import CheckpointError, ConfigError
from verigym.model.checkpoint import save_checkpoint
from verigym.model.tokenizer import train_tokenizer
from verigym.trainer.recipe.context import check_context
from verigym.trainer.recipe.load import load_recipe

RECIPE = """name = "x"
[model]
vocab_size = 300
max_context = 64
[[families]]
name = "math"
env = "verigym/Math-v0"
tasks = "small-sums"
[rl.train]
algorithm = "opd"
teacher = "{teacher}"
"""


def test_a_teacher_that_reads_less_than_an_episode_may_have_is_refused(tmp_path, make_decoder):
    tokenizer = train_tokenizer(["a b c"], 300)
    folder, path = tmp_path / "teacher", tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(teacher=folder))
    recipe = load_recipe(path)
    check_context(recipe)  # who is not there is told of by others
    save_checkpoint(folder, make_decoder(vocab_size=tokenizer.vocab_size, max_position_embeddings=64), tokenizer)
    check_context(recipe)
    with pytest.raises(ConfigError, match=r"max_context is 65, and the teacher .* reads 64 tokens at once"):
        check_context(load_recipe(path, ["model.max_context=65"]))
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        check_context(recipe)
