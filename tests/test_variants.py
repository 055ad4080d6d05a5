"""Variants of a prompt upon what they share, places inside of cells, and slopes: each against the plain way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_adapters import write_adapter

from scmulan import csentence
from scmulan.engines import transformers_variants
from scmulan.engines.transformers_places import readings, states_of_cells
from scmulan.engines.transformers_slopes import slopes
from scmulan.engines.transformers_variants import hidden_variants, score_variants
from scmulan.errors import EngineError
from scmulan.hazard import OFFSET


@pytest.fixture(params=["base", "adapter"])
def opened(request, trained, tmp_path):
    """The tiny model by itself and with an adapter in use, in float32."""
    from scmulan.engines.transformers import TransformersEngine
    from scmulan.model import load_checkpoint
    from scmulan.tasks import Model

    checkpoint = load_checkpoint(trained.folder)
    model = Model(checkpoint, TransformersEngine(checkpoint, dtype=torch.float32))
    if request.param == "adapter":
        model.add_adapter(write_adapter(trained.folder, tmp_path / "kidney"))
    return model


def variants_of(model, adata, n: int = 40, seed: int = 0):
    """A cell's question, and the same of the cell with one gene changed at random, the cell itself among them."""
    ready = model.read(adata, reserve=model.opened.reserve())
    counts, rng = ready.counts[[0]].toarray()[0], np.random.default_rng(seed)
    cells = [ready.ids[0]]
    for column in rng.choice(np.flatnonzero(ready.panel), n, replace=True):
        changed = counts.copy()
        changed[column] = rng.choice([0, 1, 4, 40])
        cells.append(csentence.encode(csentence.sp.csr_matrix(changed[None]), model.vocabulary)[0])
    return [model.writer.prompt("annotate", {"organ": "blood"}, cell=cell) for cell in cells]


@pytest.mark.parametrize("tokens", [64, 2048])
def test_variants_are_scored_as_if_each_were_read_by_itself(opened, new_cells, monkeypatch, tokens):
    monkeypatch.setattr(transformers_variants, "VARIANT_TOKENS", tokens)
    prompts = variants_of(opened, new_cells)
    said = opened.answers.type_answers(opened.seen.values("cell_type"))
    alone = np.concatenate([opened.engine.score([prompt], said) for prompt in prompts])
    np.testing.assert_allclose(score_variants(opened.engine, prompts[0], prompts, said), alone, atol=1e-4)


def test_variants_are_embedded_as_if_each_were_read_by_itself(opened, new_cells):
    prompts = variants_of(opened, new_cells)
    after = [opened.writer.control_id(name) for name in ("<lineage>", "<cell_type>")]
    alone = np.concatenate([opened.engine.hidden([prompt], after=after) for prompt in prompts])
    np.testing.assert_allclose(hidden_variants(opened.engine, prompts[0], prompts, after), alone, atol=1e-4)


def test_every_variant_is_told_of_once(opened, new_cells):
    told: list[int] = []
    prompts = variants_of(opened, new_cells)
    hidden_variants(opened.engine, prompts[0], prompts, [opened.writer.control_id("<cell_type>")], on_variant=told.append)
    assert sum(told) == len(prompts)


def test_a_variant_that_shares_nothing_is_read_whole(model, new_cells):
    prompt = variants_of(model, new_cells, n=1)[0]
    other = np.concatenate([[model.vocabulary.eos], prompt[1:]])
    after = [model.writer.control_id("<cell_type>")]
    np.testing.assert_allclose(hidden_variants(model.engine, prompt, [other], after), model.engine.hidden([other], after=after), atol=1e-5)


