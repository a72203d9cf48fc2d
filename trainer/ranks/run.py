"""A whole run over several processes: rank 0 runs the recipe, the others work for it."""

import signal
from collections.abc import Callable

import torch

from ...model.parallel.layout import Layout
from .launch import Launch, joined
from .rank import serve
from .team import Team


def run_ranks(launch: Launch, layout: Layout, control: Callable[[Team], int], *, threads: int = 0) -> int:
    """Call ``control`` on rank 0, with all ranks at its service; the others return when it is done.

    Args:
        threads: of PyTorch; 0: this process's share of the cores.
    Returns:
        The exit status.
    Raises:
        TrainingError: a rank is gone or too late.
    """
    torch.set_num_threads(threads or launch.num_threads)
    if launch.rank > 0:
        # Ctrl-C reaches every process: rank 0 says when to stop, after the step in progress is saved.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with joined(launch, layout) as membership:
        if launch.rank > 0:
            serve(membership)
            return 0
        with Team(membership) as team:
            return control(team)
