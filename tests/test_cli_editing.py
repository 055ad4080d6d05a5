"""Commands that edit genes and ask about them."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from test_cli import refused, right, scmulan  # noqa: F401

from scmulan.cells import read_h5ad

GOAL = ("--goal", "cell_type=natural killer cell", "--start", "cell_type=B cell")


@pytest.fixture
def blood(trained, tmp_path):
    """A file of B cells and natural killer cells."""
    cells = read_h5ad(trained.cells)
    cells[cells.obs["cell_type"] != "classical monocyte"].copy().write_h5ad(tmp_path / "blood.h5ad")
    return tmp_path / "blood.h5ad"


def test_edit_prints_shifts_and_writes_a_copy(scmulan, blood, tmp_path):  # noqa: F811
    said = json.loads(right(scmulan("edit", blood, "--gene", "NKG7=raise", "--gene", "CD19=delete", "-o", tmp_path / "out.h5ad", "--json")))
    assert said["genes"] == {"NKG7": "raise", "CD19": "delete"}
    assert said["cells"] == 8
    assert "X_scmulan_edit" in read_h5ad(tmp_path / "out.h5ad").obsm
    assert "cells without CD19" in right(scmulan("edit", blood, "--gene", "CD19=delete"))


def test_screen_prints_a_ranking_and_writes_all_of_it(scmulan, blood, tmp_path):  # noqa: F811
    out = right(scmulan("screen", blood, *GOAL, "--by", "gradient", "-o", tmp_path / "all.tsv"))
    table = pd.read_csv(tmp_path / "all.tsv", sep="\t", index_col="gene")
    assert "more; -o FILE.tsv has all" in out
    assert len(table) > 40
    assert table["rank"].is_monotonic_increasing
    said = json.loads(right(scmulan("screen", blood, *GOAL, "--gene", "NKG7", "--gene", "GNLY", "--pairs", "--most-cells", "2", "--json")))
    assert [row["genes"] for row in said["rows"]] == ["NKG7 + GNLY"]
    assert said["cells"] == 2


def test_genes_like_programs_regulators_and_probe_answer(scmulan, blood, tmp_path):  # noqa: F811
    assert len(json.loads(right(scmulan("genes", "like", "GATA1", "-n", "3", "--json")))) == 3
    assert len(json.loads(right(scmulan("genes", "like", "ACTB", "--cells", blood, "--group", "B cell", "--json")))) == 10
    assert "members" in right(scmulan("genes", "programs", blood, "-n", "3"))
    right(scmulan("genes", "regulators", blood, "--gene", "GATA1", "-o", tmp_path / "effects.csv"))
    assert pd.read_csv(tmp_path / "effects.csv", index_col=0).index.tolist() == ["GATA1"]
    genes = read_h5ad(blood).var_names
    (tmp_path / "classes.tsv").write_text("\n".join(f"{gene}\t{'one' if number % 2 else 'two'}" for number, gene in enumerate(genes)))
    said = json.loads(right(scmulan("genes", "probe", blood, "--labels", tmp_path / "classes.tsv", "--json")))
    assert "mean expression and detection" in said["features"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("edit", "{cells}", "--gene", "GATA1"), "--gene 'GATA1': needed NAME=VALUE"),
        (("edit", "{cells}", "--gene", "GATA1=off"), "gene GATA1: found 'off'; needed delete, lower, raise or a whole count"),
        (("edit", "{cells}", "--gene", "GATA1=delete", "-o", "{folder}/out.txt"), "needed a name that ends in .h5ad"),
        (("screen", "{cells}", "--goal", "cell_type=podocyte"), "goal cell_type 'podocyte': none of the labels"),
        (("screen", "{cells}", *GOAL, "-o", "{folder}/all.xlsx"), "tables are written as .tsv or .csv"),
        (("screen", "{cells}", *GOAL, "--pairs"), "pairs: needed genes"),
        (("genes", "like", "GATA11"), "gene 'GATA11' is not known; nearest"),
        (("genes", "like", "GATA1", "--group", "B cell"), "needs --cells"),
        (("genes", "probe", "{cells}", "--labels", "{folder}/none.tsv"), "no such file"),
    ],
)
def test_what_can_not_be_done_is_one_line(scmulan, blood, tmp_path, words, said):  # noqa: F811
    assert said in refused(scmulan(*(word.format(cells=blood, folder=tmp_path) for word in words)))
