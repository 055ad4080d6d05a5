"""The demonstration on a tiny model and made-up cells: its files, its eleven sections, and that it claims no more than it found."""

from __future__ import annotations

import dataclasses
import html
import importlib.util
import json
import re

import numpy as np
import pytest

from scmulan import plots
from scmulan.cells import read_h5ad
from scmulan.demo import PARTS, Sizes, prompting, run
from scmulan.demo.labels import words as label_words
from scmulan.demo.prompting import Prompted, Question
from scmulan.demo.stage import Stage, open_datasets
from scmulan.errors import EngineError
from scmulan.evaluate.cells import pooled
from scmulan.measures import two_sample

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.slow
SMALL = Sizes(
    per_type=6, per_type_long=6, described=10, per_count=2, per_count_open=2, enhanced=6, enhance_draws=1, indexed=40, mapped=12
)  # fmt: skip
B_CELLS = {"organ": "blood", "cell_type": "B cell"}
QUESTIONS = (
    Question(key="given", title="B cells", genes=("GATA1", "SPI1"), fields=B_CELLS, is_type_open=False),
    Question(key="open", title="any cell of blood", genes=("GATA1",), fields=B_CELLS, is_type_open=True),
    Question(key="unseen", title="liver", genes=("GATA1",), fields={"organ": "liver"}, is_type_open=True),
)


