"""The line in front of a model: one piece of work at a time, what is short and waited for before what is long.

A model answers with one adapter at a time and uses all cores for it. Long jobs come as pieces, and chats go between these.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

CHAT, JOB = 0, 1
"""What goes first."""


@dataclass(order=True)
class Piece:
    """One piece of work in the line."""

    rank: int
    number: int
    work: Callable[[], Any] | None = field(compare=False)
    done: Future[Any] = field(compare=False)


class Line:
    """A thread that takes pieces of work in turn."""

    def __init__(self, name: str = "model"):
        self._queue: queue.PriorityQueue[Piece] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._thread = threading.Thread(target=self._take, name=name, daemon=True)
        self._thread.start()

    @property
    def length(self) -> int:
        """Pieces that wait."""
        return self._queue.qsize()

    def put(self, work: Callable[[], Any], rank: int = JOB) -> Future[Any]:
        """Line up; what comes of it is in the future. A future that was cancelled before its turn is passed over."""
        done: Future[Any] = Future()
        self._queue.put(Piece(rank, next(self._numbers), work, done))
        return done

    def close(self) -> None:
        """Take nothing more after what is being worked on."""
        self._queue.put(Piece(-1, next(self._numbers), None, Future()))
        self._thread.join()

    def _take(self) -> None:
        while True:
            piece = self._queue.get()
            if piece.work is None:
                return
            if not piece.done.set_running_or_notify_cancel():
                continue
            try:
                piece.done.set_result(piece.work())
            except BaseException as error:  # noqa: BLE001  it is raised again where it is waited for
                piece.done.set_exception(error)
