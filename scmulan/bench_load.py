"""A server under load: many clients for minutes, chat, annotation and generation mixed, base and adapters; its vLLM and itself killed.

The server is a process of its own, as `scmulan serve` starts it. A client thinks a while between two questions, waits as long as it is
told to where it is told to (429, 503), and follows its jobs to their ends. What is counted as an error of the server: an answer of 500 or
above that does not say when to come again, a connection that breaks while nobody has killed anything, a job that did not end well.
"""

from __future__ import annotations

import io
import os
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import psutil

from scmulan.bench_screen import held_out
from scmulan.bench_served import Served
from scmulan.bench_serving import BRIEF
from scmulan.cells_writing import write_h5ad
from scmulan.finetune import finetune
from scmulan.model import load_checkpoint
from scmulan.serving.keys import hash_of_key

Say = Callable[[str], None]
SECONDS = 600
CLIENTS = 64
KEYS = 8
THINKS = 20.0
"""Mean seconds between an answer and the next question of a client."""
CELLS = 12
KINDS = {"chat": 0.3, "ask for cells": 0.2, "annotate": 0.3, "generate": 0.2}
QUESTIONS = ("What kinds of cells are these?", "Which organ are these cells from?", "How many are B cells?", "What is known of each?")
VLLM_ENDS, SERVER_ENDS = 0.35, 0.65
"""When vLLM and the server are killed, as shares of the time."""
DRAIN = 600.0
"""Seconds that jobs may take to end after the last question."""


