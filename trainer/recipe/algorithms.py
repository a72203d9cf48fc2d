"""Settings of the algorithms of reinforcement learning, one class each. Reading them imports no torch.

``Algorithm`` is their union, told apart by ``algorithm``; without it "grpo" is meant. The defaults are the vetted
setting of the source that each class names.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from .config import OptimConfig, Settings
from .distillation import OPDConfig as OPDConfig
from .distillation import OPSDConfig, SDFTConfig, SDPOConfig
from .shared import AsyncConfig as AsyncConfig
from .shared import CorrectionConfig as CorrectionConfig
from .shared import KLConfig as KLConfig
from .shared import RLConfig as RLConfig


class _Grouped(RLConfig):
    """Rewards are compared within the samples of one task."""

    drop_uniform_groups: bool = True
    """Leave out groups whose rewards are all the same: they have no policy gradient."""
    sampling_rounds: int = Field(default=1, ge=1)
    """Dynamic sampling: where groups were uniform, as many new tasks are sampled, up to this many rounds a step
    (DAPO, arXiv:2503.14476). 1 is off."""

    @model_validator(mode="after")
    def _has_a_baseline(self) -> Self:
        if self.group_size < 2:
            raise ValueError(f"group_size is {self.group_size}; a lone episode has no baseline. Set it to 2 or more")
        if self.sampling_rounds > 1 and not self.drop_uniform_groups:
            raise ValueError(
                "sampling_rounds replaces uniform groups, and they are kept; set drop_uniform_groups = true"
            )
        return self


class GRPOConfig(_Grouped):
    """Group relative policy optimization.

    The defaults are GRPO (arXiv:2402.03300) with DAPO's global token normalization and higher upper clip
    (arXiv:2503.14476) and without division by the group's deviation (Dr. GRPO, arXiv:2503.20783).
    """

    algorithm: Literal["grpo"] = "grpo"
    """Which algorithm these settings are of."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The probability ratio is clipped below 1 - clip_low where the advantage is negative."""
    clip_high: float = Field(default=0.28, gt=0)
    """The probability ratio is clipped above 1 + clip_high where the advantage is positive."""
    scale: Literal["none", "std"] = "none"
    """"std" divides advantages by the population standard deviation of their group; "none" does not."""
    aggregation: Literal["token", "episode"] = "token"
    """What counts the same in the loss: each trained "token" of the step, or each "episode"."""


class DrGRPOConfig(_Grouped):
    """GRPO without its two biases: no division by the deviation, none by an episode's length (arXiv:2503.20783)."""

    algorithm: Literal["dr_grpo"] = "dr_grpo"
    """Which algorithm these settings are of."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The probability ratio is clipped below 1 - clip_low where the advantage is negative."""
    clip_high: float = Field(default=0.2, gt=0)
    """The probability ratio is clipped above 1 + clip_high where the advantage is positive."""
    length: int = Field(default=1024, gt=0)
    """The constant that the sum over an episode's tokens is divided by; the paper takes the sampling budget."""


class DAPOConfig(_Grouped):
    """Clip-higher, token-level loss, dynamic sampling and overlong shaping (arXiv:2503.14476)."""

    algorithm: Literal["dapo"] = "dapo"
    """Which algorithm these settings are of."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The probability ratio is clipped below 1 - clip_low where the advantage is negative."""
    clip_high: float = Field(default=0.28, gt=0)
    """The probability ratio is clipped above 1 + clip_high where the advantage is positive."""
    sampling_rounds: int = Field(default=10, ge=1)
    """Dynamic sampling: where groups were uniform, as many new tasks are sampled, up to this many rounds a step."""
    overlong_length: int | None = Field(default=None, gt=0)
    """Sampled tokens of an episode from which its reward is lowered by the whole ``overlong_penalty``; None is off."""
    overlong_buffer: int = Field(default=0, ge=0)
    """Tokens before ``overlong_length`` over which the penalty grows linearly from 0."""
    overlong_penalty: float = Field(default=1.0, gt=0)
    """Largest penalty; the paper takes the distance of its rewards' signs, 1."""

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        if self.overlong_length is None and (self.overlong_buffer, self.overlong_penalty) != (0, 1.0):
            raise ValueError("overlong_buffer and overlong_penalty do nothing without overlong_length; set it")
        if self.overlong_length is not None and self.overlong_buffer > self.overlong_length:
            raise ValueError(
                f"overlong_buffer {self.overlong_buffer} is more than overlong_length {self.overlong_length}; lower it"
            )
        return self


