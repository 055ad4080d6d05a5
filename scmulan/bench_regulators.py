"""Known regulators of blood, their fates, their targets: where the model's readings put them, beside rules that need no model.

    ranks     of regulators among genes detected as often, for the fates that they drive: raised in cells of the start, or of all kinds
              but the fate's; deleted in cells of the fate. Beside: log fold change between training cells of fate and start; weights of
              a logistic regression on them
    edges     of the list in ``tokenizer/regulators.tsv``: effect of raising the regulator on the gene's chance, beside co-expression
              in the training cells, and beside how much the gene is expressed, which knows nothing of the regulator
    classes   families of genes told apart by a linear probe on embeddings, beside mean expression and profiles

Ranks are shares of the genes compared that are beaten: 1 is the best, 0.5 is chance. The list was chosen by hand (no public network of
edges is at hand), and all but the expression baseline were learnt from the same labelled cells.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import logsumexp
from scipy.stats import rankdata

from scmulan import tasks_screen
from scmulan.bench_screen import held_out
from scmulan.cells import AnnData, Cells, read_cells
from scmulan.errors import PromptError, nearest
from scmulan.measures.baselines import fit_logistic_regression
from scmulan.measures.counts import log_cp10k
from scmulan.tasks import Model, load
from scmulan.tasks_edits import Action
from scmulan.tasks_goals import labels_of
from scmulan.tasks_regulators import edges_auc, known_regulators

STARTS = {
    "larry_haematopoiesis": "hematopoietic multipotent progenitor cell",
    "zheng_pbmc_facs": "hematopoietic precursor cell",
}
PARTS = ("ranks", "edges", "classes")
CELLS, CONTROLS, LEAST = 10, 200, 3
OF_ALL_KINDS = 2
"""Times as many cells of all kinds as of the start: those of the fate itself are left out."""
FAMILIES = {
    "ribosomal protein": r"RP[LS]\d", "zinc finger": r"ZNF\d", "solute carrier": r"SLC\d", "mitochondrial ribosomal protein": r"MRP[LS]\d",
    "respiratory chain": r"(NDUF|COX\d|UQCR|ATP5)", "proteasome": r"PSM[A-F]\d", "Ras-related": r"(RAB|RHO|RAS|RAP)\d?[A-Z]?\d*[A-Z]?$",
}  # fmt: skip
"""Families of genes by their symbols: no knowledge of cells is in them."""


def regulators(
    *, model: str, device: str, seed: int, n: int | None, only: Sequence[str], say: Callable[[str], None], **_: Any
) -> dict[str, Any]:
    """All parts, or those named, on ``n`` (10) cells a fate of each data set."""
    unknown = [name for name in only if name not in PARTS]
    if unknown:
        raise PromptError(f"--only {unknown[0]!r}: needed one of {', '.join(PARTS)}{nearest(unknown[0], PARTS)}")
    opened, found = load(model, device=device), dict[str, Any]()
    for name in STARTS:
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "ranks": lambda name=name: _ranks(opened, name, n or CELLS, seed),  # type: ignore[misc]
            "edges": lambda name=name: _edges(opened, name, n or CELLS, seed),  # type: ignore[misc]
            "classes": lambda name=name: _classes(opened, name, seed),  # type: ignore[misc]
        }
        for part in only or PARTS:
            found[f"{name}, {part}"] = parts[part]()
            say(f"{name}, {part}: {found[f'{name}, {part}']}")
    return found


def pairs_of(opened: Model, adata: AnnData, possible: Sequence[str], start: str) -> list[tuple[str, str]]:
    """Known regulators with each fate of theirs that the data set has labels of, the start left out; the data must have the gene."""
    ready = opened.read(adata, reserve=opened.opened.reserve())
    has = dict(zip(opened.vocabulary.genes, np.asarray((ready.counts > 0).sum(0)).ravel() >= LEAST, strict=True))
    types = {label for label in ready.cells.fields["cell_type"] if label}
    found = []
    for each in known_regulators():
        for fate in each.fates:
            try:
                labels = labels_of([label for label in possible if label in types], {"cell_type": fate}, "fate")
            except PromptError:
                continue
            found += [(each.symbol, label) for label in labels if has.get(each.symbol) and label != start]
    return sorted(set(found))


def _ranks(opened: Model, name: str, n: int, seed: int) -> dict[str, Any]:
    test, train, start = held_out(name), held_out(name, "train"), STARTS[name]
    known = opened.opened.given(read_cells(test), ("organism", "organ"))[0]
    possible = opened.answers.labels_for(known)
    pairs = pairs_of(opened, test, possible, start)
    ways = {"raised in cells of the start": _raised(opened, test, start, [start, *sorted({fate for _, fate in pairs})], pairs, n, seed)}
    ways["raised in cells of all kinds"] = _raised(opened, test, None, possible, pairs, OF_ALL_KINDS * n, seed)
    ways["slope of raising"] = _sloped(opened, test, start, pairs, n, seed, ways["raised in cells of the start"])
    compared = {fate: table.index for fate, table in ways["raised in cells of the start"].items()}
    ways |= _baselines(train, start, compared)
    ranks = {way: _shares_beaten(tables, pairs) for way, tables in ways.items()}
    ranks["deleted in cells of the fate"] = _shares_beaten(_deleted(opened, test, start, pairs, n, seed), pairs)
    each = {f"{gene} -> {fate}": {way: of[gene, fate] for way, of in ranks.items() if (gene, fate) in of} for gene, fate in pairs}
    means = {way: {"mean": round(float(np.mean(list(of.values()))), 3), "pairs": len(of)} for way, of in ranks.items() if of}
    return {"mean_share_beaten": means, "genes_compared": int(np.mean([len(index) for index in compared.values()])), "each": each}


Tables = dict[str, "pd.Series[float]"]


def _raised(
    opened: Model, adata: AnnData, start: str | None, labels: Sequence[str], pairs: Sequence[tuple[str, str]], n: int, seed: int
) -> Tables:
    """Mean shift of the log-odds of each fate against the start (else all other labels), by gene; all fates are answered about at once."""
    genes, fates = sorted({gene for gene, _ in pairs}), sorted({fate for _, fate in pairs})
    away = None if start is None else {"cell_type": start}
    asked = tasks_screen.ask(opened.answers, adata, {"cell_type": fates[0]}, away, genes, False, n, CONTROLS, seed)
    said = opened.answers.type_answers(labels)
    shift_CNF = np.full((len(asked.rows), len(asked.sets), len(fates)), np.nan)
    for place, part, scores in tasks_screen.answers_to_edits(opened.answers, asked, "raise", said):
        odds = _log_odds(scores, labels, fates, start)
        shift_CNF[place, part] = odds[1:] - odds[0]
    types = asked.ready.cells.fields["cell_type"]
    kinds = np.array([str(types[row]) for row in asked.rows])
    names = [opened.vocabulary.genes[columns[0]] for columns in asked.sets]
    mean_of = {fate: np.nanmean(shift_CNF[kinds != fate, :, place], axis=0) for place, fate in enumerate(fates)}
    return {fate: pd.Series(mean_N, index=names, dtype=float) for fate, mean_N in mean_of.items()}


def _log_odds(scores_NL: npt.NDArray[Any], labels: Sequence[str], fates: Sequence[str], start: str | None) -> npt.NDArray[np.float64]:
    """Log-odds of each fate against the start, or against all other labels together; (N, fates), from log probabilities of labels."""
    scores_NL = np.asarray(scores_NL, np.float64)
    own_NF = scores_NL[:, [labels.index(fate) for fate in fates]]
    if start is None:
        beside_NF = np.stack([logsumexp(np.delete(scores_NL, labels.index(fate), axis=1), axis=1) for fate in fates], axis=1)
    else:
        beside_NF = scores_NL[:, [labels.index(start)]]
    found: npt.NDArray[np.float64] = own_NF - beside_NF
    return found


def _sloped(opened: Model, adata: AnnData, start: str, pairs: Sequence[tuple[str, str]], n: int, seed: int, compared: Tables) -> Tables:
    """The same as the slope foretells it."""
    found: Tables = {}
    for fate in sorted({fate for _, fate in pairs}):
        table = opened.screen(adata, {"cell_type": fate}, start={"cell_type": start}, by="gradient", most_cells=n, seed=seed)
        found[fate] = table["shift"].astype(float).reindex(compared[fate].index)
    return found


def _deleted(opened: Model, adata: AnnData, start: str, pairs: Sequence[tuple[str, str]], n: int, seed: int) -> Tables:
    """Mean loss of the log-odds of each fate when a gene is deleted from cells of that fate, where three cells have it; by gene."""
    found: Tables = {}
    genes = sorted({gene for gene, _ in pairs})
    action: Action = "delete"
    for fate in sorted({fate for _, fate in pairs}):
        table = opened.screen(
            adata, {"cell_type": start}, start={"cell_type": fate}, genes=genes, action=action, most_cells=n, controls=0, seed=seed
        )
        few = table[table["cells"] >= LEAST]
        if not len(few):
            continue
        asked = tasks_screen.ask(
            opened.answers, adata, {"cell_type": start}, {"cell_type": fate}, list(few.index), False, n, CONTROLS, seed
        )
        shift_CN = tasks_screen.by_editing(opened.answers, asked, action, "odds")
        enough = np.isfinite(shift_CN).sum(0) >= LEAST
        names = np.array([opened.vocabulary.genes[columns[0]] for columns in asked.sets])
        mean_N: npt.NDArray[np.float64] = np.nanmean(shift_CN[:, enough], axis=0)
        found[fate] = pd.Series(mean_N, index=names[enough], dtype=float)
    return found


def _baselines(train: AnnData, start: str, compared: dict[str, pd.Index[Any]]) -> dict[str, Tables]:
    """The same genes by log fold change between training cells of fate and start, and by the weights of a logistic regression."""
    cells = read_cells(train)
    symbols, counts = _measured(cells)
    types = np.array([str(label) for label in cells.fields["cell_type"]])
    scaled = counts.multiply(1e4 / np.maximum(np.asarray(counts.sum(1)), 1)).tocsr()
    mean_of = {label: np.asarray(scaled[types == label].mean(0)).ravel() for label in {start, *compared}}
    fitted = fit_logistic_regression(counts, types).model
    weight_of = dict(zip(fitted.classes_.tolist(), fitted.coef_, strict=True))
    fold, weight = {}, {}
    for fate, genes in compared.items():
        change = np.log2((mean_of[fate] + 1) / (mean_of[start] + 1)) if fate in types else np.zeros(len(symbols))
        fold[fate] = pd.Series(change, index=symbols).reindex(genes).fillna(0.0)
        slope = weight_of[fate] - weight_of[start] if fate in weight_of else np.zeros(len(symbols))
        weight[fate] = pd.Series(slope, index=symbols).reindex(genes).fillna(0.0)
    return {"log fold change of training cells": fold, "weight in a logistic regression": weight}


def _measured(cells: Cells) -> tuple[list[str], Any]:
    """Symbols and counts of the genes that a data set measured."""
    from scmulan.genes import GeneTable

    return [str(symbol) for symbol in GeneTable.load().symbols[cells.measured]], cells.counts[:, cells.measured]


def _shares_beaten(tables: Tables, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Share of the other genes compared that a regulator stands above, ties half; by regulator and fate."""
    found = {}
    for gene, fate in pairs:
        table = tables.get(fate)
        if table is None or gene not in table.index or not np.isfinite(table[gene]) or len(table) < 20:
            continue
        known = table.dropna()
        rank = rankdata(known.to_numpy())[known.index.get_loc(gene)]
        found[gene, fate] = round(float((rank - 1) / (len(known) - 1)), 3)
    return found