@dataclass
class Told:
    """What the clients met."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: Counter[str] = field(default_factory=Counter)
    jobs: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    gave_up: int = 0
    """Clients that were told to come again, and again, for ``DRAIN`` seconds."""
    lock: threading.Lock = field(default_factory=threading.Lock)


def load(*, model: str, seed: int, n: int | None, only: Any, say: Say, **_: Any) -> dict[str, Any]:
    """``n`` (600) seconds of load on a server with two adapters.

    Parameters
    ----------
    only : the engine, ``vllm`` (where not given) or ``transformers``
    """
    engine, seconds = (list(only) or ["vllm"])[0], float(n or SECONDS)
    with TemporaryDirectory() as name:
        folder = Path(name)
        cells = held_out("zheng_pbmc_facs")
        tuned = finetune(cells[:60].copy(), folder / "tuned", base=load_checkpoint(model).folder, say=lambda _: None, **BRIEF)
        write_h5ad(cells[:CELLS].copy(), folder / "cells.h5ad")
        keys = [f"scmulan-load-{number}" for number in range(KEYS)]
        (folder / "keys").write_text("\n".join(map(hash_of_key, keys)))
        run = Run(model, engine, folder, {"one": tuned, "two": tuned}, keys, seed, say)
        return run.measure(seconds)


class Run:
    """One server and its clients."""

    def __init__(self, model: str, engine: str, folder: Path, adapters: Mapping[str, Path], keys: list[str], seed: int, say: Say):
        self.engine, self.folder, self.keys, self.seed, self.say = engine, folder, keys, seed, say
        named = [part for name, where in adapters.items() for part in ("--adapter", f"{name}={where}")]
        rules = ["--engine", engine, "--key-file", str(folder / "keys"), "--per-minute", "100000"]
        self.server = Served(model, folder, *rules, *named)
        self.models = ["demo" if model == "demo" else Path(model).resolve().name, *adapters]
        self.told, self.is_over, self.is_down = Told(), threading.Event(), threading.Event()
        self.files: dict[str, str] = {}
        self.memory: list[tuple[float, int]] = []

    def measure(self, seconds: float) -> dict[str, Any]:
        """The load, the two kills, and what came of all jobs."""
        for key in self.keys:
            self.files[key] = self.upload(key)
        clients = [threading.Thread(target=self.client, args=(number,), daemon=True) for number in range(CLIENTS)]
        watcher = threading.Thread(target=self.watch, daemon=True)
        began = time.perf_counter()
        for each in (watcher, *clients):
            each.start()
        kills = {}
        if self.engine == "vllm":
            time.sleep(max(0.0, VLLM_ENDS * seconds - (time.perf_counter() - began)))
            kills["vllm_killed_seconds_until_ready"] = round(self.kill_vllm(), 1)
            self.say(f"vLLM was killed: {kills}")
        time.sleep(max(0.0, SERVER_ENDS * seconds - (time.perf_counter() - began)))
        kills["server_killed_seconds_until_ready"] = round(self.kill_server(), 1)
        self.say(f"the server was killed: {kills}")
        time.sleep(max(0.0, seconds - (time.perf_counter() - began)))
        self.is_over.set()
        for each in clients:
            each.join(DRAIN)
        found = self.summary(time.perf_counter() - began) | kills
        self.server.end()
        return found

    def kill_vllm(self) -> float:
        """Kill vLLM; seconds until the server can answer again."""
        for each in self.server.processes()[1:]:
            if any("vllm" in part for part in each.cmdline()):
                each.kill()
        while httpx.get(f"{self.server.url}/ready", timeout=30).status_code == 200:
            time.sleep(0.1)
        return self.server.wait()

    def kill_server(self) -> float:
        """Kill the server and start it again; seconds until it can answer."""
        self.is_down.set()
        self.server.kill()
        seconds = self.server.start()
        self.is_down.clear()
        return seconds

    def upload(self, key: str) -> str:
        """Send the cells; their id."""
        content = (self.folder / "cells.h5ad").read_bytes()
        files, form = {"file": ("cells.h5ad", io.BytesIO(content))}, {"purpose": "user_data"}
        said = httpx.post(f"{self.server.url}/v1/files", headers=_headers(key), files=files, data=form, timeout=120)
        said.raise_for_status()
        return str(said.json()["id"])

    def client(self, number: int) -> None:
        """Ask, wait for the answer, think, ask again."""
        rng, key = np.random.default_rng([self.seed, number]), self.keys[number % KEYS]
        with httpx.Client(base_url=self.server.url, headers=_headers(key), timeout=300) as http:
            self.is_over.wait(rng.uniform(0, THINKS))
            while not self.is_over.is_set():
                kind, model = str(rng.choice(list(KINDS), p=list(KINDS.values()))), str(rng.choice(self.models))
                began = time.perf_counter()
                try:
                    if self.ask(http, kind, model, rng, self.files[key]):
                        with self.told.lock:
                            self.told.seconds[kind].append(time.perf_counter() - began)
                except Exception as error:  # noqa: BLE001  a client that met what it should not goes on, and it is counted
                    self.wrong(f"{kind}: {type(error).__name__}: {error}")
                self.is_over.wait(rng.exponential(THINKS))

    def ask(self, http: httpx.Client, kind: str, model: str, rng: np.random.Generator, file: str) -> bool:
        """One question to its answer; whether it came."""
        if kind in ("annotate", "generate"):
            given: dict[str, Any] = {"file_id": file} if kind == "annotate" else {"fields": {"organ": "blood"}, "n": 2, "depth": 400}
            said = self.send(http, "POST", f"/v1/cells/{kind}", {**given, "model": model})
            return said is not None and self.follow(http, str(said.json()["id"]))
        question = str(rng.choice(QUESTIONS)) if kind == "chat" else "Give me two B cells from blood."
        extra: dict[str, Any] = {"scmulan": {"file_id": file}} if kind == "chat" else {}
        said = self.send(
            http, "POST", "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": question}], **extra}
        )
        return said is not None

    def follow(self, http: httpx.Client, job: str) -> bool:
        """A job to its end, which has to be a good one."""
        with self.told.lock:
            self.told.jobs[job] = "open"
        began = time.perf_counter()
        while time.perf_counter() - began < DRAIN:
            said = self.send(http, "GET", f"/v1/jobs/{job}")
            state = said.json()["state"] if said is not None else "unknown"
            with self.told.lock:
                self.told.jobs[job] = state
            if state in ("done", "failed", "cancelled"):
                return bool(state == "done")
            time.sleep(1.0)
        return False

    def send(self, http: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response | None:
        """An answer that is no order to wait; None where there was none that would do, and why is counted."""
        began = time.perf_counter()
        while time.perf_counter() - began < DRAIN:
            was_down = self.is_down.is_set()
            try:
                said = http.request(method, path, json=body)
            except httpx.TransportError as error:
                if not (was_down or self.is_down.is_set()):
                    self.wrong(f"{path}: {type(error).__name__} {error}")
                    return None
                time.sleep(2.0)
                continue
            with self.told.lock:
                self.told.statuses[str(said.status_code)] += 1
            if said.status_code in (429, 503) and "retry-after" in said.headers:
                time.sleep(float(said.headers["retry-after"]))
                continue
            if said.status_code >= 400:
                self.wrong(f"{path}: {said.status_code} {said.text[:200]}")
                return None
            return said
        with self.told.lock:
            self.told.gave_up += 1
        return None

    def wrong(self, what: str) -> None:
        with self.told.lock:
            self.told.errors.append(what)
        self.say(what)

    def watch(self) -> None:
        """Memory of the server and all that it started, every few seconds."""
        began = time.perf_counter()
        while not self.is_over.wait(5.0):
            try:
                self.memory.append((time.perf_counter() - began, sum(map(_unshared, self.server.processes()))))
            except psutil.Error:
                continue

    def summary(self, seconds: float) -> dict[str, Any]:
        """Figures of the whole run."""
        by_time = [n for at, n in self.memory if at > 60]
        parts = [by_time[: len(by_time) // 4], by_time[-(len(by_time) // 4) :]]
        found = {
            "engine": self.engine, "clients": CLIENTS, "seconds": round(seconds), "threads": os.cpu_count(),
            "answered": {kind: len(each) for kind, each in self.told.seconds.items()},
            "seconds_p50_p95_p99": {kind: _quantiles(each) for kind, each in self.told.seconds.items()},
            "statuses": dict(self.told.statuses), "jobs": dict(Counter(self.told.jobs.values())),
            "gave_up": self.told.gave_up, "errors": len(self.told.errors), "first_errors": self.told.errors[:10],
            "memory_mb_first_and_last_quarter": [round(statistics.median(part)) for part in parts if part],
        }  # fmt: skip
        self.say(str(found))
        return found


def _quantiles(seconds: list[float]) -> list[float]:
    """Median, 95th and 99th hundredth."""
    return [round(float(np.quantile(seconds, share)), 2) for share in (0.5, 0.95, 0.99)]


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _unshared(process: psutil.Process) -> int:
    """Megabytes of a process that no other holds."""
    return int(process.memory_full_info().uss / 2**20)
