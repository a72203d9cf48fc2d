"""A recipe: what to train, on which tasks, through which stages. Reading one imports no torch."""

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from ...errors import ConfigError
from .algorithms import ALGORITHMS, Algorithm, AsyncConfig, GRPOConfig
from .config import (
    DifficultyConfig,
    EnginesConfig,
    EvaluationConfig,
    LayoutConfig,
    LoRAConfig,
    MidtrainConfig,
    OptimConfig,
    Settings,
    SFTConfig,
)
from .per_family import FamilyAlgorithm

SMALL_SOURCES = ("small-repositories", "small-programs", "small-sums", "small-traces")
FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class ModelConfig(Settings):
    """The model to train."""

    preset: Literal["cwm-tiny", "cwm-32b", "cwm-32b-slice"] = "cwm-tiny"
    """Architecture of a model that starts from random weights; with a checkpoint, what that must be."""
    layer_types: tuple[Literal["full_attention", "sliding_attention"], ...] | None = None
    """What each layer attends to, in place of the preset's; one a layer. Another number of them changes the depth."""
    sliding_window: int | None = Field(default=None, ge=1)
    """Keys a token of a sliding layer sees, itself included, in place of the preset's."""
    checkpoint: Path | None = None
    """A folder with a checkpoint to start from instead of random weights: CWM's, or any causal language model of
    transformers. Its tokenizer and chat template are used as they are."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights that ``checkpoint`` is read into. Bfloat16 needs ``lora``: it loses small updates."""
    lora: LoRAConfig | None = None
    """Train low-rank adapters, and leave the checkpoint's weights as they are; false is none."""
    vocab_size: int = Field(default=1024, ge=300)
    """Entries of the byte-level BPE that is trained on the demonstrations; unused with a checkpoint."""
    max_context: int = Field(default=768, ge=64)
    """Tokens an episode may have in the engine."""
    attention: Literal["auto", "triton", "sdpa", "reference"] = "auto"
    """What attention runs on, in training and in the engine: our kernels, torch's, or plain and slow; "auto" takes the
    kernels on CUDA. What cannot run here is refused before the first step."""

    @field_validator("lora", mode="before")
    @classmethod
    def _left_out(cls, value: Any) -> Any:
        return None if value is False else value  # TOML has no null

    @model_validator(mode="after")
    def _is_a_base(self) -> Self:
        if self.lora is not None and self.checkpoint is None:
            raise ValueError("lora adapts a trained model, and there is none; set model.checkpoint")
        if self.dtype != "float32" and self.lora is None:
            raise ValueError("bfloat16 weights lose small updates; set model.lora, or model.dtype = 'float32'")
        return self

    @property
    def changes(self) -> dict[str, Any]:
        """What differs from the preset, as ``model.config.preset`` takes it."""
        changes: dict[str, Any] = {}
        if self.layer_types is not None:
            changes |= {"layer_types": self.layer_types, "num_layers": len(self.layer_types)}
        if self.sliding_window is not None:
            changes["sliding_window"] = self.sliding_window
        return changes


class FamilyConfig(Settings):
    """One family of tasks."""

    name: str = Field(pattern=FILE_NAME)
    """Its name in reports and of its files: letters, digits, "_", "." and "-"."""
    env: str
    """Gymnasium id of the environment; "MODULE:ID" imports the module first."""
    tasks: str = "environment"
    """Where tasks come from: "small-repositories", "small-programs", "small-sums", "small-traces" (made by the recipe),
    "environment" (the environment's own), or a training set: the path of a file or a folder of files (JSON Lines, JSON,
    Parquet), or "hub:OWNER/NAME", "hub:OWNER/NAME/CONFIG/SPLIT" for the train or another split of a dataset."""
    format: str = "auto"
    """Of the training set's rows: "tasks", "swe", or a published one (``envs/datasets/training.py`` lists them); "auto"
    tells it by their keys."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the environment."""
    num_train: int = Field(default=100, ge=0)
    """Tasks to train on; 0 takes all that are not held out."""
    num_held_out: int = Field(default=100, ge=1)
    """Tasks kept for evaluation."""
    turns: int = Field(default=8, ge=1)
    """Most assistant turns of an episode."""
    turn_tokens: int = Field(default=160, ge=1)
    """Most tokens of one turn."""
    num_demonstrations: int = Field(default=100, ge=0)
    """Episodes the experts play on the training tasks."""
    experts: dict[str, float] = Field(default_factory=lambda: {"gold": 1.0})
    """Shares of the experts. "gold" and "empty" exist for every environment that states its gold answers."""
    weight: float = Field(default=1.0, gt=0)
    """Share of this family's groups in a step of reinforcement learning."""
    rl: FamilyAlgorithm = Field(default_factory=FamilyAlgorithm)
    """What of ``[rl.train]`` is otherwise for this family."""

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        if any(share < 0 for share in self.experts.values()) or not sum(self.experts.values()) > 0:
            raise ValueError(f"experts are {self.experts}; each share must be at least 0, and one above it")
        if self.format != "auto" and self.tasks in (*SMALL_SOURCES, "environment"):
            raise ValueError(f"format means nothing to tasks = {self.tasks!r}, which are no rows; leave it out")
        if self.num_train == 0 and self.tasks in SMALL_SOURCES:
            raise ValueError(f"num_train is 0, and {self.tasks} has no end; say how many tasks to make")
        return self


