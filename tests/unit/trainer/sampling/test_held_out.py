"""What is held out is in no document of any stage: a canary of each family, planted in each kind of source."""

import asyncio
import json
import random
from dataclasses import replace

import pytest

from verigym.agent.identity import Identity, identity_of
from verigym.agent.trajectory import Trajectory
from verigym.agent.tree import MessageTree, Node
from verigym.envs.registry.opening import read_any_tasks
from verigym.envs.synthesis.small_tasks import write_small_repository_tasks
from verigym.envs.task import Task, write_jsonl
from verigym.envs.trace.examples import Example
from verigym.envs.trace.run import TraceJob, context_of
from verigym.envs.trace.shards import write_shards
from verigym.errors import TaskError
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.trace import Frame, Trace
from verigym.trainer.recipe.recipe import Recipe
from verigym.trainer.run.stages import midtrain, sft
from verigym.trainer.run.train import train
from verigym.trainer.sampling.held_out import HeldOut, keep_apart
from verigym.trainer.sampling.left_out import Account

MATH = "A canary sings zephyr nine times at dawn and quince four times at dusk; how many songs are sung in five days?"
FIX = "    return [zephyr for zephyr in sorted(quince) if zephyr is not None]"
PATCH = f"diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n def f(quince):\n-    return []\n+{FIX}\n"
SOLUTION = "zephyr = [int(quince) for quince in input().split()]\nprint(sum(zephyr) * 41)\n"
PROGRAM = "def zephyr(quince):\n    total = quince * 3\n    return total - 41\n"

HELD = {
    "math": Task(id="held-math", family="math", prompt=MATH, hidden={"answer": "65"}),
    "code": Task(
        id="held-code",
        family="code",
        prompt="Read the zephyr numbers from one line and print the quince of their sum, times forty-one.",
        hidden={"tests": [{"input": "1 2\n", "output": "123\n"}], "solution": SOLUTION},
    ),
    "trace": Task(
        id="held-trace",
        family="trace",
        prompt="",
        hidden={"program": PROGRAM, "call": "zephyr(5)", "ask": "return", "answer": "[ANSWER]-26[/ANSWER]"},
    ),
    "swe": Task(
        id="held__swe-1",
        family="swe",
        prompt="",
        hidden={
            "instance_id": "held__swe-1",
            "repo": "zephyr/quince",
            "base_commit": "c0ffee",
            "problem_statement": "Sorting a quince drops every zephyr that comes after the first one which is None.",
            "patch": PATCH,
        },
    ),
}
OTHERS = {
    "math": [
        Task(
            id=f"math-{n}",
            family="math",
            prompt=f"A pigeon coos {n} times at dawn and {n} times at noon; how often does it coo in a week of rain?",
            hidden={"answer": str(14 * n)},
        )
        for n in range(2, 8)
    ],
    "code": [
        Task(
            id=f"code-{n}",
            family="code",
            prompt=f"Read numbers from one line and print the sum of all that are above the bound, which is {n} here.",
            hidden={
                "tests": [{"input": f"{n} 99\n", "output": "99\n"}],
                "solution": f"print(sum(x for x in map(int, input().split()) if x > {n}))\n",
            },
        )
        for n in range(2, 8)
    ],
    "trace": [
        Task(
            id=f"trace-{n}",
            family="trace",
            prompt="",
            hidden={
                "program": f"def f(x):\n    y = x + {n}\n    return y\n",
                "call": "f(1)",
                "ask": "return",
                "answer": f"[ANSWER]{1 + n}[/ANSWER]",
            },
        )
        for n in range(6)
    ],
}


def episode(task, answer, task_id=None, asked=None):
    messages = (Message(role="user", content=asked or task.prompt), Message(role="assistant", content=answer))
    return Trajectory(task_id=task_id or task.id, family=task.family, ending="answered", messages=messages)


HELD_OUT = HeldOut(list(HELD.values()), trained=[task for some in OTHERS.values() for task in some])
QUESTION = f"```python\n{PROGRAM}```\n\nWhat does `zephyr(5)` return? Answer with one literal."

