"""Settings of the algorithms of reinforcement learning, one class each. Reading them imports no torch.

``Algorithm`` is their union, told apart by ``algorithm``; without it "grpo" is meant. The defaults are the vetted
setting of the source that each class names.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from .config import OptimConfig, Settings


class KLConfig(Settings):
    """Distance to a reference: the weights this stage began with."""

    coef: float = Field(default=0.0, ge=0)
    """Weight of the distance; 0 is off, and no reference is kept."""
    estimator: Literal["k1", "k2", "k3"] = "k3"
    """With l = log p - log p_ref: k1 = l, k2 = l^2 / 2, k3 = exp(-l) - 1 + l (joschu.net/blog/kl-approx)."""
    place: Literal["loss", "reward"] = "loss"
    """"loss" adds it to each token's loss, "reward" takes it from each token's reward."""

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        if self.coef == 0 and (self.estimator, self.place) != ("k3", "loss"):
            raise ValueError("estimator and place do nothing while kl.coef is 0; set it above 0, or leave kl out")
        if self.coef and self.place == "loss" and self.estimator == "k1":
            raise ValueError(
                "k1 in the loss has a gradient of 0 in expectation; set kl.estimator = 'k2' or 'k3', or "
                "kl.place = 'reward'"
            )
        return self


class CorrectionConfig(Settings):
    """Importance weights for tokens that the sampler drew with other log-probabilities than the trainer's.

    The difference comes from other kernels or from older weights. It is measured always ("trainer/mismatch_kl").
    Source: truncated, fengyao.notion.site/off-policy-rl; masked, arXiv:2510.18855 (IcePop).
    """

    kind: Literal["none", "truncate", "mask"] = "none"
    """"truncate" takes min(w, cap); "mask" takes w within [floor, cap] and drops what is outside; "none" corrects
    nothing, and the clipped ratio is taken against the sampler's log-probabilities."""
    level: Literal["token", "sequence"] = "token"
    """Whether w is of a token, or the product over all sampled tokens of a sequence (a segment of an episode)."""
    cap: float = Field(default=2.0, gt=1)
    """Largest weight."""
    floor: float = Field(default=0.0, ge=0, lt=1)
    """Smallest weight that "mask" keeps."""

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        if self.kind == "none" and (self.level, self.cap, self.floor) != ("token", 2.0, 0.0):
            raise ValueError("level, cap and floor do nothing while kind is 'none'; set correction.kind")
        if self.kind == "truncate" and self.floor:
            raise ValueError(
                "floor does nothing under kind = 'truncate'; leave it out, or set correction.kind = 'mask'"
            )
        return self


