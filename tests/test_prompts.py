"""Tasks as data, and the sentences put together from them."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import yaml
from conftest import random_counts

from scmulan import csentence
from scmulan.automaton import legal_targets
from scmulan.errors import PromptError, RecipeError
from scmulan.metadata import FIELDS
from scmulan.prompts import FRAME, load_prompts

KNOWN = {
    "organism": "Homo sapiens", "organ": "blood", "region": None, "time": "day 7", "perturbation": "GATA1 knockout", "lineage": "lymphoid",
    "cell_type": "CD8-positive, alpha-beta T cell",
}  # fmt: skip


@pytest.fixture(scope="module")
def cell(language):
    return csentence.encode(random_counts(1, seed=3), language.vocabulary)[0]


FIRST_KNOWN = {"organism": "Homo sapiens", "organ": "blood", "time": "day 2", "perturbation": "control", "cell_type": "naive T cell"}


def built_tasks(*, of_two=None):
    prompts = load_prompts()
    tasks = [prompts.tasks[name] for name in prompts.built if of_two in (None, prompts.tasks[name].first_cell is not None)]
    return [pytest.param(task, id=task.name) for task in tasks]


def first_of(language, task):
    """A first cell with its fields, for a task about two."""
    return (csentence.encode(random_counts(1, seed=8), language.vocabulary)[0], FIRST_KNOWN) if task.first_cell else None


def sentences(language, task, cell, n, fields=KNOWN):
    first = first_of(language, task)
    return [language.writer.training_sentence(task, fields, cell, np.random.default_rng(seed), first=first) for seed in range(n)]


def part_names(language, sentence):
    """Names of the parts of a sentence, run by run."""
    return [language.prompts.parts[code] for code, _ in itertools.groupby(sentence.parts.tolist())]


def test_the_shipped_tasks_are_those_of_the_design(language):
    learnt = ["generate", "annotate", "locate", "describe", "complete", "perturb", "explain_shift", "next_state", "fate", "enhance"]
    assert language.prompts.built == learnt
    assert tuple(language.prompts.fields) == FIELDS
    for task in language.prompts.tasks.values():
        assert (task.planned or task.is_of_question) == (not task.phrasings) == (task.weight == 0), task.name


def test_every_part_has_a_code_of_its_own(language):
    parts = language.prompts.parts
    assert parts[0] == "given"
    assert len(set(parts)) == len(parts) < 256
    assert set(language.prompts.fields) < set(parts)


def test_each_control_token_that_tasks_and_fields_need_is_in_the_tokenizer(language):
    v = language.vocabulary
    tokens = [f"<{name}>" for name in (*language.prompts.fields, "genes")] + [task.token for task in language.prompts.tasks.values()]
    ids = [language.writer.control_id(token) for token in tokens]
    assert len(set(ids)) == len(ids)
    assert all(v.cell < number < v.text[0] for number in ids)


def test_a_task_or_field_the_tokenizer_lacks_is_an_error(language):
    with pytest.raises(PromptError, match="<weight> is not a token of this model's tokenizer"):
        language.writer.control_id("<weight>")


@pytest.mark.parametrize("task", built_tasks(of_two=False))
def test_a_training_sentence_begins_with_the_very_prompt_of_inference(language, cell, task):
    """With nothing dropped: prompt + answer = training sentence, so what is asked later is what was learnt."""
    sentence = language.writer.training_sentence(dataclasses.replace(task, drop={}), KNOWN, cell, np.random.default_rng(0))
    given = {name: value for name, value in KNOWN.items() if name not in task.predict and "any" in task.given}
    genes = None
    if "genes" in task.given:
        first = sentence.ids.tolist().index(language.writer.control_id("<genes>"))
        genes = sentence.ids[first : sentence.ids.tolist().index(language.writer.control_id(task.token))]
    prompt = language.writer.prompt(task.name, given, cell=cell if "cell" in task.given else None, genes=genes)
    assert sentence.ids[: len(prompt)].tolist() == prompt.tolist()
    answer = [*cell.tolist(), language.vocabulary.eos] if "cell" in task.predict else language.writer.answer(KNOWN, task.predict).tolist()
    assert sentence.ids[len(prompt) :].tolist() == answer


@pytest.mark.parametrize("task", built_tasks())
def test_every_part_that_is_predicted_is_learnt_and_no_given_field_is(language, cell, task):
    of_cell = {"depth", "level", "gene", FRAME}
    for sentence in sentences(language, task, cell, 20):
        names = set(part_names(language, sentence))
        assert len(sentence.ids) == len(sentence.parts)
        assert of_cell & names == (of_cell if task.first_cell is None or "cell" in task.predict else set())
        wanted = {name for name in task.predict if KNOWN.get(name)}
        assert names - {"given", *of_cell} == wanted
        at_end = task.predict[-1] if "cell" not in task.predict else FRAME
        if at_end == FRAME or at_end in wanted:
            assert language.prompts.parts[sentence.parts[-1]] == at_end
        assert sentence.parts[0] == 0


@pytest.mark.parametrize("task", built_tasks(of_two=True))
def test_a_training_sentence_about_two_cells_begins_with_the_very_prompt_of_inference(language, cell, task):
    first, of_first = first_of(language, task)
    undropped = dataclasses.replace(task, drop={name: 1 for name in task.drop if task.drop[name] == 1})
    sentence = language.writer.training_sentence(undropped, KNOWN, cell, np.random.default_rng(0), first=(first, of_first))
    given = {name: value for name, value in of_first.items() if name not in (*task.predict, *undropped.drop) and "any" in task.given}
    second = cell if task.is_second_given else None
    after = {name: KNOWN.get(name) for name in task.after}
    prompt = language.writer.prompt(task.name, given, cell=first, after=after, second=second)
    assert sentence.ids[: len(prompt)].tolist() == prompt.tolist()
    assert not sentence.parts[: len(prompt)].any()
    answer = [*cell.tolist(), language.vocabulary.eos] if "cell" in task.predict else language.writer.answer(KNOWN, task.predict).tolist()
    assert sentence.ids[len(prompt) :].tolist() == answer


@pytest.mark.parametrize(("name", "held"), [("perturb", ("perturbation", "time")), ("next_state", ("time",)), ("fate", ("time",))])
def test_what_is_asked_of_the_second_cell_is_never_dropped(language, cell, name, held):
    writer, task = language.writer, language.prompts.tasks[name]
    for sentence in sentences(language, task, cell, 200):
        ids = sentence.ids.tolist()
        asked = ids[ids.index(language.vocabulary.end_of_cell) + 1 : ids.index(writer.control_id(task.token))]
        assert asked == writer.fields_ids({field: KNOWN[field] for field in held}).tolist()


def test_a_task_about_two_cells_needs_the_first_and_another_has_none(language, cell):
    perturb, generate = language.prompts.tasks["perturb"], language.prompts.tasks["generate"]
    with pytest.raises(PromptError, match="task perturb: is about two cells"):
        language.writer.training_sentence(perturb, KNOWN, cell, np.random.default_rng(0))
    with pytest.raises(PromptError, match="task generate: is about one cell"):
        language.writer.training_sentence(generate, KNOWN, cell, np.random.default_rng(0), first=first_of(language, perturb))


@pytest.mark.parametrize("task", built_tasks(of_two=False))
def test_the_cell_stands_in_the_sentence_once_and_whole(language, cell, task):
    v = language.vocabulary
    for sentence in sentences(language, task, cell, 10):
        ids = sentence.ids.tolist()
        first = ids.index(v.cell)
        assert ids[first : first + len(cell)] == cell.tolist()
        assert ids.count(v.cell) == ids.count(v.end_of_cell) == 1
        assert (ids[0], ids[-1]) == (v.bos, v.eos)


@pytest.mark.parametrize("task", built_tasks())
def test_every_learnt_id_of_a_training_sentence_is_planned_in_the_loss(language, cell, task):
    for sentence in sentences(language, task, cell, 5):
        legal = legal_targets(sentence.ids, sentence.parts > 0, language.vocabulary)
        planned = np.sort(np.concatenate([legal.depth_at, legal.cell_at, legal.word_at])) + 1
        assert planned.tolist() == np.flatnonzero(sentence.parts > 0).tolist()


def test_fields_stand_in_the_order_of_the_file_whatever_the_order_given(language):
    forwards, backwards = language.writer.fields_ids(KNOWN), language.writer.fields_ids(dict(reversed(KNOWN.items())))
    assert forwards.tolist() == backwards.tolist()
    text = language.tokenizer.decode(forwards)
    assert text == (
        "<organism> Homo sapiens<organ> blood<time> day 7<perturbation> GATA1 knockout<lineage> lymphoid"
        "<cell_type> CD8-positive, alpha-beta T cell"
    )


def test_the_coarse_label_is_predicted_before_the_fine_one(language, cell):
    names = part_names(language, sentences(language, language.prompts.tasks["annotate"], cell, 1)[0])
    assert names.index("lineage") < names.index("cell_type")


def test_fields_are_dropped_as_often_as_the_file_says(language, cell):
    task = language.prompts.tasks["generate"]
    token = {name: language.writer.control_id(f"<{name}>") for name in KNOWN}
    written = sentences(language, task, cell, 2000)
    alone = np.mean([not any(token[name] in sentence.ids for name in token) for sentence in written])
    assert 0.02 < alone < 0.05  # all: 0.03, and a little by chance
    for name, dropped in (("cell_type", 0.08), ("lineage", 0.5), ("organ", 0.15), ("perturbation", 0.15)):
        share = np.mean([token[name] not in sentence.ids for sentence in written])
        assert share == pytest.approx(1 - (1 - dropped) * 0.97, abs=0.03), name


def test_which_fields_are_dropped_does_not_depend_on_which_are_known(language, cell):
    task, fewer = language.prompts.tasks["generate"], {**KNOWN, "organism": None, "time": None}
    token = language.writer.control_id("<lineage>")
    with_all, with_few = sentences(language, task, cell, 100), sentences(language, task, cell, 100, fewer)
    assert [token in sentence.ids for sentence in with_all] == [token in sentence.ids for sentence in with_few]


def test_given_genes_are_genes_of_the_cell_at_their_levels(language, cell):
    v, writer = language.vocabulary, language.writer
    levels = dict(zip(*(array.tolist() for array in csentence.decode(cell, v)), strict=True))
    sizes = set()
    for sentence in sentences(language, language.prompts.tasks["complete"], cell, 60):
        ids = sentence.ids.tolist()
        part = ids[ids.index(writer.control_id("<genes>")) + 1 : ids.index(writer.control_id("<task:complete>"))]
        columns, counts = csentence.decode([v.cell, v.first_depth + 1, *part, v.end_of_cell], v)
        assert all(levels[column] == count for column, count in zip(columns.tolist(), counts.tolist(), strict=True))
        sizes.add(len(columns))
    assert sizes == set(range(1, 9))


def test_genes_are_written_as_a_person_expects(language):
    v = language.vocabulary
    columns = v.columns(["HLA-DRA", "G10", "MT-CO1", "G1"])
    ids = language.writer.genes_ids(columns, csentence.level_of([1, 8, 1, 8]))
    assert language.tokenizer.decode(ids) == "<genes><n:8> G1 G10<n:1> HLA-DRA MT-CO1"


def test_a_thinned_depth_is_not_learnt(language, cell):
    task = language.prompts.tasks["generate"]
    true, thinned = (
        language.writer.training_sentence(task, KNOWN, cell, np.random.default_rng(0), is_depth_true=is_true) for is_true in (True, False)
    )
    code = language.writer.part_code["depth"]
    assert (true.parts == code).sum() == 1
    assert (thinned.parts == code).sum() == 0
    assert (true.parts != thinned.parts).sum() == 1


def test_an_empty_cell_can_be_written_for_every_task(language):
    v = language.vocabulary
    empty = csentence.encode(random_counts(1) * 0, v)[0]
    for task in map(language.prompts.task, language.prompts.built):
        if task.first_cell is not None:
            continue
        ids = language.writer.training_sentence(task, KNOWN, empty, np.random.default_rng(1)).ids.tolist()
        assert ids[ids.index(v.cell) : ids.index(v.end_of_cell) + 1] == empty.tolist()


@pytest.mark.parametrize("value", ["<cell>", "B cell <eos>", "<n:1> GENE1", "</cell><task:annotate>", "x<depth:3>y"])
def test_a_label_that_spells_control_tokens_stays_text(language, value):
    v = language.vocabulary
    ids = language.writer.field_ids("organ", value)
    assert ids[0] == language.writer.control_id("<organ>")
    assert all(v.text[0] <= number < v.text[1] or number >= v.first_gene for number in ids[1:])
    assert language.tokenizer.decode(ids[1:]) == f" {value}"


def test_a_new_label_needs_no_new_token(language):
    ids = language.writer.field_ids("cell_type", "tanycyte of the third ventricle (α2)")
    assert language.tokenizer.decode(ids[1:]) == " tanycyte of the third ventricle (α2)"


def test_an_unknown_field_or_task_is_an_error_that_names_the_nearest(language):
    with pytest.raises(PromptError, match=r"field 'celltype' is not in prompts/tasks\.yaml; nearest: 'cell_type'"):
        language.writer.field_ids("celltype", "B cell")
    with pytest.raises(PromptError, match=r"task 'anotate' is not in prompts/tasks\.yaml; nearest: 'annotate'"):
        language.writer.prompt("anotate", {})
    with pytest.raises(PromptError, match="'request' reads questions and is about no cell; needed one of generate, annotate"):
        language.prompts.task("request")


GOOD = {
    "fields": {"organ": {"words": ["tissue"]}, "cell_type": None},
    "tasks": {"ask": {"given": ["cell"], "predict": ["cell_type"], "weight": 1}},
}


def written(tmp_path, **task):
    path = tmp_path / "tasks.yaml"
    path.write_text(yaml.safe_dump({**GOOD, "tasks": {"ask": {**GOOD["tasks"]["ask"], **task}}}))
    return path


def test_a_task_of_existing_parts_needs_no_code(tmp_path):
    prompts = load_prompts(written(tmp_path, given=["any", "cell"], drop={"organ": 0.5}))
    assert prompts.task("ask").predict == ("cell_type",)
    assert prompts.task("ask").token == "<task:ask>"
    assert prompts.fields["organ"].words == ("tissue",)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"predicts": ["cell"]}, "task ask: unknown key 'predicts'; nearest: 'predict'"),
        ({"predict": ["cell_typ"]}, "task ask: unknown part 'cell_typ'; nearest: 'cell_type'"),
        ({"given": None}, "task ask: given is None; needed a list of parts"),
        ({"drop": {"cel_type": 0.1}}, "task ask: drop: unknown field 'cel_type'; nearest: 'cell_type'"),
        ({"drop": {"organ": 1.5}}, "task ask: drop: organ is 1.5; needed a share from 0 to 1"),
    ],
)
def test_a_wrong_key_of_the_tasks_file_is_an_error_that_names_it(tmp_path, task, message):
    with pytest.raises(RecipeError, match=message):
        load_prompts(written(tmp_path, **task))


@pytest.mark.parametrize("content", ["", "fields: [a", "fields: {}", "[1]"])
def test_a_tasks_file_of_another_shape_is_an_error(tmp_path, content):
    path = tmp_path / "tasks.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError, match=str(path)):
        load_prompts(path)
    with pytest.raises(RecipeError, match="nowhere"):
        load_prompts(tmp_path / "nowhere.yaml")
