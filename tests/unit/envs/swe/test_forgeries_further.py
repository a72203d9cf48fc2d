"""No forgery of the second corpus is accepted, and none counts as a failure of the machine."""

import pytest

from .conftest import GOLD
from .forgeries_further import FURTHER

QUICK = (
    "process: fork is none",
    "process: the parent is killed",
    "process: children are not waited for",
    "comparison: skips",
    "patch: the hidden file is a link to another",
    "patch: a module of our helper's name",
    "guards: json: its classes, both ways",
)


def accepted(vault, many):
    scores = {name: score for name, (score, _) in vault.grade_all(many).items()}
    return [f"{name}: {score.detail}" for name, score in scores.items() if score.value or score.passed]


def test_some_of_the_second_corpus_are_not_accepted(vault):
    assert accepted(vault, {name: FURTHER[name] for name in QUICK}) == []


@pytest.mark.slow
def test_no_forgery_of_the_second_corpus_is_accepted(vault):
    assert accepted(vault, FURTHER) == []


HONEST = {
    "children are not waited for": "import signal\n\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n\n\n",
    "few descriptors": "import resource\n\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n\n\n",
    "a handler of children": "import signal\n\nsignal.signal(signal.SIGCHLD, lambda *a: None)\n\n\n",
    "blocked signals": "import signal\n\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, 15})\n\n\n",
    "a child that runs on": "import subprocess\n\nchild = subprocess.Popen(['sleep', '60'])\n\n\n",
}


def test_gold_resolves_whatever_it_does_with_signals_and_children(vault):
    scores = vault.grade_all({name: {"pkg/calc.py": f"{code}{GOLD}"} for name, code in HONEST.items()})
    assert [f"{name}: {score.detail}" for name, (score, _) in scores.items() if score.value != 1.0] == []
