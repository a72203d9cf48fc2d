"""``--shots``: solved questions that the policy is shown before each task, as earlier turns of the conversation."""

import argparse
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import ConfigError
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
        return tuple(_read(Path(args.shots)))
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


def _read(path: Path) -> list[Exemplar]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"--shots {path} is no number and cannot be read ({error})") from None
    shots = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path}:{number} is no JSON ({error})") from None
        pair = (row.get("question"), row.get("answer")) if isinstance(row, dict) else (None, None)
        if not all(isinstance(text, str) and text.strip() for text in pair):
            raise ConfigError(f'{path}:{number} is not {{"question": …, "answer": …}} with two texts')
        shots.append(pair)
    if not shots:
        raise ConfigError(f"{path} holds no question")
    return shots
