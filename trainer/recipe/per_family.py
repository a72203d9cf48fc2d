"""What of the algorithm a family of tasks may have of its own. Reading it imports no torch."""

from collections.abc import Callable
from typing import Literal

from pydantic import Field, ValidationError

from .algorithms import RLConfig
from .config import Settings
from .teachers import HindsightConfig

ConfigOf = Callable[[str, str], RLConfig]
"""(family of a task, its id) -> the algorithm's settings for it."""


class FamilyAlgorithm(Settings):
    """Settings of ``[rl.train]`` that one family has otherwise. What is left out is as there.

    Losses, optimizer and the size of a step belong to the run; how a task is sampled, and how its episodes are compared
    and clipped, may be the family's.
    """

    group_size: int | None = Field(default=None, gt=0)
    """Episodes of each task in one step."""
    temperature: float | None = Field(default=None, gt=0)
    """Sampling temperature of its episodes; they are trained on at it too."""
    clip_low: float | None = Field(default=None, gt=0, lt=1)
    """Lower clip of the ratio."""
    clip_high: float | None = Field(default=None, gt=0)
    """Upper clip of the ratio."""
    scale: Literal["none", "std"] | None = None
    """Whether advantages are divided by their group's deviation, where the algorithm leaves a choice."""
    overlong: Literal["keep", "mask"] | None = None
    """Whether episodes that a budget cut off are trained on."""
    teacher: str | None = None
    """Who scores its episodes, where the algorithm has teachers."""
    teacher_weight: float | None = Field(default=None, ge=0)
    """Weight of what its teacher says."""
    reward_weight: float | None = Field(default=None, ge=0)
    """Weight of its rewards beside the teacher."""
    hindsight: HindsightConfig | None = None
    """What the teacher of its episodes is shown."""

    def applied_to(self, train: RLConfig) -> RLConfig:
        """The run's settings with this family's in their place, checked as a whole.

        Raises:
            ValueError: the algorithm has no such setting, or they do not go together.
        """
        changes = {key: value for key, value in self.model_dump().items() if value is not None}
        if not changes:
            return train
        unknown = [key for key in changes if key not in type(train).model_fields]
        if unknown:
            name = getattr(train, "algorithm", type(train).__name__)
            raise ValueError(f"{', '.join(unknown)} is no setting of {name}; remove it, or change the algorithm")
        try:
            return type(train).model_validate({**train.model_dump(), **changes})
        except ValidationError as error:
            told = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
            raise ValueError(told) from None
