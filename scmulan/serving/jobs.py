"""Jobs: long work on files of cells, in pieces whose results are kept, so that a server that was stopped or killed goes on where it was.

A job is a folder: ``job.json`` (written whole or not at all, at every change), ``pieces/`` with a file for each piece that is done, and
its results, ``result.h5ad`` and ``result.csv``. Whoever asks sees its state, and its events as they come.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from scmulan.engines.base import Advance
from scmulan.errors import ScmulanError
from scmulan.serving.line import JOB, Line
from scmulan.serving.room import bytes_in

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
ENDED = (DONE, FAILED, CANCELLED)
ID = re.compile(r"job-[0-9a-f]{24}")
MOST_KEPT = 1000
"""Results of short work that are kept of each owner."""
log = logging.getLogger("scmulan.serving")


class JobError(ScmulanError):
    """A job can't be taken, or there is none of that id."""


class TooManyJobs(JobError):
    """As many wait as may wait."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as it stands.

    Attributes
    ----------
    id, task, owner : its name; what is done; whose key asked for it
    asked : file, adapter and options, as plain data
    state : queued, running, done, failed or cancelled
    done, total : pieces
    cells : cells that are done
    message : why it failed
    warnings : what scmulan warned of
    summary : of the result, as plain data
    created, ended : seconds since 1970
    """

    id: str
    task: str
    owner: str = ""
    asked: dict[str, Any] = field(default_factory=dict)
    state: str = QUEUED
    done: int = 0
    total: int = 0
    cells: int = 0
    message: str = ""
    warnings: tuple[str, ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)
    created: float = 0.0
    ended: float = 0.0

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


class _Cancelled(Exception):
    """Ends a piece whose job was cancelled, or whose server is closing."""


class Carrier(Protocol):
    """Who does the work of jobs (`scmulan.serving.work`)."""

    def pieces(self, job: Job) -> int:
        """Into how many pieces a job is cut."""
        ...

    def carry(self, job: Job, number: int, folder: Path, tick: Advance) -> list[str]:
        """Do one piece and keep what comes of it in a folder; warnings. ``tick`` is called with cells as they are done."""
        ...

    def finish(self, job: Job, folder: Path) -> dict[str, Any]:
        """Write the results from the pieces; a summary of them."""
        ...

    def asks_model(self, job: Job) -> bool:
        """Whether it stands in the line of the model; other jobs go beside it."""
        ...


