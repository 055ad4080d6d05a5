"""Cells as points: hidden states at the places where the answer about a cell would begin, read once and told no label.

An answer to ``annotate`` begins with the lineage, so that ``<lineage>`` after the question is a place that training knows; after it comes
the cell type. The state at each place is brought to length 1 and they stand side by side. A cell's point depends on its counts alone:
the same by itself, batched or shuffled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scmulan import csentence, csentence_thinning
from scmulan.csentence import Ids
from scmulan.engines.base import Advance
from scmulan.errors import PromptError, nearest
from scmulan.metadata import FIELDS
from scmulan.tasks_opened import Opened

QUESTION = "annotate"


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
    """How cells are embedded; distances have a meaning only between cells that were embedded alike.

    Attributes
    ----------
    at : fields at whose opening, right after the question for the cell type, the state is read
    views : thinnings that are averaged of a cell with more genes than a sentence holds; another cell is read once
    """

    at: tuple[str, ...] = ("lineage", "cell_type")
    views: int = 1

    def __post_init__(self) -> None:
        unknown = [name for name in self.at if name not in FIELDS]
        if unknown or not self.at or len(set(self.at)) < len(self.at):
            found = f"{unknown[0]!r}{nearest(unknown[0], FIELDS)}" if unknown else repr(self.at)
            raise PromptError(f"embed at {found}: needed one or more of {', '.join(FIELDS)}, each once")
        if self.views < 1:
            raise PromptError(f"embed: views {self.views}, needed 1 or more")

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> EmbeddingSettings:
        """As `to_dict` wrote them."""
        return cls(at=tuple(stored["at"]), views=int(stored["views"]))

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for a card or the provenance."""
        return {**asdict(self), "at": list(self.at)}


class Embeddings:
    """Points of cells, by an opened checkpoint."""

    def __init__(self, opened: Opened):
        self.opened = opened

    def of_counts(self, counts: sp.csr_matrix, settings: EmbeddingSettings, *, on_cell: Advance | None = None) -> npt.NDArray[np.float32]:
        """Points of cells.

        Parameters
        ----------
        counts : (C, vocabulary genes) CSR, before any thinning

        Returns
        -------
        (C, places x D) float32
        """
        opened = self.opened
        after = self.after(settings)
        states_CPD = np.zeros((counts.shape[0], len(after), 0), dtype=np.float32)
        rows, views = np.arange(counts.shape[0]), np.ones(counts.shape[0])
        for seed in range(settings.views):
            read, thinned = csentence_thinning.thin_to_fit(counts[rows], opened.length - opened.reserve(), seed=seed)
            found_CPD = self._states(csentence.encode(read, opened.vocabulary), after, on_cell if seed == 0 else None)
            if seed == 0:
                states_CPD = found_CPD
                rows = rows[thinned]
            else:
                states_CPD[rows] += found_CPD
                views[rows] += 1
            if not len(rows):
                break
        return as_points((states_CPD / views[:, None, None]).astype(np.float32))

    def of_sentences(self, cells: Sequence[Ids], *, on_cell: Advance | None = None) -> npt.NDArray[np.float32]:
        """Points of cells that are sentences already, by the settings as they are shipped; (C, places x D) float32."""
        return as_points(self._states(cells, self.after(EmbeddingSettings()), on_cell))

    def after(self, settings: EmbeddingSettings) -> list[int]:
        """Ids after the question at which the state is read."""
        return [self.opened.writer.control_id(f"<{name}>") for name in settings.at]

    def question(self, cell: Ids) -> Ids:
        """The question about a cell, no label told."""
        return self.opened.writer.prompt(QUESTION, {}, cell=cell)

    def _states(self, cells: csentence.Ragged | Sequence[Ids], after: Sequence[int], on_cell: Advance | None) -> npt.NDArray[np.float32]:
        return self.opened.engine.hidden([self.question(cells[row]) for row in range(len(cells))], after=after, on_cell=on_cell)


def as_points(states_CPD: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """States at the places of each cell, each brought to length 1, side by side; (C, places x D)."""
    length_CP1 = np.linalg.norm(states_CPD, axis=2, keepdims=True)
    points: npt.NDArray[np.float32] = (states_CPD / np.maximum(length_CP1, 1e-12)).reshape(len(states_CPD), -1)
    return points
