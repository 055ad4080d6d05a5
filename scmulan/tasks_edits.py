"""Genes edited in real cells, in silico: what the model then says of the cell. Not an intervention that was learnt.

An edit changes the counts of a cell as if it had been measured otherwise, and asks the model again. What it says is what goes together in
the cells it was trained on; it has seen no cell in which a gene was switched, so this is no forecast of a knockout. (``perturb`` is the
task for that.) The depth of an edited cell stays what it was: depth is how deeply the cell was read, not what it expresses, and one gene
that lifts a cell over the border of half an octave would shift the answer by the depth and not by the gene.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from scipy.special import softmax

from scmulan import csentence
from scmulan.cells import AnnData
from scmulan.cells_writing import annotate_adata
from scmulan.csentence import Ids
from scmulan.engines.base import Advance
from scmulan.engines.transformers_places import readings
from scmulan.errors import PromptError, nearest
from scmulan.labels import choose
from scmulan.tasks_answers import GIVEN_TO_ANNOTATE, Answers
from scmulan.tasks_embedding import Embeddings
from scmulan.tasks_opened import Ready

if TYPE_CHECKING:
    from scmulan.tasks_opened import Opened

ACTIONS = ("delete", "lower", "raise")
FOLD = 4
"""How many times as many counts a raised gene has, and a lowered one fewer; a gene that the cell lacks is raised to so many counts."""
Action = str | int


@dataclass(frozen=True, kw_only=True)
class Edited:
    """What became of cells when genes were edited in them; a reading of the model, not an intervention that was learnt.

    Attributes
    ----------
    genes : what was done, by symbol
    cells : (C, ...) one row a cell: ``changed``, whether the edit did anything; ``cosine`` and ``euclidean``, distances between the
        embeddings before and after; ``log_likelihood``, by how many nats the rest of the cell is likelier than before
    before, after : (C, labels) exact probabilities over the closed set of labels
    embeddings : (C, D) float32, of the edited cells
    without : cells that had nothing to delete or lower, by symbol of the gene
    thinned : how many cells were thinned to fit, before the edit
    """

    genes: dict[str, Action]
    cells: pd.DataFrame
    before: pd.DataFrame
    after: pd.DataFrame
    embeddings: npt.NDArray[np.float32]
    without: dict[str, int]
    thinned: int

    @property
    def shift(self) -> pd.DataFrame:
        """How far each label's probability moved; (C, labels)."""
        return self.after - self.before

    def summary(self) -> dict[str, Any]:
        """Means over the cells that were changed, as plain data; None where none was."""
        changed = self.cells["changed"].to_numpy()
        means = self.cells.loc[changed, ["cosine", "euclidean", "log_likelihood"]].mean()
        moved = self.shift.loc[changed].mean().sort_values(key=abs, ascending=False)
        return {
            "genes": self.genes,
            "cells": len(self.cells),
            "cells_changed": int(changed.sum()),
            "cells_without_the_gene": self.without,
            "cells_thinned_to_fit": self.thinned,
            **{str(name): float(value) if changed.any() else None for name, value in zip(means.index, means, strict=True)},
            "probability_shift": dict(zip(map(str, moved.index), map(float, moved), strict=True)) if changed.any() else None,
        }


def edits_of(opened: Opened, genes: Mapping[str, Action], ready: Ready) -> dict[int, Action]:
    """What to do with which vocabulary column.

    Raises
    ------
    VocabularyError, PromptError
        When a gene is unknown, not of this model, not measured in the cells, given twice, or what to do with it is not said.
    """
    if not genes:
        raise PromptError("no gene given; needed at least one, for example {'GATA1': 'delete'}")
    found: dict[int, Action] = {}
    for name, action in genes.items():
        column = measured_column(opened, name, ready)
        if column in found:
            raise PromptError(f"{name!r}: {opened.vocabulary.genes[column]} is named twice; give each gene once")
        found[column] = _checked(name, action)
    return found


def measured_column(opened: Opened, name: str, ready: Ready) -> int:
    """Vocabulary column of a gene by any of its names; PromptError where the cells' data set did not measure it."""
    organism = next((value for value in ready.cells.fields.get("organism", []) if value), None)
    column = opened.column_of(name, organism)
    if not ready.panel[column]:
        measured = [opened.vocabulary.genes[number] for number in np.flatnonzero(ready.panel)]
        raise PromptError(f"gene {name!r} was not measured in these cells, so it can't be edited there{nearest(name, measured)}")
    return column


def _checked(name: str, action: Action) -> Action:
    if isinstance(action, bool) or not isinstance(action, str | int | np.integer):
        raise PromptError(f"gene {name}: found {action!r}; needed {', '.join(ACTIONS)} or a whole count")
    if isinstance(action, str) and action.isdigit():
        return int(action)
    if isinstance(action, str) and action not in ACTIONS:
        raise PromptError(f"gene {name}: found {action!r}; needed {', '.join(ACTIONS)} or a whole count{nearest(action, ACTIONS)}")
    if not isinstance(action, str) and action < 0:
        raise PromptError(f"gene {name}: a count of {action}; needed 0 (delete) or more")
    return action if isinstance(action, str) else int(action)


