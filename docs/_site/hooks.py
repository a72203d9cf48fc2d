"""What mkdocs builds the site from, beside the pages in this folder: generated references, and the root's own pages.

Links that lead out of the documentation (to code, recipes, examples) are shown as paths: the site is read without the
repository beside it.
"""

import contextlib
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

# After the path is set: mkdocs loads this file alone.
from api_page import api_page  # noqa: E402
from command_page import command_page  # noqa: E402
from recipe_page import recipe_page  # noqa: E402

ROOT_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}


GENERATED = {
    "reference/recipes.md": recipe_page,
    "reference/commands.md": command_page,
    "reference/api.md": api_page,
}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_startup(**_: Any) -> None:
    """A folder that holds the package alone, before anything looks for it: the root also holds environments and runs,
    and what reads docstrings would read all of them."""
    package = ROOT / "build" / "docs" / "verigym"
    package.mkdir(parents=True, exist_ok=True)
    for path in ROOT.iterdir():
        if path.suffix == ".py" or (path / "__init__.py").is_file():
            with contextlib.suppress(FileExistsError):  # of an earlier build, or one that runs beside this one
                (package / path.name).symlink_to(path)


def on_config(config: Any) -> Any:
    """Complete the navigation."""
    _complete(config.nav)
    return config


def _complete(nav: list[Any]) -> None:
    """A new page or design note needs no line in mkdocs.yml: guides are added by their titles, notes by number."""
    named = set(re.findall(r"[\w/-]+\.md", str(nav)))
    guides = next(one["Guides"] for one in nav if "Guides" in one)
    guides += [path.name for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in named]
    nav.append({"Design notes": [f"design/{path.name}" for path in sorted((ROOT / "docs" / "design").glob("*.md"))]})


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made here."""
    for place, make in GENERATED.items():
        files.append(File.generated(config, place, content=make()))
    for name, place in ROOT_PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        for other, its_place in ROOT_PAGES.items():
            text = text.replace(f"]({other})", f"]({its_place})")
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links out of the documentation become the path that they lead to; the quickstart's recipe stands under it."""
    if page.file.src_uri == "quickstart.md":
        recipe = (ROOT / "recipes" / "quickstart.toml").read_text(encoding="utf-8")
        markdown += f"\n```toml\n{recipe}```\n"
    here = Path(page.file.src_uri).parent

    def inside(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target:
            return match[0]
        parts: list[str] = []
        for part in (here / target).as_posix().split("/"):
            if part == ".." and parts and parts[-1] != "..":
                parts.pop()
            else:
                parts.append(part)
        place = "/".join(parts)
        if not place.startswith(".."):
            return match[0]
        name = place.removeprefix("../")
        if name in ROOT_PAGES:
            up = "../" * len(here.parts)
            return f"[{text}]({up}{ROOT_PAGES[name]}{anchor})"
        return f"`{name}`" if text.strip("`") == name else f"{text} (`{name}`)"

    return LINK.sub(inside, markdown)
