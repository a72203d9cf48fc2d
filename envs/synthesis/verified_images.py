"""Images like the published ones of SWE-bench, built here: the whole history in ``/testbed``, the environment where the
row's own ``eval_script`` looks for it, and the row's name for the image. The rows stay as they are."""

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import SandboxError, TaskError
from ..datasets.eval_scripts import START
from ..datasets.repository import run_git
from ..datasets.swe import SWERow, parse_row
from ..datasets.swe_sources import CONDA_PYTHON
from ..sandbox.images import ensure_base_image
from ..sandbox.pip import pinned
from .build_images import Progress, wheels_of
from .engine_images import LABEL, build, exists, python_of

if TYPE_CHECKING:
    from docker import DockerClient

ENVIRONMENTS = Path(__file__).with_name("verified_environments.toml")
ENV_REPOSITORY, HISTORY_REPOSITORY = "verigym/testbed-env", "verigym/testbed-history"
PREFIX = CONDA_PYTHON.removesuffix("/bin/python")
WHEELS = "/opt/verigym/wheels"

# What published scripts activate, without conda.
ACTIVATE = """\
conda() {
    if [ "$1" = activate ] && [ -d "/opt/miniconda3/envs/$2" ]; then
        export PATH="/opt/miniconda3/envs/$2/bin:$PATH" CONDA_PREFIX="/opt/miniconda3/envs/$2" CONDA_DEFAULT_ENV="$2"
        hash -r
    fi
}
"""

# A Python with a prefix of its own, as conda's are: through a link (tox makes one) it finds its packages, where a
# virtual environment's loses them. Debian's installs into dist-packages, below local or with those of all versions:
# here not.
MAKE_PREFIX = """\
set -e
prefix=$1
python=$(python3 -c 'import os, sys; print(os.path.realpath(sys.executable))')
library=$(python3 -c 'import os; print(os.path.dirname(os.__file__))')
mkdir -p "$prefix/bin" "$prefix/lib"
cp "$python" "$prefix/bin/"
ln -s "${python##*/}" "$prefix/bin/python3"
ln -s "${python##*/}" "$prefix/bin/python"
cp -a "$library" "$prefix/lib/"
cd "$prefix/lib/${library##*/}"
rm -rf EXTERNALLY-MANAGED dist-packages site-packages
mkdir site-packages
ln -s site-packages dist-packages
for file in sysconfig.py distutils/sysconfig.py distutils/command/install.py; do
    [ ! -f $file ] || sed -i -e 's#dist-packages#site-packages#g' -e 's#base\\(}\\?\\)/local\\b#base\\1#g' \\
        -e 's#"python3", "site-packages"#"python" + get_python_version(), "site-packages"#' $file
done
"""


class Environment(BaseModel):
    """What the rows of some versions of a repository run in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repo: str
    versions: tuple[str, ...]
    suite: str = "bookworm"
    """Debian's release; its python3 is the row's."""
    requirements: tuple[str, ...]
    """Pinned; wheels alone are installed, so everything that an older Python needs besides is named."""
    edits: tuple[str, ...] = ()
    """Lines of shell, run in the repository before it is installed; what they change is committed."""
    from_file: tuple[str, str] | None = None
    """(file of the repository, name): the pin of that name at the row's commit goes before the one above."""


