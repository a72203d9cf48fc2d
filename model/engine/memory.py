"""How many tokens an engine keeps keys and values of where nobody says it: what it can use, and there is room for."""

from contextlib import suppress
from pathlib import Path
from typing import cast

import psutil
import torch

from ..decoder import Attention, Decoder

# Of the memory that is free once the weights are there. A machine without a GPU has its sandboxes in the same memory.
_GPU_SHARE, _HOST_SHARE = 0.8, 0.25
_CGROUP = Path("/sys/fs/cgroup")


def tokens_kept(decoder: Decoder, *, max_batch: int, max_context: int) -> int:
    """Tokens of each group of layers: ``max_batch`` whole contexts, or what fits; one whole context at least."""
    most = max_batch * max_context
    weight, attention = decoder.head.weight, cast("Attention", decoder.layers[0].attention)
    bytes_a_token = 2 * decoder.config.num_layers * attention.num_kv_heads * attention.head_dim * weight.element_size()
    share = _GPU_SHARE if weight.device.type == "cuda" else _HOST_SHARE
    fitting = int(share * free_bytes(weight.device)) // bytes_a_token
    return max(min(most, fitting), max_context)


def free_bytes(device: torch.device) -> int:
    """Of a GPU, or of this machine within the limit of the control group that this process was put into."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # no such file outside of a container, and "max" is no number
        used = int((_CGROUP / "memory.current").read_text())
        free = min(free, max(0, int((_CGROUP / "memory.max").read_text()) - used))
    return free
