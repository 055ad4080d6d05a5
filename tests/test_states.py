"""Which cells became which: within a split, by clone or transport, written with its hash and said in the manifest."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from scmulan.corpus.build import build_corpus
from scmulan.corpus.plan import read_plan
from scmulan.corpus.shards import Corpus
from scmulan.corpus.states import in_days
from scmulan.errors import CorpusError, RecipeError
from scmulan.genes import GeneTable

N_CELLS = 120


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Cells of three times and ten clones, a quarter held out by clone."""
    rng = np.random.default_rng(0)
    genes = [str(symbol) for symbol in GeneTable.load().symbols[:200]]
    adata = anndata.AnnData(sp.csr_matrix(rng.poisson(2, (N_CELLS, 200)).astype(np.int32)))
    adata.var_names, adata.obs_names = genes, [f"cell{row}" for row in range(N_CELLS)]
    clone = np.arange(N_CELLS) % 10
    adata.obs["time"] = [("D2", "D4", "D10")[row // 10 % 3] for row in range(N_CELLS)]
    adata.obs["clone"] = [f"clone{number}" for number in clone]
    adata.obs["split"] = ["test" if number > 7 else "train" for number in clone]
    adata.obs["cell_type"], adata.obs["organism"] = "monocyte", "human"
    path = tmp_path_factory.mktemp("states") / "cells.h5ad"
    adata.write_h5ad(path)
    return path


def built(source, states, output, **entry):
    plan = read_plan({"sources": [{"path": str(source), "split": {"by": "column"}, "states": states, **entry}], "tokenizer": "default"})
    build_corpus(plan, "tokenizer/default", output)
    return Corpus(output)


def test_cells_of_a_clone_are_paired_from_every_time_to_every_later_one_within_their_split(source, tmp_path):
    corpus = built(source, {"clone": "clone"}, tmp_path / "corpus")
    rows = corpus.read()
    of = {name: row for row, name in enumerate(rows.cell_ids)}
    assert len(rows.states) == 10 * 3 * 16  # ten clones, three pairs of times, four cells at each
    for dataset, earlier, later, weight in rows.states:
        first, second = of[earlier], of[later]
        assert dataset == rows.datasets[first]
        assert first % 10 == second % 10
        assert rows.splits[first] == rows.splits[second]
        assert in_days(rows.fields["time"][first]) < in_days(rows.fields["time"][second])
        assert weight == pytest.approx(1 / 4)
    found = corpus.manifest["sources"][0]["states"]
    assert found["pairs"] == 480
    assert {record["method"] for record in found["found"]} == {"clones"}


def test_transport_pairs_times_that_follow_each_other(source, tmp_path):
    corpus = built(source, "transport", tmp_path / "corpus")
    times = dict(zip(corpus.read().cell_ids, corpus.read().fields["time"], strict=True))
    assert {(times[earlier], times[later]) for _, earlier, later, _ in corpus.read("train").states} == {
        ("day 2", "day 4"),
        ("day 4", "day 10"),
    }
    assert {record["library"].split()[0] for record in corpus.manifest["sources"][0]["states"]["found"]} == {"POT"}


def test_a_damaged_file_of_states_is_found_by_its_hash(source, tmp_path):
    corpus = built(source, {"clone": "clone"}, tmp_path / "corpus")
    corpus.verify()
    path = tmp_path / "corpus" / "states-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CorpusError, match=r"states-00000\.parquet: its sha256 is not the manifest's"):
        corpus.verify()


@pytest.mark.parametrize("states", ["clones", {"clone": 3}, {"clone": "a", "more": 1}, 5])
def test_a_wrong_line_of_the_plan_says_what_was_needed(source, states):
    with pytest.raises(RecipeError, match=r"sources\[0\]: states is .* needed \{clone: COLUMN\}"):
        read_plan({"sources": [{"path": str(source), "states": states}]})


def test_times_that_can_not_be_put_in_order_are_an_error_that_names_the_source(source, tmp_path):
    with pytest.raises(CorpusError, match=r"cells\.h5ad: states: time 'human': can't be put in order"):
        built(source, {"clone": "clone"}, tmp_path / "corpus", fields={"time": "organism"})


@pytest.mark.parametrize(("label", "days"), [("day 6", 6.0), ("hour 12", 0.5), ("week 2", 14.0), ("minute 720", 0.5)])
def test_times_are_put_in_order_by_their_units(label, days):
    assert in_days(label) == pytest.approx(days)
