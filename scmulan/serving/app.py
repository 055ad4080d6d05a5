"""The gateway: OpenAI-compatible routes, files, jobs on cells, health and figures, in front of a model."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.routing import Match

from scmulan import __version__
from scmulan.errors import EngineError, ScmulanError
from scmulan.serving import routes_cells, routes_files, routes_openai, routes_page, routes_server, routes_views
from scmulan.serving.answers import errors
from scmulan.serving.asked_views import CellSet
from scmulan.serving.chat import Chat
from scmulan.serving.guard import Guard, error_body
from scmulan.serving.jobs import JobError, Jobs, TooManyJobs
from scmulan.serving.line import CHAT, Line
from scmulan.serving.metrics import Metrics
from scmulan.serving.models import Models
from scmulan.serving.reproduced import Setting
from scmulan.serving.room import REMOVE, NoRoom
from scmulan.serving.settings import Settings
from scmulan.serving.uploads import Uploads, UploadsFull, UploadTooLarge, UploadUnknown
from scmulan.serving.views import Views
from scmulan.serving.work import Work

HOUR = 3600.0
ALL = "all"
"""The folder of files where there are no keys."""
log = logging.getLogger("scmulan.serving")


AGAIN = 10.0
"""Seconds after which to ask again where it is not known when there is room."""


class Busy(EngineError):
    """So much stands in line that a question would not have its turn in time.

    Attributes
    ----------
    seconds : after which to ask again; drawn, so that those who are told to wait do not all come back at once
    """

    def __init__(self, why: str, seconds: float):
        super().__init__(f"the server is busy: {why}; ask again")
        self.seconds = random.uniform(0.5, 1.5) * max(AGAIN, seconds)


@dataclass
class Server:
    """What the routes answer with.

    Attributes
    ----------
    is_ready : whether what the models run on can answer now
    """

    settings: Settings
    models: Models
    metrics: Metrics = field(default_factory=Metrics)
    line: Line = field(default_factory=Line)
    beside: Line = field(default_factory=lambda: Line("views"))
    chat: Chat = field(default_factory=Chat)
    is_ready: Callable[[], bool] = lambda: True
    started: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self._uploads: dict[str, Uploads] = {}
        self.views = Views(self.files, lambda job_id, owner, name: self.jobs.result(job_id, owner, name))
        self.models.share(self.line)
        self.work = work = Work(self.models, self.files, self.views)
        folder, most = self.settings.folder / "jobs", self.settings.jobs
        self.jobs = Jobs(folder, work, self.line, most=most, room=self.check_room, beside=self.beside)
        self.metrics.watch("scmulan_line_length", "Pieces of work that wait for the model", lambda: self.line.length)
        self.metrics.watch("scmulan_jobs_open", "Jobs that have not ended", lambda: self.jobs.n_open)

    def files(self, owner: str) -> Uploads:
        """The uploaded files of an owner, whom no other sees."""
        if owner not in self._uploads:
            self._uploads[owner] = Uploads(self.settings.folder / "files" / (owner or ALL), self.settings.uploads)
        return self._uploads[owner]

    def check_room(self, owner: str) -> None:
        """NoRoom where the files and results of an owner take as many bytes as they may, or more."""
        kept, most = self.files(owner).size + self.jobs.size(owner), self.settings.kept_bytes
        if kept >= most:
            raise NoRoom(f"files and results of yours take {kept:,} bytes; needed less than {most:,}: {REMOVE}")

    def setting(self, model: str | None, owner: str, file_id: str | None, other_id: str | None = None) -> Setting:
        """Which model answers, of which file, as the client calls them; a file that is gone has its id for a name."""
        adapter = model if model in self.models.adapters else None
        names = [self._filename(of, owner) if of is not None else None for of in (file_id, other_id)]
        return {"model": self.models.name, "adapter": adapter, "filename": names[0], "other_filename": names[1]}

    def name_of(self, cells: CellSet, owner: str) -> str:
        """The name of the file that a set of cells is of: a client's, or one for a job's result."""
        if cells.job_id is not None:
            return f"{self.jobs.get(cells.job_id, owner).task}-{cells.job_id[-6:]}.h5ad"
        return self._filename(str(cells.file_id), owner)

    def _filename(self, file_id: str, owner: str) -> str:
        """A file's name as the client calls it; its id where the file is gone."""
        try:
            return self.files(owner).get(file_id).name
        except UploadUnknown:
            return file_id

    def _owners(self) -> list[str]:
        """Whoever has a folder of files, from before this server too."""
        folder = self.settings.folder / "files"
        return ["" if path.name == ALL else path.name for path in folder.iterdir()] if folder.is_dir() else []

    async def soon(self, work: Callable[[], Any]) -> Any:
        """Short work that a client waits for. What has begun is brought to its end: to give it up would serve nobody, and where all ask
        again and again, no one ever. A client that leaves leaves the line.

        Raises
        ------
        Busy
            At once where its turn would not come in time, and where it has not come.
        """
        most, ahead = self.settings.chat_seconds, self.line.until_turn()
        if ahead > most:
            raise Busy(f"{ahead:.0f} s of questions and jobs are ahead of it, more than the {most:.0f} s that it may wait", ahead - most)
        loop, has_begun = asyncio.get_running_loop(), asyncio.Event()

        def begin() -> Any:
            loop.call_soon_threadsafe(has_begun.set)
            return work()

        waiting = self.line.put(begin, CHAT)
        try:
            await asyncio.wait_for(has_begun.wait(), most)
            return await asyncio.wrap_future(waiting)
        except TimeoutError:
            raise Busy(f"its turn did not come within {most:.0f} s", self.line.until_turn()) from None
        finally:
            waiting.cancel()

    def tidy(self) -> None:
        """Remove what is older than is kept."""
        before = time.time() - self.settings.kept_hours * HOUR
        jobs = self.jobs.remove_older(before)
        used = self.jobs.files_in_use()
        gone = 0
        for uploads in [self.files(owner) for owner in self._owners()]:
            for each in uploads.list():
                if each.created < before and each.id not in used:
                    uploads.remove(each.id)
                    gone += 1
        if jobs or gone:
            log.info("removed what is old", extra={"jobs": jobs, "files": gone})


