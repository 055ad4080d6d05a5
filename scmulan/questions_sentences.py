"""Questions as training sentences, of which only the requests are learnt, and as texts that a tokenizer's words are learnt from.

<bos> question <task:request> <task:generate> <organ> lung <number> ten <eos>
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from scmulan.csentence import Ids
from scmulan.prompts import REQUEST, Sentence, SentenceWriter
from scmulan.questions import Phrasings, Question
from scmulan.questions_text import QuestionIds, question_ids
from scmulan.requests import ACTION, ASKED, TASK, RequestGrammar, load_grammar

TEXTS = 6000
"""Questions that the words of a tokenizer are learnt from."""


def question_sentences(writer: SentenceWriter, n: int, *, seed: Sequence[int], held_out: bool = False) -> list[Sentence]:
    """``n`` training sentences, a function of the seed and the material; held-out phrasings where they are asked for.

    Raises
    ------
    PromptError
        When the tokenizer was built without the tokens of requests.
    """
    if not n:
        return []
    phrasings = _phrasings(tuple(writer.prompts.fields), writer.vocabulary.genes, held_out)
    rng = np.random.default_rng([*seed, 4])
    found: list[Sentence] = []
    while len(found) < n:
        questions = [phrasings.draw(rng) for _ in range(min(n - len(found), 2000))]
        read = question_ids([question.text for question in questions], writer)
        for question, ids in zip(questions, read, strict=True):
            sentence = question_sentence(question, ids, writer, phrasings.grammar)
            if sentence is not None:
                found.append(sentence)
    return found


@functools.lru_cache(maxsize=4)
def _phrasings(fields: tuple[str, ...], genes: tuple[str, ...], held_out: bool) -> Phrasings:
    return Phrasings(load_grammar(fields), genes, part="held_out" if held_out else "phrasings")


def question_prompt(question: QuestionIds, writer: SentenceWriter) -> Ids:
    """What stands before the requests: the question, and the token that asks for its request; (T,)."""
    return np.concatenate([[writer.vocabulary.bos], question.ids, [writer.control_id(f"<task:{REQUEST}>")]]).astype(np.int64)


def question_sentence(question: Question, read: QuestionIds, writer: SentenceWriter, grammar: RequestGrammar) -> Sentence | None:
    """The sentence of a question; None where a name that it copies is not made of whole words of it."""
    ids: list[int] = []
    for pieces, spans in zip(question.requests, question.spans, strict=True):
        for (name, words), span in zip(pieces, spans, strict=True):
            if name == TASK:
                ids.append(writer.control_id(f"<task:{words}>"))
                continue
            ids.append(writer.control_id(f"<{name}>"))
            if name == ASKED:
                ids.append(writer.control_id(f"<{words}>"))
            elif name == ACTION:
                ids.extend(action_ids(words, writer))
            else:
                place = read.within(*span) if span is not None else None
                if place is None:
                    return None
                ids.extend(read.ids[place].tolist())
    prompt = question_prompt(read, writer)
    whole = np.concatenate([prompt, ids, [writer.vocabulary.eos]]).astype(np.int64)
    parts = np.where(np.arange(len(whole)) < len(prompt), 0, writer.part_code[REQUEST]).astype(np.uint8)
    return Sentence(whole, parts)


def action_ids(action: str, writer: SentenceWriter) -> list[int]:
    """Ids of what is done to a gene, as ``deleted``."""
    return list(writer.tokenizer(f" {action}", add_special_tokens=False)["input_ids"])


def question_texts(fields: Sequence[str]) -> list[str]:
    """Questions, without misspelt ones, for the words of a tokenizer."""
    phrasings = Phrasings(load_grammar(fields), ())
    rng = np.random.default_rng(0)
    return [f" {phrasings.draw(rng, str(rng.choice(['plain', 'plain', 'joined']))).text}" for _ in range(TEXTS)] + [
        f" {action}" for action in phrasings.grammar.actions for _ in range(200)
    ]
