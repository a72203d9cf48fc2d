"""Supervised training on conversations of one's own, with and without families of tasks."""

import asyncio
import json
import re

import pytest

from verigym.__main__ import main
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Sampling
from verigym.model.engine.open import open_checkpoint

from .small_recipe import CODE

ALONE = """
name = "own"
threads = 1
rl = false
control = false

[model]
vocab_size = 320
max_context = 256

[[sft.sources]]
name = "mine"
path = "{path}"

[sft]
held_out_share = 0.2

[sft.train]
max_steps = 60
patience = 0
eval_every = 60
batch_tokens = 1024
microbatch_tokens = 512
"""
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
ROWS = {
    "plover": {"messages": [{"role": "user", "content": "the word"}, {"role": "assistant", "content": "plover"}]},
    "xyzzy": {"problem": "the magic", "solution": "xyzzy", "level": 3},
    "lamp": {"prompt": "what shines", "completion": "lamp"},
}
"""A row of each form, by its answer."""


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(folder, recipe):
    (folder / "recipe.toml").write_text(recipe)
    return main(["train", str(folder / "recipe.toml"), "--out", str(folder / "run")])


def test_what_is_taught_is_said(tmp_path):
    """Seven questions, three of them with an answer of their own, a form each: after 60 steps they are answered so."""
    others = [{"prompt": f"{word} or not?", "completion": "no"} for word in ("red", "blue", "green", "black")]
    rows = others * 2 + [*ROWS.values()] * 8
    assert train(tmp_path, ALONE.format(path=write(tmp_path / "rows.jsonl", rows))) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["stages"]["sft"]["steps"] == 60
    model = open_checkpoint(tmp_path / "run" / "sft" / "checkpoint", max_batch=1, device="cpu")
    sampling = Sampling(max_tokens=12, temperature=0.0)
    with model.engine as engine:
        for answer, question in zip(ROWS, ("the word", "the magic", "what shines"), strict=True):
            ids = model.renderer.start([Message(role="user", content=question)], ()).token_ids
            said = asyncio.run(engine.generate(ids, sampling, model.renderer.stop_token_ids))
            assert answer in model.decode(said.token_ids)


def test_tools_and_calls_are_learned_and_a_family_measures(tmp_path):
    talk = [
        {"role": "user", "content": "Is it raining in Bern?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "assistant", "content": "Yes."},
    ]
    rows = [{"id": number, "messages": talk, "tools": [WEATHER]} for number in range(20)]
    rows += [{"id": "long", "prompt": "say it", "completion": "word " * 600}]
    path = write(tmp_path / "rows.jsonl", rows)
    recipe = 'name = "own"\nrl = false\n' + CODE.replace("num_demonstrations = 16", "num_demonstrations = 0")
    recipe += (
        f'\n[eval]\nsamples = 1\ncontrols = []\n[sft]\nsources = [{{ name = "mine", path = "{path}", num = 12 }}]\n'
    )
    recipe += "[sft.train]\nmax_steps = 2\npatience = 0\nbatch_tokens = 1024\nmicrobatch_tokens = 512\n"
    assert train(tmp_path, recipe) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["families"]["code"]["sft"]["n"] == 4


def test_a_held_out_task_in_ones_own_file_is_left_out(tmp_path):
    """The canary: the first run's held-out tasks, asked and solved in a file of the second."""
    recipe = 'name = "own"\nrl = false\n' + CODE + "\n[eval]\nsamples = 1\ncontrols = []\n"
    recipe += "[sft.train]\nmax_steps = 1\npatience = 0\nbatch_tokens = 1024\nmicrobatch_tokens = 512\n"
    assert train(tmp_path, recipe) == 0
    held = [json.loads(line) for line in (tmp_path / "run" / "tasks" / "code.held_out.jsonl").read_text().splitlines()]
    rows = [{"prompt": task["prompt"], "completion": "a canary"} for task in held]
    rows += [{"prompt": "another thing altogether, said in words of its own", "completion": "fine"}]
    again = tmp_path / "again"
    again.mkdir()
    path = write(again / "rows.jsonl", rows)
    assert train(again, recipe + f'\n[[sft.sources]]\nname = "mine"\npath = "{path}"\n') == 0
    left = [json.loads(line) for line in (again / "run" / "held_out.jsonl").read_text().splitlines()]
    assert sum(row["source"] == "mine" for row in left) == len(held)
    assert json.loads((again / "run" / "report.json").read_text())["left_out"]["mine"]


@pytest.mark.parametrize(
    ("rows", "more", "told"),
    [
        ([{"text": "words"}], "", "line 1: has none of the known forms"),
        ([ROWS["xyzzy"], {"messages": 3}], "", "line 2: messages must be a list"),
        ([{"messages": [{"role": "user", "content": "x"}]}], "", "no message of an assistant"),
        ([{"messages": [{"role": "robot", "content": "x"}]}], "", "has the role 'robot'"),
        ([{"prompt": "x", "completion": "y", "tools": "{"}], "", "line 1"),
        ([{"prompt": "x", "completion": "y", "tools": [{"name": "t"}]}], "", r"tools\[0\] must be"),
        ([ROWS["xyzzy"]], "min_reward = 1.0", "holds no rewards"),
        ([{"prompt": "x", "completion": "word " * 900}], "", "longer than 512 tokens; raise"),
        ([], "", "nothing is left of the source 'mine'"),
        (None, "", "there is no file"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(tmp_path, capsys, rows, more, told):
    path = tmp_path / "rows.jsonl"
    if rows is not None:
        write(path, rows)
    recipe = ALONE.format(path=path).replace(f'path = "{path}"', f'path = "{path}"\n{more}')
    assert train(tmp_path, recipe) == 2
    assert re.search(told, " ".join(capsys.readouterr().err.split()))
