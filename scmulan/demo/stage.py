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

from scmulan.cells import Cells
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
    """How many cells each part of the demonstration uses; the whole is meant to take under four minutes on two cores.

    Attributes
    ----------
    per_type, per_type_long : cells written of a type, and of a type whose cells fill the model's context
    described : cells of which every field is asked
    per_count : cells written for each count of a prompted gene, the type given; ``per_count_open`` with the type left open
    most_held_out : held-out cells to use of each data set, all when None; ``most_held_out_long`` of one with long cells
    """

    per_type: int = 3
    per_type_long: int = 1
    described: int = 40
    per_count: int = 3
    per_count_open: int = 4
    most_held_out: int | None = 500
    most_held_out_long: int | None = 15


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One data set: its held-out and training cells, all with a type, and a regression fitted on the latter."""

    name: str
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

    def picture(self, figure: Figure, name: str, caption: str) -> None:
        """Save a picture as ``name.png`` and show it on the page."""
        figure.savefig(self.output / f"{name}.png", facecolor="white")
        self.report.figure(figure, caption)

    def of_organ(self, organ: str) -> Dataset | None:
        """The data set with the most training cells of an organ; None where no cell of any is of it."""
        n = {number: (dataset.train.fields.get("organ") or []).count(organ) for number, dataset in enumerate(self.datasets)}
        best = max(n, key=lambda number: n[number])
        return self.datasets[best] if n[best] else None

    @property
    def largest(self) -> Dataset:
        """The data set with the most held-out cells."""
        return max(self.datasets, key=lambda dataset: len(dataset.held))


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
        found.append(Dataset(name=path.stem, held=held, train=train, regression=regression))
        types = len(set(found[-1].types))
        of = f"{len(held):,} of {n_all:,} held-out cells of {types} types"
        say(f"  {path.stem}: {of}, {len(train):,} training cells; {held.report['values'].found}")
    return found


def _typed(cells: Cells) -> Cells:
    """The cells that have a type."""
    return cells.take([row for row, label in enumerate(cells.fields.get("cell_type", ())) if label])
