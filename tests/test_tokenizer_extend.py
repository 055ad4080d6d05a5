"""Tokenizers that extend another model's: its pieces and merges, our genes and control tokens, and no more than 65,536 ids."""

from __future__ import annotations

import json

import pytest
from conftest import GENES
from foreign import SENTENCES, SPECIAL, change_json, write_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from scmulan.errors import CheckpointError, VocabularyError
from scmulan.tokenizer import LAYOUT_FILE, build_tokenizer, load_tokenizer, load_vocabulary, tokenizer_hash
from scmulan.tokenizer_extend import extend_tokenizer, extension_of, prune, read_foreign_tokenizer


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    write_tokenizer(folder)
    return read_foreign_tokenizer(folder)


@pytest.fixture(scope="module")
def extended(foreign, language, tmp_path_factory):
    folder = tmp_path_factory.mktemp("extended")
    extend_tokenizer(foreign, folder, genes_of=language.folder)
    return folder


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_every_piece_has_an_id_and_no_special_token_is_carried_over(foreign, extended):
    v, tokenizer = load_vocabulary(extended), load_tokenizer(extended)
    pieces = tokenizer.convert_ids_to_tokens(list(range(*v.text)))
    assert {*pieces, "ĠT"} == set(foreign.pieces), "T is a gene, and has its id there"
    assert pieces == sorted(pieces, key=foreign.pieces.__getitem__)
    assert not set(SPECIAL) & set(tokenizer.get_vocab())


def test_words_of_the_other_tokenizer_are_written_with_its_own_pieces(foreign, extended):
    tokenizer = load_tokenizer(extended)
    for text in SENTENCES[:2]:
        ours, theirs = tokenizer.tokenize(text), [foreign.tokenizer.id_to_token(number) for number in foreign.encode([text])[0]]
        assert ours == theirs


def test_genes_and_fields_are_those_of_the_given_tokenizer_in_its_order(extended, language):
    v = load_vocabulary(extended)
    assert v.genes == GENES
    tokenizer = load_tokenizer(extended)
    text = "<bos><organ> blood<cell><depth:9><n:3> HLA-DRA G1<n:1> MT-CO1</cell><task:annotate><cell_type> B cell<eos>"
    ids = encode(tokenizer, text)
    assert tokenizer.decode(ids) == text
    assert v.gene_id("HLA-DRA") in ids
    assert v.size % 64 == 0


@given(st.text())
def test_any_text_is_representable(extended, text):
    tokenizer = load_cached(extended)
    assert tokenizer.decode(encode(tokenizer, text)) == text


LOADED: dict[str, object] = {}


def load_cached(folder):
    return LOADED.setdefault(str(folder), load_tokenizer(folder))


def test_a_piece_that_spells_a_gene_is_the_gene(foreign, tmp_path):
    assert "Ġcell" in foreign.pieces
    build_tokenizer(tmp_path / "genes", genes=["cell", "A1"], texts=["blood"], fields=["organ"], tasks=["annotate"], text_size=260)
    extend_tokenizer(foreign, tmp_path / "extended", genes_of=tmp_path / "genes")
    v, tokenizer = load_vocabulary(tmp_path / "extended"), load_tokenizer(tmp_path / "extended")
    assert encode(tokenizer, " cell") == [v.gene_id("cell")]
    assert v.text[1] - v.text[0] == len(foreign.pieces) - 1


def test_the_layout_says_what_is_extended(foreign, extended, language):
    assert extension_of(extended) == {
        "tokenizer_sha256": foreign.sha256, "pieces": len(foreign.pieces), "pieces_kept": len(foreign.pieces),
        "merges": len(foreign.merges), "merges_kept": len(foreign.merges),
    }  # fmt: skip
    assert extension_of(language.folder) is None
    assert str(foreign.folder) not in (extended / LAYOUT_FILE).read_text(), "no path of the machine it was made on"


def test_the_same_folders_give_the_same_tokenizer(foreign, extended, language, tmp_path):
    extend_tokenizer(foreign, tmp_path, genes_of=language.folder)
    assert tokenizer_hash(tmp_path) == tokenizer_hash(extended)