def routes(lifespan: Any = None, *, has_keys: bool = True) -> FastAPI:
    """The routes without what answers them: their OpenAPI document.

    Parameters
    ----------
    has_keys : whether API keys are needed
    """
    app = FastAPI(
        title="scmulan",
        version=__version__,
        description="A generative language model of single cells: OpenAI-compatible chat and completions, files, and jobs on cells.",
        lifespan=lifespan,
        docs_url=None,  # its page would load scripts of another site
        redoc_url=None,
        responses=errors(408, 413, 421, 500),
    )
    bearer = HTTPBearer(auto_error=False, description="An API key, as `scmulan key` makes one.")  # the guard looks at it before any route
    for router in (
        routes_openai.router, routes_files.router, routes_cells.router, routes_views.router, routes_page.router, routes_server.figures,
    ):  # fmt: skip
        if has_keys:
            app.include_router(router, responses=errors(401, 429), dependencies=[Depends(bearer)])
        else:
            app.include_router(router, responses=errors(429))
    app.include_router(routes_server.router)
    app.include_router(routes_page.page)
    return app


def make_app(server: Server) -> FastAPI:
    """The application; closes the server's line when it is shut down."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tidying = asyncio.create_task(_tidy_for_ever(server))
        yield
        tidying.cancel()
        server.jobs.park()
        await asyncio.to_thread(server.line.close)
        await asyncio.to_thread(server.beside.close)
        log.info("closed", extra={"parked": server.jobs.n_open})

    app = routes(lifespan, has_keys=bool(server.settings.keys))
    app.state.server = server
    app.add_exception_handler(ScmulanError, _said)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _fault)
    app.add_middleware(Guard, settings=server.settings, metrics=server.metrics)
    return app


async def _tidy_for_ever(server: Server) -> None:
    while True:
        try:
            await asyncio.to_thread(server.tidy)
        except Exception:
            log.exception("what is old could not be removed")
        await asyncio.sleep(HOUR)


STATUS: tuple[tuple[type[ScmulanError], int, str], ...] = (
    (UploadTooLarge, 413, "file_too_large"),
    (UploadsFull, 507, "storage_full"),
    (NoRoom, 507, "storage_full"),
    (UploadUnknown, 404, "not_found"),
    (TooManyJobs, 429, "too_many_jobs"),
    (JobError, 404, "not_found"),
    (EngineError, 503, "not_available"),
)


async def _said(_: Request, error: Exception) -> JSONResponse:
    """An error of scmulan's, in its own words."""
    status, kind = next(((status, kind) for one, status, kind in STATUS if isinstance(error, one)), (422, "invalid_request_error"))
    again = error.seconds if isinstance(error, Busy) else AGAIN
    headers = {"retry-after": str(max(1, round(again)))} if status in (429, 503) else None
    return JSONResponse(error_body(str(error), kind), status_code=status, headers=headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """What of a body is not as it should be: where, and what was needed; not what was sent."""
    assert isinstance(error, RequestValidationError)
    told = [f"{'.'.join(str(part) for part in each['loc'][1:]) or 'body'}: {each['msg']}" for each in error.errors()[:8]]
    return JSONResponse(error_body("; ".join(told), "invalid_request_error"), status_code=422)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:  # a framework names the methods of one of the routes of a path
        headers["allow"] = ", ".join(_methods(request))
    return JSONResponse(error_body(str(error.detail), "invalid_request_error"), status_code=error.status_code, headers=headers)


def _methods(request: Request) -> list[str]:
    """What a path may be asked with."""
    scopes = {method: {**request.scope, "method": method} for method in ("DELETE", "GET", "HEAD", "POST")}
    return [method for method, scope in scopes.items() if any(route.matches(scope)[0] == Match.FULL for route in request.app.routes)]


async def _fault(_: Request, error: Exception) -> JSONResponse:
    log.error("a fault of the server", exc_info=error)
    return JSONResponse(error_body("a fault of the server; it is in its log", "server_error"), status_code=500)
