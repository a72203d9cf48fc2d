"""A plan, for people and for programs."""

from dataclasses import asdict
from typing import Any

from rich.table import Table

from ..config import DecoderConfig
from ..parallel.layout import Layout
from .estimate import Hardware, StepTime
from .search import GIB
from .trace import Traced


def plan_row(layout: Layout, traced: Traced, time: StepTime, num_tokens: int) -> dict[str, Any]:
    """Everything that was found of one layout, as JSON values."""
    packs = layout.replicate * layout.shard
    return {
        "layout": asdict(layout),
        "gpus": layout.num_ranks,
        "tokens_per_pack": num_tokens,
        "tokens_per_step": num_tokens * packs,
        "parameters": traced.num_parameters,
        "bytes_per_gpu": {
            "peak": traced.peak_bytes,
            "parameters": traced.parameter_bytes,
            "gradients": traced.gradient_bytes,
            "optimizer": traced.optimizer_bytes,
            "activations": traced.activation_bytes,
            "teacher": traced.teacher_bytes,
        },
        "flops_per_gpu": traced.flops,
        "sent_bytes_per_gpu": {
            f"{kind}/{axis}": round(sent) for (kind, axis), sent in sorted(traced.sent_bytes.items())
        },
        "seconds": asdict(time) | {"total": time.total},
        "tokens_per_second_per_gpu": num_tokens * packs / time.total / layout.num_ranks,
    }


def plan_table(config: DecoderConfig, rows: dict[str, dict[str, Any]], hardware: Hardware) -> Table:
    """One column for each row of ``plan_row``, by its title."""
    parameters = next(iter(rows.values()))["parameters"]
    table = Table(
        title=f"{parameters:,} parameters, {config.num_layers} layers; one step, per GPU ({hardware.name})",
        title_justify="left",
    )
    table.add_column("")
    for title in rows:
        table.add_column(title, justify="right")

    def line(name: str, show: Any) -> None:
        table.add_row(name, *(show(row) for row in rows.values()))

    line("layout", lambda row: _layout(row["layout"]))
    line("tokens a pack / a step", lambda row: f"{row['tokens_per_pack']:,} / {row['tokens_per_step']:,}")
    parts = ["peak", "parameters", "gradients", "optimizer", "activations"]
    if any(row["bytes_per_gpu"]["teacher"] for row in rows.values()):
        parts.append("teacher")
    for name in parts:
        line(f"{name}, GiB", lambda row, name=name: f"{row['bytes_per_gpu'][name] / GIB:.2f}")
    line("work, PFLOP", lambda row: f"{row['flops_per_gpu'] / 1e15:.2f}")
    for name in sorted({key for row in rows.values() for key in row["sent_bytes_per_gpu"]}):
        line(f"sent, {name}, GiB", lambda row, name=name: f"{row['sent_bytes_per_gpu'].get(name, 0) / GIB:.2f}")
    for name in ("compute", "weights", "tokens", "update", "total"):
        line(f"{name}, s (estimate)", lambda row, name=name: f"{row['seconds'][name]:.2f}")
    line("tokens/s (estimate)", lambda row: f"{row['tokens_per_second_per_gpu']:,.0f}")
    return table


def _layout(values: dict[str, Any]) -> str:
    axes = [f"{name} {values[name]}" for name in ("replicate", "shard", "context", "tensor") if values[name] > 1]
    settings = [f"recompute {values['recompute']}"] + ["offload"] * values["offload"]
    return ", ".join([*axes, *settings])
