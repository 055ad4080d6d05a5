"""One block of a source's cells to one shard: the same function in this process, in a worker process and on a Ray node.

A block knows all it needs, so blocks are built in any order, anywhere, any number of times, with the same bytes. Beside each shard
stands a record of what is in it; a shard with a record that fits is not built again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan import csentence
from scmulan.cells_on_disk import CellStore
from scmulan.cells_stored import identity_of
from scmulan.corpus.plan import Source, Split
from scmulan.corpus.shards import CellRows, ShardWriter, file_hash, write_json
from scmulan.corpus.splits import split_as_said, split_by_hash, split_by_type, split_in_file
from scmulan.csentence import Ragged, Vocabulary
from scmulan.doctor_cells import fingerprints
from scmulan.errors import CellDataError, VocabularyError
from scmulan.fields import FieldSet
from scmulan.genes import GeneTable
from scmulan.metadata import FIELDS
from scmulan.tokenizer import load_vocabulary

WORK = "work"
"""Folder of a corpus that holds what its building needs: the plan, a record of each source and shard, rewritten matrices."""
OPEN_AT_ONCE = 4
_stores: dict[tuple[Any, ...], CellStore] = {}
_drawn: weakref.WeakKeyDictionary[CellStore, dict[Split, list[str]]] = weakref.WeakKeyDictionary()
LEAST_GENES_TO_TELL = 20
"""Cells of fewer genes may be alike by chance, so they are never taken for doubles."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What is known of a source before its cells are read.

    Attributes
    ----------
    n_cells : int
    sha256 : of the file, or of the names and hashes of a store's files
    identity : changes when the source is written anew
    findings : what the doctor says
    """

    n_cells: int
    sha256: str
    identity: str
    findings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Cells ``first`` to ``last`` of a source, to be written to ``folder / file``."""

    source: Source
    number: int
    first: int
    last: int
    folder: str
    tokenizer: str
    weights: dict[str, dict[str, float]]
    identity: str

    @property
    def file(self) -> str:
        return f"shard-{self.number:05d}-{self.first:09d}.parquet"

    @property
    def path(self) -> Path:
        return Path(self.folder) / self.file

    def described(self) -> dict[str, Any]:
        """What the shard depends on beside the tokenizer."""
        return {"identity": self.identity, "first": self.first, "last": self.last}