PLANTED = {
    # By the task itself, and by what a file says of it.
    "math, its task": (episode(HELD["math"], "65"), None),
    "code, its task": (episode(HELD["code"], SOLUTION), None),
    "trace, its task": (episode(HELD["trace"], "-26", asked=QUESTION), None),
    "swe, its task": (episode(HELD["swe"], "done", asked="Mend it."), None),
    "math, another's id": (episode(HELD["math"], "65", "x"), None),
    "code, another's id": (episode(HELD["code"], SOLUTION, "x"), None),
    "trace, another's id": (episode(HELD["trace"], "-26", "x", QUESTION), None),
    "trace, other names": (
        episode(
            HELD["trace"], "-26", "x", QUESTION.replace("zephyr", "f").replace("quince", "a").replace("total", "b")
        ),
        None,
    ),
    "trace, bare": (episode(HELD["trace"], "-26", "x", f"{PROGRAM}zephyr(8)\n"), None),
    "math, in other words around it": (
        episode(HELD["math"], "65", "x", f"Think well.\n\n{MATH}\n\nAnswer alone."),
        None,
    ),
    "math, a near twin": (
        episode(HELD["math"], "65", "x", MATH.replace("A canary sings", "Every day, one canary sang")),
        None,
    ),
    "code, the gold answer": (episode(OTHERS["code"][0], SOLUTION, "x"), None),
    "code, the gold answer by other names": (
        episode(OTHERS["code"][0], SOLUTION.replace("zephyr", "a").replace("quince", "b"), "x"),
        None,
    ),
    "swe, the statement": (
        episode(HELD["swe"], "done", "x", f"Fix this: {HELD['swe'].hidden['problem_statement']}"),
        None,
    ),
    "swe, the patch": (episode(HELD["swe"], PATCH, "x", "Mend it."), None),
    "swe, the file as it will be": (episode(HELD["swe"], f"   1\tdef f(quince):\n   2\t{FIX}\n", "x", "Look."), None),
    "swe, the repository at that commit": (
        episode(HELD["swe"], "done", "x", "Mend it."),
        Identity(statement="Another thing.", repository="quince", commit="c0ffee"),
    ),
    "trace, told by the file": (
        episode(HELD["trace"], "-26", "x", "What does it return?"),
        identity_of(HELD["trace"]),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_an_episode_of_what_is_held_out_is_found(name):
    trajectory, identity = PLANTED[name]
    found = HELD_OUT.of_episode(trajectory, identity)
    assert found is not None
    assert found[1] == HELD[name.partition(",")[0]].id


def numbered(text, form):
    return "\n".join(form.format(number, line) for number, line in enumerate(text.rstrip().split("\n"), 1)) + "\n"


ADDED = "--- /dev/null\n+++ b/z.py\n@@ -0,0 +1,3 @@\n" + "".join(f"+{line}\n" for line in PROGRAM.splitlines())
SHOWN = {
    "behind numbers": numbered(PROGRAM, "{:6}\t{}"),
    "behind numbers, by other names": numbered(PROGRAM.replace("zephyr", "a").replace("quince", "b"), "{:6}\t{}"),
    "behind numbers and colons": numbered(PROGRAM, "{}: {}"),
    "found by a search": numbered(PROGRAM, "./pkg/a.py:{}:{}"),
    "typed": ">>> def f(a):\n...     b = a * 3\n...     return b - 41\n>>> f(5)\n",
    "quoted": numbered(PROGRAM, "> {1}"),
    "as a patch": ADDED,
    "as a patch that removes it": ADDED.replace("\n+", "\n-"),
    "as a here-document": f"```bash\ncat > a.py <<'EOF'\n{SOLUTION}EOF\npython a.py\n```",
    "as a function": "def main():\n    " + SOLUTION.strip().replace("\n", "\n    ") + "\n\nmain()\n",
    "where it is run": "if __name__ == '__main__':\n    " + SOLUTION.strip().replace("\n", "\n    ") + "\n",
    "a fix that a search finds": f"./pkg/a.py:12:{FIX}\n",
    "a fix beside what a search finds": f"pkg/a.py-12-{FIX}\n",
    "a fix that is taken back": f"-{FIX}\n+    return []\n",
}


@pytest.mark.parametrize("name", SHOWN)
def test_however_a_text_shows_it(name):
    task = Task(id="x", family="code", prompt="Look.", hidden={})
    assert HELD_OUT.of_episode(episode(task, "Well.", asked=SHOWN[name])) is not None
    thought = Message(role="assistant", content="Well.", thinking=SHOWN[name])
    assert HELD_OUT.of_episode(replace(episode(task, "ok"), messages=(thought,))) is not None


def test_a_call_that_writes_the_gold_patch_is_found():
    call = ToolCall(id="1", name="edit", arguments={"path": "a.py", "edits": [{"old": "    return []", "new": FIX}]})
    messages = (Message(role="user", content="Mend it."), Message(role="assistant", content="", calls=(call,)))
    found = HELD_OUT.of_episode(Trajectory(task_id="x", family="swe", ending="submitted", messages=messages))
    assert found == ("patch", "held__swe-1")


def test_a_branch_that_an_agent_left_is_looked_at():
    """An agent of others that saw it, and then began anew."""
    left, last = Message(role="user", content=f"+{FIX}"), Message(role="user", content="Mend it.")
    tree = MessageTree((Node(parent=-1, messages=(left,)), Node(parent=-1, messages=(last,))))
    seen = Trajectory(task_id="x", family="swe", ending="submitted", messages=(last,), tree=tree)
    assert HELD_OUT.of_episode(seen) == ("patch", "held__swe-1")


@pytest.mark.parametrize("family", OTHERS)
def test_everything_else_is_learned(family):
    for task in OTHERS[family]:
        asked = f"```python\n{task.hidden['program']}```\nWhat does f(1) return?" if family == "trace" else task.prompt
        one = episode(task, task.hidden.get("answer") or task.hidden["solution"], asked=asked)
        assert HELD_OUT.of_task(task) is None
        assert HELD_OUT.of_episode(one, identity_of(task)) is None
        assert HELD_OUT.of_episode(replace(one, task_id="elsewhere"), identity_of(task)) is None


def trace_of(source, call="f(1)"):
    context = context_of(TraceJob(source=source, call=call))
    frames = (Frame(event="call", source="def main():\n"), Frame(event="return", source="    return 1\n", value="1"))
    return Trace(context=context, frames=frames)


@pytest.mark.parametrize(
    ("kind", "origin", "source", "reason"),
    [
        ("small-programs", "small-programs/0/1", PROGRAM, "program"),
        ("small-programs", "small-programs/0/1", PROGRAM.replace("zephyr", "g").replace("quince", "h"), "program"),
        ("programs", "programs/0/1", f"import re\n\n\ndef other(a):\n    return re\n\n\n{PROGRAM}", "program"),
        ("programs", "programs/0/1", SOLUTION, "program"),
        ("library", "Quince==1.0 quince/a.py:g", "def g():\n    return 1\n", "repository"),
        ("library", "other==1.0 other/a.py:f", f"def f(quince):\n{FIX}\n", "patch"),
        ("library", "other==1.0 other/a.py:f", f'def f(a):\n    """{MATH}"""\n    return a\n', "statement"),
        ("library", "other==1.0 other/a.py:f", "def f(x):\n    return [x for x in sorted(x)]\n", None),
        ("small-programs", "small-programs/0/1", PROGRAM.replace("41", "40"), None),
    ],
)
def test_traces(kind, origin, source, reason):
    example = Example(trace=trace_of(source), kind=kind, origin=origin, function="f")
    found = HELD_OUT.of_example(example)
    assert (found and found[0]) == reason


def test_what_evaluation_suites_ask_is_held_out_of_every_source():
    suite = [
        {"id": "crux-1", "code": PROGRAM, "input": "5", "output": "-26"},
        {"unique_id": "math-1", "problem": MATH, "answer": "65"},
        {"instance_id": "held__swe-1", **HELD["swe"].hidden},
        {
            "task_id": "HumanEval/1",
            "prompt": PROGRAM.splitlines()[0] + "\n",
            "canonical_solution": "    return 8 * 8\n",
        },
    ]
    held_out = HeldOut([], suites=suite)
    for name in ("trace, bare", "math, another's id", "swe, the statement", "swe, the patch"):
        assert held_out.of_episode(PLANTED[name][0]), name
    other = Identity(statement="Quite another thing.", repository="quince", commit="beef")
    assert held_out.of_episode(episode(HELD["swe"], "x", "y", "z"), other) == ("repository", "held__swe-1")
    assert held_out.of_example(
        Example(trace=trace_of("def g(q):\n    return 8 * 8\n"), kind="programs", origin="", function="g")
    ) == ("program", "HumanEval/1")


def test_a_training_set_that_holds_what_another_family_holds_out():
    class Config:
        name, tasks = "b", "rows.jsonl"

    twin = replace(HELD["trace"], id="mine", hidden={**HELD["trace"].hidden, "ask": "next", "call": "zephyr(7)"})
    families = [
        made_family(Config, OTHERS["trace"][:3], [HELD["trace"]]),
        made_family(Config, [*OTHERS["trace"][3:], twin], OTHERS["math"][:1]),
    ]
    account = Account()
    first, second = keep_apart(families, (), account)
    assert first.train == tuple(OTHERS["trace"][:3])
    assert second.train == tuple(OTHERS["trace"][3:])
    assert account.counts() == {"tasks of b": {"program": 1}}
    with pytest.raises(TaskError, match="every training task"):
        keep_apart([made_family(Config, [twin], [HELD["trace"]])], (), Account())


def test_small_repositories_are_told_apart_by_their_fixes(tmp_path):
    """Their reports name a file, which repositories of both splits have."""

    class Config:
        name, tasks = "swe", "small-repositories"

    made = {}
    for held_out in (False, True):
        path = tmp_path / f"{held_out}.jsonl"
        asyncio.run(write_small_repository_tasks(path, num=24, seed=0, held_out=held_out, workers=2))
        made[held_out] = list(read_any_tasks(path))
    assert {task.prompt for task in made[True]} & {task.prompt for task in made[False]}
    account = Account()
    twin = replace(made[True][3], id="twin")
    (family,) = keep_apart([made_family(Config, [*made[False], twin], made[True])], (), account)
    left_out = [task for task in made[False] if task not in family.train]
    assert all(fix_of(task) in fixes(made[True]) for task in left_out)
    assert account.counts()["tasks of swe"]["commit"] == 1
    assert len(family.train) >= 20


def fixes(tasks):
    return {fix_of(task) for task in tasks}


def fix_of(task):
    return identity_of(task).fix


def made_family(config, train, held_out):
    from verigym.trainer.sampling.families import Family

    return Family(
        config=config,
        train=tuple(train),
        held_out=tuple(held_out),
        make_env=lambda: None,  # type: ignore[arg-type, return-value]
        tools=(),
        experts={},
        trivial=None,
        seconds=1.0,
    )


def run_recipe(tmp_path, monkeypatch):
    """A run whose every source has a canary of each family; the words of every document, by stage, and its folder."""
    families = []
    for name, env in (("math", "Math-v0"), ("code", "Code-v0"), ("trace", "Trace-v0")):
        # The last is the one that is held out by another id: the training set itself is contaminated.
        twin = replace(HELD[name], id="copy")
        write_jsonl(tmp_path / f"{name}.jsonl", (task.to_json() for task in [*OTHERS[name], HELD[name], twin]))
        family = {"name": name, "env": f"verigym/{env}", "tasks": str(tmp_path / f"{name}.jsonl")}
        families.append({**family, "num_train": 0, "num_held_out": 1, "num_demonstrations": 8, "turns": 1})
    rows = [
        {"env": f"verigym/{one.family.title()}-v0", "task": identity.to_json() if identity else None}
        | {"trajectory": one.to_json()}
        for name, (one, identity) in PLANTED.items()
        if not name.startswith("swe")
    ]
    others = [episode(task, "no", f"{task.id}-again") for name in ("math", "code") for task in OTHERS[name]]
    rows += [{"env": f"verigym/{one.family.title()}-v0", "trajectory": one.to_json()} for one in others]
    write_jsonl(tmp_path / "foraged.jsonl", rows)
    programs = [PROGRAM, SOLUTION, *(task.hidden["program"] for task in OTHERS["trace"])]
    traces = [
        Example(trace=trace_of(one), kind="programs", origin=f"p/0/{n}", function="f") for n, one in enumerate(programs)
    ]
    write_shards(tmp_path / "traces", traces, about={})
    recipe = Recipe.model_validate(
        {
            "name": "canary",
            "seed": seed_that_holds_out(6, 8),
            "sandbox": "unsafe",
            "threads": 1,
            "model": {"vocab_size": 400, "max_context": 512},
            "families": families,
            "midtrain": {
                "sources": [
                    {"name": "foraged", "trajectories": str(tmp_path / "foraged.jsonl")},
                    {"name": "traces", "traces": str(tmp_path / "traces")},
                    {"name": "played", "demonstrations": True},
                ],
                "train": {"max_steps": 1, "patience": 0, "batch_tokens": 1024, "microbatch_tokens": 1024},
            },
            "sft": {"train": {"max_steps": 1, "patience": 0, "batch_tokens": 1024, "microbatch_tokens": 1024}},
            "rl": False,
            "eval": {"samples": 1, "greedy": False, "controls": []},
        }
    )
    told = {}
    for module, name in ((midtrain, "Midtrain"), (sft, "SFT")):
        monkeypatch.setattr(module, name, spy(getattr(module, name), name, told))
    train(recipe, tmp_path / "run")
    return told, tmp_path / "run"


def seed_that_holds_out(place, count):
    """Of ``count`` tasks the split holds out the first after shuffling."""
    for seed in range(1000):
        order = list(range(count))
        random.Random(seed).shuffle(order)
        if order[0] == place:
            return seed
    raise AssertionError("no such seed")


def spy(kind, name, told):
    class Spied(kind):
        def __init__(self, decoder, material, *rest, **named):
            told[name] = material
            super().__init__(decoder, material, *rest, **named)

    return Spied


def test_a_canary_of_each_family_in_each_source_is_in_no_document(tmp_path, monkeypatch):
    told, out = run_recipe(tmp_path, monkeypatch)
    from verigym.model.checkpoint import load_checkpoint

    _, tokenizer = load_checkpoint(out / "sft" / "checkpoint")
    documents = [one for some in told["Midtrain"].values() for one in some]
    texts = [tokenizer.decode([int(one.token_ids[0]), *map(int, one.targets)]) for one in documents]
    texts += [message.content for one in told["SFT"] for message in one.messages]
    assert not [text for text in texts if "zephyr" in text or "quince" in text or "total - 41" in text]
    # What is not held out is there, of each source.
    assert {name: len(some) > 0 for name, some in told["Midtrain"].items()} == dict.fromkeys(told["Midtrain"], True)
    assert any("pigeon" in text for text in texts)
    assert any("y = x + 3" in text for text in texts)
    left_out = json.loads((out / "report.json").read_text())["left_out"]
    assert left_out["traces"] == {"program": 2}
    assert sum(left_out["foraged"].values()) == sum(not name.startswith("swe") for name in PLANTED)
    for name in ("math", "code", "trace"):
        assert sum(left_out[f"tasks of {name}"].values()) == 1
    rows = [json.loads(line) for line in (out / "held_out.jsonl").read_text().splitlines()]
    assert {row["like"] for row in rows} == {"held-math", "held-code", "held-trace"}
