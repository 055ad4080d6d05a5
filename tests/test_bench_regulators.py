"""What the benches of screens and regulators count, on made-up tables and the embedded cells' labels; no model is run."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from scmulan import bench_regulators
from scmulan.bench import run
from scmulan.bench_regulators import FAMILIES, STARTS, _baselines, _correlation, _log_odds, _shares_beaten
from scmulan.bench_screen import GOAL, START, held_out
from scmulan.cells import read_cells
from scmulan.errors import PromptError


def test_the_best_of_all_beats_all_the_worst_none_and_ties_half():
    table = pd.Series([5.0, 1.0, *[3.0] * 20], index=["A", "B", *(f"g{number}" for number in range(20))])
    found = _shares_beaten({"fate": table}, [("A", "fate"), ("B", "fate"), ("g0", "fate"), ("C", "fate"), ("A", "other")])
    assert found == {("A", "fate"): 1.0, ("B", "fate"): 0.0, ("g0", "fate"): 0.5}


def test_a_rank_among_few_genes_is_none():
    assert _shares_beaten({"fate": pd.Series([2.0, 1.0], index=["A", "B"])}, [("A", "fate")]) == {}


def test_odds_are_against_the_start_or_against_all_other_labels_together():
    chances_NL = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    labels, fates = ["start", "one", "other"], ["other", "one"]
    against_start = _log_odds(np.log(chances_NL), labels, fates, "start")
    np.testing.assert_allclose(against_start, np.log([[0.2 / 0.5, 0.3 / 0.5], [0.1 / 0.1, 0.8 / 0.1]]))
    against_the_rest = _log_odds(np.log(chances_NL), labels, fates, None)
    np.testing.assert_allclose(against_the_rest, np.log([[0.2 / 0.8, 0.3 / 0.7], [0.1 / 0.9, 0.8 / 0.2]]))


def test_no_gene_is_of_two_families():
    names = ["RPL3", "RPS4X", "ZNF24", "SLC2A1", "MRPL12", "NDUFA1", "COX4I1", "PSMA1", "RAB5A", "RHOA", "RASD1", "GATA1"]
    of = {name: [family for family, pattern in FAMILIES.items() if re.match(pattern, name)] for name in names}
    assert all(len(families) == (name != "GATA1") for name, families in of.items() if name != "RASD1")


@pytest.mark.parametrize("name", list(STARTS))
def test_the_starts_are_labels_of_the_embedded_cells(name):
    assert STARTS[name] in set(read_cells(held_out(name)).fields["cell_type"])


def test_the_goal_of_the_speed_bench_is_a_label_of_its_cells():
    types = set(read_cells(held_out("larry_haematopoiesis")).fields["cell_type"])
    assert {GOAL["cell_type"], START["cell_type"]} <= types


@pytest.mark.slow
def test_baselines_put_the_markers_of_a_fate_first():
    genes = pd.Index(["PRTN3", "ELANE", "GATA2", "HDC", "CPA3", "ACTB"])
    found = _baselines(held_out("larry_haematopoiesis", "train"), STARTS["larry_haematopoiesis"], {"basophil": genes})
    for table in found.values():
        assert set(table["basophil"].nlargest(3).index) & {"GATA2", "HDC", "CPA3"}
        assert table["basophil"].notna().all()


def test_correlations_are_those_of_numpy():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(30, 2)).astype(np.float32), rng.normal(size=(30, 3)).astype(np.float32)
    np.testing.assert_allclose(_correlation(one, other), np.corrcoef(one.T, other.T)[:2, 2:], atol=1e-5)


def test_an_unknown_part_names_the_nearest(monkeypatch):
    monkeypatch.setattr(bench_regulators, "load", pytest.fail)
    with pytest.raises(PromptError, match="--only 'rank': needed one of ranks, edges, classes; nearest: 'ranks'"):
        run("regulators", only=["rank"])
