"""What a page shows of files and jobs beside their results: columns, changes of genes, simple answers, the Python that gives the same."""

from __future__ import annotations

import asyncio
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Request

from scmulan.cells_writing import read_back
from scmulan.errors import CellDataError, PromptError
from scmulan.perturbations import perturbation_of
from scmulan.serving import answers, changes_shown, reproduced
from scmulan.serving.answers import errors
from scmulan.serving.asked import TASKS, Label
from scmulan.serving.asked_views import Compare
from scmulan.serving.columns import Values
from scmulan.serving.jobs import Job
from scmulan.serving.pieces_shown import values_of_job
from scmulan.serving.routes_cells import ONE, JobId
from scmulan.serving.routes_files import FileId

router = APIRouter(prefix="/v1", tags=["views"])
Column = Annotated[Label | None, Query(description="A column of obs.")]
Gene = Annotated[Label | None, Query(description="A gene by any of its names.")]


@router.get("/files/{file_id}/values", summary="A column or a gene of the cells of a file", responses=errors(404, 422))
async def file_values(request: Request, file_id: FileId, obs: Column = None, gene: Gene = None) -> Values:
    """One value a cell; genes as log1p of counts per 10,000."""
    server, owner = request.app.state.server, request.scope["owner"]
    return await asyncio.to_thread(server.views.values, owner, file_id, obs=obs, gene=gene)


@router.get("/jobs/{job_id}/values", summary="A column of the cells of a job, also while it runs", responses=ONE)
async def job_values(
    request: Request,
    job_id: JobId,
    obs: Annotated[Label, Query(description="A column of obs.")],
    since: Annotated[int, Query(ge=0, le=10**6)] = 0,
) -> Values:
    """Of the cells of the pieces from `since` on that are done; `rows` says which cells of the file they are."""
    server, owner = request.app.state.server, request.scope["owner"]

    def read() -> Values:
        job: Job = server.jobs.get(job_id, owner)
        rows = server.work.rows(job) if "file_id" in job.asked else np.arange(job.cells)
        in_pieces = TASKS[job.task].IN_PIECES if job.task in TASKS else 0
        try:
            return values_of_job(job, server.jobs.path(job, ""), rows, obs, since, in_pieces)
        except CellDataError:
            if server.jobs.get(job_id, owner).state == job.state:
                raise
            return values_of_job(server.jobs.get(job_id, owner), server.jobs.path(job, ""), rows, obs, since, in_pieces)

    return await asyncio.to_thread(read)


@router.get("/jobs/{job_id}/genes", summary="What a perturbation changes, gene by gene", responses=ONE)
async def genes(request: Request, job_id: JobId) -> answers.Changes:
    server, owner = request.app.state.server, request.scope["owner"]
    path = server.jobs.result(job_id, owner, "h5ad")
    return {"genes": await asyncio.to_thread(lambda: changes_shown.changes(read_back(path)))}


@router.get("/jobs/{job_id}/baselines", summary="What simple ways say of a perturbation", responses=ONE)
async def baselines(request: Request, job_id: JobId) -> answers.Baselines:
    """From the training cells of the embedded screen; a model of your own has none here."""
    server = request.app.state.server
    job: Job = server.jobs.get(job_id, request.scope["owner"])
    if job.task != "perturb":
        raise PromptError(f"job {job.task}: needed one of the task perturb")
    if server.models.name != "demo":
        return {"ways": [], "why": "The cells that this model learnt perturbations from are not at hand; only the embedded model's are."}
    model = server.models.model
    label = perturbation_of(job.asked["perturbation"], model.seen, model.opened.table).label
    return await asyncio.to_thread(lambda: changes_shown.baselines(label))


@router.get("/jobs/{job_id}/reproduce", summary="The Python and the command that give the same", responses=ONE)
async def reproduce(request: Request, job_id: JobId) -> answers.Reproduced:
    server, owner = request.app.state.server, request.scope["owner"]
    job: Job = server.jobs.get(job_id, owner)
    if job.task == Compare.TASK:
        compared = Compare.model_validate(job.asked)
        return reproduced.of_comparison(compared, (server.name_of(compared.a, owner), server.name_of(compared.b, owner)))
    setting = server.setting(job.asked.get("model"), owner, job.asked.get("file_id"), job.asked.get("perturbed_file_id"))
    found = reproduced.of_job(job.task, job.asked, setting)
    if found is None:
        raise PromptError(f"job {job.task}: it has no Python of its own; needed one of {', '.join([*TASKS, Compare.TASK])}")
    return found
