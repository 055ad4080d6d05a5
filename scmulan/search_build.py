"""Cells embedded and indexed, from any number of files and stores in bounded memory.

Cells are read, embedded and written a part at a time; a part that is there and fits is not made again, so that a build that was stopped
goes on. The neighbours' graph is then filled from the parts: in memory are its links and the embeddings at half precision, 1.3 KB a cell
at 512 dimensions. Fewer than ``EXACT_TO`` cells need no graph: all are compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import scipy.sparse as sp

from scmulan.adapters_folder import base_of
from scmulan.cells import AnnData, read_cells
from scmulan.cells_on_disk import CellStore
from scmulan.cells_stored import identity_of
from scmulan.corpus.blocks import vocabulary_columns
from scmulan.corpus.shards import file_hash, write_json
from scmulan.errors import CellDataError
from scmulan.metadata import FIELDS
from scmulan.search_folder import (
    CARD,
    FORMAT,
    NEIGHBOURS,
    IndexedCells,
    Parts,
    import_faiss,
    is_part_of,
    states_of,
    write_part,
)
from scmulan.search_nearness import nearness_of
from scmulan.tasks_embedding import EmbeddingSettings

if TYPE_CHECKING:
    from scmulan.tasks import Model

Say = Callable[[str], None]
Source: TypeAlias = str | Path | AnnData
PART_CELLS = 4096
EXACT_TO = 20_000
"""So many cells are compared one by one, at float32, which is fast as a product of matrices; above, a graph (HNSW) is searched."""
LINKS, BUILD_BREADTH = 32, 100
SHOWN = 100


@dataclass(frozen=True)
class _Block:
    """Cells of a source that become a part: how to read them, and what the part depends on."""

    file: str
    of: Mapping[str, Any]
    read: Callable[[], tuple[dict[str, list[str | None]], sp.csr_matrix]]


def index_cells(
    model: Model,
    sources: Sequence[Source],
    output: str | Path,
    *,
    fields: Mapping[str, str] | None = None,
    organism: str | None = None,
    settings: EmbeddingSettings | None = None,
    say: Say = lambda line: None,
) -> Path:
    """Embed reference cells and write an index of them.

    Parameters
    ----------
    sources : ``.h5ad`` files and zarr stores of any size, or AnnData; the labels that they have go into the index
    output : folder; a build that was stopped goes on in it
    fields, organism : as in ``scmulan.read_cells``
    settings : how cells are embedded; the model's default when not given

    Returns
    -------
    The folder, to be opened with ``scmulan.search.CellIndex`` or given to ``Model.search`` and ``Model.transfer``.

    Raises
    ------
    EngineError
        When faiss is not installed.
    CellDataError, VocabularyError
        When a source can't be read.
    """
    faiss, folder = import_faiss(), Path(output)
    if not sources:
        raise CellDataError("no source given; needed one file, store or AnnData at least")
    if folder.exists() and not folder.is_dir():
        raise CellDataError(f"{folder}: a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    settings = settings or EmbeddingSettings()
    made_by = {**made_with(model), "embedding": settings.to_dict()}
    files, told = list[str](), list[dict[str, Any]]()
    for number, source in enumerate(sources):
        name, n_cells = _name_of(source, number), 0
        for block in _blocks(model, source, name, number, made_by, dict(fields or {}), organism):
            if not is_part_of(folder / block.file, block.of):
                texts, counts = block.read()
                write_part(folder / block.file, IndexedCells(texts=texts, states=model.embeddings.of_counts(counts, settings)), block.of)
            files.append(block.file)
            n_cells = int(block.of["last"])
            say(f"{name}: {n_cells:,} cells embedded")
        told.append({"name": name, "path": None if isinstance(source, AnnData) else str(source), "cells": n_cells})
    for path in folder.glob("part-*.parquet"):
        if path.name not in files:
            path.unlink()
    parts = Parts(folder, files)
    _write_neighbours(faiss, parts, folder / NEIGHBOURS, sum(entry["cells"] for entry in told))
    say("neighbours written")
    _write_card(folder, files, made_by, told, parts)
    return folder


def made_with(model: Model) -> dict[str, Any]:
    """The model and adapter in use, as the card of an index tells them."""
    card, adapter = model.checkpoint.card, model.adapter
    return {
        "model": base_of(card, model.checkpoint.folder),
        "adapter": {"name": adapter or "none", "sha256": "none" if adapter is None else model.adapters[adapter].sha256},
    }


def _name_of(source: Source, number: int) -> str:
    return f"AnnData {number + 1}" if isinstance(source, AnnData) else Path(source).name


def _blocks(
    model: Model, source: Source, name: str, number: int, made_by: Mapping[str, Any], fields: dict[str, str], organism: str | None
) -> Iterator[_Block]:
    """The parts that a source becomes."""
    if isinstance(source, AnnData):
        yield from _blocks_in_memory(model, source, name, number, fields, organism)
        return
    with closing(CellStore(source, fields=fields, organism=organism)) as store:
        onto = vocabulary_columns(store, model.vocabulary)
        of_source = {**made_by, "source": name, "identity": identity_of(Path(source)), "fields": fields, "organism": organism}
        for first in range(0, store.n_cells, PART_CELLS):
            last = min(first + PART_CELLS, store.n_cells)

            def read(first: int = first, last: int = last) -> tuple[dict[str, list[str | None]], sp.csr_matrix]:
                spans = list(store.spans(first, last))
                counts = sp.vstack([store.counts(*span, onto, model.vocabulary.n_genes)[0] for span in spans], format="csr")
                labels = store.labels(first, last)
                return _texts(name, store.names(first, last), labels.fields, labels.donors, labels.datasets, store.path.stem), counts

            yield _Block(f"part-{number:05d}-{first:09d}.parquet", {**of_source, "first": first, "last": last}, read)


def _blocks_in_memory(
    model: Model, adata: AnnData, name: str, number: int, fields: dict[str, str], organism: str | None
) -> Iterator[_Block]:
    """The parts of cells in memory, made anew each time, for nothing says whether they are the same."""
    cells = read_cells(adata, fields=fields, organism=organism)
    whole, once = model.read(cells).whole, os.urandom(8).hex()
    for first in range(0, len(cells), PART_CELLS):
        last = min(first + PART_CELLS, len(cells))

        def read(first: int = first, last: int = last) -> tuple[dict[str, list[str | None]], sp.csr_matrix]:
            rows = cells.take(range(first, last))
            return _texts(name, rows.cell_ids, rows.fields, rows.donors, rows.dataset, name), whole[first:last]

        yield _Block(f"part-{number:05d}-{first:09d}.parquet", {"once": once, "first": first, "last": last}, read)


def _texts(
    source: str,
    names: Sequence[str],
    fields: Mapping[str, Sequence[str | None]],
    donors: Sequence[str | None],
    datasets: Sequence[str | None],
    fallback: str,
) -> dict[str, list[str | None]]:
    none: list[str | None] = [None] * len(names)
    return {
        "cell_id": list(names),
        "source": [source] * len(names),
        "dataset": [dataset or fallback for dataset in datasets or none],
        "donor": list(donors or none),
        **{field: list(fields.get(field) or none) for field in FIELDS},
    }


def _write_neighbours(faiss: Any, parts: Parts, path: Path, n_cells: int) -> None:
    """The file that faiss searches, filled a part at a time."""
    index: Any = None
    for states_CD in parts.states():
        if index is None:
            width, halves = states_CD.shape[1], faiss.ScalarQuantizer.QT_fp16
            is_small = n_cells <= EXACT_TO
            index = faiss.IndexFlatL2(width) if is_small else faiss.IndexHNSWSQ(width, halves, LINKS)
            if not is_small:
                index.hnsw.efConstruction = BUILD_BREADTH
            index.train(states_CD)
        index.add(states_CD)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    faiss.write_index(index, str(partial))
    with open(partial, "rb") as handle:
        os.fsync(handle.fileno())
    partial.rename(path)


def _write_card(folder: Path, files: Sequence[str], made_by: Mapping[str, Any], told: list[dict[str, Any]], parts: Parts) -> None:
    from scmulan import __version__

    n_cells = sum(entry["cells"] for entry in told)
    entries = [{"file": name, "sha256": file_hash(folder / name)} for name in files]
    values = {name: _commonest(parts, name) for name in ("organism", "organ", "assay", "lineage", "cell_type")}
    card = {
        "format": FORMAT,
        **made_by,
        "n_cells": n_cells,
        "dimensions": int(states_of(folder / files[0]).shape[1]),
        "search": "all cells" if n_cells <= EXACT_TO else f"HNSW of {LINKS} links",
        "sources": told,
        "labels": values,
        "nearness": nearness_of(parts),
        "parts": entries,
        "neighbours": {"file": NEIGHBOURS, "sha256": file_hash(folder / NEIGHBOURS)},
        "scmulan": __version__,
    }
    write_json(folder / CARD, card)


def _commonest(parts: Parts, name: str) -> dict[str, int]:
    """Cells of each value of a field, the commonest ``SHOWN``."""
    counted = parts.texts([name])[name].combine_chunks().drop_null().value_counts().to_pylist()
    found = sorted(((str(each["values"]), int(each["counts"])) for each in counted), key=lambda pair: (-pair[1], pair[0]))
    return dict(found[:SHOWN])
