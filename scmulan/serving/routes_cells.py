"""Jobs on cells: one typed route a task, their events as they come, and their results as h5ad and CSV."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse, StreamingResponse

from scmulan.errors import PromptError
from scmulan.serving import answers
from scmulan.serving.answers import errors
from scmulan.serving.asked import TASKS, Asked, Generate, JobAsked, OnFile
from scmulan.serving.asked_views import VIEWS, View
from scmulan.serving.jobs import DONE, Job

router = APIRouter()
JobId = Annotated[str, Path(pattern="^job-[0-9a-f]{24}$")]
ONE = errors(404, 422)
ALIVE = 15.0
"""Seconds after which a silent stream says that it still is one."""


def told(job: Job) -> answers.Job:
    """A job as plain data."""
    said = {name: value for name, value in asdict(job).items() if name != "owner"}
    files = {"h5ad": f"/v1/jobs/{job.id}/result.h5ad", "csv": f"/v1/jobs/{job.id}/result.csv"} if job.state == DONE else {}
    return cast(answers.Job, {"object": "job", **said, "results": files})


def check_rows(rows: Sequence[int] | None, n_cells: int, name: str = "rows") -> None:
    """PromptError where a number is no cell of a file, or stands twice."""
    if rows is not None and max(rows) >= n_cells:
        raise PromptError(f"{name}: {max(rows):,}, but the file has {n_cells:,} cells, numbered from 0")
    if rows is not None and len(set(rows)) < len(rows):
        raise PromptError(f"{name}: {len(rows):,} numbers, of which {len(set(rows)):,} differ; needed each cell once")


def _route(model: type[JobAsked]) -> Callable[..., Any]:
    async def add(request: Request, asked: JobAsked) -> answers.Job:
        server, owner = request.app.state.server, request.scope["owner"]
        if isinstance(asked, Asked):
            server.models.check(asked.model)
        if isinstance(asked, Generate) and asked.n > server.settings.most_written:
            raise PromptError(f"n is {asked.n:,}: this server writes at most {server.settings.most_written:,} cells a job; ask for several")
        if isinstance(asked, Generate):
            server.models.check_fields(asked.fields)
        said = asked.model_dump()
        for name in ("file_id", "perturbed_file_id"):
            if name in said:
                server.files(owner).get(said[name])
        if isinstance(asked, OnFile):
            check_rows(asked.rows, server.files(owner).get(asked.file_id).cells)
        if isinstance(asked, View):
            server.views.check(asked, owner)
        server.check_room(owner)
        return told(server.jobs.add(model.TASK, said, owner))

    add.__annotations__.update(request=Request, asked=model)
    add.__name__, add.__doc__ = model.TASK, model.__doc__
    return add


for _model in (*TASKS.values(), *VIEWS.values()):
    router.post(
        f"/v1/cells/{_model.TASK}", status_code=202, tags=["cells"], summary=(_model.__doc__ or "").splitlines()[0],
        responses=errors(400, 404, 422, 429, 507) if _model.ON_FILE or issubclass(_model, View) else errors(400, 422, 429, 507),
    )(_route(_model))  # fmt: skip


@router.get("/v1/jobs", tags=["jobs"], summary="Jobs of yours, newest first", responses=errors(422))
async def jobs(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> answers.Jobs:
    return {"object": "list", "data": [told(job) for job in request.app.state.server.jobs.of(request.scope["owner"], limit)]}


@router.get("/v1/jobs/{job_id}", tags=["jobs"], summary="One job", responses=ONE)
async def job(request: Request, job_id: JobId) -> answers.Job:
    return told(request.app.state.server.jobs.get(job_id, request.scope["owner"]))


@router.post("/v1/jobs/{job_id}/cancel", tags=["jobs"], summary="Cancel a job", responses=ONE)
async def cancel(request: Request, job_id: JobId) -> answers.Job:
    return told(request.app.state.server.jobs.cancel(job_id, request.scope["owner"]))


@router.delete("/v1/jobs/{job_id}", tags=["jobs"], summary="Cancel a job and remove all of it", responses=ONE)
async def remove(request: Request, job_id: JobId) -> answers.Deleted:
    request.app.state.server.jobs.remove(job_id, request.scope["owner"])
    return {"id": job_id, "object": "job", "deleted": True}


@router.get(
    "/v1/jobs/{job_id}/events", tags=["jobs"], summary="A job as it goes on, as server-sent events", response_class=StreamingResponse,
    responses={200: {"content": answers.EVENTS}, **ONE},
)  # fmt: skip
async def events(request: Request, job_id: JobId) -> StreamingResponse:
    """An event `job` at every change, the first at once; the stream ends with the job."""
    server, owner = request.app.state.server, request.scope["owner"]
    server.jobs.get(job_id, owner)
    return StreamingResponse(_events(server.jobs.events(job_id, owner)), media_type="text/event-stream")


async def _events(found: AsyncIterator[Job]) -> AsyncIterator[str]:
    following = asyncio.ensure_future(anext(found))
    try:
        while True:
            done, _ = await asyncio.wait([following], timeout=ALIVE)
            if not done:
                yield ": still at work\n\n"
                continue
            try:
                job = following.result()
            except StopAsyncIteration:
                return
            yield f"event: job\ndata: {json.dumps(told(job))}\n\n"
            following = asyncio.ensure_future(anext(found))
    finally:
        following.cancel()


@router.get(
    "/v1/jobs/{job_id}/result.{kind}", tags=["jobs"], summary="What came of a job", response_class=FileResponse,
    responses={200: {"content": answers.FILES}, **ONE},
)  # fmt: skip
async def result(request: Request, job_id: JobId, kind: Literal["h5ad", "csv", "json"]) -> FileResponse:
    jobs, owner = request.app.state.server.jobs, request.scope["owner"]
    path = jobs.result(job_id, owner, kind)
    return FileResponse(
        path,
        filename=f"{jobs.get(job_id, owner).task}.{kind}",
        media_type={"csv": "text/csv", "json": "application/json"}.get(kind, "application/x-hdf5"),
    )
