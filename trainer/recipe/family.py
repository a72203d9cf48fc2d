"""One family of tasks of a recipe: where they come from, who acts in them, what of the algorithm is its own. Reading it
imports no torch."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from .algorithms import RLConfig
from .audited import AuditConfig
from .config import FILE_NAME, Settings
from .per_family import FamilyAlgorithm
from .stages import RLStage

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
    "MODULE:NAME" of a harness; see docs/agents.md. A CONFIG that lies beside the recipe is found there."""
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
    """Who acts in the episodes of the policy that is trained, and in demonstrations."""
    distill: FamilyAlgorithm = Field(default_factory=FamilyAlgorithm)
    """What of ``[distill.train]`` is otherwise for this family."""
    rl: FamilyAlgorithm = Field(default_factory=FamilyAlgorithm)
    """What of ``[rl.train]`` is otherwise for this family."""

    def trained_in(self, stage: RLStage) -> RLConfig:
        """The algorithm's settings of a stage for this family. Raises ValueError: they do not go together."""
        own: FamilyAlgorithm = getattr(self, stage.name)
        return own.applied_to(stage.train)

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
