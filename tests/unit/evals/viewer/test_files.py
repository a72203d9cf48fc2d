"""The page's own files: what a browser may keep of them, and that a page comes with all it loads first."""

import re

from verigym.evals.viewer.files import PAGE, PageFiles
from verigym.evals.viewer.listening import bound


def test_what_the_page_names_is_there_and_is_kept_by_the_browser(client, tmp_path):
    (tmp_path / "runs").mkdir()
    index = client.http.get("/")
    assert index.headers["cache-control"] == "no-cache"
    named = re.findall(r'(?:href|src)="([^"#]+)"', index.text)
    assert len(named) >= 10
    for name in named:
        response = client.http.get(f"/{name}")
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
        assert response.content == (PAGE / name.partition("/")[2]).read_bytes()


def test_other_contents_have_another_address(tmp_path):
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "index.html").write_text('<script src="app.js"></script><a href="#/">')
        (folder / "app.js").write_text(f"{number}")
    first, second = (PageFiles(tmp_path / str(number)) for number in (1, 2))
    assert first.version != second.version
    assert first.response("").body == f'<script src="{first.version}/app.js"></script><a href="#/">'.encode()
    assert first.response(f"{first.version}/app.js").body == b"1"
    assert first.response(f"{second.version}/app.js").status_code == 404
    assert first.response("app.js").headers["cache-control"] == "no-cache"


def test_modules_name_each_other_by_files_that_are_there():
    for path in PAGE.glob("*.js"):
        for name in re.findall(r'(?:from |import\()"\./([^"]+)"', path.read_text(encoding="utf-8")):
            assert (PAGE / name).is_file(), (path.name, name)


def test_long_answers_are_compressed(client, tmp_path, training):
    training(tmp_path / "runs" / "a", steps=10)
    [run] = client("runs")["runs"]
    response = client.http.get("/api/episodes", params={"run": run["id"]})
    assert response.headers["content-encoding"] == "gzip"
    assert len(response.json()["rows"]) == 80
    assert "content-encoding" not in client.http.get("/api/runs").headers


def test_only_this_machine_is_listened_to():
    with bound(0, is_default=False) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
