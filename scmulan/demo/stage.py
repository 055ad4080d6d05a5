"""What every part of the demonstration shares: the model, the cells, the page, and where pictures go."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan.cells import AnnData, Cells
from scmulan.demo.whole import Whole, read_whole
from scmulan.errors import CellDataError, EngineError
from scmulan.evaluate import read_split
from scmulan.evaluate.cells import Judge, fit_judge
from scmulan.report import Report
from scmulan.tasks import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONG_GENES = 1200
"""A data set whose cells have more genes than this, by the median, has long sentences: fewer of its cells are shown."""
NEEDED = ("matplotlib", "umap", "jinja2")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many cells each part of the demonstration uses; the whole is meant to take some five minutes on two cores.

    Attributes
    ----------
    per_type, per_type_long : cells written of a type, and of a type whose cells fill the model's context
    described : cells of which every field is asked
    per_count : cells written for each count of a prompted gene, the type given; ``per_count_open`` with the type left open
    perturbed : cells predicted of each perturbation, of which there are ``knock_outs``
    groups, group_cells : groups of perturbed cells whose perturbation is to be told, and the cells of each
    followed : cells of held-out clones whose later state is written
    enhanced, enhance_draws : thinned cells that are brought back to depth, and the whole cells drawn of each
    screened : cells in which all genes are edited
    indexed, mapped : reference cells of the index, and cells that are looked up in it
    asked : cells that each question in English is about; ``taught`` are the training questions that the plain way of reading knows
    most_held_out : held-out cells to use of each data set, all when None; ``most_held_out_long`` of one with long cells
    """

    per_type: int = 2
    per_type_long: int = 1
    described: int = 30
    per_count: int = 3
    per_count_open: int = 4
    perturbed: int = 120
    knock_outs: int = 3
    groups: int = 12
    group_cells: int = 25
    followed: int = 40
    enhanced: int = 24
    enhance_draws: int = 2
    screened: int = 6
    indexed: int = 400
    mapped: int = 100
    asked: int = 24
    taught: int = 20_000
    most_held_out: int | None = 250
    most_held_out_long: int | None = 15


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A part that this model, or these data, can't show, and why."""

    left_out: str


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One data set: its held-out and training cells, all with a type, and a regression fitted on the latter."""

    name: str
    path: Path
    held: Cells
    train: Cells
    regression: Judge

    @property
    def genes(self) -> npt.NDArray[np.int32]:
        return self.held.measured.astype(np.int32)

    @property
    def types(self) -> list[str]:
        return [str(label) for label in self.held.fields["cell_type"]]

    @property
    def is_mixed(self) -> bool:
        """Whether its training cells are of several types."""
        return len(set(self.train_types)) > 1

    @property
    def train_types(self) -> list[str]:
        return [str(label) for label in self.train.fields["cell_type"]]

    def counts(self, cells: Cells) -> sp.csr_matrix:
        """(C, G) counts over the genes that the data set measured."""
        return sp.csr_matrix(cells.counts[:, self.genes])


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The demonstration under way; ``said`` holds the model's label of each held-out cell, by data set and cell id."""

    model: Model
    datasets: Sequence[Dataset]
    output: Path
    report: Report
    seed: int
    sizes: Sizes
    say: Callable[[str], None]
    said: dict[tuple[str, str], str] = field(default_factory=dict)
    wholes: dict[str, Whole] = field(default_factory=dict)

    def picture(self, figure: Figure, name: str, caption: str) -> None:
        """Save a picture as ``name.png`` and show it on the page."""
        figure.savefig(self.output / f"{name}.png", facecolor="white")
        self.report.figure(figure, caption)

    def of_organ(self, organ: str) -> Dataset | None:
        """The data set with the most training cells of an organ, one of several types before one of a single type; None where no cell of
        any is of it."""
        n = [(dataset.train.fields.get("organ") or []).count(organ) for dataset in self.datasets]
        best = max(range(len(n)), key=lambda k: (n[k] > 0, self.datasets[k].is_mixed, n[k]))
        return self.datasets[best] if n[best] else None

    @property
    def largest(self) -> Dataset:
        """The data set with the most held-out cells, one of several types before one of a single type."""
        return max(self.datasets, key=lambda dataset: (dataset.is_mixed, len(dataset.held)))

    def whole(self, dataset: Dataset) -> Whole:
        """All cells of a data set, read once."""
        if dataset.name not in self.wholes:
            self.wholes[dataset.name] = read_whole(dataset.path)
        return self.wholes[dataset.name]

    def onto(self, adata: AnnData, whole: Whole, layer: str = "counts") -> sp.csr_matrix:
        """Values of cells that the model wrote over the genes that a data set measured; (C, G), 0 of a gene that the model lacks."""
        organism = next((str(value) for value in whole.field("organism") if value), None)
        rows = self.model.table.resolve([str(name) for name in adata.var_names], organism).index
        place = {int(row): column for column, row in enumerate(whole.cells.measured)}
        known = [column for column, row in enumerate(rows) if int(row) in place]
        at = [place[int(rows[column])] for column in known]
        values = sp.csr_matrix(adata.layers[layer])
        onto = sp.csr_matrix((np.ones(len(known), values.dtype), (known, at)), shape=(values.shape[1], len(place)))
        return sp.csr_matrix(values @ onto)

    def skip(self, title: str, reason: str) -> Skipped:
        """Say on the page and on the way that a part is left out, and why."""
        self.report.section(title, f"Left out: {reason}.")
        self.say(f"   left out: {reason}")
        return Skipped(left_out=reason)


def require_plots() -> None:
    """EngineError when a package of the extra ``plots`` is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineError(f"demo: needs {', '.join(missing)}, not installed here; pip install 'scmulan[plots]'")


def open_datasets(paths: Sequence[Path], sizes: Sizes, seed: int, say: Callable[[str], None]) -> list[Dataset]:
    """Read data sets, tell of each what was found, and fit each one's regression."""
    if not paths:
        raise CellDataError("demo: no data set; needed the embedded cells, which belong to the package: install it again")
    found = []
    for path in paths:
        held, train = (_typed(cells) for cells in read_split(path))
        n_all, is_long = len(held), np.median(np.diff(held.counts.indptr)) > LONG_GENES
        most = sizes.most_held_out_long if is_long else sizes.most_held_out
        if most is not None:
            held = held.take(np.sort(np.random.default_rng([seed, 2]).permutation(len(held))[:most]))
        counts = train.counts[:, held.measured]
        regression = fit_judge(counts, [str(label) for label in train.fields["cell_type"]])
        found.append(Dataset(name=path.stem, path=path, held=held, train=train, regression=regression))
        types = len(set(found[-1].types))
        of = f"{len(held):,} of {n_all:,} held-out cells of {types} types"
        say(f"  {path.stem}: {of}, {len(train):,} training cells; {held.report['values'].found}")
    return found


def _typed(cells: Cells) -> Cells:
    """The cells that have a type."""
    return cells.take([row for row, label in enumerate(cells.fields.get("cell_type", ())) if label])
