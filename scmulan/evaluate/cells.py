"""Held-out and training cells on the same genes, and what a model says of them.

Cells without a type, or of a type that was not trained on, can't be measured on: they are left out and counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan.cells import AnnData, Cells, read_cells, read_h5ad
from scmulan.errors import CellDataError, some
from scmulan.measures import baselines
from scmulan.measures.baselines import LogisticBaseline, MajorityClass, Predicted
from scmulan.tasks import Model

MODEL = "scmulan"
WEIGHED = "scmulan, by answer and likelihood"
OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how many cells of it are done, and of how many."""
Source: TypeAlias = str | Path | AnnData | Cells
Judge: TypeAlias = LogisticBaseline | MajorityClass


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Held-out and training cells over the same genes (columns of ``genes``, rows of the gene table), all with a type."""

    held_out: Cells
    train: Cells
    genes: npt.NDArray[np.int32]
    types: list[str]
    train_types: list[str]
    left_out: dict[str, int]

    def counts(self, cells: Cells) -> sp.csr_matrix:
        """(C, G) counts over the genes measured."""
        return sp.csr_matrix(cells.counts[:, self.genes])


def read_split(path: str | Path, column: str = "split", held_out: str = "test") -> tuple[Cells, Cells]:
    """Held-out and training cells of one file, by a column of ``obs`` that says ``train`` or ``test``.

    Raises
    ------
    CellDataError
        When the column is missing or leaves either side empty.
    """
    adata = read_h5ad(path)
    if column not in adata.obs:
        raise CellDataError(f"{path}: no column obs[{column!r}] that says train or {held_out}; columns: {some(adata.obs, most=8)}")
    said = adata.obs[column].astype(str).to_numpy()
    cells = read_cells(adata)
    for name in ("train", held_out):
        if name not in said:
            raise CellDataError(f"{path}: obs[{column!r}] says {some(sorted(set(said)))}; needed train and {held_out}")
    return cells.take(np.flatnonzero(said == held_out)), cells.take(np.flatnonzero(said == "train"))


def pooled(sources: Source | Sequence[Source]) -> Cells:
    """Cells of one or more sources, one after another; a gene that one of them measured counts as measured."""
    many = [sources] if isinstance(sources, str | Path | AnnData | Cells) else list(sources)
    parts = [source if isinstance(source, Cells) else read_cells(source) for source in many]
    if not parts:
        raise CellDataError("no cells given; needed a file or more")
    if len(parts) == 1:
        return parts[0]

    def joined(of: Callable[[Cells], Mapping[str, list[str | None]]]) -> dict[str, list[str | None]]:
        names = dict.fromkeys(name for part in parts for name in of(part))
        return {name: [value for part in parts for value in of(part).get(name) or [None] * len(part)] for name in names}

    return dataclasses.replace(
        parts[0],
        counts=sp.vstack([part.counts for part in parts], format="csr"),
        measured=np.unique(np.concatenate([part.measured for part in parts])).astype(np.int32),
        fields=joined(lambda part: part.fields),
        originals=joined(lambda part: part.originals),
        cell_ids=[name for part in parts for name in part.cell_ids],
        donors=[donor for part in parts for donor in part.donors],
        dataset=[name for part in parts for name in part.dataset],
    )


def shared_ground(model: Model, held_out: Source | Sequence[Source], train: Source | Sequence[Source]) -> Ground:
    """Held-out and training cells on the genes both measured, without the cells that can't be measured on, which are counted."""
    held, known = pooled(held_out), pooled(train)
    types, train_types = (cells.fields.get("cell_type") or [None] * len(cells) for cells in (held, known))
    seen = set(model.seen.values("cell_type"))
    in_train = {label for label in train_types if label}
    why = ["no cell type" if label is None else "type not among the training cells" if label not in in_train
           else "type that the model has not seen" if label not in seen else "" for label in types]  # fmt: skip
    rows, train_rows = [r for r, reason in enumerate(why) if not reason], [r for r, label in enumerate(train_types) if label]
    if not rows:
        raise CellDataError(f"none of {len(held):,} held-out cells can be measured on: {some(why)}; needed types that were trained on")
    return Ground(
        held_out=held.take(rows),
        train=known.take(train_rows),
        genes=np.intersect1d(held.measured, known.measured).astype(np.int32),
        types=[str(types[r]) for r in rows],
        train_types=[str(train_types[r]) for r in train_rows],
        left_out={reason: why.count(reason) for reason in sorted(set(why)) if reason},
    )


def _take(ground: Ground, rows: npt.NDArray[np.int64]) -> Ground:
    return dataclasses.replace(ground, held_out=ground.held_out.take(rows), types=[ground.types[r] for r in rows])


def at_most(ground: Ground, most: int | None, seed: int) -> Ground:
    """At most so many held-out cells: each type keeps its share, and at least one cell."""
    if most is None or len(ground.types) <= most:
        return ground
    rng, types = np.random.default_rng([seed, 3]), np.array(ground.types)
    rows = [rng.permutation(np.flatnonzero(types == label)) for label in np.unique(types)]
    kept = [members[: max(1, round(len(members) * most / len(types)))] for members in rows]
    return _take(ground, np.sort(np.concatenate(kept)))


def at_most_per_type(ground: Ground, most: int | None, seed: int) -> Ground:
    if most is None:
        return ground
    rng, types = np.random.default_rng([seed, 4]), np.array(ground.types)
    return _take(ground, np.sort(np.concatenate([rng.permutation(np.flatnonzero(types == label))[:most] for label in np.unique(types)])))


def fields_of(model: Model, cells: Cells) -> list[dict[str, str | None]]:
    """All fields of each cell whose values the model has seen: the prompts for cells like these."""
    known = {name: set(model.seen.values(name)) for name in model.prompts.fields if name in cells.fields}
    return [{name: value for name in known if (value := cells.fields[name][row]) in known[name]} for row in range(len(cells))]


def fit_judge(counts: sp.csr_matrix, labels: Sequence[str]) -> Judge:
    """Logistic regression on training cells (C, G); where all are of one type, that type is always the answer."""
    return baselines.fit_logistic_regression(counts, labels) if len(set(labels)) > 1 else baselines.fit_majority_class(labels)


def predict(model: Model, cells: Cells, say: OnProgress, what: str, *, by: str = "answer") -> Predicted:
    """The model's labels, chosen among those it saw for each cell's organism and organ; ``by`` as in ``Model.annotate``."""
    table = model.annotate_ready(model.read(cells, reserve=reserve(model)), by=by, on_cell=counter(say, what, len(cells)))
    probabilities = table.to_numpy(dtype=np.float64)
    classes = [str(label) for label in table.columns]
    return Predicted(labels=[classes[k] for k in probabilities.argmax(1)], classes=classes, probabilities=probabilities)


def reserve(model: Model) -> int:
    """Ids kept free for fields and an answer, as the model's own tasks keep them."""
    return model.opened.reserve()


def counter(say: OnProgress, what: str, total: int) -> Callable[[int], None]:
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        say(what, done, total)

    say(what, 0, total)
    return count
