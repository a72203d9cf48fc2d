"""Which number formats this machine multiplies fast.

A processor without instructions for bfloat16 or float16 multiplies matrices of them 10 to 300 times slower than float32
ones, and no error says so.
"""

import logging
import time
from functools import cache

import torch

logger = logging.getLogger(__name__)

PROBE_SIZE, PROBE_ROUNDS = 128, 3
SLOW = 3.0
"""A format is slow where a product takes so many times what it takes in float32. Where the processor knows it, the
ratio is about 1 or below, elsewhere 10 and more: a busy machine does not change the answer."""


@cache
def product_ratio(dtype: torch.dtype) -> float:
    """How many times longer a product of matrices takes on this processor in ``dtype`` than in float32, on one thread.

    Measured once a process, in milliseconds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _seconds(dtype) / _seconds(torch.float32)
    finally:
        torch.set_num_threads(threads)


def is_slow(dtype: torch.dtype, device: torch.device | str) -> bool:
    """Whether products of ``dtype`` are to be kept from a device: on a GPU never, on a CPU by measurement."""
    if torch.device(device).type != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return False
    return product_ratio(dtype) > SLOW


def suited(dtype: torch.dtype, device: torch.device | str) -> torch.dtype:
    """``dtype``, or float32 where the device is slow at it, which has every number of the two smaller formats."""
    if not is_slow(dtype, device):
        return dtype
    logger.info(
        "this processor multiplies %s %.0f times slower than float32, so that is used", dtype, product_ratio(dtype)
    )
    return torch.float32


def warn_where_slow(dtype: torch.dtype, device: torch.device | str, setting: str) -> None:
    """Say what a chosen format costs, where it costs much.

    Args:
        setting: what chose it, and what to set instead.
    """
    if is_slow(dtype, device):
        ratio = product_ratio(dtype)
        logger.warning("%s: this processor multiplies %s %.0f times slower than float32", setting, dtype, ratio)


def _seconds(dtype: torch.dtype) -> float:
    matrix = torch.ones(PROBE_SIZE, PROBE_SIZE).to(dtype)
    best = float("inf")
    for _ in range(PROBE_ROUNDS):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        best = min(best, time.perf_counter() - started)
    return best
