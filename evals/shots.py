"""``--shots``: solved questions that the policy is shown before each task, as earlier turns of the conversation."""

import argparse
import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..envs.task import read_jsonl
from ..errors import ConfigError, TaskError
from .suites.exemplars import EXEMPLARS, Exemplar


def add_shots_option(parser: argparse.ArgumentParser) -> None:
    """--shots, for models that know documents alone."""
    parser.add_argument(
        "--shots",
        metavar="N|FILE",
        help=f"solved questions shown before each task: the first N written for {', '.join(EXEMPLARS)}, or all "
        'of a JSON Lines file of {"question": …, "answer": …} (default: none)',
    )


def shots_of(args: argparse.Namespace) -> tuple[Exemplar, ...]:
    """What the option asks for.

    Raises:
        ConfigError: too many, a suite that none were written for, a broken file, an agent that has its own prompt, or a
            script.
    """
    if args.shots is None:
        return ()
    if args.agent != "verigym":
        raise ConfigError(f"--shots are turns of our own loop, and --agent {args.agent} writes its own prompt")
    if args.policy in ("gold", "empty"):
        raise ConfigError(f"--shots are for a model, and --policy {args.policy} reads nothing; leave them out")
    if not args.shots.isdecimal():
        shots = tuple(_read(Path(args.shots)))
        if not shots:
            raise ConfigError(f"--shots {args.shots} holds no question")
        return shots
    number, own = int(args.shots), EXEMPLARS.get(args.suite, ())
    if not 1 <= number <= len(own):
        told = f"{args.suite} has {len(own)}" if own else f"there are some of {', '.join(EXEMPLARS)}"
        raise ConfigError(f"--shots {number}: {told}; give a JSON Lines file of your own")
    return tuple(own[:number])


def shots_identity(shots: Sequence[Exemplar]) -> dict[str, Any]:
    """What of them makes two runs the same; nothing without any."""
    if not shots:
        return {}
    return {"shots": {"number": len(shots), "sha256": sha256(json.dumps(list(shots)).encode()).hexdigest()}}


def _read(path: Path) -> Iterator[Exemplar]:
    try:
        for number, row in enumerate(read_jsonl(path), start=1):
            question, answer = (text if isinstance(text := row.get(key), str) else "" for key in ("question", "answer"))
            if not question.strip() or not answer.strip():
                raise ConfigError(f'{path}: row {number} is not {{"question": …, "answer": …}} with two texts')
            yield question, answer
    except TaskError as error:
        raise ConfigError(f"--shots {path}: {error}") from None
