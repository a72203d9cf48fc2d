"""Files that are whole or not there."""

import pytest

from verigym.envs.runs.files import read_object, write_json, write_text, write_with, written_whole
from verigym.errors import ConfigError


def test_what_fails_in_the_middle_leaves_what_was_there(tmp_path):
    path = tmp_path / "deep" / "report.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError), written_whole(path) as out:
        out.writelines(["{", 1])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    with pytest.raises(FileNotFoundError):
        write_with(path, lambda partial: partial.rename(path.parent / "away" / "gone"))
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [one.name for one in path.parent.iterdir()] == ["report.json"]
    write_text(path, "two")
    assert path.read_text() == "two"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'{"a"', "cannot be read"),
        (b"\x00" * 10, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"[1]", "holds list, no object"),
        (b"null", "holds NoneType"),
    ],
)
def test_what_is_no_object_is_told_with_the_remedy(tmp_path, content, told):
    path = tmp_path / "recipe.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"recipe\.json, the recipe, {told}.*; restore it"):
        read_object(path, "the recipe", "restore it", ConfigError)
