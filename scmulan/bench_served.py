"""A server that is measured: a process of its own, as `scmulan serve` starts it, which can be killed, started again and paused."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from scmulan.errors import EngineError
from scmulan.serving.vllm import free_port

MOST_SECONDS = 600.0


class Served:
    """A server on a free port of loopback, ready when it is made; what it says goes to ``server.log`` of a folder."""

    def __init__(self, model: str, folder: Path, *arguments: str):
        port = free_port()
        self.url, self.log = f"http://127.0.0.1:{port}", folder / "server.log"
        self.command = [
            *(sys.executable, "-m", "scmulan", "serve", model, "--port", str(port), "--folder", str(folder / "server")),
            *arguments,
        ]
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> float:
        """Start it; seconds until it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, start_new_session=True)
        return self.wait()

    def wait(self) -> float:
        """Seconds until it says that it is ready; EngineError where it ends or takes too long."""
        began = time.perf_counter()
        while time.perf_counter() - began < MOST_SECONDS:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/ready", timeout=5).status_code == 200:
                    return time.perf_counter() - began
            if self.process.poll() is not None:
                raise EngineError(f"the server ended with {self.process.returncode}: {self.log.read_text()[-600:]}")
            time.sleep(0.25)
        raise EngineError(f"the server is not ready after {MOST_SECONDS:.0f} s")

    def processes(self) -> list[psutil.Process]:
        """The server and all that it started."""
        whole = psutil.Process(self.process.pid)
        return [whole, *whole.children(recursive=True)]

    def kill(self) -> None:
        """Kill the server, not what it started."""
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing of it runs meanwhile."""
        stopped = self.processes()
        for each in stopped:
            each.suspend()
        try:
            yield
        finally:
            for each in stopped:
                each.resume()

    def end(self) -> None:
        """End it in good order."""
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(60)
