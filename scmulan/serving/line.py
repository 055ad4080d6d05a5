"""The line in front of a model: one piece of work at a time, what is short and waited for before what is long.

A model answers with one adapter at a time and uses all cores for it. Long jobs come as pieces, and chats go between these; where chats
never end, a piece of a job still goes after every few of them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

CHAT, JOB = 0, 1
"""What goes first."""
MOST_IN_A_ROW = 4
"""Chats that go one after another while a job waits."""
NEWEST = 0.3
"""Weight of the newest piece in what pieces are expected to take."""


@dataclass(frozen=True)
class Piece:
    """One piece of work in the line."""

    work: Callable[[], Any]
    done: Future[Any]
    rank: int


class Line:
    """A thread that takes pieces of work in turn."""

    def __init__(self, name: str = "model"):
        self._waiting: tuple[deque[Piece], deque[Piece]] = (deque(), deque())
        self._changed = threading.Condition()
        self._is_closed = False
        self._in_a_row = 0
        self._seconds = [0.0, 0.0]
        self._began = time.monotonic()
        self._at_work: int | None = None
        self._thread = threading.Thread(target=self._take, name=name, daemon=True)
        self._thread.start()

    @property
    def length(self) -> int:
        """Pieces that wait."""
        return sum(map(len, self._waiting))

    def until_turn(self) -> float:
        """Seconds until a chat that lines up now has its turn, by what those before it took of late."""
        with self._changed:
            chats, jobs = (sum(not each.done.cancelled() for each in waiting) for waiting in self._waiting)
            pieces = min(jobs, chats // MOST_IN_A_ROW + 1)
            running = 0.0 if self._at_work is None else max(0.0, self._seconds[self._at_work] - (time.monotonic() - self._began))
            return running + chats * self._seconds[CHAT] + pieces * self._seconds[JOB]

    def put(self, work: Callable[[], Any], rank: int = JOB) -> Future[Any]:
        """Line up; what comes of it is in the future. A future that was cancelled before its turn is passed over."""
        done: Future[Any] = Future()
        with self._changed:
            self._waiting[rank].append(Piece(work, done, rank))
            self._changed.notify()
        return done

    def close(self) -> None:
        """Take nothing more after what is being worked on."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _next(self) -> Piece | None:
        """The piece whose turn it is, waited for; None when the line is closed."""
        chats, jobs = self._waiting
        with self._changed:
            while not self._is_closed:
                if chats and (self._in_a_row < MOST_IN_A_ROW or not jobs):
                    self._in_a_row += 1
                    return chats.popleft()
                self._in_a_row = 0
                if jobs:
                    return jobs.popleft()
                self._changed.wait()
        return None

    def _take(self) -> None:
        while (piece := self._next()) is not None:
            if not piece.done.set_running_or_notify_cancel():
                continue
            self._began, self._at_work = time.monotonic(), piece.rank
            try:
                result = piece.work()
            except BaseException as error:  # noqa: BLE001  it is raised again where it is waited for
                self._note(piece.rank)
                piece.done.set_exception(error)
            else:
                self._note(piece.rank)
                piece.done.set_result(result)

    def _note(self, rank: int) -> None:
        """What a piece took, into what the next are expected to take."""
        took, self._at_work = time.monotonic() - self._began, None
        before = self._seconds[rank]
        self._seconds[rank] = took if before == 0.0 else before + NEWEST * (took - before)
