"""The c-sentence of a cell: counts to ids and back, vectorised over a CSR matrix.

    cell  = <cell> <depth:K> { <n:L> gene gene ... } </cell>

Levels strictly fall, gene ids strictly rise within a level, no gene appears twice, zeros are absent: so the sentence is a
function of the cell, and the likelihood of the sentence is the likelihood of the cell. Counts up to 10 are exact; larger ones
come back within half a step of a geometric grid of ratio 1.25. This module alone knows both genes and ids.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan.errors import SentenceError, VocabularyError, some

Ids = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]

EXACT_TO = 10
RATIO = 1.25
LARGEST_COUNT = 2_000_000
DEPTH_STEPS_PER_OCTAVE = 2
LARGEST_DEPTH = 1 << 27


def _level_floors() -> Counts:
    floors = list(range(1, EXACT_TO + 2))
    while floors[-1] <= LARGEST_COUNT:
        floors.append(max(floors[-1] + 1, round(floors[-1] * RATIO)))
    return np.array(floors, dtype=np.int64)


LEVEL_FLOORS = _level_floors()
"""Smallest count of each level, then one bound above the last level. Shape (n_levels + 1,)."""
N_LEVELS = len(LEVEL_FLOORS) - 1
LEVEL_COUNTS = np.sqrt(LEVEL_FLOORS[:-1] * (LEVEL_FLOORS[1:] - 1.0)).round().astype(np.int64)
"""The count a level stands for: the geometric middle of its span, so never off by more than half a step. Shape (n_levels,)."""
N_DEPTHS = int(np.log2(LARGEST_DEPTH) * DEPTH_STEPS_PER_OCTAVE) + 2

BOUNDS = ("<pad>", "<bos>", "<eos>", "<cell>")
END_OF_CELL = "</cell>"


def level_of(counts: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Level (0 for a count of 1) of each positive count; any shape."""
    return np.minimum(np.searchsorted(LEVEL_FLOORS, np.asarray(counts), side="right") - 1, N_LEVELS - 1)


def depth_of(totals: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Depth step of each library size: 0 for an empty cell, then half-octaves; any shape."""
    totals = np.asarray(totals, dtype=np.float64)
    steps = np.floor(DEPTH_STEPS_PER_OCTAVE * np.log2(np.maximum(totals, 1)) + 1e-9).astype(np.int64) + 1
    return np.where(totals > 0, np.minimum(steps, N_DEPTHS - 1), 0)


LOW_RANKS = (N_LEVELS - 1 - level_of(np.maximum(np.arange(4096), 1))).astype(np.uint32)
ROWS_AT_ONCE = 64  # their keys stay in the processor's cache; at most 512 fit the key's nine bits


def structure_tokens() -> list[str]:
    """Depth tokens, then level tokens from the highest count down, then the end of the cell.

    The order is what makes "a lower level, or the end" one run of ids.
    """
    levels = [f"<n:{LEVEL_COUNTS[level]}>" for level in range(N_LEVELS - 1, -1, -1)]
    return [f"<depth:{step}>" for step in range(N_DEPTHS)] + levels + [END_OF_CELL]


@dataclass(frozen=True)
class Vocabulary:
    """Which ids mean what. Gene ids are one run; a gene's place in it is its column in a vocabulary-ordered count matrix.

    Attributes
    ----------
    pad, bos, eos, cell, end_of_cell : int
    first_depth, first_level : int
        ``first_level`` is the id of the highest level; ``<n:1>`` is ``end_of_cell - 1``.
    first_gene : int
    genes : tuple of str
        Preferred symbol of each gene, in id order.
    size : int
        Rows of the embedding, spare rows included.
    text : (first, last) of the text ids, last excluded.
    """

    pad: int
    bos: int
    eos: int
    cell: int
    first_depth: int
    first_level: int
    end_of_cell: int
    first_gene: int
    genes: tuple[str, ...]
    size: int
    text: tuple[int, int]

    @property
    def n_genes(self) -> int:
        return len(self.genes)

    @property
    def last_gene(self) -> int:
        """One past the last gene id."""
        return self.first_gene + len(self.genes)

    @cached_property
    def column_of(self) -> dict[str, int]:
        return {symbol: column for column, symbol in enumerate(self.genes)}

    def level_id(self, level: npt.ArrayLike) -> Ids:
        return self.end_of_cell - 1 - np.asarray(level, dtype=np.int64)

    def without_genes_before(self, column: int) -> Vocabulary:
        """The vocabulary with the gene columns from one on; ids before the genes stay, those of the genes fall by ``column``."""
        return dataclasses.replace(self, genes=self.genes[column:], size=self.size - column)

    def gene_id(self, symbol: str) -> int:
        """Token id of a gene by preferred symbol; VocabularyError when the vocabulary lacks it."""
        if symbol not in self.column_of:
            raise VocabularyError(f"gene {symbol!r} is not among the {self.n_genes:,} genes of this model's vocabulary")
        return self.first_gene + self.column_of[symbol]

    def columns(self, symbols: Sequence[str]) -> npt.NDArray[np.int64]:
        """Column in vocabulary order of each preferred symbol, -1 where the vocabulary lacks it; shape (n,)."""
        return np.array([self.column_of.get(symbol, -1) for symbol in symbols], dtype=np.int64)


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths in one array: row i is ``values[offsets[i]:offsets[i + 1]]``."""

    values: Ids
    offsets: Ids

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Ids:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> Ids:
        return np.diff(self.offsets)

    @classmethod
    def of(cls, rows: Sequence[npt.ArrayLike]) -> Ragged:
        arrays = [np.asarray(row, dtype=np.int64) for row in rows]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in arrays])]).astype(np.int64)
        return cls(np.concatenate(arrays) if arrays else np.zeros(0, np.int64), offsets)


