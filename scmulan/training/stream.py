"""The order of a run's data: packs of one window after another, made ready some steps ahead in a thread.

What a step reads is a function of (corpus, recipe, seed, step) alone, on any number of processes: all see the same packs, and each
takes its share of every step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from scmulan.corpus.pack import Packing, Packs
from scmulan.corpus.shards import Corpus
from scmulan.corpus.windows import Window, window_packs, windows_of
from scmulan.prompts import SentenceWriter
from scmulan.training.packed import PackInputs

STEPS_AHEAD = 2


@dataclass
class Cursor:
    """Where a run stands in its data."""

    epoch: int = 0
    window: int = 0
    place: int = 0


class PackStream:
    """Packs of one window after another, the next one made or opened while this one is trained on."""

    def __init__(self, corpus: Corpus, writer: SentenceWriter, packing_of: Callable[[int], Packing], seed: int, cursor: Cursor):
        self.corpus, self.writer, self.packing_of, self.seed, self.cursor = corpus, writer, packing_of, seed, cursor
        self.pool = ThreadPoolExecutor(1)
        self.packs: Packs = self._make(cursor.epoch, cursor.window)
        self.ahead: Future[Packs] = self.pool.submit(self._make, *self._after())

    def _windows(self, epoch: int) -> list[Window]:
        return windows_of(self.corpus, self.packing_of(epoch).window_cells, seed=self.seed, epoch=epoch)

    def _after(self) -> tuple[int, int]:
        """Epoch and window that come after those of the cursor."""
        is_last = self.cursor.window + 1 == len(self._windows(self.cursor.epoch))
        return (self.cursor.epoch + 1, 0) if is_last else (self.cursor.epoch, self.cursor.window + 1)

    def _make(self, epoch: int, number: int) -> Packs:
        return window_packs(self.corpus, self._windows(epoch)[number], self.writer, self.packing_of(epoch), seed=self.seed)

    def take(self, n_packs: int) -> Iterator[tuple[Packs, int]]:
        """The next packs, windows and epochs joined without a gap."""
        for _ in range(n_packs):
            while self.cursor.place >= len(self.packs):
                self.packs = self.ahead.result()
                (self.cursor.epoch, self.cursor.window), self.cursor.place = self._after(), 0
                self.ahead = self.pool.submit(self._make, *self._after())
            yield self.packs, self.cursor.place
            self.cursor.place += 1

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class StepInputs:
    """What one process reads in one step.

    Attributes
    ----------
    mine : its packs, with the place of each among all packs of the step
    total : weight of what all processes learn in this step
    tokens : ids that all processes read in this step
    cursor : where the data stand after it
    """

    mine: list[tuple[int, PackInputs]]
    total: float
    tokens: int
    cursor: Cursor


class StepFeeder:
    """Makes the next steps' inputs while one is computed."""

    def __init__(self, stream: PackStream, prepare: Callable[[Packs, int], PackInputs], n_packs: int, *, process: int, processes: int):
        self.stream, self.prepare, self.n_packs, self.process, self.processes = stream, prepare, n_packs, process, processes
        self.pool = ThreadPoolExecutor(1)
        self.waiting: deque[Future[StepInputs]] = deque(self.pool.submit(self._make) for _ in range(STEPS_AHEAD))

    def _make(self) -> StepInputs:
        mine, total, tokens = [], 0.0, 0
        for number, (packs, place) in enumerate(self.stream.take(self.n_packs)):
            inputs = self.prepare(packs, place)
            total, tokens = total + float(inputs.weights.sum()), tokens + int(packs.bounds[place][-1])
            if number % self.processes == self.process:
                mine.append((number, inputs))
        return StepInputs(mine, total, tokens, replace(self.stream.cursor))

    def next(self) -> StepInputs:
        """The next step's inputs."""
        self.waiting.append(self.pool.submit(self._make))
        return self.waiting.popleft().result()

    def close(self) -> None:
        """Stop making any more."""
        self.pool.shutdown(wait=True, cancel_futures=True)
        self.stream.close()
