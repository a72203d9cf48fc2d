"""Inside the sandbox: a few variables of a bash's own, read from its memory while it waits for its script.

Where a trap of the user's shows every child (CHLD) or every command of a child (DEBUG under functrace), no line of ours
can tell an outcome unseen; then it is read from outside. The names are those of bash's source, found in the table that
its program keeps for loadable builtins. Part of the guest (see server.py): standard library only.
"""

import os
import signal
import struct

_NAMES = {
    b"last_command_exit_value",
    b"trap_list",
    b"function_trace_mode",
    b"read_but_dont_execute",
    b"line_number",
    b"extended_glob",
}
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC_SYMBOLS = 11
MOST_BYTES = 16 << 20
"""Of a program."""
_AFTER_SIGNALS = 3
"""Pseudo signals at the end of bash's list of traps: DEBUG, ERR, RETURN."""


class Memory:
    """Of one bash. Its owner closes it."""

    def __init__(self, pid: int) -> None:
        """Raises OSError where its memory cannot be read, or its program names no such variables."""
        program = f"/proc/{pid}/exe"
        about = os.stat(program)
        self._places = _table(program, about.st_dev, about.st_ino)
        self._base = _base(pid, about.st_ino) if self._places.moves else 0
        self._file = os.open(f"/proc/{pid}/mem", os.O_RDWR)

    def close(self) -> None:
        os.close(self._file)

    def code(self) -> int:
        """``$?``."""
        return self._number(b"last_command_exit_value")

    def runs(self) -> bool:
        """Whether it runs what it reads."""
        return not self._number(b"read_but_dont_execute")

    def traps(self) -> tuple[bool, bool]:
        """Whether a trap sees each command of the shell; whether one sees each child, or each command of a child."""
        size = self._places.found[b"trap_list"][1]
        data = self._read(b"trap_list", size)
        traps = struct.unpack(f"<{size // 8}Q", data)
        # 0 is the default, 1 is ignored, else it is the address of a text.
        debug = traps[len(traps) - _AFTER_SIGNALS] > 1
        return debug, traps[signal.SIGCHLD] > 1 or (debug and self._number(b"function_trace_mode") != 0)

    def extends_globs(self) -> bool:
        """``shopt extglob``, which changes what is whole."""
        return self._number(b"extended_glob") != 0

    def count_lines_anew(self) -> None:
        """The line that it is about to read is the first."""
        os.pwrite(self._file, struct.pack("<i", 1), self._base + self._places.found[b"line_number"][0])

    def _number(self, name: bytes) -> int:
        return struct.unpack("<i", self._read(name, 4))[0]

    def _read(self, name: bytes, size: int) -> bytes:
        data = os.pread(self._file, size, self._base + self._places.found[name][0])
        if len(data) != size:
            raise OSError(f"bash's {name.decode()} cannot be read")
        return data


class Table:
    """Where a program has its variables: name -> (address, size); ``moves``: they count from where it was loaded."""

    def __init__(self, found: dict[bytes, tuple[int, int]], *, moves: bool) -> None:
        self.found, self.moves = found, moves


_tables: dict[tuple[int, int], Table] = {}
"""By device and inode of the program; the last one."""


def _table(program: str, device: int, inode: int) -> Table:
    if (device, inode) not in _tables:
        with open(program, "rb") as file:
            data = file.read(MOST_BYTES)
        try:
            found = _read_table(data)
        except (struct.error, IndexError, ValueError):
            raise OSError("bash's table of names cannot be read") from None
        _tables.clear()
        _tables[device, inode] = found
    return _tables[device, inode]


def _read_table(data: bytes) -> Table:
    if data[:6] != b"\x7fELF\x02\x01":
        raise OSError("bash is no program of 64 bits, little end first")
    kind, offset = struct.unpack_from("<H", data, 16)[0], struct.unpack_from("<Q", data, 40)[0]
    size, number = struct.unpack_from("<HH", data, 58)
    sections = [_SECTION.unpack_from(data, offset + n * size) for n in range(number)]
    found = {}
    for one in sections:
        if one[1] == _DYNAMIC_SYMBOLS:
            names = sections[one[6]][4]
            for name, *_, address, length in _SYMBOL.iter_unpack(data[one[4] : one[4] + one[5]]):
                word = data[names + name : data.index(b"\0", names + name)]
                if word in _NAMES and address:
                    found[word] = address, length
    if set(found) != _NAMES or found[b"trap_list"][1] < 8 * (signal.SIGCHLD + _AFTER_SIGNALS):
        raise OSError("bash does not name its variables")
    return Table(found, moves=kind == 3)


def _base(pid: int, inode: int) -> int:
    """Where the program of a process was loaded."""
    with open(f"/proc/{pid}/maps", "rb") as file:
        for line in file:
            span, _, offset, _, number = line.split()[:5]
            if int(number) == inode and int(offset, 16) == 0:
                return int(span.partition(b"-")[0], 16)
    raise OSError("bash's program is not in its memory")