def encode(counts: sp.csr_matrix, vocabulary: Vocabulary, *, is_clean: bool = False) -> Ragged:
    """Count matrix to one ``<cell> ... </cell>`` per row.

    Parameters
    ----------
    counts : (C, vocabulary.n_genes) CSR, non-negative integers
        Columns in vocabulary order. Counts above 2,000,000 are taken as that.
    is_clean : every entry is known to stand once and to be positive, in whatever order, so that this need not be looked for
    """
    counts = counts if is_clean else canonical_counts(counts)
    if counts.shape[1] != vocabulary.n_genes:
        raise VocabularyError(f"count matrix has {counts.shape[1]:,} columns, the vocabulary {vocabulary.n_genes:,} genes")
    blocks = [_encode_rows(counts, first, vocabulary) for first in range(0, counts.shape[0], ROWS_AT_ONCE)]
    values, lengths = zip(*blocks, strict=True) if blocks else ((np.zeros(0, np.int64),), (np.zeros(0, np.int64),))
    return Ragged(np.concatenate(values), np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64))


def _encode_rows(counts: sp.csr_matrix, first: int, vocabulary: Vocabulary) -> tuple[Ids, Ids]:
    """Ids of up to `ROWS_AT_ONCE` rows, one after another, and how many each has.

    A gene is one number of 32 bits, row, rank of its level and column from the top, so that one sort brings all into order.
    """
    starts = counts.indptr[first : first + ROWS_AT_ONCE + 1].astype(np.int64)
    span = slice(starts[0], starts[-1])
    n_genes = np.diff(starts)
    key = np.repeat(np.arange(len(n_genes), dtype=np.uint32) << 23, n_genes)
    key |= _rank_of(counts.data[span]) << np.uint32(16)
    key |= counts.indices[span].astype(np.uint32)
    key.sort()
    level_of_row = key >> np.uint32(16)
    opens = np.ones(len(key), dtype=bool)
    np.not_equal(level_of_row[1:], level_of_row[:-1], out=opens[1:])
    levels = np.cumsum(opens, dtype=np.int64)
    lengths = n_genes + np.diff(np.concatenate([[0], levels])[starts - starts[0]]) + 3
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.empty(offsets[-1], dtype=np.int64)
    at = levels + np.arange(2, len(key) + 2) + 3 * (key >> np.uint32(23)).astype(np.int64)
    values[at] = vocabulary.first_gene + (key & np.uint32(0xFFFF)).astype(np.int64)
    values[at[opens] - 1] = vocabulary.first_level + (level_of_row[opens] & np.uint32(0x7F))
    totals = np.concatenate([[0], np.cumsum(counts.data[span], dtype=np.int64)])[starts - starts[0]]
    values[offsets[:-1]] = vocabulary.cell
    values[offsets[:-1] + 1] = vocabulary.first_depth + depth_of(np.diff(totals))
    values[offsets[1:] - 1] = vocabulary.end_of_cell
    return values, lengths


