"""``verigym train RECIPE --dry-run``: what would run, and what this machine lacks for it."""

from pathlib import Path
from typing import TYPE_CHECKING

from ...terminal import console
from .cluster import ClusterConfig
from .family import SMALL_SOURCES
from .fits import GIB, Need, check_fits, needs_of_rank
from .layouts import model_config, why_theirs
from .recipe import Recipe, teachers_of

if TYPE_CHECKING:
    from ...model.parallel.layout import Layout


def dry_run(path: str | Path, recipe: Recipe, layout: "Layout", *, ray: str | None = None) -> int:
    """Print the layout, the stages and the command that starts them. Returns the exit status, 0.

    Args:
        ray: address of a cluster; None: torchrun starts the processes.
    Raises:
        ConfigError: a rank of the cluster has too little memory.
    """
    from rich.table import Table

    table = Table(title=f"{recipe.name}: a recipe that can be run", title_justify="left", show_header=False)
    stages = [name for name in ("midtrain", "sft", "distill", "rl") if getattr(recipe, name) is not None]
    axes = ", ".join(f"{name} {getattr(layout, name)}" for name in ("replicate", "shard", "context", "tensor"))
    table.add_row("model", model_of(recipe))
    table.add_row("stages", ", ".join(stages))
    algorithms = [stage.train.algorithm for stage in recipe.sampled_stages]
    table.add_row("algorithm", ", then ".join(algorithms) or "none")
    table.add_row("processes", f"{layout.num_ranks} ({axes})")
    table.add_row("packs at a time", f"{layout.replicate * layout.shard}")
    table.add_row("engines", engines_of(recipe))
    if ray is None:
        if layout.num_ranks > 1 and why_theirs(recipe) is not None:  # which `verigym plan` does not trace
            for need in needs_of_rank(recipe, layout):
                table.add_row(f"a rank's {need.what}", f"{need.device_bytes / GIB:.2f} GiB on its device")
        table.add_row("start with", launch_command(path, layout.num_ranks))
    else:
        config = recipe.cluster or ClusterConfig()
        needs = needs_of_rank(recipe, layout)
        check_fits(needs, config)
        for need in needs:
            table.add_row(f"a rank's {need.what}", told_need(need, config))
        table.add_row("start with", f"verigym train {path} --ray {ray} --out FOLDER-THAT-ALL-SEE")
    missing = missing_files(recipe)
    table.add_row("not on this machine", ", ".join(missing) if missing else "nothing")
    console().print(table)
    return 0


def model_of(recipe: Recipe) -> str:
    """Which model, and as much of its shape as is known here."""
    from ...model.families.find import model_type, why_not_ours

    checkpoint = recipe.model.checkpoint
    if checkpoint is not None and checkpoint.exists() and why_not_ours(checkpoint):
        return f"{checkpoint}, a {model_type(checkpoint)}"
    if checkpoint is not None and not checkpoint.exists() and "preset" not in recipe.model.model_fields_set:
        return str(checkpoint)
    return f"{checkpoint or recipe.model.preset}, {model_config(recipe).num_layers} layers"


def engines_of(recipe: Recipe) -> str:
    """Where episodes are sampled."""
    engines = recipe.engines
    if engines is None:
        return "one, in the first process"
    if engines.urls:
        return ", ".join(engines.urls)
    if recipe.cluster is not None:
        return f"{engines.count}, placed on the cluster, each over {engines.tensor_parallel} processes"
    where = f" on GPUs {', '.join(map(str, engines.gpus))}" if engines.gpus else ""
    split = f", each over {engines.tensor_parallel} processes" if engines.tensor_parallel > 1 else ""
    kind = " of vLLM" if engines.kind == "vllm" else ""
    return f"{engines.count}{kind}, started here{where}{split}"


def told_need(need: Need, config: ClusterConfig) -> str:
    """What a rank needs and has, in words."""
    device, host = need.device_bytes / GIB, need.host_bytes / GIB
    return f"{device:.2f} GiB of {config.gpu_gib:g} on its device, {host:.2f} of {config.rank_host_gib:g} on its host"


def launch_command(path: str | Path, num_ranks: int, *, gpus: int = 8) -> str:
    """The shell command that starts so many processes, on machines of ``gpus`` GPUs where one is too small."""
    if num_ranks == 1:
        return f"verigym train {path}"
    nodes, left = divmod(num_ranks, gpus)
    if num_ranks <= gpus or left:
        return f"torchrun --nproc-per-node {num_ranks} -m verigym train {path}"
    where = "" if nodes == 1 else f" --nnodes {nodes} --rdzv-backend c10d --rdzv-endpoint HOST:29500"
    return f"torchrun{where} --nproc-per-node {gpus} -m verigym train {path}"


def missing_files(recipe: Recipe) -> list[str]:
    """The checkpoint and the files of tasks that are not where the recipe says."""
    return [str(path) for path in named_files(recipe) if not path.exists()]


def named_files(recipe: Recipe) -> list[Path]:
    """Checkpoints, and files of tasks, that a recipe reads."""
    named = [] if recipe.model.checkpoint is None else [recipe.model.checkpoint]
    read = [family.tasks for family in recipe.families if family.tasks not in (*SMALL_SOURCES, "environment")]
    named += [Path(tasks.removeprefix("harbor:")) for tasks in read]
    named += [Path(one.tokenizer) for one in teachers_of(recipe).values() if one.tokenizer is not None]
    return named
