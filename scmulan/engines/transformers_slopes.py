"""How the log-odds of answers lean on the genes of a cell, all genes at once: one pass backward in place of one pass a gene.

A gene that comes or goes is no small step, so this is a first guess. A place is held open in the level that a raised gene would get,
with the middle of the gene embeddings in it, which is no gene in particular; the slope there, times how a gene's embedding differs from
that middle, is what the gene would do in its place. Limit: of genes that are taken out a slope says nothing; the same done at the places
of the cell's own genes had no rank correlation with what deleting them does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from scmulan.csentence import Ids, level_of
from scmulan.decoding.trie import Trie
from scmulan.engines.base import Engine
from scmulan.engines.transformers import TransformersEngine
from scmulan.engines.transformers_places import of_transformers


def slopes(engine: Engine, prompt: Ids, answers: Sequence[Ids], n_toward: int, count: int) -> npt.NDArray[np.float64]:
    """By how much each gene would shift the log-odds of the first answers against the others; (vocabulary genes,) nats.

    Parameters
    ----------
    prompt : a question about one cell
    n_toward : how many of the answers are of the goal
    count : the count at which a gene is put in, 1 or more
    """
    engine = of_transformers(engine)
    v = engine.vocabulary
    embed = engine.body.embed_tokens
    genes_GD = embed.weight[v.first_gene : v.last_gene].detach().float()
    middle_D = genes_GD.mean(0)
    ids, place = _with_place(prompt, count, engine)
    trie = Trie.of(answers)
    with torch.enable_grad():
        states = embed(torch.from_numpy(ids)[None].to(engine.device)).detach()
        states[0, place] = middle_D.to(states.dtype)
        states.requires_grad_()
        scores_A = _scores(engine, states, trie)
        odds = torch.logsumexp(scores_A[:n_toward], 0) - torch.logsumexp(scores_A[n_toward:], 0)
        (slope_1TD,) = torch.autograd.grad(odds, states)
    found: npt.NDArray[np.float64] = ((genes_GD - middle_D) @ slope_1TD[0, place].float()).double().cpu().numpy()
    return found


def _with_place(prompt: Ids, count: int, engine: TransformersEngine) -> tuple[Ids, int]:
    """The prompt with a place in the middle of a count's level, which is opened where the cell lacks it."""
    v = engine.vocabulary
    level = int(v.level_id(level_of([count]))[0])
    is_level = (prompt >= v.first_level) & (prompt < v.end_of_cell)
    start = int(np.flatnonzero(prompt == v.cell)[0]) + 2
    below = np.flatnonzero(is_level & (prompt > level) & (np.arange(len(prompt)) >= start))
    end = int(below[0]) if len(below) else int(np.flatnonzero(prompt == v.end_of_cell)[0])
    opened = np.flatnonzero(is_level[:end] & (prompt[:end] == level))
    if len(opened):
        place = (int(opened[0]) + 1 + end) // 2
        return np.insert(prompt, place, v.first_gene), place
    return np.insert(prompt, end, [level, v.first_gene]), end + 1


def _scores(engine: TransformersEngine, states_1TD: torch.Tensor, trie: Trie) -> torch.Tensor:
    """Log-probability of each answer after a prompt that is given as embeddings; (answers,). The tree of answers is read in one pass."""
    length, inner = states_1TD.shape[1], trie.inner
    nodes = torch.from_numpy(trie.token[inner]).to(engine.device)
    depth = torch.from_numpy(trie.depth[inner]).to(engine.device)
    sees = np.tril(np.ones((length + len(inner), length + len(inner)), dtype=bool))
    sees[length:, length:] = trie.sees[np.ix_(inner, inner)]
    out = engine.body(
        inputs_embeds=torch.cat([states_1TD, engine.body.embed_tokens(nodes)[None]], dim=1),
        position_ids=torch.cat([torch.arange(length, device=engine.device), length + depth])[None],
        attention_mask=torch.from_numpy(sees).to(engine.device)[None, None],
        use_cache=False,
    )
    return trie.log_probabilities(engine.node_log_probabilities(out.last_hidden_state[:, length - 1 :], trie))[0]
