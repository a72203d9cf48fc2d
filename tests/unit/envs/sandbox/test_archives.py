"""Archives are unpacked with any Python that verigym runs on: before 3.11.4 ``tarfile`` has no filters."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from verigym.envs.sandbox.guest import files

GUEST = Path(files.__file__).parent
UNPACK = """
import sys, types
package = sys.modules["guest"] = types.ModuleType("guest")
package.__path__ = [sys.argv[1]]
from guest import files
if sys.argv[3:]:
    import tarfile
    del tarfile.tar_filter
    extractall = tarfile.TarFile.extractall
    tarfile.TarFile.extractall = lambda self, path, members=None: extractall(self, path, members)
    files._has_filters = lambda: False
try:
    files._unpack(sys.argv[2])
except OSError as error:
    sys.exit(f"refused: {error}")
"""
PYTHONS = [(sys.executable, ()), (sys.executable, ("without filters",)), ("/usr/bin/python3", ())]


def archive_of(*members: tuple[str, int, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, mode, text in members:
            member = tarfile.TarInfo(name)
            member.mode, member.size, member.uid, member.uname = mode, len(text), 12345, "somebody"
            if text.startswith("->"):
                member.type, member.linkname, member.size = tarfile.SYMTYPE, text[2:], 0
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def unpacked(python: str, words: tuple[str, ...], data: bytes, dest: Path) -> "subprocess.CompletedProcess[bytes]":
    if not os.access(python, os.X_OK):
        pytest.skip(f"there is no {python}")
    return subprocess.run([python, "-c", UNPACK, str(GUEST), str(dest), *words], input=data, capture_output=True)


@pytest.mark.parametrize(("python", "words"), PYTHONS)
def test_an_archive_is_unpacked(python: str, words: tuple[str, ...], tmp_path: Path) -> None:
    data = archive_of(("pkg/a.py", 0o6777, "a"), ("/pkg/b.py", 0o644, "b"), ("pkg/link", 0o777, "->a.py"))
    done = unpacked(python, words, data, tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "out/pkg/b.py").read_text() == "b"
    assert os.readlink(tmp_path / "out/pkg/link") == "a.py"
    facts = (tmp_path / "out/pkg/a.py").stat()
    assert (facts.st_mode & 0o7777, facts.st_uid) == (0o755, os.geteuid())


@pytest.mark.parametrize(("python", "words"), PYTHONS)
@pytest.mark.parametrize("members", [[("../x", 0o644, "x")], [("d", 0o777, "->../elsewhere"), ("d/x", 0o644, "x")]])
def test_nothing_is_written_elsewhere(
    python: str, words: tuple[str, ...], members: list[tuple[str, int, str]], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    done = unpacked(python, words, archive_of(*members), tmp_path / "out")
    assert b"lies outside" in done.stderr
    assert not (tmp_path / "x").exists()
    assert not list((tmp_path / "elsewhere").iterdir())
