"""From cells to packed training ids: a task and its dropped fields drawn for each cell, long cells thinned, sentences packed.

An epoch's packs are a function of (corpus, seed, epoch) alone. Nothing is cut: a sentence fits a pack whole or the cell is
thinned until it does. Packs are filled longest sentence first, the last two of each chosen together; their order is drawn after.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan import csentence, csentence_thinning
from scmulan.corpus.shards import CellRows
from scmulan.csentence import Ids, Ragged
from scmulan.errors import RecipeError
from scmulan.prompts import CELL, Sentence, SentenceWriter, Task


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How cells become packs.

    Attributes
    ----------
    context : longest sentence, in tokens
    pack_tokens : size of a pack; a multiple of the context wastes least
    thin_share : share of cells that are thinned at random, as augmentation
    thin_least : smallest share of counts that thinning keeps; the rate is log-uniform from it to 1
    dataset_weights : how many times a data set's cells are seen in an epoch, 1 where not named
    window_cells : cells that are packed at a time; a corpus of more is read in windows of some of its shards
    """

    context: int = 1024
    pack_tokens: int = 4096
    thin_share: float = 0.25
    thin_least: float = 0.3
    dataset_weights: dict[str, float] | None = None
    window_cells: int = 100_000

    def __post_init__(self) -> None:
        if self.pack_tokens < self.context:
            raise RecipeError(f"packing.pack_tokens is {self.pack_tokens}, smaller than packing.context {self.context}")


