"""AnnData in any state becomes counts and labels, or an error that names the fix; and back."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st

from scmulan import cells as border
from scmulan.cells import Cells, check, read_cells, read_h5ad
from scmulan.cells_writing import annotate_adata, new_adata, write_h5ad
from scmulan.counts import log1p_cp10k
from scmulan.errors import CellDataError, ScmulanWarning
from scmulan.genes import MOUSE, GeneTable

TABLE = GeneTable.load()
GENES = ["GATA1", "CD19", "MS4A1", "GNLY", "NKG7", "CD3E", "LYZ", "S100A8", "MT-ND1", "MALAT1"]
MOUSE_GENES = ["Gata1", "Cd19", "Ms4a1", "Xkr4", "Nkg7", "Cd3e", "Lyz2", "S100a8", "mt-Nd1", "Malat1"]


def some_counts(n_cells: int = 30, n_genes: int = len(GENES), seed: int = 0) -> np.ndarray:
    counts = np.random.default_rng(seed).poisson(1.5, (n_cells, n_genes))
    counts[:, 0] += 1
    return counts


def some_cells(counts: np.ndarray | None = None, names: list[str] | None = None, **obs: list[object] | str) -> AnnData:
    counts = some_counts() if counts is None else counts
    columns = {"cell_type": "CD19+ B", "tissue": "blood", **obs}
    frame = pd.DataFrame({name: columns[name] for name in columns}, index=[f"cell{i}" for i in range(len(counts))])
    return AnnData(sp.csr_matrix(counts, dtype=np.float32), obs=frame, var=pd.DataFrame(index=names or GENES[: counts.shape[1]]))


def counts_of(cells: Cells, names: list[str]) -> np.ndarray:
    return cells.counts[:, TABLE.resolve(names).index].toarray()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    some_cells().write_h5ad(tmp_path / "blood.h5ad")
    return tmp_path / "blood.h5ad"


def test_counts_lie_in_the_columns_of_the_gene_table(path: Path) -> None:
    cells = read_cells(path)
    assert cells.counts.shape == (30, len(TABLE))
    assert cells.counts.dtype == np.int32
    assert cells.counts.has_sorted_indices
    assert (counts_of(cells, GENES) == some_counts()).all()
    assert cells.measured.tolist() == sorted(TABLE.index_of_symbols(GENES).tolist())
    assert len(cells) == 30


def test_labels_originals_names_and_data_set_are_kept(path: Path) -> None:
    cells = read_cells(path)
    assert cells.fields["cell_type"][0] == "B cell"
    assert cells.originals["cell_type"][0] == "CD19+ B"
    assert cells.fields["organism"][0] == "Homo sapiens"
    assert cells.originals["organism"][0] is None
    assert cells.cell_ids[:2] == ["cell0", "cell1"]
    assert set(cells.dataset) == {"blood"}
    assert cells.donors == [None] * 30


def test_shuffled_genes_and_cells_change_nothing_but_their_order() -> None:
    adata = some_cells()
    genes, rows = np.random.default_rng(1).permutation(len(GENES)), np.random.default_rng(2).permutation(30)
    straight, shuffled = read_cells(adata), read_cells(adata[rows][:, genes].copy())
    assert (straight.counts[rows] != shuffled.counts).nnz == 0
    assert (straight.measured == shuffled.measured).all()
    assert [straight.cell_ids[row] for row in rows] == shuffled.cell_ids


@pytest.mark.parametrize("matrix", [np.asarray, sp.csc_matrix, sp.csr_array])
def test_dense_and_column_matrices_read_alike(matrix: object) -> None:
    assert callable(matrix)
    adata = some_cells()
    adata.X = matrix(some_counts().astype(np.float64))
    assert (counts_of(read_cells(adata), GENES) == some_counts()).all()


@pytest.mark.parametrize("is_sparse", [True, False])
def test_backed_data_reads_alike(tmp_path: Path, is_sparse: bool) -> None:
    adata = some_cells()
    adata.X = adata.X if is_sparse else adata.X.toarray()
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert (counts_of(read_cells(backed), GENES) == some_counts()).all()


def test_the_input_is_left_as_it_is() -> None:
    adata = some_cells()
    before = adata.copy()
    read_cells(adata)
    assert (adata.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert list(adata.var_names) == list(before.var_names)


def test_take_gives_the_cells_asked_for_in_that_order() -> None:
    cells = read_cells(some_cells(donor=[f"d{i % 3}" for i in range(30)]))
    taken = cells.take(np.array([5, 2]))
    assert taken.cell_ids == ["cell5", "cell2"]
    assert taken.donors == ["d2", "d2"]
    assert (taken.counts != cells.counts[[5, 2]]).nnz == 0


def test_counts_layer_goes_before_x() -> None:
    adata = some_cells()
    adata.layers["counts"] = adata.X.copy()
    adata.X = log1p_cp10k(adata.X)
    cells = read_cells(adata)
    assert (counts_of(cells, GENES) == some_counts()).all()
    assert cells.report["values"].numbers["where"] == "layers['counts']"


def test_raw_with_more_genes_goes_before_normalised_x() -> None:
    adata = some_cells()
    adata.raw = adata.copy()
    adata = adata[:, :5].copy()
    adata.X = np.log1p(adata.X.toarray() * 1.37)
    cells = read_cells(adata)
    assert (counts_of(cells, GENES) == some_counts()).all()
    assert cells.report["values"].numbers["where"] == "raw"


def test_whole_numbers_in_x_go_before_logarithms_in_raw() -> None:
    adata = some_cells()
    logged = adata.copy()
    logged.X = log1p_cp10k(logged.X)
    adata.raw = logged
    assert read_cells(adata).report["values"].numbers["where"] == "X"


def test_scaled_x_does_not_matter_where_raw_holds_counts() -> None:
    adata = some_cells()
    adata.raw = adata.copy()
    adata.X = adata.X.toarray() - 3
    assert (counts_of(read_cells(adata), GENES) == some_counts()).all()


def test_layer_asked_for_is_the_one_read_and_a_missing_one_names_the_nearest() -> None:
    adata = some_cells()
    adata.layers["spliced"] = adata.X * 2
    assert (counts_of(read_cells(adata, layer="spliced"), GENES) == 2 * some_counts()).all()
    with pytest.raises(CellDataError, match=r"no layer 'splice'; found spliced, X; nearest: 'spliced'"):
        read_cells(adata, layer="splice")


def test_log_normalised_umis_come_back_exactly_and_the_report_says_so() -> None:
    adata = some_cells()
    adata.X = log1p_cp10k(adata.X)
    cells = read_cells(adata)
    assert (counts_of(cells, GENES) == some_counts()).all()
    finding = cells.report["values"]
    assert (finding.verdict, finding.numbers["recovered"], finding.numbers["scale"]) == ("ok", 1.0, "log1p")
    assert finding.numbers["size_factor"] == pytest.approx(1e4)


def test_values_that_are_no_counts_become_pseudo_counts_with_a_warning() -> None:
    adata = some_cells(np.random.default_rng(0).lognormal(0, 1, (30, len(GENES))))
    with pytest.warns(ScmulanWarning, match="made pseudo-counts, 10,000 a cell"):
        cells = read_cells(adata)
    assert cells.report.verdict == "warning"
    assert np.allclose(cells.counts.sum(axis=1), 10_000, rtol=0.01)


def test_deep_reads_stay_counts() -> None:
    cells = read_cells(some_cells(some_counts() * 100_003))
    assert cells.report["values"].found == "raw counts in X; deep, so reads rather than molecules"


def test_zeros_and_ones_alone_are_warned_of() -> None:
    assert check(some_cells((some_counts(60) > 0).astype(int)))["values"].verdict == "warning"


def test_names_of_one_gene_are_summed_and_counted() -> None:
    cells = read_cells(some_cells(some_counts(n_genes=4), ["GATA1", "ENSG00000102145", "gata1", "CD19"]))
    assert (counts_of(cells, ["GATA1"])[:, 0] == some_counts(n_genes=4)[:, :3].sum(axis=1)).all()
    assert cells.genes.merged == 2
    assert cells.report["genes"].numbers["merged"] == 2


def test_duplicate_gene_names_are_summed() -> None:
    with pytest.warns(UserWarning, match="not unique"):
        adata = some_cells(some_counts(n_genes=3), ["GATA1", "GATA1", "CD19"])
    assert (counts_of(read_cells(adata), ["GATA1"])[:, 0] == some_counts(n_genes=3)[:, :2].sum(axis=1)).all()


def test_unknown_genes_are_counted_and_named() -> None:
    cells = read_cells(some_cells(names=[*GENES[:-1], "NOT_A_GENE"]))
    assert cells.genes.unknown == ["NOT_A_GENE"]
    numbers = cells.report["genes"].numbers
    assert numbers["genes_mapped"] == 0.9
    assert numbers["counts_mapped"] == pytest.approx(some_counts()[:, :-1].sum() / some_counts().sum())


def test_no_known_gene_is_an_error_with_guesses() -> None:
    with pytest.raises(CellDataError, match=r"no known gene among 'GATA99', .*found symbol names.*'GATA99' may be 'GATA"):
        read_cells(some_cells(some_counts(n_genes=3), ["GATA99", "FOXP33", "gene3"]))


def test_ids_in_a_column_of_var_go_before_names() -> None:
    adata = some_cells(some_counts(n_genes=2), ["0", "1"])
    adata.var["gene_ids"] = ["ENSG00000102145.3", "ENSG00000177455"]
    cells = read_cells(adata)
    assert (counts_of(cells, ["GATA1", "CD19"]) == some_counts(n_genes=2)).all()


def test_antibodies_are_left_out_and_said() -> None:
    adata = some_cells(some_counts(n_genes=3), ["GATA1", "CD19", "CD3E"])
    adata.var["feature_types"] = ["Gene Expression", "Gene Expression", "Antibody Capture"]
    cells = read_cells(adata)
    assert counts_of(cells, ["CD3E"]).sum() == 0
    assert "features that are no genes left out: 'CD3E'" in cells.report["genes"].found


def test_spike_ins_are_counted() -> None:
    assert read_cells(some_cells(names=[*GENES[:-1], "ERCC-00074"])).report["genes"].numbers["spike_ins"] == 1


def test_species_is_told_from_the_names() -> None:
    cells = read_cells(some_cells(names=MOUSE_GENES))
    assert set(cells.fields["organism"]) == {MOUSE}
    assert (counts_of(cells, ["GATA1"])[:, 0] == some_counts()[:, 0]).all()


def test_wrong_species_is_an_error_that_names_the_fix() -> None:
    adata = some_cells(names=MOUSE_GENES, organism="Homo sapiens")
    with pytest.raises(
        CellDataError, match=r"Homo sapiens is said, but the gene names are those of Mus musculus; give organism='Mus musculus'"
    ):
        read_cells(adata)
    assert set(read_cells(adata, organism="mouse").fields["organism"]) == {MOUSE}
    insisted = read_cells(adata, organism="human")
    assert insisted.report["organism"].verdict == "warning"


def test_species_in_uns_is_read() -> None:
    adata = some_cells()
    adata.uns["organism"] = "Homo sapiens"
    assert read_cells(adata).originals["organism"][0] == "Homo sapiens"


def test_other_species_is_read_with_a_warning() -> None:
    report = check(some_cells(organism="Macaca mulatta"))
    assert report["organism"].verdict == "warning"


def test_no_file_names_the_nearest(path: Path) -> None:
    with pytest.raises(CellDataError, match=r"blod.h5ad: no such file; nearest: 'blood.h5ad'"):
        read_cells(path.with_name("blod.h5ad"))


def test_what_is_no_h5ad_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.h5ad").write_text("gene,cell\n")
    with pytest.raises(CellDataError, match=r"a.h5ad: not an HDF5 file, so not an .h5ad"):
        read_cells(tmp_path / "a.h5ad")
    with pytest.raises(CellDataError, match="a folder"):
        read_cells(tmp_path)


@pytest.mark.filterwarnings("ignore::anndata.OldFormatWarning")
def test_hdf5_that_is_no_h5ad_is_an_error(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file["numbers"] = np.arange(3)
    with pytest.raises(CellDataError, match=r"a\.h5ad"):
        read_cells(tmp_path / "a.h5ad")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_truncated_file_is_an_error(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CellDataError, match=r"blood.h5ad"):
        read_cells(path)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty_matrix_is_an_error(shape: tuple[int, int]) -> None:
    adata = AnnData(np.zeros(shape), var=pd.DataFrame(index=GENES[: shape[1]]))
    with pytest.raises(CellDataError, match=rf"{shape[0]} cells x {shape[1]} genes: an empty matrix"):
        read_cells(adata)


def test_no_matrix_is_an_error() -> None:
    with pytest.raises(CellDataError, match="no matrix; counts are needed"):
        read_cells(AnnData(obs=pd.DataFrame(index=["a"]), var=pd.DataFrame(index=["GATA1"])))


@pytest.mark.parametrize(("bad", "words"), [(np.nan, "NaN or infinite"), (-np.inf, "NaN or infinite"), (-1.0, "negative")])
def test_impossible_values_are_errors_that_name_the_fix(bad: float, words: str) -> None:
    adata = some_cells()
    dense = adata.X.toarray()
    dense[4, 2] = bad
    adata.X = dense
    with pytest.raises(CellDataError, match=rf"X: 1 value is {words}.*at positions '4'"):
        read_cells(adata)


def test_cells_without_counts_are_kept_and_named() -> None:
    counts = some_counts()
    counts[[3, 8]] = 0
    cells = read_cells(some_cells(counts))
    assert len(cells) == 30
    assert cells.report["empty cells"].found == "2 cells without counts, kept: 'cell3', 'cell8'"


def test_doubled_cells_are_counted() -> None:
    counts = some_counts(30, 10)
    counts[7] = counts[4]
    assert check(some_cells(counts))["doubled cells"].numbers["doubled"] == 1


def test_repeated_cell_names_are_made_unique_and_counted() -> None:
    adata = some_cells()
    adata.obs_names = ["a", "a", *map(str, range(28))]
    cells = read_cells(adata)
    assert cells.cell_ids[:2] == ["a", "a-1"]
    assert cells.report["cell names"].numbers["repeated"] == 1


def test_missing_field_column_names_the_nearest() -> None:
    with pytest.raises(CellDataError, match=r"field organ: obs has no column 'tisue'.*nearest: 'tissue'"):
        read_cells(some_cells(), fields={"organ": "tisue"})


def test_fields_can_be_told() -> None:
    assert set(read_cells(some_cells(site="heart"), fields={"organ": "site"}).fields["organ"]) == {"heart"}


def test_check_reports_every_fault_at_once_and_never_raises(tmp_path: Path) -> None:
    adata = some_cells(names=MOUSE_GENES, organism="Homo sapiens")
    adata.X = adata.X.toarray() - 5
    report = check(adata)
    assert [finding.question for finding in report.findings if finding.verdict == "problem"] == ["values", "organism"]
    assert check(tmp_path / "no.h5ad").verdict == "problem"
    assert check(some_cells(), fields={"organ": "nowhere"}).verdict == "problem"


def test_report_is_json_and_text(path: Path) -> None:
    report = check(path)
    assert report.verdict == "ok"
    as_data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    questions = [finding["question"] for finding in as_data["findings"]]
    assert questions[:5] == ["values", "genes", "gene names", "organism", "cells"]
    assert {"field cell_type", "field organ"} <= set(questions)
    text = report.to_text()
    assert "'B cell (CL:0000236)'" in text
    assert "raw counts in X" in text
    assert "mitochondria " in text


def test_report_of_pseudo_counts_is_json_too() -> None:
    report = check(some_cells(np.random.default_rng(0).lognormal(0, 1, (30, len(GENES)))))
    assert report.to_dict()["findings"][0]["residual"] is None
    json.dumps(report.to_dict(), allow_nan=False)


def test_warning_carries_its_fix() -> None:
    counts = some_counts()
    counts[3] = 0
    assert "→ drop them: sc.pp.filter_cells" in check(some_cells(counts)).to_text()


def test_labels_that_the_table_does_not_know_are_warned_of() -> None:
    finding = check(some_cells(cell_type="mystery"))["field cell_type"]
    assert finding.verdict == "warning"
    assert finding.numbers["unknown"] == ["mystery"]


def test_dying_cells_are_warned_of() -> None:
    counts = some_counts()
    counts[:, GENES.index("MT-ND1")] = 30
    assert check(some_cells(counts))["mitochondria"].verdict == "warning"


def test_data_without_labels_names_the_option() -> None:
    adata = some_cells()
    adata.obs = adata.obs[[]]
    assert "--field" in check(adata)["fields"].fix


def test_new_adata_has_counts_log1p_cp10k_and_names_in_the_style_asked_for() -> None:
    rows = TABLE.index_of_symbols(GENES)
    counts = sp.csr_matrix(some_counts())
    obs = pd.DataFrame({"cell_type": "B cell"}, index=range(30))
    adata = new_adata(counts, rows, TABLE, obs=obs, organism="Mus musculus", uns={"scmulan": {"seed": 1}})
    assert adata.layers["counts"].dtype == np.int32
    assert adata.X.dtype == np.float32
    assert np.allclose(np.expm1(adata.X.toarray()).sum(axis=1), 1e4, rtol=1e-4)
    assert adata.var_names[0] == "Gata1"
    assert adata.var["gene_id"].iloc[0] == "ENSMUSG00000031162"
    assert new_adata(counts, rows, TABLE, obs=obs, organism="human", naming="ensembl").var_names[0] == "ENSG00000102145"
    assert list(new_adata(counts, rows, TABLE, obs=obs, organism="human", names=GENES).var_names) == GENES
    with pytest.raises(CellDataError, match="needed"):
        new_adata(counts, rows[:3], TABLE, obs=obs, organism="human")


@pytest.mark.parametrize("organism", ["Homo sapiens", "Mus musculus"])
@pytest.mark.parametrize("naming", ["symbol", "ensembl"])
def test_new_adata_reads_back_to_the_same_counts(tmp_path: Path, organism: str, naming: str) -> None:
    rows = np.sort(TABLE.index_of_symbols(GENES))
    obs = pd.DataFrame({"cell_type": "B cell", "tissue": "blood", "organism": organism}, index=[f"c{i}" for i in range(30)])
    write_h5ad(new_adata(sp.csr_matrix(some_counts()), rows, TABLE, obs=obs, organism=organism, naming=naming), tmp_path / "a.h5ad")
    cells = read_cells(tmp_path / "a.h5ad")
    assert (cells.counts[:, rows].toarray() == some_counts()).all()
    assert set(cells.fields["organism"]) == {organism}


def test_annotations_go_in_place_under_scmulan_names() -> None:
    adata = some_cells()
    annotate_adata(
        adata, {"cell_type": ["B cell"] * 29 + [None], "cell_type_probability": np.ones(30)}, {"scmulan": np.zeros((30, 4))}, {"seed": 1}
    )
    assert adata.obs["scmulan_cell_type"].dtype == "category"
    assert adata.obs["scmulan_cell_type"].isna().sum() == 1
    assert adata.obs["scmulan_cell_type_probability"].dtype == float
    assert adata.obsm["X_scmulan"].shape == (30, 4)
    annotate_adata(adata, {}, uns={"model": "demo"})
    assert adata.uns["scmulan"] == {"seed": 1, "model": "demo"}
    with pytest.raises(CellDataError, match="'organ': 2 values for 30 cells"):
        annotate_adata(adata, {"organ": ["a", "b"]})


def test_annotated_cells_are_written_and_read_again(tmp_path: Path) -> None:
    adata = some_cells()
    annotate_adata(adata, {"cell_type": ["B cell", None] * 15})
    write_h5ad(adata, tmp_path / "out.h5ad")
    assert read_h5ad(tmp_path / "out.h5ad").obs["scmulan_cell_type"].iloc[0] == "B cell"
    assert [file.name for file in tmp_path.iterdir()] == ["out.h5ad"]


def test_failed_writing_leaves_the_old_file_and_no_other(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def fail(self: AnnData, target: Path, **options: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(border.AnnData, "write_h5ad", fail)
    with pytest.raises(CellDataError, match=r"blood.h5ad: can't be written .*No space left"):
        write_h5ad(some_cells(), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["blood.h5ad"]


def test_writing_to_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CellDataError, match="no folder"):
        write_h5ad(some_cells(), tmp_path / "none" / "a.h5ad")
    with pytest.raises(CellDataError, match="name a file"):
        write_h5ad(some_cells(), tmp_path)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_counts_round_trip(data: st.DataObject) -> None:
    n_cells, n_genes = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 12))
    rows = np.sort(np.random.default_rng(data.draw(st.integers(0, 99))).choice(np.flatnonzero(TABLE.is_human), n_genes, replace=False))
    counts = np.random.default_rng(data.draw(st.integers(0, 99))).negative_binomial(0.5, 0.1, (n_cells, n_genes))
    obs = pd.DataFrame(index=[f"c{i}" for i in range(n_cells)])
    adata = new_adata(sp.csr_matrix(counts), rows, TABLE, obs=obs, organism="human")
    assert (read_cells(adata, organism="human").counts[:, rows].toarray() == counts).all()
