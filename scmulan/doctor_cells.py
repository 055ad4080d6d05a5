"""What the cells of a data set are like: depth, mitochondrial share, and those that are empty, doubled, too deep, too shallow or one gene.

Depths are judged within each library (donor, where given) by median and median absolute deviation of their logarithms, as scater's
``isOutlier`` does with three deviations. A deep cell may be a doublet or just a large cell: this tells how many there are, not which.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from scmulan.counts import ONE_SUM
from scmulan.doctor import CellReport
from scmulan.errors import some
from scmulan.genes import GeneTable

DYING = 0.2  # mitochondrial share of a cell's counts above which it looks damaged
MOST_DYING = 0.1  # share of such cells that is worth a warning
DEVIATIONS = 3
FEWEST_CELLS = 50  # of a library, to judge depths by
MANY = 0.03  # share of cells beyond the deviations that is worth a warning; 0.1 % were expected of a log-normal
WIDE = 5_000  # genes measured, from which a cell of fewer counts than `AMBIENT` is no more than what floats in a droplet
AMBIENT = 200
ONE_GENE = 0.5  # share of a cell's counts in one gene
SPOKEN = 50  # counts from which such a share says something


def report_cells(
    report: CellReport, counts: sp.csr_matrix, cell_ids: Sequence[str], repeated: int, measured: np.ndarray, libraries: Sequence[str | None]
) -> None:
    """All findings about cells.

    Parameters
    ----------
    counts
        (n_cells, n_genes) counts over the gene table.
    repeated
        How many names of cells had to be made unique.
    measured
        Rows of the gene table that the data set measured.
    libraries
        What is to be judged by itself, of each cell: its library and type, say; None where unknown.
    """
    depth, genes = np.asarray(counts.sum(axis=1)).ravel(), np.diff(counts.indptr)
    _summary(report, depth, genes)
    _mitochondria(report, counts, depth, measured)
    _empty(report, depth, cell_ids)
    _depth(report, depth, cell_ids, libraries, len(measured))
    _one_gene(report, counts, depth, cell_ids)
    _doubled(report, counts, depth > 0, cell_ids)
    if repeated:
        found = f"{repeated:,} cell names occur more than once; a number was added"
        report.add("cell names", "warning", found, "adata.obs_names_make_unique()", repeated=repeated)


def _summary(report: CellReport, depth: np.ndarray, genes: np.ndarray) -> None:
    middle, low, high = (float(value) for value in np.percentile(depth, (50, 5, 95)))
    median_genes = float(np.median(genes))
    found = f"{len(depth):,}; median {middle:,.0f} counts (nine of ten {low:,.0f} to {high:,.0f}), {median_genes:,.0f} genes"
    report.add("cells", "ok", found, cells=len(depth), median_depth=middle, depth_5=low, depth_95=high, median_genes=median_genes)


def _mitochondria(report: CellReport, counts: sp.csr_matrix, depth: np.ndarray, measured: np.ndarray) -> None:
    is_mitochondrial = _is_mitochondrial()
    n_measured = int(is_mitochondrial[measured].sum())
    if not n_measured:
        report.add("mitochondria", "ok", "no mitochondrial gene was measured", genes=0, median=None, above=None)
        return
    filled = depth > 0
    share = (counts @ is_mitochondrial.astype(np.int64))[filled] / depth[filled]
    median, high = (float(value) for value in np.percentile(share, (50, 95))) if filled.any() else (0.0, 0.0)
    above = int((share > DYING).sum())
    found = f"{median:.1%} of a cell's counts (median of {n_measured} genes), 95 % of cells below {high:.1%}"
    found += f"; {above:,} cells ({above / max(1, len(share)):.1%}) above {DYING:.0%}" if above else ""
    is_odd = median > DYING or (len(measured) >= WIDE and above > MOST_DYING * len(share))
    fix = "damaged cells, unless they are of heart, muscle, kidney or liver: sc.pp.calculate_qc_metrics with qc_vars, then filter"
    report.add("mitochondria", "warning" if is_odd else "ok", found, fix if is_odd else "",
               genes=n_measured, median=median, percentile_95=high, above=above)  # fmt: skip


@functools.lru_cache(maxsize=1)
def _is_mitochondrial() -> np.ndarray:
    return np.array([symbol.startswith("MT-") for symbol in GeneTable.load().symbols])


def _empty(report: CellReport, depth: np.ndarray, cell_ids: Sequence[str]) -> None:
    empty = np.flatnonzero(depth == 0)
    names = some([cell_ids[int(i)] for i in empty[:3]], len(empty))
    if len(empty) and len(empty) == len(depth):
        report.add("empty cells", "problem", f"no cell has any count: {names}", "give the layer with raw counts", empty=len(empty))
    elif len(empty):
        found = f"{len(empty):,} cells without counts, kept: {names}"
        report.add("empty cells", "warning", found, "drop them: sc.pp.filter_cells(adata, min_counts=1)", empty=len(empty))


def _depth(report: CellReport, depth: np.ndarray, cell_ids: Sequence[str], libraries: Sequence[str | None], n_measured: int) -> None:
    """Cells far deeper or shallower than the others of their library."""
    filled = depth > 0
    if filled.sum() < FEWEST_CELLS or depth[filled].std() < ONE_SUM * depth[filled].mean():
        return  # too few to judge by, or all brought to one depth
    high, low = outliers(depth, libraries)
    n_libraries = len({name for name in libraries if name is not None}) or 1
    within = f"the others of their library and type ({n_libraries:,} groups)" if n_libraries > 1 else "the others"
    share = high.sum() / filled.sum()
    found = f"{_cells(high, cell_ids)} far deeper than {within}, as doublets are"
    fix = "tell doublets from large cells: sc.pp.scrublet(adata, batch_key=LIBRARY) on raw counts; then drop obs['predicted_doublet']"
    report.add("deep cells", "warning" if share > MANY else "ok", found, fix if share > MANY else "",
               deep=int(high.sum()), groups=n_libraries)  # fmt: skip
    ambient = (depth < AMBIENT) & filled if n_measured >= WIDE else np.zeros(len(depth), dtype=bool)
    share = (low | ambient).sum() / filled.sum()
    found = f"{_cells(low, cell_ids)} far shallower than {within}"
    found += f"; {ambient.sum():,} below {AMBIENT} counts, as droplets without a cell are" if ambient.any() else ""
    fix = f"drop them: sc.pp.filter_cells(adata, min_counts={AMBIENT if n_measured >= WIDE else 1 + int(depth[low].max(initial=0))})"
    fix = "this looks like the unfiltered matrix of all droplets: give the filtered one" if ambient.sum() > filled.sum() / 2 else fix
    report.add("shallow cells", "warning" if share > MANY else "ok", found, fix if share > MANY else "",
               shallow=int(low.sum()), ambient=int(ambient.sum()))  # fmt: skip


def _cells(chosen: np.ndarray, cell_ids: Sequence[str]) -> str:
    """How many of the cells, their share and some names."""
    if not chosen.any():
        return "no cell is"
    number, names = int(chosen.sum()), some([cell_ids[int(row)] for row in np.flatnonzero(chosen)[:3]])
    return f"{number:,} {'cell' if number == 1 else 'cells'} ({number / len(chosen):.1%}; {names}{' ...' if number > 3 else ''})" + (
        " is" if number == 1 else " are"
    )


def outliers(depth: np.ndarray, libraries: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray]:
    """Cells of far more and far less counts than the median of their library: (n,) bool each.

    Beyond three median absolute deviations (times 1.4826) of the logarithm, and beyond twice or below a quarter of the median. Libraries
    of fewer than 50 cells are judged together, empty cells not at all.
    """
    filled = depth > 0
    names = np.array([str(name) for name in libraries], dtype=object)
    kinds, place, size = np.unique(names, return_inverse=True, return_counts=True)
    place = np.where(size[place] < FEWEST_CELLS, len(kinds), place)
    high, low = np.zeros(len(depth), dtype=bool), np.zeros(len(depth), dtype=bool)
    logarithm = np.log(np.maximum(1, depth))
    for library in np.unique(place):
        rows = np.flatnonzero((place == library) & filled)
        if not len(rows):
            continue
        away = logarithm[rows] - np.median(logarithm[rows])
        limit = DEVIATIONS * 1.4826 * float(np.median(np.abs(away)))
        high[rows], low[rows] = away > max(limit, math.log(2)), away < -max(limit, math.log(4))
    return high, low


def _one_gene(report: CellReport, counts: sp.csr_matrix, depth: np.ndarray, cell_ids: Sequence[str]) -> None:
    """Cells more than half of whose counts are of one gene."""
    filled = np.flatnonzero(np.diff(counts.indptr))
    if not len(filled):
        return
    most = np.maximum.reduceat(counts.data, counts.indptr[filled])
    rows = filled[(most > ONE_GENE * depth[filled]) & (depth[filled] >= SPOKEN)]
    if not len(rows):
        report.add("one-gene cells", "ok", f"no cell has more than {ONE_GENE:.0%} of its counts in one gene", cells=0, genes={})
        return
    columns = [
        int(counts.indices[counts.indptr[row] + np.argmax(counts.data[counts.indptr[row] : counts.indptr[row + 1]])]) for row in rows
    ]
    names, often = np.unique(GeneTable.load().symbols[columns].astype(str), return_counts=True)
    genes: dict[str, int] = {str(names[i]): int(often[i]) for i in np.argsort(-often, kind="stable")}
    found = f"more than {ONE_GENE:.0%} of the counts in one gene: {len(rows):,} of the cells, {_named(rows, cell_ids)}; of {some(genes)}"
    is_odd = len(rows) > MANY * len(depth)
    fix = "look at them before use: red blood cells (HBB), plasma cells (IGKC) and dying cells (MALAT1) do so"
    report.add("one-gene cells", "warning" if is_odd else "ok", found, fix if is_odd else "", cells=len(rows), genes=genes)


def _named(rows: np.ndarray, cell_ids: Sequence[str]) -> str:
    return some([cell_ids[int(row)] for row in rows[:3]], len(rows))


def _doubled(report: CellReport, counts: sp.csr_matrix, filled: np.ndarray, cell_ids: Sequence[str]) -> None:
    marks: dict[int, int] = {}
    prints, rows = fingerprints(counts), np.flatnonzero(filled)
    pairs: list[tuple[int, int]] = []
    if len(np.unique(prints[rows])) == len(rows):
        report.add("doubled cells", "ok", "no two cells have the same counts", doubled=0)
        return
    for row in rows.tolist():
        first = marks.setdefault(int(prints[row]), row)
        if first != row:
            pairs.append((first, row))
    names = some([f"{cell_ids[first]} = {cell_ids[row]}" for first, row in pairs[:3]], len(pairs))
    found = f"{len(pairs):,} cells have exactly the counts of another cell: {names}"
    report.add("doubled cells", "warning", found, "drop them before training or evaluation", doubled=len(pairs))


def fingerprints(counts: sp.csr_matrix) -> np.ndarray:
    """(n_cells,) uint64, equal for cells of equal counts and, but for a chance of 2^-64 a pair, only for those."""
    weights = np.random.default_rng(0).integers(1, 2**63, size=counts.shape[1], dtype=np.uint64)
    terms = weights[counts.indices] * counts.data.astype(np.uint64)
    total = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(terms, dtype=np.uint64)])
    found: np.ndarray = total[counts.indptr[1:]] - total[counts.indptr[:-1]]
    return found
