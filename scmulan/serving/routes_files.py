"""Uploaded files, in the form of OpenAI's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, File, Form, Path, Request, UploadFile

from scmulan.serving import answers
from scmulan.serving.answers import errors
from scmulan.serving.uploads import FILE_ID, Upload

router = APIRouter(prefix="/v1/files", tags=["files"])
FileId = Annotated[str, Path(pattern=f"^{FILE_ID}$")]
CHUNK = 2**20


def told(upload: Upload) -> answers.File:
    """A file as plain data."""
    return {
        "id": upload.id,
        "object": "file",
        "bytes": upload.bytes,
        "created_at": int(upload.created),
        "filename": upload.name,
        "purpose": "cells",
        "status": "processed",
        "cells": upload.cells,
        "genes": upload.genes,
        "sha256": upload.sha256,
        "verdict": upload.verdict,
        "obs": upload.obs,
    }


async def _chunks(file: UploadFile) -> AsyncIterator[bytes]:
    while part := await file.read(CHUNK):
        yield part


@router.post("", summary="Upload a file of cells (.h5ad)", responses=errors(400, 422, 507))
async def upload(
    request: Request,
    file: Annotated[UploadFile, File(description="An .h5ad file.")],
    purpose: Annotated[str, Form(max_length=64)] = "cells",
) -> answers.File:
    """Read in a process of its own with limits, and kept as clean counts; `verdict` is what `scmulan check` says of it."""
    server, owner = request.app.state.server, request.scope["owner"]
    server.check_room(owner)
    return told(await server.files(owner).add(file.filename or "cells.h5ad", _chunks(file), lambda: server.check_room(owner)))


@router.get("", summary="Files of yours")
async def files(request: Request) -> answers.Files:
    found = request.app.state.server.files(request.scope["owner"]).list()
    return {"object": "list", "data": [told(each) for each in sorted(found, key=lambda each: -each.created)]}


@router.get("/{file_id}", summary="One file", responses=errors(404, 422))
async def file(request: Request, file_id: FileId) -> answers.File:
    return told(request.app.state.server.files(request.scope["owner"]).get(file_id))


@router.delete("/{file_id}", summary="Remove a file", responses=errors(404, 422))
async def remove(request: Request, file_id: FileId) -> answers.Deleted:
    request.app.state.server.files(request.scope["owner"]).remove(file_id)
    return {"id": file_id, "object": "file", "deleted": True}
