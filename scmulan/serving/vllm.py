"""vLLM as a process of the gateway's: on loopback, behind a secret of its own, watched, and started again when it dies or falls silent."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from scmulan.engines.served import ENVIRONMENT, INSTEAD, MOST_WEIGHED, SPARE_ADAPTERS, highest_rank, logits_class
from scmulan.errors import EngineError

PATIENCE = 300.0
"""Seconds in which it must have started."""
SILENCE = 30.0
"""Seconds without an answer to a question after its health, after which it is killed."""
REFUSED = "LoRA module is correct"
"""What vLLM says of an adapter beside layers that it takes none of."""
LOOK = 1.0
MOST_WAIT = 60.0
log = logging.getLogger("scmulan.serving")


class VllmProcess:
    """vLLM's own server, kept running.

    Parameters
    ----------
    model : folder of the base
    adapters : folders by name
    settings : more arguments of its command line
    """

    def __init__(
        self,
        model: Path,
        name: str,
        adapters: Mapping[str, Path],
        *,
        context: int,
        dtype: str,
        rows: int = 64,
        settings: tuple[str, ...] = (),
        log_file: Path | None = None,
        on_restart: Callable[[], None] = lambda: None,
    ):
        self.port, self.key, self.log_file, self.on_restart = free_port(), secrets.token_urlsafe(32), log_file, on_restart
        self.command = [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(model), "--served-model-name", name, "--host", "127.0.0.1", "--port", str(self.port)),
            *("--dtype", dtype, "--max-model-len", str(context), "--max-num-seqs", str(rows)),
            *("--logits-processors", logits_class(), "--logprobs-mode", "processed_logprobs", "--max-logprobs", str(MOST_WEIGHED)),
            *("--no-async-scheduling", "--enable-prefix-caching", "--no-enable-log-requests"),
            *_lora(adapters),
            *settings,
        ]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.is_ready, self.restarts = False, 0
        self._is_closing = threading.Event()
        self._watch = threading.Thread(target=self._keep, name="vllm", daemon=True)

    def start(self) -> None:
        """Start it and wait until it answers; EngineError where it does not."""
        self._begin()
        self._watch.start()
        ends = time.monotonic() + PATIENCE
        while not self.is_ready:
            if self.restarts > 1 or time.monotonic() > ends:
                self.close()
                raise EngineError(f"vLLM did not start: {self._last_words()}")
            time.sleep(LOOK / 4)

    def close(self) -> None:
        """End it, kindly at first."""
        self._is_closing.set()
        if self.process is not None:
            _end(self.process)

    def _begin(self) -> None:
        env = {**ENVIRONMENT, "HF_HUB_OFFLINE": "1", **os.environ, "VLLM_API_KEY": self.key}
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(self.log_file.open("ab")) if self.log_file is not None else subprocess.DEVNULL
            leash = [sys.executable, "-m", "scmulan.serving.leash", *self.command]
            self.process = subprocess.Popen(leash, stdin=subprocess.PIPE, stdout=out, stderr=out, env=env, start_new_session=True)

    def _keep(self) -> None:
        """Look at it for ever; start it again, sooner at first, when it is gone or silent."""
        wait, heard = LOOK, time.monotonic()
        while not self._is_closing.wait(LOOK):
            assert self.process is not None
            is_heard = self.process.poll() is None and self._answers()
            if is_heard:
                self.is_ready, wait, heard = True, LOOK, time.monotonic()
                continue
            patience = SILENCE if self.is_ready else PATIENCE
            if self.process.poll() is None and time.monotonic() - heard < patience:
                continue
            self.is_ready = False
            self.restarts += 1
            log.warning("vLLM is started again", extra={"code": self.process.poll(), "restarts": self.restarts})
            _end(self.process)
            self.on_restart()
            if self._is_closing.wait(wait):
                return
            wait, heard = min(2 * wait, MOST_WAIT), time.monotonic()
            self._begin()

    def _answers(self) -> bool:
        request = urllib.request.Request(f"{self.url}/health", headers={"Authorization": f"Bearer {self.key}"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _last_words(self) -> str:
        if self.log_file is None or not self.log_file.is_file():
            return "it said nothing; start it by hand to see why"
        lines = self.log_file.read_text(errors="replace").strip().splitlines()
        told = [line for line in lines if "Error" in line] or lines
        last = told[-1][-300:] if told else "it said nothing"
        advice = f"; {INSTEAD}" if REFUSED in last else ""
        return f"{last} ({self.log_file}){advice}"


def _lora(adapters: Mapping[str, Path]) -> list[str]:
    """Arguments for adapters that answer in one batch."""
    if not adapters:
        return []
    rank = highest_rank(list(adapters.values()))
    modules = [f"{name}={folder.resolve()}" for name, folder in adapters.items()]
    return ["--enable-lora", "--max-loras", str(len(adapters) + SPARE_ADAPTERS), "--max-lora-rank", str(rank), "--lora-modules", *modules]


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started."""
    for sign, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its engine, where it died before it could end it
