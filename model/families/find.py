"""Which family a checkpoint is of, and whether our decoder runs it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import CheckpointError, ConfigError
from ..config import DecoderConfig
from . import cwm, gemma3, llama, mistral, qwen, smollm3
from .common import Family

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        cwm.FAMILY,
        llama.FAMILY,
        smollm3.FAMILY,
        qwen.QWEN2,
        qwen.QWEN3,
        mistral.MISTRAL,
        mistral.MINISTRAL,
        gemma3.FAMILY,
    )
}


def read_config(row: Mapping[str, Any]) -> DecoderConfig:
    """Read the config.json of a checkpoint, in the form of transformers 4 or 5.

    Raises:
        ConfigError: no family of ours, or a setting that our decoder does not have; it names the first.
    """
    kind = row.get("model_type", "cwm")
    if kind not in FAMILIES:
        raise ConfigError(f"config.json has model_type {kind!r}; our decoder knows {', '.join(FAMILIES)}")
    return FAMILIES[kind].read(row)


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The config.json that ``read_config`` and transformers read."""
    family = FAMILIES[config.family]
    return {"architectures": [family.architecture], "model_type": family.model_type, **family.write(config)}


def model_type(checkpoint: Path) -> str:
    """transformers' name of the architecture; what has no config.json is CWM's, or nothing."""
    row = _row(checkpoint)
    return "cwm" if row is None else str(row.get("model_type", "cwm"))


def why_not_ours(checkpoint: Path) -> str | None:
    """Why a checkpoint goes to transformers' model and engine; None where our decoder runs it.

    Of CWM itself nothing is said here: what is wrong with its configuration is told by who loads it.
    """
    row = _row(checkpoint)
    if row is None or row.get("model_type", "cwm") == "cwm":
        return None
    try:
        read_config(row)
    except ConfigError as error:
        return str(error)
    return None


def eos_token_ids(checkpoint: Path) -> tuple[int, ...]:
    """What ends a text, from the settings of generation and the configuration; each id once."""
    found: list[int] = []
    for row in (_row(checkpoint, "generation_config.json"), _row(checkpoint)):
        ends = (row or {}).get("eos_token_id")
        found += ends if isinstance(ends, list) else [] if ends is None else [ends]
    return tuple(dict.fromkeys(map(int, found)))


def sampling_of(checkpoint: Path) -> dict[str, float]:
    """ "temperature" and "top_p" that a checkpoint's generation_config.json asks for; temperature 0 where it does not
    sample, nothing where it says nothing."""
    row = _row(checkpoint, "generation_config.json") or {}
    if row.get("do_sample") is False:
        return {"temperature": 0.0}
    return {name: float(row[name]) for name in ("temperature", "top_p") if isinstance(row.get(name), int | float)}


def _row(checkpoint: Path, name: str = "config.json") -> dict[str, Any] | None:
    if checkpoint.suffix == ".gguf" and checkpoint.is_file():
        raise CheckpointError(
            f"{checkpoint} is a GGUF file; make a checkpoint of it: verigym convert {checkpoint} "
            f"{checkpoint.with_suffix('')} --to hf"
        )
    try:
        row = json.loads((checkpoint / name).read_bytes())
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) else None
