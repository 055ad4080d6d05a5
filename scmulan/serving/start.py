"""A server brought up: its models on an engine, its routes, and the process of uvicorn that listens."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import uvicorn

from scmulan.engines.base import Engine
from scmulan.engines.opening import check_engine
from scmulan.engines.transformers import best_dtype
from scmulan.model import load_checkpoint, model_folder
from scmulan.serving import maps
from scmulan.serving.app import Server, make_app
from scmulan.serving.logs import log_to_stderr
from scmulan.serving.metrics import Metrics
from scmulan.serving.models import Models
from scmulan.serving.patience import Patient
from scmulan.serving.settings import ServingError, Settings

RESTARTING = 30
"""How often a sentence is asked for while vLLM starts again: some minutes."""
log = logging.getLogger("scmulan.serving")


@contextlib.contextmanager
def serving(
    model: str, adapters: Mapping[str, str], settings: Settings, *, engine: str = "transformers", device: str = "cpu"
) -> Iterator[Server]:
    """A server whose models can answer; what it started is ended after it.

    Parameters
    ----------
    engine : ``transformers``, ``vllm``, or the URL of a vLLM server that has the same model
    """
    check_engine(engine)
    folder, metrics = settings.folder, Metrics()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = "demo" if model == "demo" else Path(model).resolve().name
    with contextlib.ExitStack() as stack:
        is_ready = lambda: True  # noqa: E731
        found: Engine | str = engine
        if engine == "vllm":
            from scmulan.engines.remote import RemoteEngine
            from scmulan.serving.vllm import VllmProcess

            checkpoint = load_checkpoint(model)
            kept = VllmProcess(
                model_folder(model), name, {called: Path(where) for called, where in adapters.items()}, context=checkpoint.context,
                dtype=str(best_dtype(device)).removeprefix("torch."), log_file=folder / "vllm.log", on_restart=metrics.restarts.inc,
            )  # fmt: skip
            stack.callback(kept.close)
            kept.start()
            found = RemoteEngine(
                checkpoint, kept.url, model=name, key=kept.key, device=device, tries=RESTARTING, scores_here=device == "cpu"
            )
            is_ready = lambda: kept.is_ready  # noqa: E731
        yield Server(settings, Models(model, name, adapters, found, device), metrics, is_ready=is_ready)


def listener(server: Server) -> uvicorn.Server:
    """What listens for a server: careful of slow clients, long headers and names."""
    settings = server.settings
    config = uvicorn.Config(
        make_app(server), host=settings.host, port=settings.port, http=Patient, log_config=None, access_log=False, server_header=False,
        timeout_keep_alive=15, timeout_graceful_shutdown=30, h11_max_incomplete_event_size=64 * 1024, limit_concurrency=512,
    )  # fmt: skip
    return uvicorn.Server(config)


def serve(model: str, adapters: Mapping[str, str], settings: Settings, *, engine: str = "transformers", device: str = "cpu") -> None:
    """Listen until told to end; what is being answered then is answered, and jobs are parked."""
    log_to_stderr()
    listening = _listening(settings)
    # uvicorn raises the signal that ended it once more, which would end the process before what it started
    signal.signal(signal.SIGTERM, lambda *_: None)
    with contextlib.suppress(KeyboardInterrupt), serving(model, adapters, settings, engine=engine, device=device) as server:
        threading.Thread(target=maps.warm, daemon=True).start()
        print(f"scmulan: open http://{settings.host}:{settings.port} in a browser; Ctrl-C ends it", flush=True)
        log.info("listens", extra={"host": settings.host, "port": settings.port, "models": list(server.models), "engine": engine})
        listener(server).run(sockets=[listening])


def _listening(settings: Settings) -> socket.socket:
    """The socket to listen on, taken before a model is opened; ServingError where it is another's, or there is no place for files."""
    if settings.folder.exists() and not settings.folder.is_dir():
        raise ServingError(f"--folder {settings.folder}: a file; needed a folder for uploads and jobs")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((settings.host, settings.port))
    except OSError as error:
        found.close()
        reason = error.strerror.lower() if error.strerror else error
        raise ServingError(f"{settings.host}:{settings.port}: {reason}; is another server there? --port takes another one") from None
    return found
