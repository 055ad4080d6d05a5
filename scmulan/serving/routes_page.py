"""The page and what it begins with: its files, the models and labels there are, embedded data opened at a click."""

from __future__ import annotations

import functools
import gzip
import mimetypes
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from fastapi.responses import FileResponse, HTMLResponse, Response

from scmulan import __version__, assets
from scmulan.errors import CheckpointError
from scmulan.serving import answers, chat, examples
from scmulan.serving.answers import errors
from scmulan.serving.asked import MOST_ROWS, Label
from scmulan.serving.routes_files import told
from scmulan.serving.routes_openai import model_told

router = APIRouter(prefix="/v1", tags=["page"])
page = APIRouter(include_in_schema=False)
"""What needs no key."""
STYLE = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""What the page may do: plots set styles of their own; scripts are the server's alone."""
NONE = "<!doctype html><title>scmulan</title><p>The files of the page are not in this installation; the routes stand in /openapi.json."
KEPT = {"cache-control": "public, max-age=31536000, immutable"}
"""Names of assets change with what is in them."""


@functools.cache
def page_files() -> dict[str, Path]:
    """Files of the page by their names, for a client's path opens none."""
    try:
        folder = assets.path("serving", "web", "dist")
    except CheckpointError:
        return {}
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


@page.get("/")
async def index() -> Response:
    found = page_files().get("index.html")
    headers = {"content-security-policy": STYLE, "cache-control": "no-cache"}
    return FileResponse(found, media_type="text/html", headers=headers) if found else HTMLResponse(NONE, status_code=404)


@functools.lru_cache(maxsize=256)
def _packed(path: Path, changed: float) -> bytes:
    """A file of the page as it is sent, for it is sent often."""
    return gzip.compress(path.read_bytes(), 6)


@page.get("/assets/{name:path}")
async def asset(request: Request, name: str) -> Response:
    found = page_files().get(f"assets/{name}")
    if found is None:
        return Response("no such file of the page", status_code=404, media_type="text/plain")
    media_type = mimetypes.guess_type(found.name)[0] or "application/octet-stream"
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return FileResponse(found, media_type=media_type, headers=KEPT)
    headers = KEPT | {"content-encoding": "gzip", "vary": "accept-encoding"}
    return Response(_packed(found, found.stat().st_mtime), media_type=media_type, headers=headers)


@router.get("/about", summary="What there is to be asked")
async def about(request: Request) -> answers.About:
    """Models, embedded data, the labels that the model saw by field, the perturbations that it learnt, and limits."""
    server = request.app.state.server
    seen, settings = server.models.model.seen, server.settings
    fields = {name: list(seen.values(name)) for name in server.models.model.prompts.fields}
    return {
        "version": __version__,
        "models": [model_told(server, name) for name in server.models],
        "examples": [
            {"name": one.name, "title": one.title, "about": one.about, "cells": one.cells, "questions": list(one.questions)}
            for one in examples.EXAMPLES
        ],
        "fields": {name: values for name, values in fields.items() if values},
        "perturbations": fields.get("perturbation", []),
        "limits": {
            "file_bytes": settings.uploads.bytes,
            "file_cells": settings.uploads.cells,
            "written": settings.most_written,
            "question_characters": settings.most_question,
            "chat_cells": chat.MOST_CELLS,
            "rows": MOST_ROWS,
        },
    }


@router.post("/examples/{name}", summary="Embedded data, opened as a file of yours", responses=errors(422, 507))
async def open_example(request: Request, name: Annotated[Label, InPath()]) -> answers.File:
    server, owner = request.app.state.server, request.scope["owner"]
    path = examples.example(name).path
    server.check_room(owner)
    return told(await server.files(owner).add(path.name, examples.chunks(path), lambda: server.check_room(owner)))
