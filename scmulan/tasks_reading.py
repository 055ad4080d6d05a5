"""From a question in English to requests: the model's own ``request`` task, decoded under the grammar of requests, names looked up after.

Every question gives requests; how sure the model is of them is told, so that a reader can correct them before they are carried out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from scmulan.errors import PromptError
from scmulan.questions_mending import mend_question
from scmulan.questions_sentences import question_prompt
from scmulan.questions_text import plain_question, question_ids
from scmulan.requests import GeneAsked, Request, RequestGrammar, load_grammar, pieces_of_ids, read_material, request_of
from scmulan.requests_automaton import RequestAutomaton
from scmulan.requests_names import with_names
from scmulan.tasks_opened import Opened

UNSURE = 0.5
"""Below this probability the requests are shown to be checked (`docs/asking.md`)."""


PRONOUNS = ("it", "them", "this", "that", "this one", "that one", "this gene", "that gene")


@dataclass(frozen=True)
class Reading:
    """How a question was read.

    Attributes
    ----------
    requests : names in the spelling of the tables
    said : the same with names as they were copied from the question
    probability : of these requests among all that the model could have written
    notes : names that were mended, or that are not known
    """

    question: str
    requests: tuple[Request, ...]
    said: tuple[Request, ...]
    probability: float
    notes: tuple[str, ...] = ()

    @property
    def is_unsure(self) -> bool:
        return self.probability < UNSURE


def with_genes_before(requests: Sequence[Request]) -> tuple[Request, ...]:
    """Questions after genes like one that was named before ("knock out IRF7, and which genes are like it?") get its name."""
    found: list[Request] = []
    for request in requests:
        if request.task == "genes_like" and all(gene.name.lower() in PRONOUNS for gene in request.genes) and found:
            before = found[-1]
            gene, _, how = before.fields.get("perturbation", "").rpartition(" ")
            genes = before.genes or ((GeneAsked(name=gene),) if how in read_material()["perturbed_by"].values() else ())
            request = replace(request, genes=tuple(GeneAsked(name=one.name) for one in genes))
        found.append(request)
    return tuple(found)


class Reader:
    """Reads questions with an opened checkpoint."""

    def __init__(self, opened: Opened):
        self.opened = opened

    @cached_property
    def grammar(self) -> RequestGrammar:
        return load_grammar(list(self.opened.prompts.fields))

    def read(self, questions: Sequence[str]) -> list[Reading]:
        """The requests of each question.

        Raises
        ------
        PromptError
            When a question is empty, or the model's tokenizer has no tokens for requests.
        EngineError
            When a question is longer than the model's context.
        """
        if any(not question.strip() for question in questions):
            raise PromptError('the question is empty; needed one, for example "Which organ are these cells from?"')
        writer = self.opened.writer
        mended = [mend_question(plain_question(question)) for question in questions]
        read = question_ids([text for text, _ in mended], writer)
        automata = [RequestAutomaton(self.grammar, writer, ids) for ids in read]
        written = self.opened.engine.write_words([question_prompt(ids, writer) for ids in read], automata)
        found = []
        for question, (_, slips), words in zip(questions, mended, written, strict=True):
            pieces = pieces_of_ids(words.ids.tolist(), writer, self.grammar)
            said = tuple(request_of(one, self.grammar) for one in pieces)
            named = [with_names(request, question) for request in with_genes_before(said)]
            notes = tuple(dict.fromkeys([*slips, *(note for _, of_one in named for note in of_one)]))
            found.append(Reading(question, tuple(one for one, _ in named), said, float(np.exp(words.log_probability)), notes))
        return found
