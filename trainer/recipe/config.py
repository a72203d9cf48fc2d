"""Settings of the trainer. Reading them imports no torch."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Pattern of a name that also names files."""


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class LayoutConfig(Settings):
    """How many GPUs split what. Those that are left over shard the parameters (FSDP2)."""

    replicate: int = Field(default=1, ge=1)
    """Whole copies of the sharded model; above 1, hybrid sharding."""
    context: int = Field(default=1, ge=1)
    """Stretches that the tokens of a pack are cut into."""
    tensor: int = Field(default=1, ge=1)
    """Ranks that split heads and channels, and between them the tokens."""
    recompute: Literal["none", "selective", "full"] = "none"
    """What the backward pass computes again: nothing, all of a layer but its attention, or all of a layer."""
    offload: bool = False
    """Keep activations in the memory of the host until the backward pass."""
    bf16: bool = False
    """Forward and backward in bfloat16; weights, sums of gradients and the optimizer's state stay in float32."""


class EnginesConfig(Settings):
    """Engines as processes of their own, each `verigym serve` or vLLM: started here, or wherever they run already."""

    kind: Literal["verigym", "vllm"] = "verigym"
    """What the servers are: "verigym" for `verigym serve`, "vllm" for vLLM 0.32 (docs/design/031-vllm.md)."""
    python: Path | None = None
    """Interpreter that has vLLM, for the servers that are started here; None: this one (the extra "vllm")."""
    options: tuple[str, ...] = ()
    """More of vLLM's command line, such as ["--gpu-memory-utilization", "0.6"]."""
    count: int = Field(default=0, ge=0)
    """Servers to start on this machine; 0: those of ``urls``."""
    tensor_parallel: int = Field(default=1, ge=1)
    """Processes, one a GPU, that split the model in each server that is started here."""
    gpus: tuple[int, ...] = ()
    """Of this machine, for the servers that are started here, ``tensor_parallel`` each; none on a machine without."""
    urls: tuple[str, ...] = ()
    """Roots of servers that run already, such as "http://node-3:8000". They must have been started with
    --logprobs-mode processed_logprobs and --allow-weight-updates (vLLM: --enable-scale-out and VLLM_SERVER_DEV_MODE=1),
    and see ``weights`` under the same path."""
    weights: Path | None = None
    """Folder through which new weights reach the servers, in memory (/dev/shm) or on a shared file system; None: in the
    run's folder."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of the weights in the servers; None: as they are trained."""
    start_seconds: float = Field(default=1800.0, gt=0)
    """Within which a server that was started must answer, and new weights must be read."""

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        if (self.count > 0) == bool(self.urls):
            raise ValueError(
                f"count is {self.count} and there are {len(self.urls)} urls; set count to start servers, or urls of "
                "those that run"
            )
        if self.urls and (self.gpus or self.tensor_parallel > 1):
            raise ValueError("gpus and tensor_parallel are of servers that are started here; remove them, or urls")
        if self.gpus and len(set(self.gpus)) != self.count * self.tensor_parallel:
            raise ValueError(
                f"{self.count} servers of {self.tensor_parallel} GPUs need {self.count * self.tensor_parallel}, and "
                f"gpus names {len(set(self.gpus))}; name as many"
            )
        if self.urls and self.weights is None:
            raise ValueError("servers elsewhere read new weights from a shared folder; set engines.weights")
        if (self.python or self.options) and (self.urls or self.kind != "vllm"):
            raise ValueError(
                "python and options are of vLLM servers that are started here; remove them, or set kind = 'vllm' and "
                "count"
            )
        return self


class LoRAConfig(Settings):
    """Low-rank adapters in the place of the model's own weights.

    The defaults are those recommended for reinforcement learning: all matrices of the layers, alpha 32, a rank of 1 to
    32 (Schulman and others, LoRA Without Regret, 2025, thinkingmachines.ai/blog/lora).
    """

    rank: int = Field(default=32, ge=1)
    """Rows of the smaller side of each adapter."""
    alpha: float = Field(default=32.0, gt=0)
    """What an adapter adds is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of the adapters' inputs in supervised updates. Reinforcement learning refuses it: what is trained must be what
    was sampled from."""
    targets: tuple[str, ...] = ()
    """Last names of the matrices to adapt, such as "q_proj"; none for all but embeddings and head."""


