"""The page's own files, read once. Under an address that has a digest of them all a browser keeps them, so that a page
that is opened again asks for its data alone."""

import hashlib
import re
from pathlib import Path

from starlette.responses import Response

from .safe import HEADERS, answer

PAGE = Path(__file__).with_name("page")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
KEPT = "public, max-age=31536000, immutable"


class PageFiles:
    """What there is to load, by name."""

    def __init__(self, folder: Path = PAGE) -> None:
        paths = sorted(path for path in folder.rglob("*") if path.suffix in TYPES and path.is_file())
        self._files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        digest = hashlib.sha256()
        for name, content in self._files.items():
            digest.update(f"{name} {len(content)}\n".encode() + content)
        self.version = f"v-{digest.hexdigest()[:12]}"
        # Modules name each other relatively, so what the first one is asked under holds for all.
        index = self._files["index.html"].decode("utf-8")
        self._files["index.html"] = re.sub(r'(?<=(?:href|.src)=")(?=[a-z])', f"{self.version}/", index).encode("utf-8")

    def response(self, name: str) -> Response:
        """The file of an address; 404 where there is none."""
        folder, _, rest = name.partition("/")
        is_kept = folder == self.version
        name = (rest if is_kept else name) or "index.html"
        if name not in self._files:
            return answer({"error": "there is no such file"}, 404)
        headers = {**HEADERS, "Cache-Control": KEPT if is_kept else "no-cache"}
        return Response(self._files[name], media_type=TYPES[Path(name).suffix], headers=headers)
