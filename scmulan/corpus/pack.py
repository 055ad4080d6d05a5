"""From cells to packed training ids: a task and its dropped fields drawn for each cell, long cells thinned, sentences packed.

An epoch's packs are a function of (corpus, seed, epoch) alone. Nothing is cut: a sentence fits a pack whole or the cell is
thinned until it does. Packs are filled longest sentence first, the last two of each chosen together; their order is drawn after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan import csentence, csentence_thinning
from scmulan.corpus.pairs import FirstCells, first_cells_of
from scmulan.corpus.shards import CellRows
from scmulan.csentence import Ids, Ragged, Vocabulary
from scmulan.errors import RecipeError
from scmulan.prompts import CELL, Sentence, SentenceWriter, Task
from scmulan.questions_sentences import question_sentences

SHALLOWER = "shallower"
SHALLOWER_RATES = (0.05, 0.6)
"""Shares of a cell's counts that the shallower measurement of it keeps, log-uniform."""
FIRST_FIELDS = 64
"""Ids that a sentence about two cells keeps free for the fields of the first."""
LEAST_ROOM = 32
"""Ids that each of two cells has to have room for; else the cell is put to a task about one."""


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
    questions : questions in English that are learnt from in each window of an epoch (`prompts/requests.yaml`), new ones each time
    """

    context: int = 1024
    pack_tokens: int = 4096
    thin_share: float = 0.25
    thin_least: float = 0.3
    dataset_weights: dict[str, float] | None = None
    window_cells: int = 100_000
    questions: int = 0

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
    """As ``counts_of_ids``, by the vocabulary of a writer."""
    return counts_of_ids(ids, writer.vocabulary)


def counts_of_ids(ids: Ragged, vocabulary: Vocabulary) -> sp.csr_matrix:
    """Whole cells' ids to counts, vectorised, without checking the grammar; shape (C, n_genes), int32."""
    values = ids.values
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
    """The tasks that are trained on cells, in the order that task codes index."""
    return [task for task in writer.prompts.tasks.values() if task.weight > 0]


def sentence_tasks(writer: SentenceWriter) -> list[Task]:
    """The tasks of a pack's sentences, in the order of their codes: those trained on cells, then that of questions."""
    return training_tasks(writer) + [task for task in writer.prompts.tasks.values() if task.is_of_question]


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
    first_cells = first_cells_of(rows, {task.first_cell for task in tasks if task.first_cell})
    room = packing.context - np.array([_frame_length(rows, int(row), writer) for row in chosen], dtype=np.int64)
    room_of_two = (room - FIRST_FIELDS) // 2
    drawn = _draw_tasks(rows, chosen, tasks, first_cells, room_of_two >= LEAST_ROOM, rng)
    is_pair = np.array([task.first_cell is not None for task in tasks], dtype=bool)[drawn]
    cells = counts[chosen]
    is_thinned = np.zeros(len(chosen), dtype=bool)
    if augment and packing.thin_share > 0:
        is_thinned = rng.random(len(chosen)) < packing.thin_share
        rates = np.exp(rng.uniform(np.log(packing.thin_least), 0, len(chosen)))
        cells = csentence_thinning.thin(cells, np.where(is_thinned, rates, 1.0), seed=hash((seed, epoch)) & 0x7FFFFFFF)
    room = np.where(is_pair, room_of_two, room)
    cells, cut = csentence_thinning.thin_to_fit(cells, room, seed=hash((seed, epoch, 1)) & 0x7FFFFFFF)
    true_depth = ~(is_thinned | cut)
    ids = _encoded(cells, rows, chosen, true_depth, writer)
    firsts = _first_cells(rows, counts, chosen, [tasks[code] for code in drawn], first_cells, room, writer, rng)
    sentences = [
        writer.training_sentence(
            tasks[drawn[number]],
            rows.fields_of(int(row)),
            ids[number],
            rng,
            is_depth_true=bool(true_depth[number]) and tasks[drawn[number]].first_cell != SHALLOWER,
            first=firsts.get(number),
        )
        for number, row in enumerate(chosen)
    ]
    return sentences, drawn


def _encoded(cells: sp.csr_matrix, rows: CellRows, chosen: Ids, is_whole: npt.NDArray[np.bool_], writer: SentenceWriter) -> Ragged:
    """Ids of cells, some of them thinned, that stand in ``rows`` where ``chosen`` says."""
    ids = csentence.encode(cells, writer.vocabulary)
    # counts above ten came back as the middle of their level, so the depth of a whole cell is taken from its own sentence
    ids.values[ids.offsets[:-1][is_whole] + 1] = rows.ids.values[rows.ids.offsets[chosen[is_whole]] + 1]
    return ids


