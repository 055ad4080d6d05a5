"""From a plan to a corpus: wrong plans are named by key, splits are fixed, and building again gives the same bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import yaml
from conftest import kind_cells

from scmulan.cells import read_cells
from scmulan.corpus.build import build_corpus
from scmulan.corpus.own_tokenizer import build_plan_tokenizer
from scmulan.corpus.plan import Split, read_plan
from scmulan.corpus.shards import Corpus
from scmulan.corpus.splits import split_by_hash
from scmulan.csentence import decode_many
from scmulan.errors import CellDataError, CorpusError, RecipeError
from scmulan.genes import GeneTable
from scmulan.tokenizer import LAYOUT_FILE, load_vocabulary, tokenizer_hash

KINDS = ("B cell", "natural killer cell", "classical monocyte")


@pytest.fixture(scope="module")
def cells():
    return read_cells(kind_cells(KINDS, 200))


@pytest.fixture
def folder(tmp_path) -> Path:
    kind_cells(KINDS, 30).write_h5ad(tmp_path / "a.h5ad")
    return tmp_path


# -- plans ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({}, "no sources; needed a list of data sets under `sources:`"),
        ({"sources": []}, "no sources"),
        ({"sources": "a.h5ad"}, "no sources; needed a list"),
        ({"sources": ["a.h5ad"], "tokeniser": {}}, "unknown key 'tokeniser'; nearest: 'tokenizer'"),
        ({"sources": [{"pth": "a.h5ad"}]}, r"sources\[0\]: unknown key 'pth'; nearest: 'path'"),
        ({"sources": ["a.h5ad", {"organism": "mouse"}]}, r"sources\[1\]: no path; needed one"),
        ({"sources": [3]}, r"sources\[0\] is 3; needed a mapping of path"),
        ({"sources": [{"path": "a", "licence": 4}]}, r"sources\[0\]: licence is 4; needed a text, for example CC-BY-4.0"),
        ({"sources": [{"path": "a", "license": "MIT"}]}, r"unknown key 'license'; nearest: 'licence'"),
        ({"sources": [{"path": "a", "split": {"bye": "cell"}}]}, r"sources\[0\]\.split: unknown key 'bye'; nearest: 'by'"),
        ({"sources": [{"path": "a", "split": {"by": "donors"}}]}, r"split: by 'donors': needed one of cell, donor.*nearest: 'donor'"),
        ({"sources": [{"path": "a", "split": "donor"}]}, r"split is 'donor'; needed a mapping"),
        ({"sources": [{"path": "a", "split": {"test": "some"}}]}, "split: test is 'some'; needed a number"),
        ({"sources": [{"path": "a", "split": {"test": 0.7, "valid": 0.3}}]}, "needed shares that leave some cells to train on"),
        ({"sources": ["a"], "tokenizer": {"least_cell": 3}}, "tokenizer: unknown key 'least_cell'; nearest: 'least_cells'"),
        ({"sources": ["a"], "tokenizer": {"gene_order": "random"}}, "gene_order 'random': needed one of rising, falling, alphabetical"),
        ({"sources": ["a"], "tokenizer": {"text_size": "big"}}, "tokenizer: text_size is 'big'; needed a number"),
        ({"sources": ["a"], "tokenizer": {"text_size": 300.5}}, "tokenizer: text_size is 300.5; needed a whole number"),
        ({"sources": ["a"], "tokenizer": {"least_cells": -1}}, "tokenizer: least_cells is -1; needed 0 or more"),
        ({"sources": ["a"], "tokenizer": {"most_genes": 0}}, "tokenizer: most_genes is 0; needed 1 or more"),
        ({"sources": ["a"], "tokenizer": {"text_size": 20}}, "tokenizer: text_size is 20; needed 256 or more"),
        ({"sources": ["a"], "tokenizer": {"folder": 3}}, "tokenizer: folder is 3; needed a text: a tokenizer folder, or default or demo"),
        ({"sources": [{"path": "a", "organism": 9606}]}, r"sources\[0\]: organism is 9606; needed a text"),
        ({"sources": [{"path": "a", "layer": 1}]}, r"sources\[0\]: layer is 1; needed a text"),
        ({"sources": [{"path": "a", "weight": float("inf")}]}, r"sources\[0\]: weight is inf; needed a number"),
    ],
)
def test_a_wrong_plan_is_an_error_that_names_the_key(tmp_path, plan, says):
    with pytest.raises(RecipeError, match=says):
        read_plan(plan)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    with pytest.raises(RecipeError, match=rf"plan\.yaml.*{says}"):
        read_plan(tmp_path / "plan.yaml")


def test_the_licence_of_a_source_stands_in_the_manifest_and_only_where_it_was_stated(folder):
    kind_cells(KINDS, 30, seed=4).write_h5ad(folder / "b.h5ad")
    plan = read_plan({"sources": [{"path": "a.h5ad", "licence": "CC-BY-4.0"}, "b.h5ad"], "tokenizer": {"text_size": 300}}, folder)
    build_plan_tokenizer(plan, folder / "tokenizer")
    manifest = build_corpus(plan, folder / "tokenizer", folder / "corpus")
    assert [source.get("licence") for source in manifest["sources"]] == ["CC-BY-4.0", None]


@pytest.mark.parametrize(("content", "says"), [("sources: [", "not YAML"), ("- a", "no sources"), ("", "no sources")])
def test_a_file_that_is_no_plan_is_an_error(tmp_path, content, says):
    (tmp_path / "plan.yaml").write_text(content)
    with pytest.raises(RecipeError, match=rf"plan\.yaml: {says}"):
        read_plan(tmp_path / "plan.yaml")


def test_a_plan_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.yaml: No such file"):
        read_plan(tmp_path / "none.yaml")


def test_a_source_that_can_not_be_read_is_named(folder):
    adata = kind_cells(KINDS, 6)
    adata.var_names = [f"contig{number}" for number in range(adata.n_vars)]
    adata.write_h5ad(folder / "odd.h5ad")
    with pytest.raises(CellDataError, match=r"odd\.h5ad: no known gene"):
        build_plan_tokenizer(read_plan({"sources": ["a.h5ad", "odd.h5ad"]}, folder), folder / "tokenizer")
    with pytest.raises(CellDataError, match=r"none\.h5ad: no such file"):
        build_plan_tokenizer(read_plan({"sources": ["none.h5ad"]}, folder), folder / "tokenizer")


# -- tokenizers of a plan -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("order", ["rising", "falling", "alphabetical"])
def test_genes_have_ids_in_the_order_asked_for(folder, order):
    plan = read_plan({"sources": ["a.h5ad"], "tokenizer": {"gene_order": order, "text_size": 300}}, folder)
    build_plan_tokenizer(plan, folder / "tokenizer")
    genes = list(load_vocabulary(folder / "tokenizer").genes)
    assert json.loads((folder / "tokenizer" / LAYOUT_FILE).read_text())["gene_order"] == order
    if order == "alphabetical":
        assert genes == sorted(genes)
        return
    detected = detection(folder, genes)
    assert list(detected) == sorted(detected, reverse=order == "falling")
    assert len(set(detected)) > 5


def detection(folder: Path, genes: list[str]) -> np.ndarray:
    """Training cells that detect each gene."""
    cells, table = read_cells(folder / "a.h5ad"), GeneTable.load()
    said = split_by_hash(Split(), cell_ids=cells.cell_ids, donors=cells.donors, datasets=cells.dataset, where="here")
    is_train = np.array(said) == "train"
    return np.asarray((cells.counts[is_train] > 0).sum(0)).ravel()[table.index_of_symbols(genes)]


def test_genes_of_too_few_cells_and_beyond_the_most_wanted_are_left_out(folder):
    plan = read_plan({"sources": ["a.h5ad"], "tokenizer": {"least_cells": 10, "most_genes": 20, "text_size": 300}}, folder)
    build_plan_tokenizer(plan, folder / "tokenizer")
    genes = list(load_vocabulary(folder / "tokenizer").genes)
    assert len(genes) == 20
    table = GeneTable.load()
    everything = [str(symbol) for symbol in table.symbols[read_cells(folder / "a.h5ad").measured]]
    rest = detection(folder, [gene for gene in everything if gene not in genes])
    assert detection(folder, genes).min() >= max(10, rest.max())


def test_no_gene_left_is_an_error(folder):
    plan = read_plan({"sources": ["a.h5ad"], "tokenizer": {"least_cells": 1000}}, folder)
    with pytest.raises(CorpusError, match=r"in 1,000 training cells of sources that can be read; lower tokenizer\.least_cells"):
        build_plan_tokenizer(plan, folder / "tokenizer")


# -- corpora ----------------------------------------------------------------------------------------------------------------------


def test_the_manifest_says_what_is_in_the_corpus(trained):
    corpus = Corpus(trained.corpus)
    manifest = corpus.manifest
    assert manifest["cells"] == 160 == len(corpus.read())
    assert manifest["tokens"] == int(corpus.read().ids.lengths.sum())
    assert manifest["tokenizer_sha256"] == tokenizer_hash(trained.tokenizer)
    assert [(source["file"], source["splits"]) for source in manifest["sources"]] == [
        ("human.h5ad", {"train": 96, "test": 24}), ("mouse.h5ad", {"train": 32, "test": 8})
    ]  # fmt: skip
    assert manifest["sources"][1]["labels"]["organism"] == ["Mus musculus"]
    assert all(source["share_of_counts_outside_vocabulary"] == 0 for source in manifest["sources"])
    corpus.verify()


def test_the_cells_of_a_corpus_are_those_of_its_files(trained):
    rows, table = Corpus(trained.corpus).read(), GeneTable.load()
    vocabulary = load_vocabulary(trained.tokenizer)
    back = decode_many([rows.ids[row] for row in range(120)], vocabulary).toarray()
    cells = read_cells(trained.plan.parent / "human.h5ad")
    counts = cells.counts[:, table.index_of_symbols(vocabulary.genes)].toarray()
    assert np.array_equal(back[counts <= 10], counts[counts <= 10])
    assert ((back > 10) == (counts > 10)).all()
    assert rows.cell_ids[:120] == cells.cell_ids
    assert rows.fields["cell_type"][:120] == cells.fields["cell_type"]


def test_genes_that_a_species_is_not_known_to_have_are_told_of_the_source(trained, tmp_path):
    """The mouse file names a gene that the gene table knows of in human alone, as some annotations do."""
    genes, table = load_vocabulary(trained.tokenizer).genes, GeneTable.load()
    rows = table.index_of_symbols(genes)
    read_as = table.resolve(genes, "Mus musculus").index
    odd = str(table.symbols[rows[(read_as == rows) & ~table.is_of("Mus musculus")[rows]][0]])
    adata = anndata.read_h5ad(trained.plan.parent / "mouse.h5ad")
    adata.var_names = [odd, *adata.var_names[1:]]
    adata.X = sp.csr_matrix(np.maximum(adata.X.toarray(), 1))
    adata.write_h5ad(tmp_path / "odd.h5ad")
    manifest = build_corpus(read_plan({"sources": ["odd.h5ad"]}, tmp_path), trained.tokenizer, tmp_path / "corpus")
    assert manifest["sources"][0]["genes_beyond_species"] == {"Mus musculus": [odd]}


def test_cells_without_a_data_set_of_their_own_are_of_their_file(trained):
    assert set(Corpus(trained.corpus).read().datasets) == {"human", "mouse"}


def test_building_again_gives_the_same_hashes(trained, tmp_path):
    plan = read_plan(trained.plan)
    build_plan_tokenizer(plan, tmp_path / "tokenizer")
    assert tokenizer_hash(tmp_path / "tokenizer") == tokenizer_hash(trained.tokenizer)
    assert build_corpus(plan, tmp_path / "tokenizer", tmp_path / "corpus") == Corpus(trained.corpus).manifest


def test_shards_hold_so_many_cells_at_most(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("scmulan.corpus.build.CELLS_PER_SHARD", 50)
    manifest = build_corpus(read_plan(trained.plan), trained.tokenizer, tmp_path / "corpus")
    assert [shard["cells"] for shard in manifest["shards"]] == [50, 50, 20, 40]
    assert Corpus(tmp_path / "corpus").read().ids.values.tolist() == Corpus(trained.corpus).read().ids.values.tolist()


def test_a_corpus_of_another_tokenizer_is_refused(trained):
    with pytest.raises(CorpusError, match=r"built with tokenizer .*, the model's is 000000000000"):
        Corpus(trained.corpus, tokenizer_sha256="0" * 64)


def test_a_build_that_fails_leaves_the_corpus_before_it_as_it_was(trained, tmp_path):
    corpus = Path(shutil.copytree(trained.corpus, tmp_path / "corpus"))
    plan = read_plan({"sources": [str(trained.plan.parent / "human.h5ad"), "none.h5ad"]}, tmp_path)
    with pytest.raises(CorpusError, match=r"1 of 2 sources could not be read:\n  .*none\.h5ad: no such file"):
        build_corpus(plan, trained.tokenizer, corpus)
    Corpus(corpus).verify()
    assert Corpus(corpus).manifest == Corpus(trained.corpus).manifest


def test_where_no_source_can_be_read_no_others_are_spoken_of(trained, tmp_path):
    for names, says in ((["none.h5ad"], "the only source could not be read:.*Mend it"), (["a.h5ad", "b.h5ad"], "all 2 sources could not")):
        plan = read_plan({"sources": names}, tmp_path)
        with pytest.raises(CorpusError, match=f"(?s)^{says}") as failed:
            build_corpus(plan, trained.tokenizer, tmp_path / "-".join(names))
        assert "others" not in str(failed.value)


def test_a_folder_that_is_no_corpus_is_never_replaced(trained, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(CorpusError, match="mine: exists and is no corpus, so it is not replaced"):
        build_corpus(read_plan(trained.plan), trained.tokenizer, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    build_corpus(read_plan(trained.plan), trained.tokenizer, tmp_path / "new")
    build_corpus(read_plan(trained.plan), trained.tokenizer, tmp_path / "new")
