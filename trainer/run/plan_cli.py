"""``verigym plan``. Heavy imports wait until it runs."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...terminal import console
from ..recipe.config import LayoutConfig

if TYPE_CHECKING:
    from ...model.config import DecoderConfig
    from ...model.parallel.layout import Layout
    from ...model.plan.trace import Teaching
    from ..recipe.recipe import Recipe


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of ``verigym``."""
    parser = commands.add_parser(
        "plan",
        help="say what a recipe's training step needs on a cluster",
        description="Trace one training step of the whole model under fake tensors: memory, work and communication.",
    )
    parser.add_argument(
        "recipe", help="a TOML recipe, or the name of one that comes along (verigym recipes list), as cwm-32b-grpo"
    )
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change a value of the recipe"
    )
    parser.add_argument("--gpus", type=int, required=True, metavar="N", help="GPUs in all")
    parser.add_argument(
        "--tokens", type=int, metavar="N", help="tokens of a pack (default: rl.train.microbatch_tokens)"
    )
    parser.add_argument("--tensor", "--tp", type=int, metavar="N", help="in the place of the recipe's layout.tensor")
    parser.add_argument("--context", "--cp", type=int, metavar="N", help="in the place of layout.context")
    parser.add_argument("--recompute", choices=("none", "selective", "full"), help="in the place of layout.recompute")
    parser.add_argument("--hardware", choices=("h100", "h200"), default="h100", help="speeds to estimate with")
    parser.add_argument(
        "--memory", type=float, metavar="GIB", help="also find the cheapest layout that fits a GPU's GIB"
    )
    parser.add_argument("--quick", action="store_true", help="trace 4 and 8 layers, and add up the others")
    parser.add_argument(
        "--skip-naive", action="store_true", help="leave out the comparison with unfused log-probabilities"
    )
    parser.add_argument(
        "--rollouts",
        type=Path,
        metavar="FILE",
        help="simulate whole steps instead: what episodes, engines and updates take, stated in a TOML file, or the "
        "folder of a run that measured them; says the best split of 64 to --gpus GPUs between training and sampling",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=_plan)


def _plan(args: argparse.Namespace) -> int:
    from ...model.plan.estimate import HARDWARE, step_time
    from ...model.plan.report import plan_row, plan_table
    from ...model.plan.search import cheapest, trace_by_period
    from ...model.plan.trace import Head, trace_step
    from ..recipe.layouts import model_config, why_theirs
    from ..recipe.load import load_recipe

    recipe = load_recipe(args.recipe, args.overrides)
    if args.rollouts is not None:
        from .plan_rollouts import plan_rollouts

        return plan_rollouts(recipe, args.rollouts, args.gpus, as_json=args.json)
    if (reason := why_theirs(recipe)) is not None:
        raise ConfigError(
            f"the step of a model that runs in transformers' own code cannot be traced, and {recipe.model.checkpoint} "
            f"does ({reason}); what its weights take on a rank: verigym train {args.recipe} --dry-run --ranks "
            f"{args.gpus}"
        )
    config = model_config(recipe)
    layout = _layout(recipe, args)
    tokens = max((stage.train.microbatch_tokens for stage in recipe.sampled_stages), default=recipe.model.max_context)
    if args.tokens is not None:
        tokens = args.tokens
    if tokens < 1:
        raise ConfigError(f"--tokens is {tokens}; a pack has at least 1")
    layout.check(config, tokens)
    hardware = HARDWARE[args.hardware]
    err = console(stderr=True)
    rows: dict[str, dict[str, Any]] = {}
    heads: dict[str, Head] = {"this layout": "fused", "naive log-probabilities": "naive"}
    for title, head in heads.items():
        if head == "naive" and args.skip_naive:
            continue
        with err.status(f"tracing {title}"):
            traced = (trace_by_period if args.quick else trace_step)(config, layout, [tokens], head=head)
        rows[title] = plan_row(layout, traced, step_time(traced, layout, hardware), tokens)
    for title, teaching in _taught(recipe, config).items():
        with err.status(f"tracing {title}"):
            traced = trace_step(config, layout, [tokens], teaching=teaching)
        rows[title] = plan_row(layout, traced, step_time(traced, layout, hardware), tokens)
    if args.memory is not None:
        with err.status("looking for the cheapest layout") as status:
            best = cheapest(
                config, args.gpus, [tokens], hardware, args.memory, tell=lambda one: status.update(f"tried {one}")
            )
        rows[f"cheapest in {args.memory:g} GiB"] = plan_row(best.layout, best.traced, best.time, tokens)
    if args.json:
        print(json.dumps({"recipe": recipe.name, "hardware": hardware.name, "plans": rows}, indent=2))
    else:
        console().print(plan_table(config, rows, hardware))
    return 0


def _taught(recipe: "Recipe", config: "DecoderConfig") -> "dict[str, Teaching]":
    """What to trace beside: a step that asks each teacher with whose distributions the policy's are compared. One that
    is not on this machine is taken to have the policy's shape."""
    from pathlib import Path

    from ...model.plan.trace import Teaching
    from ...model.weights.sources import load_config
    from ..objective.objective import divergence_of
    from ..recipe.recipe import teachers_of

    found = {}
    for stage in recipe.sampled_stages:
        divergence = divergence_of(stage.train)
        for name, teacher in teachers_of(recipe, stage).items() if divergence is not None else ():
            assert divergence is not None
            own = None if teacher.policy == "self" else config
            if teacher.checkpoint is not None and Path(teacher.checkpoint).exists():
                own = load_config(Path(teacher.checkpoint))
            found[f"teacher {name}"] = Teaching(divergence=divergence, config=own)
    return found


def _layout(recipe: "Recipe", args: argparse.Namespace) -> "Layout":
    from ..recipe.layouts import layout_of

    values = recipe.layout.model_dump()
    for name in ("tensor", "context", "recompute"):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    for name in ("tensor", "context"):
        if values[name] < 1:
            raise ConfigError(f"--{name} is {values[name]}; it must be at least 1")
    return layout_of(LayoutConfig(**values), args.gpus, unit="GPUs", remedy="choose a multiple")