class OptimConfig(Settings):
    """The optimizer, its schedule and gradient clipping."""

    lr: float = Field(default=3e-4, gt=0)
    """Peak learning rate, after the warm-up."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's first and second moment, each in [0, 1); Muon's momentum is 0.95."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of matrices; norms and other vectors have none. 0 is off."""
    grad_clip: float = Field(default=1.0, ge=0)
    """Largest global L2 norm of the gradient; 0 does not clip."""
    warmup_steps: int = Field(default=0, ge=0)
    """Optimizer steps of linear warm-up; 0 begins at the peak."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: "constant" stays at the peak, "cosine" falls to ``min_lr_ratio`` of it at ``total_steps``."""
    total_steps: int | None = Field(default=None, gt=0)
    """Optimizer steps after which a cosine schedule has ended; None for a constant one."""
    min_lr_ratio: float = Field(default=0.1, ge=0, le=1)
    """Where a cosine schedule ends, as a share of the peak."""
    matrices: Literal["adamw", "muon"] = "adamw"
    """What updates the matrices of the layers: AdamW, or Muon (momentum made orthogonal), which needs about half the
    steps where a small model starts from nothing. Embeddings, head and norms are AdamW's in both cases."""
    muon_lr: float | None = Field(default=None, gt=0)
    """Muon's peak rate; None: ``lr``. Its update is scaled to the size of AdamW's (arXiv:2502.16982)."""

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}; each must be in [0, 1)")
        if self.muon_lr is not None and self.matrices != "muon":
            raise ValueError("muon_lr does nothing without Muon; leave it out, or set matrices = 'muon'")
        if self.schedule == "cosine" and self.total_steps is None:
            raise ValueError("a cosine schedule needs its end; set total_steps, or schedule = 'constant'")
        if self.schedule == "constant" and self.total_steps is not None:
            raise ValueError(
                "total_steps does nothing in a constant schedule; leave it out, or set schedule = 'cosine'"
            )
        if self.total_steps is not None and self.warmup_steps >= self.total_steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} leaves nothing of total_steps {self.total_steps}; warm up for fewer"
            )
        return self


class SupervisedConfig(Settings):
    """Batches, and what ends supervised training."""

    epochs: float | None = Field(default=None, gt=0)
    """Most passes over the documents; None is bounded by ``max_steps`` or the plateau."""
    max_steps: int | None = Field(default=None, gt=0)
    """Most optimizer steps; None is bounded by ``epochs`` or the plateau."""
    batch_tokens: int = Field(default=16_384, gt=0)
    """Tokens of one optimizer step, prompts and observations included."""
    microbatch_tokens: int = Field(default=8192, gt=0)
    """Most tokens of one forward pass. Bounds memory, never the result; at least the longest document."""
    eval_every: int = Field(default=20, gt=0)
    """Optimizer steps between two measures of the held-out loss."""
    patience: int = Field(default=3, ge=0)
    """Measures in a row without a better held-out loss after which training has reached its plateau; 0 never stops."""
    min_delta: float = Field(default=0.001, ge=0)
    """How much lower, in nats a token, a held-out loss must be to count as better."""

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        if self.epochs is None and self.max_steps is None and self.patience == 0:
            raise ValueError("nothing would end this training; set epochs, max_steps, or patience above 0")
        if self.microbatch_tokens > self.batch_tokens:
            raise ValueError(
                f"microbatch_tokens {self.microbatch_tokens} is more than batch_tokens {self.batch_tokens}; one step "
                "would never fill a microbatch. Lower it"
            )
        return self


class SFTConfig(SupervisedConfig):
    """Supervised training on demonstrations."""

    observation_weight: float = Field(default=0.0, ge=0, le=1)
    """Weight, beside 1 for an assistant's token, of the tokens that others wrote: prompts and what the environment
    answered. 0 imitates only; above 0 the model learns too what actions bring about. The held-out loss never counts
    them."""


class MidtrainConfig(SupervisedConfig):
    """Training on traces and trajectories, every token of which is predicted."""

    context_weight: float = Field(default=1.0, ge=0, le=1)
    """Weight, beside 1 for a frame's token, of the source code that a trace begins with. The held-out loss never counts
    it."""


class DifficultyConfig(Settings):
    """Which training tasks are worth sampling, by the share of a task's episodes that passed."""

    low: float = Field(default=0.0, ge=0, le=1)
    """Tasks with a lower rate rest, and those that never passed in any case."""
    high: float = Field(default=1.0, ge=0, le=1)
    """Tasks with a higher rate rest, and those that always passed in any case."""
    samples: int = Field(default=0, ge=0)
    """Episodes of every training task that measure it under the starting weights, before the first step; 0 measures
    none, and rates come from training's own episodes."""
    memory: float = Field(default=0.5, ge=0, le=1)
    """What earlier episodes of a task count once it has new ones: 1 as much, 0 nothing."""
    rest_epochs: int = Field(default=1, ge=0)
    """Epochs that a task rests before it is tried again; 0: it does not come again."""
    order: Literal["random", "easy_first", "frontier"] = "random"
    """Of an epoch: "random"; "easy_first" by falling rate, as known when the epoch begins (an unknown one counts as one
    half); "frontier" has no epochs of its own, but draws each task with weight p (1 - p), p its rate, smoothed."""

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}; no task would be left")
        return self


class EvaluationConfig(Settings):
    """Evaluation during reinforcement learning, on some of the held-out tasks, off the clock of the training."""

    every: int = Field(default=10, ge=1)
    """Steps between two evaluations; one more comes before the first step."""
    num_tasks: int = Field(default=20, ge=1)
    """Held-out tasks of each family, the same every time. They choose the best checkpoint, so that its final evaluation
    takes the others."""
    samples: int = Field(default=1, ge=1)
    """Episodes of each, always drawn with the same seeds."""
    temperature: float = Field(default=1.0, ge=0)
    """Of sampling; 0 is greedy."""

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        if self.temperature == 0 and self.samples > 1:
            raise ValueError("greedy episodes of a task are all the same; set samples = 1, or temperature above 0")
        return self
