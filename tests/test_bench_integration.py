"""The bench of integration: its cells, its stand-in labels, and what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scmulan.bench_integration import MARKERS, Batch, cells_of, count, integration_bench, join, marker_lineages, measured
from scmulan.bench_integration_ways import WAYS
from scmulan.cells import read_cells
from scmulan.errors import PromptError
from tests.conftest import kind_cells


def marked(*genes: str) -> AnnData:
    """One cell with three counts of each gene, and of one that says nothing."""
    every = [gene for markers in MARKERS.values() for gene in markers]
    counts = np.array([[3 * (gene in genes) for gene in every] + [5]])
    return AnnData(sp.csr_matrix(counts.astype(np.float32)), var=pd.DataFrame(index=[*every, "ACTB"]))


def test_a_cell_takes_the_lineage_whose_markers_it_alone_shows():
    assert marker_lineages(read_cells(marked("CD3D", "CD2"))) == ["T cell"]
    assert marker_lineages(read_cells(marked("MS4A1"))) == ["B cell"]
    assert marker_lineages(read_cells(marked("CD3D", "CD3E", "MS4A1"))) == [None]  # of two lineages
    assert marker_lineages(read_cells(marked())) == [None]


@pytest.fixture
def parts(tmp_path):
    batches = (Batch("one", "one.h5ad", "cell_type"), Batch("two", "two.h5ad", "cell_type"))
    kind_cells(("B cell", "natural killer cell"), 40, seed=3).write_h5ad(tmp_path / "one.h5ad")
    kind_cells(("B cell", "natural killer cell", "classical monocyte"), 60, seed=4).write_h5ad(tmp_path / "two.h5ad")
    return batches, [cells_of(batch, tmp_path, 15, 0) for batch in batches]


def test_so_many_cells_of_each_label_are_drawn(parts):
    batches, cells = parts
    joined = join(cells, batches)
    assert count(joined) == {
        "one": {"B cell": 15, "natural killer cell": 15},
        "two": {"B cell": 15, "classical monocyte": 15, "natural killer cell": 15},
    }
    assert joined.counts.shape[0] == len(joined.labels) == 75


@pytest.mark.parametrize("way", ["scmulan", "scmulan at lineage", "PCA", "PCA, batches standardised"])
def test_each_way_is_measured_and_labels_of_one_batch_are_not_asked_of_the_other(model, parts, way):
    batches, cells = parts
    found = measured(model, join(cells, batches), way, seed=0, with_scib=False)
    assert (found["n"], found["n_labels"], found["n_batches"]) == (60, 2, 2)  # monocytes are of one batch
    assert set(found["transfer"]) == {"one to two", "two to one"}
    assert found["transfer"]["two to one"]["novelty_auc"] is None
    assert found["transfer"]["one to two"]["novelty_auc"] is not None
    assert way in WAYS


def test_the_parts_of_an_embedding_are_its_places(model, parts):
    batches, cells = parts
    joined = join(cells, batches)
    whole, lineage, kind = (WAYS[way](model, joined, 0) for way in ("scmulan", "scmulan at lineage", "scmulan at cell_type"))
    np.testing.assert_array_equal(whole, np.concatenate([lineage, kind], axis=1))


def test_what_is_not_there_is_named(tmp_path):
    usual = {"model": "demo", "device": "cpu", "n": None, "seed": 0, "say": print}
    with pytest.raises(PromptError, match="nearest: 'Harmony'"):
        integration_bench(only=["harmoni"], data=tmp_path, **usual)
    with pytest.raises(PromptError, match="give --data FOLDER"):
        integration_bench(only=[], data=None, **usual)
