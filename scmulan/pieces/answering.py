"""Cells of a file on disk annotated or embedded in pieces, and a copy of the file with what came of it.

The matrix is never held: cells are read, answered about and kept a piece at a time, and the answers go into a copy of the file on disk.
They are those of the same cells in memory (``Model.annotate``, ``Model.embed``), but for the rounding of how they are batched. What needs
all cells (labels that some pieces never had, the majority of a cluster) is worked out from the kept probabilities at the end.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from scmulan import __version__
from scmulan.cells_grown import Added, added_to_copy
from scmulan.cells_on_disk import CellStore
from scmulan.cells_stored import identity_of, is_zarr
from scmulan.cells_writing import as_column
from scmulan.engines.base import Advance
from scmulan.errors import CellDataError, PromptError, ScmulanWarning, nearest, some
from scmulan.genes import species_of
from scmulan.labels import choose
from scmulan.levels import LEVELS, as_obs, coarsen, terms_of
from scmulan.pieces.carrying import Answer, Opening, Where, carry
from scmulan.pieces.kept import Kept, Piece, kept_beside
from scmulan.tasks import Model
from scmulan.tasks_answers import BY, GIVEN_TO_ANNOTATE
from scmulan.tasks_embedding import EmbeddingSettings
from scmulan.tasks_opened import Ready, warn_of_empty

Done = TypeVar("Done")
PIECE_CELLS = 1024
NAMED = 3
KEY, SPACE = "scmulan_cell_type", "X_scmulan"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file of cells and how it is read.

    Attributes
    ----------
    fields, organism : as in ``scmulan.read_cells``
    """

    path: Path
    fields: Mapping[str, str] = field(default_factory=dict)
    organism: str | None = None

    def open(self, scratch: Path, *, is_looked_over: bool = False) -> CellStore:
        """The file, ready to be read; CellDataError when it can't be."""
        if is_zarr(self.path):
            raise CellDataError(f"{self.path}: a zarr store; needed an .h5ad, whose copy gets the answers")
        return CellStore(self.path, fields=self.fields, organism=self.organism, scratch=scratch, is_looked_over=is_looked_over)

    def of(self) -> dict[str, Any]:
        """What the answers depend on of it."""
        if not self.path.exists():
            beside = [path.name for path in self.path.parent.glob("*.h5ad")]
            raise CellDataError(f"{self.path}: no such file{nearest(self.path.name, beside)}")
        source = {"source": str(self.path), "source, last written": identity_of(self.path)}
        return {**source, "fields": dict(self.fields), "organism": self.organism}


