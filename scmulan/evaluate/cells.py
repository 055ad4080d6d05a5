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
import pandas as pd
import scipy.sparse as sp

from scmulan.cells import AnnData, Cells, read_cells, read_h5ad, read_obs
from scmulan.errors import CellDataError, some
from scmulan.measures import baselines
from scmulan.measures.baselines import LogisticBaseline, MajorityClass, Predicted
from scmulan.tasks import Model

MODEL = "scmulan"
WEIGHED = "scmulan, by answer and likelihood"
OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how many cells of it are done, and of how many."""
Judge: TypeAlias = LogisticBaseline | MajorityClass


@dataclass(frozen=True)
class Skipped:
    """Why a section, or ``what`` of it, can't be measured on these cells or by this model."""

    reason: str
    what: str = ""


@dataclass(frozen=True, kw_only=True)
class Side:
    """Held-out or training cells, and columns of their ``obs`` that are no field, such as clones: None where a source lacks one."""

    cells: Cells
    columns: Mapping[str, list[str | None]]

    def column(self, name: str) -> list[str | None]:
        """A value for each cell."""
        return self.columns.get(name) or [None] * len(self.cells)

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Side:
        """The cells at some positions."""
        chosen = [int(row) for row in rows]
        return Side(cells=self.cells.take(chosen), columns={name: [values[row] for row in chosen] for name, values in self.columns.items()})


Source: TypeAlias = str | Path | AnnData | Cells | Side


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
    held, train = divide(path, column, held_out=held_out)
    return held.cells, train.cells


def divide(path: str | Path, column: str = "split", *, held_out: str = "test", names: Sequence[str] = ()) -> tuple[Side, Side]:
    """As `read_split`, with some further columns of ``obs``."""
    adata = read_h5ad(path)
    if column not in adata.obs:
        raise CellDataError(f"{path}: no column obs[{column!r}] that says train or {held_out}; columns: {some(adata.obs, most=8)}")
    said = adata.obs[column].astype(str).to_numpy()
    side = Side(cells=_named(read_cells(adata), Path(path)), columns=_columns(adata.obs, names))
    for name in ("train", held_out):
        if name not in said:
            raise CellDataError(f"{path}: obs[{column!r}] says {some(sorted(set(said)))}; needed train and {held_out}")
    return side.take(np.flatnonzero(said == held_out)), side.take(np.flatnonzero(said == "train"))


def gather(sources: Source | Sequence[Source], names: Sequence[str] = ()) -> Side:
    """Cells of one or more sources, one after another, with some columns of ``obs`` where a source has an ``obs``."""
    sides = [_side(source, names) for source in _many(sources)]
    columns = {name: [value for side in sides for value in side.column(name)] for name in names}
    return Side(cells=pooled([side.cells for side in sides]), columns=columns)


def _side(source: Source, names: Sequence[str]) -> Side:
    if isinstance(source, Side):
        return source
    if isinstance(source, Cells):
        return Side(cells=source, columns={})
    cells = read_cells(source)
    obs = source.obs if isinstance(source, AnnData) else read_obs(source) if names else pd.DataFrame()
    return Side(cells=cells, columns=_columns(obs, names))


def _columns(obs: pd.DataFrame, names: Sequence[str]) -> dict[str, list[str | None]]:
    return {name: [None if pd.isna(value) else str(value) for value in obs[name]] for name in names if name in obs}


def _named(cells: Cells, path: Path) -> Cells:
    """A file's cells with its name where they say no data set, so that cells of several files are not taken for one."""
    return dataclasses.replace(cells, dataset=[path.stem if name == "unnamed" else name for name in cells.dataset])


def _many(sources: Source | Sequence[Source]) -> list[Source]:
    return [sources] if isinstance(sources, str | Path | AnnData | Cells | Side) else list(sources)


def pooled(sources: Source | Sequence[Source]) -> Cells:
    """Cells of one or more sources, one after another; a gene that one of them measured counts as measured."""
    parts = [_side(source, ()).cells for source in _many(sources)]
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


def of_dataset(train: Side, held: Side, name: str) -> tuple[Side, int]:
    """Training cells and then held-out cells of one data set, on the genes both sides measured and any of them has; and how many train.

    Where no training cell is of a data set of that name, as when two files are named for their sides, all of them are taken.
    """
    known = train if name not in train.cells.dataset else _of_name(train, name)
    sides = [known, _of_name(held, name)]
    cells = pooled([side.cells for side in sides])
    genes = np.intersect1d(train.cells.measured, held.cells.measured)
    genes = genes[np.asarray(cells.counts[:, genes].sum(0)).ravel() > 0].astype(np.int32)
    columns = {each: [value for side in sides for value in side.column(each)] for each in {*train.columns, *held.columns}}
    return Side(cells=dataclasses.replace(cells, measured=genes), columns=columns), len(sides[0].cells)


def _of_name(side: Side, name: str) -> Side:
    return side.take([row for row, dataset in enumerate(side.cells.dataset) if dataset == name])


def shared_ground(model: Model, held_out: Source | Sequence[Source], train: Source | Sequence[Source]) -> Ground:
    """Held-out and training cells on the genes both measured, without the cells that can't be measured on, which are counted.

    Raises
    ------
    CellDataError
        When no held-out cell has a type that is also among the training cells.
    """
    found = find_ground(model, pooled(held_out), pooled(train))
    if isinstance(found, Skipped):
        raise CellDataError(found.reason)
    return found


def find_ground(model: Model, held: Cells, known: Cells) -> Ground | Skipped:
    """As `shared_ground`, or why there is none."""
    types, train_types = (cells.fields.get("cell_type") or [None] * len(cells) for cells in (held, known))
    seen = set(model.seen.values("cell_type"))
    in_train = {label for label in train_types if label}
    why = ["no cell type" if label is None else "type not among the training cells" if label not in in_train
           else "type that the model has not seen" if label not in seen else "" for label in types]  # fmt: skip
    rows, train_rows = [r for r, reason in enumerate(why) if not reason], [r for r, label in enumerate(train_types) if label]
    if not rows:
        return Skipped(f"none of {len(held):,} held-out cells can be measured on: {some(why)}; needed types that were trained on")
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
    return _take(ground, evenly(ground.types, most, seed))


def evenly(labels: Sequence[str], most: int, seed: int) -> npt.NDArray[np.int64]:
    """Rows of about ``most`` cells at most: each type keeps its share, and at least one cell."""
    if len(labels) <= most:
        return np.arange(len(labels))
    rng, types = np.random.default_rng([seed, 3]), np.array(labels)
    rows = [rng.permutation(np.flatnonzero(types == label)) for label in np.unique(types)]
    return np.sort(np.concatenate([members[: max(1, round(len(members) * most / len(types)))] for members in rows]))


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


def spread(counts: sp.csr_matrix, genes: npt.NDArray[np.int32], n: int) -> sp.csr_matrix:
    """Counts over some rows of the gene table as counts over all ``n`` of it."""
    flat = counts.tocoo()
    return sp.csr_matrix((flat.data, (flat.row, genes[flat.col])), shape=(counts.shape[0], n))


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