def edited_count(count: npt.NDArray[np.int64], action: Action) -> npt.NDArray[np.int64]:
    """Counts after an edit; any shape. A lowered gene stays in the cell, at one count at least.

    >>> [edited_count(np.array([0, 1, 9]), action).tolist() for action in ("delete", "lower", "raise", 5)]
    [[0, 0, 0], [0, 1, 2], [4, 4, 36], [5, 5, 5]]
    """
    if action == "delete":
        return np.zeros_like(count)
    if action == "lower":
        return np.where(count > 0, np.maximum(count // FOLD, 1), 0)
    if action == "raise":
        return np.asarray(np.minimum(np.maximum(count, 1) * FOLD, csentence.LARGEST_COUNT))
    return np.full_like(count, int(action))


def edited(counts_CG: npt.NDArray[np.int64], edits: Sequence[Mapping[int, Action]]) -> npt.NDArray[np.int64]:
    """Counts with the edits of each cell done; dense (C, vocabulary genes)."""
    found = counts_CG.copy()
    for row, of_cell in enumerate(edits):
        for column, action in of_cell.items():
            found[row, column] = edited_count(counts_CG[row, column], action)
    return found


def sentences(counts_CG: npt.NDArray[np.int64], depths: npt.NDArray[np.int64], vocabulary: csentence.Vocabulary) -> list[Ids]:
    """Sentences of edited cells, each at the depth that it had; a cell without any gene left is an empty one."""
    ids = csentence.encode(sp.csr_matrix(counts_CG), vocabulary)
    found = [ids[row].copy() for row in range(len(ids))]
    for cell, depth in zip(found, depths, strict=True):
        cell[1] = depth if len(cell) > 3 else cell[1]
    return found


def edit(
    answers: Answers,
    adata: AnnData,
    genes: Mapping[str, Action],
    *,
    labels: Sequence[str] | None = None,
    key_added: str = "scmulan_edit",
    on_cell: Advance | None = None,
) -> Edited:
    """As ``Model.edit``."""
    opened, n_asked = answers.opened, 2
    ready = opened.read(adata, reserve=opened.reserve() + n_asked * len(genes))
    edits = edits_of(opened, genes, ready)
    counts_CG = ready.counts.toarray().astype(np.int64)
    after_CG = edited(counts_CG, [edits] * len(counts_CG))
    was = [ready.ids[row] for row in range(len(ready.ids))]
    now = sentences(after_CG, np.array([cell[1] for cell in was]), opened.vocabulary)
    known = opened.given(ready.cells, GIVEN_TO_ANNOTATE)
    sets = [tuple(choose(labels, "labels") if labels is not None else answers.labels_for(fields)) for fields in known]
    before, after = (_said(answers, cells, known, sets, adata.obs_names) for cells in (was, now))
    first, second = (Embeddings(opened).of_sentences(cells, on_cell=on_cell) for cells in (was, now))
    columns = list(edits)
    likelier = _rest(answers, was, known, ready, columns) - _rest(answers, now, known, ready, columns)
    changed = (after_CG[:, columns] != counts_CG[:, columns]).any(1)
    cosine = 1 - (first * second).sum(1) / np.maximum(np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1), 1e-12)
    moved = {"cosine": cosine, "euclidean": np.linalg.norm(second - first, axis=1), "log_likelihood": likelier}
    cells = pd.DataFrame({"changed": changed, **{name: np.where(changed, each, 0.0) for name, each in moved.items()}}, adata.obs_names)
    done = {opened.vocabulary.genes[column]: action for column, action in edits.items()}
    lacking = {
        opened.vocabulary.genes[column]: int((counts_CG[:, column] == 0).sum()) for column, act in edits.items() if act in ACTIONS[:2]
    }
    how = opened.provenance(task="edit", genes=done, labels=list(before.columns), cells_without_the_gene=lacking, **opened.losses(ready))
    annotate_adata(adata, {f"{key_added}_{name}": cells[name] for name in cells}, obsm={f"X_{key_added}": second}, uns=how)
    return Edited(genes=done, cells=cells, before=before, after=after, embeddings=second, without=lacking, thinned=int(ready.thinned.sum()))


def _said(
    answers: Answers,
    cells: Sequence[Ids],
    known: Sequence[Mapping[str, str | None]],
    sets: Sequence[tuple[str, ...]],
    index: pd.Index[Any],
) -> pd.DataFrame:
    """Probabilities of labels (C, labels) as the model says them, each cell among its own set; one that was not asked of a cell has 0.

    A readout of counts has no voice, for it would say its own weights.
    """
    columns = sorted({name for names in sets for name in names})
    shares_CL = np.zeros((len(cells), len(columns)))
    for names in dict.fromkeys(sets):
        rows = [row for row, own in enumerate(sets) if own == names]
        prompts = answers.type_prompts([cells[row] for row in rows], [known[row] for row in rows])
        places = [columns.index(name) for name in names]
        shares_CL[np.ix_(rows, places)] = softmax(answers.opened.engine.score(prompts, answers.type_answers(names)), axis=1)
    return pd.DataFrame(shares_CL, index=index, columns=columns)


def _rest(
    answers: Answers, cells: Sequence[Ids], known: Sequence[Mapping[str, str | None]], ready: Ready, columns: Sequence[int]
) -> npt.NDArray[np.float64]:
    """Nats of each cell less those of some genes themselves, being taken or passed by; (C,)."""
    prompts = [answers.writer.prompt("generate", fields) for fields in known]
    nats = answers.opened.engine.nats(prompts, cells, panel=ready.panel)
    own = {row: float(genes.nats.sum()) for row, genes in readings(answers.opened.engine, prompts, cells, columns)}
    return np.array([float(whole.sum()) - own[row] for row, whole in enumerate(nats)])
