"""Read by blocks from disk, a data set is the one that is read whole; what is damaged is named, with the cells."""

from __future__ import annotations

import gc
import itertools
import shutil
import weakref

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from conftest import kind_cells

from scmulan import by_rows, cells_on_disk
from scmulan.cells import read_cells
from scmulan.cells_on_disk import CellStore
from scmulan.counts import log1p_cp10k
from scmulan.errors import CellDataError
from scmulan.genes import GeneTable

KINDS = ("B cell", "natural killer cell", "classical monocyte")
N_CELLS = 90


def written(folder, change=lambda adata: adata, suffix=".h5ad"):
    adata = change(kind_cells(KINDS, N_CELLS))
    path = folder / f"cells{suffix}"
    if suffix == ".h5ad":
        adata.write_h5ad(path)
    else:
        with anndata.settings.override(zarr_write_format=int(suffix[-1])):
            adata.write_zarr(path)
    return path


def whole(store: CellStore):
    """Counts over the gene table and labels of all cells, block by block."""
    n_genes = len(GeneTable.load())
    spans = list(store.spans())
    counts = sp.vstack([store.counts(*span, store.gene_index, n_genes)[0] for span in spans], format="csr")
    labels = [store.labels(*span) for span in spans]
    names = sorted({name for each in labels for name in each.fields})
    fields = {name: [value for each in labels for value in each.fields[name]] for name in names}
    return counts, fields, [name for span in spans for name in store.names(*span)]


def as_dense(adata):
    adata.X = np.asarray(adata.X.todense() if sp.issparse(adata.X) else adata.X)
    return adata


def as_columns(adata):
    adata.X = sp.csc_matrix(adata.X)
    return adata


def as_layer(adata):
    counts = sp.csr_matrix(adata.X)
    adata.layers["counts"], adata.X = counts, log1p_cp10k(counts)
    return adata


def as_raw(adata):
    counts = sp.csr_matrix(adata.X)
    adata.raw = adata.copy()
    adata.X = log1p_cp10k(counts)
    return adata


def as_logged(adata):
    adata.X = log1p_cp10k(sp.csr_matrix(adata.X))
    return adata


def with_antibodies(adata):
    extra = anndata.AnnData(sp.csr_matrix(np.full((N_CELLS, 2), 7.0)), obs=adata.obs, var=pd.DataFrame(index=["CD3_ab", "CD19"]))
    adata.var["feature_types"], extra.var["feature_types"] = "Gene Expression", "Antibody Capture"
    both = anndata.concat([adata, extra], axis=1)
    both.obs = adata.obs
    return both


def with_twice_named_gene(adata):
    names = list(adata.var_names)
    names[1] = names[0].lower()
    adata.var_names = names
    return adata


def with_nullable_columns(adata):
    adata.obs["sex"] = pd.array([None if row % 3 else "female" for row in range(N_CELLS)], dtype="string")
    adata.obs["day"] = pd.array([None if row % 2 else row % 7 for row in range(N_CELLS)], dtype="Int64")
    adata.obs["cell_type"] = adata.obs["cell_type"].astype("category")
    return adata


CHANGES = [as_dense, as_columns, as_layer, as_raw, as_logged, with_antibodies, with_twice_named_gene, with_nullable_columns]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".h5ad", ".zarr2", ".zarr3"])
@pytest.mark.parametrize("change", [lambda adata: adata, *CHANGES], ids=lambda change: change.__name__)
def test_cells_read_by_blocks_are_those_read_whole(tmp_path, monkeypatch, change, suffix):
    monkeypatch.setattr(cells_on_disk, "CELLS_AT_ONCE", 31)
    monkeypatch.setattr(by_rows, "ENTRIES_AT_ONCE", 700)
    store = CellStore(written(tmp_path, change, suffix), scratch=tmp_path)
    counts, fields, names = whole(store)
    cells = read_cells(change(kind_cells(KINDS, N_CELLS)))
    assert len(list(store.spans())) == 3
    assert (counts != cells.counts).nnz == 0
    assert fields == {name: cells.fields[name] for name in sorted(cells.fields)}
    assert names == cells.cell_ids


