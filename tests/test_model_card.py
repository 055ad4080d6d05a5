"""The page beside a model: it says what the card records, what the card does not know, and parses as the Hub wants it."""

from __future__ import annotations

import json

import pytest
import yaml

from scmulan import assets
from scmulan.model_card import HUB_LICENCES, NOT_STATED, PAGE, card_text, licence_of

SOURCE = {
    "file": "lung.h5ad", "sha256": "ab" * 32, "cells": 1_500, "doubles": 3, "splits": {"train": 1_200, "test": 300},
    "labels": {"organism": ["Homo sapiens"], "organ": ["lung"], "cell_type": ["T|B doublet", "macrophage"]},
}  # fmt: skip
CARD = {
    "parameters": 29_500_000, "context": 1024, "steps": 900, "tokens": 3_600_000, "sources": [SOURCE],
    "labels": [
        {"organism": "Homo sapiens", "organ": "lung", "cell_type": "macrophage", "cells": 1_190},
        {"organism": "Homo sapiens", "organ": "lung", "cell_type": "mast cell, of lung", "cells": 10},
    ],
    "held_out_nats": {"generate/cell": 1838.25, "annotate/cell_type": 0.5, "annotate/frame": 9.0},
    "recipe": {"seed": 3, "plan": {"sources": ["/home/someone/lung.h5ad"]}, "corpus": None},
}  # fmt: skip


def front_matter(text: str) -> dict[str, object]:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_a_saved_model_has_its_page_beside_it(trained):
    card = json.loads((trained.folder / "scmulan.json").read_text())
    assert (trained.folder / PAGE).read_text() == card_text(card)
    assert card["sources"][0]["file"] in card_text(card)
    assert NOT_STATED in card_text(card)


def test_data_splits_held_out_figures_and_limits_stand_on_it():
    text = card_text(CARD)
    assert "1,200 training cells of 1 source;" in text
    assert "| lung.h5ad | 1,500 | 1,200 / 0 / 300 | Homo sapiens | lung |  | T/B doublet; macrophage | `abababababab` |" in text
    assert "900 steps over 3,600,000 tokens." in text
    assert "| generate | cell | 1,838.250 |" in text
    assert "Cell types with fewer than 20 training cells: mast cell, of lung (10)." in text
    assert "Of organs it knows lung;" in text
    assert "Its data name no assays." in text
    assert "No training cell says anything of: assay" in text
    for always in ("automaton", "Not for clinical use", 'model.generate(organ="lung", cell_type="macrophage", n=100)'):
        assert always in text, always


def test_the_paths_of_a_plan_do_not_leave_the_machine():
    assert "/home/someone" not in card_text(CARD)


@pytest.mark.parametrize(
    ("licences", "entry"),
    [
        (["MIT", "MIT"], {"license": "mit"}),
        (["CC-BY-4.0", "MIT"], {"license": "other", "license_name": "CC-BY-4.0 and MIT"}),
        (["our own"], {"license": "other", "license_name": "our own"}),
        (["MIT", None], {"license": "unknown"}),
        ([], {"license": "unknown"}),
    ],
)
def test_the_licence_is_that_of_the_sources_and_unknown_where_one_states_none(licences, entry):
    found = front_matter(card_text({"sources": [{**SOURCE, "licence": licence} for licence in licences]}))
    assert {key: value for key, value in found.items() if key.startswith("license")} == entry
    assert found["license"] in ("other", "unknown", *HUB_LICENCES)


def test_an_embedded_data_set_is_known_by_name_and_cells_not_by_name_alone():
    assert licence_of({"file": "zheng_pbmc_facs.h5ad", "cells": 3_870, "doubles": 4}) == "BSD-2-Clause"
    assert licence_of({"file": "zheng_pbmc_facs.h5ad", "cells": 3_870}) is None
    assert licence_of({"file": "zheng_pbmc_facs.h5ad", "cells": 3_874, "licence": "CC0-1.0"}) == "CC0-1.0"


@pytest.mark.parametrize("base", ["demo", {"name": "demo", "weights_sha256": "cd" * 32}])
def test_an_adapter_names_its_base(base):
    text = card_text({**CARD, "base": base})
    assert front_matter(text)["base_model"] == "demo"
    assert front_matter(text)["library_name"] == "peft"
    assert 'scmulan.load("demo", adapter="this-folder")' in text
    assert isinstance(base, str) or "cd" * 32 in text


@pytest.mark.parametrize("card", [{}, {"labels": ["B cell"], "sources": None, "held_out_nats": None, "recipe": None}])
def test_what_a_card_does_not_know_is_said_to_be_unknown(card):
    text = card_text(card)
    assert "what this model has seen is unknown" in text
    assert "Not measured." in text
    assert front_matter(text)["license"] == "unknown"


def test_of_an_atlas_some_sources_are_shown_and_the_rest_counted():
    text = card_text({"sources": [{**SOURCE, "file": f"{number}.h5ad"} for number in range(2_000)]})
    assert "2,000 sources" in text
    assert "and 1,960 sources more." in text
    assert len(text) < 20_000


def test_the_embedded_model_carries_the_page_of_its_card():
    folder = assets.path("embedded", "model")
    assert (folder / PAGE).read_text() == card_text(json.loads((folder / "scmulan.json").read_text()))
