"""Tries of answers: one forward pass gives each answer exactly what a plain product of softmaxes gives it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scmulan.decoding.trie import Trie
from scmulan.errors import PromptError

N_IDS = 9
ANSWERS = st.lists(st.lists(st.integers(0, N_IDS - 1), min_size=1, max_size=5).map(tuple), min_size=1, max_size=12, unique=True)


def plain(logits_of, answer) -> float:
    """Sum of log-softmaxes along an answer; ``logits_of`` gives the logits after any prefix."""
    return float(sum(torch.log_softmax(logits_of(answer[:at]), 0)[token] for at, token in enumerate(answer)))


def logits_after(prefix) -> torch.Tensor:
    """Any function of the prefix does for a language model."""
    return torch.randn(N_IDS, generator=torch.Generator().manual_seed(hash(tuple(int(token) for token in prefix)) % 2**31))


def answers_of(trie: Trie, logits_of) -> torch.Tensor:
    """Log-probability of each answer, from logits at the prompt's end and at the nodes that others follow."""
    logits = torch.stack([logits_of([]), *(logits_of(prefix_of(trie, node)) for node in trie.inner)])
    return trie.log_probabilities(logits.log_softmax(1)[trie.slot, trie.token][None])[0]


def prefix_of(trie: Trie, node: int) -> list[int]:
    found = []
    while node >= 0:
        found.append(int(trie.token[node]))
        node = int(trie.parent[node])
    return found[::-1]


@given(answers=ANSWERS)
def test_log_probabilities_are_those_of_a_plain_product_of_softmaxes(answers):
    trie = Trie.of([np.array(answer) for answer in answers])
    found = answers_of(trie, logits_after)
    torch.testing.assert_close(found, torch.tensor([plain(logits_after, answer) for answer in answers]), atol=1e-4, rtol=1e-5)


@given(answers=ANSWERS)
def test_a_node_sees_its_ancestors_and_itself_alone(answers):
    trie = Trie.of(answers)
    for node in range(len(trie.token)):
        seen = np.flatnonzero(trie.sees[node])
        assert trie.token[seen].tolist() == prefix_of(trie, node)
        assert len(seen) == trie.depth[node] + 1


@given(answers=ANSWERS)
def test_each_path_spells_its_answer_and_shared_beginnings_share_their_nodes(answers):
    trie = Trie.of(answers)
    assert [tuple(trie.token[list(path)].tolist()) for path in trie.paths] == answers
    assert len(trie.token) == len({answer[: at + 1] for answer in answers for at in range(len(answer))})


def test_an_answer_that_begins_another_keeps_its_own_probability():
    trie = Trie.of([(1,), (1, 2), (1, 2, 3)])
    found = answers_of(trie, logits_after).tolist()
    assert found == pytest.approx([plain(logits_after, answer) for answer in [(1,), (1, 2), (1, 2, 3)]], abs=1e-5)
    assert found[0] > found[1] > found[2]


def test_the_end_of_the_sentence_makes_answers_that_begin_alike_exclusive():
    """With the end as last id no answer begins another, so over a complete tree the probabilities add up to 1."""
    end, words = 0, (1, 2)
    answers = [(end,), *((word, end) for word in words), *((a, b) for a in words for b in words)]
    trie = Trie.of(answers)

    def among_three(prefix) -> torch.Tensor:
        return torch.where(torch.arange(N_IDS) < 3, logits_after(prefix), -torch.inf)

    assert float(answers_of(trie, among_three).exp().sum()) == pytest.approx(1, abs=1e-5)


def test_the_same_answer_twice_is_refused():
    with pytest.raises(PromptError, match="two of the labels are the same answer"):
        Trie.of([(1, 2), (3,), (1, 2)])


def test_no_answer_is_refused():
    with pytest.raises(PromptError, match="at least one label"):
        Trie.of([])
