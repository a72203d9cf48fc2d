"""One call of transformers' ``generate`` for several requests, with our sampler in it: for models that keep other state
than keys and values, whose rows cannot come and go."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .drawing import Draw, Row


@torch.inference_mode()
def run_round(model: Any, rows: Sequence[Row], num_ids: int, version: int, is_closed: Callable[[], bool]) -> int:
    """Complete all rows. Those whose callers left are drawn no further.

    Args:
        num_ids: the head's rows above are padding, and none is drawn.

    Returns:
        Tokens drawn.
    """
    width = max(len(row.prompt_ids) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, width - len(row.prompt_ids) :] = torch.tensor(list(row.prompt_ids))
        mask[index, width - len(row.prompt_ids) :] = 1
    draw = Draw(rows, num_ids, version, model.device)

    def leave_no_choice(input_ids: Tensor, scores: Tensor) -> Tensor:
        drawn = torch.tensor(draw(scores), device=scores.device)
        return torch.full_like(scores, float("-inf")).scatter_(1, drawn[:, None], 0.0)

    def ended(input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        closed = is_closed()
        done = [closed or row.done or row.request.abandoned for row in rows]
        return torch.tensor(done, device=input_ids.device)

    model.generate(
        ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=max(row.budget for row in rows),
        do_sample=False,
        logits_processor=[leave_no_choice],
        stopping_criteria=[ended],
    )
    return sum(row.count for row in rows)