def load_environments(path: Path = ENVIRONMENTS) -> list[Environment]:
    """Read a table of environments.

    Raises:
        TaskError: the file cannot be read, or is in another form.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))["environment"]
        return [Environment.model_validate(one) for one in found]
    except (OSError, tomllib.TOMLDecodeError, KeyError, ValidationError) as error:
        told = " ".join(str(error).split())[:300]
        raise TaskError(f"{path} is no table of environments ([[environment]] repo, versions, …): {told}") from None


def build_verified_images(
    rows: Sequence[Mapping[str, Any]],
    *,
    repositories: Sequence[Path],
    client: "DockerClient",
    notes: Path,
    environments: Sequence[Environment],
    base: str | None = None,
    progress: Progress | None = None,
    failed: Callable[[str, str], None],
) -> list[Mapping[str, Any]]:
    """Build the image that each row names, under that name; one that is there is left as it is.

    Args:
        rows: SWE-bench 5's rows, with ``image`` and ``eval_script``.
        repositories: git directories or clones with the rows' commits in their history.
        notes: folder for the Dockerfiles.
        base: an image with git and python3 in place of one that is made with debootstrap for each environment.
        failed: told (id, why) of a row whose image cannot be built.
    Returns:
        The rows whose images are there, unchanged, in their order.
    """
    tell = progress or (lambda what, done, total: None)
    kept: list[Mapping[str, Any]] = []
    tell("images built", 0, len(rows))
    for number, raw in enumerate(rows, 1):
        try:
            row = parse_row(raw)
            _require(row)
            if not exists(client, row.image):
                _build(row, repositories, client, notes, environments, base)
            kept.append(raw)
        except (TaskError, SandboxError) as error:
            failed(str(raw.get("instance_id", number)), str(error))
        tell("images built", number, len(rows))
    return kept


def _require(row: SWERow) -> None:
    if not row.image or START not in row.eval_script or not row.base_commit:
        raise TaskError(
            f"{row.instance_id}: the row has no 'image', 'eval_script' or 'base_commit'; take it from SWE-bench 5's set"
        )


def _build(
    row: SWERow,
    repositories: Sequence[Path],
    client: "DockerClient",
    notes: Path,
    environments: Sequence[Environment],
    base: str | None,
) -> None:
    environment = _environment_of(row, environments)
    git_dir = _repository_of(row, repositories)
    env_image = _environment_image(client, _pins(row, environment, git_dir), environment.suite, base, notes)
    history = _history_image(client, env_image, git_dir, row.repo, notes)
    installs = re.findall(r"^python -m pip install .*$", row.eval_script.partition(START)[0], re.MULTILINE)
    target = "-e ." if not installs or " -e " in installs[-1] else "."
    steps = [
        f"cd {row.root}",
        f"git reset --quiet --hard {row.base_commit}",
        *environment.edits,
        ". /opt/miniconda3/bin/activate",
        "conda activate testbed",
        f"python -m pip install --quiet --no-deps --no-build-isolation {target}",
        # The published images' builds end so, too: what they edited is no work of an agent.
        "git commit --quiet --allow-empty --all --no-verify -m SWE-bench",
    ]
    lines = " \\\n && ".join(steps)
    label = f"LABEL {LABEL}=instance verigym.instance={row.instance_id}\n"
    build(client, row.image, f"FROM {history}\n{label}RUN {lines}\nWORKDIR {row.root}\n", {}, notes)


def _environment_of(row: SWERow, environments: Sequence[Environment]) -> Environment:
    for one in environments:
        if one.repo == row.repo and row.version in one.versions:
            return one
    raise TaskError(
        f"{row.instance_id}: no environment is known for {row.repo} {row.version}; describe it in a table of your own "
        "(--environments FILE)"
    )


def _repository_of(row: SWERow, repositories: Sequence[Path]) -> Path:
    """The git directory that holds the row's commit."""
    for folder in repositories:
        try:
            run_git(folder, "cat-file", "-e", f"{row.base_commit}^{{tree}}")
            return Path(run_git(folder, "rev-parse", "--absolute-git-dir").strip())
        except TaskError:
            continue
    where = ", ".join(map(str, repositories)) or "no folder was named"
    raise TaskError(
        f"{row.instance_id}: no repository has its commit {row.base_commit[:12]} ({where}); name a clone of {row.repo} "
        "with its history by --repository FOLDER"
    )