class Jobs:
    """All jobs of a server.

    Parameters
    ----------
    folder : where they are kept
    most : how many may wait
    room : raises a ScmulanError where an owner has none left
    beside : the line of jobs that ask no model
    """

    def __init__(
        self,
        folder: Path,
        carrier: Carrier,
        line: Line,
        *,
        most: int = 100,
        room: Callable[[str], object] = lambda _: None,
        beside: Line | None = None,
    ):
        self.folder, self.carrier, self.line, self.most, self.room, self.beside = folder, carrier, line, most, room, beside or line
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._watchers: dict[str, list[tuple[asyncio.AbstractEventLoop, asyncio.Queue[Job]]]] = {}
        self._is_closing = False
        self._jobs = {job.id: job for job in self._stored()}
        for job in sorted(self._jobs.values(), key=lambda job: job.created):
            if not job.has_ended:
                log.info("job taken up again", extra={"job": job.id, "done": job.done, "total": job.total})
                self._line_up(self._put(replace(job, state=QUEUED)))

    def _stored(self) -> Iterator[Job]:
        for path in sorted(self.folder.glob("job-*/job.json")):
            try:
                said = json.loads(path.read_text())
                yield Job(**{**said, "warnings": tuple(said["warnings"])})
            except (ValueError, TypeError, KeyError) as error:
                log.warning("job can't be read and is left alone", extra={"job": path.parent.name, "reason": str(error)})

    def add(self, task: str, asked: dict[str, Any], owner: str = "") -> Job:
        """Take a job; TooManyJobs where as many wait as may."""
        with self._lock:
            waiting = self.n_open
            if waiting >= self.most:
                raise TooManyJobs(f"{waiting} jobs wait already; ask again when some are done")
            job = Job(id=f"job-{secrets.token_hex(12)}", task=task, owner=owner, asked=asked, created=time.time())
            job = replace(job, total=self.carrier.pieces(job))
            self._put(job)
        self._line_up(job)
        return job

    def get(self, job_id: str, owner: str = "") -> Job:
        """A job of an owner; JobError where there is none."""
        job = self._jobs.get(job_id) if ID.fullmatch(job_id) else None
        if job is None or job.owner != owner:
            raise JobError("no job of this id; GET /v1/jobs lists those there are")
        return job

    def of(self, owner: str = "", most: int | None = None) -> list[Job]:
        """Jobs of an owner, newest first."""
        return sorted((job for job in self._all() if job.owner == owner), key=lambda job: -job.created)[:most]

    def _all(self) -> list[Job]:
        """All jobs, as they stand now; others come meanwhile from other threads."""
        with self._lock:
            return list(self._jobs.values())

    def path(self, job: Job, name: str) -> Path:
        """A file of a job."""
        return self.folder / job.id / name

    def result(self, job_id: str, owner: str, name: str) -> Path:
        """A file of the result of a job; JobError where it has none of that name."""
        job = self.get(job_id, owner)
        path = self.path(job, f"result.{name}")
        if job.state != DONE or not path.is_file():
            raise JobError(f"this job has no result.{name}: it is {job.state}" + (f" ({job.message})" if job.message else ""))
        return path

    def size(self, owner: str = "") -> int:
        """Bytes of the jobs of an owner, with their pieces and results."""
        return sum(bytes_in(self.folder / job.id) for job in self.of(owner))

    @property
    def n_open(self) -> int:
        """Jobs that have not ended."""
        return sum(not job.has_ended for job in self._all())

    def files_in_use(self) -> set[str]:
        """Files that jobs which have not ended are to read."""
        return {str(job.asked.get(name)) for job in self._all() if not job.has_ended for name in ("file_id", "perturbed_file_id")}

    def keep(self, task: str, asked: dict[str, Any], owner: str, write: Callable[[Path], None]) -> Job:
        """Keep what came of short work as a job that is done; of the owner's of that task the oldest goes when they are too many."""
        alike = [job for job in self.of(owner) if job.task == task]
        for job in alike[MOST_KEPT - 1 :]:
            self.remove(job.id, owner)
        now = time.time()
        job = Job(id=f"job-{secrets.token_hex(12)}", task=task, owner=owner, asked=asked, state=DONE, created=now, ended=now)
        (self.folder / job.id).mkdir()
        write(self.folder / job.id)
        return self._put(job)

    def cancel(self, job_id: str, owner: str = "") -> Job:
        """Let a job take no more pieces; one that has ended stays as it is."""
        with self._lock:
            job = self.get(job_id, owner)
            return job if job.has_ended else self._put(replace(job, state=CANCELLED, ended=time.time()))

    def remove(self, job_id: str, owner: str = "") -> None:
        """Cancel a job and remove all of it."""
        with self._lock:
            job = self.cancel(job_id, owner)
            del self._jobs[job.id]
        shutil.rmtree(self.folder / job.id, ignore_errors=True)

    def remove_older(self, than: float) -> int:
        """Remove jobs that ended before a time; how many those were."""
        old = [job for job in self._all() if job.has_ended and job.ended < than]
        for job in old:
            self.remove(job.id, job.owner)
        return len(old)

    def park(self) -> None:
        """Take no more pieces; jobs that have not ended are taken up again by the next server."""
        self._is_closing = True

    async def events(self, job_id: str, owner: str = "") -> AsyncIterator[Job]:
        """A job as it stands, then at every change, until it has ended."""
        line: asyncio.Queue[Job] = asyncio.Queue()
        watcher = (asyncio.get_running_loop(), line)
        with self._lock:
            job = self.get(job_id, owner)
            self._watchers.setdefault(job_id, []).append(watcher)
        try:
            yield job
            while not job.has_ended:
                job = await line.get()
                yield job
        finally:
            with self._lock:
                self._watchers[job_id].remove(watcher)
                if not self._watchers[job_id]:
                    del self._watchers[job_id]

    def _put(self, job: Job) -> Job:
        """Keep a job as it stands now, and tell those who watch."""
        with self._lock:
            folder = self.folder / job.id
            folder.mkdir(exist_ok=True)
            partial = folder / "job.json.partial"
            partial.write_text(json.dumps(asdict(job), ensure_ascii=False, indent=1))
            partial.replace(folder / "job.json")
            self._jobs[job.id] = job
            for loop, line in self._watchers.get(job.id, []):
                loop.call_soon_threadsafe(line.put_nowait, job)
        return job

    def _tick(self, job_id: str, n: int) -> None:
        """Cells that were done, told to those who watch; ends the piece of a job that is to go no further."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job.has_ended or self._is_closing:
                raise _Cancelled
            self._jobs[job_id] = job = replace(job, cells=job.cells + n)
            for loop, line in self._watchers.get(job_id, []):
                loop.call_soon_threadsafe(line.put_nowait, job)

    def _check_room(self, job: Job) -> None:
        """Remove the results of a job for which there is no room, pieces not counted, which go when it ends; raises what ``room`` does."""
        shutil.rmtree(self.folder / job.id / "pieces", ignore_errors=True)
        try:
            self.room(job.owner)
        except ScmulanError:
            for path in self.folder.glob(f"{job.id}/result.*"):
                path.unlink()
            raise

    def _line_up(self, job: Job) -> None:
        line = self.line if self.carrier.asks_model(job) else self.beside
        line.put(lambda: self._step(job.id), JOB)

    def _step(self, job_id: str) -> None:
        """Do the next piece of a job, then line it up again behind the others; with the last piece its results, which are short work."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job.has_ended or self._is_closing:
                return
            if job.state == QUEUED:
                job = self._put(replace(job, state=RUNNING))
        folder = self.folder / job.id
        (folder / "pieces").mkdir(exist_ok=True)
        try:
            if job.done < job.total:
                self.room(job.owner)
                warned = self.carrier.carry(job, job.done, folder / "pieces", lambda n: self._tick(job_id, n))
                said = tuple(dict.fromkeys([*job.warnings, *warned]))
                changed: dict[str, Any] = {"done": job.done + 1, "warnings": said}
            else:
                summary = self.carrier.finish(job, folder)
                self._check_room(job)
                changed = {"state": DONE, "summary": summary, "ended": time.time()}
        except _Cancelled:
            return
        except ScmulanError as error:
            changed = {"state": FAILED, "message": str(error), "ended": time.time()}
        except Exception:
            log.exception("job failed", extra={"job": job.id})
            changed = {"state": FAILED, "message": f"a fault of the server, logged under {job.id}", "ended": time.time()}
        with self._lock:
            now = self._jobs.get(job_id)
            if now is None or now.has_ended:  # cancelled meanwhile
                return
            job = self._put(replace(now, **changed))
        if not job.has_ended and job.done == job.total:
            self._step(job_id)
        elif not job.has_ended:
            self._line_up(job)
        else:
            shutil.rmtree(folder / "pieces", ignore_errors=True)
