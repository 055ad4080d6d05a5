"""What is shipped: small enough, named with source and licence, split as said, and the model the one its card and recipe speak of."""

from __future__ import annotations

import csv
import json

import anndata
import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from scmulan import assets
from scmulan.cells import check
from scmulan.embedded_build import SOURCES, TEST_SHARE
from scmulan.metadata import canonical

CELLS = assets.path("embedded", "cells")
FILES = sorted(CELLS.glob("*.h5ad"))
MODEL = assets.path("embedded").joinpath("model")


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def obs(request):
    """Labels of one shipped data set; its matrix stays on disk."""
    adata = anndata.read_h5ad(request.param, backed="r")
    table = adata.obs.copy()
    adata.file.close()
    return table


def test_the_cells_are_under_fifteen_megabytes():
    assert 0 < sum(path.stat().st_size for path in FILES) < 15_000_000


def test_every_file_stands_in_sources_with_repository_licence_and_publication():
    with open(CELLS / "SOURCES.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert sorted(row["name"] for row in rows) == [path.stem for path in FILES] == sorted(source.name for source in SOURCES)
    for row in rows:
        assert row["licence"] in ("MIT", "BSD-2-Clause", "Apache-2.0", "CC-BY-4.0"), row["name"]
        assert row["repository"].count("/") == 1
        assert row["publication"]


def test_sources_count_the_cells_and_genes_that_are_there():
    with open(CELLS / "SOURCES.tsv", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            adata = anndata.read_h5ad(CELLS / f"{row['name']}.h5ad", backed="r")
            assert adata.shape == (int(row["cells"]), int(row["genes"])), row["name"]
            adata.file.close()


def test_every_file_is_attributed():
    text = (CELLS / "ATTRIBUTION.md").read_text()
    assert not [path.stem for path in FILES if path.stem not in text]


def test_a_fifth_of_each_type_is_held_out(obs):
    """Drawn by scikit-learn; types of a single cell go with the largest type, as they can't be divided."""
    assert set(obs["split"]) == {"train", "test"}
    if "clone" in obs or "guide" in obs:
        return
    labels = obs["original_cell_type"].astype(str)
    counts = labels.value_counts()
    grouped = labels.where(labels.map(counts) > 1, counts.index[0])
    _, test = train_test_split(np.arange(len(obs)), test_size=TEST_SHARE, stratify=grouped, random_state=0)
    assert set(np.flatnonzero(obs["split"] == "test")) == set(test)


def test_whole_clones_are_held_out_where_clones_are_known():
    obs = anndata.read_h5ad(CELLS / "larry_haematopoiesis.h5ad", backed="r").obs
    assert (obs.groupby("clone", observed=True)["split"].nunique() == 1).all()
    assert 0.15 < (obs["split"] == "test").mean() < 0.25


def test_one_guide_of_each_target_and_half_of_the_controls_are_held_out_of_the_screen():
    obs = anndata.read_h5ad(CELLS / "papalexi_eccite_thp1.h5ad", backed="r").obs
    is_control = obs["perturbation"] == "non-targeting control"
    assert abs((obs.loc[is_control, "split"] == "test").mean() - 0.5) < 0.01
    guides = obs[~is_control].groupby("guide", observed=True)["split"]
    assert (guides.nunique() == 1).all()
    held = obs[~is_control & (obs["split"] == "test")]
    assert (held.groupby("perturbation", observed=True)["guide"].nunique() == 1).all()
    assert held["perturbation"].nunique() == 25


def test_labels_are_preferred_ones_with_the_ontology_ids_of_the_table(obs):
    for value, ontology_id in set(zip(obs["cell_type"], obs["cell_type_ontology_term_id"], strict=True)):
        known = canonical("cell_type", value)
        assert known.value == value
        assert (known.ontology_id or "unknown") == ontology_id


def test_facs_sorted_b_cells_carry_the_ontologys_name_and_keep_their_own():
    obs = anndata.read_h5ad(CELLS / "zheng_pbmc_facs.h5ad", backed="r").obs
    is_b = obs["original_cell_type"].astype(str).str.contains("CD19")
    assert set(obs.loc[is_b, "cell_type"]) == {"B cell"}
    assert is_b.sum() > 100


def test_there_are_several_organs_and_both_species():
    organs, species = set(), set()
    for path in FILES:
        obs = anndata.read_h5ad(path, backed="r").obs
        organs |= set(obs["tissue"].astype(str)) if "tissue" in obs else set()
        species |= {canonical("organism", value).value for value in obs["organism"].astype(str)}
    assert len(organs) >= 4
    assert species == {"Homo sapiens", "Mus musculus"}


@pytest.mark.parametrize("path", [CELLS / "larry_haematopoiesis.h5ad"], ids=["smallest"])
def test_a_shipped_file_checks_without_a_problem(path):
    assert check(path).verdict != "problem"


needs_model = pytest.mark.skipif(not MODEL.is_dir(), reason="no embedded model yet")


@needs_model
def test_the_model_is_under_sixteen_megabytes():
    assert {path.name for path in MODEL.glob("*.safetensors")} == {"model.safetensors"}
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 16_000_000


@needs_model
def test_the_models_card_holds():
    from scmulan.model import load_checkpoint

    checkpoint = load_checkpoint("demo")
    assert checkpoint.card["parameters"] == sum(parameter.numel() for parameter in checkpoint.model.parameters())
    assert checkpoint.card["context"] == checkpoint.context


@needs_model
def test_the_model_was_trained_on_the_training_cells_that_are_shipped():
    card = json.loads((MODEL / "scmulan.json").read_text())
    assert sorted(source["file"] for source in card["sources"]) == [path.name for path in FILES]
    from scmulan.model import file_hash

    for source in card["sources"]:
        assert source["sha256"] == file_hash(CELLS / source["file"]), source["file"]
        obs = anndata.read_h5ad(CELLS / source["file"], backed="r").obs
        assert source["splits"] == {name: int((obs["split"] == name).sum()) for name in ("train", "test")}
    assert sum(entry["cells"] for entry in card["labels"]) == sum(source["splits"]["train"] for source in card["sources"])


@needs_model
def test_the_model_is_the_one_of_the_shipped_recipes():
    from scmulan.model import PRESETS
    from scmulan.training.recipe import read_recipe

    recipe, config = read_recipe("training/demo.yaml"), json.loads((MODEL / "config.json").read_text())
    preset = PRESETS[recipe.model.preset]
    assert (config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]) == (
        preset.hidden, preset.layers, preset.heads
    )  # fmt: skip
    assert config["max_position_embeddings"] == read_recipe("training/demo_questions.yaml").packing.context
    card = json.loads((MODEL / "scmulan.json").read_text())
    assert card["recipe"]["model"]["preset"] == recipe.model.preset
