"""A recipe: what to train, on which tasks, through which stages. Reading one imports no torch."""

import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from .algorithms import OPDConfig, RLConfig
from .audited import AuditConfig
from .cluster import ClusterConfig
from .config import FILE_NAME, EnginesConfig, LayoutConfig, Settings
from .model import ModelConfig
from .per_family import FamilyAlgorithm
from .record import RecordConfig
from .stages import EvalConfig, MidtrainStage, RLStage, SFTStage
from .teachers import OWN, TeacherConfig, teacher_named

SMALL_SOURCES = (
    "small-repositories",
    "small-programs",
    "small-repairs",
    "small-sums",
    "word-problems",
    "small-traces",
)


class SeatConfig(Settings):
    """Another speaker of a family's episodes: a simulated user, an opponent, a judge."""

    policy: str
    """"self" for the policy that is trained, under its weights of then; else a SPEC as for --policy:
    "openai:BASE_URL#MODEL", "engine:CHECKPOINT", "tokens:CHECKPOINT@BASE_URL#MODEL"."""
    max_tokens: int = Field(default=512, ge=1)
    """Most tokens of one of its turns."""
    temperature: float = Field(default=1.0, ge=0)
    """Of its sampling. An answer that is kept for the run (a judge's) is drawn at 0."""
    train: bool = False
    """Train on its turns too, rewarded by what ``Score.others`` says that it earned. Of "self" alone."""
    answers: Path | None = None
    """File of the answers that are kept, which later runs find again; None keeps them for this run."""

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        if self.train and self.policy != "self":
            raise ValueError(f"train is of the policy that is trained, and this seat has {self.policy!r}; remove it")
        return self


class AgentConfig(Settings):
    """Who acts with the policy in a family's episodes."""

    name: str = "verigym"
    """"verigym" for our own loop, "mini-swe-agent", "mini-swe-agent:CONFIG", "command:COMMAND", "beside:COMMAND", or
    "MODULE:NAME" of a harness; see docs/agents.md."""
    sampling: Literal["episode", "agent"] = "episode"
    """Whose temperature and the like count: the recipe's, or what the agent asks for. Log-probabilities of another
    temperature than the recipe's are not those that training compares with, so "agent" is for evaluations alone."""
    at_once: int = Field(default=8, ge=1)
    """Requests of one episode in work at once; more are told to come again."""

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        asked = self.model_dump(exclude={"name"}) != AgentConfig.model_construct().model_dump(exclude={"name"})
        if self.name == "verigym" and asked:  # a recipe that was saved states the defaults too
            raise ValueError("our own loop asks no gateway; remove sampling and at_once, or name an agent")
        return self


class FamilyConfig(Settings):
    """One family of tasks."""

    name: str = Field(pattern=FILE_NAME)
    """Its name in reports and of its files: letters, digits, "_", "." and "-"."""
    env: str
    """Gymnasium id of the environment; "MODULE:ID" imports the module first."""
    tasks: str = "environment"
    """Where tasks come from: "small-repositories", "small-programs", "small-repairs", "small-sums", "word-problems",
    "small-traces" (made by the recipe), "environment" (the environment's own), or a training set: the path of a file or
    a folder of files (JSON Lines, JSON, Parquet), "hub:OWNER/NAME", "hub:OWNER/NAME/CONFIG/SPLIT" for the train or
    another split of a dataset, or "harbor:FOLDER" of tasks in Harbor's format."""
    format: str = "auto"
    """Of the training set's rows: "tasks", "swe", or a published one (``envs/datasets/training.py`` lists them); "auto"
    tells it by their keys."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the environment."""
    models: dict[str, SeatConfig] = Field(default_factory=dict)
    """Other speakers that the environment asks by name, as a SPEC or a table: ``user = "openai:..."``."""
    reward: Literal["raw", "unit"] = "raw"
    """"raw" takes rewards as they are; "unit" maps them from the environment's bounds to [0, 1], so that families of
    other bounds weigh the same."""
    wrappers: list[str | dict[str, Any]] = Field(default_factory=list)
    """Gymnasium wrappers around the environment, the first innermost: "MODULE:CLASS", or a table with ``wrapper`` and
    the arguments of its constructor."""
    hook_timeout_s: float | None = Field(default=None, gt=0)
    """Seconds that one call of the environment's hooks and tools may take; None: as the environment says (600 where it
    says nothing)."""
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
    audit: AuditConfig = Field(default_factory=AuditConfig)
    """How often audited tasks of a class are drawn: ``audit = {weak = 0.5, narrow = 0}``."""
    agent: AgentConfig = Field(default_factory=AgentConfig)
    """Who acts in the episodes of the policy that is trained; demonstrations are played by our own loop."""
    rl: FamilyAlgorithm = Field(default_factory=FamilyAlgorithm)
    """What of ``[rl.train]`` is otherwise for this family."""

    @field_validator("models", mode="before")
    @classmethod
    def _specs(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: {"policy": seat} if isinstance(seat, str) else seat for name, seat in value.items()}

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        if any(share < 0 for share in self.experts.values()) or not sum(self.experts.values()) > 0:
            raise ValueError(f"experts are {self.experts}; each share must be at least 0, and one above it")
        if self.format != "auto" and self.tasks in (*SMALL_SOURCES, "environment"):
            raise ValueError(f"format means nothing to tasks = {self.tasks!r}, which are no rows; leave it out")
        if self.audit.is_on and self.tasks in SMALL_SOURCES:
            raise ValueError(f"audit is of rows that were audited, and {self.tasks} are made by the run; remove it")
        if self.num_train == 0 and self.tasks in SMALL_SOURCES:
            raise ValueError(f"num_train is 0, and {self.tasks} has no end; say how many tasks to make")
        return self


