"""Settings of reinforcement learning that every algorithm has, and of sampling ahead. Reading them imports no torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from .config import Settings


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
    credit: Literal["episode", "turn"] = "episode"
    """What a token is rewarded by: the whole "episode", or its "turn" and those after it, where environments reward
    turns (``ToolEnv.reward``). By turn less noise is learned from, and the baseline is of the episodes that reached
    the turn: late turns weigh less, and one that a single episode reached nothing (``objective/turns.py``)."""
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
    share_prefixes: Literal["off", "auto", "on"] = "off"
    """Compute once what the episodes of a microbatch have in common from their beginnings on, such as the prompt of a
    group and the branches of an episode. It changes no gradient beyond rounding. Episodes with a common beginning then
    share a microbatch, where it counts once. "auto" does it where a fifth of a step's tokens is saved, and the model
    and the layout allow it: our decoder, on ranks that do not split a pack's tokens (tensor, context)."""
    overlong: Literal["keep", "mask"] = "keep"
    """Episodes that a budget cut off: "keep" trains on them, "mask" only counts their reward in the baseline."""
    concurrency: int = Field(default=64, gt=0, le=256)
    """Episodes at once; one process holds at most 256."""
    retries: int = Field(default=2, ge=0)
    """New attempts for an episode that the infrastructure failed, before it is left out of its group."""
    max_failures: float = Field(default=0.2, ge=0, le=1)
    """Share of the last 100 episodes (of 20, where fewer have ended) that may be lost, after their retries, to an
    exception in an environment's own code; beyond it the run stops and says which hook failed. 1 never stops."""
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
