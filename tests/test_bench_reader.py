"""Whatever is broken in a file or odd in a data set: cells, or one kind of error; the measurement of that finds planted faults."""

from __future__ import annotations

import json
import os
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from conftest import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scmulan import bench_reader, cells_apart
from scmulan.bench_reader import Worker, broken, check_files, fuzz_reader, outcome, written
from scmulan.cells import check, read_cells
from scmulan.cells_apart import check_apart
from scmulan.cells_damage import has_endless_heap
from scmulan.errors import CellDataError, PromptError

ODD = settings(max_examples=60, suppress_health_check=list(HealthCheck))
GENES = ["GATA1", "Gata1", "CD19", "ENSG00000102145", "ENSMUSG00000031162.4", "mm10_Xkr4", "GRCh38_MS4A1", "ERCC-00074", "2-Sep", "", "nan",
         "HLA.DRA", "MT-ND1", "mt-Nd1", "chr1:1-2", "123", "é\u0000", "a" * 300]  # fmt: skip
LABELS = st.one_of(
    st.none(), st.text(max_size=6), st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.binary(max_size=3), st.dates(),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=2), st.integers(), max_size=1), st.just(pd.NA), st.just(pd.NaT),
    st.sampled_from(["B cell", "T cell || B cell", " || ", "blood", "Homo sapiens", "mouse", "NCBITaxon:9606", "day 3", "1e400", "COPD"]),
)  # fmt: skip
COLUMNS = ["cell_type", "tissue", "organism", "disease", "condition", "time", "donor", "dataset", "cell_type_ontology_term_id", "odd",
           "sex", "disease_ontology_term_id", "is_primary_data", "organism_ontology_term_id"]  # fmt: skip
NUMBERS = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 0.5, 1.3862943611198906, -1, 1e-320, 1e300, 2.0**31, 2.0**63, np.nan, np.inf, -np.inf])


@st.composite
def matrices(draw: st.DrawFn, n_cells: int, n_genes: int) -> object:
    numbers = st.integers(0, 9) if draw(st.booleans()) else NUMBERS
    values = np.array(draw(st.lists(numbers, min_size=n_cells * n_genes, max_size=n_cells * n_genes)), dtype=np.float64)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dense = values.reshape(n_cells, n_genes).astype(
            draw(st.sampled_from(["f8", "f4", "f2", "i8", "i4", "u1", "u8", "?", "c8", "O", "g"]))
        )
    form = draw(st.sampled_from(["dense", "csr", "csc", "csr_array", "fortran", "damaged", "matrix", "unsorted"]))
    if form == "fortran":
        return np.asfortranarray(dense)
    if dense.dtype.kind in "Oc" or dense.dtype in ("f2", "g") or form in ("dense", "matrix"):
        return dense
    sparse = {"csc": sp.csc_matrix, "csr_array": sp.csr_array}.get(form, sp.csr_matrix)(dense)
    if form == "damaged" and sparse.nnz:
        which = draw(st.sampled_from(["indices", "indptr", "negative"]))
        (sparse.indptr if which == "indptr" else sparse.indices)[draw(st.integers(0, 1))] = -3 if which == "negative" else 2**30
    if form == "unsorted":
        sparse.indices[:] = sparse.indices[::-1].copy()
    return sparse