def _rank_of(values: npt.NDArray[np.integer]) -> npt.NDArray[np.uint32]:
    """Place of each count's level, 0 for the highest: by table where it is small, as nearly all are."""
    ranks: npt.NDArray[np.uint32] = LOW_RANKS[np.minimum(values, len(LOW_RANKS) - 1)]
    is_high = values >= len(LOW_RANKS)
    if is_high.any():
        ranks[is_high] = N_LEVELS - 1 - level_of(values[is_high])
    return ranks


def canonical_counts(counts: sp.csr_matrix, copy: bool = False) -> sp.csr_matrix:
    """The matrix with sorted columns, each stored once and none of them zero, so that a cell is stored in one way only."""
    counts = sp.csr_matrix(counts, copy=copy)
    if not counts.has_canonical_format or (counts.data == 0).any():
        counts = counts if copy else counts.copy()
        counts.sum_duplicates()
        counts.eliminate_zeros()
    return counts


def sentence_lengths(counts: sp.csr_matrix) -> npt.NDArray[np.int64]:
    """Tokens that ``encode`` would give each row; shape (C,)."""
    n_cells = counts.shape[0]
    row = np.repeat(np.arange(n_cells), np.diff(counts.indptr))[counts.data > 0]
    used = np.unique(row * N_LEVELS + level_of(counts.data[counts.data > 0])) // N_LEVELS
    return np.bincount(row, minlength=n_cells) + np.bincount(used, minlength=n_cells) + 3


def decode(ids: npt.ArrayLike, vocabulary: Vocabulary, rng: np.random.Generator | None = None) -> tuple[Ids, Counts]:
    """One cell's ids to (gene columns, counts).

    Parameters
    ----------
    ids : (T,) int
        From ``<cell>`` to ``</cell>``, both included.
    rng : Generator, optional
        Draw each count above 10 evenly from its level's span rather than take its middle; for generated cells.

    Raises
    ------
    SentenceError
        Naming the first position that breaks the grammar.
    """
    ids = np.asarray(ids, dtype=np.int64)
    _check_cell(ids, vocabulary)
    body = ids[2:-1]
    is_gene = body >= vocabulary.first_gene
    place = np.maximum.accumulate(np.where(is_gene, -1, np.arange(len(body)))) if len(body) else body
    level = (vocabulary.end_of_cell - 1 - body[place])[is_gene]
    columns = body[is_gene] - vocabulary.first_gene
    if rng is None:
        return columns, LEVEL_COUNTS[level]
    return columns, rng.integers(LEVEL_FLOORS[level], LEVEL_FLOORS[level + 1])


def decode_many(cells: Sequence[npt.ArrayLike], vocabulary: Vocabulary, rng: np.random.Generator | None = None) -> sp.csr_matrix:
    """Several cells' ids to a count matrix; shape (C, n_genes), int32, columns in vocabulary order."""
    columns: list[Ids] = []
    values: list[Counts] = []
    for number, ids in enumerate(cells):
        try:
            column, count = decode(ids, vocabulary, rng)
        except SentenceError as error:
            raise SentenceError(f"cell {number}: {error}") from None
        order = np.argsort(column)
        columns.append(column[order])
        values.append(count[order])
    indptr = np.concatenate([[0], np.cumsum([len(column) for column in columns])]).astype(np.int64)
    flat = [np.concatenate(parts) if parts else np.zeros(0, np.int64) for parts in (values, columns)]
    return sp.csr_matrix((flat[0].astype(np.int32), flat[1], indptr), shape=(len(columns), vocabulary.n_genes))


