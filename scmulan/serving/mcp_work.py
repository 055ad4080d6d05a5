"""One model that does one task at a time in a thread of its own, tells how far it is, and stops at its next cell when nobody waits.

The event loop stays free, so that a server answers while a task runs. What scmulan warns of meanwhile comes with the result. Limit: a task
is told to stop by way of what it calls for each cell, so that what is done of one cell, or of cells written side by side, is finished.
"""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from scmulan.cells import AnnData
from scmulan.errors import PromptError, ScmulanError, ScmulanWarning, nearest
from scmulan.serving.mcp_files import Folder
from scmulan.serving.warned import heard
from scmulan.tasks import Model

EVERY = 0.25
"""Seconds between two looks at how far a task is."""
Report = Callable[[float, float | None, str], Awaitable[None]]
log = logging.getLogger("scmulan.serving.mcp")


class Stopped(Exception):
    """Nobody waits for the task any more."""


class Ticks:
    """How far a task is; called with cells done, in the task's thread."""

    def __init__(self) -> None:
        self.done, self.total, self.told = 0, 0, 0
        self.stop = threading.Event()

    def __call__(self, n: int = 0) -> None:
        if self.stop.is_set():
            raise Stopped
        self.done += n

    @property
    def of(self) -> int | None:
        """How many there will be, as far as it is known."""
        return self.total if self.total >= self.done > 0 else None


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a tool works with: the model, the files that it may use, and whom it tells how far it is.

    Attributes
    ----------
    indexes : folders of indexes of reference cells, by name
    named : the files of cells that were read, as they were named
    """

    model: Model
    files: Folder
    indexes: Mapping[str, Path] = field(default_factory=dict)
    tick: Ticks = field(default_factory=Ticks)
    named: list[str] = field(default_factory=list)

    def cells(
        self, file: str, *, fields: Mapping[str, str] | None = None, organism: str | None = None, only: Mapping[str, str] | None = None
    ) -> AnnData:
        """Cells of a file of the folder; the task is told of as many."""
        self.named.append(file)
        adata = self.files.read(file, fields=fields, organism=organism, only=only)
        self.tick()
        self.tick.total = adata.n_obs
        return adata

    def to_write(self, n: int) -> int:
        """So many cells are to be written; PromptError where they are more than may be."""
        most = self.files.limits.written
        if n > most:
            raise PromptError(
                f"{n:,} cells to write; needed at most {most:,} (--most-written); ask for them in several calls with other seeds"
            )
        self.tick.total = n
        return n

    def index(self, name: str | None) -> Path | None:
        """The folder of an index; PromptError where there is none of the name."""
        if name is not None and name not in self.indexes:
            known = f"there is {', '.join(self.indexes)}" if self.indexes else "the server was started with none (--index NAME=DIR)"
            raise PromptError(f"index {name!r}: {known}{nearest(name, list(self.indexes))}")
        return self.indexes[name] if name is not None else None


@dataclass(frozen=True)
class Done:
    """What came of a task.

    Attributes
    ----------
    value : the result, where it was done
    refused : why it could not be done, in scmulan's words
    crash : an error that nobody foresaw
    """

    value: Any = None
    warnings: tuple[str, ...] = ()
    refused: str | None = None
    crash: Exception | None = None


class Workshop:
    """Does tasks, one at a time, with the adapter that each asks for."""

    def __init__(self, model: Model, files: Folder, indexes: Mapping[str, Path] | None = None):
        self.model, self.files, self.indexes = model, files, dict(indexes or {})
        self._lock = anyio.Lock()

    async def do(self, name: str, work: Callable[[Task], Any], report: Report, *, adapter: str | None = None) -> Done:
        """What comes of a task; it is told to stop when the caller is cancelled, and the next one begins when it has."""
        if self._lock.statistics().locked:
            await report(0, None, f"{name}: waits for the task before it")
        async with self._lock:
            task = Task(model=self.model, files=self.files, indexes=self.indexes)
            async with anyio.create_task_group() as watching:
                watching.start_soon(_watch, name, task.tick, report)
                done = await anyio.to_thread.run_sync(functools.partial(self._work, task, work, adapter))
                watching.cancel_scope.cancel()
            await anyio.lowlevel.checkpoint()  # where the caller was cancelled it ends here
            await _tell(name, task.tick, report)
            return done

    def _work(self, task: Task, work: Callable[[Task], Any], adapter: str | None) -> Done:
        """In the thread of the task: its result or error as a value, for a group of tasks would wrap what is raised in it."""
        with heard() as caught:
            value, refused, crash = None, None, None
            try:
                if self.model.adapter != adapter:
                    self.model.use(adapter)
                value = work(task)
            except ScmulanError as error:
                refused = self._inside(str(error), task)
            except OSError as error:
                refused = self._inside(f"{error.filename or 'the disk'}: {error.strerror or error}", task)
            except Exception as error:  # noqa: BLE001  it is raised again where it was asked for
                crash = error
        for each in caught:
            if not issubclass(each.category, ScmulanWarning):
                log.info("%s: %s", each.category.__name__, each.message)
        said = dict.fromkeys(self._inside(str(each.message), task) for each in caught if issubclass(each.category, ScmulanWarning))
        return Done(value, tuple(said), refused, crash)

    def _inside(self, text: str, task: Task) -> str:
        """A message that names files as the assistant does."""
        named = re.sub("^AnnData: ", f"{task.named[-1]}: ", text) if task.named else text
        return named.replace(f"{self.files.folder}/", "")


async def _watch(name: str, tick: Ticks, report: Report) -> None:
    """Tell how far a task is; when this is cancelled with the caller, tell the task to stop."""
    try:
        while True:
            await anyio.sleep(EVERY)
            await _tell(name, tick, report)
    finally:
        tick.stop.set()


async def _tell(name: str, tick: Ticks, report: Report) -> None:
    """Tell how far a task is, where it got on."""
    done, of = tick.done, tick.of
    if done > tick.told:
        tick.told = done
        await report(done, of, f"{name}: {done:,}" + (f" of {of:,}" if of else ""))