def _edges(opened: Model, name: str, n: int, seed: int) -> dict[str, Any]:
    """Area under the curve of known edges by each way; the genes are the same for all."""
    test, train = held_out(name), held_out(name, "train")
    edges = [(each.symbol, gene) for each in known_regulators() for gene in each.targets]
    effects = opened.genes.regulators(test, most_cells=3 * n, seed=seed)
    cells = read_cells(train)
    symbols, counts = _measured(cells)
    kept = [gene for gene in effects.columns if gene in symbols]
    places = [symbols.index(gene) for gene in kept]
    logs = log_cp10k(counts)
    by_gene = logs[:, places].toarray()
    own = logs[:, [symbols.index(gene) for gene in effects.index]].toarray()
    together = pd.DataFrame(_correlation(own, by_gene), index=effects.index, columns=kept)
    together = together.where(effects[kept].notna())
    level = pd.DataFrame(np.tile(by_gene.mean(0), (len(effects), 1)), index=effects.index, columns=kept).where(effects[kept].notna())
    ways = {"effect of raising": effects[kept], "co-expression in training cells": together, "mean expression": level}
    found = {way: edges_auc(table, edges) for way, table in ways.items()}
    return {"edges": found["effect of raising"][1], "auc": {way: round(auc, 3) if auc else None for way, (auc, _) in found.items()}}


