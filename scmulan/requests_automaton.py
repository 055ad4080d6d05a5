"""Which ids may come next in the requests of a question: a grammar for decoding, one question at a time.

A task, then each field and argument that it takes in a fixed order, its words copied from the question from one word's beginning to
another's end, no word twice; then the next task, whose names stand later in the question, or the end. So every request parses, and no
name is made up.
"""

from __future__ import annotations

import copy

import numpy as np

from scmulan.csentence import Ids
from scmulan.prompts import GENES, SentenceWriter
from scmulan.questions_text import QuestionIds
from scmulan.requests import ACTION, ASKED, TASK, RequestGrammar

MOST_IDS = 160
MOST_REQUESTS = 6


class RequestAutomaton:
    """Legal next ids while the requests of one question are written.

    Parameters
    ----------
    question : what names are copied from
    """

    def __init__(self, grammar: RequestGrammar, writer: SentenceWriter, question: QuestionIds):
        self.grammar, self.question, self.eos = grammar, question, writer.vocabulary.eos
        self.tasks = {writer.control_id(f"<task:{name}>"): name for name in grammar.takes}
        self.parts = {writer.control_id(f"<{name}>"): name for name in [*grammar.fields, GENES, *grammar.arguments]}
        self.id_of = {name: number for number, name in self.parts.items()}
        said = writer.tokenizer([f" {action}" for action in grammar.actions], add_special_tokens=False)["input_ids"]
        self.actions = [tuple(ids) for ids in said]
        self.task, self.last, self.expected, self.n_ids, self.n_requests = "", "", TASK, 0, 0
        self.places: Ids = np.zeros(0, np.int64)
        self.spelled: tuple[int, ...] = ()
        self.asked: set[str] = set()
        self.is_free = np.ones(len(question.ids), dtype=bool)
        self.n_copied = 0
        self._find_beginnings()
        self.is_done = False

    def _find_beginnings(self) -> None:
        """Where a name may begin, or go on: at words that are not copied yet, from where the end of a word can be reached."""
        self.may_stand = np.zeros(len(self.is_free), dtype=bool)
        reached = False
        for place in range(len(self.is_free) - 1, -1, -1):
            reached = bool(self.is_free[place]) and (reached or bool(self.question.ends[place]))
            self.may_stand[place] = reached
        self.begins = np.flatnonzero(self.question.begins & self.may_stand)

    def _going_on(self) -> Ids:
        """Places right after those that are being copied, where the name may go on."""
        places = self.places[self.places + 1 < len(self.may_stand)] + 1
        found: Ids = places[self.may_stand[places]]
        return found

    def legal(self) -> Ids:
        """Ids that may come next; (N,)."""
        if self.expected == TASK:
            return np.array(list(self.tasks))
        if self.expected == ASKED:
            return np.array([self.id_of[name] for name in self.grammar.fields if name not in self.asked])
        if self.expected == ACTION:
            n = len(self.spelled)
            return np.unique([ids[n] for ids in self.actions if len(ids) > n and ids[:n] == self.spelled])
        if self.expected == "words":
            return np.unique(self.question.ids[self.begins])
        found = self._parts()
        if self.expected == "more words":
            found = np.concatenate(
                [np.unique(self.question.ids[self._going_on()]), found if self.question.ends[self.places].any() else found[:0]]
            )
        return found

    def _look_ahead(self) -> None:
        """Whether a name could be copied once the one that is being copied has ended."""
        free = self.is_free
        if self.n_copied and self.question.ends[self.places].any():
            free = free.copy()
            last = int(self.places[self.question.ends[self.places]].min())
            free[last - self.n_copied + 1 : last + 1] = False
        self.has_words = bool((self.question.begins & free & self.may_stand).any())

    def _parts(self) -> Ids:
        """What may begin where a part has ended."""
        if self.n_ids >= MOST_IDS:
            return np.array([self.eos])
        self._look_ahead()
        names = self.grammar.followers(self.task, self.last)
        parts = [self.id_of[name] for name in names if name in (ASKED, ACTION) or self.has_words]
        return np.array([*parts, *(self.tasks if self.n_requests < MOST_REQUESTS else ()), self.eos], dtype=np.int64)

    def copy(self) -> RequestAutomaton:
        """Another that stands where this one stands."""
        other = copy.copy(self)
        other.asked, other.is_free = set(self.asked), self.is_free.copy()
        return other

    def advance(self, number: int) -> None:
        """Read the id that was chosen; one that is not legal is the caller's fault and is not checked."""
        self.n_ids += 1
        if self.expected in ("part", "more words", TASK) and number in (self.tasks.keys() | self.parts.keys() | {self.eos}):
            self._begin(number)
        elif self.expected == ASKED:
            self.asked.add(self.parts[number])
            self.expected = "part"
        elif self.expected == ACTION:
            self.spelled = (*self.spelled, number)
            self.expected = "part" if self.spelled in self.actions else ACTION
        else:
            at = self.question.ids == number
            if self.expected == "words":
                self.places, self.n_copied = self.begins[at[self.begins]], 1
            else:
                going_on = self._going_on()
                self.places, self.n_copied = going_on[at[going_on]], self.n_copied + 1
            self.expected = "more words"

    def _end_name(self) -> None:
        """The words that were copied last are taken; of several places that read alike, the first."""
        if self.n_copied:
            last = int(self.places[self.question.ends[self.places]].min())
            self.is_free[last - self.n_copied + 1 : last + 1] = False
            self.n_copied = 0
            self._find_beginnings()

    def _begin(self, number: int) -> None:
        self._end_name()
        if number == self.eos:
            self.is_done = True
        elif number in self.tasks:
            self.task, self.last, self.expected = self.tasks[number], TASK, "part"
            self.n_requests, self.asked = self.n_requests + 1, set()
            copied = np.flatnonzero(~self.is_free)
            self.is_free[: copied[-1] + 1 if len(copied) else 0] = False  # requests stand in the order of the question
            self._find_beginnings()
        else:
            self.last = self.parts[number]
            self.expected = self.last if self.last in (ASKED, ACTION) else "words"
            self.spelled = ()