@dataclass(frozen=True)
class Packs:
    """Sentences in packs.

    Attributes
    ----------
    ids : (N, pack_tokens) uint16, padded at the end
    parts : (N, pack_tokens) uint8 part codes, 0 where nothing is learnt
    bounds : N arrays of the starts of the pack's sentences and the end of the last
    tasks : N arrays, index of each sentence's task
    """

    ids: npt.NDArray[np.uint16]
    parts: npt.NDArray[np.uint8]
    bounds: list[npt.NDArray[np.int32]]
    tasks: list[npt.NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def fill(self) -> float:
        """Share of the packs' places that hold a token."""
        return float(sum(bound[-1] for bound in self.bounds) / max(self.ids.size, 1))


def counts_of(ids: Ragged, writer: SentenceWriter) -> sp.csr_matrix:
    """Whole cells' ids to counts, vectorised, without checking the grammar; shape (C, n_genes), int32."""
    vocabulary, values = writer.vocabulary, ids.values
    is_gene = values >= vocabulary.first_gene
    place = np.maximum.accumulate(np.where(is_gene, 0, np.arange(len(values))))
    level = vocabulary.end_of_cell - 1 - values[place[is_gene]]
    row = np.repeat(np.arange(len(ids)), ids.lengths)[is_gene]
    counts = sp.csr_matrix(
        (csentence.LEVEL_COUNTS[level].astype(np.int32), (row, values[is_gene] - vocabulary.first_gene)),
        shape=(len(ids), vocabulary.n_genes),
    )
    counts.sort_indices()
    return counts


def training_tasks(writer: SentenceWriter) -> list[Task]:
    """The tasks that are trained, in the order that task codes index."""
    return [task for task in writer.prompts.tasks.values() if task.weight > 0]


def epoch_sentences(
    rows: CellRows, counts: sp.csr_matrix, writer: SentenceWriter, packing: Packing, *, seed: int, epoch: int, augment: bool = True
) -> tuple[list[Sentence], npt.NDArray[np.uint8]]:
    """One sentence for each cell (more or fewer under ``dataset_weights``), each of one task.

    Returns
    -------
    sentences : list of Sentence
    tasks : (S,) uint8, index into ``training_tasks``
    """
    rng = np.random.default_rng([seed, epoch])
    chosen = _weighted_rows(rows, packing, rng)
    tasks = training_tasks(writer)
    weights = np.array([task.weight for task in tasks])
    drawn = rng.choice(len(tasks), size=len(chosen), p=weights / weights.sum()).astype(np.uint8)
    known = {name: [value is not None for value in values] for name, values in rows.fields.items()}
    for number, row in enumerate(chosen):
        drawn[number] = _possible_task(int(drawn[number]), int(row), tasks, known)
    cells = counts[chosen]
    is_thinned = np.zeros(len(chosen), dtype=bool)
    if augment and packing.thin_share > 0:
        is_thinned = rng.random(len(chosen)) < packing.thin_share
        rates = np.exp(rng.uniform(np.log(packing.thin_least), 0, len(chosen)))
        cells = csentence_thinning.thin(cells, np.where(is_thinned, rates, 1.0), seed=hash((seed, epoch)) & 0x7FFFFFFF)
    room = np.array([packing.context - _frame_length(rows, int(row), writer) for row in chosen])
    cells, cut = csentence_thinning.thin_to_fit(cells, room, seed=hash((seed, epoch, 1)) & 0x7FFFFFFF)
    ids = csentence.encode(cells, writer.vocabulary)
    true_depth = ~(is_thinned | cut)
    # counts above ten came back as the middle of their level, so the depth of a whole cell is taken from its own sentence
    ids.values[ids.offsets[:-1][true_depth] + 1] = rows.ids.values[rows.ids.offsets[chosen[true_depth]] + 1]
    sentences = [
        writer.training_sentence(tasks[drawn[number]], rows.fields_of(int(row)), ids[number], rng, is_depth_true=bool(true_depth[number]))
        for number, row in enumerate(chosen)
    ]
    return sentences, drawn


def _weighted_rows(rows: CellRows, packing: Packing, rng: np.random.Generator) -> Ids:
    weights = packing.dataset_weights or {}
    rate = np.array([weights.get(dataset, 1.0) for dataset in rows.datasets]) * rows.weights
    times = np.floor(rate + rng.random(len(rate))).astype(int)
    return np.repeat(np.arange(len(rate)), times)


def _possible_task(drawn: int, row: int, tasks: list[Task], known: dict[str, list[bool]]) -> int:
    """The drawn task, or the first that predicts a cell when the cell knows none of the fields it asks for."""
    asked = [name for name in tasks[drawn].predict if name != CELL]
    if CELL in tasks[drawn].predict or any(known.get(name, [False] * (row + 1))[row] for name in asked):
        return drawn
    return next(number for number, task in enumerate(tasks) if CELL in task.predict)


def _frame_length(rows: CellRows, row: int, writer: SentenceWriter) -> int:
    """Tokens of a sentence beside its cell, at most."""
    return len(writer.fields_ids(rows.fields_of(row))) + 3 + 2 * 9


def pack(sentences: list[Sentence], tasks: npt.NDArray[np.uint8], packing: Packing, rng: np.random.Generator, pad: int = 0) -> Packs:
    """Whole sentences in packs, filled longest first; the order of packs is drawn."""
    lengths = np.array([len(sentence.ids) for sentence in sentences])
    if len(lengths) and lengths.max() > packing.pack_tokens:
        raise RecipeError(f"a sentence of {lengths.max():,} tokens does not fit a pack of {packing.pack_tokens:,}")
    bins = _fill_bins(lengths, packing.pack_tokens)
    ids = np.full((len(bins), packing.pack_tokens), pad, dtype=np.uint16)
    parts = np.zeros((len(bins), packing.pack_tokens), dtype=np.uint8)
    bounds, codes = [], []
    for place, number in enumerate(rng.permutation(len(bins))):
        members = rng.permutation(bins[number])
        ends = np.cumsum(lengths[members])
        ids[place, : ends[-1]] = np.concatenate([sentences[member].ids for member in members])
        parts[place, : ends[-1]] = np.concatenate([sentences[member].parts for member in members])
        bounds.append(np.concatenate([[0], ends]).astype(np.int32))
        codes.append(tasks[members])
    return Packs(ids, parts, bounds, codes)


class _Unpacked:
    """Sentences that are in no bin yet, by length; those of one length are taken in order."""

    def __init__(self, lengths: Ids):
        self.waiting: dict[int, list[int]] = {}
        for number in range(len(lengths) - 1, -1, -1):
            self.waiting.setdefault(int(lengths[number]), []).append(number)
        self.lengths, self.counts = np.unique(lengths, return_counts=True)

    def __len__(self) -> int:
        return len(self.lengths)

    def longest(self, room: int) -> int:
        """The greatest length that fits; 0 when none does."""
        at = int(np.searchsorted(self.lengths, room, side="right")) - 1
        return int(self.lengths[at]) if at >= 0 else 0

    def best_pair(self, room: int) -> tuple[int, int]:
        """The two lengths that leave least of a room; (0, 0) when no two fit."""
        other = np.searchsorted(self.lengths, room - self.lengths, side="right") - 1
        other -= (other == np.arange(len(other))) & (self.counts == 1)  # no sentence is taken twice
        sums = np.where(other >= 0, self.lengths + self.lengths[other], 0)
        best = int(sums.argmax())
        return (int(self.lengths[best]), int(self.lengths[other[best]])) if sums[best] else (0, 0)

    def take(self, length: int) -> int:
        """The next sentence of a length."""
        at = int(np.searchsorted(self.lengths, length))
        self.counts[at] -= 1
        if not self.counts[at]:
            self.lengths, self.counts = np.delete(self.lengths, at), np.delete(self.counts, at)
        return self.waiting[length].pop()


def _fill_bins(lengths: Ids, size: int) -> list[list[int]]:
    """Longest first, a bin at a time; its last two are the pair that fills it best, for one alone leaves a gap that nothing fits."""
    left, bins = _Unpacked(lengths), list[list[int]]()
    while len(left):
        length = left.longest(size)
        members, room = [left.take(length)], size - length
        while len(left) and (length := left.longest(room)):
            pair = left.best_pair(room) if room <= 2 * left.lengths[-1] else (0, 0)
            chosen = pair if sum(pair) > length else (length,)
            members += [left.take(one) for one in chosen]
            room -= sum(chosen)
        bins.append(members)
    return bins


def epoch_packs(
    rows: CellRows, counts: sp.csr_matrix, writer: SentenceWriter, packing: Packing, *, seed: int, epoch: int, augment: bool = True
) -> Packs:
    """The packs of one epoch; a function of the arguments alone."""
    sentences, tasks = epoch_sentences(rows, counts, writer, packing, seed=seed, epoch=epoch, augment=augment)
    return pack(sentences, tasks, packing, np.random.default_rng([seed, epoch, 2]), pad=writer.vocabulary.pad)