def test_a_gene_is_read_at_the_last_place_before_it_in_each_level(opened, new_cells):
    """Against a walk along the sentence that asks the whole output matrix at every id."""
    v = opened.vocabulary
    ready = opened.read(new_cells, reserve=opened.opened.reserve())
    prompt = opened.writer.prompt("generate", {"organ": "blood"})
    cells = [ready.ids[row] for row in range(3)]
    columns = np.arange(v.n_genes)
    states = dict(states_of_cells(opened.engine, [prompt] * 3, cells))
    for row, found in readings(opened.engine, [prompt] * 3, cells, columns):
        logits = (states[row] @ opened.engine.output_VD[v.first_gene : v.last_gene].float().T).numpy() - OFFSET
        hazard, nats, named = np.zeros(v.n_genes), np.zeros(v.n_genes), np.zeros(v.n_genes, bool)
        after, in_level = -1, False
        for place, number in enumerate(cells[row][:-1]):
            if v.first_level <= number < v.end_of_cell:
                after, in_level = -1, True
            if not in_level:
                continue
            if number >= v.first_gene:
                after = int(number) - v.first_gene
            follows = int(cells[row][place + 1])
            until = follows - v.first_gene if follows >= v.first_gene else v.n_genes - 1
            read = ~named & (columns > after) & (columns <= until)
            hazard[read] += np.logaddexp(0, logits[place, read])
            nats[read] += np.logaddexp(0, logits[place, read])
            if follows >= v.first_gene:
                nats[until] -= logits[place, until]
                named[until] = True
        np.testing.assert_allclose(found.hazard, hazard, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.nats, nats, rtol=1e-4, atol=1e-4)


def test_what_genes_add_is_all_of_the_nats_but_levels_and_the_depth(model, new_cells):
    """The nats of genes are those of passing and taking, up to that a gene must follow a level, which makes them a little fewer."""
    v = model.vocabulary
    ready = model.read(new_cells, reserve=model.opened.reserve())
    prompt, cell = model.writer.prompt("generate", {}), ready.ids[0]
    nats = model.engine.nats([prompt], [cell])[0]
    ((_, found),) = readings(model.engine, [prompt], [cell], np.arange(v.n_genes))
    must_take = (cell[:-1] >= v.first_level) & (cell[:-1] < v.end_of_cell)
    is_structure = np.append(False, cell[1:] < v.first_gene)
    assert found.nats.sum() <= nats.sum() + must_take.sum() + 1e-3
    assert found.nats.sum() >= nats[~is_structure & ~np.append(False, must_take)].sum() - 1e-3


def test_a_layer_that_is_not_there_and_another_engine_are_refused(model):
    with pytest.raises(EngineError, match="layer 9: the model has 2"):
        next(states_of_cells(model.engine, [np.array([1])], [np.array([2])], layer=9))
    with pytest.raises(EngineError, match="object shows no hidden states"):
        next(states_of_cells(object(), [], []))


def test_a_slope_is_what_a_small_step_toward_a_gene_does(opened, new_cells):
    """The slope of a gene against a difference quotient: the place's embedding moved a little toward the gene's."""
    from scmulan.decoding.trie import Trie
    from scmulan.engines import transformers_slopes as module

    engine, v = opened.engine, opened.vocabulary
    prompt = variants_of(opened, new_cells, n=1)[0]
    said = opened.answers.type_answers(opened.seen.values("cell_type")[:3])
    slope = slopes(engine, prompt, said, 1, 4)
    ids, place = module._with_place(prompt, 4, engine)
    embed = engine.body.embed_tokens
    genes = embed.weight[v.first_gene : v.last_gene].detach()
    for column in (0, 7, v.n_genes - 1):
        odds = []
        for step in (-0.01, 0.01):
            states = embed(torch.from_numpy(ids)[None]).detach()
            states[0, place] = genes.mean(0) + step * (genes[column] - genes.mean(0))
            with torch.no_grad():
                scores = module._scores(engine, states, Trie.of(said))
            odds.append(float(scores[0] - torch.logsumexp(scores[1:], 0)))
        np.testing.assert_allclose(slope[column], (odds[1] - odds[0]) / 0.02, rtol=0.05, atol=2e-3)


def test_the_place_held_open_lies_in_the_level_of_its_count(model, new_cells):
    from scmulan.engines.transformers_slopes import _with_place

    v, prompt = model.vocabulary, variants_of(model, new_cells, n=1)[0]
    for count in (1, 2, 4, 30, 10_000):
        ids, place = _with_place(prompt, count, model.engine)
        levels = ids[:place][(ids[:place] >= v.first_level) & (ids[:place] < v.end_of_cell)]
        assert levels[-1] == v.level_id(csentence.level_of([count]))[0]
        assert ids[place] == v.first_gene
        inside = ids[np.flatnonzero(ids == v.cell)[0] : np.flatnonzero(ids == v.end_of_cell)[0]]
        kept = inside[(inside >= v.first_level) & (inside < v.end_of_cell)]
        assert (np.diff(kept) > 0).all()
