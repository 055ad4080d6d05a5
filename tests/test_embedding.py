"""Cells as points: a function of the cell alone, read at the places said."""

from __future__ import annotations

import numpy as np
import pytest

from scmulan.errors import PromptError
from scmulan.tasks_embedding import EmbeddingSettings
from tests.conftest import random_counts


def width_of(model) -> int:
    return int(model.checkpoint.model.config.hidden_size)


def test_a_point_is_the_same_alone_batched_and_shuffled(model, new_cells):
    together = model.embed(new_cells)
    order = np.random.default_rng(0).permutation(new_cells.n_obs)
    shuffled = model.embed(new_cells[order][:, np.random.default_rng(1).permutation(new_cells.n_vars)].copy())
    np.testing.assert_allclose(shuffled, together[order], atol=2e-5)
    alone = np.concatenate([model.embed(new_cells[[row]].copy()) for row in range(4)])
    np.testing.assert_allclose(alone, together[:4], atol=2e-5)


def test_labels_of_the_cells_change_nothing(model, new_cells):
    plain = model.embed(new_cells)
    renamed = new_cells.copy()
    renamed.obs["cell_type"], renamed.obs["tissue"] = "keratinocyte", "skin"
    np.testing.assert_array_equal(model.embed(renamed), plain)


def test_the_state_at_each_place_has_length_1_and_is_that_of_the_engine(model, new_cells):
    points, width = model.embed(new_cells), width_of(model)
    assert points.shape == (new_cells.n_obs, 2 * width)
    np.testing.assert_allclose(np.linalg.norm(points.reshape(-1, 2, width), axis=2), 1, rtol=1e-5)
    ready = model.read(new_cells, reserve=model.opened.reserve())
    for place, name in enumerate(("lineage", "cell_type")):
        opening = [model.writer.control_id(f"<{name}>")]
        prompts = [np.concatenate([model.writer.prompt("annotate", {}, cell=ready.ids[row]), opening]) for row in range(len(ready.ids))]
        states = model.engine.hidden(prompts)
        states /= np.linalg.norm(states, axis=1, keepdims=True)
        np.testing.assert_allclose(points[:, place * width : (place + 1) * width], states, atol=2e-5)


def test_one_place_is_a_part_of_several(model, new_cells):
    both = model.embed(new_cells)
    np.testing.assert_allclose(model.embed(new_cells, at="cell_type"), both[:, width_of(model) :], atol=2e-5)
    assert new_cells.uns["scmulan"]["at"] == ["cell_type"]


def test_views_are_of_cells_that_do_not_fit_alone(model, monkeypatch):
    monkeypatch.setattr(type(model.opened), "length", 60)  # 45 ids for a cell
    deep = random_counts(4, model.vocabulary.n_genes, seed=1, mean_genes=280, deepest=9)
    shallow = random_counts(4, model.vocabulary.n_genes, seed=2, mean_genes=10, deepest=2)
    one, several, of = EmbeddingSettings(), EmbeddingSettings(views=3), model.embeddings.of_counts
    np.testing.assert_array_equal(of(shallow, one), of(shallow, several))
    assert np.abs(of(deep, one) - of(deep, several)).max() > 1e-3
    np.testing.assert_allclose(of(deep[[2]], several), of(deep, several)[[2]], atol=2e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"at": ("celltype",)}, "nearest: 'cell_type'"),
        ({"at": ()}, "one or more of"),
        ({"at": ("organ", "organ")}, "each once"),
        ({"views": 0}, "1 or more"),
    ],
)
def test_settings_that_can_not_be_are_refused(settings, said):
    with pytest.raises(PromptError, match=said):
        EmbeddingSettings(**settings)


def test_settings_come_back_from_a_card():
    settings = EmbeddingSettings(at=("organ", "lineage"), views=2)
    assert EmbeddingSettings.of(settings.to_dict()) == settings
