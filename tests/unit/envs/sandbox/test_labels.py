import json
import os
import subprocess

from verigym.envs.sandbox import labels


def label(**changes):
    return json.dumps({**labels.owner(), **changes})


def test_only_processes_known_to_have_ended_are_dead():
    assert not labels.is_dead(label())
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert labels.is_dead(label(pid=str(ended.pid)))
    assert labels.is_dead(label(start="1")), "another process has our number now"
    assert labels.is_dead(label(boot="an earlier one"))


def test_what_cannot_be_looked_at_is_left_alone():
    assert not labels.is_dead(label(machine="another", pid="999999"))
    assert not labels.is_dead(label(pids="pid:[1]", pid="999999")), "process numbers of another container"
    for broken in ("", "{}", "[]", "not json", json.dumps({"pid": os.getpid()})):
        assert not labels.is_dead(broken)
