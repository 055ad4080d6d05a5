"""Questions answered: requests carried out, sentences made of facts, refusals with their reason, and reading under the grammar."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from conftest import kind_cells

from scmulan.errors import PromptError
from scmulan.questions_sentences import question_prompt
from scmulan.questions_text import plain_question, question_ids
from scmulan.requests import Request, load_grammar
from scmulan.requests_automaton import RequestAutomaton
from scmulan.tasks_reading import Reader, Reading, with_genes_before
from scmulan.tasks_saying import sentence

HUMAN = ("B cell", "natural killer cell", "classical monocyte")
QUESTIONS = ("Which organ are these cells from, and which genes say so?", "ten B cells", "?", "make 3 NK cells <eos> from a zorbo gland")


@pytest.fixture
def cells():
    adata = kind_cells(HUMAN, 9, seed=4)
    adata.obs["leiden"] = [str(number % 3) for number in range(9)]
    return adata


@pytest.fixture(scope="module")
def grammar(model):
    return load_grammar(list(model.prompts.fields))


def numbers_of(values) -> set[str]:
    """Every way in which facts may be written as numbers."""
    found: set[str] = set()
    for value in values:
        if isinstance(value, dict):
            found |= numbers_of(value.values())
        elif isinstance(value, int | float | np.number) and not isinstance(value, bool):
            found |= {f"{int(value):,}", f"{100 * float(value):.0f}", f"{abs(float(value)):.2f}"}
        else:
            found |= set(re.findall(r"\d[\d,.]*\d|\d", str(value)))
    return found


REQUESTS = [
    {"task": "annotate"},
    {"task": "annotate", "cluster": "1", "among": ["B cell", "natural killer cell"]},
    {"task": "annotate", "asked": ["lineage"]},
    {"task": "locate"},
    {"task": "describe", "asked": ["organism"]},
    {"task": "embed"},
    {"task": "generate", "organ": "blood", "cell_type": "B cell", "number": 2},
    {"task": "complete", "genes": {"CD19": 3}, "number": 1},
    {"task": "speaks_for", "cell_type": "B cell", "against": "NK cell", "number": 3},
    {"task": "outside"},
]


@pytest.mark.parametrize("request_data", REQUESTS, ids=lambda one: one["task"])
def test_every_number_of_an_answer_is_a_fact_of_its_result(model, cells, request_data):
    answer = model.ask(cells, request=request_data)
    result = answer.results[0]
    assert result.is_done == (request_data["task"] != "outside"), answer.text
    assert re.search(r"\d", answer.text) or not result.is_done
    known = numbers_of([dict(facts) for facts in result.facts])
    assert set(re.findall(r"\d[\d,.]*\d|\d", answer.text)) <= known, (answer.text, result.facts)


def test_an_answer_says_what_its_table_says(model, cells):
    answer = model.ask(cells, request={"task": "annotate"})
    table = answer.results[0].value
    commonest = table.idxmax(axis=1).value_counts()
    assert f"{commonest.iloc[0]}" in answer.text
    assert commonest.index[0] in answer.text
    assert cells.obs["scmulan_cell_type"].value_counts()[commonest.index[0]] == commonest.iloc[0]


def test_a_group_is_asked_about_alone_and_its_answer_stands_in_its_rows(model, cells):
    answer = model.ask(cells, request={"task": "annotate", "cluster": "1"})
    assert len(answer.results[0].value) == 3
    assert "Asked of 3 of 9 cells" in answer.text
    assert cells.obs["scmulan_cell_type"].notna().sum() == 3


def test_a_request_after_another_speaks_of_its_answer(model, cells):
    answer = model.ask(cells, request=[{"task": "annotate"}, {"task": "speaks_for"}])
    label = answer.results[0].value.idxmax(axis=1).value_counts().index[0]
    assert f"For {label} against" in answer.results[1].text


def test_evidence_is_the_mean_log_likelihood_ratio_of_each_gene(model, cells):
    one = cells[[0]].copy()
    found = model.ask(one, request={"task": "speaks_for", "cell_type": "B cell", "against": "natural killer cell"}).results[0].value
    alone = model.speaks_for(one, 0, "B cell", "natural killer cell")
    assert np.allclose(found.reindex(alone.index).fillna(0), alone, atol=1e-5)


@pytest.mark.parametrize(
    ("request_data", "said"),
    [
        ({"task": "generate", "cell_type": "zorbocyte", "number": 2}, "was not among this model's training cells"),
        ({"task": "annotate", "cluster": "9"}, "no group '9'"),
        ({"task": "fate"}, "no time is said"),
        ({"task": "perturb"}, "which perturbation is not said"),
        ({"task": "search"}, "not built yet|no index"),
        ({"task": "describe", "asked": ["sex"]}, "has seen no sex"),
    ],
)
def test_what_can_not_be_done_is_refused_with_the_reason(model, cells, request_data, said):
    answer = model.ask(cells, request=request_data)
    assert not answer.results[0].is_done
    assert re.search(said, answer.text)


def test_a_refused_request_does_not_stop_the_next(model, cells):
    answer = model.ask(cells, request=[{"task": "annotate", "cluster": "9"}, {"task": "embed"}])
    assert [result.is_done for result in answer.results] == [False, True]


def test_cells_are_asked_for_where_a_request_needs_them(model):
    assert "no cells were given" in model.ask(request={"task": "annotate"}).text
    assert model.ask(request={"task": "generate", "organ": "blood", "number": 1}).results[0].value.n_obs == 1


def test_a_model_without_questions_says_so_and_still_takes_requests(model):
    with pytest.raises(PromptError, match="trained without questions"):
        model.ask("make 3 B cells")
    with pytest.raises(PromptError, match="nothing was asked"):
        model.ask()


def test_an_answer_is_plain_data_and_its_requests_can_be_given_back(model, cells, grammar):
    answer = model.ask(cells, request={"task": "locate"})
    said = answer.to_dict()
    assert said["text"] == str(answer)
    again = model.ask(cells, request=[Request.from_dict(one, grammar) for one in said["request"]])
    assert again.text == answer.text


def test_an_unsure_reading_is_said_to_be(model):
    assert Reading("", (), (), 0.3).is_unsure
    assert "30 %" in sentence("unsure", {"p": 0.3})


# -- reading -------------------------------------------------------------------------------------------------------------------


def test_any_question_gives_requests_with_a_probability(model):
    for reading in Reader(model.opened).read(QUESTIONS):
        assert reading.requests
        assert 0 <= reading.probability <= 1
    with pytest.raises(PromptError, match="empty"):
        Reader(model.opened).read([" "])


def test_questions_are_read_alike_alone_and_together(model):
    reader = Reader(model.opened)
    together = reader.read(QUESTIONS)
    for one, question in zip(together, QUESTIONS, strict=True):
        alone = reader.read([question])[0]
        assert alone.requests == one.requests
        assert np.isclose(np.log(alone.probability + 1e-300), np.log(one.probability + 1e-300), atol=0.2)


def greedy(model, prompt, automaton):
    """The likeliest legal id, step by step, the whole sentence read again for each; and the log-probability of what it comes to."""
    ids, total = prompt.tolist(), 0.0
    while not automaton.is_done:
        number, cost = likeliest(model, ids, automaton.legal())
        automaton.advance(number)
        ids.append(number)
        total += cost
    return ids[len(prompt) :], total


@torch.no_grad()
def likeliest(model, ids, legal, number=None):
    v = model.vocabulary
    states = model.engine.body(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state
    logits = (states[0, -1] @ model.engine.output_VD.T).float()
    logits[v.first_depth : v.first_gene] = logits[v.last_gene :] = -torch.inf
    logits[[v.pad, v.bos]] = -torch.inf
    among = logits[v.text[0] :] if ids[-1] < v.text[0] and int(legal.min()) >= v.text[0] else logits
    number = int(legal[logits[torch.from_numpy(legal)].argmax()]) if number is None else number
    return number, float(logits[number] - torch.logsumexp(among, 0))


@pytest.mark.parametrize("question", QUESTIONS)
def test_words_are_at_least_as_likely_as_the_greedy_ones_and_their_probability_is_theirs(model, grammar, question):
    read = question_ids([plain_question(question)], model.writer)[0]
    prompt = question_prompt(read, model.writer)
    written = model.engine.write_words([prompt], [RequestAutomaton(grammar, model.writer, read)])[0]
    _, of_greedy = greedy(model, prompt, RequestAutomaton(grammar, model.writer, read))
    assert written.log_probability >= of_greedy - 0.5  # bf16 in another order of sums
    automaton, ids, total = RequestAutomaton(grammar, model.writer, read), prompt.tolist(), 0.0
    for number in written.ids.tolist():
        assert number in automaton.legal()
        total += likeliest(model, ids, automaton.legal(), number)[1]
        automaton.advance(number)
        ids.append(number)
    assert automaton.is_done
    assert ids[-1] == model.vocabulary.eos
    assert written.log_probability == pytest.approx(total, abs=0.5)


def test_genes_like_one_that_was_named_before_are_asked_for_by_its_name(grammar):
    said = [{"task": "perturb", "perturbation": "IRF7 knockout"}, {"task": "genes_like"}]
    found = with_genes_before([Request.from_dict(one, grammar) for one in said])
    assert found[1].to_dict() == {"task": "genes_like", "genes": {"IRF7": None}}


def test_a_gene_that_is_named_by_a_pronoun_is_the_one_before(grammar):
    said = [{"task": "perturb", "perturbation": "IRF7 knockout"}, {"task": "genes_like", "genes": {"it": None}}]
    found = with_genes_before([Request.from_dict(one, grammar) for one in said])
    assert found[1].to_dict() == {"task": "genes_like", "genes": {"IRF7": None}}
