"""``verigym trace`` as people type it."""

import pytest

from verigym.__main__ import main
from verigym.model.chat.trace import from_text

PROGRAM = "def f(n):\n    words = ['a'] * n\n    print(words)\n    return len(words)\n"


@pytest.fixture
def file(tmp_path, backend):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return str(path)


def test_a_frame_a_line(file, capsys):
    assert main(["trace", file, "--call", "f(2)", "--sandbox", "local"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index('<|call_sep|>{"n": "2"}<|action_sep|>def f(n):<|frame_sep|>')
    assert lines[at + 1] == '<|line_sep|>{"n": ".."}<|action_sep|>    words = [\'a\'] * n<|frame_sep|>'
    assert lines[-1] == "<|end_of_text|>"


def test_the_exact_text_reads_back(file, capsys):
    assert main(["trace", file, "--call", "f(2)", "--sandbox", "local", "--exact"]) == 0
    trace = from_text(capsys.readouterr().out.removesuffix("\n"))
    assert trace.frames[-1].value == "2"
    assert trace.ended


def test_a_table(file, capsys):
    assert main(["trace", file, "--call", "f(2)", "--sandbox", "local", "--table"]) == 0
    told = capsys.readouterr().out
    assert "words = ['a', 'a']" in told
    assert told.rstrip().endswith("returned: 2")
    assert "printed:\n['a', 'a']" in told


def test_what_went_wrong_is_told(file, tmp_path, capsys):
    assert main(["trace", file, "--call", "f(10**9)", "--sandbox", "local", "--max-events", "3"]) == 0
    assert "--max-events" in capsys.readouterr().err
    assert main(["trace", file, "--call", "f(", "--sandbox", "local"]) == 2
    assert "is no expression" in capsys.readouterr().err
    assert main(["trace", str(tmp_path / "none.py"), "--sandbox", "local"]) == 2
    (tmp_path / "broken.py").write_text("def f(:\n")
    assert main(["trace", str(tmp_path / "broken.py"), "--sandbox", "local"]) == 1
    assert "SyntaxError" in capsys.readouterr().err