def _correlation(one_CA: npt.NDArray[np.float32], other_CB: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Pearson correlation over cells; (A, B), 0 where a gene does not vary."""
    scaled = [(part - part.mean(0)) / np.maximum(part.std(0), 1e-9) for part in (one_CA.astype(np.float64), other_CB.astype(np.float64))]
    found: npt.NDArray[np.float64] = scaled[0].T @ scaled[1] / len(one_CA)
    return found


def _classes(opened: Model, name: str, seed: int) -> dict[str, Any]:
    """Probe of the families that have ten genes in the data."""
    adata = held_out(name)
    ready = opened.read(adata, reserve=opened.opened.reserve())
    has = np.asarray((ready.counts > 0).sum(0)).ravel() >= LEAST
    genes = [gene for gene, enough in zip(opened.vocabulary.genes, has, strict=True) if enough]
    classes = {gene: family for family, pattern in FAMILIES.items() for gene in genes if re.match(pattern, gene)}
    families = [family for family in FAMILIES if list(classes.values()).count(family) >= 10]
    probed = opened.genes.probe(adata, {gene: family for gene, family in classes.items() if family in families}, seed=seed)
    found = probed.to_dict()
    found["features"] = {way: {key: round(value, 3) for key, value in of.items()} for way, of in found["features"].items()}
    return found
