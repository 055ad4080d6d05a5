"""How much a plan would give before it is built: cells counted, a few of each source read, the rest by proportion.

Cheap beside a build: the files are opened and a few hundred cells of each read. Limit: cells that appear twice are counted twice, and of
a plan with many sources the cells of most are taken from the size of their files.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scmulan.cells_on_disk import CellStore
from scmulan.corpus.blocks import Block, splits_of
from scmulan.corpus.pack import FIRST_FIELDS, SHALLOWER, SHALLOWER_RATES, Packing
from scmulan.corpus.plan import Plan, Source
from scmulan.corpus.sentences import Sentences, mean_keys
from scmulan.csentence import Vocabulary, level_of
from scmulan.genes import GeneTable
from scmulan.prompts import load_prompts
from scmulan.tokenizer import ROW_MULTIPLE, load_vocabulary, tokenizer_folder

MOST_OPENED = 24
RUNS, CELLS_A_RUN = 8, 32
FRAME = 24
"""Ids of a sentence beside its cell: fields with their values, task, bounds; as in the embedded data sets."""
OF_STRUCTURE = 256
"""Ids of a tokenizer that are neither genes nor text, about."""
FILL = 0.99
CHUNKING = {"cpu": 2.8, "gpu": 23.0}
"""Columns that the loss multiplies for each that it needs, because it takes positions together; measured on the embedded data sets."""


@dataclass(frozen=True)
class _Look:
    """What was seen of a source: its cells, the share of them trained on, ids and levels of some (S,), their ids when measured less
    deeply (S,), and the genes that it has."""

    cells: int
    train_share: float
    lengths: npt.NDArray[np.int64]
    levels: npt.NDArray[np.int64]
    shallow: npt.NDArray[np.int64]
    genes: npt.NDArray[np.int64]


def estimate_sentences(plan: Plan, packing: Packing, *, on_gpu: bool) -> tuple[Sentences, Vocabulary]:
    """The training sentences of a plan, and a vocabulary of the size that its tokenizer would have at most.

    Raises
    ------
    CellDataError
        When a source can't be read.
    """
    chosen = np.unique(np.linspace(0, len(plan.sources) - 1, min(MOST_OPENED, len(plan.sources))).astype(int))
    looks = [_look(plan.sources[number], packing) for number in chosen]
    bytes_of = [_size(source) for source in plan.sources]
    scale = sum(bytes_of) / max(sum(bytes_of[number] for number in chosen), 1)
    trained = np.array([look.cells * look.train_share for look in looks])
    times = np.array([_times_seen(plan.sources[number], packing) for number in chosen])
    weights = np.repeat(trained * times / [len(look.lengths) for look in looks], [len(look.lengths) for look in looks])
    drawn = np.random.default_rng(0).choice(len(weights), size=4096, p=weights / weights.sum())
    lengths, levels, shallow = (
        np.concatenate(parts)[drawn] for parts in zip(*((look.lengths, look.levels, look.shallow) for look in looks), strict=True)
    )
    lengths = _with_pairs(lengths, shallow, packing)
    vocabulary = _vocabulary(plan, looks)
    cells, read = round(trained.sum() * scale), (trained * times).sum() * scale
    genes = vocabulary.size - plan.tokenizer.text_size - OF_STRUCTURE if plan.tokenizer.folder is None else vocabulary.n_genes
    needed = CHUNKING["gpu" if on_gpu else "cpu"] * levels.sum() * genes / lengths.sum()
    sentences = Sentences(
        cells=cells, tokens=round(read * lengths.mean()), length=float(lengths.mean()), keys=mean_keys(lengths), fill=FILL,
        columns=float(min(needed, vocabulary.size)), chunk=256 * genes,
        how=f"estimated from {len(weights):,} cells of {len(looks):,} of {len(plan.sources):,} sources; the corpus is not built yet",
    )  # fmt: skip
    return sentences, vocabulary


def _with_pairs(lengths: npt.NDArray[np.int64], shallow: npt.NDArray[np.int64], packing: Packing) -> npt.NDArray[np.int64]:
    """Lengths of sentences where some are of the task that any cell can be put to twice, as it is and measured less deeply; (S,).

    Those about other pairs of cells are not counted, for the labels that make them are not read here.
    """
    tasks = [task for task in load_prompts().tasks.values() if task.weight > 0 and task.first_cell in (None, SHALLOWER)]
    share = sum(task.weight for task in tasks if task.first_cell) / sum(task.weight for task in tasks)
    half = (packing.context - FRAME - FIRST_FIELDS) // 2
    pairs = np.minimum(lengths - FRAME, half) + np.minimum(shallow, half) + FRAME
    return np.where(np.arange(len(lengths)) % 1000 < 1000 * share, pairs, lengths)


def _look(source: Source, packing: Packing) -> _Look:
    table = len(GeneTable.load())
    with (
        tempfile.TemporaryDirectory() as scratch,
        CellStore(
            source.path, fields=source.fields, organism=source.organism, layer=source.layer, scratch=Path(scratch), is_looked_over=True
        ) as store,
    ):
        size = min(CELLS_A_RUN, store.n_cells)
        starts = np.unique(np.linspace(0, store.n_cells - size, RUNS).astype(int)).tolist()
        lengths, levels, shallow = [], [], []
        rate = math.sqrt(math.prod(SHALLOWER_RATES))
        for first in starts:
            counts, _ = store.counts(first, first + size, store.gene_index, table)
            for row in range(size):
                values = counts.data[counts.indptr[row] : counts.indptr[row + 1]]
                levels.append(len(np.unique(level_of(values))))
                lengths.append(min(len(values) + levels[-1] + FRAME, packing.context))
                shallow.append(round(float(-np.expm1(values * np.log1p(-rate)).sum())) + len(np.unique(level_of(np.ceil(values * rate)))))
        known = store.gene_index[store.gene_index >= 0].astype(np.int64)
        return _Look(store.n_cells, _train_share(source, store), np.array(lengths), np.array(levels), np.array(shallow), known)


def _times_seen(source: Source, packing: Packing) -> float:
    """How often a source's cells are seen in an epoch."""
    return source.weight * (packing.dataset_weights or {}).get(Path(source.path).stem, 1.0)


def _train_share(source: Source, store: CellStore) -> float:
    if source.split.by != "column":
        return 1 - source.split.valid - source.split.test
    last = min(store.n_cells, 100_000)
    block = Block(source=source, number=0, first=0, last=last, folder="", tokenizer="", weights={}, identity="")
    return splits_of(block, store, 0, last, store.labels(0, 0)).count("train") / max(last, 1)


def _size(source: Source) -> int:
    path = Path(source.path)
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _vocabulary(plan: Plan, looks: list[_Look]) -> Vocabulary:
    """The tokenizer's own where the plan names one; else one with every gene of the sources, or the most that the plan allows."""
    wanted = plan.tokenizer
    if wanted.folder is not None:
        return load_vocabulary(tokenizer_folder(wanted.folder))
    genes = len(np.unique(np.concatenate([look.genes for look in looks])))
    ids = min(genes, wanted.most_genes or genes) + wanted.text_size + OF_STRUCTURE
    return dataclasses.replace(load_vocabulary(tokenizer_folder("default")), size=ids + -ids % ROW_MULTIPLE)
