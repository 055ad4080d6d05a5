"""The tokenizer folder: loads anywhere, spells genes as words, represents any text, and refuses what would blur ids."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import GENES, LABELS, random_counts
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from scmulan import csentence
from scmulan.errors import CheckpointError, VocabularyError
from scmulan.tokenizer import LARGEST_VOCABULARY, LAYOUT_FILE, build_tokenizer, load_tokenizer, load_vocabulary, tokenizer_hash


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def is_inner(piece: str) -> bool:
    """Whether a text piece stands only inside or at the edge of a longer word, as the ``-be`` of ``alpha-beta``."""
    return piece.strip(" ")[:1] in "-._@/()" or piece[-1:] in "-._@/()"


def test_plain_autotokenizer_loads_it_and_gives_the_same_ids(language):
    plain = AutoTokenizer.from_pretrained(language.folder)
    text = "<bos><organ> blood<cell><depth:9><n:3> HLA-DRA G1<n:1> MT-CO1</cell><task:annotate><cell_type> B cell<eos>"
    assert encode(plain, text) == encode(language.tokenizer, text)
    assert (plain.bos_token_id, plain.eos_token_id, plain.pad_token_id) == (1, 2, 0)
    assert encode(load_tokenizer(language.folder), text) == encode(plain, text)


def test_the_vocabulary_entry_of_every_id_encodes_back_to_it(language):
    """Of control tokens, structure and genes all do. Of text pieces all that are words, whole or from their start, do: not a
    byte of a longer UTF-8 character, which is no text alone, nor an inner piece such as ``-be``, which alone is cut in two."""
    v, exceptions = language.vocabulary, []
    for number in range(v.last_gene):
        text = language.tokenizer.decode([number])
        if encode(language.tokenizer, text) != [number]:
            exceptions.append((number, text))
    assert all(v.text[0] <= number < v.text[1] for number, _ in exceptions)
    words = [text for _, text in exceptions if "\ufffd" not in text]
    assert all(is_inner(text) for text in words), words
    assert len(words) < 0.05 * (v.text[1] - v.text[0])
    assert len(exceptions) - len(words) <= 128 + 64


def test_inner_pieces_come_back_as_the_same_text(language):
    for number in range(*language.vocabulary.text):
        text = language.tokenizer.decode([number])
        assert "\ufffd" in text or language.tokenizer.decode(encode(language.tokenizer, text)) == text


def test_a_c_sentence_comes_back_from_its_text_with_the_same_ids(language):
    cells = csentence.encode(random_counts(60, seed=5), language.vocabulary)
    for row in range(len(cells)):
        ids = cells[row].tolist()
        assert encode(language.tokenizer, language.tokenizer.decode(ids)) == ids


def test_a_c_sentence_reads_as_text(language):
    v = language.vocabulary
    ids = [
        v.cell,
        v.first_depth + 7,
        int(v.level_id(2)),
        v.gene_id("HLA-DRA"),
        int(v.level_id(0)),
        v.gene_id("G1"),
        v.gene_id("G10"),
        v.end_of_cell,
    ]
    assert language.tokenizer.decode(ids) == "<cell><depth:7><n:3> HLA-DRA<n:1> G1 G10</cell>"


def test_genes_that_begin_alike_are_not_confused(language):
    v = language.vocabulary
    assert encode(language.tokenizer, " G1 G10 G1") == [v.gene_id("G1"), v.gene_id("G10"), v.gene_id("G1")]
    assert encode(language.tokenizer, " G10")[0] != encode(language.tokenizer, " G1")[0]
    assert language.tokenizer.decode([v.gene_id("G1"), v.gene_id("G10")]) == " G1 G10"


def test_a_gene_in_a_question_is_the_very_token_of_the_cell(language):
    ids = encode(language.tokenizer, "Which cells express RP11-34P13.7 and HLA-DRA?")
    assert language.vocabulary.gene_id("RP11-34P13.7") in ids
    assert language.vocabulary.gene_id("HLA-DRA") in ids


def test_a_gene_named_inside_another_word_is_not_that_gene(language):
    """G100 and G1x are no genes of the vocabulary: they are text, not G1 and a rest."""
    for text in (" G100", " G1x", " AG1", " HLA-DRA2", " T-bet"):
        assert not set(encode(language.tokenizer, text)) & {language.vocabulary.gene_id(gene) for gene in ("G1", "G10", "HLA-DRA")}


@given(st.text())
def test_any_text_is_representable(language, text):
    assert language.tokenizer.decode(encode(language.tokenizer, text)) == text


pieces = st.sampled_from(
    [*LABELS, "<cell>", "</cell>", "<n:1>", "<task:annotate>", "<pad>", "  ", "\n", "é", "細胞", "🧬", ".", "-", "G1", " G10", "T"]
)


@given(st.lists(pieces | st.text(max_size=5), max_size=8).map("".join))
def test_text_around_control_tokens_and_genes_comes_back(language, text):
    assert language.tokenizer.decode(encode(language.tokenizer, text)) == text
    as_text = language.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert language.tokenizer.decode(as_text) == text
    v = language.vocabulary
    assert all(v.text[0] <= number < v.text[1] or v.first_gene <= number < v.last_gene for number in as_text)


def test_ids_fit_sixteen_bits_and_the_embedding_rows_are_a_multiple_of_64(language):
    v = language.vocabulary
    assert len(language.tokenizer) == v.last_gene <= v.size < LARGEST_VOCABULARY <= 1 << 16
    assert v.size % 64 == 0


def test_more_ids_than_sixteen_bits_hold_are_refused(tmp_path):
    with pytest.raises(VocabularyError, match="needed fewer than 65,536"):
        build_tokenizer(tmp_path, genes=[f"G{number}" for number in range(65_300)], texts=["blood"], fields=["organ"], tasks=[])


def test_a_gene_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(VocabularyError, match="1 gene symbols stand twice"):
        build_tokenizer(tmp_path, genes=["A1", "B1", "A1"], texts=["blood"], fields=["organ"], tasks=[])


@pytest.mark.parametrize("gene", ["two words", "A--B", "--A1", "A1.", "A1+", "A1<cell>", "", " "])
def test_genes_that_cannot_be_one_word_are_refused_by_name(tmp_path, gene):
    with pytest.raises(VocabularyError) as raised:
        build_tokenizer(tmp_path, genes=["A1", gene, "B1"], texts=["blood"], fields=["organ"], tasks=[])
    assert repr(gene) in str(raised.value)


def test_the_vocabulary_has_the_genes_in_the_order_given(language):
    v = language.vocabulary
    assert v.genes == GENES
    assert [language.tokenizer.convert_tokens_to_ids(f"Ġ{gene}") for gene in GENES] == list(range(v.first_gene, v.last_gene))
    assert language.tokenizer.convert_ids_to_tokens(v.end_of_cell - 1) == "<n:1>"
    assert language.tokenizer.convert_ids_to_tokens(v.first_depth) == "<depth:0>"


def build(folder, **changes):
    """A tokenizer of three genes, with some arguments changed."""
    arguments = {"genes": ["A1", "B1", "C1"], "texts": ["blood", "B cell"], "fields": ["organ"], "tasks": ["annotate"], "text_size": 300}
    build_tokenizer(folder, **{**arguments, **changes})
    return tokenizer_hash(folder)


def test_the_hash_changes_with_whatever_changes_the_meaning_of_ids(tmp_path):
    changes = [
        {}, {"genes": ["A1", "C1", "B1"]}, {"genes": ["A1", "B1"]}, {"texts": ["bone marrow", "B cell"]}, {"fields": ["region"]},
        {"tasks": ["locate"]},
    ]  # fmt: skip
    hashes = [build(tmp_path / str(number), **change) for number, change in enumerate(changes)]
    assert len(set(hashes)) == len(changes)
    assert build(tmp_path / "again") == hashes[0]


@pytest.mark.parametrize(
    ("read", "name"),
    [(read, name) for read in (load_tokenizer, load_vocabulary, tokenizer_hash) for name in ("tokenizer.json", LAYOUT_FILE)],
)
@pytest.mark.parametrize("damage", ["missing", "cut", "binary"])
def test_a_damaged_folder_is_an_error_that_names_it(language, tmp_path, name, damage, read):
    folder = tmp_path / "damaged"
    shutil.copytree(language.folder, folder)
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:60] if damage == "cut" else b"\xff\xfe\x00\x9d" * 20)
    with pytest.raises(CheckpointError, match=str(folder)):
        read(folder)


@pytest.mark.parametrize("content", ["[1, 2]", "{}", '{"model": {}}', "null"])
@pytest.mark.parametrize("name", ["tokenizer.json", LAYOUT_FILE])
def test_a_file_of_another_kind_under_the_same_name_is_an_error(language, tmp_path, name, content):
    folder = tmp_path / "other"
    shutil.copytree(language.folder, folder)
    (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=str(folder)):
        load_vocabulary(folder)
    if name == "tokenizer.json":
        with pytest.raises(CheckpointError, match=str(folder)):
            load_tokenizer(folder)
        with pytest.raises(CheckpointError, match=str(folder)):
            tokenizer_hash(folder)


def test_a_layout_from_another_tokenizer_gives_another_hash(language, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(language.folder, folder)
    layout = json.loads((folder / LAYOUT_FILE).read_text())
    (folder / LAYOUT_FILE).write_text(json.dumps({**layout, "first_gene": layout["first_gene"] + 1}))
    assert tokenizer_hash(folder) != tokenizer_hash(language.folder)
