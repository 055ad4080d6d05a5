"""A gateway that listens on loopback, as clients see it, and what is asked of it in more than one test module."""

from __future__ import annotations

import contextlib
import threading
import time

from conftest import kind_cells

from scmulan.serving.start import listener


@contextlib.contextmanager
def listening(server):
    """A server on a free port; its address."""
    run = listener(server)
    thread = threading.Thread(target=run.run, daemon=True)
    thread.start()
    while not run.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{run.servers[0].sockets[0].getsockname()[1]}"
    finally:
        run.should_exit = True
        thread.join(30)


def h5ad(folder, n_cells=6, **how) -> bytes:
    """A file of made-up cells, as it is uploaded."""
    path = folder / "cells.h5ad"
    kind_cells(("B cell", "natural killer cell"), n_cells, **how).write_h5ad(path)
    return path.read_bytes()


def uploaded(client, content, name="cells.h5ad") -> str:
    """The id of a file that was taken."""
    answer = client.post("/v1/files", files={"file": (name, content)})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def ended(client, job, *, seconds=300.0):
    """A job when it has ended."""
    assert job.status_code == 202, job.text
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        said = client.get(f"/v1/jobs/{job.json()['id']}").json()
        if said["state"] in ("done", "failed", "cancelled"):
            return said
        time.sleep(0.05)
    raise AssertionError(said)