def test_spans_cover_all_cells_in_pieces_that_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(cells_on_disk, "NONZERO_AT_ONCE", 500)
    path = written(tmp_path)
    spans = list(CellStore(path, scratch=tmp_path).spans(5, 80))
    assert spans[0][0] == 5
    assert spans[-1][1] == 80
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(spans))
    stored = np.diff(sp.csr_matrix(anndata.read_h5ad(path).X).indptr)
    assert all(last - first == 1 or stored[first:last].sum() <= 500 for first, last in spans)


def test_columns_are_chosen_by_the_whole_store_not_by_a_block(tmp_path):
    """The first usual column may be empty in one block and filled in another."""

    def half_filled(adata):
        adata.obs["tissue"] = ["unknown"] * 60 + ["lung"] * 30
        adata.obs["tissue_general"] = "blood"
        return adata

    store = CellStore(written(tmp_path, half_filled), scratch=tmp_path)
    assert store.labels(0, 60).fields.get("organ") is None
    assert set(store.labels(60, 90).fields["organ"]) == {"lung"}


def test_total_counts_genes_that_are_left_out_but_no_antibodies(tmp_path):
    path = written(tmp_path, with_antibodies)
    store = CellStore(path, scratch=tmp_path)
    onto = np.full(len(store.gene_index), -1, dtype=np.int32)
    onto[0] = 0
    counts, total = store.counts(0, N_CELLS, onto, 1)
    stored = anndata.read_h5ad(path)
    assert counts.sum() == stored.X[:, 0].sum()
    assert total == stored[:, stored.var["feature_types"] == "Gene Expression"].X.sum()


def test_a_layout_of_before_anndata_0_7_is_read(tmp_path):
    """Then obs and var were tables of records."""
    adata, path = kind_cells(KINDS, N_CELLS), tmp_path / "old.h5ad"
    with h5py.File(path, "w") as file:
        file["X"] = np.asarray(adata.X.todense())
        for name, index, columns in (("obs", adata.obs_names, adata.obs[["cell_type", "tissue"]]), ("var", adata.var_names, None)):
            more = [] if columns is None else [("cell_type", "S40"), ("tissue", "S30")]
            records = np.zeros(len(index), dtype=[("index", "S30"), *more])
            records["index"] = [text.encode() for text in index]
            for column in () if columns is None else columns:
                records[column] = [text.encode() for text in columns[column]]
            file[name] = records
    counts, fields, names = whole(CellStore(path, scratch=tmp_path))
    expected = read_cells(adata)
    assert (counts != expected.counts).nnz == 0
    assert fields["cell_type"] == expected.fields["cell_type"]
    assert names == expected.cell_ids


# -- what can't be read -------------------------------------------------------------------------------------------------------


def damaged(folder, damage):
    path = written(folder)
    with h5py.File(path, "r+") as file:
        damage(file)
    return path


def out_of_bounds(file):
    file["X/indices"][int(file["X/indptr"][70]) + 1] = 10**6


def not_rising(file):
    file["X/indptr"][40] = 10**7


def not_a_number(file):
    file["X/data"][int(file["X/indptr"][70])] = np.nan


def half_a_count(file):
    file["X/data"][int(file["X/indptr"][70])] = 0.5


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (out_of_bounds, r"cells\.h5ad.*column index 1,000,000 among .* genes, in the cell at position 70"),
        (not_rising, r"cells\.h5ad.*row bounds do not rise .* first at row 40"),
        (lambda file: file["X/indptr"].resize((50,)), r"cells\.h5ad.*50 row bounds for 90 rows"),
        (lambda file: file.pop("var"), r"cells\.h5ad.*no var in it, so no AnnData"),
        (lambda file: file.pop("X"), r"cells\.h5ad"),
    ],
)
def test_a_damaged_store_is_an_error_that_names_it(tmp_path, damage, says):
    def write_resizable(adata):
        return adata

    path = written(tmp_path, write_resizable)
    with h5py.File(path, "r+") as file:
        indptr = file["X/indptr"][:]
        del file["X/indptr"]
        file["X"].create_dataset("indptr", data=indptr, maxshape=(None,))
        damage(file)
    with pytest.raises(CellDataError, match=says):
        whole(CellStore(path, scratch=tmp_path))


