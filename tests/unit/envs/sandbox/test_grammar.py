"""What the guest takes for whole and valid is so for bash; what it takes for harmless changes nothing of a shell."""

import subprocess

import pytest

from verigym.envs.sandbox.guest.grammar import read

from . import bash_cases
from .test_bash_walk import STEPS

WHOLE = [
    "echo hi",
    "cd /tmp && ls -la | head -5; echo done",
    'for f in *.py; do echo "$f" $(wc -l < $f); done',
    "if grep -q x y; then echo a; elif true; then echo b; else echo c; fi 2>/dev/null",
    "while read_it; do\n  # why\n  echo $((i+1))\ndone < file",
    "cat <<'EOF' > f.py && python f.py\nprint('it''s `x` $(')\nEOF",
    "cat <<EOF\nhi $name\nEOF\necho after",
    'grep -rn "class $x" --include=*.{py,txt} . 2>&1 | tail -n 3',
    "(cd a; make) && { echo x; }",
    "find . -name 'x' -exec grep -l y {} \\;",
    "python -c 'import os\nprint(1)'",
    '! test -f a || A=1 B="$(pwd)" ./run \\\n  --flag',
]
NOT_SURE = [
    "echo 'open",
    'echo "open',
    "echo $(open",
    "for i in 1; do echo",
    "if true; then echo; done",
    "fi",
    "( echo",
    "echo )",
    "{ echo; ",
    "cat <<EOF\nno end",
    "cat <<EOF\n$(echo)\nEOF",
    "cat <<EOF \\",
    "a &&",
    "| a",
    "a | ; b",
    "a ;; b",
    "f() { echo; }",
    "sleep 5 &",
    "x=(1 2)",
    "echo `date`",
    "source x",
    "A=1 if",
    "[[ a ]]",
    "echo ${x!}",
    "cat <(ls)",
    "a <<< ",
    "",
]


@pytest.mark.parametrize("text", WHOLE)
def test_common_texts_are_read(text):
    assert read(text.encode()) is not None


@pytest.mark.parametrize("text", NOT_SURE)
def test_of_the_rest_bash_is_asked(text):
    assert read(text.encode()) is None


def test_what_is_read_is_whole_and_valid_for_bash():
    texts = [*WHOLE, *bash_cases.SINGLE, *(one for part in bash_cases.SEQUENCES for one in part), *STEPS]
    lines = {line for text in texts for line in text.split("\n")}
    known = [text for text in (*texts, *sorted(lines)) if read(text.encode())]
    assert len(known) > 200
    # What is left open would not let its own function end where it does.
    script = "".join(f"f{number}() {{\n{text}\n}}\n" for number, text in enumerate(known))
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "changes", "assigned"),
    [
        ("cd a && ls | head; ./run.sh; printf '%s' x", False, set()),
        ("for f in a; do cat $f; done; x=$(set -e; trap; y=1)", False, {b"f", b"x"}),
        ("(set -e; y=1)", False, set()),
        ("set -e", True, set()),
        ("true; exit", True, set()),
        ("printf -v x y", True, set()),
        ("$cmd x", True, set()),
        ("'set' -e", True, set()),
        ("s\\et -e", True, set()),
        ("A=1 set -e", True, set()),
        ("POSIXLY_CORRECT=1 ls", True, set()),
        ("echo $((i++))", True, set()),
        ("while true; do export x; done", True, set()),
        ("exec > file", True, set()),
        ("x=1 y=2", False, {b"x", b"y"}),
    ],
)
def test_what_may_change_the_shell_is_told(text, changes, assigned):
    found = read(text.encode())
    assert (found.changes, found.assigned) == (changes, assigned)


def test_who_may_look_at_the_last_status_is_told():
    assert [read(text).asks for text in (b"echo $?", b"echo ${PIPESTATUS[1]}", b"echo hi")] == [True, True, False]