@dataclass(frozen=True, kw_only=True)
class Annotate:
    """Probabilities of cell types; parameters as in ``Model.annotate``."""

    source: Source
    labels: tuple[str, ...] | None = None
    by: str = "answer"
    readout: bool = True

    def __post_init__(self) -> None:
        if self.labels is not None:
            choose(self.labels, "labels")
        if self.by not in BY:
            raise PromptError(f"by {self.by!r}: needed one of {', '.join(BY)}")

    def of(self) -> dict[str, Any]:
        labels = None if self.labels is None else list(self.labels)
        return {"task": "annotate", **self.source.of(), "labels": labels, "by": self.by, "readout": self.readout}

    def begin(self, model: Model, scratch: Path, stack: ExitStack) -> Answer:
        store = stack.enter_context(self.source.open(scratch, is_looked_over=True))
        has_readout = self.readout and model.opened.readout is not None
        how = model.provenance(task="annotate", given=list(GIVEN_TO_ANNOTATE), by=self.by, readout=has_readout)
        never = [] if self.labels is None else sorted(set(choose(self.labels, "labels")) - set(model.seen.values("cell_type")))

        def answer(first: int, last: int, tick: Advance) -> Piece:
            ready = _ready(model, store, first, last)
            table = model.annotate_ready(ready, labels=self.labels, by=self.by, readout=self.readout, on_cell=tick)
            told = {"labels": list(table.columns), "never seen": never, "how": how, **_losses(ready)}
            return Piece(_rows(table.to_numpy()), told)

        return answer


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Embeddings; parameters as in ``Model.embed``."""

    source: Source
    settings: EmbeddingSettings = field(default_factory=EmbeddingSettings)

    def of(self) -> dict[str, Any]:
        return {"task": "embed", **self.source.of(), **self.settings.to_dict()}

    def begin(self, model: Model, scratch: Path, stack: ExitStack) -> Answer:
        store = stack.enter_context(self.source.open(scratch, is_looked_over=True))
        how = model.provenance(task="embed", **self.settings.to_dict())

        def answer(first: int, last: int, tick: Advance) -> Piece:
            ready = _ready(model, store, first, last)
            points = model.embeddings.of_counts(ready.whole, self.settings, on_cell=tick)
            return Piece(_rows(points), {"how": how, **_losses(ready)})

        return answer


@dataclass(frozen=True)
class Annotated:
    """What came of a file: the columns of ``obs`` that were added, and labels that the model knows by their words alone."""

    obs: pd.DataFrame
    never_seen: list[str]


Watch = Callable[[int], Advance]
"""Told of how many cells there are; what it gives is told of cells as they are done."""


def annotate_file(
    opening: Opening,
    source: str | Path,
    output: str | Path,
    *,
    labels: Sequence[str] | None = None,
    threshold: float = 0.0,
    cluster: str | None = None,
    by: str = "answer",
    readout: bool = True,
    level: str | Sequence[str] = "cell_type",
    fields: Mapping[str, str] | None = None,
    organism: str | None = None,
    where: Where = Where(),  # noqa: B008
    size: int = PIECE_CELLS,
    watch: Watch = lambda total: lambda n: None,
) -> Annotated:
    """``Model.annotate`` of a file of any size, into a copy of it; a run that was stopped is gone on with.

    Parameters
    ----------
    opening : the model
    organism : species, where the file does not say it or says it wrong
    where : in this process, or on a Ray cluster
    size : cells of a piece

    Raises
    ------
    CellDataError
        When the file can't be read or the copy not be written; pieces that are finished are kept.
    PromptError
        When ``OUTPUT.parts`` has pieces of another source, model or option.
    """
    asked_labels = None if labels is None else tuple(labels)
    work = Annotate(source=_source(source, fields, organism), labels=asked_labels, by=by, readout=readout)
    if level not in LEVELS:
        terms_of(level)  # says before the work, not after it, that there is no such term

    def check(store: CellStore) -> None:
        if cluster is not None and cluster not in store.columns:
            raise PromptError(f"cluster {cluster!r} is not a column of obs; columns: {some(store.columns, most=8)}")

    def finish(store: CellStore, kept: Kept, added: Added) -> Annotated:
        told = kept.told()
        every = sorted({label for each in told for label in each["labels"]})
        parts, sums = list[dict[str, Any]](), dict[str, npt.NDArray[np.float64]]()
        table = pd.DataFrame()
        for number, each in enumerate(told):
            shares = pd.DataFrame(_matrix(kept.read(number)), columns=each["labels"]).reindex(columns=every, fill_value=0.0)
            table = coarsen(shares, level)
            parts.append(as_obs(table, KEY, threshold))
            if cluster is not None:
                _add(sums, store.column(cluster, *kept.span(number)), table)
        obs = {name: [value for part in parts for value in part[name]] for name in parts[0]}
        if cluster is not None:
            winner = {group: str(table.columns[int(total.argmax())]) for group, total in sums.items()}
            obs[f"{KEY}_cluster"] = [winner[str(group)] for group in store.column(cluster, 0, store.n_cells)]
        at = level if isinstance(level, str) else list(level)
        added.uns({**told[0]["how"], "labels": list(table.columns), "level": at, **_lost(told)})
        return Annotated(_put(added, obs), told[0]["never seen"])

    return _through(work, opening, Path(output), where, size, watch, check, finish)


def embed_file(
    opening: Opening,
    source: str | Path,
    output: str | Path,
    *,
    settings: EmbeddingSettings = EmbeddingSettings(),  # noqa: B008
    organism: str | None = None,
    where: Where = Where(),  # noqa: B008
    size: int = PIECE_CELLS,
    watch: Watch = lambda total: lambda n: None,
) -> tuple[int, int]:
    """``Model.embed`` of a file of any size, into a copy of it; parameters and errors as in `annotate_file`. (cells, dimensions)."""
    work = Embed(source=_source(source, None, organism), settings=settings)

    def finish(store: CellStore, kept: Kept, added: Added) -> tuple[int, int]:
        shape = (store.n_cells, _matrix(kept.read(0)).shape[1])
        told = kept.told()
        added.obsm(SPACE, (_matrix(kept.read(number)) for number in range(len(kept))), shape)
        added.uns({**told[0]["how"], **_lost(told)})
        return shape

    return _through(work, opening, Path(output), where, size, watch, lambda store: None, finish)


def _through(
    work: Annotate | Embed,
    opening: Opening,
    output: Path,
    where: Where,
    size: int,
    watch: Watch,
    check: Callable[[CellStore], None],
    finish: Callable[[CellStore, Kept, Added], Done],
) -> Done:
    """From the file to its copy with the answers."""
    output = output.absolute()
    of = {"scmulan": __version__, **work.of(), **opening.of(), "cells of a piece": size}
    with kept_beside(output, of) as folder, work.source.open(folder) as store:
        check(store)
        _check_organism(store, work.source.organism)
        if not store.has_counts:
            warnings.warn(f"{store.path}: {store.report['values'].found}", ScmulanWarning, stacklevel=3)
        kept = Kept(folder, store.n_cells, size)
        carry(work, opening, functools.cache(opening.open), kept, where, watch(store.n_cells))
        told = kept.told()
        n_empty = sum(each["empty"] for each in told)
        warn_of_empty([name for each in told for name in each["empty, first"]], n_empty, store.n_cells, stacklevel=4)
        with added_to_copy(store.file, output) as added:
            done = finish(store, kept, added)
            if work.source.organism is not None:
                added.obs("organism", pd.Categorical([work.source.organism] * store.n_cells))
        return done


def _source(path: str | Path, fields: Mapping[str, str] | None, organism: str | None) -> Source:
    return Source(path=Path(path).absolute(), fields=dict(fields or {}), organism=organism)


def _check_organism(store: CellStore, given: str | None) -> None:
    """CellDataError where another species is given than the names of the genes are of."""
    finding = store.report["organism"]
    named, said = finding.numbers["named"], species_of(finding.numbers["said"])
    if given is not None and finding.verdict == "warning" and said not in (None, named):
        raise CellDataError(f"{store.path}: {finding.found}; give {named}, or the same cells with genes of {said}")


def _ready(model: Model, store: CellStore, first: int, last: int) -> Ready:
    """A range of cells as the model reads them."""
    cells = store.cells(first, last)
    return model.opened.ready(cells, cells.measured, reserve=model.opened.reserve())


def _losses(ready: Ready) -> dict[str, Any]:
    """What of some cells did not reach the model."""
    counts, known = int(ready.cells.counts.sum()), int(ready.whole.sum())
    empty = ready.empty
    return {"counts": counts, "known": known, "thinned": int(ready.thinned.sum()), "empty": len(empty), "empty, first": empty[:NAMED]}


def _lost(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The same of all cells, as ``Opened.losses`` says it."""
    counts, known, thinned = (sum(each[name] for each in told) for name in ("counts", "known", "thinned"))
    return {"share_of_counts_outside_vocabulary": round(1 - known / max(counts, 1), 6), "cells_thinned_to_fit": thinned}


def _rows(matrix: npt.NDArray[Any]) -> pa.Array:
    flat = np.ascontiguousarray(matrix).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), matrix.shape[1])


def _matrix(piece: Piece) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = piece.values.flatten().to_numpy()
    return values.reshape(len(piece.values), -1)


def _add(sums: dict[str, npt.NDArray[np.float64]], groups: Sequence[str | None], table: pd.DataFrame) -> None:
    """Probabilities summed by group."""
    for group, total in table.groupby(np.array([str(group) for group in groups])).sum().iterrows():
        sums[str(group)] = sums.get(str(group), np.zeros(table.shape[1])) + total.to_numpy()


def _put(added: Added, obs: Mapping[str, Any]) -> pd.DataFrame:
    """Columns into the file, as `scmulan.cells_writing.annotate_adata` writes them."""
    columns = {name: as_column(values, pd.RangeIndex(len(values))) for name, values in obs.items()}
    for name, column in columns.items():
        added.obs(name, column.array if isinstance(column.dtype, pd.CategoricalDtype) else column.to_numpy())
    return pd.DataFrame(columns)
