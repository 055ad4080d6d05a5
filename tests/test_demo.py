"""The demonstration on a tiny model and made-up cells: its files, its five sections, and that it claims no more than it found."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re

import numpy as np
import pytest

from scmulan import plots
from scmulan.cells import read_h5ad
from scmulan.demo import Sizes, prompting, run
from scmulan.demo.labels import words as label_words
from scmulan.demo.prompting import Prompted, Question
from scmulan.errors import EngineError
from scmulan.measures import two_sample

pytest.importorskip("matplotlib")
SMALL = Sizes(per_type=6, per_type_long=6, described=10, per_count=2, per_count_open=2)
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


def test_the_page_has_the_five_sections_in_order(demo):
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", (demo[0] / "report.html").read_text())
    numbered = [title for title in titles if re.match(r"\d\. ", title)]
    assert [title[:2] for title in numbered] == ["1.", "2.", "3.", "4.", "5."]


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
    assert set(written) >= {"labels", "written", "fields", "prompting", "sentence", "made_by"}
    assert json.dumps(first, allow_nan=False)


def test_running_twice_gives_the_same_figures_and_replaces_what_was_left(demo):
    folder, first, second, _ = demo

    def figures(summary):
        return {name: {k: v for k, v in part.items() if k != "seconds"} for name, part in summary.items() if isinstance(part, dict)}

    assert json.dumps(figures(first)) == json.dumps(figures(second))
    assert read_h5ad(folder / "annotated.h5ad").n_obs == first["labels"]["whole"]["scmulan"]["n"]


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
    assert [line[0] for line in demo[3] if re.match(r"\d  ", line)] == ["1", "2", "3", "4", "5"]
    assert "report.html" in text


def test_a_model_behind_its_baseline_is_said_to_be(demo):
    from scmulan.demo.labels import Labels
    from scmulan.measures import metrics

    right, wrong = metrics.annotation(["B", "NK"], ["B", "NK"]), metrics.annotation(["B", "NK"], ["NK", "NK"])
    found = {"scmulan": wrong, "logistic regression": right}
    assert "worse than logistic regression" in label_words(Labels(whole=found, by_dataset={"one": found}), 1)


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
