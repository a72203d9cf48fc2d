"""Requests that a model of transformers answers: what was drawn for each, and how the next token is."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...errors import PolicyError
from ..chat.incremental import StopText
from ..chat.sampling import CompletionPart, FinishReason, Sampling, StopReason, TopLogprobs
from .request import Request
from .sampler import raw_logprobs, sample


class Row:
    """One request, and what was drawn for it.

    Attributes:
        count: tokens drawn.
        done: it has been answered.
    """

    def __init__(
        self,
        request: Request[CompletionPart],
        prompt_ids: Sequence[int],
        sampling: Sampling,
        stop_token_ids: frozenset[int],
        stop_text: StopText | None,
        budget: int,
        seed: int,
        streamed: bool,
    ) -> None:
        """
        Args:
            budget: most tokens to draw.
            streamed: hand out every token as it is drawn.
        """
        self.request, self.prompt_ids, self.sampling, self.budget = request, prompt_ids, sampling, budget
        self._stop_token_ids, self._stop_text, self._streamed = stop_token_ids, stop_text, streamed
        self.uniform = np.random.Generator(np.random.Philox(seed)).random(budget)
        self.done = False
        self.count = 0
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._raw: list[float] = []
        self._tops: list[TopLogprobs] = []

    def push(self, token_id: int, logprob: float, raw: float, top: TopLogprobs, version: int) -> None:
        """Take a drawn token; the request hears of it where it streams, and of all of them at the end."""
        if not np.isfinite(logprob):
            self.done = True
            broken = "the model's logits are not finite; its weights are broken, load an earlier checkpoint"
            self.request.answer(PolicyError(broken))
            return
        self.count += 1
        self._ids.append(token_id)
        self._logprobs.append(logprob)
        self._raw.append(raw)
        self._tops.append(top)
        reason: StopReason | None = token_id if token_id in self._stop_token_ids else None
        if reason is None and self._stop_text is not None:
            reason = self._stop_text.push(token_id)
        finish: FinishReason | None = "stop" if reason is not None else None
        if finish is None and self.count >= self.budget:
            finish = "length"
        self.done = finish is not None
        if self._streamed or self.done:
            self._tell(finish, reason, version)

    def _tell(self, finish: FinishReason | None, reason: StopReason | None, version: int) -> None:
        part = CompletionPart(
            token_ids=tuple(self._ids),
            logprobs=tuple(self._logprobs),
            policy_version=(version,) * len(self._ids),
            raw_logprobs=tuple(self._raw) if self.sampling.raw_logprobs else None,
            top_logprobs=tuple(self._tops) if self.sampling.num_top_logprobs else None,
            finish_reason=finish,
            stop_reason=reason,
        )
        for kept in (self._ids, self._logprobs, self._raw, self._tops):
            kept.clear()
        self.request.answer(part)


class Draw:
    """Draws for the same rows, token after token."""

    def __init__(self, rows: Sequence[Row], num_ids: int, version: int, device: torch.device) -> None:
        """
        Args:
            num_ids: the head's rows above are padding, and none is drawn.
            version: of the weights.
        """
        self._rows, self._num_ids, self._version = rows, num_ids, version
        settings = [row.sampling for row in rows]
        self._temperature = torch.tensor([one.temperature for one in settings], dtype=torch.float32, device=device)
        self._top_k = torch.tensor([one.top_k for one in settings], device=device)
        self._top_p = torch.tensor([one.top_p for one in settings], dtype=torch.float32, device=device)
        self._min_p = torch.tensor([one.min_p for one in settings], dtype=torch.float32, device=device)
        self._num_top = max(one.num_top_logprobs for one in settings)
        self._describe = self._num_top > 0 or any(one.raw_logprobs for one in settings)

    def __call__(self, logits_RV: Tensor) -> list[int]:
        """Give each row that is not done its next token. Returns what was drawn for all, [R]."""
        uniform = [0.0 if row.done else row.uniform[row.count] for row in self._rows]
        noise = torch.tensor(uniform, dtype=torch.float64, device=logits_RV.device)
        known = logits_RV[:, : self._num_ids]
        drawn, logprobs = sample(known, self._temperature, self._top_k, self._top_p, noise, self._min_p)
        raw, tops = logprobs, [()] * len(self._rows)
        if self._describe:
            raw, top_ids, top = raw_logprobs(known, drawn, self._num_top)
            tops = [tuple(zip(*row)) for row in zip(top_ids.tolist(), top.tolist())]
        columns = (drawn.tolist(), logprobs.tolist(), raw.tolist(), tops)
        for row, token_id, logprob, own, likeliest in zip(self._rows, *columns, strict=True):
            if not row.done and not row.request.abandoned:
                row.push(token_id, logprob, own, likeliest[: row.sampling.num_top_logprobs], self._version)
        return columns[0]
