"""Rows of words and genes that training never met differ from one another as those it met do, and are no likelier than they were."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scmulan.corpus.shards import Corpus
from scmulan.model import load_checkpoint
from scmulan.prompts import SentenceWriter, load_prompts
from scmulan.training.unmet import spread_rows, spread_unmet, unmet_ids


@pytest.fixture
def matrix() -> torch.Tensor:
    """Forty rows: 20 that were met, of their own each; 20 pushed down all alike."""
    generator = torch.Generator().manual_seed(0)
    met, alike = torch.randn(20, 64, generator=generator), torch.randn(1, 64, generator=generator) * 2
    return torch.cat([met, alike + 0.02 * torch.randn(20, 64, generator=generator)])


MET, UNMET = np.arange(20), np.arange(20, 40)


def own_part(rows: torch.Tensor) -> torch.Tensor:
    return (rows - rows.mean(0)).norm(dim=1)


def test_unmet_rows_differ_as_met_ones_do_and_met_ones_stay(matrix):
    before = matrix.clone()
    spread_rows(matrix, UNMET, MET)
    assert torch.equal(matrix[:20], before[:20])
    assert float(own_part(before[20:]).max()) < 0.3
    assert float(own_part(matrix[20:]).median()) == pytest.approx(float(own_part(matrix[:20]).median()), rel=0.1)


def test_what_unmet_rows_share_stays(matrix):
    before = matrix[20:].mean(0)
    spread_rows(matrix, UNMET, MET)
    assert torch.nn.functional.cosine_similarity(matrix[20:].mean(0), before, dim=0) > 0.9


def test_rows_that_differ_enough_already_are_left(matrix):
    wide = torch.cat([matrix[:20] * 0.1, matrix[:20] * 3])
    before = wide.clone()
    spread_rows(wide, UNMET, MET)
    assert torch.equal(wide, before)


def test_a_seed_decides_the_rows(matrix):
    first, again, other = matrix.clone(), matrix.clone(), matrix.clone()
    for rows, seed in ((first, 1), (again, 1), (other, 2)):
        spread_rows(rows, UNMET, MET, seed=seed)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_words_of_the_labels_and_genes_of_the_cells_are_met(trained):
    checkpoint = load_checkpoint(trained.folder)
    writer = SentenceWriter(checkpoint.tokenizer, checkpoint.vocabulary, load_prompts())
    words, genes = unmet_ids(Corpus(trained.corpus), writer)
    v = checkpoint.vocabulary
    assert not set(writer.field_ids("cell_type", "B cell").tolist()) & set(words.tolist())
    assert set(writer.field_ids("organ", "\u00d8\u00e5").tolist()[1:]) & set(words.tolist())
    assert ((genes >= v.first_gene) & (genes < v.last_gene)).all()
    assert v.gene_id("CD19") not in genes


def test_words_are_left_as_they_are_where_questions_were_learnt_from(trained):
    checkpoint, corpus = load_checkpoint(trained.folder), Corpus(trained.corpus)
    writer = SentenceWriter(checkpoint.tokenizer, checkpoint.vocabulary, load_prompts())
    matrix = torch.randn(checkpoint.vocabulary.size, 8, generator=torch.Generator().manual_seed(0)) * 0.01
    matrix[slice(*checkpoint.vocabulary.text)][::2] *= 100
    was = matrix.clone()
    assert spread_unmet([matrix], corpus, writer, has_questions=True)[0] == 0
    assert torch.equal(matrix[slice(*checkpoint.vocabulary.text)], was[slice(*checkpoint.vocabulary.text)])


def test_a_model_as_it_is_written_has_its_unmet_rows_spread(trained):
    checkpoint, corpus = load_checkpoint(trained.folder), Corpus(trained.corpus)
    writer = SentenceWriter(checkpoint.tokenizer, checkpoint.vocabulary, load_prompts())
    matrix = checkpoint.model.get_input_embeddings().weight.detach().clone()
    was = matrix.clone()
    n_words, _ = spread_unmet([matrix], corpus, writer)
    assert n_words
    assert float((matrix - was).norm(dim=1).max()) < 0.5 * float(own_part(was[slice(*checkpoint.vocabulary.text)]).median())