class GSPOConfig(_Grouped):
    """Ratios and clips of whole sequences: the geometric mean over their tokens (arXiv:2507.18071)."""

    algorithm: Literal["gspo"] = "gspo"
    """Which algorithm these settings are of."""
    clip_low: float = Field(default=3e-4, gt=0, lt=1)
    """The sequence's ratio is clipped below 1 - clip_low where the advantage is negative."""
    clip_high: float = Field(default=4e-4, gt=0)
    """The sequence's ratio is clipped above 1 + clip_high where the advantage is positive."""


class CISPOConfig(_Grouped):
    """Clips the importance weight, not the gradient: every token keeps one (MiniMax-M1, arXiv:2506.13585)."""

    algorithm: Literal["cispo"] = "cispo"
    """Which algorithm these settings are of."""
    max_weight: float = Field(default=5.0, ge=1)
    """Largest importance weight; 5 as in ScaleRL (arXiv:2510.13786)."""
    scale: Literal["none", "std"] = "std"
    """"std" divides advantages by the population standard deviation of their group; "none" does not."""


class DPPOConfig(_Grouped):
    """No gradient for tokens whose probability has moved too far from the sampler's, in the direction that the
    advantage pushes to; the rest as GRPO, without a clip of the ratio (arXiv:2602.04879, its binary divergences)."""

    algorithm: Literal["dppo"] = "dppo"
    """Which algorithm these settings are of."""
    divergence: Literal["tv", "kl"] = "tv"
    """What is bounded of the drawn token against all others: "tv" the difference of its probabilities, "kl" their
    divergence in nats (the paper's bound is then 0.05)."""
    clip_low: float = Field(default=0.15, gt=0, lt=1)
    """Largest divergence where the advantage is negative and the token has become less likely."""
    clip_high: float = Field(default=0.15, gt=0)
    """Largest divergence where the advantage is positive and the token has become likelier."""
    max_weight: float = Field(default=20.0, ge=1)
    """Largest probability ratio."""
    scale: Literal["none", "std"] = "none"
    """"std" divides advantages by the population standard deviation of their group; "none" does not."""

    @model_validator(mode="after")
    def _is_of_the_sampler(self) -> Self:
        if self.correction.kind != "none":
            raise ValueError("dppo compares with the sampler already; leave correction out, or take algorithm = 'grpo'")
        return self


class RLOOConfig(_Grouped):
    """REINFORCE with the mean of the other samples as the baseline (arXiv:2402.14740).

    A sequence is one action: its ratio is the product over its tokens, clipped as in PPO for steps off the policy.
    """

    algorithm: Literal["rloo"] = "rloo"
    """Which algorithm these settings are of."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The sequence's ratio is clipped below 1 - clip_low where the advantage is negative."""
    clip_high: float = Field(default=0.2, gt=0)
    """The sequence's ratio is clipped above 1 + clip_high where the advantage is positive."""


def _by_episode(config: RLConfig) -> None:
    """Raises ValueError where turns are to be rewarded one by one, which an algorithm does not know."""
    if config.credit == "turn":
        name = getattr(config, "algorithm", "")
        raise ValueError(f"credit = 'turn' means nothing to {name}; leave it out, or take algorithm = 'grpo'")


class MaxRLConfig(_Grouped):
    """GRPO whose advantages are divided by the mean reward of their group: rare successes weigh more, as under the
    likelihood of succeeding. Rewards must not be negative."""

    algorithm: Literal["max_rl"] = "max_rl"
    """Which algorithm these settings are of."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The probability ratio is clipped below 1 - clip_low where the advantage is negative."""
    clip_high: float = Field(default=0.28, gt=0)
    """The probability ratio is clipped above 1 + clip_high where the advantage is positive."""

    @model_validator(mode="after")
    def _credits_episodes(self) -> Self:
        _by_episode(self)
        return self


class OwnConfig(RLConfig):
    """An algorithm of one's own: ``algorithm = "MODULE:CLASS"``. The class is made with ``options`` and called with the
    episodes of each group; what it returns is each sampled token's advantage (``objective.own`` has the contract)."""

    algorithm: str = Field(pattern=r"^[\w.]+:\w+$")
    """"MODULE:CLASS", importable where the run starts."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the class."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The probability ratio is clipped below 1 - clip_low where the advantage is negative."""
    clip_high: float = Field(default=0.28, gt=0)
    """The probability ratio is clipped above 1 + clip_high where the advantage is positive."""

    @model_validator(mode="after")
    def _credits_tokens(self) -> Self:
        _by_episode(self)
        return self


