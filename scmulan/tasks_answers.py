"""Answers about cells: exact probabilities over closed sets of answers, and the likelihood of cells under their fields.

Every allowed answer is scored, so that probabilities are those of the model and add up to 1; nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from scipy.special import log_softmax, softmax

from scmulan.cells import AnnData
from scmulan.csentence import Ids
from scmulan.engines.base import Advance
from scmulan.errors import PromptError
from scmulan.labels import as_answer, choose
from scmulan.metadata import canonical
from scmulan.readout import Readout
from scmulan.tasks_opened import Opened, Ready

GIVEN_TO_ANNOTATE = ("organism", "assay", "organ")
ABSENT = "none"
BY = ("answer", "both")
SURE, POSSIBLE = 0.98, 0.01
"""Of ``annotate(by="both")``: a cell with a label of at least ``SURE`` is left as it is; labels below ``POSSIBLE`` keep their share."""


class Answers:
    """What an opened checkpoint says of cells."""

    def __init__(self, opened: Opened):
        self.opened, self.writer = opened, opened.writer

    def cell_types(
        self,
        ready: Ready,
        *,
        labels: Sequence[str] | None = None,
        given: Sequence[str] = GIVEN_TO_ANNOTATE,
        by: str = "answer",
        readout: bool = True,
        on_cell: Advance | None = None,
    ) -> pd.DataFrame:
        """As ``Model.annotate_ready``."""
        if by not in BY:
            raise PromptError(f"by {by!r}: needed one of {', '.join(BY)}")
        known = self.opened.given(ready.cells, given)
        chosen = choose(labels, "labels") if labels is not None else None
        sets: dict[tuple[str, ...], list[int]] = {}
        for row, fields in enumerate(known):
            sets.setdefault(tuple(chosen or self.labels_for(fields)), []).append(row)
        columns = sorted({label for names in sets for label in names})
        found = pd.DataFrame(0.0, index=range(len(known)), columns=columns)
        for names, rows in sets.items():
            of_rows = [known[row] for row in rows]
            shares = np.exp(self.said_of_types(ready.whole[rows], of_rows, names, on_cell=on_cell))
            if by == "both":
                shares = self._weigh_likelihood(ready, rows, of_rows, names, shares)
            if readout and self.opened.readout is not None:
                shares = _weigh_counts(self.opened.readout, ready, rows, names, shares)
            found.loc[rows, list(names)] = shares
        return found

    def said_of_types(
        self,
        counts: sp.csr_matrix,
        fields: Sequence[Mapping[str, str | None]],
        names: Sequence[str],
        *,
        on_cell: Advance | None = None,
    ) -> npt.NDArray[np.float64]:
        """Log-probabilities of cell types as the model says them, the mean over views of a cell; (C, names).

        Parameters
        ----------
        counts : (C, vocabulary genes) CSR, before any thinning
        fields : (C,) what is known of each cell
        """
        views, scores = self.opened.views(counts), list[npt.NDArray[np.float64]]()
        for number, view in enumerate(views):
            prompts = self.type_prompts([view[row] for row in range(len(view))], fields)
            is_last = number == len(views) - 1
            said = self.opened.engine.score(prompts, self.type_answers(names), on_cell=on_cell if is_last else None)
            scores.append(log_softmax(said, axis=1))
        pooled: npt.NDArray[np.float64] = log_softmax(np.mean(scores, axis=0), axis=1)
        return pooled

    def type_prompts(self, cells: Sequence[Ids], fields: Sequence[Mapping[str, str | None]]) -> list[Ids]:
        """The question for the type of each cell, of which some fields are known."""
        return [self.writer.prompt("annotate", known, cell=cell) for cell, known in zip(cells, fields, strict=True)]

    def type_answers(self, names: Sequence[str]) -> list[Ids]:
        """What the model would answer for each cell type: with its lineage where all of them have one."""
        answers = [as_answer(name) for name in names]
        asked = ["lineage", "cell_type"] if all(answer["lineage"] for answer in answers) else ["cell_type"]
        return [self.writer.answer(answer, asked) for answer in answers]

    def _weigh_likelihood(
        self,
        ready: Ready,
        rows: Sequence[int],
        known: Sequence[Mapping[str, str | None]],
        names: Sequence[str],
        shares_CL: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.float64]:
        """Shares of labels with the likelihood of each cell under its possible labels weighed in; (C, labels)."""
        possible_CL = (shares_CL >= POSSIBLE) & (shares_CL.max(1, keepdims=True) < SURE)
        possible_CL &= possible_CL.sum(1, keepdims=True) > 1
        pairs = np.argwhere(possible_CL)
        prompts = [self.writer.prompt("generate", {**known[cell], **as_answer(names[label])}) for cell, label in pairs]
        nats = self.opened.engine.nats(prompts, [ready.ids[rows[cell]] for cell, _ in pairs], panel=ready.panel)
        weighed_CL = np.where(possible_CL, np.log(np.maximum(shares_CL, 1e-300)), -np.inf)
        for (cell, label), each in zip(pairs, nats, strict=True):
            weighed_CL[cell, label] -= each[2:].sum()  # without <cell> and its depth
        unsure = possible_CL.any(1)
        weighed_CL[unsure] = softmax(weighed_CL[unsure] / 2, axis=1) * (shares_CL * possible_CL)[unsure].sum(1, keepdims=True)
        return np.where(possible_CL, weighed_CL, shares_CL)

    def labels_for(self, fields: Mapping[str, str | None]) -> list[str]:
        """Cell types that the model has seen in an organism and organ; all of them where it has seen none there."""
        place = {name: value for name, value in fields.items() if name in ("organism", "organ") and value}
        return self.opened.seen.values("cell_type", place) or self.opened.seen.values("cell_type")

    def fields(self, adata: AnnData, task: str, names: Sequence[str], on_cell: Advance | None) -> tuple[dict[str, pd.DataFrame], Ready]:
        """Exact joint probabilities of the combinations that were seen, and from them those of each field."""
        seen = self.opened.seen.combinations
        combinations = list(dict.fromkeys(tuple((name, combination.get(name)) for name in names) for combination in seen))
        answers = [self.writer.answer(dict(combination), list(names)) for combination in combinations]
        ready = self.opened.read(adata, reserve=self.opened.reserve(max(len(answer) for answer in answers)))
        prompts = [self.writer.prompt(task, {}, cell=ready.ids[row]) for row in range(len(ready.ids))]
        joint = softmax(self.opened.engine.score(prompts, answers, on_cell=on_cell), axis=1)
        tables = {}
        for place, name in enumerate(names):
            values = [combination[place][1] or ABSENT for combination in combinations]
            tables[name] = pd.DataFrame({value: joint[:, [v == value for v in values]].sum(1) for value in dict.fromkeys(values)})
        return tables, ready

    def nats(
        self, source: AnnData | Ready, fields: Sequence[Mapping[str, str | None]], *, on_cell: Advance | None = None
    ) -> list[npt.NDArray[np.float64]]:
        """As ``Model.nats``."""
        ready = source if isinstance(source, Ready) else self.opened.read(source, reserve=self.opened.reserve())
        prompts = [self.writer.prompt("generate", fields[row]) for row in range(len(ready.ids))]
        return self.opened.engine.nats(prompts, [ready.ids[row] for row in range(len(ready.ids))], panel=ready.panel, on_cell=on_cell)

    def speaks_for(self, adata: AnnData, row: int, label: str, against: str) -> pd.Series:
        """As ``Model.speaks_for``."""
        ready = self.opened.read(adata[[row]].copy(), reserve=self.opened.reserve())
        fields = self.opened.given(ready.cells, GIVEN_TO_ANNOTATE)[0]
        asked = [{**fields, **as_answer(canonical("cell_type", name).value)} for name in (label, against)]
        first, second = (self.opened.engine.nats([self.writer.prompt("generate", f)], [ready.ids[0]], panel=ready.panel)[0] for f in asked)
        ids = ready.ids[0]
        is_gene = ids >= self.opened.vocabulary.first_gene
        names = [self.opened.vocabulary.genes[number - self.opened.vocabulary.first_gene] for number in ids[is_gene]]
        return pd.Series((second - first)[is_gene], index=names).sort_values(ascending=False)


def _weigh_counts(
    readout: Readout, ready: Ready, rows: Sequence[int], names: Sequence[str], shares_CL: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Shares of labels with what a readout says of the counts weighed in; labels that it does not know keep theirs."""
    places = [place for place, name in enumerate(names) if name in readout.labels]
    if len(places) < 2:
        return shares_CL
    said = readout.log_probabilities(ready.whole[rows], [names[place] for place in places], panel=ready.panel)
    own = readout.answer * np.log(np.maximum(shares_CL[:, places], 1e-300))
    weighed_CL = shares_CL.copy()
    weighed_CL[:, places] = np.exp(log_softmax(own + said, axis=1)) * shares_CL[:, places].sum(1, keepdims=True)
    return weighed_CL
