"""Whether a server runs and can answer, and its figures."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from scmulan import __version__
from scmulan.serving import answers

router, figures = APIRouter(tags=["server"]), APIRouter(tags=["server"])
"""What needs no key, and what does."""


@router.get("/health", summary="Whether the process runs")
async def health(request: Request) -> answers.Health:
    return {"status": "ok", "version": __version__, "seconds": round(time.time() - request.app.state.server.started, 1)}


NOT_NOW: answers.Responses = {503: {"model": answers.Ready, "description": "Not now"}}


@router.get("/ready", summary="Whether questions can be answered now", response_model=answers.Ready, responses=NOT_NOW)
async def ready(request: Request) -> JSONResponse:
    server = request.app.state.server
    is_ready = server.is_ready()
    return JSONResponse({"ready": is_ready, "models": list(server.models)}, status_code=200 if is_ready else 503)


@figures.get("/metrics", summary="Figures for Prometheus", response_class=Response, responses={200: {"content": answers.FIGURES}})
async def metrics(request: Request) -> Response:
    return Response(request.app.state.server.metrics.text(), media_type="text/plain; version=0.0.4")
