"""The line in front of a model: one piece of work at a time, what is short and waited for before what is long.

A model in this process answers with one adapter at a time and uses all cores for it. Long jobs come as pieces, and chats go between these;
where chats never end, a piece of a job still goes after every few of them. A piece that waits for what another process does, as sentences
in vLLM, steps aside meanwhile (`Line.aside`) and others go on, so that vLLM has the sentences of several clients in one batch.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

CHAT, JOB = 0, 1
"""What goes first."""
MOST_IN_A_ROW = 4
"""Chats that go one after another while a job waits."""
UNDER_WAY, JOBS_UNDER_WAY = 16, 12
"""Pieces that may have begun and not ended, all but one of them aside; of those, pieces of jobs, so that a chat finds room."""
NEWEST = 0.3
"""Weight of the newest piece in what pieces are expected to take."""


@dataclass(frozen=True)
class Piece:
    """One piece of work in the line."""

    work: Callable[[], Any]
    done: Future[Any]
    rank: int


class Line:
    """Threads that take pieces of work in turn, one of them at work at a time; more than one only where a piece has stepped aside."""

    def __init__(self, name: str = "model"):
        self._waiting: tuple[deque[Piece], deque[Piece]] = (deque(), deque())
        self._changed = threading.Condition()
        self._is_closed = self._is_taken = False
        self._returning = self._in_a_row = 0
        self._seconds = [0.0, 0.0]
        self._spent, self._looked = 0.0, time.monotonic()
        self._under_way: dict[int, tuple[int, float]] = {}
        self._name, self._threads = name, list[threading.Thread]()
        self._add_thread()

    @property
    def length(self) -> int:
        """Pieces that wait."""
        return sum(map(len, self._waiting))

    def until_turn(self) -> float:
        """Seconds until a chat that lines up now has its turn, by what those before it took of late."""
        with self._changed:
            chats, jobs = (sum(not each.done.cancelled() for each in waiting) for waiting in self._waiting)
            pieces = min(jobs, chats // MOST_IN_A_ROW + 1)
            spent = self._spend()
            left = [max(0.0, self._seconds[rank] - (spent - began)) for rank, began in self._under_way.values()]
            is_full = self._is_taken or len(left) == UNDER_WAY
            running = min(left) * len(left) if left and is_full else 0.0
            return running + chats * self._seconds[CHAT] + pieces * self._seconds[JOB]

    def put(self, work: Callable[[], Any], rank: int = JOB) -> Future[Any]:
        """Line up; what comes of it is in the future. A future that was cancelled before its turn is passed over."""
        done: Future[Any] = Future()
        with self._changed:
            self._waiting[rank].append(Piece(work, done, rank))
            self._changed.notify_all()
        return done

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Let others go while the piece of this thread waits, and then wait for one's turn; nothing where no piece is this thread's.

        What the piece shares with others may be as they left it.
        """
        if threading.get_ident() not in self._under_way:
            yield
            return
        with self._changed:
            self._is_taken = False
            if len(self._under_way) == len(self._threads) < UNDER_WAY and not self._is_closed:
                self._add_thread()
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._returning += 1
                self._changed.wait_for(lambda: not self._is_taken)
                self._returning -= 1
                self._is_taken = True

    def close(self) -> None:
        """Take nothing more after what is being worked on."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for each in self._threads:
            each.join()

    def _add_thread(self) -> None:
        self._threads.append(threading.Thread(target=self._take, name=f"{self._name}-{len(self._threads)}", daemon=True))
        self._threads[-1].start()

    def _next(self) -> Piece | None:
        """The piece whose turn it is, waited for; None when the line is closed."""
        with self._changed:
            while not self._is_closed:
                piece = None if self._is_taken or self._returning else self._first()
                if piece is not None:
                    self._is_taken = True
                    self._spend()
                    self._under_way[threading.get_ident()] = (piece.rank, self._spent)
                    return piece
                self._changed.wait()
        return None

    def _first(self) -> Piece | None:
        """The first of the line that may go now."""
        chats, jobs = self._waiting
        may_job = jobs and sum(rank == JOB for rank, _ in self._under_way.values()) < JOBS_UNDER_WAY
        if chats and (self._in_a_row < MOST_IN_A_ROW or not may_job):
            self._in_a_row += 1
            return chats.popleft()
        if may_job:
            self._in_a_row = 0
            return jobs.popleft()
        return None

    def _take(self) -> None:
        while (piece := self._next()) is not None:
            result, error = None, None
            is_wanted = piece.done.set_running_or_notify_cancel()
            if is_wanted:
                try:
                    result = piece.work()
                except BaseException as met:  # noqa: BLE001  it is raised again where it is waited for
                    error = met
            self._end(is_wanted)
            if error is not None:
                piece.done.set_exception(error)
            elif is_wanted:
                piece.done.set_result(result)

    def _end(self, is_counted: bool) -> None:
        """This thread's piece is over; what it took goes into what the next are expected to take."""
        with self._changed:
            spent = self._spend()
            rank, began = self._under_way.pop(threading.get_ident())
            self._is_taken = False
            if is_counted:
                took, before = spent - began, self._seconds[rank]
                self._seconds[rank] = took if before == 0.0 else before + NEWEST * (took - before)
            self._changed.notify_all()

    def _spend(self) -> float:
        """Seconds that a piece which began at the start would have been charged: those in which others were under way are shared."""
        now = time.monotonic()
        self._spent += (now - self._looked) / max(1, len(self._under_way))
        self._looked = now
        return self._spent
