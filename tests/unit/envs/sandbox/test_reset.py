"""What a sandbox held once is what it holds after a reset, or the reset says that it is not."""

import os

import pytest

from verigym.envs.sandbox.guest import reset


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of two files, one in a folder of its own; the machine has no System V memory."""
    monkeypatch.setattr(reset, "left_in_memory", lambda: False)
    (tmp_path / "deep").mkdir(mode=0o755)
    (tmp_path / "kept.txt").write_text("kept")
    (tmp_path / "deep" / "also.txt").write_text("also")
    return tmp_path


@pytest.fixture
def snapshot(folder):
    return reset.Snapshot((str(folder),), ())


def test_what_was_not_touched_stays_and_nothing_is_lost(snapshot, folder):
    assert snapshot.clean() == []
    assert snapshot.accept([])
    assert (folder / "deep" / "also.txt").read_text() == "also"


def test_what_is_new_is_removed(snapshot, folder):
    (folder / "new" / "below").mkdir(parents=True)
    (folder / "new" / "below" / "file").write_text("x")
    (folder / "deep" / "link").symlink_to("/etc")
    assert snapshot.clean() == []
    assert sorted(os.listdir(folder)) == ["deep", "kept.txt"]
    assert os.listdir(folder / "deep") == ["also.txt"]
    assert snapshot.accept([])


def test_what_was_written_is_lost_whatever_its_times_say(snapshot, folder):
    path = folder / "kept.txt"
    before = path.stat()
    path.write_text("KEPT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert snapshot.clean() == [str(path)]
    assert not path.exists()
    assert not snapshot.accept([])


def test_what_was_brought_back_is_accepted_with_its_owner_and_mode(snapshot, folder):
    path = folder / "kept.txt"
    mode = path.stat().st_mode & 0o777
    path.unlink()
    assert snapshot.clean() == [str(path)]
    path.write_text("kept")
    path.chmod(0o666)
    assert not snapshot.accept([str(path)])
    path.chmod(mode)
    assert snapshot.accept([str(path)])
    assert snapshot.clean() == []


def test_folders_get_their_modes_and_times_again(snapshot, folder):
    deep = folder / "deep"
    time = deep.stat().st_mtime_ns
    deep.chmod(0o700)
    os.utime(deep, ns=(1, 1))
    assert snapshot.clean() == []
    assert snapshot.accept([])
    assert (deep.stat().st_mode & 0o777, deep.stat().st_mtime_ns) == (0o755, time)


def test_memory_that_is_left_and_limits_that_were_changed_end_it(snapshot, monkeypatch):
    monkeypatch.setattr(reset, "left_in_memory", lambda: True)
    with pytest.raises(OSError, match="memory is left"):
        snapshot.clean()
    monkeypatch.setattr(reset, "own_state", lambda: ["another"])
    with pytest.raises(OSError, match="limits"):
        snapshot.clean()
    assert not snapshot.accept([])
