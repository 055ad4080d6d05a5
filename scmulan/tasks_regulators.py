"""What editing a regulator does to the chance of every other gene, cell by cell, in the model's reading.

A gene's chance is read where the cell's sentence comes to it (`scmulan.engines.transformers_places`), the rest of the cell staying as it
was. Two limits follow. The sentence goes from high counts to low, so a regulator bears on the genes below it alone; raised, it stands
above most. And what the model knows is which genes go together: a marker of the same kind of cell moves a gene as a regulator of it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from scmulan import assets
from scmulan.cells import AnnData
from scmulan.csentence import Ids
from scmulan.engines.base import Advance
from scmulan.engines.transformers_places import readings
from scmulan.errors import PromptError, nearest
from scmulan.genes import GeneTable
from scmulan.tasks_answers import GIVEN_TO_ANNOTATE, Answers
from scmulan.tasks_edits import ACTIONS, Action, edited, edited_count, measured_column, sentences
from scmulan.tasks_opened import Ready

MOST_CELLS = 50
LEAST_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class Regulator:
    """A transcription factor with the cell types that it is known to drive and some genes that it is known to act on, by symbol."""

    symbol: str
    fates: tuple[str, ...]
    targets: tuple[str, ...]
    sources: str


@cache
def known_regulators() -> tuple[Regulator, ...]:
    """Regulators of blood formation from ``tokenizer/regulators.tsv``: chosen by hand, a list to test with.

    >>> known_regulators()[0].symbol, known_regulators()[0].fates[:2]
    ('GATA1', ('erythroid lineage cell', 'megakaryocyte'))
    """
    table = GeneTable.load()
    found = []
    for line in assets.path("tokenizer", "regulators.tsv").read_text().splitlines()[1:]:
        symbol, fates, targets, sources = line.split("\t")
        of_today = table.symbols[table.resolve([symbol, *targets.split(";")], "Homo sapiens").index]
        others = tuple(dict.fromkeys(str(gene) for gene in of_today[1:] if gene != of_today[0]))
        found.append(Regulator(symbol=str(of_today[0]), fates=tuple(fates.split(";")), targets=others, sources=sources))
    return tuple(found)


def regulators(
    answers: Answers,
    adata: AnnData,
    tfs: Sequence[str] | None = None,
    *,
    action: Action = "raise",
    most_cells: int = MOST_CELLS,
    seed: int = 0,
    on_cell: Advance | None = None,
) -> pd.DataFrame:
    """As ``Model.regulators``."""
    opened, vocabulary = answers.opened, answers.opened.vocabulary
    if action not in ACTIONS and not (isinstance(action, int) and action > 0):
        raise PromptError(f"action {action!r}: needed {', '.join(ACTIONS)} or a whole count{nearest(str(action), ACTIONS)}")
    ready = opened.read(adata, reserve=opened.reserve() + 2)
    columns = _columns(answers, ready, tfs)
    rng = np.random.default_rng([seed, 31])
    rows = np.sort(rng.permutation(len(ready.ids))[:most_cells])
    counts_CG = ready.counts[rows].toarray().astype(np.int64)
    genes = np.flatnonzero(np.asarray((ready.counts > 0).mean(0)).ravel() >= LEAST_SHARE)
    known = [opened.given(ready.cells, GIVEN_TO_ANNOTATE)[row] for row in rows]
    prompts = [opened.writer.prompt("generate", fields) for fields in known]
    was = [ready.ids[row] for row in rows]
    before_CG = _log_hazards(answers, prompts, was, genes, on_cell)
    effects, changed = np.full((len(columns), len(genes)), np.nan), np.zeros(len(columns), np.int64)
    for place, column in enumerate(columns):
        at = np.flatnonzero(edited_count(counts_CG[:, column], action) != counts_CG[:, column])
        changed[place] = len(at)
        if on_cell:
            on_cell(len(rows) - len(at))
        if not len(at):
            continue
        now = sentences(edited(counts_CG[at], [{column: action}] * len(at)), np.array([was[row][1] for row in at]), vocabulary)
        after_CG = _log_hazards(answers, [prompts[row] for row in at], now, genes, on_cell)
        effects[place] = (after_CG - before_CG[at]).mean(0)
        effects[place, genes == column] = np.nan  # its own chance is what was edited
    symbols = [vocabulary.genes[column] for column in columns]
    table = pd.DataFrame(effects, index=pd.Index(symbols, name="regulator"), columns=[vocabulary.genes[gene] for gene in genes])
    table.attrs |= {"cells": dict(zip(symbols, changed.tolist(), strict=True)), "action": action, **opened.losses(ready)}
    return table


def _columns(answers: Answers, ready: Ready, tfs: Sequence[str] | None) -> list[int]:
    """Columns of the regulators asked for, or of the known ones that the cells have."""
    if tfs is not None:
        if not tfs:
            raise PromptError("no regulator given; needed at least one gene, or None for the known ones")
        return list(dict.fromkeys(measured_column(answers.opened, name, ready) for name in tfs))
    has = np.asarray((ready.counts > 0).sum(0)).ravel() > 0
    of = answers.opened.vocabulary.column_of
    found = [of[each.symbol] for each in known_regulators() if each.symbol in of and has[of[each.symbol]]]
    if not found:
        raise PromptError(
            "the cells have none of the regulators in tokenizer/regulators.tsv, which are of blood; needed tfs, a list of genes"
        )
    return found


def _log_hazards(
    answers: Answers, prompts: Sequence[Ids], cells: Sequence[Ids], genes: npt.NDArray[np.int64], on_cell: Advance | None
) -> npt.NDArray[np.float64]:
    """Logarithm of each gene's cumulative hazard along each cell; (cells, genes)."""
    found = np.zeros((len(cells), len(genes)))
    for row, each in readings(answers.opened.engine, prompts, cells, genes, on_cell=on_cell):
        found[row] = np.log(np.maximum(each.hazard, 1e-12))
    return found


def edges_auc(effects: pd.DataFrame, edges: Sequence[tuple[str, str]]) -> tuple[float | None, int]:
    """How often a known edge has a stronger effect, of either sign, than a gene of its regulator that is none; and of how many edges.

    Parameters
    ----------
    effects : (regulators, genes), NaN where unknown
    edges : (regulator, gene) by symbol; those that the table lacks are left out

    Returns
    -------
    Area under the ROC curve, the mean over edges; None where no edge is in the table.
    """
    shares = []
    for name in effects.index:
        strength = effects.loc[name].abs().dropna()
        is_edge = strength.index.isin([gene for regulator, gene in edges if regulator == name])
        n, m = int(is_edge.sum()), int((~is_edge).sum())
        if n and m:
            within = rankdata(strength.to_numpy()[is_edge])
            shares += list((rankdata(strength.to_numpy())[is_edge] - within) / m)
    return (float(np.mean(shares)), len(shares)) if shares else (None, 0)
