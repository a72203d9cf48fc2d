"""What pytest is told of the base commit's own settings: options that change what a test is are kept, options that
choose, repeat, stop or spread tests are not.

Part of the program that runs in the sandbox (``testing_guest.py``): standard library and pytest only.
"""

import os
import shlex
from pathlib import Path
from typing import Any

CONFIGURATIONS = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
KEPT_FLAGS = frozenset(
    {"--doctest-modules", "--doctest-ignore-import-errors", "--doctest-continue-on-failure"}
    | {"--noconftest", "--runxfail", "--keep-duplicates", "-s"}
)
KEPT_VALUES = frozenset(
    ("--doctest-glob", "--import-mode", "--assert", "-W", "--pythonwarnings", "-o", "--override-ini", "--capture", "-p")
)
SILENT = (
    *("--tb", "--color", "--durations", "--no-header", "--no-summary", "--showlocals", "--verbose", "--quiet"),
    *(
        "--disable-warnings",
        "--disable-pytest-warnings",
        "--show-capture",
        "--full-trace",
        "--junit",
        "--code-highlight",
    ),
)
"""Options of what is printed: dropped, and nobody misses them."""

STEERING = (
    *("--maxfail", "--exitfirst", "--lf", "--last-failed", "--ff", "--failed-first", "--nf", "--new-first", "--sw"),
    *("--stepwise", "--collect-only", "--co", "--numprocesses", "--dist", "--tx", "--reruns", "--deselect", "--ignore"),
    *("--cov", "--no-cov", "--randomly", "--random-order", "--count", "--repeat", "--flake", "--forked", "--boxed"),
)
"""Beginnings of plugins' and pytest's options that choose, repeat, stop or spread tests: never kept."""


def base_addopts(workdir, files):
    """``addopts`` of the configuration that pytest takes for these files, as words."""
    from _pytest.config.findpaths import load_config_dict_from_file

    folder = os.path.commonpath([os.path.dirname(os.path.join(workdir, path)) for path in files])
    while True:
        for name in CONFIGURATIONS:
            path = os.path.join(folder, name)
            if not os.path.isfile(path):
                continue
            try:
                found = load_config_dict_from_file(Path(path))
            except Exception:  # pytest will say so itself
                return []
            if found is not None:
                value: Any = getattr(found.get("addopts", ""), "value", found.get("addopts", ""))
                return shlex.split(value) if isinstance(value, str) else list(value or ())
        if folder == workdir or len(folder) <= len(workdir):
            return []
        folder = os.path.dirname(folder)


def grouped(words):
    """[option with its value's words, ...]: "-p no:x --tb short" -> [["-p", "no:x"], ["--tb", "short"]]."""
    groups = []
    for word in words:
        if (word.startswith("-") and word != "-") or not groups:
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def keep(words, known):
    """(options to give pytest, options dropped that could matter) of a base's ``addopts``.

    Args:
        known: () -> names of the options of the plugins that this run loads.
    """
    kept, dropped, plugins = [], [], None
    for group in grouped(words):
        name, _, value = group[0].partition("=")
        if not name.startswith("--") and len(name) > 2 and name[:2] in ("-p", "-W", "-o"):
            name, value, group = name[:2], group[0][2:], [name[:2], group[0][2:]]
        value = value or "".join(group[1:2])
        if name in KEPT_FLAGS:
            kept.append(group[0])
            dropped += group[1:]
        elif name in KEPT_VALUES:
            if (name, value) == ("-p", "no:cacheprovider") or value.startswith("addopts"):
                continue
            kept += group[:2] if "=" not in group[0] else group[:1]
        elif name.startswith(SILENT) or (not name.startswith("--") and set(name[1:2]) <= set("vqrl")):
            continue
        elif name.startswith(STEERING) or not name.startswith("--"):
            dropped.append(" ".join(group))
        else:
            plugins = known() if plugins is None else plugins
            if name in plugins:
                kept += group
            else:
                dropped.append(" ".join(group))
    return kept, dropped


def plugin_options(plugins):
    """Names of the options that these plugins add to pytest's; none where this pytest does not tell."""
    try:
        from _pytest.config import get_config

        config = get_config()

        def names():
            groups = [config._parser._anonymous, *config._parser._groups]
            return {name for group in groups for option in group.options for name in option.names()}

        before = names()
        for name in plugins:
            config.pluginmanager.import_plugin(name)
        return names() - before
    except Exception:  # pytest's inside differs from version to version
        return set()
