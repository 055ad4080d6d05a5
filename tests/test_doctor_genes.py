"""The doctor says how names of genes were found, what the others look like, and when two species are in one matrix."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

from scmulan.cells import check, read_cells
from scmulan.doctor_genes import FIXES, LOOKS, floored, look_of, shares, speaks_for_two
from scmulan.errors import CellDataError
from scmulan.genes import HUMAN, MOUSE, GeneTable

TABLE = GeneTable.load()
CODING = [row for row in np.flatnonzero((TABLE.locus_groups == "protein-coding gene") & TABLE.is_human) if TABLE.mouse_symbols[row]][:60]


def some_cells(names: list[str], counts: np.ndarray | None = None, **var: list[str]) -> AnnData:
    counts = np.random.default_rng(0).poisson(2.0, (40, len(names))) if counts is None else counts
    frame = pd.DataFrame({"cell_type": "B cell", "tissue": "blood"}, index=[f"c{row}" for row in range(len(counts))])
    return AnnData(sp.csr_matrix(counts, dtype=np.float32), obs=frame, var=pd.DataFrame(var, index=names))


def test_the_way_each_name_was_found_is_counted() -> None:
    names = ["GATA1", "CD19", "MLL", "2-Sep", "GNLY-1", "ENSG00000177455", "ENSG00000156738.18", "H2-K1", "RP11-999X9.9"]
    numbers = check(some_cells(names))["gene names"].numbers
    assert numbers["found_by"] == {
        "symbol": 2, "older name": 2, "respelled": 1, "Ensembl id": 1, "Ensembl id with version": 1, "symbol of the other species": 1,
        "unknown": 1,
    }  # fmt: skip
    assert (numbers["unknown_by_look"], numbers["dates"]) == ({"clone or contig": 1}, 1)


def test_a_gene_known_by_another_column_of_var_is_said_to_be() -> None:
    numbers = check(some_cells(["0", "1"], gene_ids=["ENSG00000102145", "ENSG00000177455"]))["gene names"].numbers
    assert numbers["found_by"] == {"another column": 2}


@pytest.mark.filterwarnings("ignore:Variable names")
def test_repeated_names_are_counted() -> None:
    assert check(some_cells(["GATA1", "GATA1", "CD19"]))["gene names"].numbers["repeated"] == 1


def test_quotes_around_a_name_do_not_hide_the_gene() -> None:
    assert TABLE.symbols[TABLE.resolve(["'Sept7'", '"GATA1"'], MOUSE).index].tolist() == ["SEPTIN7", "GATA1"]


@pytest.mark.parametrize(
    ("name", "look"),
    [
        ("ERCC-00074", "spike-in"), ("ENSG00000999999", "Ensembl gene id of human or mouse"),
        ("ENST00000331789.11", "Ensembl transcript id"),
        ("ENSMMUG00000012345", "Ensembl id of another species"), ("4609", "number"), ("chr1:10109-10357", "genomic interval"),
        ("RP11-34P13.99", "clone or contig"), ("AC004988.1", "clone or contig"), ("LOC100506710", "LOC number"),
        ("Gm10116", "predicted mouse gene"), ("2810474o19rik", "predicted mouse gene"), ("FOXP33", "other"), ("", "other"),
    ],
)  # fmt: skip
def test_unknown_names_are_sorted_by_their_look(name: str, look: str) -> None:
    assert look_of(name) == look


@given(st.text(max_size=20))
def test_any_name_looks_like_something(name: str) -> None:
    assert look_of(name) in LOOKS


@pytest.mark.parametrize(
    ("names", "look"),
    [
        (["ENST00000331789", "ENST00000331788"], "Ensembl transcript id"), (["4609", "7157"], "number"),
        (["ENSMMUG00000012345", "ENSMMUG00000012346"], "Ensembl id of another species"), (["chr1:1-20", "chr2:30-50"], "genomic interval"),
    ],
)  # fmt: skip
def test_no_known_gene_names_the_fix_of_what_the_names_look_like(names: list[str], look: str) -> None:
    with pytest.raises(CellDataError) as error:
        read_cells(some_cells(names))
    assert FIXES[look] in str(error.value)


def test_a_handful_of_names_that_happen_to_be_known_speaks_neither_for_genes_nor_for_a_species() -> None:
    cells = some_cells(["GATA1", *(f"feature{number}" for number in range(300))])
    cells.obs["organism"] = "Mus musculus"
    with pytest.raises(CellDataError, match=r"301 names, 0\.3% known"):
        read_cells(cells)
    assert check(cells)["organism"].verdict == "ok"


def test_every_unknown_name_but_spike_ins_counts_against_the_protein_coding_genes() -> None:
    names = ["GATA1", "MALAT1", "no gene", "ERCC-00074"]
    assert shares(TABLE.resolve(names), names, np.array([90, 50, 10, 50])) == (0.7, 0.9)
    nothing = shares(TABLE.resolve(names), names, np.zeros(4))
    assert np.isnan(nothing).all()


def test_a_share_is_never_rounded_up() -> None:
    assert [floored(share) for share in (0.969999, 0.97, 1.0, 0.99999)] == ["96.99%", "97.00%", "100.00%", "99.99%"]


def barnyard(prefixed: bool) -> AnnData:
    """Thirty cells of human, eight of mouse, two of both."""
    human, mouse = [str(TABLE.symbols[row]) for row in CODING], [str(TABLE.mouse_symbols[row]) for row in CODING]
    if prefixed:
        human, mouse = [f"GRCh38_{name}" for name in human], [f"mm10___{name}" for name in mouse]
    counts = np.random.default_rng(0).poisson(2.0, (40, 2 * len(CODING)))
    counts[:30, len(CODING) :] = 0
    counts[32:, : len(CODING)] = 0
    return some_cells(human + mouse, counts)


@pytest.mark.parametrize("prefixed", [True, False])
def test_genes_of_two_species_in_one_matrix_are_a_problem_with_the_cells_of_each(prefixed: bool) -> None:
    finding = check(barnyard(prefixed))["two species"]
    assert (finding.verdict, finding.numbers) == ("problem", {"human_names": 60, "mouse_names": 60, "mouse_cells": 8, "cells_of_both": 2})
    with pytest.raises(CellDataError, match="read them with organism='human' or organism='mouse'"):
        read_cells(barnyard(prefixed))


@pytest.mark.parametrize(("organism", "columns"), [("human", slice(0, 60)), ("mouse", slice(60, 120))])
def test_of_two_species_the_one_asked_for_is_read_and_its_genes_alone(organism: str, columns: slice) -> None:
    adata = barnyard(prefixed=True)
    cells = read_cells(adata, organism=organism)
    assert cells.counts.sum() == adata.X[:, columns].sum()
    assert cells.report["two species"].verdict == "warning"
    assert len(cells.genes.unknown) == 60


def test_a_data_set_of_one_species_is_not_taken_for_two() -> None:
    human = [str(symbol) for symbol in TABLE.symbols[TABLE.is_human][::40]]
    mouse = [str(symbol) for symbol in TABLE.mouse_symbols[TABLE.mouse_symbols != ""][::40]]
    for names in (human, mouse, [name.lower() for name in mouse], [name.upper() for name in human], [*human, "Xkr4", "Gm1992"]):
        assert not speaks_for_two(names, TABLE.species(names))


def test_names_speak_for_a_species_by_prefix_id_symbol_or_case() -> None:
    names = ["mm10_GATA1", "hg19_CD19", "ENSMUSG00000031162", "ENSG00000102145", "Xkr4", "Gata1", "GATA1", "gata1", "nothing"]
    assert TABLE.species(names).tolist() == [-1, 1, -1, 1, -1, -1, 1, 0, 0]
    assert TABLE.ways(["H2-K1"], HUMAN) == ["symbol of the other species"]
