"""Where the work of a corpus runs: in this process, in several, or on a Ray cluster; the same function and tasks for each.

A task that fails for the data's sake comes back as a `Failure`; the others go on. What stops everything (a full disk, a worker that
died) is raised.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from scmulan.errors import CorpusError, EngineError, RecipeError, ScmulanError, nearest

Task = TypeVar("Task")
Result = TypeVar("Result")
ENGINES = ("processes", "ray")
AHEAD = 4
"""Tasks in the queue for each worker."""
RETRIES = 8
"""How often Ray gives a task of a lost node to another."""


@dataclass(frozen=True)
class Failure:
    """Why a task could not be done."""

    message: str


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many workers, and where.

    Attributes
    ----------
    engine : ``processes`` or ``ray``
    count : processes; 1 is this one
    address : of a Ray cluster (``auto``, ``ray://host:10001``); when not given, one found on this machine, else one started here
    """

    engine: str = "processes"
    count: int = 1
    address: str | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise RecipeError(f"engine {self.engine!r}: needed one of {', '.join(ENGINES)}{nearest(self.engine, ENGINES)}")

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Result | Failure]]:
        """Results with their tasks, as they are done."""
        if self.engine == "ray":
            yield from _on_ray(function, tasks, self.address)
        elif self.count == 1 or len(tasks) < 2:
            for task in tasks:
                yield task, _attempt(function, task)
        else:
            yield from _in_processes(function, tasks, min(self.count, len(tasks)))


def default_count(n_cells: int) -> int:
    """One process for few cells, else one for each processor core that this process may use."""
    return 1 if n_cells < 50_000 else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def told_when_full() -> Iterator[None]:
    """An error of a full disk becomes a CorpusError that says what is kept and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise CorpusError(
                f"disk full ({error}); the shards that are finished are kept: free some space and run the same command again"
            ) from None
        raise


def _attempt(function: Callable[[Task], Result], task: Task) -> Result | Failure:
    try:
        with told_when_full():
            return function(task)
    except CorpusError:
        raise
    except ScmulanError as error:
        return Failure(str(error))


def _in_processes(function: Callable[[Task], Result], tasks: Sequence[Task], count: int) -> Iterator[tuple[Task, Result | Failure]]:
    # spawned, not forked: threads of numpy, HDF5 and zarr do not outlive a fork
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = list(reversed(tasks))
        running: dict[Future[Result | Failure], Task] = {}
        try:
            while waiting or running:
                while waiting and len(running) < AHEAD * count:
                    task = waiting.pop()
                    running[pool.submit(_attempt, function, task)] = task
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool:
            raise CorpusError(
                "a worker process died, of too little memory perhaps; the shards that are finished are kept: "
                "run the same command again, with fewer --workers"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _on_ray(function: Callable[[Task], Result], tasks: Sequence[Task], address: str | None) -> Iterator[tuple[Task, Result | Failure]]:
    ray = import_ray()
    began_here = not ray.is_initialized()
    if began_here:
        ray.init(address=address, log_to_driver=False)
    try:
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_attempt)
        most = AHEAD * max(int(ray.cluster_resources().get("CPU", 1)), 1)
        waiting = list(reversed(tasks))
        running: dict[Any, Task] = {}
        while waiting or running:
            while waiting and len(running) < most:
                task = waiting.pop()
                running[remote.remote(function, task)] = task
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause if isinstance(error.cause, ScmulanError | OSError) else EngineError(f"on Ray: {error}") from None
                except ray.exceptions.RayError as error:
                    raise EngineError(f"on Ray: {error}; the shards that are finished are kept: run the same command again") from None
                yield running.pop(reference), result
    finally:
        if began_here:
            ray.shutdown()


def import_ray() -> Any:
    """The library; EngineError when it is not installed."""
    try:
        import ray
    except ImportError:
        raise EngineError("the engine ray needs the extra `cluster`: pip install 'scmulan[cluster]'") from None
    return ray
