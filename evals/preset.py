"""Settings of an evaluation that are not given: a suite's published ones, those of small models, or the model's own."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..agent.loop import Budget
from ..agent.options import budget_of
from ..agent.sources import PolicySource
from ..errors import ConfigError
from .suites.spec import Preset

FALLBACK = {"temperature": 1.0, "top_p": 1.0, "max_turns": 32, "max_tokens": 1024, "timeout": 900.0, "samples": 1}
"""Of suites without published settings."""
SMALL = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 1024, "timeout": 900.0, "samples": 1}
"""Of models that answer in a few hundred tokens: one greedy sample, as the authors of small models measure. Turns are
the suite's."""
PRESETS = ("cwm", "small", "model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the settings of an evaluation come from.

    Attributes:
        sources: setting -> its source, of those that were not given and are not the fallback's.
        cut: setting -> (what was wanted, what the model's context leaves of it).
        context: tokens of an episode.
    """

    sources: Mapping[str, str] = field(default_factory=dict)
    cut: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    context: int

    def told(self) -> str:
        """One line for people; empty where nothing was cut."""
        parts = [f"{name} {wanted:,} -> {left:,}" for name, (wanted, left) in self.cut.items()]
        return f"cut to the model's context: {', '.join(parts)}" if parts else ""


def add_preset_option(parser: argparse.ArgumentParser) -> None:
    """--preset, and every setting that a preset may decide left open."""
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        help="what is not given: cwm, the suite's published settings (default); small, one greedy answer of 1,024 "
        "tokens; model, the checkpoint's own sampling and half its context",
    )
    parser.set_defaults(**dict.fromkeys(FALLBACK))


def fill(args: argparse.Namespace, published: Preset | None, source: PolicySource) -> Settings:
    """Set what was not given: to the preset's value, else to the fallback; and cut to the model's context.

    Raises:
        ConfigError: --preset model of a policy that is no checkpoint here.
    """
    values, sources = _values(args, published, source)
    taken = {}
    for name, fallback in FALLBACK.items():
        if getattr(args, name) is None:
            setattr(args, name, values.get(name, fallback))
            if name in sources:
                taken[name] = sources[name]
    limit, cut = source.max_context, {}
    if args.preset == "model" and limit is not None:
        wanted = limit
    elif published is None or args.preset == "small":
        wanted = min(Budget().tokens, limit or Budget().tokens)
    else:
        wanted = published.budget.tokens
    if limit is not None and args.max_tokens >= limit:
        cut["max_tokens"] = (args.max_tokens, limit - 1)
        args.max_tokens = limit - 1
    if limit is not None and wanted > limit:
        cut["context"] = (wanted, limit)
    return Settings(sources=taken, cut=cut, context=wanted if limit is None else min(wanted, limit))


def _values(
    args: argparse.Namespace, published: Preset | None, source: PolicySource
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """(setting -> value, setting -> where that is from) of the preset."""
    turns = {} if published is None else {"max_turns": published.budget.turns}
    if args.preset == "small":
        return SMALL | turns, dict.fromkeys(SMALL, "preset small")
    if args.preset == "model":
        if source.max_context is None:
            raise ConfigError(f"--preset model is of engine:CHECKPOINT, and --policy is {source.name}; leave it out")
        own = {name: value for name, value in source.generation.items() if name in FALLBACK}
        values = {"max_tokens": source.max_context // 2, **own, **turns}
        return values, dict.fromkeys(own, "generation_config.json") | {"max_tokens": "half of the model's context"}
    if published is None:
        return {}, {}
    sampling = published.sampling
    values = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_turns": published.budget.turns,
        "max_tokens": sampling.max_tokens,
        "timeout": published.budget.seconds,
        "samples": 1 if args.greedy else published.samples,
    }
    return values, published.sources


def budget(args: argparse.Namespace, settings: Settings) -> Budget:
    """The budget of the options; the context's size is the preset's, or the model's where that is smaller.

    Raises:
        ConfigError: as ``budget_of``.
    """
    return replace(budget_of(args), tokens=settings.context)
