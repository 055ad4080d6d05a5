"""The pictures: what they say in words and numbers, that they leave no trace in matplotlib, and what a missing extra says."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest

from scmulan import _drawing, plots
from scmulan.errors import CellDataError, EngineError
from scmulan.measures import metrics

matplotlib = pytest.importorskip("matplotlib")
rng = np.random.default_rng(0)
REAL, MADE = rng.poisson(2.0, (40, 15)), rng.poisson(3.0, (50, 15))


def words(figure) -> list[str]:
    """Every text of a figure that is drawn, save it first."""
    figure.savefig(io.BytesIO(), dpi=40)
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text() and text.get_visible()]


def annotated(said):
    return metrics.annotation(["B", "B", "B", "NK"], said, probability=[0.9, 0.8, 0.7, 0.6])


def sample(auc: float) -> metrics.TwoSample:
    return metrics.TwoSample(n=50, auc_pcs=auc, auc_pcs_error=0.02, auc_hvgs=auc - 0.1, auc_hvgs_error=0.02)


SHARES = {"without": {"CD34": 0.9, "ery": 0.09, "NK": 0.01}, "4": {"CD34": 0.3, "ery": 0.7}}
EVERY = {
    "confusion_matrix": lambda: plots.confusion_matrix(annotated(["B", "B", "NK", None])),
    "reliability": lambda: plots.reliability(annotated(["B"] * 4).calibration),
    "umap": lambda: plots.umap(rng.normal(size=(30, 2)), rng.normal(size=(20, 2)), ["B", "NK", "T"] * 10, ["B", "NK"] * 10),
    "composition": lambda: plots.composition(SHARES, gene="GATA1", without="without"),
    "gene_agreement": lambda: plots.gene_agreement(metrics.gene_statistics(REAL), metrics.gene_statistics(MADE)),
    "two_sample": lambda: plots.two_sample({"scmulan": sample(0.6), "real": sample(0.5)}),
    "field_probabilities": lambda: plots.field_probabilities({"organ": {"blood": 0.9, "lung": 0.1}}, true={"organ": "lung"}),
    "gene_contributions": lambda: plots.gene_contributions({"CD79A": 3.0, "CD3E": -1.0}, label="B cell"),
    "loss_curve": lambda: plots.loss_curve(range(50), np.linspace(5, 3, 50), held_out=([10, 40], [4.5, 3.4]), baselines={"NB": 3.9}),
    "depths": lambda: plots.depths(REAL, MADE),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", EVERY)
def test_every_picture_is_drawn_and_saved_without_a_warning(name):
    out = io.BytesIO()
    EVERY[name]().savefig(out, dpi=40)
    assert out.getvalue().startswith(b"\x89PNG")


def test_drawing_leaves_the_settings_of_matplotlib_and_pyplot_alone():
    before = dict(matplotlib.rcParams)
    EVERY["confusion_matrix"]()
    assert dict(matplotlib.rcParams) == before
    code = "import sys, scmulan.plots as p; p.gene_contributions({'A': 1.0}, label='B'); print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_the_module_can_be_had_without_matplotlib():
    code = "import sys; sys.modules['matplotlib'] = None; import scmulan.plots"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("module", "draw"),
    [
        ("matplotlib", EVERY["confusion_matrix"]),
        ("umap", lambda: plots.umap_positions(np.zeros((20, 3)), np.zeros((20, 3)))),
    ],
)
def test_a_missing_extra_names_its_install_line(monkeypatch, module, draw):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EngineError, match=rf"needs {module}.*pip install 'scmulan\[plots\]'"):
        draw()


def test_a_missing_module_that_is_not_of_the_extra_is_not_blamed_on_it():
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        _drawing.drawn(lambda: __import__("no_such"))()


def test_colours_are_distinct_to_twenty_and_the_same_whatever_the_order():
    labels = [f"type {i:02}" for i in range(20)]
    assert len(set(plots.colours(labels).values())) == 20
    assert plots.colours(labels[::-1]) == plots.colours(labels)


def test_confusion_shows_shares_of_the_true_label_and_abstentions_only_if_there_are_any():
    said = words(plots.confusion_matrix(annotated(["B", "B", "NK", None])))
    assert {"67", "33", "100", "no answer", "B  (3)", "NK  (1)"} <= set(said)
    assert "no answer" not in words(plots.confusion_matrix(annotated(["B", "B", "B", "NK"])))


def test_confusion_gives_no_row_to_a_label_that_is_true_of_no_cell():
    said = words(plots.confusion_matrix(metrics.annotation(["B", "B"], ["B", "T"])))
    assert "T" in said
    assert not any(text.startswith("T  (") for text in said)


def test_reliability_gives_the_error_and_the_cells_of_each_bin():
    said = words(plots.reliability(annotated(["B", "B", "NK", "NK"]).calibration))
    assert "calibration error 0.350" in said
    assert said.count("1") == 4


def test_umap_numbers_every_type_in_the_legend_and_on_the_side_that_has_it():
    said = words(plots.umap(np.zeros((4, 2)), np.ones((3, 2)), ["B", "B", "NK", "T"], ["B", "B", "B"]))
    assert {"1  B", "2  NK", "3  T", "Real, 4 cells", "Generated, 3 cells"} <= set(said)
    assert [said.count(number) for number in "123"] == [2, 1, 1]


@pytest.mark.filterwarnings("error")
def test_numbers_of_types_that_lie_on_each_other_are_pushed_apart():
    figure = plots.umap(np.zeros((2, 2)), np.ones((2, 2)), ["B", "NK"], ["B", "NK"])
    first, second = (np.array(text.get_position()) for text in figure.axes[0].texts)
    assert np.linalg.norm(first - second) > 0.03


def test_umap_positions_need_enough_cells():
    with pytest.raises(CellDataError, match="4 cells; needed 10"):
        plots.umap_positions(np.zeros((2, 3)), np.zeros((2, 3)))


@pytest.mark.slow
def test_umap_positions_repeat_with_their_seed_and_keep_groups_apart():
    real, made = rng.normal(size=(60, 5)), rng.normal(size=(60, 5)) + 20
    first, again = (plots.umap_positions(real, made, seed=3) for _ in range(2))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    positions, is_made = np.concatenate(first), np.arange(120) >= 60
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2) + np.diag(np.full(120, np.inf))
    assert (is_made[distance.argmin(1)] == is_made).mean() > 0.95, "the nearest neighbour is of the same group"


def test_composition_fills_each_bar_and_gathers_rare_types():
    figure = plots.composition(SHARES, gene="GATA1", without="without")
    bars = figure.axes[0].containers
    assert np.allclose(sum(np.array([bar.get_height() for bar in row]) for row in bars), 1)
    assert [row.get_label() for row in bars] == ["1 CD34", "2 ery", "other"]
    assert "1 · 90%" in words(figure)
    assert "count of GATA1 in the prompt" in words(figure)


def test_the_bar_without_the_gene_stands_apart():
    def gap(without):
        feet = [bar.get_x() for bar in plots.composition(SHARES, gene="GATA1", without=without).axes[0].containers[0]]
        return feet[1] - feet[0]

    assert gap("without") > gap(None)


def test_gene_agreement_leaves_out_genes_no_cell_has():
    padded = [metrics.gene_statistics(np.hstack([cells, np.zeros((len(cells), 5), int)])) for cells in (REAL, MADE)]
    figure = plots.gene_agreement(*padded)
    assert [len(axes.collections[0].get_offsets()) for axes in figure.axes] == [15, 15, 15]


def test_two_sample_writes_each_figure_beside_its_mark():
    assert {"0.600", "0.500", "0.400", "scmulan", "real"} <= set(words(EVERY["two_sample"]()))


def test_the_true_value_of_a_field_is_shown_even_when_it_was_not_thought_of():
    values = {"organ": {"blood": 0.7, "lung": 0.2, "skin": 0.06, "gut": 0.04}}
    said = words(plots.field_probabilities(values, true={"organ": "gut"}, most=2))
    assert "0.040 ◂ true" in said
    assert "skin" not in said
    said = words(plots.field_probabilities(values, true={"organ": "kidney"}, most=2))
    assert "0.000 ◂ true" in said


def test_gene_contributions_are_strongest_first_whatever_their_sign():
    figure = plots.gene_contributions({"weak": 0.1, "for": 2.0, "against": -3.0}, label="B cell", most=2)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["against", "for"]
    assert {"−3.00", "+2.00"} <= set(words(figure))


def test_no_gene_that_speaks_is_an_error_and_not_an_empty_picture():
    with pytest.raises(CellDataError, match="'B cell': found none"):
        plots.gene_contributions({}, label="B cell")


def test_loss_curve_names_its_baseline_and_last_losses():
    said = words(EVERY["loss_curve"]())
    assert "NB 3.9" in said
    assert "held out, last 3.4" in said


def test_depths_give_the_medians_of_both_sides():
    said = words(plots.depths(REAL, MADE))
    assert f"real, median {np.median(REAL.sum(1)):,.0f}" in said
    assert f"generated, median {np.median((MADE > 0).sum(1)):,.0f}" in said


def test_long_labels_keep_both_ends():
    assert _drawing.short("CD8-positive, alpha-beta memory T cell of the blood", most=20) == "CD8-positi…the blood"
    assert _drawing.short("B cell", most=20) == "B cell"


def test_labels_that_differ_in_the_middle_stay_different():
    naive = [f"naive thymus-derived CD{number}-positive, alpha-beta T cell" for number in (4, 8)]
    assert len({_drawing.short(label, naive) for label in naive}) == 2
