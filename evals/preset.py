"""Published settings of a suite as the defaults of the command line."""

import argparse
from dataclasses import replace
from typing import Any

from ..agent.loop import Budget
from ..agent.options import budget_of
from .suites.spec import Preset

FALLBACK = {"temperature": 1.0, "top_p": 1.0, "max_turns": 32, "max_tokens": 1024, "timeout": 900.0, "samples": 1}
"""Of suites without published settings."""


def leave_open(parser: argparse.ArgumentParser) -> None:
    """Let the suite decide what is not given."""
    parser.set_defaults(**dict.fromkeys(FALLBACK))


def fill(args: argparse.Namespace, preset: Preset | None) -> dict[str, str]:
    """Set what was not given: to the preset's value, else to the fallback.

    Returns:
        Setting -> its source, of those that came from the preset.
    """
    published: dict[str, Any] = {}
    if preset is not None:
        published = {
            "temperature": preset.sampling.temperature,
            "top_p": preset.sampling.top_p,
            "max_turns": preset.budget.turns,
            "max_tokens": preset.sampling.max_tokens,
            "timeout": preset.budget.seconds,
            "samples": 1 if args.greedy else preset.samples,
        }
    taken = {}
    for name, fallback in FALLBACK.items():
        if getattr(args, name) is None:
            setattr(args, name, published.get(name, fallback))
            if preset is not None and name in preset.sources:
                taken[name] = preset.sources[name]
    return taken


def budget(args: argparse.Namespace, preset: Preset | None) -> Budget:
    """The budget of the options; the context's size is the preset's.

    Raises:
        ConfigError: as ``budget_of``.
    """
    given = budget_of(args)
    return given if preset is None else replace(given, tokens=preset.budget.tokens)
