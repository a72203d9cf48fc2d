"""The server of the page: JSON about runs, and the page's own files. It answers GET on this machine, and nothing else.

A page of another site can neither read the answers (nothing lets it) nor reach the server under a name of its own
(``Host`` is checked: DNS rebinding).
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...errors import VerigymError
from .episode import commands_of, episode_of
from .figures import Metrics, Verdicts, differences, listed, overview
from .files import PageFiles
from .index import FRESH_SECONDS, Indexes, cache_folder
from .queries import facets_of, groups_of, neighbours, page_of, row_of
from .runs import FoundRun, about, evaluations_in, find_runs, kind_of, stages_of, state_of
from .safe import answer
from .tokens import tokens_of

HOSTS = ("localhost", "127.0.0.1", "[::1]")
WARM_SECONDS = 2.0
GZIP_BYTES = 16_000
"""Answers from this size on are compressed."""


class NotFound(VerigymError):
    """There is no such run or episode."""


class Room:
    """What the routes answer from: the folders, and what has been read of their runs."""

    def __init__(self, folders: Sequence[Path], indexes: Indexes) -> None:
        self.folders = list(folders)
        self.metrics, self.verdicts, self.indexes = Metrics(), Verdicts(), indexes
        self._known: dict[str, FoundRun] = {}

    def runs(self) -> list[FoundRun]:
        """All runs of the folders, looked for again."""
        found = find_runs(self.folders)
        self._known |= {run.id: run for run in found}
        return found

    def run(self, asked: Mapping[str, str], name: str = "run") -> FoundRun:
        """The run of an id. Raises NotFound."""
        number = asked.get(name, "")
        if number not in self._known or kind_of(self._known[number].path) is None:
            for run in self.runs():
                if run.kind == "training":
                    self._known |= {one.id: one for one in evaluations_in(run)}
        if number not in self._known:
            raise NotFound(f"there is no run {number[:20]!r} under {', '.join(map(str, self.folders))}")
        return self._known[number]

    def list(self, asked: Mapping[str, str]) -> Any:
        rows = listed(self.folders, self.metrics, self.verdicts)
        return {"folders": [str(folder) for folder in self.folders], "runs": rows}

    def about(self, asked: Mapping[str, str]) -> Any:
        _warm()
        return about(self.run(asked))

    def overview(self, asked: Mapping[str, str]) -> Any:
        run = self.run(asked)
        return {**overview(run, self.verdicts), "commands": commands_of(run)}

    def columns(self, asked: Mapping[str, str]) -> Any:
        run = self.run(asked)
        stages = [asked["stage"]] if asked.get("stage") else stages_of(run)
        version = self.metrics.version(run)
        columns = [self.metrics.columns(run, stage) for stage in stages]
        return {"run": run.id, "name": run.name, "version": version, "stages": columns}

    def differences(self, asked: Mapping[str, str]) -> Any:
        runs = [self.run({"run": number}) for number in asked.get("runs", "").split(",") if number]
        told = [overview(run, self.verdicts) for run in runs]
        values = {run.id: one["config"] for run, one in zip(runs, told, strict=True)}
        return {"names": {run.id: run.name for run in runs}, "rows": differences(values)}

    def poll(self, asked: Mapping[str, str]) -> Any:
        """Numbers that change when there is something new: cheap enough to be asked twice a second."""
        run = self.run(asked)
        index = self.indexes.of(run)
        version = index.touch()
        metrics = self.metrics.version(run)
        return {
            **state_of(run),
            "episodes": version,
            "total": index.total,
            "metrics": metrics,
            "behind": index.behind,
        }

    def episodes(self, asked: Mapping[str, str]) -> Any:
        return self._indexed(asked, lambda base: page_of(base, asked))

    def groups(self, asked: Mapping[str, str]) -> Any:
        return self._indexed(asked, lambda base: groups_of(base, asked))

    def facets(self, asked: Mapping[str, str]) -> Any:
        return self._indexed(asked, facets_of)

    def _indexed(self, asked: Mapping[str, str], question: Callable[[Connection], dict[str, Any]]) -> Any:
        index = self.indexes.of(self.run(asked))
        with index.reading() as base:
            version = index.version  # of before: what comes meanwhile makes the page ask again
            return {**question(base), "version": version, "behind": index.behind}

    def episode(self, asked: Mapping[str, str]) -> Any:
        run = self.run(asked)
        index = self.indexes.of(run)
        with index.reading() as base:
            row = row_of(base, asked.get("key", ""))
            if row is None:
                raise NotFound(f"the run has no episode {asked.get('key', '')[:80]!r}")
            around = neighbours(base, row)
        return {**episode_of(run, row, index.line_of(row)), **around}

    def tokens(self, asked: Mapping[str, str]) -> Any:
        run = self.run(asked)
        index = self.indexes.of(run)
        with index.reading() as base:
            row = row_of(base, asked.get("key", ""))
        if row is None:
            raise NotFound(f"the run has no episode {asked.get('key', '')[:80]!r}")
        line = None if run.kind == "training" else index.line_of(row)
        return {"segments": tokens_of(run, row, line)}

    def evaluation(self, asked: Mapping[str, str]) -> Any:
        return self.verdicts.summary(self.run(asked))

    def compare(self, asked: Mapping[str, str]) -> Any:
        return self.verdicts.compare(self.run(asked, "first"), self.run(asked, "second"))


def make_app(
    folders: Sequence[Path],
    *,
    cache: Callable[[], Path] = cache_folder,
    hosts: Sequence[str] = (),
    fresh_s: float = FRESH_SECONDS,
) -> Starlette:
    """The application.

    Args:
        folders: where runs are.
        cache: where indexes are kept.
        hosts: names of this server besides those of the loopback.
        fresh_s: see ``EpisodeIndex``.
    """
    room = Room(folders, Indexes(cache, fresh_s=fresh_s))
    asked: dict[str, Callable[[Mapping[str, str]], Any]] = {
        "runs": room.list,
        "run": room.about,
        "overview": room.overview,
        "metrics": room.columns,
        "differences": room.differences,
        "poll": room.poll,
        "episodes": room.episodes,
        "groups": room.groups,
        "facets": room.facets,
        "episode": room.episode,
        "tokens": room.tokens,
        "evaluation": room.evaluation,
        "compare": room.compare,
    }

    def route(name: str) -> Route:
        def respond(request: Request) -> Response:  # not async: Starlette gives it a thread
            try:
                return answer(asked[name](request.query_params))
            except NotFound as error:
                return answer({"error": str(error)}, 404)
            except (VerigymError, OSError) as error:
                return answer({"error": str(error)}, 400)

        return Route(f"/api/{name}", respond, methods=["GET"])

    files = PageFiles()

    async def file(request: Request) -> Response:
        return files.response(request.path_params["path"])

    routes = [*(route(name) for name in asked), Route("/{path:path}", file, methods=["GET"])]
    allowed = Middleware(TrustedHostMiddleware, allowed_hosts=[*HOSTS, *hosts], www_redirect=False)
    small = Middleware(GZipMiddleware, minimum_size=GZIP_BYTES, compresslevel=1)  # for who looks from another machine
    return Starlette(routes=routes, middleware=[allowed, small])


@cache
def _warm() -> None:
    """Import what the first look at tokens would wait for, once the page of a run has been drawn."""
    timer = threading.Timer(WARM_SECONDS, import_module, ["pyarrow.parquet"])
    timer.daemon = True
    timer.start()
