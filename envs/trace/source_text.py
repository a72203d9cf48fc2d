"""The text of a Python file as Python reads it: its byte-order mark, its coding cookie, its line ends."""

import io
import tokenize
from pathlib import Path

from ...errors import TaskError


def decode_source(data: bytes) -> str:
    """The text, lines ended by "\\n", without a byte-order mark.

    Raises:
        SyntaxError: an unknown encoding, or two that contradict each other. UnicodeDecodeError: it is another one.
    """
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return io.TextIOWrapper(io.BytesIO(data), encoding).read()


def read_source(path: Path) -> str:
    """
    Raises:
        TaskError: the file is missing, or Python could not read it either.
    """
    try:
        return decode_source(path.read_bytes())
    except (OSError, SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise TaskError(
            f"{path}: cannot be read as a Python file ({error}); save it in the encoding that its first lines state, "
            "UTF-8 where they state none"
        ) from None