@pytest.fixture(scope="module")
def quick():
    """Fewer trees, the first two components in place of UMAP, and questions that the tiny model can be asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_sample, "N_TREES", 20)
        patch.setattr(plots, "umap_positions", lambda real, made, seed: (np.asarray(real)[:, :2], np.asarray(made)[:, :2]))
        patch.setattr(prompting, "QUESTIONS", QUESTIONS)
        yield


@pytest.fixture(scope="module")
def demo(trained, tmp_path_factory, quick):
    """Output folder, summary, and all that was said; run twice into one folder."""
    folder, said = tmp_path_factory.mktemp("demo") / "out", []
    data = [trained.plan.parent / name for name in ("human.h5ad", "mouse.h5ad")]
    first = run(folder, model=trained.folder, sizes=SMALL, data=data, say=said.append)
    (folder / "annotated.h5ad").write_text("left over")
    second = run(folder, model=trained.folder, sizes=SMALL, data=data, say=lambda _: None)
    return folder, first, second, said


def test_the_page_has_the_eleven_sections_in_order(demo):
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", (demo[0] / "report.html").read_text())
    numbers = [found.group(1) for title in titles if (found := re.match(r"(\d+)\. ", title))]
    assert numbers == [str(number) for number in range(1, 12)]


def test_what_a_model_has_not_learnt_is_left_out_with_the_reason(demo):
    page, summary = html.unescape(re.sub("<[^>]+>", "", (demo[0] / "report.html").read_text())), demo[1]
    assert summary["changes"]["left_out"] == "the model has seen no perturbed cell beside control cells"
    assert "no data set whose cells are paired along time" in summary["states"]["left_out"]
    assert "trained without questions" in summary["asking"]["left_out"]
    assert "no data set has held-out progenitors" in summary["edits"]["left_out"]
    said = "\n".join(demo[3])
    for name in ("changes", "states", "asking", "edits"):
        assert f"Left out: {summary[name]['left_out']}.".replace("`", "") in page
        assert f"left out: {summary[name]['left_out']}" in said


def test_labels_of_neighbours_stand_beside_those_in_components(demo):
    summary = demo[1]
    assert set(summary["mapping"]["accuracy"]) == {"scmulan", "PCA"}
    assert [row["rank"] for row in summary["mapping"]["example"]] == [1, 2, 3, 4, 5]


def test_a_data_set_of_several_types_is_shown_before_a_larger_one_of_a_single_type(trained):
    paths = [trained.plan.parent / name for name in ("mouse.h5ad", "human.h5ad")]
    mouse, human = open_datasets(paths, SMALL, 0, lambda _: None)
    more = dataclasses.replace(mouse, held=pooled([mouse.held] * 9), train=pooled([human.train] * 3).take(range(0, 1)))
    stage = Stage(model=None, datasets=[more, human], output=None, report=None, seed=0, sizes=SMALL, say=print)
    assert len(more.held) > len(human.held)
    assert stage.largest is human


def test_it_leaves_cells_pictures_page_and_summary(demo):
    names = {path.name for path in demo[0].iterdir()}
    assert {
        "annotated.h5ad",
        "generated.h5ad",
        "report.html",
        "summary.json",
        "two_sample.png",
        "umap_organs.png",
        "speaks_for.png",
    } <= names


def test_the_summary_is_plain_json_with_every_part(demo):
    folder, first, _, _ = demo
    written = json.loads((folder / "summary.json").read_text())
    assert set(written) >= {*PARTS, "made_by"}
    assert json.dumps(first, allow_nan=False)


def test_running_twice_gives_the_same_figures_and_replaces_what_was_left(demo):
    folder, first, second, _ = demo

    def figures(summary):
        return {name: {k: v for k, v in part.items() if k != "seconds"} for name, part in summary.items() if isinstance(part, dict)}

    assert json.dumps(figures(first)) == json.dumps(figures(second))
    by_dataset = first["labels"]["by_dataset"]
    several = [name for name, each in by_dataset.items() if sum(of["support"] > 0 for of in each["scmulan"]["classes"]) > 1]
    found = read_h5ad(folder / "annotated.h5ad").obs["dataset"].isin(several)
    assert found.sum() == first["labels"]["whole"]["scmulan"]["n"] < len(found)


def test_annotated_cells_carry_results_under_the_usual_names(demo):
    adata = read_h5ad(demo[0] / "annotated.h5ad")
    assert {"scmulan_cell_type", "scmulan_cell_type_probability", "scmulan_cell_type_ontology_id"} <= set(adata.obs)
    assert adata.uns["scmulan"]["task"] == "annotate"
    assert adata.obs_names.is_unique


def test_generated_cells_carry_counts_their_prompt_and_their_origin(demo):
    adata = read_h5ad(demo[0] / "generated.h5ad")
    assert np.array_equal(adata.layers["counts"].data, np.round(adata.layers["counts"].data))
    assert {"organ", "cell_type"} <= set(adata.obs)
    assert adata.uns["scmulan"]["task"] == "generate"
    assert set(adata.obs["cell_type"]) == {"B cell", "natural killer cell", "classical monocyte", "keratinocyte"}


def test_each_figure_has_its_baselines(demo):
    summary = demo[1]
    assert set(summary["labels"]["whole"]) == {"scmulan", "logistic regression", "commonest label"}
    assert set(summary["written"]["whole"]) == {"scmulan", "negative binomial per type", "real cells"}
    assert all(set(each) == {"scmulan", "logistic regression", "commonest value"} for each in summary["fields"]["right"].values())
    assert set(summary["sentence"]["nats"]) == {"scmulan", "negative binomial per type"}
    assert all("none" in each["shares"] for each in summary["prompting"]["prompted"])


def test_prompting_names_what_it_could_not_ask(demo):
    assert demo[1]["prompting"]["left_out"] == ["GATA1 in liver: the model has seen no such cells"]
    asked = [(each["question"], each["gene"]) for each in demo[1]["prompting"]["prompted"]]
    assert asked == [("given", "GATA1"), ("given", "SPI1"), ("open", "GATA1")]


def test_cells_without_a_gene_are_the_same_for_every_gene_of_a_question(demo):
    first, second, _ = demo[1]["prompting"]["prompted"]
    assert first["shares"]["none"] == second["shares"]["none"]


def test_the_sentence_is_printed_whole(demo):
    told = demo[1]["sentence"]
    assert told["sentence"].startswith("<cell>")
    assert told["sentence"].endswith("</cell>")
    assert told["sentence"] == told["sentence"].strip()


def test_what_is_said_on_the_way_names_every_part(demo):
    text = "\n".join(demo[3])
    numbers = [found.group(1) for line in demo[3] if (found := re.match(r"(\d+)  ", line))]
    assert numbers == [str(number) for number in range(1, 12)]
    assert "report.html" in text


def test_a_model_behind_its_baseline_is_said_to_be(demo):
    from scmulan.demo.labels import Labels
    from scmulan.measures import metrics

    right, wrong = metrics.annotation(["B", "NK"], ["B", "NK"]), metrics.annotation(["B", "NK"], ["NK", "NK"])
    found = {"scmulan": wrong, "logistic regression": right}
    assert "worse than logistic regression" in label_words(Labels(whole=found, by_dataset={"one": found}))


def test_a_change_of_types_within_chance_is_not_claimed():
    shares = {"none": {"B cell": 0.5, "T cell": 0.5}, "4": {"B cell": 0.6, "T cell": 0.4}}
    few = Prompted(
        question="q", title="blood", gene="GATA1", n=10, shares=shares, by_regression=shares, companions=[],
        program={"none": (0.0, 0.0), "4": (0.0, 0.0)},
        real={"without": None, "with": None}, real_shares={"without": {}, "with": {}}, real_n={"without": 0, "with": 0}, highest=4,
    )  # fmt: skip
    assert "no more than chance" in prompting.words(few)
    assert "more than chance" in prompting.words(dataclasses.replace(few, n=5000))
    assert "no more than chance" not in prompting.words(dataclasses.replace(few, n=5000))


def test_a_missing_extra_is_said_before_any_work(monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "umap" else real(name))
    with pytest.raises(EngineError, match=r"scmulan\[plots\]"):
        run(tmp_path / "out", model=tmp_path / "no such model")
    assert not (tmp_path / "out").exists()
