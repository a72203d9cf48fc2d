"""Scripts in SWE-bench 5's form: hidden tests are applied, and a command runs between the markers."""

import shlex

from ...rewards.patches import paths_of

START, END, CODE = ">>>>> Start Test Output", ">>>>> End Test Output", ">>>>> Test Exit Code"
HEREDOC = "EOF_114329324912"


def eval_script_of(
    *, root: str, test_cmd: str, before: str = "", base_commit: str = "", test_patch: str = "", conda: bool = True
) -> str:
    """A script that applies the hidden tests, runs the command between the markers, and takes the tests' files back.

    Args:
        test_cmd: lines of shell; paths in it are the caller's to quote.
        before: lines to run first.
        conda: SWE-bench's environment is activated.
    """
    files = list(dict.fromkeys(old for old, _ in paths_of(test_patch) if old))
    checkout = f"git checkout {base_commit or 'HEAD'} {shell_words(files)}" if files else ":"
    apply = (
        f"git apply -v - <<'{HEREDOC}'\n{test_patch if test_patch.endswith(chr(10)) else test_patch + chr(10)}{HEREDOC}"
        if test_patch
        else ":"
    )
    activate = "source /opt/miniconda3/bin/activate\nconda activate testbed" if conda else ":"
    return "\n".join(
        [
            "#!/bin/bash",
            "set -uxo pipefail",
            activate,
            f"cd {shlex.quote(root)}",
            f"git config --global --add safe.directory {shlex.quote(root)}",
            before or ":",
            checkout,
            apply,
            f": '{START}'",
            test_cmd,
            "SWEBENCH_TEST_EXIT_CODE=$?",
            f": '{END}'",
            f'echo "{CODE}: $SWEBENCH_TEST_EXIT_CODE"',
            checkout,
            "",
        ]
    )


def shell_words(paths: "list[str] | tuple[str, ...]") -> str:
    """Paths as words of a shell's command line, whatever is in their names."""
    return " ".join(shlex.quote(path) for path in paths)
