"""The documentation as a site: its generated pages say what the code says, and name all of it."""

import argparse
import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from verigym.__main__ import COMMANDS
from verigym.trainer.recipe.algorithms import ALGORITHMS

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "docs" / "_site"
ROOMS = ("rollout", "trainer", "eval")
METRIC = re.compile(rf"(?:{'|'.join(ROOMS)})/[\w*.]+/[\w*]+")


@pytest.fixture
def page(monkeypatch):
    """The text that a module of the site makes."""
    monkeypatch.syspath_prepend(str(SITE))

    def make(name):
        return getattr(importlib.import_module(name), name)()

    yield make
    for name in ("recipe_page", "command_page", "api_page"):
        sys.modules.pop(name, None)


def test_every_setting_of_a_recipe_is_described(page):
    text = page("recipe_page")
    assert [
        line for line in text.splitlines() if line.startswith("| `") and line.rstrip(" |").endswith(("none", "`"))
    ] == []
    for name, kind in ALGORITHMS.items():
        assert f'`[rl.train]` with `algorithm = "{name}"`' in text
        own = set(kind.model_fields) - set(ALGORITHMS["grpo"].model_fields)
        assert all(f"| `{key}` |" in text for key in own)
    for row in (
        "| `lr` | number | `0.0003` | Peak learning rate, after the warm-up. *(above 0)* |",
        '| `env` | text | required | Gymnasium id of the environment; "MODULE:ID" imports the module first. |',
        "| `rl` | table | its defaults |",
    ):
        assert row in text
    assert "`[[families]]`" in text
    assert "``" not in text.replace("```", "")


def test_every_command_and_option_is_described(page):
    text = page("command_page")
    for name in COMMANDS:
        assert f"\n## verigym {name}\n" in text
        parser = importlib.import_module("command_page")._parser_of(name)
        for one, _ in importlib.import_module("command_page").parsers(parser):
            options = [option for action in one._actions for option in action.option_strings[-1:]]
            assert [option for option in options if f"`{option}" not in text and option != "--help"] == []
            assert f"# {one.prog}\n" in text
            assert isinstance(one, argparse.ArgumentParser)
    assert "%(" not in text


def test_public_names_are_there_and_say_what_they_are(page, monkeypatch):
    text = page("api_page")
    public = importlib.import_module("api_page").PUBLIC
    for modules in public.values():
        for module, names in modules.items():
            for name in names:
                assert inspect.getdoc(getattr(importlib.import_module(module), name)), f"{module}.{name}"
                assert f"::: {module}.{name}\n" in text


def metrics_in_code():
    """Patterns of the metrics' names; * stands for what is filled in."""
    for path in [*(ROOT / "trainer").rglob("*.py"), *(ROOT / "envs" / "sandbox").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
                text = re.sub(r"^\*/loop_held", "rollout/loop_held", text)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            if METRIC.fullmatch(text):
                yield text


def test_the_page_of_metrics_names_those_of_the_code_and_no_others():
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    named = {name for name in re.findall(r"`([a-z]+/[^`\s]+)`", text) if name.split("/")[0] in ROOMS}
    named = {name for name in named if len(name.split("/")) == 3}
    known = set(metrics_in_code())
    assert len(known) > 45

    def fits(name, pattern):
        return re.fullmatch(re.escape(pattern).replace(r"\*", "[A-Za-z_.]*"), name) is not None

    assert sorted(pattern for pattern in known if not any(fits(name, pattern) for name in named)) == []
    assert sorted(name for name in named if not any(fits(name, pattern) for pattern in known)) == []


def test_names_that_are_filled_in_are_all_on_the_page():
    """``policy_metrics`` fills "trainer/*/mean"; what it can give is read from where it stands."""
    source = (ROOT / "trainer" / "loops" / "metrics.py").read_text(encoding="utf-8")
    function = next(
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name == "policy_metrics"
    )
    tuples = [node for node in ast.walk(function) if isinstance(node, ast.Tuple)]
    names = {str(one.value) for node in tuples for one in node.elts if isinstance(one, ast.Constant)}
    assert {"loss", "approx_kl", "echo_loss"} <= names
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert [name for name in sorted(names) if f"`trainer/{name}/mean`" not in page] == []


def test_metrics_that_remedies_name_are_on_the_page_of_metrics():
    named, known = (
        set(re.findall(r"`((?:rollout|trainer|eval)/\w+/\w+)`", (ROOT / "docs" / page).read_text(encoding="utf-8")))
        for page in ("wrong.md", "metrics.md")
    )
    assert len(named) > 20
    assert sorted(named - known) == []


def test_the_site_builds_and_asks_no_other_host(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 30
    loads = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=["']?(https?://[^"'\s>]+)""")
    asked = {
        found for path in pages for found in loads.findall(path.read_text(encoding="utf-8")) if "schema" not in found
    }
    assert asked == set()
    style = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.css"))
    assert not re.findall(r"url\(\s*[\"']?https?:", style)