class MidtrainSource(Settings):
    """Where some of the documents come from. One of ``traces``, ``trajectories`` and ``demonstrations``."""

    name: str = Field(pattern=FILE_NAME)
    """Its name in the run's files."""
    traces: str | None = None
    """"programs" or "small-programs" (generated by the recipe), or a folder that `verigym tasks traces` wrote."""
    trajectories: Path | None = None
    """A file of trajectories (JSON Lines), as `verigym forage` writes them."""
    demonstrations: bool = False
    """The demonstrations of this recipe's families, every token of them."""
    num: int = Field(default=1000, ge=1)
    """Most documents to take; as many traces are generated."""
    weight: float = Field(default=1.0, gt=0)
    """Its share of the tokens; shares need not sum to 1."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.traces is not None) + (self.trajectories is not None) + self.demonstrations != 1:
            raise ValueError(f"source {self.name!r} must have one of traces, trajectories and demonstrations = true")
        return self


class MidtrainStage(Settings):
    """Learning what programs and commands do, from traces and trajectories."""

    sources: list[MidtrainSource] = Field(min_length=1)
    """What is mixed."""
    train: MidtrainConfig = Field(default_factory=MidtrainConfig)
    """Batches and the plateau. Documents longer than a microbatch are left out."""
    optim: OptimConfig = Field(default_factory=OptimConfig)
    """Optimizer."""
    held_out_share: float = Field(default=0.02, gt=0, lt=0.5)
    """Share of each source that only measures the loss."""
    max_seconds: float = Field(default=0, ge=0)
    """Wall clock after which no further step begins; 0 sets none."""

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError(f"sources have the names {names}; give each its own")
        return self


class SFTStage(Settings):
    """Imitation of the demonstrations, to the plateau of the held-out loss."""

    train: SFTConfig = Field(default_factory=SFTConfig)
    """Batches and the plateau."""
    optim: OptimConfig = Field(default_factory=OptimConfig)
    """Optimizer."""
    held_out_share: float = Field(default=0.05, gt=0, lt=0.5)
    """Share of the demonstrations that only measure the loss."""


class RLStage(Settings):
    """Reinforcement learning from the supervised checkpoint."""

    train: Algorithm = Field(default_factory=GRPOConfig)
    """The algorithm, chosen by ``algorithm``."""
    asynchronous: AsyncConfig | None = None
    """Sample ahead of training, with an engine that has weights of its own; without it the two take turns and share
    their weights."""
    optim: OptimConfig = Field(default_factory=OptimConfig)
    """Optimizer."""
    difficulty: DifficultyConfig | None = None
    """Leave out tasks that are too easy or too hard, and order the others; without it all tasks come, at random."""
    evaluation: EvaluationConfig | None = None
    """Evaluate during training, and keep the best checkpoint in ``rl/best``; without it, only at the end."""
    steps: int = Field(default=30, ge=1)
    """Steps, each of ``train.num_tasks`` groups."""
    max_seconds: float = Field(default=0, ge=0)
    """Wall clock after which no further step begins; 0 sets none. Evaluations during training do not count."""


class EvalConfig(Settings):
    """Evaluation on the held-out tasks after each stage."""

    samples: int = Field(default=2, ge=1)
    """Samples of each task."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature."""
    greedy: bool = True
    """Also one greedy answer to each task."""
    controls: list[Literal["gold", "empty", "trivial"]] = Field(default_factory=lambda: ["gold", "empty", "trivial"])
    """Scripts to measure beside the model: the gold answers, an empty answer, and the best policy that reads next to
    nothing."""