def _draw_tasks(
    rows: CellRows,
    chosen: Ids,
    tasks: list[Task],
    first_cells: Mapping[str, FirstCells],
    holds_two: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> npt.NDArray[np.uint8]:
    """A task for each cell, by weight among those that it can be put to; (S,).

    ``holds_two``: whether the context has room for the cell and another beside its fields; (S,).
    """
    is_possible_CT = np.ones((len(rows), len(tasks)), dtype=bool)
    for number, task in enumerate(tasks):
        if task.first_cell is not None:
            is_possible_CT[:, number] = first_cells[task.first_cell].of_row >= 0
        if CELL not in task.predict:
            known = [[value is not None for value in rows.fields.get(name) or [None] * len(rows)] for name in task.predict]
            is_possible_CT[:, number] &= np.any(known, axis=0)
    writes = next((number for number, task in enumerate(tasks) if CELL in task.predict and task.first_cell is None), 0)
    is_possible_CT[~is_possible_CT.any(1), writes] = True
    is_pair = np.array([task.first_cell is not None for task in tasks], dtype=bool)
    is_possible_ST = is_possible_CT[chosen] & (holds_two[:, None] | ~is_pair)
    is_possible_ST[~is_possible_ST.any(1), writes] = True
    sums_ST = np.cumsum(is_possible_ST * np.array([task.weight for task in tasks]), axis=1)
    uniform_S1 = rng.random(len(chosen))[:, None]
    drawn: npt.NDArray[np.uint8] = (uniform_S1 >= sums_ST / sums_ST[:, -1:]).sum(1).astype(np.uint8)
    return drawn


def _first_cells(
    rows: CellRows,
    counts: sp.csr_matrix,
    chosen: Ids,
    tasks: list[Task],
    first_cells: Mapping[str, FirstCells],
    room: npt.NDArray[np.int64],
    writer: SentenceWriter,
    rng: np.random.Generator,
) -> dict[int, tuple[Ids, dict[str, str | None]]]:
    """Ids and fields of the first cell of each sentence about two, by the number of the sentence."""
    pairs = np.array([number for number, task in enumerate(tasks) if task.first_cell is not None], dtype=np.int64)
    if not len(pairs):
        return {}
    kinds = [str(tasks[number].first_cell) for number in pairs]
    uniform = rng.random(len(pairs))
    first = np.array([first_cells[kind].draw(int(chosen[number]), u) for number, kind, u in zip(pairs, kinds, uniform, strict=True)])
    is_shallower = np.array(kinds) == SHALLOWER
    rates = np.where(is_shallower, np.exp(rng.uniform(np.log(SHALLOWER_RATES[0]), np.log(SHALLOWER_RATES[1]), len(pairs))), 1.0)
    seed = int(rng.integers(1 << 31))
    cells, cut = csentence_thinning.thin_to_fit(csentence_thinning.thin(counts[first], rates, seed=seed), room[pairs], seed=seed)
    ids = _encoded(cells, rows, first, ~(is_shallower | cut), writer)
    return {int(number): (ids[place], rows.fields_of(int(first[place]))) for place, number in enumerate(pairs)}


def _weighted_rows(rows: CellRows, packing: Packing, rng: np.random.Generator) -> Ids:
    weights = packing.dataset_weights or {}
    rate = np.array([weights.get(dataset, 1.0) for dataset in rows.datasets]) * rows.weights
    times = np.floor(rate + rng.random(len(rate))).astype(int)
    return np.repeat(np.arange(len(rate)), times)


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
    """The packs of one epoch, its questions among them (held-out ones where nothing is augmented); a function of the arguments alone."""
    sentences, tasks = epoch_sentences(rows, counts, writer, packing, seed=seed, epoch=epoch, augment=augment)
    sentences += question_sentences(writer, packing.questions, seed=[seed, epoch], held_out=not augment)
    tasks = np.append(tasks, np.full(len(sentences) - len(tasks), len(training_tasks(writer)), dtype=np.uint8))
    return pack(sentences, tasks, packing, np.random.default_rng([seed, epoch, 2]), pad=writer.vocabulary.pad)
