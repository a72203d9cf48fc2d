"""A space of any text, and how vectors of environments in processes of their own bring such texts back.

Gymnasium's own way writes a number for each character that a text may have into memory that is shared, by a list of all
characters; and it reads what is there once, when it starts. Here each environment's last text lies in a file.
"""

import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import gymnasium
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory


class UnicodeText(gymnasium.spaces.Text):
    """A text space that admits any string up to ``max_length`` characters (Gymnasium's own needs a character list)."""

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and self.min_length <= len(x) <= self.max_length

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """A short text: drawing up to ``max_length`` characters would take seconds."""
        length = int(self.np_random.integers(self.min_length, self.min_length + 65))
        return super().sample(mask=mask or (length, None), probability=probability)


class TextFiles:
    """The last texts of a vector's environments. Made in its process, which removes them; others get the folder."""

    def __init__(self, folder: str | None = None) -> None:
        self._own = tempfile.TemporaryDirectory(prefix="verigym-texts-") if folder is None else None
        self.folder = folder or (self._own.name if self._own else "")

    def __reduce__(self) -> tuple[type["TextFiles"], tuple[str]]:
        return TextFiles, (self.folder,)

    def write(self, index: int, text: str) -> None:
        """Put a text in the place of the one before; lone surrogates are kept."""
        partial = Path(self.folder, f".{secrets.token_hex(8)}")
        partial.write_bytes(text.encode("utf-8", "surrogatepass"))
        os.replace(partial, Path(self.folder, str(index)))

    def read(self, index: int) -> str:
        """The last text; "" before the first."""
        file = Path(self.folder, str(index))
        return file.read_bytes().decode("utf-8", "surrogatepass") if file.exists() else ""


class LastTexts(Sequence[str]):
    """The texts as they are when they are looked at; a copy, which is what a vector gives, is a tuple of strings."""

    def __init__(self, files: TextFiles, num_texts: int) -> None:
        self._files, self._num_texts = files, num_texts

    def __len__(self) -> int:
        return self._num_texts

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self)[index]
        return self._files.read(range(self._num_texts)[index])

    def __iter__(self) -> Iterator[str]:
        return (self._files.read(index) for index in range(self._num_texts))

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[str, ...]:
        return tuple(self)


@create_shared_memory.register(UnicodeText)
def _create(space: UnicodeText, n: int = 1, ctx: Any = None) -> Any:
    return TextFiles()


@read_from_shared_memory.register(UnicodeText)
def _read(space: UnicodeText, shared_memory: Any, n: int = 1) -> Any:
    return LastTexts(shared_memory, n)


@write_to_shared_memory.register(UnicodeText)
def _write(space: UnicodeText, index: int, values: str, shared_memory: TextFiles) -> None:
    shared_memory.write(index, values)