class Recipe(Settings):
    """A whole run."""

    name: str = Field(pattern=FILE_NAME)
    """Names the run and its folder: letters, digits, "_", "." and "-"."""
    seed: int = 0
    """Of tasks, experts, weights, order and sampling."""
    sandbox: Literal["auto", "docker", "local", "unsafe"] = "auto"
    """Where environments run commands."""
    workers: int = Field(default=0, ge=0)
    """Sandboxes grading or making tasks at once; 0: as many as there are cores."""
    threads: int = Field(default=0, ge=0)
    """Threads of PyTorch; 0: as many as there are cores."""
    episode_seconds: float = Field(default=120.0, gt=0)
    """Wall clock of one episode, grading excluded."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    """What is trained."""
    layout: LayoutConfig = Field(default_factory=LayoutConfig)
    """How processes share the model, where torchrun or accelerate starts several."""
    engines: EnginesConfig | None = None
    """Sample in processes of their own; without it, in the trainer's."""
    families: list[FamilyConfig] = Field(min_length=1)
    """What it is trained on."""
    decontaminate: list[Path] = Field(default_factory=list)
    """Files of evaluation suites (MATH-500's, LiveCodeBench's, SWE-bench's, ... as published). Tasks, demonstrations,
    traces and trajectories that are like a problem in them, or from one of their repositories, are left out."""
    midtrain: MidtrainStage | None = None
    """Traces and trajectories, before imitation."""
    sft: SFTStage | None = Field(default_factory=SFTStage)
    """Imitation; false starts reinforcement learning from the checkpoint."""
    rl: RLStage | None = Field(default_factory=RLStage)
    """Reinforcement learning; false ends after imitation."""
    control: bool = True
    """Train the supervised checkpoint on demonstrations for as long as reinforcement learning took, and report it."""
    eval: EvalConfig = Field(default_factory=EvalConfig)
    """Evaluation."""
    estimate: bool = False
    """Measure at the start, for seconds, what updates and episodes cost here, and tell how long the run will take. Of a
    model that starts from random weights."""
    overlap: bool = False
    """Evaluate and play controls beside the training that follows, of a copy of the weights: for models that fit
    twice. Not with engines or ranks, which hold one version of the weights."""
    save_seconds: float = Field(default=60.0, ge=0)
    """Wall clock between two saves of a stage's state, from which ``--resume`` goes on; 0 saves after every step,
    but for those during which an earlier state is still being written."""
    peak_tflops: float | None = Field(default=None, gt=0)
    """Peak of one device, which ``trainer/mfu/mean`` is a share of; None: of a known GPU its dense bfloat16 rate, and
    on a CPU no share is reported."""
    tracker: Literal["none", "tensorboard", "wandb", "trackio", "mlflow"] = "none"
    """Experiment tracker, besides the metrics in JSON Lines: one run of it for the whole training, its stages as
    prefixes."""

    @property
    def num_workers(self) -> int:
        return self.workers or os.cpu_count() or 1

    @property
    def num_threads(self) -> int:
        return self.threads or os.cpu_count() or 1

    @property
    def uses_demonstrations(self) -> bool:
        """Whether any stage, or a tokenizer that is to be trained, needs the experts' episodes."""
        sources = self.midtrain.sources if self.midtrain else []
        return self.sft is not None or self.model.checkpoint is None or any(one.demonstrations for one in sources)

    @field_validator("midtrain", "sft", "rl", "engines", mode="before")
    @classmethod
    def _left_out(cls, value: Any) -> Any:
        return None if value is False else value  # TOML has no null

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        names = [family.name for family in self.families]
        if len(set(names)) < len(names):
            raise ValueError(f"families have the names {names}; give each its own")
        if self.sft is None and self.model.checkpoint is None and (self.midtrain is None or self.rl is not None):
            raise ValueError("without the stage sft a model of random weights would be rewarded; set model.checkpoint")
        if self.midtrain is None and self.sft is None and self.rl is None:
            raise ValueError("there is no stage; set midtrain, sft or rl")
        if self.sft is not None and not any(family.num_demonstrations for family in self.families):
            raise ValueError("the stage sft has no demonstrations; set num_demonstrations of a family above 0")
        read = self.midtrain is not None and any(not one.demonstrations for one in self.midtrain.sources)
        if self.estimate and self.model.checkpoint is not None:
            raise ValueError("estimate measures a model of random weights, and model.checkpoint is set; remove one")
        if self.overlap and (self.engines is not None or self.layout != LayoutConfig()):
            raise ValueError("overlap evaluates older weights, and engines or ranks hold one version; remove overlap")
        if (
            self.decontaminate
            and not read
            and all(one.tasks in (*SMALL_SOURCES, "environment") for one in self.families)
        ):
            raise ValueError("decontaminate compares sets and files that are read, and no family has one; remove it")
        for family in self.families:
            if self.rl is None and family.rl != FamilyAlgorithm():
                raise ValueError(f"family {family.name!r} has settings of rl, and that stage is left out; remove them")
            if self.rl is not None:
                try:
                    family.rl.applied_to(self.rl.train)
                except ValueError as error:
                    raise ValueError(f"rl of family {family.name!r}: {error}") from None
        evaluation = None if self.rl is None else self.rl.evaluation
        small = [family.name for family in self.families if evaluation and family.num_held_out <= evaluation.num_tasks]
        if evaluation is not None and small:
            raise ValueError(
                f"rl.evaluation takes {evaluation.num_tasks} held-out tasks, and {', '.join(small)} would have none "
                "left for the final evaluation of the best checkpoint; lower num_tasks, or raise num_held_out"
            )
        if self.rl is not None and self.rl.train.num_tasks < len(self.families):
            raise ValueError(
                f"rl.train.num_tasks is {self.rl.train.num_tasks}, less than the {len(self.families)} families; every "
                "step takes tasks of each, so raise it"
            )
        if self.model.lora is not None and self.layout != LayoutConfig():
            raise ValueError("adapters are trained by one process, and the layout is of many; remove layout")
        if self.rl is not None and self.model.lora is not None and self.model.lora.dropout:
            raise ValueError(
                f"lora.dropout is {self.model.lora.dropout}, and reinforcement learning must train on the distribution "
                "it sampled from; set it to 0, or rl = false"
            )
        if "control" in self.model_fields_set and self.control and (self.sft is None or self.rl is None):
            raise ValueError("control compares rl with more of sft, and one of them is left out; remove control")
        if self.model.checkpoint is not None and "vocab_size" in self.model.model_fields_set:
            raise ValueError("model.checkpoint has a tokenizer; remove vocab_size of model")
        if self.model.checkpoint is not None and self.model.changes:
            raise ValueError("model.checkpoint has layers of its own; remove layer_types and sliding_window of model")
        return self


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a TOML recipe; ``overrides`` are "a.b.c=VALUE", the value in TOML ("families.0.turns=4" indexes a list).

    Raises:
        ConfigError: no such file, broken TOML, an unknown key (with the nearest known one), or values that do not fit.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such recipe; recipes/quickstart.toml is one to begin with") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: not readable as TOML ({error}); mend it") from None
    for override in overrides or ():
        _override(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_describe(dict(problem)) for problem in error.errors())
        raise ConfigError(f"{path}: {problems}") from None


