"""What cells become: after a perturbation, at a later time, measured more deeply; and which perturbation a change was.

Each question is about two cells, one that is given and one that is asked for. A cell is read and answered about by itself, so that
results are cell by cell and heterogeneity stays. Limit: both cells share the context, so that a cell longer than half of it is thinned.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from scipy.special import log_softmax, logsumexp

from scmulan import csentence
from scmulan.cells import AnnData, Cells
from scmulan.decoding.sampling import Sampling
from scmulan.engines.base import Advance, CellRequest
from scmulan.engines.transformers_likelihood import rated_nats
from scmulan.engines.transformers_places import of_transformers
from scmulan.engines.transformers_rates import counts_along
from scmulan.errors import PromptError, ScmulanWarning
from scmulan.labels import as_answer
from scmulan.metadata import canonical
from scmulan.perturbations import Perturbation, control_label, perturbation_of
from scmulan.rates import RatesOfKind
from scmulan.tasks_opened import Opened, Ready

GIVEN = ("organism", "assay", "organ", "region", "disease", "stage", "sex", "time", "lineage", "cell_type")
"""Fields of the first cell that the model is told where the data have them."""
AFTER = ("perturbation", "dose", "time")
"""Fields of the second cell that a perturbation is asked with."""
FRAME = 64
"""Ids kept free for the fields of the second cell and the tokens around it."""
MOST_FIRSTS = 4
"""Controls that each perturbed cell is compared with, where the task `explain_shift` answers."""
LEAST_SHARE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Cells that were predicted from others.

    Attributes
    ----------
    ready : the cells given, as the model read them
    source : (N,) row of the cell that each was predicted from
    counts : (N, vocabulary genes) CSR, int32
    expected : (N, vocabulary genes) CSR, float32, counts that the model expects along each cell; where they were wanted
    """

    ready: Ready
    source: npt.NDArray[np.int64]
    counts: sp.csr_matrix
    expected: sp.csr_matrix | None = None


def first_room(opened: Opened) -> int:
    """Ids that each of two cells may have."""
    return (opened.length - opened.reserve(0) - FRAME) // 2