@pytest.mark.parametrize(("damage", "says"), [(not_a_number, "1 value is NaN"), (half_a_count, "1 cells hold values that are no counts")])
def test_cells_that_the_first_look_missed_are_named_by_their_block(tmp_path, monkeypatch, damage, says):
    monkeypatch.setattr(cells_on_disk, "LOOKED_AT", 32)
    monkeypatch.setattr(cells_on_disk, "RUNS", 2)
    monkeypatch.setattr(cells_on_disk, "CELLS_AT_ONCE", 30)
    store = CellStore(damaged(tmp_path, damage), scratch=tmp_path)
    assert "32 of 90 cells" in store.report["cells looked at"].found
    with pytest.raises(CellDataError, match=rf"cells\.h5ad, cells 60 to 89: {says}"):
        whole(store)


def test_a_store_cut_short_is_an_error(tmp_path):
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CellDataError, match=r"cells\.h5ad: can't be read, so cut short, damaged or no AnnData"):
        CellStore(path, scratch=tmp_path)


@pytest.mark.parametrize("make", ["nothing", "text", "folder", "empty"])
def test_what_is_no_store_is_an_error_that_says_so(tmp_path, make):
    path = tmp_path / "cells.h5ad"
    if make == "text":
        path.write_text("cells")
    if make == "folder":
        path.mkdir()
    if make == "empty":
        kind_cells(KINDS, 3)[:0].write_h5ad(path)
    says = {"nothing": "no such file", "text": "not an HDF5 file", "folder": "a folder, but no zarr store", "empty": "0 cells"}[make]
    with pytest.raises(CellDataError, match=rf"cells\.h5ad: {says}"):
        CellStore(path, scratch=tmp_path)


def test_a_zarr_store_without_one_of_its_chunks_reads_zeros_or_says_so(tmp_path):
    """A lost chunk of row bounds breaks their order; that is found, not read as empty cells."""
    path = written(tmp_path, suffix=".zarr2")
    chunk = path / "X" / "indptr"
    lost = [file for file in chunk.rglob("*") if file.is_file() and not file.name.startswith(".z") and file.name != "zarr.json"]
    assert lost
    for file in lost:
        file.unlink()
    with pytest.raises(CellDataError, match=r"cells\.zarr2"):
        whole(CellStore(path, scratch=tmp_path))


def test_a_matrix_by_columns_is_rewritten_once(tmp_path, monkeypatch):
    path = written(tmp_path, as_columns)
    whole(CellStore(path, scratch=tmp_path))
    monkeypatch.setattr(by_rows, "_rewrite", lambda *arguments: pytest.fail("rewritten again"))
    whole(CellStore(path, scratch=tmp_path))
    assert not list(tmp_path.glob("*.partial"))


def test_identity_changes_when_the_store_is_written_anew(tmp_path):
    path = written(tmp_path)
    with CellStore(path, scratch=tmp_path) as store:
        before = store.identity()
    shutil.copy2(path, tmp_path / "kept.h5ad")
    with CellStore(path, scratch=tmp_path) as store:
        assert store.identity() == before
    kind_cells(KINDS, N_CELLS + 1).write_h5ad(path)
    assert CellStore(path, scratch=tmp_path).identity() != before


def test_a_store_that_is_closed_is_let_go_of(tmp_path):
    store = CellStore(written(tmp_path), scratch=tmp_path)
    kept = weakref.ref(store)
    store.close()
    del store
    gc.collect()
    assert kept() is None


def test_only_a_matrix_by_columns_asks_what_the_store_is(tmp_path, monkeypatch):
    for name in ("rows", "columns"):
        (tmp_path / name).mkdir()
    paths = [written(tmp_path / "rows", as_layer), written(tmp_path / "columns", as_columns)]
    asked = []
    monkeypatch.setattr(cells_on_disk, "identity_of", lambda path: asked.append(path) or "one")
    for path in paths:
        CellStore(path, scratch=tmp_path).close()
    assert set(asked) == {paths[1]}