def _pins(row: SWERow, environment: Environment, git_dir: Path) -> tuple[str, ...]:
    if environment.from_file is None:
        return pinned(environment.requirements)
    path, name = environment.from_file
    text = run_git(git_dir, "show", f"{row.base_commit}:{path}")
    found = re.search(rf"^{re.escape(name)}==\S+", text, re.MULTILINE)
    others = [pin for pin in environment.requirements if not found or not pin.startswith(f"{name}==")]
    return pinned([*others, *([found[0]] if found else [])])


def _environment_image(client: "DockerClient", pins: Sequence[str], suite: str, base: str | None, notes: Path) -> str:
    base = base or ensure_base_image(client, suite=suite)
    python = python_of(client, base)
    dockerfile = (
        f"FROM {base}\n"
        f"LABEL {LABEL}=environment\n"
        f"COPY wheels {WHEELS}\n"
        "COPY activate /opt/miniconda3/bin/activate\n"
        "COPY pip.conf /etc/pip.conf\n"
        "COPY make_prefix /opt/verigym/make_prefix\n"
        f"RUN sh /opt/verigym/make_prefix {PREFIX} \\\n"
        f" && PYTHONPATH=$(ls -d {WHEELS}/pip-*.whl) {PREFIX}/bin/python -m pip install --quiet --no-cache-dir \\\n"
        f" --disable-pip-version-check --no-deps --ignore-installed {WHEELS}/*.whl \\\n"
        " && git config --system --add safe.directory '*' && git config --system user.name SWE-bench \\\n"
        " && git config --system user.email setup@swebench.invalid\n"
        "ENV LANG=C.UTF-8\n"
    )
    files: dict[str, bytes | Path] = {
        "activate": ACTIVATE.encode(),
        "make_prefix": MAKE_PREFIX.encode(),
        # Scripts install the repository once more: from what is here.
        "pip.conf": f"[global]\nno-index = true\nfind-links = {WHEELS}\n".encode(),
    }
    key = hashlib.sha256("\n".join((dockerfile, ACTIVATE, MAKE_PREFIX, python, *pins)).encode()).hexdigest()[:16]
    name = f"{ENV_REPOSITORY}:{key}"
    if not exists(client, name):
        wheels = wheels_of(pins, python)
        files |= {f"wheels/{path.name}": path for path in sorted(wheels.glob("*.whl"))}
        build(client, name, dockerfile, files, notes)
    return name


def _history_image(client: "DockerClient", env_image: str, git_dir: Path, repo: str, notes: Path) -> str:
    """An image of an environment with a repository's objects, which the images of its rows have in common."""
    for odd in ("shallow", "objects/info/alternates"):
        if (git_dir / odd).exists():
            raise TaskError(f"{git_dir} is no whole repository (it has {odd}); fetch it with its history")
    refs = run_git(git_dir, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags")
    dockerfile = (
        f"FROM {env_image}\nLABEL {LABEL}=history\nCOPY repository /testbed/.git\n"
        "RUN mkdir -p /testbed/.git/refs/heads /testbed/.git/refs/tags\nWORKDIR /testbed\n"
    )
    named = re.sub(r"[^a-z0-9]+", "-", repo.lower())
    name = f"{HISTORY_REPOSITORY}.{named}:{hashlib.sha256(f'{dockerfile}{refs}'.encode()).hexdigest()[:16]}"
    if exists(client, name):
        return name
    files: dict[str, bytes | Path] = {
        "repository/HEAD": b"ref: refs/heads/main\n",
        "repository/config": b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n",
        "repository/packed-refs": "".join(f"{line}\n" for line in _one_main(refs)).encode(),
    }
    objects = [path for path in sorted((git_dir / "objects").rglob("*")) if path.is_file()]
    files |= {f"repository/objects/{path.relative_to(git_dir / 'objects')}": path for path in objects}
    build(client, name, dockerfile, files, notes)
    return name


def _one_main(refs: str) -> list[str]:
    """Lines of ``packed-refs``: HEAD's branch is made anew for each row, so no branch of its name is kept."""
    kept = (line for line in refs.splitlines() if not line.endswith(" refs/heads/main"))
    return sorted(kept, key=lambda line: line[41:])
