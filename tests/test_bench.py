"""Benchmarks measure what they say: names, no fault where there is none, and a planted fault found."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.sparse as sp

from scmulan import bench, bench_exactness, csentence
from scmulan.errors import PromptError


@pytest.fixture
def data(trained, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "new.h5ad").write_bytes(trained.cells.read_bytes())
    return tmp_path / "data"


def run(what: str, trained, data, n: int | None = None):
    return bench.run(what, model=str(trained.folder), data=data, n=n, say=lambda _: None)


def test_an_unknown_measurement_is_an_error_that_names_the_nearest():
    with pytest.raises(
        PromptError,
        match=r"bench 'sped': needed one of speed, roundtrip, sampling, invariance, sentence, kill, .*; nearest: 'speed'",
    ):
        bench.run("sped")


def test_every_measurement_has_its_line_in_the_pages_head():
    with pytest.raises(PromptError) as told:
        bench.run("nothing of the kind")
    names = str(told.value).partition("needed one of ")[2].partition(";")[0].split(", ")
    assert len(names) > 25
    assert [name for name in names if not re.search(rf"^    {name} ", bench.__doc__ or "", re.MULTILINE)] == []


def test_roundtrip_finds_no_fault_in_cells_that_come_back(trained, data):
    found = run("roundtrip", trained, data)
    assert (found["cells"], found["counts"] > 100) == (12, True)
    faults = (
        "counts_to_10_wrong",
        "larger_counts_off_by_more_than_half_a_step",
        "cells_whose_text_differs",
        "vocabulary_entries_that_differ",
    )
    assert {name: found[name] for name in faults} == dict.fromkeys(faults, 0)
    assert found["peak_memory_mb"] > 50


@pytest.mark.parametrize(
    ("planted", "name"),
    [
        (lambda counts: counts.data.__setitem__(int(np.argmin(counts.data)), 2), "counts_to_10_wrong"),
        (lambda counts: counts.data.__setitem__(int(np.argmax(counts.data)), 300), "larger_counts_off_by_more_than_half_a_step"),
        (lambda counts: counts.indices.__setitem__(0, counts.indices[0] + 1), "counts_to_10_wrong"),
    ],
)
def test_roundtrip_finds_a_planted_fault(trained, data, monkeypatch, planted, name):
    usual = csentence.decode_many

    def wrong(cells, vocabulary, rng=None) -> sp.csr_matrix:
        counts = usual(cells, vocabulary, rng)
        planted(counts)
        return counts

    monkeypatch.setattr(csentence, "decode_many", wrong)
    assert run("roundtrip", trained, data)[name] > 0


def test_roundtrip_finds_a_text_that_reads_back_as_something_else(trained, data, monkeypatch):
    found = []
    usual = bench_exactness._texts_that_differ
    swapped = {"text": 0}

    class Wrong:
        """A tokenizer that reads one gene too many in the first text."""

        def __init__(self, tokenizer):
            self.tokenizer = tokenizer

        def batch_decode(self, ids):
            return self.tokenizer.batch_decode(ids)

        def __call__(self, texts, **options):
            swapped["text"] += 1
            return self.tokenizer([texts[0] + " ACTB", *texts[1:]], **options)

    monkeypatch.setattr(
        bench_exactness, "_texts_that_differ", lambda tokenizer, ids: found.append(usual(Wrong(tokenizer), ids)) or found[-1]
    )
    assert run("roundtrip", trained, data)["cells_whose_text_differs"] == 1 == swapped["text"]


def test_an_empty_folder_of_data_is_an_error(trained, tmp_path):
    with pytest.raises(PromptError, match=r"no \.h5ad file in it"):
        run("roundtrip", trained, tmp_path)


def test_sampling_counts_its_tokens_and_cells(trained, data):
    found = run("sampling", trained, data, n=500)
    assert found["cells"] == 256
    assert found["tokens"] > 256 * 5
    assert found["cells_that_do_not_parse"] == 0