class Recipe(Settings):
    """A whole run."""

    name: str = Field(pattern=FILE_NAME)
    """Names the run and its folder: letters, digits, "_", "." and "-"."""
    seed: int = 0
    """Of tasks, experts, weights, order and sampling."""
    sandbox: str = "auto"
    """Where environments run commands: "auto", "docker", "podman", "oci", "local", "ssh", "unsafe", or an installed
    package's word."""
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
    cluster: ClusterConfig | None = None
    """What a run takes of a Ray cluster; used by `--ray` alone."""
    families: list[FamilyConfig] = Field(default_factory=list)
    """What it is trained on and measured by. There may be none where conversations of one's own are imitated, and the
    held-out loss alone measures."""
    decontaminate: list[Path] = Field(default_factory=list)
    """Files of evaluation suites (MATH-500's, LiveCodeBench's, SWE-bench's, ... as published). Tasks, demonstrations,
    traces and trajectories that are like a problem in them, or from one of their repositories, are left out."""
    midtrain: MidtrainStage | None = None
    """Traces and trajectories, before imitation."""
    sft: SFTStage | None = Field(default_factory=SFTStage)
    """Imitation; false starts reinforcement learning from the checkpoint."""
    rl: RLStage | None = Field(default_factory=RLStage)
    """Reinforcement learning; false ends after imitation."""
    teachers: dict[str, TeacherConfig] = Field(default_factory=dict)
    """Who scores the tokens that the policy samples, by name; ``rl.train.teacher`` and ``families.rl.teacher`` say
    whose are asked."""
    control: bool = True
    """Train the supervised checkpoint on demonstrations for as long as reinforcement learning took, and report it."""
    eval: EvalConfig = Field(default_factory=EvalConfig)
    """Evaluation."""
    record: RecordConfig = Field(default_factory=RecordConfig)
    """What is kept of the episodes of reinforcement learning, to look at."""
    estimate: bool = False
    """Measure at the start, for seconds, what updates and episodes cost here, and tell how long the run will take. Of a
    model that starts from random weights."""
    overlap: bool = False
    """Evaluate and play scripts beside the training that follows, of a copy of the weights: for models that fit
    twice. Where there is a control they run beside that, whose time is given. Not with engines or ranks, which hold
    one version of the weights."""
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
    def has_control(self) -> bool:
        """Whether the supervised checkpoint goes on imitating beside reinforcement."""
        return self.control and self.sft is not None and self.rl is not None

    @property
    def uses_demonstrations(self) -> bool:
        """Whether any stage, or a tokenizer that is to be trained, needs the experts' episodes."""
        sources = self.midtrain.sources if self.midtrain else []
        return self.sft is not None or self.model.checkpoint is None or any(one.demonstrations for one in sources)

    @field_validator("sandbox")
    @classmethod
    def _is_known(cls, value: str) -> str:
        from ...envs.sandbox.choose import NAMES, names

        if value not in NAMES and value not in names():
            raise ValueError(f"there is no sandbox {value!r}; known: {', '.join(names())}")
        return value

    @field_validator("midtrain", "sft", "rl", "engines", "cluster", mode="before")
    @classmethod
    def _left_out(cls, value: Any) -> Any:
        return None if value is False else value  # TOML has no null

    @model_validator(mode="after")
    def _families_fit(self) -> Self:
        names = [family.name for family in self.families]
        if len(set(names)) < len(names):
            raise ValueError(f"families have the names {names}; give each its own")
        read = self.midtrain is not None and any(not one.demonstrations for one in self.midtrain.sources)
        if self.estimate and self.model.checkpoint is not None:
            raise ValueError("estimate measures a model of random weights, and model.checkpoint is set; remove one")
        if self.overlap and (self.engines is not None or self.layout != LayoutConfig()):
            raise ValueError("overlap evaluates older weights, and engines or ranks hold one version; remove overlap")
        made = all(one.tasks in (*SMALL_SOURCES, "environment") for one in self.families)
        read = read or bool(self.sft and self.sft.sources)
        if self.decontaminate and made and not read:
            raise ValueError("decontaminate compares sets and files that are read, and no family has one; remove it")
        for family in self.families:
            if self.rl is not None and family.agent.sampling == "agent":
                raise ValueError(
                    f"agent.sampling of family {family.name!r} is 'agent', and reinforcement learning needs the "
                    "temperature of rl.train; remove it"
                )
            if self.rl is None and family.rl != FamilyAlgorithm():
                raise ValueError(f"family {family.name!r} has settings of rl, and that stage is left out; remove them")
            if self.rl is not None:
                try:
                    family.rl.applied_to(self.rl.train)
                except ValueError as error:
                    raise ValueError(f"rl of family {family.name!r}: {error}") from None
        return self

    @model_validator(mode="after")
    def _teachers_fit(self) -> Self:
        asked = teachers_of(self)
        idle = sorted(set(self.teachers) - set(asked))
        if idle:
            raise ValueError(
                f"nobody asks the teacher {idle[0]!r}; set rl.train.algorithm to one that has teachers (opd, sdpo, "
                f"sdft, opsd) and teacher = {idle[0]!r} in rl.train or in a family's rl, or remove it"
            )
        for name, config in algorithms_of(self).items():
            if not isinstance(config, OPDConfig) or config.teacher is None or config.teacher not in asked:
                continue
            teacher = asked[config.teacher]
            if config.hindsight is None and teacher.policy in OWN:
                raise ValueError(
                    f"the teacher of family {name!r} is the policy itself and reads what the policy reads; set "
                    "hindsight.parts, or take another teacher"
                )
            if teacher.is_served and config.is_exact:
                raise ValueError(
                    f"the teacher of family {name!r} is a server, which tells of sampled tokens alone, and the kind of "
                    f"divergence is {config.divergence.kind!r}; set it to 'sampled', or take the teacher as engine:"
                )
            if teacher.is_served and config.temperature != 1.0:
                raise ValueError(
                    f"the teacher of family {name!r} is a server, which scores at temperature 1, and that of rl is "
                    f"{config.temperature:g}; set it to 1.0, or take the teacher as engine:"
                )
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if self.sft is None and self.model.checkpoint is None and (self.midtrain is None or self.rl is not None):
            raise ValueError("without the stage sft a model of random weights would be rewarded; set model.checkpoint")
        if self.midtrain is None and self.sft is None and self.rl is None:
            raise ValueError("there is no stage; set midtrain, sft or rl")
        if not self.families and (self.rl is not None or self.sft is None):
            raise ValueError("there is no family of tasks; give one, or imitate sft.sources alone (rl = false)")
        played = any(family.num_demonstrations for family in self.families)
        if self.sft is not None and not played and not self.sft.sources:
            raise ValueError(
                "the stage sft has no demonstrations; set num_demonstrations of a family above 0, or give sft.sources"
            )
        if self.rl is not None and self.rl.train.num_tasks < len(self.families):
            raise ValueError(
                f"rl.train.num_tasks is {self.rl.train.num_tasks}, less than the {len(self.families)} families; every "
                "step takes tasks of each, so raise it"
            )
        evaluation = None if self.rl is None else self.rl.evaluation
        small = [family.name for family in self.families if evaluation and family.num_held_out <= evaluation.num_tasks]
        if evaluation is not None and small:
            raise ValueError(
                f"rl.evaluation takes {evaluation.num_tasks} held-out tasks, and {', '.join(small)} would have none "
                "left for the final evaluation of the best checkpoint; lower num_tasks, or raise num_held_out"
            )
        if "control" in self.model_fields_set and self.control and (self.sft is None or self.rl is None):
            raise ValueError("control compares rl with more of sft, and one of them is left out; remove control")
        return self

    @model_validator(mode="after")
    def _engines_fit(self) -> Self:
        ahead = self.rl.asynchronous if self.rl is not None else None
        if self.engines is not None and self.engines.kind == "vllm" and ahead and ahead.on_weight_update == "keep":
            raise ValueError(
                "vLLM would give new requests the keys that old weights have computed; set "
                "rl.asynchronous.on_weight_update = 'recompute', or leave engines.kind out"
            )
        return self

    @model_validator(mode="after")
    def _model_fits(self) -> Self:
        if self.model.lora is not None and self.layout != LayoutConfig():
            raise ValueError("adapters are trained by one process, and the layout is of many; remove layout")
        if self.rl is not None and self.model.lora is not None and self.model.lora.dropout:
            raise ValueError(
                f"lora.dropout is {self.model.lora.dropout}, and reinforcement learning must train on the distribution "
                "it sampled from; set it to 0, or rl = false"
            )
        if self.model.checkpoint is not None and "vocab_size" in self.model.model_fields_set:
            raise ValueError("model.checkpoint has a tokenizer; remove vocab_size of model")
        if self.model.checkpoint is not None and self.model.changes:
            raise ValueError("model.checkpoint has layers of its own; remove layer_types and sliding_window of model")
        return self


def algorithms_of(recipe: Recipe) -> dict[str, RLConfig]:
    """Name of a family -> the algorithm's settings for it; {} without reinforcement learning."""
    if recipe.rl is None:
        return {}
    return {family.name: family.rl.applied_to(recipe.rl.train) for family in recipe.families}


def teachers_of(recipe: Recipe) -> dict[str, TeacherConfig]:
    """The teachers that any family asks, by name."""
    asked = [one for one in algorithms_of(recipe).values() if isinstance(one, OPDConfig) and one.teacher_weight]
    return {one.teacher: teacher_named(one.teacher, recipe.teachers) for one in asked if one.teacher is not None}