def _check_cell(ids: Ids, vocabulary: Vocabulary) -> None:
    """Raise SentenceError at the first id that is not legal where it stands."""
    if not len(ids) or ids[0] != vocabulary.cell:
        raise SentenceError(f"position 0: found {_name(ids, 0, vocabulary)}, needed <cell>")
    if len(ids) < 2 or not vocabulary.first_depth <= ids[1] < vocabulary.first_depth + N_DEPTHS:
        raise SentenceError(f"position 1: found {_name(ids, 1, vocabulary)}, needed <depth:K>")
    body = ids[2:]
    is_gene = (body >= vocabulary.first_gene) & (body < vocabulary.last_gene)
    is_level = (body >= vocabulary.first_level) & (body < vocabulary.end_of_cell)
    is_end = body == vocabulary.end_of_cell
    wrong = ~(is_gene | is_level | is_end)
    wrong[:1] |= ~(is_end if ids[1] == vocabulary.first_depth else is_level)[:1]
    wrong[1:] |= is_end[:-1] | (is_level[:-1] & ~is_gene[1:])
    wrong[1:] |= is_gene[1:] & is_gene[:-1] & (body[1:] <= body[:-1])
    levels = np.flatnonzero(is_level)
    wrong[levels[1:][body[levels[1:]] <= body[levels[:-1]]]] = True
    genes = np.flatnonzero(is_gene)
    _, first = np.unique(body[genes], return_index=True)
    wrong[np.delete(genes, first)] = True
    if wrong.any() or not is_end.any():
        at = 2 + int(np.argmax(wrong) if wrong.any() else len(body))
        raise SentenceError(
            f"position {at}: found {_name(ids, at, vocabulary)} after {_name(ids, at - 1, vocabulary)}; needed levels that fall and, "
            "within a level, genes that rise and were not named before, then </cell>; only <depth:0> is an empty cell"
        )


def _name(ids: Ids, at: int, vocabulary: Vocabulary) -> str:
    if not 0 <= at < len(ids):
        return "the end"
    token = int(ids[at])
    if vocabulary.first_gene <= token < vocabulary.last_gene:
        return f"gene {vocabulary.genes[token - vocabulary.first_gene]}"
    if vocabulary.first_depth <= token < vocabulary.first_level:
        return f"<depth:{token - vocabulary.first_depth}>"
    if vocabulary.first_level <= token < vocabulary.end_of_cell:
        return f"<n:{LEVEL_COUNTS[vocabulary.end_of_cell - 1 - token]}>"
    known = {vocabulary.cell: "<cell>", vocabulary.end_of_cell: END_OF_CELL, vocabulary.eos: "<eos>", vocabulary.bos: "<bos>"}
    return known.get(token, f"id {token}")


def to_vocabulary_order(
    counts: sp.csr_matrix, symbols: Sequence[str], vocabulary: Vocabulary
) -> tuple[sp.csr_matrix, npt.NDArray[np.bool_]]:
    """Reorder columns named by preferred symbols into the vocabulary's order.

    Returns
    -------
    counts : (C, vocabulary.n_genes) CSR
    known : (len(symbols),) bool
        Which of the input's columns the vocabulary has; the others are left out, for the caller to report.
    """
    columns = vocabulary.columns(symbols)
    known = columns >= 0
    if not known.any():
        raise VocabularyError(
            f"none of the {len(symbols):,} genes ({some(symbols)}) is in this model's vocabulary of {vocabulary.n_genes:,}"
        )
    selector = sp.csr_matrix(
        (np.ones(int(known.sum()), dtype=np.int32), (np.flatnonzero(known), columns[known])), shape=(len(symbols), vocabulary.n_genes)
    )
    ordered = sp.csr_matrix(counts.astype(np.int32) @ selector)
    ordered.sort_indices()
    return ordered, known
