#!/bin/sh
# Makes the virtual environment: an editable install of verigym with the extras dev and docs, at the versions of constraints.txt.
# Without an NVIDIA driver PyTorch's CPU build is taken (the CUDA build is several GB), with one the registry's default.
set -eu
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}

"$PYTHON" - <<'PY'
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(f"verigym needs Python 3.11 to 3.13, this is {sys.version.split()[0]}: make PYTHON=python3.12 setup")
PY
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"

torch_version=$(sed -n 's/^torch==//p' constraints.txt)
mkdir -p build
pip="$VENV/bin/python -m pip --disable-pip-version-check --quiet install --no-compile"
if command -v nvidia-smi >/dev/null 2>&1; then
    $pip "torch==$torch_version"
else
    # "+cpu" matches no CUDA build. It comes from pip's own sources where they have it, else from PyTorch's index.
    $pip --no-deps "torch==$torch_version+cpu" 2>/dev/null ||
        $pip --no-deps "torch==$torch_version+cpu" --index-url https://download.pytorch.org/whl/cpu || {
        echo "PyTorch's CPU build cannot be reached; taking the registry's default build, which is several GB"
        $pip "torch==$torch_version"
    }
fi
# constraints.txt is complete, so nothing is resolved; the second line checks that.
# Byte code is left to the first import, which needs a tenth of it.
grep -v '^torch==' constraints.txt >build/constraints-without-torch.txt
$pip --no-deps -r build/constraints-without-torch.txt
$pip -c constraints.txt -e ".[dev,docs]"

# Type checkers do not run import hooks: a link makes this folder importable as "verigym" for them.
mkdir -p build/typing
ln -sfn ../.. build/typing/verigym
