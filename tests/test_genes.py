"""Gene names of human and mouse resolve to rows of the shipped table; the builder folds, merges and ranks as it says."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scmulan import genes_build
from scmulan.errors import VocabularyError
from scmulan.genes import HUMAN, LOCUS_GROUPS, MOUSE, GeneTable, species_of

TABLE = GeneTable.load()


def symbols_of(names: list[str], organism: str | None = None) -> list[str | None]:
    return [TABLE.symbols[row] if row >= 0 else None for row in TABLE.resolve(names, organism).index]


def test_every_row_has_one_symbol_and_no_two_rows_share_an_id() -> None:
    assert len(set(TABLE.symbols)) == len(TABLE)
    assert all(TABLE.symbols)
    for ids in (TABLE.gene_ids, TABLE.mouse_gene_ids):
        named = ids[ids != ""]
        assert len(set(named)) == len(named)
    assert set(TABLE.locus_groups) == set(LOCUS_GROUPS)


def test_table_holds_the_human_coding_genes_and_the_immune_receptors() -> None:
    groups = TABLE.locus_groups[TABLE.is_human]
    assert 19_000 < (groups == "protein-coding gene").sum() < 21_000
    assert (groups == "immune receptor gene").sum() > 350
    assert {"TRBC1", "IGHG1", "TRAV1-2", "GATA1", "MALAT1", "MT-ND1"} <= set(TABLE.symbols)


def test_human_rows_that_only_the_newest_release_has_are_marked() -> None:
    named = TABLE.index_of_symbols(["GATA1", "CD19", "MALAT1"])
    assert not TABLE.is_recent[named].any()
    assert 10_000 < (TABLE.is_recent & TABLE.is_human).sum() < 25_000


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("GATA1", "GATA1"),
        ("gata1", "GATA1"),
        ("ENSG00000102145", "GATA1"),
        ("ENSG00000102145.15", "GATA1"),
        ("ensg00000102145", "GATA1"),
        ("ENSMUSG00000031162", "GATA1"),
        ("ENSG00000182378.15_PAR_Y", "PLCXD1"),
        ("TP53_ENSG00000141510", "TP53"),
        ("MARCH8", "MARCHF8"),
        ("SEPT2", "SEPTIN2"),
        ("2-Sep", "SEPTIN2"),
        ("Mar-01", "MARCHF1"),
        ("CD45", "PTPRC"),
        ("Oct4", "POU5F1"),
        ("p21", "CDKN1A"),
        ("IL8", "CXCL8"),
        ("PNRC2-1", "PNRC2"),
        ("GAPDH.1", "GAPDH"),
        ("GAPDH__ambiguous", "GAPDH"),
        ("hg19_GAPDH", "GAPDH"),
        ("GRCh38___GAPDH", "GAPDH"),
        ("HLA.DRA", "HLA-DRA"),
        ("mt.Atp6", "MT-ATP6"),
        ("NKX2-5", "NKX2-5"),
        ("ENSA", "ENSA"),
        (" CD19 ", "CD19"),
    ],
)
def test_spellings_of_a_gene_resolve_to_it(name: str, symbol: str) -> None:
    assert symbols_of([name], HUMAN) == [symbol]


def test_old_clone_names_resolve_to_the_gene_of_their_ensembl_id() -> None:
    by_name, by_id = TABLE.resolve(["RP11-34P13.7", "ENSG00000238009"]).index
    assert by_name == by_id >= 0


def test_mouse_names_share_the_row_of_a_one_to_one_orthologue() -> None:
    assert symbols_of(["Gata1", "Cd8a", "Gapdh", "Malat1", "mt-Nd1"]) == ["GATA1", "CD8A", "GAPDH", "MALAT1", "MT-ND1"]


def test_mouse_genes_without_a_one_to_one_orthologue_have_rows_of_their_own() -> None:
    match = TABLE.resolve(["H2-K1", "Hbb-bs", "Ly6c2", "0610009b22rik", "Gm20854_loc1"])
    assert match.organism == MOUSE
    assert (match.index >= 0).sum() == 5
    assert not TABLE.is_human[match.index[:3]].any()


def test_nicknames_mean_the_gene_of_the_species() -> None:
    assert symbols_of(["Sca1", "Cd45"], MOUSE) == ["Ly6a", "PTPRC"]
    assert symbols_of(["SCA1"], HUMAN) == ["ATXN1"]


def test_approved_symbol_wins_over_an_alias_of_another_gene() -> None:
    resolved = TABLE.resolve(list(TABLE.symbols), HUMAN).index
    rows = np.arange(len(TABLE))
    assert (resolved[TABLE.is_human] == rows[TABLE.is_human]).all()


def test_every_mouse_symbol_and_every_id_resolves_to_its_row() -> None:
    rows = np.flatnonzero(TABLE.mouse_symbols != "")
    assert (TABLE.resolve(list(TABLE.mouse_symbols[rows]), MOUSE).index == rows).all()
    for ids in (TABLE.gene_ids, TABLE.mouse_gene_ids):
        rows = np.flatnonzero(ids != "")
        assert (TABLE.resolve(list(ids[rows])).index == rows).all()


def test_unknown_gene_is_counted_not_dropped() -> None:
    match = TABLE.resolve(["GATA1", "NOT_A_GENE", "ERCC-00074"])
    assert match.index.tolist()[1:] == [-1, -1]
    assert match.unknown == ["NOT_A_GENE", "ERCC-00074"]


def test_two_names_of_one_gene_are_counted_as_merged() -> None:
    match = TABLE.resolve(["GATA1", "ENSG00000102145", "gata1", "CD19"])
    assert match.merged == 2
    assert match.naming == "mixed"


@pytest.mark.parametrize(
    ("names", "naming", "organism"),
    [
        (["GATA1", "CD19", "MS4A1"], "symbol", HUMAN),
        (["Gata1", "Cd19", "Ms4a1"], "symbol", MOUSE),
        (["0610007p14rik", "xkr4", "gm1992"], "symbol", MOUSE),
        (["ENSG00000102145", "ENSG00000177455"], "ensembl", HUMAN),
        (["ENSMUSG00000031162.3"], "ensembl", MOUSE),
        (["LINC00115", "CCL18", "GNLY"], "symbol", HUMAN),
    ],
)
def test_naming_and_species_are_told_from_the_names(names: list[str], naming: str, organism: str) -> None:
    match = TABLE.resolve(names)
    assert (match.naming, match.organism) == (naming, organism)


def test_organism_says_what_the_names_say_even_when_another_is_given() -> None:
    assert TABLE.resolve(["Gata1", "Cd19", "Ms4a1"], HUMAN).organism == MOUSE


def test_id_columns_go_before_names_and_symbol_columns_fill_in() -> None:
    match = TABLE.match(["CD19", "nameless", "x"], [["ENSG00000102145", "", ""]], [["CD4", "SPI1", "?"]])
    assert [TABLE.symbols[row] for row in match.index[:2]] == ["GATA1", "SPI1"]
    assert match.unknown == ["x"]
    assert match.naming == "symbol"


def test_spelling_follows_species_and_naming() -> None:
    rows = TABLE.index_of_symbols(["GATA1", "MT-ND1", "H2-K1"])
    assert TABLE.spell(rows) == ["GATA1", "MT-ND1", "H2-K1"]
    assert TABLE.spell(rows, "mouse") == ["Gata1", "mt-Nd1", "H2-K1"]
    assert TABLE.spell(rows, "human", "ensembl") == ["ENSG00000102145", "ENSG00000198888", "ENSMUSG00000061232"]
    with pytest.raises(VocabularyError, match="naming 'entrez'"):
        TABLE.spell(rows, HUMAN, "entrez")


@pytest.mark.parametrize("organism", [HUMAN, MOUSE])
@pytest.mark.parametrize("naming", ["symbol", "ensembl"])
def test_spelled_genes_resolve_to_the_same_rows(organism: str, naming: str) -> None:
    rows = np.random.default_rng(0).choice(len(TABLE), 3000, replace=False)
    own = rows[TABLE.is_human[rows] if organism == HUMAN else TABLE.mouse_symbols[rows] != ""]
    assert (TABLE.resolve(TABLE.spell(own, organism, naming), organism).index == own).all()


def test_nearest_names_what_was_probably_meant() -> None:
    assert TABLE.nearest("GATA11")[0] == "GATA1"
    assert TABLE.nearest("HLADRA")[0] == "HLA-DRA"
    assert TABLE.resolve(["FOXP33"]).guesses() == {"FOXP33": TABLE.nearest("FOXP33")}
    assert TABLE.nearest("") == []


def test_index_of_symbols_wants_the_preferred_spelling() -> None:
    assert TABLE.symbols[TABLE.index_of_symbols(["GATA1"])].tolist() == ["GATA1"]
    with pytest.raises(VocabularyError, match="'gata1'"):
        TABLE.index_of_symbols(["gata1"])


def test_thirty_thousand_names_resolve_in_under_a_second() -> None:
    names = list(TABLE.symbols[:15_000]) + [f"unknown{i}.{i % 7}" for i in range(15_000)]
    TABLE.resolve(["GATA1"])
    start = time.perf_counter()
    TABLE.resolve(names)
    assert time.perf_counter() - start < 1.0


def test_a_nameless_retired_id_does_not_go_before_a_name_that_is_known() -> None:
    match = TABLE.match(["CCL5", "zork"], [["ENSG00000161570", "ENSG00000161570"]], [])
    assert TABLE.symbols[match.index].tolist() == ["CCL5", "ENSG00000161570"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=30), st.sampled_from(list(TABLE.symbols[::500]))), max_size=20))
def test_any_names_give_a_match(names: list[str]) -> None:
    match = TABLE.resolve(names)
    assert len(match.index) == len(names)
    assert len(match.unknown) == (match.index < 0).sum()
    assert match.index.max(initial=-1) < len(TABLE)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(TABLE.symbols[TABLE.is_human])), st.sampled_from([str.lower, str.upper, str.title, str.swapcase]))
def test_letter_case_never_matters(symbol: str, recase: object) -> None:
    assert callable(recase)
    assert symbols_of([recase(symbol)], HUMAN) == [symbol]


@pytest.mark.parametrize(
    ("text", "species"), [("human", HUMAN), ("Mus_musculus", MOUSE), ("NCBITaxon:10090", MOUSE), ("rat", None), (None, None)]
)
def test_species_is_known_by_its_names(text: str | None, species: str | None) -> None:
    assert species_of(text) == species


def test_damaged_table_names_the_command_that_builds_it() -> None:
    with pytest.raises(VocabularyError, match="genes_build"):
        GeneTable("symbol\tid\nGATA1\t1\n")


TABLES = {
    "hgnc_symbols.tsv.gz": """
        symbol locus_group ensembl_id
        AAA protein-coding_gene ENSG00000000001
        RRR other ENSG00000000007
        NOID non-coding_RNA NONE""",
    "gencode44_id_to_symbol.tsv.gz": """
        ensembl_id symbol
        ENSG00000000001 AAA
        ENSG00000000002 BBB
        ENSG00000000003 DUP
        ENSG00000000004 DUP
        ENSG00000000005 ENSG00000000005""",
    "aliases_to_ensembl.tsv.gz": """
        alias ensembl_id
        OLDA ENSG00000000001
        ENSG00000000099 ENSG00000000001
        BBB ENSG00000000001
        NOID ENSG00000000042""",
    "human_mouse_symbols.tsv.gz": """
        human mouse
        AAA Aaa
        AAA Gm77
        BBB Bbb1
        BBB Bbb2""",
    "human_new.tsv.gz": """
        ENSG00000000001 AAA 1 10 protein_coding
        ENSG00000000006 NEW 1 10 lncRNA
        ENSG00000000007 RRR 1 10 IG_V_gene
        ENST00000000001 AAA-201 1 10 protein_coding""",
    "human_old.tsv.gz": """
        ENSG00000000002 WAS 1
        ENSG00000000001 WAS 1
        ENSG00000000099 CLONE.1 1
        ENSG00000000055 GONE 1""",
    "mouse.tsv.gz": """
        ENSMUSG00000000001 Aaa 1 10 protein_coding
        ENSMUSG00000000002 Bbb1 1 10 protein_coding
        ENSMUSG00000000003 Bbb2 1 10 protein_coding
        ENSMUSG00000000004 Noid 1 10 lncRNA""",
}


@pytest.fixture
def built(tmp_path: Path) -> GeneTable:
    """A table of a dozen genes, built from `TABLES`."""
    for name, text in TABLES.items():
        rows = [
            "\t".join(word.replace("_gene", " gene").replace("_RNA", " RNA") for word in line.split()) for line in text.strip().splitlines()
        ]
        table = "\n".join(rows).replace("IG_V gene", "IG_V_gene").replace("NONE", "") + "\n"
        (tmp_path / name).write_bytes(gzip.compress(table.encode()))
    human, output = [str(tmp_path / f"human_{age}.tsv.gz") for age in ("new", "old")], tmp_path / "genes.tsv.gz"
    genes_build.main([str(tmp_path), "-o", str(output), "--human", *human, "--mouse", str(tmp_path / "mouse.tsv.gz")])
    return GeneTable(gzip.decompress(output.read_bytes()).decode())


def row_of(table: GeneTable, name: str, organism: str = HUMAN) -> int:
    return int(table.resolve([name], organism).index[0])


def test_builder_folds_one_to_one_pairs_and_copies_do_not_count(built: GeneTable) -> None:
    assert row_of(built, "Aaa", MOUSE) == row_of(built, "AAA") == row_of(built, "ENSMUSG00000000001")
    assert row_of(built, "Bbb1", MOUSE) != row_of(built, "BBB")
    assert not built.is_human[row_of(built, "Bbb2", MOUSE)]


def test_builder_folds_equal_names_without_any_pair(built: GeneTable) -> None:
    assert row_of(built, "Noid", MOUSE) == row_of(built, "NOID")


def test_builder_merges_ids_of_one_symbol(built: GeneTable) -> None:
    assert row_of(built, "ENSG00000000003") == row_of(built, "ENSG00000000004") == row_of(built, "DUP")


def test_builder_sends_retired_ids_and_their_names_to_the_successor(built: GeneTable) -> None:
    assert row_of(built, "ENSG00000000099") == row_of(built, "clone.1") == row_of(built, "AAA")


def test_builder_gives_an_alias_once_and_never_over_a_symbol(built: GeneTable) -> None:
    assert built.symbols[row_of(built, "BBB")] == "BBB"
    assert built.symbols[row_of(built, "WAS")] == "AAA"


def test_builder_keeps_ids_of_genes_without_a_symbol_or_release(built: GeneTable) -> None:
    assert built.symbols[row_of(built, "ENSG00000000005")] == "ENSG00000000005"
    assert built.gene_ids[row_of(built, "GONE")] == "ENSG00000000055"
    assert built.gene_ids[row_of(built, "NOID")] == "ENSG00000000042"


def test_builder_takes_kinds_from_hgnc_and_the_newest_release(built: GeneTable) -> None:
    kinds = {name: built.locus_groups[row_of(built, name)] for name in ("AAA", "RRR", "NEW", "NOID")}
    assert kinds == {"AAA": "protein-coding gene", "RRR": "immune receptor gene", "NEW": "non-coding RNA", "NOID": "non-coding RNA"}
    assert [bool(built.is_recent[row_of(built, name)]) for name in ("AAA", "NEW")] == [False, True]
