"""What the operators of a step allocate, compute and send."""

import gc
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any
from weakref import ref

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

_NOTED = 1.0005  # peaks that rise by less are not looked at closely
_SHARE_SENT = {
    # What one of n ranks sends, as a share of the larger of its two tensors, in ring algorithms.
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_to_all": lambda n: 1.0,
}
_KIND_OF = {
    "_allgather_base_": "all_gather",
    "allgather_": "all_gather",
    "all_gather_into_tensor": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "reduce_scatter_tensor": "reduce_scatter",
    "allreduce_": "all_reduce",
    "all_reduce": "all_reduce",
    "alltoall_base_": "all_to_all",
    "all_to_all_single": "all_to_all",
}


class Meter(TorchDispatchMode):
    """Follows every operator below autograd.

    Attributes:
        live, peak: bytes of all storages alive now, and at most.
        at_peak: what ``shares`` said at the peak, to within 0.05 %.
        flops: of matrix products and attention; a multiply-add counts as two.
        sent: bytes that this rank sends, by (kind of collective, axis of the mesh).
    """

    def __init__(self, groups: Mapping[str, tuple[str, int]], shares: Callable[[], dict[str, int]] = dict) -> None:
        """
        Args:
            groups: the mesh's axis and its ranks, by the name of a process group.
            shares: asked at each new peak for what is known of the memory in use, bytes by name.
        """
        super().__init__()
        self._groups, self._shares = groups, shares
        self._known: dict[int, tuple[ref[torch.UntypedStorage], int]] = {}
        self._told = 0
        self.live = self.peak = self.flops = 0
        self.at_peak: dict[str, int] = {}
        self.sent: dict[tuple[str, str], float] = defaultdict(float)

    def __enter__(self) -> "Meter":
        gc.collect()
        gc.freeze()  # what is there already need not be looked at in every collection
        # FSDP frees and fills the weights it gathers by resizing their storages, which no operator shows.
        self._resize = resize = torch.UntypedStorage.resize_

        def resize_(storage: torch.UntypedStorage, size: int) -> Any:
            done = resize(storage, size)
            self.follow(storage)
            return done

        torch.UntypedStorage.resize_ = resize_  # type: ignore[method-assign]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(*error)
        gc.unfreeze()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # what it does to its local tensor comes here by itself
        out = func(*args, **(kwargs or {}))
        self._count(func, args, kwargs or {}, out)
        for value in tree_iter(out):
            if isinstance(value, Tensor):
                self.follow(value.untyped_storage())
        return out

    def follow(self, storage: torch.UntypedStorage) -> None:
        """Count a storage from now on until it is freed; again where its size has changed."""
        key, size = storage._cdata, storage.nbytes()
        known = self._known.get(key)
        if known is not None and known[1] == size:
            return
        self.live += size - (known[1] if known is not None else 0)
        alive = known[0] if known is not None else ref(storage, lambda _: self._freed(key))
        self._known[key] = (alive, size)
        if self.live > _NOTED * self._told:
            # A cycle of Python's objects (a traceback, say) may hold what nothing uses: when that is freed depends on
            # the collector's mood, and is no part of the plan.
            gc.collect()
            if self.live > _NOTED * self._told:
                self._told, self.at_peak = self.live, self._shares()
        self.peak = max(self.peak, self.live)

    def _freed(self, key: int) -> None:
        _, size = self._known.pop(key)
        self.live -= size

    def _count(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        packet = func._overloadpacket
        name = packet.__name__
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **kwargs, out_val=out)
        elif name.startswith("planned_attention"):
            pairs, q = args[-1], args[1 if name.endswith("backward") else 0]
            products = 5 if name.endswith("backward") else 2
            self.flops += 2 * products * pairs * q.shape[1] * q.shape[2]
        elif name in _KIND_OF and func.namespace in ("c10d", "_c10d_functional"):
            self._count_collective(_KIND_OF[name], args)

    def _count_collective(self, kind: str, args: Any) -> None:
        tensors = [x for x in tree_iter(args) if isinstance(x, Tensor)]
        axis, size = "?", 1
        for value in tree_iter(args):
            name = None
            if isinstance(value, torch.ScriptObject):
                try:
                    name = dist.ProcessGroup.unbox(value).group_name
                except RuntimeError:  # another object: how to reduce
                    continue
            elif isinstance(value, str) and value in self._groups:
                name = value
            if name is not None:
                axis, size = self._groups.get(name, ("?", 1))
        numbers = [x.numel() * x.element_size() for x in tensors]
        moved = numbers[-1] if kind == "all_to_all" else max(numbers, default=0)
        self.sent[kind, axis] += _SHARE_SENT[kind](size) * moved
