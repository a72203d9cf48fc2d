#!/bin/sh
# The adapters beside the libraries that they adapt. Each library has an environment of its own, build/peers/NAME, with what
# tests/peers/NAME.txt pins; behind it stands the one of `make setup`, so that what both have is the library's.
set -eu
cd "$(dirname "$0")/../.."
venv=$(cd "${VENV:-.venv}" && pwd)
peers=build/peers
status=0

[ -x "$peers/uv/bin/uv" ] || { "$venv/bin/python" -m venv "$peers/uv" && "$peers/uv/bin/pip" install -q uv; }
PATH="$PATH:$PWD/$peers/uv/bin" # verifiers prepares its programs with it, too
export PATH OMP_NUM_THREADS=1

# make NAME [PYTHON]: the environment of a library, where it is not there yet, or what is pinned has changed.
make() {
    cmp -s "tests/peers/$1.txt" "$peers/$1/installed" && return
    "${2:-$venv/bin/python}" -m venv --clear "$peers/$1"
    uv pip install --system-certs -q --python "$peers/$1/bin/python" -r "tests/peers/$1.txt"
    cp "tests/peers/$1.txt" "$peers/$1/installed"
}

# beside NAME TEST...: tests in the environment of a library.
beside() {
    name=$1 && shift
    make "$name"
    here=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    there=$("$peers/$name/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "import site; site.addsitedir('$here')" >"$there/zz_behind.pth"
    "$peers/$name/bin/python" -m pytest -q -m "slow or not slow" "$@" || status=1
}

beside openenv tests/unit/envs/adapters/test_openenv.py
beside verifiers tests/unit/envs/adapters/test_verifiers.py
beside games tests/unit/envs/adapters/test_games.py

# NeMo Gym 0.4 wants Python 3.12; its servers run in it, the tests in ours.
python=
for one in "${NEMO_PYTHON:-python3.12}" python3.12 python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[23].*/bin/python; do
    "$one" -c '' 2>/dev/null && python=$one && break # a name may be there and run nothing
done
if [ -n "$python" ]; then
    make nemo-gym "$python"
    PEER_PYTHON="$PWD/$peers/nemo-gym/bin/python" "$venv/bin/python" -m pytest -q tests/peers || status=1
else
    echo "there is no Python 3.12 here, which NeMo Gym wants (NEMO_PYTHON=PATH): its servers are not tried"
fi
exit $status