class Changes:
    """What an opened checkpoint predicts of cells that change."""

    def __init__(self, opened: Opened):
        self.opened, self.writer, self.vocabulary = opened, opened.writer, opened.vocabulary

    def read(self, cells: AnnData | Cells) -> Ready:
        """Cells as first ones: thinned to half of what a sentence holds."""
        return self.opened.read(cells, reserve=self.opened.length - first_room(self.opened))

    def perturbation(self, given: str | Mapping[str, str]) -> Perturbation:
        """The perturbation asked about; a warning where training cells did not have it."""
        found = perturbation_of(given, self.opened.seen, self.opened.table)
        if not found.is_seen:
            warnings.warn(
                f"no training cell had {found.label!r}: this is a guess by analogy, which was not shown to be better than no change; "
                "perturbations that were learnt: model.seen.values('perturbation')",
                ScmulanWarning,
                stacklevel=4,
            )
        return found

    def rewrite(
        self,
        task: str,
        ready: Ready,
        after: Mapping[str, str | None],
        *,
        n: int | None = None,
        depths: npt.ArrayLike | None = None,
        sampling: Sampling,
        given: Sequence[str] = GIVEN,
        wants_expected: bool = False,
        on_cell: Advance | None = None,
    ) -> Predicted:
        """One cell for each cell given (or for ``n`` of them, drawn evenly), by a task that predicts a cell.

        Parameters
        ----------
        after : fields of the second cell
        depths : (N,) counts to aim at; drawn by the model when not given
        wants_expected : whether the counts that the model expects are told too
        """
        n_given = len(ready.ids)
        source = np.arange(n_given) if n is None else np.resize(np.random.default_rng([sampling.seed, 13]).permutation(n_given), n)
        fields, v = self.opened.given(ready.cells, given), self.vocabulary
        depth_ids = [None] * len(source) if depths is None else (v.first_depth + csentence.depth_of(depths)).tolist()
        requests = [
            CellRequest(
                prompt=self.writer.prompt(task, fields[row], cell=ready.ids[row], after=after),
                row=number,
                depth=depth_ids[number],
                panel=ready.panel,
                rates=self._rates({**fields[row], **after}, task, sampling),
            )
            for number, row in enumerate(source.tolist())
        ]
        written = self.opened.engine.generate(requests, sampling, on_cell=on_cell)
        counts = csentence.decode_many(written, v, np.random.default_rng([sampling.seed, 11]))
        expected = None
        if wants_expected:
            expected = counts_along(of_transformers(self.opened.engine), [each.prompt for each in requests], written)
        return Predicted(ready=ready, source=source.astype(np.int64), counts=counts, expected=expected)

    def _rates(self, fields: Mapping[str, str | None], task: str, sampling: Sampling) -> RatesOfKind | None:
        """Rates of a cell of these fields that a task writes; None where none are wanted, or known of its kind."""
        return self.opened.rates.of_row(fields, task) if sampling.rates and self.opened.rates is not None else None

    def control(self) -> str:
        """How the model calls cells that were not perturbed."""
        label = control_label(self.opened.seen)
        if label is None:
            raise PromptError("this model has learnt from no control cell, so it can't tell what a perturbation changes")
        return label

    def explain(
        self, control: AnnData | Cells, perturbed: AnnData | Cells, labels: Sequence[str], *, seed: int = 0, on_cell: Advance | None = None
    ) -> npt.NDArray[np.float64]:
        """Log-probabilities of perturbations of each perturbed cell; (C, labels).

        Where the model has rates of all of them, by how likely it is that `perturb` would write the cell, which tells them apart better
        than the task `explain_shift` does (`docs/changes.md`); else by that task.
        """
        first, second = self.read(control), self.read(perturbed)
        rng = np.random.default_rng([seed, 17])
        n_firsts = min(MOST_FIRSTS, len(first.ids))
        drawn = np.stack([rng.permutation(np.resize(rng.permutation(len(first.ids)), len(second.ids))) for _ in range(n_firsts)])
        rates = self._rates_of(first, labels)
        if rates is None:
            return self._told(first, second, drawn, labels, on_cell)
        written = -self._nats_as(first, second, drawn[0], labels, rates, on_cell) + np.log(np.maximum(self.shares(labels), LEAST_SHARE))
        found: npt.NDArray[np.float64] = log_softmax(written, axis=1)
        return found

    def _told(
        self, first: Ready, second: Ready, drawn: npt.NDArray[np.int64], labels: Sequence[str], on_cell: Advance | None
    ) -> npt.NDArray[np.float64]:
        """What the task `explain_shift` says of each second cell, over a few first ones each."""
        answers = [self.writer.answer({"perturbation": label}, ["perturbation"]) for label in labels]
        scores = np.empty((len(drawn), len(second.ids), len(labels)))
        for number, rows in enumerate(drawn.tolist()):
            prompts = [
                self.writer.prompt("explain_shift", {}, cell=first.ids[row], after={}, second=second.ids[place])
                for place, row in enumerate(rows)
            ]
            scores[number] = log_softmax(self.opened.engine.score(prompts, answers, on_cell=on_cell if number == 0 else None), axis=1)
        pooled: npt.NDArray[np.float64] = logsumexp(scores, axis=0) - np.log(len(drawn))
        return pooled

    def _rates_of(self, first: Ready, labels: Sequence[str]) -> list[list[RatesOfKind]] | None:
        """Rates of each first cell after each perturbation; None where some are not known."""
        known = self.opened.rates
        if known is None:
            return None
        fields = self.opened.given(first.cells, GIVEN)
        found = [[known.of_row({**of_cell, "perturbation": label}, "perturb") for label in labels] for of_cell in fields]
        whole = [[each for each in of_cell if each is not None] for of_cell in found]
        return whole if all(len(of_cell) == len(labels) for of_cell in whole) else None

    def _nats_as(
        self,
        first: Ready,
        second: Ready,
        drawn: npt.NDArray[np.int64],
        labels: Sequence[str],
        rates: Sequence[Sequence[RatesOfKind]],
        on_cell: Advance | None,
    ) -> npt.NDArray[np.float64]:
        """Nats of each second cell as it would be written from its first one after each perturbation; (C, labels)."""
        engine, fields = of_transformers(self.opened.engine), self.opened.given(first.cells, GIVEN)
        found = np.empty((len(second.ids), len(labels)))
        for place, row in enumerate(drawn.tolist()):
            prompts = [self.writer.prompt("perturb", fields[row], cell=first.ids[row], after={"perturbation": label}) for label in labels]
            found[place] = rated_nats(engine, prompts, second.ids[place], rates[row], panel=second.panel)
            if on_cell:
                on_cell(1)
        return found

    def shares(self, labels: Sequence[str]) -> npt.NDArray[np.float64]:
        """How often each perturbation was asked for in training, as far as the card tells; (labels,), adding up to 1."""
        seen = self.opened.seen
        cells = [
            sum(n for row, n in zip(seen.combinations, seen.cells, strict=True) if row.get("perturbation") == label) for label in labels
        ]
        share: npt.NDArray[np.float64] = np.array(cells, dtype=float) / max(sum(cells), 1)
        return share

    def fates(
        self, cells: AnnData | Cells, time: str, labels: Sequence[str] | None, on_cell: Advance | None = None
    ) -> tuple[pd.DataFrame, Ready]:
        """Probabilities of the cell types that each cell will have at a time; (C, labels)."""
        ready, known = self.read(cells), self.opened.seen
        chosen = [canonical("cell_type", label).value for label in labels] if labels else self._types_at(time)
        answers = [as_answer(label) for label in chosen]
        asked = ["lineage", "cell_type"] if all(answer["lineage"] for answer in answers) else ["cell_type"]
        said = [self.writer.answer(answer, asked) for answer in answers]
        given = [name for name in GIVEN if name not in ("lineage", "cell_type")]
        fields = self.opened.given(ready.cells, given)
        after = {"time": known.known("time", time)}
        prompts = [self.writer.prompt("fate", fields[row], cell=ready.ids[row], after=after) for row in range(len(ready.ids))]
        scores = log_softmax(self.opened.engine.score(prompts, said, on_cell=on_cell), axis=1)
        return pd.DataFrame(np.exp(scores), columns=chosen), ready

    def _types_at(self, time: str) -> list[str]:
        """Cell types of training cells of a time."""
        at = self.opened.seen.known("time", time)
        return self.opened.seen.values("cell_type", {"time": at})
