"""Bytes kept outside the memory of the process."""

import os
import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from verigym.envs.swe.checkout import _BASES
from verigym.envs.swe.spool import Spool


def test_what_is_kept_comes_back():
    spool = Spool()
    assert ("image", "a") not in spool
    kept = {("image", str(number)): os.urandom(number * 1000) for number in range(20)}
    for key, content in kept.items():
        spool.put(key, content)
    for key in reversed(kept):
        assert key in spool
        assert spool.get(key) == kept[key]
    with pytest.raises(KeyError):
        spool.get("other")


def test_nothing_of_it_is_in_memory_or_in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = Spool()
    spool.put("first", b"x")
    tracemalloc.start()
    for number in range(50):
        spool.put(number, bytes(1 << 20))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 1 << 20
    assert len(spool.get(49)) == 1 << 20
    assert list(tmp_path.iterdir()) == []


def test_bases_of_workspaces_are_kept_so():
    assert isinstance(_BASES, Spool)


def test_threads_that_keep_at_once_keep_their_own():
    spool, contents = Spool(), {number: bytes([number]) * (200_000 + number) for number in range(60)}
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(spool.put, contents, contents.values()))
    assert all(spool.get(number) == content for number, content in contents.items())
