"""The default tokenizer: every gene of note is one token below 65,536, in a fixed order, and real cells come back from their text."""

from __future__ import annotations

import json

import numpy as np
import pytest
from transformers import AutoTokenizer

from scmulan import assets, csentence
from scmulan.cells import read_cells
from scmulan.corpus.plan import read_plan
from scmulan.csentence import structure_tokens
from scmulan.errors import CheckpointError
from scmulan.genes import GeneTable
from scmulan.metadata import FIELDS, known_labels
from scmulan.ontology import Ontology
from scmulan.tokenizer import LARGEST_VOCABULARY, default_folder, load_tokenizer, load_vocabulary, tokenizer_folder, tokenizer_hash
from scmulan.tokenizer_build import build_default, default_genes, in_order

GOLDEN_HASH = "9ab1151f4a6628402b98ebad05de2c60c8240999df6bf7996fcdc83a691397e2"
TABLE = GeneTable.load()
FILES = sorted(assets.path("embedded", "cells").glob("*.h5ad"))


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(default_folder())


@pytest.fixture(scope="module")
def vocabulary():
    return load_vocabulary(default_folder())


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_shipped_vocabulary_is_the_one_that_models_were_made_with():
    assert tokenizer_hash(default_folder()) == GOLDEN_HASH


@pytest.mark.slow
def test_the_repository_alone_gives_the_shipped_tokenizer_again(tmp_path):
    build_default(tmp_path)
    for path in default_folder().iterdir():
        same = (tmp_path / path.name).read_bytes() == path.read_bytes()
        assert same, f"{path.name} differs: scmulan tokenizer build --default"  # a diff of two megabytes would take pytest hours


def test_ids_fit_sixteen_bits_with_room_for_genes_to_come(vocabulary):
    assert vocabulary.size % 64 == 0
    assert vocabulary.size < LARGEST_VOCABULARY - 4000
    assert vocabulary.n_genes > 54_000


def test_it_loads_as_any_tokenizer_does_and_is_small(tokenizer):
    plain = AutoTokenizer.from_pretrained(default_folder())
    text = "<bos><organ> blood<cell><depth:9><n:3> HLA-DRA CD74<n:1> MT-CO1</cell><task:annotate><cell_type> B cell<eos>"
    assert encode(plain, text) == encode(tokenizer, text)
    assert sum(path.stat().st_size for path in default_folder().iterdir()) < 2_500_000


def test_it_holds_the_genes_it_is_said_to_hold(vocabulary):
    held, group = set(vocabulary.genes), TABLE.locus_groups
    has_id = TABLE.gene_ids != ""
    for name, most_recent in (("protein-coding gene", True), ("immune receptor gene", True), ("non-coding RNA", False)):
        of_human = TABLE.is_human & has_id & (group == name) & (most_recent | ~TABLE.is_recent)
        assert held >= set(TABLE.symbols[of_human])
    for name in ("protein-coding gene", "immune receptor gene"):
        assert held >= set(TABLE.symbols[~TABLE.is_human & (group == name)])
    assert {"GATA1", "HLA-DRA", "MT-CO1", "MALAT1", "XIST", "TRAC", "IGHG1", "Ly6c2", "H2-Aa", "AI506816"} <= held


def test_every_gene_of_a_mouse_is_the_row_of_its_orthologue_or_its_own(vocabulary):
    rows = TABLE.resolve(["Gata1", "Ly6c2", "Cd3e"], "Mus musculus").index
    assert TABLE.symbols[rows].tolist() == ["GATA1", "Ly6c2", "CD3E"]
    assert set(TABLE.symbols[rows]) <= set(vocabulary.genes)


def test_every_gene_and_control_token_is_one_token_and_comes_back(tokenizer, vocabulary):
    spelled = [f" {gene}" for gene in vocabulary.genes] + structure_tokens()
    ids = tokenizer(spelled, add_special_tokens=False)["input_ids"]
    assert all(len(each) == 1 for each in ids)
    assert [each[0] for each in ids[: vocabulary.n_genes]] == list(range(vocabulary.first_gene, vocabulary.last_gene))
    assert tokenizer.batch_decode(ids[::97]) == spelled[::97]


def test_the_vocabulary_entry_of_every_text_id_decodes_and_encodes_back_to_the_same_text(tokenizer, vocabulary):
    for number in range(vocabulary.text[0], vocabulary.text[1], 5):
        text = tokenizer.decode([number])
        assert "\ufffd" in text or tokenizer.decode(encode(tokenizer, text)) == text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_real_cells_come_back_from_their_text_with_the_same_ids(path, tokenizer, vocabulary):
    cells = read_cells(path).take(np.arange(3))
    used = np.unique(cells.counts.indices)
    counts, _ = csentence.to_vocabulary_order(cells.counts[:, used], [str(symbol) for symbol in TABLE.symbols[used]], vocabulary)
    assert counts.sum() == cells.counts.sum()  # nothing of the shipped cells is outside
    ids = csentence.encode(counts, vocabulary)
    for row in range(len(ids)):
        assert encode(tokenizer, tokenizer.decode(ids[row])) == ids[row].tolist()


def test_names_of_the_ontologies_take_few_tokens(tokenizer):
    def mean(labels):
        return np.mean([len(ids) for ids in tokenizer([f" {label}" for label in labels], add_special_tokens=False)["input_ids"]])

    assert mean([label for field in FIELDS for label in known_labels(field)]) < 3.5
    assert mean(Ontology.load("CL").labels()) < 6


def test_ids_rise_with_detection_then_by_kind_species_and_alphabet():
    rows = TABLE.index_of_symbols(["XIST", "GATA1", "Ly6c2", "CD3E", "ACTB", "HOTAIR"]).astype(np.int64)
    detection = np.zeros(len(TABLE))
    detection[rows[[1, 4]]] = 0.25, 0.5
    assert TABLE.symbols[in_order(TABLE, rows, detection)].tolist() == ["HOTAIR", "XIST", "Ly6c2", "CD3E", "GATA1", "ACTB"]
    assert set(default_genes(TABLE, detection)) >= set(rows)


def test_those_shipped_go_by_their_names(tmp_path):
    assert tokenizer_folder("default") == default_folder()
    assert tokenizer_folder("demo") == assets.path("embedded", "model")
    assert tokenizer_folder(tmp_path) == tmp_path
    assert json.loads((default_folder() / "scmulan_vocabulary.json").read_text())["gene_order"].startswith("rising")
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    with pytest.raises(CheckpointError, match="nope': no such folder; needed a tokenizer or model folder, or default or demo"):
        tokenizer_folder(tmp_path / "nope")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file': a file; needed a tokenizer or model folder"):
        tokenizer_folder(tmp_path / "file")


@pytest.mark.parametrize("name", ["default", "demo"])
def test_a_plan_may_name_them_in_both_ways_and_other_folders_are_beside_it(tmp_path, name):
    for given in (name, {"folder": name}):
        plan = read_plan({"sources": ["a.h5ad"], "tokenizer": given}, tmp_path)
        assert tokenizer_folder(plan.tokenizer.folder) == tokenizer_folder(name)
    for given in ("mine", {"folder": "mine"}):
        assert read_plan({"sources": ["a.h5ad"], "tokenizer": given}, tmp_path).tokenizer.folder == str(tmp_path / "mine")
