"""Layers, and the archives that images come in: what a stranger's archive can do, which is nothing outside."""

import errno
import gzip
import io
import json
import os
import stat
import tarfile
from contextlib import contextmanager

import pytest

from verigym.__main__ import main
from verigym.envs.sandbox.oci import store as store_module
from verigym.envs.sandbox.oci.flavor import AS_ROOT, AS_USER, FIRST_ID
from verigym.envs.sandbox.oci.images import normal_name
from verigym.envs.sandbox.oci.look import LayerFiles
from verigym.envs.sandbox.oci.store import ImageStore
from verigym.envs.sandbox.oci.unpack import Unsafe, unpack_layer
from verigym.errors import SandboxError

from .archives import configuration, digest, docker_archive, layer, member, oci_layout

FLAVORS = [AS_USER, pytest.param(AS_ROOT, marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root"))]


def unpacked(folder, *members, flavor=AS_USER):
    folder.mkdir(parents=True)
    return unpack_layer(io.BytesIO(layer(*members)), folder, flavor)


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_layer_is_as_its_archive_says(tmp_path, flavor):
    at = tmp_path / "layer"
    owners = unpacked(
        at,
        member("bin/", uid=0),
        member("bin/tool", b"one", mode=0o4755),
        member("bin/again", kind=tarfile.LNKTYPE, link="bin/tool"),
        member("home/me/", uid=1000, gid=1001),
        member("home/me/link", kind=tarfile.SYMTYPE, link="/etc/passwd", uid=1000, gid=1001),
        member("home/me/queue", kind=tarfile.FIFOTYPE),
        member("dev/null", kind=tarfile.CHRTYPE),
        flavor=flavor,
    )
    assert everything(at) == [
        *("bin", "bin/again", "bin/tool", "dev", "home", "home/me", "home/me/link", "home/me/queue"),
    ]
    assert (at / "bin/tool").stat().st_ino == (at / "bin/again").stat().st_ino
    assert stat.S_IMODE((at / "bin/tool").stat().st_mode) == 0o4755
    assert (at / "bin").stat().st_mtime == 1_600_000_000
    assert os.readlink(at / "home/me/link") == "/etc/passwd"
    assert owners == {"home/me": (1000, 1001), "home/me/link": (1000, 1001)}
    outside = (at / "home/me").lstat().st_uid, (at / "bin/tool").lstat().st_uid
    assert outside == ((FIRST_ID + 1000, FIRST_ID) if flavor is AS_ROOT else (os.getuid(), os.getuid()))


BAD = {
    "up": [member("../out", b"x")],
    "up inside": [member("a/../../out", b"x")],
    "up by a hard link": [member("in", kind=tarfile.LNKTYPE, link="../out")],
    "a hard link to nothing": [member("in", kind=tarfile.LNKTYPE, link="not/there")],
    "a hard link to a folder": [member("a/"), member("in", kind=tarfile.LNKTYPE, link="a")],
    "below a file": [member("a", b"x"), member("a/b", b"x")],
    "links without end": [
        member("a", kind=tarfile.SYMTYPE, link="b"),
        member("b", kind=tarfile.SYMTYPE, link="a"),
        member("a/c", b"x"),
    ],
    "a whiteout of the folder itself": [member("a/.wh..", b"")],
}


@pytest.mark.parametrize("name", BAD)
def test_what_leads_out_of_a_layer_is_refused(tmp_path, name):
    with pytest.raises(Unsafe):
        unpacked(tmp_path / "deep/layer", *BAD[name])
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "deep/out").exists()


def test_links_lead_where_they_would_lead_inside(tmp_path):
    at = tmp_path / "layer"
    (tmp_path / "victim").mkdir()
    unpacked(
        at,
        member("absolute", kind=tarfile.SYMTYPE, link=str(tmp_path / "victim")),
        member("absolute/a", b"1"),
        member("climbs", kind=tarfile.SYMTYPE, link="../../../../../../up"),
        member("climbs/b", b"2"),
        member("/rooted", b"3"),
        member("file", kind=tarfile.SYMTYPE, link=str(tmp_path / "victim/c")),
        member("file", b"4"),  # takes the link's place
    )
    assert everything(tmp_path / "victim") == []
    inside = str(tmp_path / "victim").lstrip("/")
    assert (at / inside / "a").read_bytes() == b"1"
    assert (at / "up/b").read_bytes() == b"2"
    assert ((at / "rooted").read_bytes(), (at / "file").read_bytes()) == (b"3", b"4")


@pytest.mark.parametrize("flavor", FLAVORS)
def test_whiteouts_are_what_overlayfs_takes_for_them(tmp_path, flavor):
    at = tmp_path / "layer"
    unpacked(
        at,
        member("gone/.wh.file"),
        member("anew/.wh..wh..opq"),
        member("anew/file", b"x"),
        member(".wh.swapped"),
        member("swapped/"),
        member("late/"),
        member(".wh.late"),
        member(".wh..wh.plnk"),
        flavor=flavor,
    )
    status = (at / "gone/file").lstat()
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == 0
    for name in ("anew", "swapped", "late"):
        assert os.getxattr(at / name, flavor.opaque) == b"y"
    assert everything(at) == ["anew", "anew/file", "gone", "gone/file", "late", "swapped"]


def test_an_archive_cannot_set_attributes_that_overlayfs_obeys(tmp_path):
    one, _ = member("a/")
    one.pax_headers = {f"SCHILY.xattr.{name}": "y" for name in (AS_USER.opaque, AS_ROOT.opaque)}
    at = tmp_path / "layer"
    unpacked(at, (one, b""))
    assert os.listxattr(at / "a") == []


@pytest.mark.parametrize("flavor", FLAVORS)
def test_what_an_image_holds_is_what_its_layers_make_of_each_other(tmp_path, flavor):
    layers = [
        layer(
            member("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"),
            member("data/", uid=7, gid=8),
            member("old/file", b"x"),
            member("hidden/file", b"x"),
            member("srv", b"a file"),
        ),
        layer(
            member("old/.wh.file"),
            member("hidden/.wh..wh..opq"),
            member("hidden/new", b"y"),
            member("there", kind=tarfile.SYMTYPE, link="/data"),
            member("srv/below", b"z"),
        ),
    ]
    store = ImageStore(tmp_path / "store", flavor=flavor)
    (image,) = store.add(str(docker_archive(tmp_path / "a.tar", layers)))
    files = LayerFiles(store, image.layers)
    assert files.text("/etc/passwd").startswith("root:")
    assert [files.exists(f"/{name}") for name in ("old/file", "hidden/file", "hidden/new", "old")] == [0, 0, 1, 1]
    assert files.owner("/there") == files.owner("/data/.") == (7, 8)
    assert files.owner("/nowhere") is None
    assert files.text("/srv/below") == "z"
    assert files.text("/there/../../../etc/passwd").startswith("root:")  # never this machine's own


def test_layers_are_unpacked_once_and_go_with_their_last_image(tmp_path, monkeypatch):
    store = ImageStore(tmp_path / "store", flavor=AS_USER)
    shared, one, other = (layer(member(name, name.encode())) for name in ("shared", "one", "other"))
    done = []
    real = store_module.unpack_layer
    monkeypatch.setattr(store_module, "unpack_layer", lambda *args: done.append(1) or real(*args))
    store.add(str(docker_archive(tmp_path / "one.tar", [shared, one], names=["a/one:1", "a/first:1"])))
    store.add(str(docker_archive(tmp_path / "other.tar", [shared, other], names=["a/other"])))
    store.add(str(docker_archive(tmp_path / "again.tar", [shared, other], names=["a/again:2"])))
    assert len(done) == 3
    assert [kept.names for kept in store.images()].count(("a/again:2", "a/other:latest")) == 1
    assert store.find("docker.io/a/other").id == store.find("a/again:2").id
    assert store.remove("a/first:1") == 0  # one of two names
    with store.used(store.find("a/one:1")), pytest.raises(SandboxError, match="in use by another process"):
        store.remove("a/one:1")
    assert store.remove("a/one:1") == 1
    assert store.find("a/one:1") is None
    assert (store.place(f"sha256:{digest(shared)}") / "fs/shared").read_bytes() == b"shared"
    with pytest.raises(SandboxError, match="verigym images list"):
        store.remove("a/one:1")


def test_layouts_are_read_compressed_or_not_and_by_name(tmp_path):
    layers = [layer(member("a", b"1")), layer(member("b", b"2"))]
    packed = oci_layout(tmp_path / "packed", layers, name="first")
    plain = oci_layout(tmp_path / "plain", layers, compressed=False)
    archive = tmp_path / "layout.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(packed, arcname=".")
    ids = set()
    for number, source in enumerate((f"oci:{packed}:first", str(plain), f"oci-archive:{archive}")):
        store = ImageStore(tmp_path / f"store{number}", flavor=AS_USER)
        (image,) = store.add(source, name="my/name:3")
        ids.add(image.id)
        assert store.find("my/name:3").id == image.id
    assert len(ids) == 1
    with pytest.raises(SandboxError, match="no image 'second'"):
        store.add(f"oci:{packed}:second")


def test_a_compressed_archive_is_read_too(tmp_path):
    import gzip

    plain = docker_archive(tmp_path / "a.tar", [layer(member("a", b"1"))])
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    store = ImageStore(tmp_path / "store", flavor=AS_USER)
    assert store.add(str(packed))[0].layers == store.add(f"docker-archive:{plain}:test/small:1")[0].layers


def damaged(tmp_path, kind):
    layers = [layer(member("a", b"1" * 100_000))]
    if kind == "another machine":
        config = configuration(layers, machine="riscv64")
        return str(docker_archive(tmp_path / "a.tar", layers, config=config)), "riscv64.*nothing of it was kept"
    if kind == "another layer":
        other = [layer(member("a", b"2" * 100_000))]
        return str(docker_archive(tmp_path / "a.tar", other, config=configuration(layers))), "digest .* was expected"
    if kind == "a layer missing":
        config = configuration([*layers, *layers])
        return str(docker_archive(tmp_path / "a.tar", layers, config=config)), "1 layers where the image has 2"
    if kind == "cut off":
        path = docker_archive(tmp_path / "a.tar", layers)
        path.write_bytes(path.read_bytes()[:60_000])
        return str(path), "no whole tar archive|manifest|damaged"
    if kind == "no tar":
        (tmp_path / "a.tar").write_bytes(b"hello" * 500)
        return str(tmp_path / "a.tar"), "no whole tar archive"
    if kind == "no layout":
        (tmp_path / "empty").mkdir()
        return f"oci:{tmp_path / 'empty'}", "nor an OCI layout"
    if kind == "nothing":
        return str(tmp_path / "missing.tar"), "no file and no folder"
    folder = oci_layout(tmp_path / "layout", layers)
    blobs = sorted((folder / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    index = json.loads((folder / "index.json").read_text())
    which = {"a layer's blob": 0, "the configuration": 1, "the manifest": 2}[kind]
    manifest = folder / "blobs/sha256" / index["manifests"][0]["digest"][7:]
    told = json.loads(manifest.read_text())
    digests = [told["layers"][0]["digest"], told["config"]["digest"], f"sha256:{manifest.name}"]
    victim = folder / "blobs/sha256" / digests[which][7:]
    assert victim in blobs
    victim.write_bytes(victim.read_bytes()[:-4] + b"9999")
    return f"oci:{folder}", "get (the image|it) again"


@pytest.mark.parametrize(
    "kind",
    [
        *("another machine", "another layer", "a layer missing", "cut off", "no tar", "no layout", "nothing"),
        *("a layer's blob", "the configuration", "the manifest"),
    ],
)
def test_what_is_not_whole_says_so_once_and_leaves_nothing(tmp_path, kind):
    source, told = damaged(tmp_path, kind)
    store = ImageStore(tmp_path / "store", flavor=AS_USER)
    with pytest.raises(SandboxError, match=told):
        store.add(source)
    assert store.images() == []
    assert list(store.layers.glob("*")) + list(store.layers.glob(".*")) == []


def test_a_full_disk_where_an_archive_is_decompressed_is_told(tmp_path, monkeypatch):
    path = docker_archive(tmp_path / "a.tar", [layer(member("f", b"x" * 30_000))])
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(path.read_bytes()))

    def copy(source, target, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("verigym.envs.sandbox.oci.sources.shutil.copyfileobj", copy)
    with pytest.raises(SandboxError, match=r"the disk is full: .*a\.tar\.gz is decompressed into .*TMPDIR"):
        ImageStore(tmp_path / "store", flavor=AS_USER).add(str(tmp_path / "a.tar.gz"))


def test_an_archive_that_is_not_there_is_asked_of_no_registry(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("VERIGYM_CACHE", str(tmp_path))
    assert main(["images", "add", str(tmp_path / "none.tar")]) == 2
    monkeypatch.chdir(tmp_path)
    assert main(["images", "add", "none.tar.gz"]) == 2
    told = capsys.readouterr().err
    assert told.count("no file and no folder") == 2
    assert "registry" not in told


@contextmanager
def full_disk(after):
    """Writing fails from the so-manieth piece on."""
    real, num = store_module.unpack_layer, [0]

    def writing(tar, folder, flavor):
        real_read = tar.read

        def read(size=-1):
            num[0] += 1
            if num[0] > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real_read(size)

        tar.read = read
        return real(tar, folder, flavor)

    store_module.unpack_layer = writing
    try:
        yield
    finally:
        store_module.unpack_layer = real


def test_a_full_disk_leaves_nothing_half_unpacked(tmp_path):
    source = str(docker_archive(tmp_path / "a.tar", [layer(*(member(f"f{n}", b"x" * 30_000) for n in range(50)))]))
    store = ImageStore(tmp_path / "store", flavor=AS_USER)
    with (
        full_disk(after=20),
        pytest.raises(SandboxError, match=r"the disk is full.*nothing of it was kept.*VERIGYM_CACHE"),
    ):
        store.add(source)
    assert list(store.layers.iterdir()) == []
    assert len(store.add(source)) == 1


def test_what_a_killed_process_left_is_unpacked_anew(tmp_path):
    data = layer(*(member(f"f{n}", b"x" * 100) for n in range(20)))
    source = str(docker_archive(tmp_path / "a.tar", [data]))
    store = ImageStore(tmp_path / "store", flavor=AS_USER)
    pid = os.fork()
    if pid == 0:
        with full_disk(after=3):
            store_module.layer_error = lambda *args: os.kill(os.getpid(), 9)
            store.add(source)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 9
    assert store.images() == []
    (left,) = store.layers.iterdir()
    assert left.name.startswith(".making-")
    store.add(source)
    assert [path.name for path in store.layers.iterdir()] == [digest(data)[:24]]
    assert len(everything(store.layers)) == 20 + 3


def test_names_are_told_apart_as_docker_does():
    assert normal_name("python") == normal_name("docker.io/library/python:latest") == "python:latest"
    assert normal_name("localhost:5000/a/b") == "localhost:5000/a/b:latest"
    assert normal_name("a@sha256:" + "0" * 64) == "a@sha256:" + "0" * 64