@pytest.mark.parametrize("room", [256, 257, 300, 419])
def test_pruning_keeps_the_bytes_and_the_first_merges(foreign, room):
    pieces, merges = prune(foreign, room)
    assert len(pieces) == room
    assert merges == foreign.merges[: room - 256]
    assert set(pieces) == set(pre_tokenizers.ByteLevel.alphabet()) | {left + right for left, right in merges}


def test_pieces_that_are_genes_take_no_room(foreign):
    first = "".join(foreign.merges[0])
    assert prune(foreign, 257, free={first})[1] == foreign.merges[:2]


def test_merges_that_make_a_control_token_are_left_out_with_what_is_made_of_it(foreign):
    first = "".join(foreign.merges[0])
    pieces, merges = prune(foreign, 10_000, forbidden={first})
    assert first not in pieces
    assert all(first not in (left, right, left + right) for left, right in merges)


@pytest.mark.slow
def test_where_genes_leave_little_room_the_text_is_pruned_and_stays_representable(foreign, tmp_path):
    genes = [f"G{number}" for number in range(64_990)]
    build_tokenizer(tmp_path / "genes", genes=genes, texts=["blood"], fields=["organ"], tasks=[], text_size=256)
    extends = extend_tokenizer(foreign, tmp_path / "extended", genes_of=tmp_path / "genes")
    assert 0 < extends["merges_kept"] < extends["merges"] == len(foreign.merges)
    assert extends["pieces_kept"] == 256 + extends["merges_kept"]
    v, tokenizer = load_vocabulary(tmp_path / "extended"), load_tokenizer(tmp_path / "extended")
    assert v.size == 65_472
    text = " natural killer cell of the marrow, 細胞"
    assert tokenizer.decode(encode(tokenizer, text)) == text
    assert len(encode(tokenizer, text)) > len(foreign.encode([text])[0])


def test_genes_that_leave_no_room_for_the_bytes_are_an_error(foreign):
    with pytest.raises(VocabularyError, match=r"room for 255 pieces of text; needed at least 256 \(the bytes\): take fewer genes"):
        prune(foreign, 255)


def test_merges_written_as_one_text_are_read_too(foreign, tmp_path):
    whole = json.loads((foreign.folder / "tokenizer.json").read_text())
    whole["model"]["merges"] = [" ".join(pair) for pair in whole["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    assert read_foreign_tokenizer(tmp_path).merges == foreign.merges


def save(folder, model, pre_tokenizer=None):
    tokenizer = Tokenizer(model)
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(
    ("model", "pre_tokenizer", "said"),
    [
        (models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"), None, "a tokenizer of kind WordPiece"),
        (models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0), pre_tokenizers.Metaspace(), "a tokenizer of kind Unigram"),
        (models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")], byte_fallback=True), pre_tokenizers.Metaspace(), "SentencePiece"),
        (models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]), pre_tokenizers.Whitespace(), "a BPE of characters, not bytes"),
        (models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]), pre_tokenizers.ByteLevel(), "254 of the 256 bytes have no piece"),
        (models.BPE({"a": 0, "b</w>": 1}, [], end_of_word_suffix="</w>"), pre_tokenizers.ByteLevel(), "carry the mark '</w>'"),
    ],
)
def test_other_kinds_of_tokenizer_are_refused_with_what_was_needed(tmp_path, model, pre_tokenizer, said):
    save(tmp_path, model, pre_tokenizer)
    with pytest.raises(VocabularyError, match=said) as raised:
        read_foreign_tokenizer(tmp_path)
    assert "needed a byte-level BPE, as Qwen, Llama 3 and GPT-2 have" in str(raised.value)


def test_a_folder_without_a_tokenizer_is_an_error_that_says_how_to_write_one(tmp_path):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: No such file.*save_pretrained"):
        read_foreign_tokenizer(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff\xfe", b'{"model": {"merges": [], "vocab": 3}}'])
def test_a_damaged_tokenizer_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises((CheckpointError, VocabularyError), match=str(tmp_path)):
        read_foreign_tokenizer(tmp_path)


def test_a_changed_tokenizer_is_another(foreign, tmp_path):
    write_tokenizer(tmp_path)
    assert read_foreign_tokenizer(tmp_path).sha256 == foreign.sha256
    change_json(tmp_path / "tokenizer.json", model__ignore_merges=True)
    assert read_foreign_tokenizer(tmp_path).sha256 != foreign.sha256