class ReinforcePPConfig(RLConfig):
    """REINFORCE++: PPO's clip without a critic; advantages are normalized over the whole step (arXiv:2501.03262)."""

    algorithm: Literal["reinforce_pp"] = "reinforce_pp"
    """Which algorithm these settings are of."""
    num_tasks: int = Field(default=64, gt=0)
    """Tasks of one step; each is a group."""
    group_size: int = Field(default=1, gt=0)
    """Episodes of each task in one step."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The probability ratio is clipped below 1 - clip_low where the advantage is negative."""
    clip_high: float = Field(default=0.2, gt=0)
    """The probability ratio is clipped above 1 + clip_high where the advantage is positive."""
    baseline: Literal["none", "group"] = "none"
    """"group" takes the mean of the task's samples from each reward first (the paper's REINFORCE++-Baseline)."""

    @model_validator(mode="after")
    def _has_a_baseline(self) -> Self:
        if self.baseline == "group" and self.group_size < 2:
            raise ValueError(f"group_size is {self.group_size}; baseline = 'group' needs 2 or more")
        return self


class CriticConfig(Settings):
    """What predicts the reward that is still to come at each sampled token."""

    kind: Literal["head", "shared", "model"] = "head"
    """"head" is one linear map of the policy's hidden states, which its loss leaves alone; "shared" trains them too,
    which can undo a policy within steps; "model" is a decoder of its own, which starts as a copy of the policy."""
    coef: float = Field(default=0.5, gt=0)
    """Weight of the value loss."""
    clip: float | None = Field(default=0.2, gt=0)
    """A new value further than this from the old one has no gradient where that would move it on; None is off."""
    optim: OptimConfig = Field(default_factory=lambda: OptimConfig(lr=1e-3))
    """Optimizer of the critic's own parameters."""


class PPOConfig(RLConfig):
    """Proximal policy optimization with a critic and generalized advantage estimation.

    gamma = lambda = 1 as in Open-Reasoner-Zero (arXiv:2503.24290), where a reward comes once, at the end; a lower
    lambda lowers the variance and trusts the critic more.
    """

    algorithm: Literal["ppo"] = "ppo"
    """Which algorithm these settings are of."""
    num_tasks: int = Field(default=64, gt=0)
    """Tasks of one step; each is a group."""
    group_size: int = Field(default=1, gt=0)
    """Episodes of each task in one step."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The probability ratio is clipped below 1 - clip_low where the advantage is negative."""
    clip_high: float = Field(default=0.2, gt=0)
    """The probability ratio is clipped above 1 + clip_high where the advantage is positive."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount from one sampled token to the next; observations take no time."""
    gae_lambda: float = Field(default=1.0, ge=0, le=1)
    """1 takes whole returns, 0 one step and the critic."""
    whiten: bool = True
    """Center and scale advantages over all sampled tokens of the step."""
    critic: CriticConfig = Field(default_factory=CriticConfig)
    """The critic."""
    critic_warmup_steps: int = Field(default=0, ge=0)
    """Steps at the start that train the critic alone."""


ALGORITHMS: dict[str, type[RLConfig]] = {
    "grpo": GRPOConfig,
    "dr_grpo": DrGRPOConfig,
    "dapo": DAPOConfig,
    "gspo": GSPOConfig,
    "cispo": CISPOConfig,
    "dppo": DPPOConfig,
    "rloo": RLOOConfig,
    "max_rl": MaxRLConfig,
    "opd": OPDConfig,
    "sdpo": SDPOConfig,
    "sdft": SDFTConfig,
    "opsd": OPSDConfig,
    "reinforce_pp": ReinforcePPConfig,
    "ppo": PPOConfig,
}


KINDS: dict[str, type[RLConfig]] = {**ALGORITHMS, "own": OwnConfig}
"""By the tags of the union below."""


def _name(value: Any) -> Any:
    name = value.get("algorithm", "grpo") if isinstance(value, dict) else getattr(value, "algorithm", None)
    return "own" if isinstance(name, str) and ":" in name else name


Algorithm = Annotated[
    Annotated[GRPOConfig, Tag("grpo")]
    | Annotated[DrGRPOConfig, Tag("dr_grpo")]
    | Annotated[DAPOConfig, Tag("dapo")]
    | Annotated[GSPOConfig, Tag("gspo")]
    | Annotated[CISPOConfig, Tag("cispo")]
    | Annotated[DPPOConfig, Tag("dppo")]
    | Annotated[RLOOConfig, Tag("rloo")]
    | Annotated[MaxRLConfig, Tag("max_rl")]
    | Annotated[OPDConfig, Tag("opd")]
    | Annotated[SDPOConfig, Tag("sdpo")]
    | Annotated[SDFTConfig, Tag("sdft")]
    | Annotated[OPSDConfig, Tag("opsd")]
    | Annotated[OwnConfig, Tag("own")]
    | Annotated[ReinforcePPConfig, Tag("reinforce_pp")]
    | Annotated[PPOConfig, Tag("ppo")],
    Discriminator(
        _name,
        custom_error_type="unknown_algorithm",
        custom_error_message=f"algorithm must be one of {', '.join(ALGORITHMS)}, or MODULE:CLASS",
    ),
]
