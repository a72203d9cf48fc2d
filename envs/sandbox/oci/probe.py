"""Whether this machine can run images without an engine: an image of one folder is made, and a command run in it."""

import hashlib
import io
import json
import tarfile
import tempfile
from pathlib import Path

from ....errors import SandboxError
from ..background import on_thread
from ..types import SandboxSpec
from .backend import OciBackend
from .store import ImageStore


async def probe_images() -> None:
    """Raises SandboxError, or the OSError that was met."""
    with tempfile.TemporaryDirectory(prefix="verigym-probe-") as folder:
        archive = Path(folder) / "image.tar"
        await on_thread(_write, archive)
        backend = OciBackend(store=ImageStore(Path(folder) / "store"))
        try:
            box = await backend.create(SandboxSpec(image=str(archive), workdir="/probe"))
            try:
                result = await box.aexec("[ -d old ] && echo ok > new && echo ok", timeout_s=20)
            finally:
                await box.aclose()
        finally:
            backend.close()
    if result.output != "ok\n":
        raise SandboxError(f"a probe answered {result.output!r} (exit code {result.exit_code})")


def _write(path: Path) -> None:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("probe", "probe/old"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as tar:
        for one, data in (("layer.tar", layer.getvalue()), (name, config), ("manifest.json", manifest)):
            member = tarfile.TarInfo(one)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
