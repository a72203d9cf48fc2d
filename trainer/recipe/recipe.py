"""A recipe: what to train, on which tasks, through which stages. Reading one imports no torch."""

import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from .algorithms import OPDConfig, RLConfig
from .cluster import ClusterConfig
from .config import FILE_NAME, EnginesConfig, LayoutConfig, Settings
from .family import SMALL_SOURCES, FamilyConfig
from .model import ModelConfig
from .per_family import FamilyAlgorithm
from .record import RecordConfig
from .stages import DistillStage, EvalConfig, MidtrainStage, RLStage, SFTStage
from .teachers import OWN, TeacherConfig, teacher_named


class Recipe(Settings):
    """A whole run."""

    name: str = Field(pattern=FILE_NAME)
    """Names the run and its folder: letters, digits, "_", "." and "-"."""
    seed: int = 0
    """Of tasks, experts, weights, order and sampling."""
    sandbox: str = "auto"
    """Where environments run commands: "auto", "docker", "podman", "oci", "apptainer", "kubernetes", "local", "ssh",
    "unsafe", or an installed package's word."""
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
    """Reinforcement learning; false ends with the stage before it."""
    distill: DistillStage | None = None
    """Distillation from teachers, before reinforcement learning or in its place."""
    teachers: dict[str, TeacherConfig] = Field(default_factory=dict)
    """Who scores the tokens that the policy samples, by name; ``train.teacher`` of ``distill`` and ``rl``, and those of
    a family, say whose are asked."""
    control: bool = True
    """Train the supervised checkpoint on demonstrations for as long as distillation and reinforcement learning took,
    and report it."""
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
    def sampled_stages(self) -> list[RLStage]:
        """Those in which the policy learns from what it samples, in order."""
        return [stage for stage in (self.distill, self.rl) if stage is not None]

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

    @field_validator("midtrain", "sft", "distill", "rl", "engines", "cluster", mode="before")
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
            if self.sampled_stages and family.agent.sampling == "agent":
                raise ValueError(
                    f"agent.sampling of family {family.name!r} is 'agent', and what is learned from needs the "
                    "temperature of its stage; remove it"
                )
            for name, stage in (("distill", self.distill), ("rl", self.rl)):
                if stage is None and getattr(family, name) != FamilyAlgorithm():
                    raise ValueError(
                        f"family {family.name!r} has settings of {name}, and that stage is left out; remove them"
                    )
            for stage in self.sampled_stages:
                try:
                    family.trained_in(stage)
                except ValueError as error:
                    raise ValueError(f"{stage.name} of family {family.name!r}: {error}") from None
        return self

    @model_validator(mode="after")
    def _teachers_fit(self) -> Self:
        asked = teachers_of(self)
        idle = sorted(set(self.teachers) - set(asked))
        if idle:
            raise ValueError(
                f"nobody asks the teacher {idle[0]!r}; set rl.train.algorithm to one that has teachers (opd, sdpo, "
                f"sdft, opsd) and teacher = {idle[0]!r} in rl.train or in a family's rl (or in those of distill), or "
                "remove it"
            )
        told = ((stage.name, *one) for stage in self.sampled_stages for one in algorithms_of(self, stage).items())
        for stage, name, config in told:
            if not isinstance(config, OPDConfig):
                continue
            if not config.teacher_weight and not config.reward_weight:
                raise ValueError(
                    f"family {name!r} learns nothing in {stage}: its teacher_weight and reward_weight are both 0; set "
                    "one of them above 0"
                )
            if config.teacher is None or config.teacher not in asked:
                continue
            teacher = asked[config.teacher]
            if config.hindsight is None and teacher.policy in OWN:
                raise ValueError(
                    f"the teacher of family {name!r} is the policy itself and reads what the policy reads; set "
                    "hindsight.parts, or take another teacher"
                )
            if (
                config.hindsight is not None
                and teacher.policy not in OWN
                and config.hindsight.sample_every not in (0, 10)
            ):
                raise ValueError(
                    f"hindsight.sample_every is of a teacher that is the policy itself, and that of family {name!r} is "
                    f"{teacher.policy!r}, which plays no episodes; leave it out"
                )
            exact = config.divergence if config.is_exact else None
            if teacher.is_served and exact is not None and (exact.support is None or exact.support_of != "teacher"):
                raise ValueError(
                    f"the teacher of family {name!r} is a server, which tells of sampled tokens and of those that it "
                    f"finds likeliest, and divergence is {exact.kind!r} over others; set divergence.support (such as "
                    "20) and support_of = 'teacher', or kind = 'sampled', or take the teacher as engine:"
                )
            if teacher.is_served and config.temperature != 1.0:
                raise ValueError(
                    f"the teacher of family {name!r} is a server, which scores at temperature 1, and that of "
                    f"{stage} is {config.temperature:g}; set it to 1.0, or take the teacher as engine:"
                )
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        sampled = self.sampled_stages
        if self.sft is None and self.model.checkpoint is None and (self.midtrain is None or sampled):
            raise ValueError("without the stage sft a model of random weights would be rewarded; set model.checkpoint")
        if self.midtrain is None and self.sft is None and not sampled:
            raise ValueError("there is no stage; set midtrain, sft, distill or rl")
        if not self.families and (sampled or self.sft is None):
            raise ValueError("there is no family of tasks; give one, or imitate sft.sources alone (rl = false)")
        played = any(family.num_demonstrations for family in self.families)
        if self.sft is not None and not played and not self.sft.sources:
            raise ValueError(
                "the stage sft has no demonstrations; set num_demonstrations of a family above 0, or give sft.sources"
            )
        for stage in sampled:
            if stage.train.num_tasks < len(self.families):
                raise ValueError(
                    f"{stage.name}.train.num_tasks is {stage.train.num_tasks}, less than the {len(self.families)} "
                    "families; every step takes tasks of each, so raise it"
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
        for stage in self.sampled_stages:
            ahead = stage.asynchronous
            if self.engines is not None and self.engines.kind == "vllm" and ahead and ahead.on_weight_update == "keep":
                raise ValueError(
                    "vLLM would give new requests the keys that old weights have computed; set "
                    f"{stage.name}.asynchronous.on_weight_update = 'recompute', or leave engines.kind out"
                )
        return self

    @model_validator(mode="after")
    def _prefixes_fit(self) -> Self:
        split = self.layout.context * self.layout.tensor
        if split > 1 and any(stage.train.share_prefixes == "on" for stage in self.sampled_stages):
            raise ValueError(
                f"share_prefixes is 'on', and {split} ranks split the tokens of a pack (layout.context x "
                "layout.tensor); set it to 'auto' or 'off', or leave context and tensor at 1"
            )
        return self

    @model_validator(mode="after")
    def _model_fits(self) -> Self:
        if self.model.lora is not None and self.layout.tensor > 1:
            raise ValueError(
                "every rank has adapters (model.lora) whole, and tensor parallel cuts the matrices below them; remove "
                "layout.tensor: the ranks shard the parameters then"
            )
        if self.sampled_stages and self.model.lora is not None and self.model.lora.dropout:
            raise ValueError(
                f"lora.dropout is {self.model.lora.dropout}, and reinforcement learning must train on the distribution "
                "it sampled from; set it to 0, or rl = false"
            )
        if self.model.checkpoint is not None and "vocab_size" in self.model.model_fields_set:
            raise ValueError("model.checkpoint has a tokenizer; remove vocab_size of model")
        if self.model.checkpoint is not None and self.model.changes:
            raise ValueError("model.checkpoint has layers of its own; remove layer_types and sliding_window of model")
        return self


def algorithms_of(recipe: Recipe, stage: RLStage) -> dict[str, RLConfig]:
    """Name of a family -> the algorithm's settings for it in a stage."""
    return {family.name: family.trained_in(stage) for family in recipe.families}


def teachers_of(recipe: Recipe, stage: RLStage | None = None) -> dict[str, TeacherConfig]:
    """The teachers that any family asks in a stage, or in any, by name."""
    stages = recipe.sampled_stages if stage is None else [stage]
    configs = [config for one in stages for config in algorithms_of(recipe, one).values()]
    asked = [one for one in configs if isinstance(one, OPDConfig) and one.teacher_weight]
    return {one.teacher: teacher_named(one.teacher, recipe.teachers) for one in asked if one.teacher is not None}
