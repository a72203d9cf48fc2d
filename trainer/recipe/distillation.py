"""Settings of learning from teachers. Reading them imports no torch."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from .config import Settings
from .shared import RLConfig
from .teachers import HindsightConfig


class DivergenceConfig(Settings):
    """How a student is compared with its teacher at each token that the student sampled.

    Source: arXiv:2306.13649 (GKD) for the kinds and ``beta``; a tail bucket as in SDPO, arXiv:2601.20802.
    """

    kind: Literal["sampled", "forward", "reverse", "jensen_shannon"] = "sampled"
    """"sampled" compares the drawn token alone: its log-ratio is an advantage, a noisy estimate of "reverse" that is
    cheap and that servers can give. The others are exact, over the vocabulary: "forward" is KL(teacher || student),
    which covers all that the teacher does; "reverse" is KL(student || teacher), which keeps to what it does most;
    "jensen_shannon" lies between and is bounded."""
    beta: float | None = Field(default=None, gt=0, lt=1)
    """Of "jensen_shannon": the teacher's share of the mixture, near 0 like "forward", near 1 like "reverse"; None: 0.5,
    the plain one."""
    support: int | None = Field(default=None, gt=0)
    """Compare this many of the likeliest tokens, and all others as one more outcome; None: the whole vocabulary."""
    support_of: Literal["student", "teacher"] = "student"
    """Whose likeliest tokens. A server tells its own alone."""
    tail: bool = True
    """Whether the others are one more outcome; without it the likeliest are compared as if there were no others."""
    cap: float | None = Field(default=None, gt=0)
    """Largest divergence of a token, nats; one that is larger has no gradient. None is off."""

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        plain = (None, None, "student", True, None)
        if self.kind == "sampled" and (self.beta, self.support, self.support_of, self.tail, self.cap) != plain:
            raise ValueError(
                "beta, support, support_of, tail and cap do nothing while kind is 'sampled'; set divergence.kind to "
                "'forward', 'reverse' or 'jensen_shannon' (the bound of a sampled log-ratio is max_gap)"
            )
        if self.beta is not None and self.kind != "jensen_shannon":
            raise ValueError(f"beta is of kind = 'jensen_shannon', and kind is {self.kind!r}; leave it out")
        if self.support is None and (self.support_of, self.tail) != ("student", True):
            raise ValueError("support_of and tail do nothing over the whole vocabulary; set divergence.support")
        return self

    @property
    def coefficient(self) -> float:
        """``model.divergence.Divergence.beta``."""
        if self.kind == "jensen_shannon":
            return 0.5 if self.beta is None else self.beta
        return 0.0 if self.kind == "forward" else 1.0


class CollapseConfig(Settings):
    """When a run that is taught ends early: the mean of the last steps is compared with that of the first ones."""

    window: int = Field(default=3, gt=0)
    """Steps of each mean."""
    least_reward: float | None = Field(default=0.5, gt=0, lt=1)
    """The share of the first mean reward below which it is a collapse, where that is above 0; None is off, as below."""
    least_entropy: float | None = Field(default=0.05, gt=0, lt=1)
    """The share of the first entropy."""
    least_length: float | None = Field(default=0.1, gt=0, lt=1)
    """The share of the first number of sampled tokens of an episode."""
    most_length: float | None = Field(default=5.0, gt=1)
    """How many times the first number of sampled tokens."""
    most_divergence: float | None = Field(default=10.0, gt=1)
    """How many times the first distance to the teacher."""


class OPDConfig(RLConfig):
    """On-policy distillation: a teacher scores the tokens that the student sampled, and each token's advantage is how
    much likelier the teacher finds it, which lowers KL(student || teacher) where the student is
    (arXiv:2306.13649, thinkingmachines.ai/blog/on-policy-distillation). It asks for no reward, and may take one too."""

    algorithm: Literal["opd"] = "opd"
    """Which algorithm these settings are of."""
    teacher: str | None = None
    """The name of a teacher in ``[teachers]``; "self" or "ema", the policy itself; or the folder of a checkpoint with
    the student's tokenizer."""
    hindsight: HindsightConfig | None = None
    """What the teacher is shown and the student was not; without it both read the same."""
    group_size: int = Field(default=4, gt=0)
    """Episodes of each task in one step."""
    divergence: DivergenceConfig = Field(default_factory=DivergenceConfig)
    """How the student is compared with the teacher."""
    teacher_weight: float = Field(default=1.0, ge=0)
    """Weight of what the teacher says; a family may have its own, and 0 does not ask it."""
    reward_weight: float = Field(default=0.0, ge=0)
    """Weight of GRPO's advantage (reward less the mean of its group) beside the teacher's; 0 leaves rewards out."""
    collapse: CollapseConfig = Field(default_factory=CollapseConfig)
    """When the run ends early."""
    discount: float = Field(default=0.0, ge=0, le=1)
    """What of the log-ratios of later tokens of the episode a token is credited with, to the power of the distance; 0
    takes its own alone."""
    max_gap: float | None = Field(default=None, gt=0)
    """Largest log-ratio of a token, either way, nats; None is off."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The probability ratio is clipped below 1 - clip_low where the advantage is negative."""
    clip_high: float = Field(default=0.28, gt=0)
    """The probability ratio is clipped above 1 + clip_high where the advantage is positive."""

    @field_validator("teacher", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return None if value is None else str(value)

    @model_validator(mode="after")
    def _can_learn(self) -> Self:
        if self.credit == "turn":
            raise ValueError("credit = 'turn' means nothing to a teacher, which credits each token; leave it out")
        if self.teacher is None:
            raise ValueError("opd learns from a teacher, and none is given; set teacher to a checkpoint's folder")
        if self.teacher == "self" and self.hindsight is None:
            raise ValueError(
                "the teacher is the policy itself and reads what the policy reads, so that it says the same; set "
                "hindsight.parts, or take another teacher"
            )
        if self.reward_weight and self.group_size < 2:
            raise ValueError(f"group_size is {self.group_size}; a reward has no baseline. Set it to 2 or more")
        if self.divergence.kind != "sampled" and (self.discount or self.max_gap is not None):
            raise ValueError(
                f"discount and max_gap are of sampled log-ratios, and divergence.kind is {self.divergence.kind!r}; "
                "leave them out (divergence.cap bounds a token's divergence)"
            )
        return self

    @property
    def is_exact(self) -> bool:
        """Whether distributions are compared in the step, and not sampled tokens before it."""
        return self.divergence.kind != "sampled"


class SDPOConfig(OPDConfig):
    """Self-distillation policy optimization: the policy, shown what its episodes came to and how another solved the
    task, is the teacher of its own tokens (arXiv:2601.20802)."""

    algorithm: Literal["sdpo"] = "sdpo"  # type: ignore[assignment]
    """Which algorithm these settings are of."""
    group_size: int = Field(default=8, gt=0)
    """Episodes of each task in one step; more bring a sibling that passed more often."""
    teacher: str | None = "ema"
    """As of "opd"; by default a moving average of the policy, which cannot run away with it."""
    divergence: DivergenceConfig = Field(default_factory=lambda: DivergenceConfig(kind="jensen_shannon"))
    """How the student is compared with the teacher."""
    hindsight: HindsightConfig | None = Field(
        default_factory=lambda: HindsightConfig(parts=("sibling", "verdict", "feedback"))
    )
    """What the teacher is shown."""


class SDFTConfig(OPDConfig):
    """Self-distillation from demonstrations: the policy, shown how an expert solved the task, is the teacher of what it
    samples itself, so that it learns a new skill and forgets less of the old ones (arXiv:2601.19897)."""

    algorithm: Literal["sdft"] = "sdft"  # type: ignore[assignment]
    """Which algorithm these settings are of."""
    teacher: str | None = "ema"
    """As of "opd"; by default a moving average of the policy."""
    divergence: DivergenceConfig = Field(default_factory=lambda: DivergenceConfig(kind="reverse"))
    """How the student is compared with the teacher."""
    hindsight: HindsightConfig | None = Field(default_factory=lambda: HindsightConfig(parts=("demonstration",)))
    """What the teacher is shown."""


class OPSDConfig(OPDConfig):
    """On-policy self-distillation: the policy, shown the reference solution, is the teacher of what it samples itself
    (arXiv:2601.18734)."""

    algorithm: Literal["opsd"] = "opsd"  # type: ignore[assignment]
    """Which algorithm these settings are of."""
    teacher: str | None = "self"
    """As of "opd"; by default the policy under its present weights."""
    divergence: DivergenceConfig = Field(default_factory=lambda: DivergenceConfig(kind="jensen_shannon"))
    """How the student is compared with the teacher."""
    hindsight: HindsightConfig | None = Field(default_factory=lambda: HindsightConfig(parts=("reference",)))
    """What the teacher is shown."""
