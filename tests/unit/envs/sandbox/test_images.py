import pytest

from verigym.envs.sandbox import images
from verigym.errors import SandboxError


def sources(tmp_path, monkeypatch, text, release='VERSION_CODENAME=bookworm\nID="debian"\n'):
    etc = tmp_path / "etc"
    (etc / "apt/sources.list.d").mkdir(parents=True)
    (etc / "apt/sources.list.d/some.sources").write_text(text)
    (etc / "os-release").write_text(release)

    class Moved(type(tmp_path)):
        def __new__(cls, path):
            return type(tmp_path)(f"{tmp_path}{path}")

    monkeypatch.setattr(images, "Path", Moved)
    return images.apt_source()


def test_the_mirror_is_the_one_apt_uses_for_this_release(tmp_path, monkeypatch):
    stanzas = "Types: deb\n# http://old/\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\n"
    other = "Types: deb\nURIs: http://mirror/security\nSuites: bookworm-security\n\n"
    assert sources(tmp_path, monkeypatch, other + stanzas) == ("bookworm", "http://mirror/debian")


def test_one_line_sources_are_read_too(tmp_path, monkeypatch):
    text = "# deb http://no/ noble main\ndeb [signed-by=/k.gpg] http://ports/ubuntu noble main universe\n"
    assert sources(tmp_path, monkeypatch, text, "VERSION_CODENAME=noble\n") == ("noble", "http://ports/ubuntu")


def test_without_a_source_the_public_mirror_is_taken(tmp_path, monkeypatch):
    found = sources(tmp_path, monkeypatch, "deb http://other/ sid main\n", "ID=arch\n")
    assert found == ("bookworm", "http://deb.debian.org/debian")


def test_what_is_missing_to_make_one_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("VERIGYM_CACHE", str(tmp_path))
    monkeypatch.setattr(images.os, "geteuid", lambda: 1000)
    with pytest.raises(SandboxError, match=r"takes root and debootstrap \(apt install debootstrap\)"):
        images.base_archive((), suite="bookworm", mirror="http://mirror", key="k")
