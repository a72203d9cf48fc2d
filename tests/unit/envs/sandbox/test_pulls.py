"""Pulling from a registry that fails first, is slow, or has not enough room: a small one of our own."""

import asyncio
import gzip
import hashlib
import http.server
import io
import json
import os
import tarfile
import threading
from types import SimpleNamespace

import pytest

from verigym.envs.sandbox.docker import DockerBackend
from verigym.envs.sandbox.engine import Engine
from verigym.envs.sandbox.settings import SandboxSettings
from verigym.envs.sandbox.types import SandboxSpec
from verigym.errors import SandboxError

pytestmark = pytest.mark.docker

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry:
    """Any name and tag is an image of one layer with one file; ``failures`` of each manifest's first requests fail."""

    def __init__(self, failures=0):
        self.failures, self.asked, self.now, self.most = failures, {}, 0, 0
        self.blobs, self.lock = {}, threading.Lock()
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                registry.answer(self)

            do_HEAD = do_GET

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.name = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def manifest(self, image):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            member = tarfile.TarInfo("which")
            member.size = len(image)
            archive.addfile(member, io.BytesIO(image.encode()))
        layer = gzip.compress(buffer.getvalue(), mtime=0)
        architecture = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
        config = {"architecture": architecture, "os": "linux", "config": {}}
        config["rootfs"] = {"type": "layers", "diff_ids": [digest_of(buffer.getvalue())]}
        blobs = [json.dumps(config).encode(), layer]
        self.blobs |= {digest_of(blob): blob for blob in blobs}
        kinds = ("application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip")
        parts = [{"mediaType": k, "size": len(b), "digest": digest_of(b)} for k, b in zip(kinds, blobs)]
        whole = {"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": parts[1:]}
        return json.dumps(whole).encode()

    def answer(self, request):
        image, _, what = request.path.removeprefix("/v2/").partition("/manifests/")
        status, kind, body = 200, "application/octet-stream", b""
        if what:
            by_tag = request.command == "GET" and not what.startswith("sha256:")  # an engine may ask again by digest
            with self.lock:
                self.asked[image] = self.asked.get(image, 0) + by_tag
                self.now += by_tag
                self.most = max(self.most, self.now)
            kind, body = MANIFEST, self.manifest(image)
            if self.asked[image] <= self.failures:
                status, body = 503, b'{"errors": [{"code": "UNAVAILABLE", "message": "come again"}]}'
        elif "/blobs/" in request.path:
            threading.Event().wait(0.3)
            body = self.blobs[request.path.rpartition("/")[2]]
            with self.lock:
                self.now -= len(body) < 1000 and b"rootfs" in body
        request.send_response(status)
        request.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        if what:
            request.send_header("Docker-Content-Digest", digest_of(body))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)


@pytest.fixture
def registry_of(monkeypatch, tmp_path, engine):
    monkeypatch.setenv("VERIGYM_CACHE", str(tmp_path))
    opened = []

    def make(**options):
        opened.append(Registry(**options))
        return opened[-1]

    yield make
    for registry in opened:
        registry.server.shutdown()
        registry.server.server_close()
        for image in engine.client.images.list():
            for tag in image.tags:
                if tag.startswith(registry.name):
                    engine.api.remove_image(tag, force=True)


def engine_of(**settings):
    return Engine(None, SandboxSettings(**settings))


def test_a_pull_is_tried_again_and_each_image_is_pulled_once(registry_of, monkeypatch):
    registry = registry_of(failures=2)
    monkeypatch.setattr("verigym.envs.sandbox.engine.FIRST_WAIT_S", 0.05)

    async def main():
        engine = engine_of(pull_attempts=4)
        try:
            return await asyncio.gather(*(engine.image(f"{registry.name}/one:1") for _ in range(4)))
        finally:
            await engine.aclose()

    found = asyncio.run(main())
    assert len({one["Id"] for one in found}) == 1
    assert registry.asked == {"one": 3}


def test_a_pull_that_fails_to_the_end_is_said(registry_of, monkeypatch):
    registry = registry_of(failures=99)
    monkeypatch.setattr("verigym.envs.sandbox.engine.FIRST_WAIT_S", 0.05)

    async def main():
        engine = engine_of(pull_attempts=2)
        try:
            await DockerBackend(engines=[engine]).create(SandboxSpec(image=f"{registry.name}/two:1"))
        finally:
            await engine.aclose()

    with pytest.raises(SandboxError, match=r"two:1 is not on .* and cannot be pulled"):
        asyncio.run(main())
    assert registry.asked == {"two": 2}


def test_not_more_are_pulled_at_once_than_the_setting_says(registry_of):
    registry = registry_of()

    async def main():
        engine = engine_of(max_pulls=2)
        try:
            await asyncio.gather(*(engine.image(f"{registry.name}/many{n}:1") for n in range(6)))
        finally:
            await engine.aclose()

    asyncio.run(main())
    assert registry.asked == {f"many{n}": 1 for n in range(6)}
    assert 1 <= registry.most <= 2


def test_what_was_pulled_and_is_not_used_goes_when_the_disk_is_full(registry_of, monkeypatch, bare_image):
    registry = registry_of()
    names = [f"{registry.name}/disk{n}:1" for n in range(5)]

    async def main():
        engine = engine_of()
        for name in names[:4]:
            await engine.image(name)
        used = engine.api.create_container(names[0], command=["/which"])["Id"]
        try:
            await engine.image(names[1])  # used now: 2 and 3 have waited longer
            free = iter([1, 1, 1, 1 << 60])
            monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=next(free)))
            monkeypatch.setattr(engine.store, "_disk", "/")
            await engine.image(names[4])
            left = {tag for image in engine.client.images.list() for tag in image.tags}
        finally:
            engine.api.remove_container(used, force=True)
            await engine.aclose()
        return left

    left = asyncio.run(main())
    assert left & set(names) == {names[0], names[1], names[4]}
    assert bare_image in left