@dataclass(kw_only=True)
class Tally:
    """What is in some cells of a corpus: numbers that can be added up."""

    cells: int = 0
    tokens: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    donors: dict[str, Counter[str]] = field(default_factory=dict)
    depths: Counter[str] = field(default_factory=Counter)
    lengths: Counter[str] = field(default_factory=Counter)
    beyond: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, rows: CellRows, vocabulary: Vocabulary) -> None:
        """Count cells in."""
        self.cells += len(rows)
        self.tokens += int(rows.ids.offsets[-1])
        self.splits.update(rows.splits)
        for name, values in rows.fields.items():
            found = Counter(value for value in values if value is not None)
            if found:
                self.labels.setdefault(name, Counter()).update(found)
        for dataset, donor, split in dict.fromkeys(zip(rows.datasets, rows.donors, rows.splits, strict=True)):
            if donor is not None:
                self.donors.setdefault(f"{dataset}\t{donor}", Counter())[split] = 1
        steps = rows.ids.values[rows.ids.offsets[:-1] + 1] - vocabulary.first_depth
        self.depths.update(Counter(map(str, steps.tolist())))
        self.lengths.update(Counter(map(str, rows.ids.lengths.tolist())))

    def add_beyond(self, counts: sp.csr_matrix, organisms: Sequence[str | None], vocabulary: Vocabulary) -> None:
        """Count in the cells that detect a gene which their species is not known to have: an annotation may have named it all the same."""
        for organism in {name for name in organisms if name}:
            is_of = np.array(organisms, dtype=object) == organism
            cells = np.bincount((counts if is_of.all() else counts[is_of]).indices, minlength=vocabulary.n_genes)
            found = np.flatnonzero(~_known_of(organism, vocabulary) & (cells > 0))
            if len(found):
                self.beyond.setdefault(organism, Counter()).update({vocabulary.genes[column]: int(cells[column]) for column in found})

    def to_dict(self) -> dict[str, Any]:
        return {
            "cells": self.cells, "tokens": self.tokens, "splits": dict(self.splits),
            "labels": {name: dict(sorted(values.items())) for name, values in self.labels.items()},
            "donors": {donor: sorted(splits) for donor, splits in sorted(self.donors.items())},
            "depths": dict(sorted(self.depths.items())), "lengths": dict(sorted(self.lengths.items())),
            "genes_beyond_species": {organism: dict(sorted(genes.items())) for organism, genes in sorted(self.beyond.items())},
        }  # fmt: skip

    def join(self, record: dict[str, Any]) -> None:
        """Add what a record says."""
        self.cells += record["cells"]
        self.tokens += record["tokens"]
        self.splits.update(record["splits"])
        self.depths.update(record["depths"])
        self.lengths.update(record["lengths"])
        for name, values in record["labels"].items():
            self.labels.setdefault(name, Counter()).update(values)
        for donor, splits in record["donors"].items():
            self.donors.setdefault(donor, Counter()).update(dict.fromkeys(splits, 1))
        for organism, genes in record.get("genes_beyond_species", {}).items():
            self.beyond.setdefault(organism, Counter()).update(genes)

    def median_length(self) -> int:
        """Median number of ids of a cell."""
        lengths = sorted((int(length), cells) for length, cells in self.lengths.items())
        upto = np.cumsum([cells for _, cells in lengths])
        return lengths[int(np.searchsorted(upto, (self.cells + 1) // 2))][0] if self.cells else 0


def record_of(shard: Path) -> Path:
    """Where the record of a shard stands."""
    return shard.parent / WORK / f"{shard.stem}.json"


def number_of(file: str) -> int:
    """The number of the source that a shard's cells are of, from the shard's name."""
    return int(file.split("-")[1])


def open_source(source: Source, scratch: str | Path, identity: str = "", *, is_looked_over: bool = False) -> CellStore:
    """The store of a source; kept open for the next block of it in this process, until others or `close_sources` take its place."""
    key = (source.path, tuple(sorted(source.fields.items())), source.organism, source.layer, str(scratch), identity)
    if key not in _stores:
        close_sources(OPEN_AT_ONCE - 1)
        _stores[key] = store_of(source, scratch, is_looked_over=is_looked_over)
    return _stores[key]


def store_of(source: Source, scratch: str | Path, *, is_looked_over: bool = False) -> CellStore:
    """The store of a source, opened anew; what has to be rewritten goes to ``scratch``."""
    Path(scratch).mkdir(parents=True, exist_ok=True)
    return CellStore(
        source.path, fields=source.fields, organism=source.organism, layer=source.layer, scratch=Path(scratch),
        is_looked_over=is_looked_over,
    )  # fmt: skip


def close_sources(most: int = 0) -> None:
    """Close the sources that are open in this process, the oldest first, until at most so many are."""
    while len(_stores) > most:
        _stores.pop(next(iter(_stores))).close()


def survey(source: Source, scratch: str, known: dict[str, Any] | None = None) -> Survey:
    """Look at a source; ``known`` is an earlier survey's content, whose hash is taken over where the source is still the same.

    Raises
    ------
    CellDataError
        When it can't be read, or its split can't be made.
    """
    identity = identity_of(Path(source.path)) if Path(source.path).exists() else ""
    store = open_source(source, scratch, identity)
    sha256 = known["sha256"] if known and known["identity"] == identity else _hash(store.path)
    if source.split.by == "column":
        split_as_said(store.column(source.split.column, 0, store.n_cells), source.split, source.path)
    if source.split.by == "stratified":
        _stratified(store, source.path, source.split)
    if source.split.by == "file":
        split_in_file(source.split, store.n_cells, source.path)
    return Survey(n_cells=store.n_cells, sha256=sha256, identity=identity, findings=store.report.to_dict())


def _hash(path: Path) -> str:
    if path.is_file():
        return file_hash(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listing = "\n".join(f"{file.relative_to(path).as_posix()} {file_hash(file)}" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def is_built(block: Block) -> bool:
    """Whether the block's shard is there, whole, from the source as it is now."""
    try:
        record = json.loads(record_of(block.path).read_text())
        return bool(record["of"] == block.described() and file_hash(block.path) == record["sha256"])
    except (OSError, ValueError, KeyError):
        return False


def build_block(block: Block) -> None:
    """Write a block's shard and its record."""
    store = open_source(block.source, Path(block.folder) / WORK / "scratch", block.identity, is_looked_over=True)
    vocabulary = _vocabulary(block.tokenizer, identity_of(Path(block.tokenizer)))
    onto = vocabulary_columns(store, vocabulary)
    tally = Tally()
    total = within = 0
    with ShardWriter(block.path, FIELDS) as writer:
        for first, last in store.spans(block.first, block.last):
            counts, of_genes = store.counts(first, last, onto, vocabulary.n_genes)
            rows = _rows(block, store, first, last, csentence.encode(counts, vocabulary, is_clean=True), marks_of(counts))
            writer.add(rows)
            tally.add(rows, vocabulary)
            tally.add_beyond(counts, rows.fields["organism"], vocabulary)
            total, within = total + of_genes, within + int(counts.data.sum(dtype=np.int64))
    counted = {"counts": total, "counts_in_vocabulary": within, "doubles": 0}
    write_json(record_of(block.path), {"of": block.described(), "sha256": writer.sha256, **counted, **tally.to_dict()})


@functools.lru_cache(maxsize=2)
def _vocabulary(folder: str, identity: str) -> Vocabulary:
    """The vocabulary of a tokenizer folder, read once until the folder is written anew."""
    return load_vocabulary(folder)


def vocabulary_columns(store: CellStore, vocabulary: Vocabulary) -> npt.NDArray[np.int32]:
    """Vocabulary column of each variable of a store, -1 for what the vocabulary lacks."""
    column_of_row = np.append(vocabulary.columns([str(symbol) for symbol in GeneTable.load().symbols]), -1).astype(np.int32)
    onto: npt.NDArray[np.int32] = column_of_row[store.gene_index]
    if (onto < 0).all():
        raise VocabularyError(f"{store.path}: none of its genes is among the {vocabulary.n_genes:,} of the tokenizer; take another one")
    return onto


def _known_of(organism: str, vocabulary: Vocabulary) -> npt.NDArray[np.bool_]:
    """(n_genes,) genes of the vocabulary that a species is known to have."""
    table = GeneTable.load()
    found: npt.NDArray[np.bool_] = table.is_of(organism)[table.index_of_symbols(vocabulary.genes)]
    return found


def _rows(block: Block, store: CellStore, first: int, last: int, ids: Ragged, prints: npt.NDArray[np.uint64]) -> CellRows:
    labels, names = store.labels(first, last), store.names(first, last)
    datasets = [name or store.path.stem for name in labels.datasets]
    return CellRows(
        ids=ids,
        fields={name: list(labels.fields.get(name) or [None] * len(names)) for name in FIELDS},
        cell_ids=names,
        datasets=datasets,
        donors=labels.donors,
        splits=splits_of(block, store, first, last, labels),
        weights=_weights(block, labels, len(names)),
        fingerprints=prints,
    )


def splits_of(block: Block, store: CellStore, first: int, last: int, labels: FieldSet) -> list[str]:
    """``train``, ``valid`` or ``test`` for each cell of a range, whose labels were read."""
    split, where = block.source.split, block.source.path
    if split.by == "column":
        return split_as_said(store.column(split.column, first, last), split, where)
    if split.by == "file":
        return split_in_file(split, store.n_cells, where)[first:last]
    if split.by == "stratified":
        return _stratified(store, block.source.path, split)[first:last]
    datasets = [name or store.path.stem for name in labels.datasets]
    return split_by_hash(split, cell_ids=store.names(first, last), donors=labels.donors, datasets=datasets, where=where)


def _stratified(store: CellStore, path: str, split: Split) -> list[str]:
    """The split of all cells of a store, drawn once while it is open."""
    drawn = _drawn.setdefault(store, {})
    if split not in drawn:
        column = store.column_of("cell_type")
        if column is None:
            raise CellDataError(f"{path}: split by type, but no column of cell types is known; split by cell, or name it under fields")
        drawn[split] = split_by_type(store.column(column, 0, store.n_cells), split, path)
    return drawn[split]


def _weights(block: Block, labels: FieldSet, n_cells: int) -> npt.NDArray[np.float32]:
    weights = np.full(n_cells, block.source.weight, dtype=np.float32)
    for name, of_label in block.weights.items():
        weights *= np.array([of_label.get(value or "", 1.0) for value in labels.fields.get(name) or [None] * n_cells], dtype=np.float32)
    return weights


def marks_of(counts: sp.csr_matrix) -> npt.NDArray[np.uint64]:
    """(C,) uint64: equal for cells of equal counts, as the doctor tells them; 0 for cells of few genes."""
    found: npt.NDArray[np.uint64] = fingerprints(counts)
    found[np.diff(counts.indptr) < LEAST_GENES_TO_TELL] = 0
    return found
