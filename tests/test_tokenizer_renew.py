"""A renewed tokenizer has the new tokens in reserved places, and every other id means what it meant."""

from __future__ import annotations

import json

import pytest
from conftest import tiny_recipe

from scmulan.corpus.build import build_corpus
from scmulan.corpus.plan import read_plan
from scmulan.errors import CheckpointError, EngineError, VocabularyError
from scmulan.tokenizer import load_tokenizer, load_vocabulary, tokenizer_hash
from scmulan.tokenizer_renew import is_renewal_of, renew_tokenizer
from scmulan.training.loop import pretrain
from scmulan.training.recipe import Recipe, fill

TEXT = "<organ> blood<cell_type> B cell CD19<task:annotate>"


def test_only_reserved_places_change(language, tmp_path):
    new = renew_tokenizer(language.folder, tmp_path / "new", fields=["organ", "dream"], tasks=["annotate", "sing"])
    old, fresh = load_tokenizer(language.folder), load_tokenizer(tmp_path / "new")
    assert new == ["<dream>", "<task:sing>"]
    assert load_vocabulary(tmp_path / "new") == load_vocabulary(language.folder)
    assert fresh(TEXT)["input_ids"] == old(TEXT)["input_ids"]
    for number, token in enumerate(new):
        assert fresh.convert_tokens_to_ids(token) == old.convert_tokens_to_ids(f"<reserved:{number}>")
    assert fresh(" to <dream> of")["input_ids"].count(fresh.convert_tokens_to_ids("<dream>")) == 1


def test_a_renewed_tokenizer_knows_what_it_renews_and_can_be_renewed_again(language, tmp_path):
    renew_tokenizer(language.folder, tmp_path / "one", fields=["dream"], tasks=[])
    assert renew_tokenizer(tmp_path / "one", tmp_path / "two", fields=["dream", "song"], tasks=[]) == ["<song>"]
    first, second = tokenizer_hash(language.folder), tokenizer_hash(tmp_path / "one")
    assert is_renewal_of(tmp_path / "two", first)
    assert is_renewal_of(tmp_path / "two", second)
    assert not is_renewal_of(language.folder, second)


def test_more_tokens_than_places_or_its_own_folder_is_an_error(language, tmp_path):
    with pytest.raises(VocabularyError, match=r"40 tokens are new .*, 32 places are reserved"):
        renew_tokenizer(language.folder, tmp_path / "new", fields=[f"field{n}" for n in range(40)], tasks=[])
    with pytest.raises(CheckpointError, match="renewed into another folder"):
        renew_tokenizer(language.folder, language.folder, fields=[], tasks=[])


def test_a_model_goes_on_under_a_renewal_of_its_tokenizer_and_not_under_another(trained, tmp_path):
    renew_tokenizer(trained.folder, tmp_path / "tokenizer", fields=["dream"], tasks=[])
    build_corpus(read_plan(trained.plan), tmp_path / "tokenizer", tmp_path / "corpus")
    recipe = fill(Recipe, tiny_recipe(tmp_path / "run", steps=2, model={"start": str(trained.folder)}), "test")
    model = pretrain(recipe, tmp_path / "corpus", say=lambda _: None, log_with=None)
    assert "<dream>" in json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]
    other = json.loads((tmp_path / "tokenizer" / "scmulan_vocabulary.json").read_text()) | {"renews": ["another"]}
    (tmp_path / "tokenizer" / "scmulan_vocabulary.json").write_text(json.dumps(other))
    build_corpus(read_plan(trained.plan), tmp_path / "tokenizer", tmp_path / "other")
    with pytest.raises(EngineError, match="its tokenizer is not that of"):
        pretrain(
            fill(Recipe, tiny_recipe(tmp_path / "no", model={"start": str(trained.folder)}), "test"), tmp_path / "other", log_with=None
        )
