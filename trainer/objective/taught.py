"""What teachers say in a step, as a loss sees it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """What teachers say of the trained tokens.

    Attributes:
        divergence: [N] nats, of the model's distributions from theirs, with a gradient; 0 where no teacher is asked.
        logprobs: [N] nats, theirs of the tokens; NaN where it is not known.
    """

    divergence: Tensor
    logprobs: Tensor

    @torch.no_grad()
    def metrics(self, logprobs: Tensor, contrast: Tensor | None) -> dict[str, Tensor]:
        """[N] each: "divergence", "teacher_kl" (what the sampled tokens say of it), and, where some episodes of a group
        passed and some did not, "teacher_gain" and "teacher_gain_over_student"."""
        known = ~self.logprobs.isnan()
        theirs = torch.where(known, self.logprobs, logprobs)
        found = {"divergence": self.divergence.detach(), "teacher_kl": logprobs - theirs}
        if contrast is not None:
            found["teacher_gain"] = contrast * theirs * known
            found["teacher_gain_over_student"] = contrast * (theirs - logprobs)
        return found
