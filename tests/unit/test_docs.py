"""What the documents tell people to type: commands parse, files exist, examples are those in the repository."""

import re
import shlex
from pathlib import Path

import pytest

from verigym.__main__ import COMMANDS, build_parser, main
from verigym.trainer.recipe.packaged import packaged_examples, packaged_recipes

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OTHER_PROGRAMS = {"make", "source", "pip", "git"}
MADE = {f"reference/{name}.md" for name in ("api", "commands", "recipes")}
"""Pages that the site makes: tests/unit/test_site.py."""
CHEAP = {"verigym doctor", "verigym rollout verigym/SWE-v0 --policy gold"}


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.M | re.S)


def commands_of(path):
    text = "\n".join(blocks(path, "console")).replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in text.splitlines() if line.strip() and not line.startswith("#")]


COMMANDS_IN_DOCUMENTS = [
    pytest.param(path, line, id=f"{path.relative_to(ROOT)}: {line}") for path in DOCUMENTS for line in commands_of(path)
]


@pytest.mark.parametrize(("path", "line"), COMMANDS_IN_DOCUMENTS)
def test_a_command_can_be_typed(path, line):
    program, *words = shlex.split(line, comments=True)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert [word for word in words if "=" not in word and word not in targets] == []
    elif program == "verigym":
        args = build_parser(words[0]).parse_args(words)
        assert words[0] in COMMANDS
        assert_files_exist(path, line, words)
        assert callable(args.run)
    else:
        assert program in OTHER_PROGRAMS
        assert [word for word in words if word.startswith("examples/") and not (ROOT / word).exists()] == []


def assert_files_exist(path, line, words):
    """A file is in the repository, or an earlier command of the document wrote it."""
    lines = commands_of(path)
    earlier = lines[: lines.index(line) + 1]
    written = [word for one in earlier for word in re.findall(r"--out (\S+)", one)]
    copied = [word for one in earlier for word in re.findall(r"recipes copy ([\w-]+)", one)]
    written += [file.name for name, file in {**packaged_recipes(), **packaged_examples()}.items() if name in copied]
    if words[0] in ("train", "plan") and words[1] in packaged_recipes():
        words = words[2:]
    for word in words:
        name = word.removeprefix("engine:")
        if re.search(r"\.(toml|jsonl|py)$", name) or name != word:
            assert (ROOT / name).exists() or name.startswith(tuple(written)), f"{name} is nowhere"


def test_there_are_commands_and_the_cheap_ones_are_among_them():
    assert {param.values[1] for param in COMMANDS_IN_DOCUMENTS} >= CHEAP


@pytest.mark.parametrize("line", sorted(CHEAP))
def test_cheap_commands_run(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status = main(shlex.split(line)[1:])
    told = capsys.readouterr()
    if "no sandbox works" in told.err:
        pytest.skip(told.err)
    assert (status, told.err) == (0, "")
    assert told.out


@pytest.mark.slow
def test_every_command_of_the_tour_runs(tmp_path, monkeypatch):
    """In the document's order, in a folder of its own; some need the network."""
    monkeypatch.chdir(tmp_path)
    for line in commands_of(ROOT / "docs" / "tour.md"):
        program, *words = shlex.split(line, comments=True)
        if program == "verigym":
            assert main(words) == 0, line


def test_the_example_is_the_one_in_the_repository():
    shown = blocks(ROOT / "docs" / "environments.md", "python")[0]
    assert shown == (ROOT / "examples" / "verigym-secret" / "verigym_secret.py").read_text()
    (entry,) = blocks(ROOT / "docs" / "environments.md", "toml")
    assert entry in (ROOT / "examples" / "verigym-secret" / "pyproject.toml").read_text()


def test_the_sandbox_of_ones_own_is_the_one_in_the_repository():
    (shown,) = blocks(ROOT / "docs" / "sandboxes.md", "python")
    assert shown == (ROOT / "examples" / "verigym-prefix" / "verigym_prefix.py").read_text()
    (entry,) = blocks(ROOT / "docs" / "sandboxes.md", "toml")
    assert entry in (ROOT / "examples" / "verigym-prefix" / "pyproject.toml").read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        is_made = path.parent == ROOT / "docs" and link in MADE
        assert link.startswith("http") or (path.parent / link).exists() or is_made, link


NAMES = ("tour", "environments", "rewards", "dialogues", "adapters", "agents")


@pytest.mark.parametrize("path", [ROOT / "docs" / f"{name}.md" for name in NAMES], ids=lambda path: path.name)
def test_python_runs(path, monkeypatch):
    """All of a document's blocks, one after the other, as a reader would; where a library is missing, without them."""
    import gymnasium

    from verigym.errors import ConfigError, SandboxError

    monkeypatch.syspath_prepend(str(ROOT / "examples" / "verigym-secret"))
    scope = {"__name__": "document"}
    before = set(gymnasium.registry)
    for block in blocks(path, "python"):
        try:
            exec(compile(block, str(path), "exec"), scope)
        except SandboxError as error:
            pytest.skip(f"no sandbox works here: {error}")
        except ConfigError as error:
            if "pip install" not in str(error):
                raise
        if "SecretEnv" in scope and "secret/Secret-v0" not in gymnasium.registry:
            gymnasium.register(id="secret/Secret-v0", entry_point=scope["SecretEnv"], disable_env_checker=True)
    for env_id in set(gymnasium.registry) - before:
        del gymnasium.registry[env_id]