def _override(values: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign:
        raise ConfigError(f"--set {override!r}: KEY=VALUE is expected, such as rl.steps=10")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    node: Any = values
    try:
        for name in parents:
            node = node[int(name)] if isinstance(node, list) else node.setdefault(name, {})
        node[int(last) if isinstance(node, list) else last] = value
    except (ValueError, IndexError, TypeError, AttributeError):
        raise ConfigError(f"--set {override!r}: there is no {key!r} in the recipe") from None


def _describe(problem: dict[str, Any]) -> str:
    place = tuple(name for name in problem["loc"] if name not in ALGORITHMS)
    where = ".".join(map(str, place)) or "recipe"
    if problem["type"] != "extra_forbidden":
        return f"{where}: {problem['msg'].removeprefix('Value error, ')}"
    known = _known_keys(problem["loc"][:-1])
    name = str(problem["loc"][-1])
    others = [other for other, kind in ALGORITHMS.items() if name in kind.model_fields]
    if others and problem["loc"][-2] in ALGORITHMS:
        return (
            f"{where} is a setting of {', '.join(others)}, not of {problem['loc'][-2]}; remove it, or change algorithm"
        )
    if name in AsyncConfig.model_fields:
        return f"{where} is a setting of rl.asynchronous, without which sampling and training take turns; move it there"
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known keys: {', '.join(known)}"
    return f"unknown key {where!r}; {hint}"


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """Keys of the settings at a place in a recipe."""
    model: Any = Recipe
    for name in location:
        if isinstance(name, int):
            continue
        if name in ALGORITHMS:
            model = ALGORITHMS[name]
            continue
        if name not in model.model_fields:
            continue
        annotation = model.model_fields[name].annotation
        arguments = getattr(annotation, "__args__", ())
        candidates = [annotation, *arguments]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, Settings)), model)
    return list(model.model_fields)
