"""Our part of a vLLM worker (``--worker-extension-cls``): it reads new weights from a folder.

vLLM's own ``reload_weights`` warns where a checkpoint lacks a tensor, and takes a third of a stacked matrix for all of
it. Here a folder is compared with the one that the server began with before anything is touched.
"""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BEGAN_WITH = "VERIGYM_VLLM_WEIGHTS"
"""Environment variable: the folder of the weights that the server begins with."""


def shapes_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name of a tensor -> its shape, from the headers of the folder's safetensors files. Raises OSError."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        found.update({name: tuple(told["shape"]) for name, told in header.items() if name != "__metadata__"})
    return found


def difference(folder: Path, expected: dict[str, tuple[int, ...]]) -> str | None:
    """What a folder lacks of the tensors that are expected, has besides, or has in another shape; None: nothing."""
    found = shapes_in(folder)
    kinds = {
        "lacks": sorted(expected.keys() - found.keys()),
        "has, and this model has not,": sorted(found.keys() - expected.keys()),
        "has in another shape": sorted(
            name for name in expected.keys() & found.keys() if expected[name] != found[name]
        ),
    }
    told = [f"{kind} {', '.join(names[:5])}{', ...' * (len(names) > 5)}" for kind, names in kinds.items() if names]
    return f"{folder} {'; '.join(told)}" if told else None


# Read when the class is found: before the model is, and before a trainer removes what it wrote for the start.
_EXPECTED = shapes_in(Path(os.environ[BEGAN_WITH])) if BEGAN_WITH in os.environ else {}


class FolderWeights:
    """Mixed into vLLM's worker; called through ``/collective_rpc``."""

    def verigym_load(self, path: str) -> dict[str, Any]:
        """Put the weights of a checkpoint's folder into the model, between two steps.

        Args:
            path: a folder of safetensors files with the names of the one that the server began with.
        Returns:
            {"tensors": how many were read}, or {"refused": why}, and then nothing was changed.
        """
        folder = Path(path)
        try:
            problem = difference(folder, _EXPECTED)
        except (OSError, ValueError, struct.error) as error:
            problem = f"{folder} cannot be read: {error}"
        if problem is not None:
            return {"refused": problem}
        self.reload_weights(weights_iterator=_tensors(folder))  # type: ignore[attr-defined]  # the worker's
        return {"tensors": len(_EXPECTED)}


def _tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open  # of vLLM's interpreter

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # it is no mapping
                yield name, file.get_tensor(name)