@st.composite
def data_sets(draw: st.DrawFn) -> AnnData | None:
    """An odd data set; None where AnnData itself refuses it."""
    n_cells, n_genes = draw(st.integers(0, 4)), draw(st.integers(0, 5))
    obs = {
        name: draw(st.lists(LABELS, min_size=n_cells, max_size=n_cells)) for name in draw(st.lists(st.sampled_from(COLUMNS), unique=True))
    }
    columns = draw(st.lists(st.sampled_from(["gene_ids", "feature_types", "feature_name", "feature_is_filtered", "odd"]), unique=True))
    var = {name: draw(st.lists(LABELS, min_size=n_genes, max_size=n_genes)) for name in columns}
    names = draw(st.lists(st.sampled_from(GENES), min_size=n_genes, max_size=n_genes))
    keys = st.sampled_from(["organism", "organism_ontology_term_id", "title", "schema_version", "odd"])
    uns = draw(st.dictionaries(keys, LABELS, max_size=3))
    cell_names = draw(st.lists(st.sampled_from(["a", "b", "", "c"]), min_size=n_cells, max_size=n_cells))
    try:
        frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in obs.items()}, index=range(n_cells))
        frame = frame.set_axis(pd.Index(cell_names, dtype=object))
        if obs and draw(st.integers(0, 9)) == 0:
            frame = pd.concat([frame, frame.iloc[:, :1]], axis=1)
        if obs and draw(st.booleans()):
            frame.isetitem(0, frame.iloc[:, 0].astype(str).astype("category"))
        features = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in var.items()}, index=range(n_genes))
        features = pd.concat([features, features], axis=1) if draw(st.integers(0, 9)) == 0 else features
        adata = AnnData(
            draw(st.one_of(st.none(), matrices(n_cells, n_genes))), obs=frame, var=features.set_axis(pd.Index(names, dtype=object)), uns=uns
        )
        for layer in draw(st.lists(st.sampled_from(["counts", "spliced", "raw"]), unique=True, max_size=2)):
            adata.layers[layer] = draw(matrices(n_cells, n_genes))
        if draw(st.booleans()):
            adata.raw = adata.copy()
    except Exception:  # noqa: BLE001  what AnnData refuses is none of ours
        return None
    return adata


def is_read_or_refused(adata: AnnData | None) -> None:
    said = "refused" if adata is None else outcome(adata)
    assert said.split(":")[0] in ("read", "refused"), said


@ODD
@given(data_sets())
@pytest.mark.filterwarnings("ignore")
def test_an_odd_data_set_gives_cells_or_a_cell_data_error(adata: AnnData | None) -> None:
    is_read_or_refused(adata)


@pytest.mark.slow
@settings(ODD, max_examples=examples(800))
@given(data_sets())
@pytest.mark.filterwarnings("ignore")
def test_many_odd_data_sets_give_cells_or_a_cell_data_error(adata: AnnData | None) -> None:
    is_read_or_refused(adata)


@ODD
@given(st.integers(0, 2**32))
@pytest.mark.filterwarnings("ignore")
def test_a_file_cut_anywhere_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, place: int) -> None:
    """Cuts alone: they never reach libhdf5's heaps, so they are read in this process."""
    whole = wholes(tmp_path_factory)[place % 5]
    path = tmp_path_factory.getbasetemp() / "cut.h5ad"
    path.write_bytes(whole[: place % len(whole)])
    with pytest.raises(CellDataError, match=r"cut\.h5ad"):
        read_cells(path)


def wholes(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.getbasetemp() / "wholes"
    return [path.read_bytes() for path in (sorted(folder.glob("*.h5ad")) if folder.exists() else written(folder))]


def test_broken_files_are_read_or_refused_by_a_worker() -> None:
    found = fuzz_reader(seed=3, n=60, say=lambda _: None)
    assert found["inputs"] == sum(found["outcomes"].values()) == 60
    assert not found["faults"]


@pytest.mark.slow
def test_many_broken_files_are_read_or_refused_by_a_worker() -> None:
    found = fuzz_reader(seed=4, n=500, say=print)
    assert not found["faults"]


def test_a_worker_that_dies_or_hangs_is_a_fault_and_the_next_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = ("import os; input(); os.abort()", "input(); import time; time.sleep(60)", "input(); print('raised: KeyError')", "input()")
    commands = iter(ends)
    usual = bench_reader.subprocess.Popen
    monkeypatch.setattr(bench_reader, "WARM_UP", 1.0)
    monkeypatch.setattr(bench_reader.subprocess, "Popen", lambda command, **options: usual([command[0], "-c", next(commands)], **options))
    worker = Worker(seconds=1.0)
    assert worker.read(tmp_path).startswith("died: exit code -6")
    assert worker.read(tmp_path).startswith("hung: longer than 1 s")
    assert worker.read(tmp_path) == "raised: KeyError"
    worker.close()


def test_the_ways_of_breaking_a_file_change_it(tmp_path: Path) -> None:
    whole = [path.read_bytes() for path in written(tmp_path / "whole")]
    rng = np.random.default_rng(0)
    made = [broken(whole, rng) for _ in range(200)]
    assert {kind for kind, _ in made} == {"bytes", "bits", "block", "cut", "number"}
    assert sum(content not in whole for _, content in made) > 190
    assert all(outcome(path) in ("read", "refused: ") or "refused" in outcome(path) for path in sorted((tmp_path / "whole").glob("*.h5ad")))


def damage(path: Path, how: str) -> None:
    if how.startswith("heap"):
        content = bytearray(path.read_bytes())
        first = content.index(b"GCOL") + 16
        content[first : first + 16] = bytes(16) if how == "heap" else b"\xff" * 16
        path.write_bytes(content)
        return
    with h5py.File(path, "a") as file:
        if how == "sequence":
            kind = h5py.h5t.vlen_create(h5py.h5t.NATIVE_INT32)
            h5py.h5a.create(file["obs"].id, b"odd", kind, h5py.h5s.create_simple((1,)))
        elif how == "sequences":
            file.create_dataset("uns/odd", (2,), dtype=h5py.vlen_dtype(np.int32))
        else:
            file.create_dataset("uns/odd", (2**40,), dtype="f8", chunks=(2**16,))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("sequence", "attribute 'odd' of obs"),
        ("sequences", "uns/odd holds sequences"),
        ("size", "more than can be in it"),
        ("heap", "a heap of strings is damaged"),
        ("heap that leads out", "a heap of strings is damaged"),
    ],
)
def test_types_and_sizes_that_would_end_the_interpreter_are_refused_unread(tmp_path: Path, how: str, says: str) -> None:
    path = written(tmp_path / "whole")[0]
    damage(path, how)
    with pytest.raises(CellDataError, match=rf"0\.h5ad: .*{says}.*copy (it|the file) again"):
        read_cells(path)


