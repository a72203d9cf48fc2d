"""Settings of teachers, and of what they are shown. Reading them imports no torch."""

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from .config import Settings

OWN = ("self", "ema")
"""Teachers that are the policy itself; their names stand for themselves where ``[teachers]`` has none of the name."""

Part = Literal["verdict", "tests", "feedback", "sibling", "sibling_episode", "reference", "demonstration"]


class TeacherConfig(Settings):
    """Who scores the tokens that the student sampled."""

    policy: str
    """"engine:CHECKPOINT" is a checkpoint with the student's tokenizer, of any family of our decoder (in one process of
    transformers' too); only its forward passes are needed. "tokens:CHECKPOINT@BASE_URL#MODEL" is a server
    (``verigym serve``, vLLM) whose model has the tokenizer of CHECKPOINT: it says the log-probabilities of sampled
    tokens, or of those that it finds likeliest (``divergence.support``), at temperature 1, while other episodes are
    sampled. "self" is the policy under its present weights, "ema" under a moving average of them: both must be shown
    what the student was not (``hindsight``)."""
    decay: float = Field(default=0.95, gt=0, lt=1)
    """Of "ema": what of the average stays at each update; 0.95 as in SDPO (arXiv:2601.20802). Nearer to 1 the teacher
    moves slower, and the student cannot run away with it."""

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        if not re.fullmatch(r"self|ema|engine:.+|tokens:.+@https?://.+#.+", self.policy):
            raise ValueError(
                f"policy is {self.policy!r}; write 'self', 'ema', 'engine:CHECKPOINT' (a folder), or "
                "'tokens:CHECKPOINT@BASE_URL#MODEL' (a folder with the tokenizer of a server's model)"
            )
        if self.policy != "ema" and self.decay != 0.95:
            raise ValueError(f"decay is of policy = 'ema', and policy is {self.policy!r}; leave it out")
        return self

    @property
    def checkpoint(self) -> str | None:
        """The folder of "engine:"; None of the policy itself, and of a server."""
        return self.policy.removeprefix("engine:") if self.policy.startswith("engine:") else None

    @property
    def is_served(self) -> bool:
        """Whether it is a server that is asked, and no model of this process."""
        return self.policy.startswith("tokens:")

    @property
    def tokenizer(self) -> str | None:
        """The folder whose tokenizer it has; None of the policy itself."""
        return self.policy.removeprefix("tokens:").rpartition("@http")[0] if self.is_served else self.checkpoint


def teacher_named(name: str, teachers: dict[str, TeacherConfig]) -> TeacherConfig:
    """Of ``[teachers]``, else the policy itself ("self", "ema"), else a checkpoint's folder."""
    if name in teachers:
        return teachers[name]
    return TeacherConfig(policy=name if name in OWN else f"engine:{name}")


class HindsightConfig(Settings):
    """What the teacher reads, and the student did not: a block of text in the student's very episode.

    Sources: SDPO, arXiv:2601.20802 (feedback, siblings); SDFT, arXiv:2601.19897 and OPSD, arXiv:2601.18734
    (demonstrations, reference solutions).
    """

    parts: tuple[Part, ...] = Field(min_length=1)
    """What the block may hold, in this order: "verdict" (whether it passed, and what decided), "tests" (names of tests
    that did not pass), "feedback" (what the environment's ``feedback`` says), "sibling" (the patch or the last message
    of another episode of the group that passed, never its own), "sibling_episode" (all of such an episode),
    "reference" (the environment's gold answer), "demonstration" (an expert's episode of the task). What an episode
    does not have is left out; one that has none of it is not taught."""
    before_turn: int = Field(default=0, ge=0)
    """Where the block stands: 0: at the end of the first user message; k: at the end of what the policy read last
    before its turn k, so that turns before that are not taught. Where an episode has fewer turns, before its last."""
    max_tokens: int = Field(default=1024, gt=0)
    """Most tokens of a block; what does not fit into the model's context beside the episode is cut too."""
    cut: Literal["middle", "end", "start"] = "middle"
    """Where a block that is too long loses tokens."""
    of: Literal["all", "failed"] = "all"
    """Which episodes are taught."""
    feedback_with_sibling: bool = True
    """Whether "verdict", "tests" and "feedback" are told where a sibling passed; without it they are told of groups in
    which none did."""
    sample_every: int = Field(default=10, ge=0)
    """Steps from one to the next, the first among them, at which up to eight tasks of the step are played again, twice
    each, with an episode's block in the first user message: how often a teacher that is the policy itself passes when
    it acts, under the present weights (``trainer/teacher_passed/rate``). Nothing learns from these episodes. 0 is
    off."""
