"""Which cells are trained on and which are held out: fixed by hash, drawn by type, or read from a column or a file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scmulan.corpus.plan import Split
from scmulan.corpus.shards import SPLITS
from scmulan.errors import CellDataError, RecipeError, some


def split_by_hash(split: Split, *, cell_ids: Sequence[str], donors: Sequence[str | None], datasets: Sequence[str], where: str) -> list[str]:
    """``train``, ``valid`` or ``test`` for each cell, by hash of its name, donor or data set; (C,).

    A cell's split depends on no other cell, so blocks of a source, and sources that share donors, are divided alike.

    Raises
    ------
    CellDataError
        When a cell has no donor to be split by.
    """
    keys: dict[str, Sequence[str | None]] = {"cell": cell_ids, "donor": donors, "dataset": datasets}
    if split.by not in keys:
        raise RecipeError(f"{where}: split.by {split.by!r}; needed cell, donor, dataset, stratified or column")
    chosen = list(keys[split.by])
    if None in chosen:
        raise CellDataError(f"{where}: split by {split.by}, but {chosen.count(None):,} cells have none; split by cell or stratified")
    places = {key: _by_hash(f"{split.seed}:{key}", split) for key in dict.fromkeys(chosen)}
    return [places[key] for key in chosen]


def _by_hash(key: str, split: Split) -> str:
    place = int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64
    return "test" if place < split.test else "valid" if place < split.test + split.valid else "train"


def split_by_type(labels: Sequence[str | None], split: Split, where: str) -> list[str]:
    """The split of scikit-learn's ``train_test_split(stratify=labels, random_state=seed)``; (C,)."""
    from sklearn.model_selection import train_test_split

    said = np.full(len(labels), "train", dtype=object)
    types, rest = np.array(labels, dtype=str), np.arange(len(labels))
    for name, share in (("test", split.test), ("valid", split.valid / (1 - split.test))):
        if share:
            try:
                rest, held = train_test_split(rest, test_size=share, stratify=types[rest], random_state=split.seed)
            except ValueError as error:
                raise CellDataError(f"{where}: can't split by type ({error}); split by cell") from None
            said[held] = name
    return [str(name) for name in said]


def split_in_file(split: Split, n_cells: int, where: str) -> list[str]:
    """The split that a text file says, a line a cell; CellDataError where it has other lines than the source has cells."""
    path = Path(split.file or "")
    try:
        said = path.read_text().split()
    except OSError as error:
        raise CellDataError(f"{where}: split by file, but {path}: {error.strerror}") from None
    if len(said) != n_cells:
        raise CellDataError(f"{where}: {path} has {len(said):,} lines for {n_cells:,} cells; needed a line a cell")
    return split_as_said(said, split, where)


def split_as_said(column: Sequence[str | None], split: Split, where: str) -> list[str]:
    """The split that a column of ``obs`` says; CellDataError where it says something else."""
    wrong = sorted({str(value) for value in column} - set(SPLITS))
    if wrong:
        at = f"obs[{split.column!r}]" if split.file is None else split.file
        raise CellDataError(f"{where}: {at} says {some(wrong)}; needed {', '.join(SPLITS)}")
    return [str(value) for value in column]
