"""Every byte of a folder that is read is the byte that was written."""

import random
import shutil
import subprocess

import pytest

from verigym.errors import CheckpointError
from verigym.model.weights.checksums import SUMS, add_sum, check_sum, check_sums, write_sums
from verigym.model.weights.folders import written_whole


@pytest.fixture
def folder(tmp_path):
    target = tmp_path / "checkpoint"
    with written_whole(target) as partial:
        (partial / "config.json").write_text('{"a": 1}')
        (partial / "model.safetensors").write_bytes(random.Random(0).randbytes(300_000))
        (partial / "adapter").mkdir()
        (partial / "adapter" / "weights.bin").write_bytes(b"\x00" * 50)
    return target


def test_a_whole_folder_passes_and_sha256sum_says_the_same(folder):
    check_sums(folder)
    if shutil.which("sha256sum"):
        assert subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=folder).returncode == 0
    assert len((folder / SUMS).read_text().splitlines()) == 3


def test_any_flipped_bit_is_found(folder):
    draw = random.Random(1)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != SUMS]
    for path in files:
        content = path.read_bytes()
        for _ in range(40):
            place, bit = draw.randrange(len(content)), draw.randrange(8)
            path.write_bytes(content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :])
            with pytest.raises(CheckpointError, match=r"has changed|cannot be read|is broken"):
                check_sums(folder)
        path.write_bytes(content)
    check_sums(folder)


def test_what_is_missing_or_not_recorded_is_free(folder, tmp_path):
    (folder / "README.md").write_text("mine")
    check_sums(folder)
    check_sum(folder, "README.md")
    (folder / "config.json").unlink()
    check_sums(folder)
    check_sums(tmp_path / "nowhere")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text("{}")
    check_sums(tmp_path / "foreign")


def test_a_change_that_was_meant_can_be_recorded(folder):
    (folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json has changed.*where the change was meant"):
        check_sum(folder, "config.json")
    add_sum(folder, "config.json")
    check_sums(folder)


def test_processes_share_the_reading(folder):
    (folder / "model.safetensors").write_bytes(b"other")
    found = []
    for rank in range(2):
        try:
            check_sums(folder, share=(rank, 2))
        except CheckpointError:
            found.append(rank)
    assert len(found) == 1


def test_a_folder_without_sums_gets_them_when_asked(tmp_path):
    target = tmp_path / "fleet"
    with written_whole(target, sums=False) as partial:
        (partial / "config.json").write_text("{}")
    assert not (target / SUMS).exists()
    write_sums(target)
    check_sums(target)