def test_a_file_is_checked_apart_as_it_is_here(tmp_path: Path) -> None:
    path = written(tmp_path / "whole")[3]
    assert check_apart(path, organism="human").to_dict() == check(path, organism="human").to_dict()
    assert check_apart(tmp_path / "none.h5ad").verdict == "problem"


def test_a_file_that_ends_or_hangs_its_reader_is_a_problem_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for ending, says in (
        (lambda *_, **__: os._exit(7), r"ended the process (code 7)"),
        (lambda *_, **__: time.sleep(60), "takes longer than 1 s"),
    ):
        monkeypatch.setattr(cells_apart, "check", ending)
        finding = check_apart(tmp_path / "a.h5ad", seconds=1.0)["file"]
        assert (finding.verdict, finding.fix) == ("problem", "copy it again, or write it anew from its source")
        assert says in finding.found


def test_an_error_of_the_reader_apart_is_raised_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a fault of ours")

    monkeypatch.setattr(cells_apart, "check", fail)
    with pytest.raises(KeyError, match="a fault of ours"):
        check_apart(tmp_path / "a.h5ad")


def test_what_check_says_of_files_is_counted_and_counts_come_back(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(1.0, (30, 6))
    counts[:, 0] = 1
    names = ["GATA1", "CD19", "MS4A1", "GNLY", "NKG7", "no gene"]
    AnnData(sp.csr_matrix(counts, dtype=np.float32), var=pd.DataFrame(index=names)).write_h5ad(tmp_path / "a.h5ad")
    said: list[str] = []
    found = check_files(data=tmp_path, say=said.append)["a"]
    assert found["counts_mapped"] == found["coding_counts_mapped_at_least"] == pytest.approx(counts[:, :5].sum() / counts.sum())
    assert set(found["cells_that_differ_after"].values()) == {"0 of 30"}
    assert len(said) == 1
    json.dumps(found, allow_nan=False)


def test_no_folder_of_cells_is_an_error() -> None:
    with pytest.raises(PromptError, match="--data"):
        check_files(data=None, say=print)


def test_a_file_whose_strings_were_changed_in_place_many_times_is_not_taken_for_damaged(tmp_path: Path) -> None:
    path = written(tmp_path / "whole")[0]
    rng = np.random.default_rng(0)
    for _ in range(5):
        with h5py.File(path, "a") as file:
            for _ in range(40):
                group, key = file[rng.choice(["obs", "var", "uns"])], f"note{rng.integers(6)}"
                if key in group.attrs and rng.random() < 0.4:
                    del group.attrs[key]
                else:
                    group.attrs[key] = "x" * int(rng.integers(0, 3000))
        assert not has_endless_heap(path)
    assert len(read_cells(path)) == 20


def test_an_empty_file_is_no_heap(tmp_path: Path) -> None:
    (tmp_path / "a.h5ad").write_bytes(b"")
    assert not has_endless_heap(tmp_path / "a.h5ad")