class RLConfig(Settings):
    """What all algorithms share: sampling, updates, distances."""

    num_tasks: int = Field(default=8, gt=0)
    """Tasks of one step; each is a group."""
    group_size: int = Field(default=8, gt=0)
    """Episodes of each task in one step."""
    entropy_coef: float = Field(default=0.0, ge=0)
    """Weight of the entropy bonus, per trained token; 0 is off."""
    kl: KLConfig = Field(default_factory=KLConfig)
    """Distance to the weights the stage began with."""
    correction: CorrectionConfig = Field(default_factory=CorrectionConfig)
    """Correction of the gap between sampler and trainer."""
    echo: dict[Literal["tool", "user", "system", "template"], float] = Field(default_factory=dict)
    """Learn also what the environment answers: cross-entropy on observed tokens, by who wrote them, times these
    weights, beside the algorithm's own loss and over a token count of its own; {} is off. "template" is what a chat
    format writes around messages. Taken on the episodes that the algorithm trains on, what the last turn was answered
    included."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of the episodes; the trained distribution is the one at this temperature."""
    top_p: float = 1.0
    """Nucleus of sampling. Only 1.0 (off) can be trained on."""
    top_k: int = 0
    """Most likely tokens that sampling keeps. Only 0 (off) can be trained on."""
    num_epochs: int = Field(default=1, gt=0)
    """Passes over the episodes of a step."""
    num_minibatches: int = Field(default=1, gt=0)
    """Optimizer updates in each pass; groups are never split between them."""
    microbatch_tokens: int = Field(default=8192, gt=0)
    """Most tokens of one forward pass. Bounds memory, never the result; at least the longest episode."""
    overlong: Literal["keep", "mask"] = "keep"
    """Episodes that a budget cut off: "keep" trains on them, "mask" only counts their reward in the baseline."""
    concurrency: int = Field(default=64, gt=0, le=256)
    """Episodes at once; one process holds at most 256."""
    retries: int = Field(default=2, ge=0)
    """New attempts for an episode that the infrastructure failed, before it is left out of its group."""
    group_seconds: float | None = Field(default=None, gt=0)
    """Wall clock, from a group's first episode on, after which those of its episodes that still run are cancelled."""
    quorum: int | None = Field(default=None, gt=0)
    """Episodes of a group that must have ended by then, else the group is left out; without it, all of them."""
    max_useless_steps: int = Field(default=10, gt=0)
    """Steps in a row without anything to learn from (all rewards of every group the same, or every episode failed)
    after which the run stops and says why."""

    @model_validator(mode="after")
    def _can_be_trained_on(self) -> Self:
        if any(weight <= 0 for weight in self.echo.values()):
            raise ValueError(f"echo is {self.echo}; a weight that is not above 0 does nothing, so leave that role out")
        if self.quorum is not None and self.group_seconds is None:
            raise ValueError("quorum does nothing without a deadline; set group_seconds, or leave quorum out")
        if self.quorum is not None and self.quorum > self.group_size:
            raise ValueError(f"quorum {self.quorum} is more than group_size {self.group_size}; lower it")
        if self.top_p != 1.0:
            raise ValueError(
                f"top_p is {self.top_p}; the tokens that sampling cut off are not replayed in training, so ratios "
                "would be wrong. Set top_p = 1.0 and lower the temperature instead"
            )
        if self.top_k != 0:
            raise ValueError(
                f"top_k is {self.top_k}; the tokens that sampling cut off are not replayed in training, so ratios "
                "would be wrong. Set top_k = 0 and lower the temperature instead"
            )
        if self.num_minibatches > self.num_tasks:
            raise ValueError(
                f"num_minibatches {self.num_minibatches} is more than num_tasks {self.num_tasks}, and groups are not "
                "split; use fewer minibatches or more tasks"
            )
        return self


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


class AsyncConfig(Settings):
    """Sampling ahead of training. Source: AReaL, arXiv:2505.24298; CWM trains so too, arXiv:2510.02387."""

    max_lag: int = Field(default=1, ge=1)
    """Steps that the weights which sampled a token may be behind those that train on it. What would be older is not
    begun; what has become older is dropped."""
    order: Literal["started", "ended"] = "started"
    """Which groups are trained on first: those that "started" first waits for slow ones, and is the order of a
    synchronous run; those that "ended" first never waits, and learns from quick episodes before slow ones."""
    on_weight_update: Literal["keep", "recompute"] = "keep"
    """What becomes of turns in flight at an update: "keep" goes on over the old keys and values, "recompute" computes
    them again under the new weights."""


ALGORITHMS: dict[str, type[RLConfig]] = {
    "grpo": GRPOConfig,
    "dr_grpo": DrGRPOConfig,
    "dapo": DAPOConfig,
    "gspo": GSPOConfig,
    "cispo": CISPOConfig,
    "rloo": RLOOConfig,
    "reinforce_pp": ReinforcePPConfig,
    "ppo": PPOConfig,
}


def _name(value: Any) -> Any:
    return value.get("algorithm", "grpo") if isinstance(value, dict) else getattr(value, "algorithm", None)


Algorithm = Annotated[
    Annotated[GRPOConfig, Tag("grpo")]
    | Annotated[DrGRPOConfig, Tag("dr_grpo")]
    | Annotated[DAPOConfig, Tag("dapo")]
    | Annotated[GSPOConfig, Tag("gspo")]
    | Annotated[CISPOConfig, Tag("cispo")]
    | Annotated[RLOOConfig, Tag("rloo")]
    | Annotated[ReinforcePPConfig, Tag("reinforce_pp")]
    | Annotated[PPOConfig, Tag("ppo")],
    Discriminator(
        _name,
        custom_error_type="unknown_algorithm",
        custom_error_message=f"algorithm must be one of {', '.join(ALGORITHMS)}",
    ),
]
