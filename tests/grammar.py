"""The grammar of a cell a second time, one id after another and as plain as can be, which tests hold the fast code to; and small cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from hypothesis import strategies as st

from scmulan.csentence import LARGEST_COUNT, N_DEPTHS, N_LEVELS, Vocabulary

N_GENES = 24
cells = st.dictionaries(st.integers(0, N_GENES - 1), st.integers(1, LARGEST_COUNT) | st.integers(1, 12), max_size=N_GENES)
"""Cells of few genes: counts by column."""


def matrix_of(*rows: dict[int, int]) -> sp.csr_matrix:
    dense = np.zeros((len(rows), N_GENES), dtype=np.int64)
    for row, counts in enumerate(rows):
        dense[row, list(counts)] = list(counts.values())
    return sp.csr_matrix(dense)


def vocabulary_of(n_genes: int) -> Vocabulary:
    """A vocabulary laid out as a tokenizer's is, without building one."""
    first_level = 60 + N_DEPTHS
    first_gene = first_level + N_LEVELS + 1
    return Vocabulary(
        pad=0, bos=1, eos=2, cell=3, first_depth=60, first_level=first_level, end_of_cell=first_gene - 1, first_gene=first_gene,
        genes=tuple(f"G{number}" for number in range(n_genes)), size=first_gene + n_genes + 8, text=(20, 60),
    )  # fmt: skip


def kind_of(token: int, v: Vocabulary) -> str:
    if token in (v.cell, v.end_of_cell):
        return "cell" if token == v.cell else "end"
    spans = {"depth": (v.first_depth, v.first_level), "level": (v.first_level, v.end_of_cell), "gene": (v.first_gene, v.last_gene)}
    return next((kind for kind, (first, last) in spans.items() if first <= token < last), "other")


MAY_FOLLOW = {
    "nothing": {"cell"},
    "cell": {"depth"},
    "depth": {"level"},
    "depth of an empty cell": {"end"},
    "level": {"gene"},
    "gene": {"gene", "level", "end"},
    "end": set(),
}


def first_fault(ids: Sequence[int], v: Vocabulary) -> int | None:
    """The first position of a cell that can't stand where it does, its length when it stops too early, else None."""
    level, last, named, before = v.first_level - 1, -1, set(), "nothing"
    for at, token in enumerate(ids):
        kind = kind_of(token, v)
        if kind not in MAY_FOLLOW[before] or (kind == "level" and token <= level) or (kind == "gene" and (token <= last or token in named)):
            return at
        if kind == "level":
            level, last = token, -1
        if kind == "gene":
            last = token
            named.add(token)
        before = "depth of an empty cell" if token == v.first_depth else kind
    return None if before == "end" else len(ids)
