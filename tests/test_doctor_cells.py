"""The doctor counts cells that are empty, doubled, too deep, too shallow, of one gene or dying, and says nothing where there are none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

from scmulan.cells import check
from scmulan.doctor_cells import AMBIENT, WIDE, fingerprints, outliers
from scmulan.genes import GeneTable

TABLE = GeneTable.load()
HUMAN_GENES = [str(symbol) for symbol in TABLE.symbols[TABLE.is_human & (TABLE.locus_groups == "protein-coding gene")]]
MITOCHONDRIAL = ["MT-ND1", "MT-CO1"]
NAMES = [*MITOCHONDRIAL, *[name for name in HUMAN_GENES if not name.startswith("MT-")][: WIDE + 200]]


def depths(n_cells: int = 300, sd: float = 0.3) -> np.ndarray:
    return np.random.default_rng(0).lognormal(7.5, sd, n_cells)


def some_cells(depth: np.ndarray, n_genes: int = 300, **obs: list[str]) -> AnnData:
    rng = np.random.default_rng(1)
    rate = rng.lognormal(0, 1, n_genes)
    counts = rng.poisson(depth[:, None] * rate / rate.sum())
    counts[:, :2] = 0
    frame = pd.DataFrame({"tissue": "blood", **obs}, index=[f"c{row}" for row in range(len(depth))])
    return AnnData(sp.csr_matrix(counts, dtype=np.float32), obs=frame, var=pd.DataFrame(index=NAMES[:n_genes]))


def test_cells_like_each_other_have_nothing_to_warn_of() -> None:
    report = check(some_cells(depths()))
    questions = ["cells", "mitochondria", "deep cells", "shallow cells", "one-gene cells", "doubled cells"]
    assert {report[question].verdict for question in questions} == {"ok"}
    assert "empty cells" not in report
    assert report.to_text().endswith("Usable; nothing to mend.")


def test_cells_as_deep_as_several_are_counted_and_scrublet_is_named() -> None:
    depth = depths()
    depth[:15] *= 6
    finding = check(some_cells(depth))["deep cells"]
    assert (finding.verdict, finding.numbers["deep"]) == ("warning", 15)
    assert "'c0', 'c1', 'c2' ..." in finding.found
    assert "sc.pp.scrublet" in finding.fix


def test_a_few_deep_cells_are_told_but_not_warned_of() -> None:
    depth = depths()
    depth[4] *= 8
    finding = check(some_cells(depth))["deep cells"]
    assert (finding.verdict, finding.numbers["deep"], finding.fix) == ("ok", 1, "")


def test_each_library_and_type_is_judged_by_itself() -> None:
    depth = depths(sd=0.15)
    depth[150:] *= 20
    assert check(some_cells(depth))["deep cells"].numbers["deep"] == 0  # half and half: the deviation is wide
    depth[:10] *= 6
    libraries = ["a"] * 150 + ["b"] * 150
    assert check(some_cells(depth, donor=libraries))["deep cells"].numbers == {"deep": 10, "groups": 2}
    assert check(some_cells(depth, cell_type=["B cell"] * 150 + ["T cell"] * 150))["deep cells"].numbers["deep"] == 10


def test_small_libraries_are_judged_together() -> None:
    high, low = outliers(np.array([1000.0] * 40 + [1010.0] * 39 + [9000.0]), [str(row // 10) for row in range(80)])
    assert high.tolist() == [False] * 79 + [True]
    assert not low.any()


@given(st.lists(st.integers(0, 10**6), max_size=80), st.integers(1, 5))
def test_outliers_are_never_empty_cells_nor_both_deep_and_shallow(depth: list[int], n_libraries: int) -> None:
    high, low = outliers(np.array(depth, dtype=float), [f"{row % n_libraries}" for row in range(len(depth))])
    assert not (high & low).any()
    assert not (high | low)[np.array(depth, dtype=int) == 0].any()


def test_shallow_cells_are_counted_with_the_depth_to_filter_by() -> None:
    depth = depths()
    depth[:15] /= 12
    finding = check(some_cells(depth))["shallow cells"]
    assert (finding.verdict, finding.numbers["shallow"], finding.numbers["ambient"]) == ("warning", 15, 0)
    assert "sc.pp.filter_cells(adata, min_counts=" in finding.fix


def test_droplets_without_a_cell_are_told_and_the_unfiltered_matrix_is_named() -> None:
    depth = depths(120)
    depth[:80] = AMBIENT / 4
    finding = check(some_cells(depth, n_genes=WIDE + 200))["shallow cells"]
    assert finding.numbers["ambient"] == 80
    assert "the unfiltered matrix of all droplets" in finding.fix


def test_cells_brought_to_one_depth_are_not_judged_by_it() -> None:
    adata = some_cells(depths())
    adata.X = sp.csr_matrix(np.random.default_rng(0).multinomial(500, np.full(300, 1 / 300), 300), dtype=np.float32)
    report = check(adata)
    assert "deep cells" not in report
    assert report["values"].found.endswith("every cell has exactly 500, so they were downsampled")


def test_rounded_shares_are_not_taken_for_counts_in_silence() -> None:
    rng = np.random.default_rng(0)
    shares = rng.lognormal(0, 1, (40, 300))
    adata = some_cells(depths(40))
    adata.X = np.rint(shares / shares.sum(axis=1, keepdims=True) * 1e6)
    finding = check(adata)["values"]
    assert finding.verdict == "warning"
    assert "every cell sums to about 1,000,000: rounded TPM or CPM" in finding.found


def test_cells_of_one_gene_are_counted_with_the_gene() -> None:
    adata = some_cells(depths())
    dense = adata.X.toarray()
    dense[:12, 7] = 50_000
    adata.X = dense
    finding = check(adata)["one-gene cells"]
    assert (finding.verdict, finding.numbers["cells"]) == ("warning", 12)
    assert finding.numbers["genes"] == {str(TABLE.symbols[TABLE.resolve([NAMES[7]]).index[0]]): 12}


@pytest.mark.parametrize(("share", "n_genes", "verdict"), [(0.3, WIDE + 200, "warning"), (0.05, WIDE + 200, "ok")])
def test_mitochondrial_shares_are_told_of_cells_not_of_their_sum(share: float, n_genes: int, verdict: str) -> None:
    adata = some_cells(depths(80), n_genes=n_genes)
    dense = adata.X.toarray()
    dense[:20, 0] = np.rint(dense[:20].sum(axis=1) * share / (1 - share))
    adata.X = dense
    finding = check(adata)["mitochondria"]
    assert (finding.verdict, finding.numbers["above"]) == (verdict, 20 if share > 0.2 else 0)
    assert finding.numbers["genes"] == 2


def test_a_panel_without_mitochondrial_genes_says_so() -> None:
    adata = some_cells(depths())[:, 2:].copy()
    assert check(adata)["mitochondria"].found == "no mitochondrial gene was measured"


def test_doubled_cells_are_named_in_pairs() -> None:
    adata = some_cells(depths())
    dense = adata.X.toarray()
    dense[9], dense[30] = dense[4], dense[4]
    adata.X = dense
    finding = check(adata)["doubled cells"]
    assert finding.numbers["doubled"] == 2
    assert "'c4 = c9', 'c4 = c30'" in finding.found


def test_fingerprints_differ_exactly_where_counts_do() -> None:
    counts = sp.csr_matrix(np.array([[1, 0, 2], [2, 0, 1], [1, 0, 2], [0, 0, 0], [0, 3, 0]]))
    marks = fingerprints(counts).tolist()
    assert len(set(marks)) == 4
    assert marks[0] == marks[2]
