"""From logits to next-id probabilities inside a cell: genes are gone through in id order, and each is taken or passed by.

A level lists its genes in id order, so the next gene is the first one that is not passed by. The logit of a gene, less a constant,
is the log-odds of taking it when the reader of the list comes to it (a discrete-time hazard); what passes all legal genes goes to
the levels and the end, by a softmax of theirs. A plain softmax over thousands of later genes would have to put the chance of each
gene and the distance to it into one number; it leaks to far genes, and every draw there skips all genes between.
"""

from __future__ import annotations

import math

import torch

from scmulan.csentence import Vocabulary

OFFSET = 6.0
"""What is taken from a gene's logit, so that an untrained model takes one gene in four hundred."""
FAR = -1e30


def next_log_probabilities(logits_BV: torch.Tensor, legal_BV: torch.Tensor, vocabulary: Vocabulary) -> torch.Tensor:
    """Log-probability of each legal next id of a cell, minus infinity elsewhere; shape (B, V), float32.

    Parameters
    ----------
    logits_BV : (B, V), the language model's
    legal_BV : (B, V) bool, from ``CellAutomaton.legal``
    """
    first, last = vocabulary.first_gene, vocabulary.last_gene
    scores_BV = logits_BV.float().masked_fill(~legal_BV, FAR)
    genes_BG = scores_BV[:, first:last] - OFFSET
    passed_BG = torch.nn.functional.softplus(genes_BG).cumsum(1)
    others_BV = scores_BV[:, :first].log_softmax(1) - passed_BG[:, -1:]
    scores_BV = torch.cat([others_BV, genes_BG - passed_BG, scores_BV[:, last:]], dim=1).masked_fill(~legal_BV, -torch.inf)
    # where the grammar leaves only genes, or only some of what may follow, the rest is shared out
    return scores_BV - torch.logsumexp(scores_BV, 1, keepdim=True)


def likely(logits_BV: torch.Tensor, legal_BV: torch.Tensor, least: float, vocabulary: Vocabulary) -> torch.Tensor:
    """The legal ids without the genes whose hazard is below ``least``; a row that would have none left keeps all; shape (B, V), bool."""
    first, last = vocabulary.first_gene, vocabulary.last_gene
    kept_BV = legal_BV.clone()
    kept_BV[:, first:last] &= logits_BV[:, first:last] >= OFFSET + math.log(least / (1 - least))
    bare = (~kept_BV.any(1)).nonzero().squeeze(1)
    kept_BV[bare] = legal_BV[bare]
    return kept_BV


def draw_next(
    logits_BV: torch.Tensor, legal_BV: torch.Tensor, uniform_B: torch.Tensor, vocabulary: Vocabulary, least: float = 0.0
) -> torch.Tensor:
    """What ``sample`` draws from ``next_log_probabilities`` at temperature 1, without writing them out; shape (B,), int64.

    Parameters
    ----------
    legal_BV : (B, V) bool, of what comes inside a cell: depths, levels, its end, genes
    uniform_B : (B,) float32 in [0, 1)
    least : genes whose hazard is below it are passed by, as ``likely`` leaves them out
    """
    first, last = vocabulary.first_gene, vocabulary.last_gene
    scores_BG, taken_BG = logits_BV[:, first:last].float() - OFFSET, legal_BV[:, first:last]
    if least > 0:
        taken_BG = taken_BG & (scores_BG >= math.log(least / (1 - least)))
    passed_BG = torch.nn.functional.softplus(scores_BG).mul_(taken_BG).cumsum(1, dtype=torch.float64)
    all_passed_B = passed_BG[:, -1]
    cumulative_BF, has_others_B = _others(logits_BV, legal_BV, vocabulary)
    others_share_B = torch.exp(-all_passed_B) * has_others_B
    # others have the lower ids, so they come first
    has_genes_B = all_passed_B > 0
    is_gene_B = has_genes_B & (~has_others_B | (uniform_B >= others_share_B))
    other_B = _first_beyond(cumulative_BF, (uniform_B / others_share_B.clamp(min=1e-30)).float()) + vocabulary.first_depth
    beyond_B = torch.where(has_others_B, uniform_B - others_share_B, uniform_B * -torch.expm1(-all_passed_B)).clamp(min=0)
    gene_B = _first_beyond(passed_BG, -torch.log1p(-beyond_B) / all_passed_B) + first
    drawn_B = torch.where(is_gene_B, gene_B, other_B)
    if least > 0:
        bare = (~(has_genes_B | has_others_B)).nonzero().squeeze(1)
        if len(bare):
            drawn_B[bare] = draw_next(logits_BV[bare], legal_BV[bare], uniform_B[bare], vocabulary)
    return drawn_B


def draw_coupled(
    logits_BV: torch.Tensor,
    legal_BV: torch.Tensor,
    uniform_B: torch.Tensor,
    vocabulary: Vocabulary,
    genes_BG: torch.Tensor,
    others_B: torch.Tensor,
) -> torch.Tensor:
    """As ``draw_next``, of the same distribution, by a uniform number for each gene; shape (B,), int64.

    Parameters
    ----------
    uniform_B : (B,) float32 in [0, 1), for rows that must take a gene and would take none
    genes_BG, others_B : float32 in [0, 1), as ``CoupledDraws`` has them. Of a row that would take none and must, it is known that all its
        numbers are above the hazards; ``genes_BG`` is changed to where they stand between hazard and 1, so that they are uniform again
    """
    first, last = vocabulary.first_gene, vocabulary.last_gene
    hazard_BG = torch.sigmoid(logits_BV[:, first:last].float() - OFFSET).masked_fill_(~legal_BV[:, first:last], 0)
    is_taken_BG = genes_BG < hazard_BG
    cumulative_BF, has_others_B = _others(logits_BV, legal_BV, vocabulary)
    other_B = _first_beyond(cumulative_BF, others_B) + vocabulary.first_depth
    takes_B = is_taken_BG.any(1)
    must = (~takes_B & ~has_others_B).nonzero().squeeze(1)
    if len(must):
        other_B[must] = draw_next(logits_BV[must], legal_BV[must], uniform_B[must], vocabulary)
        genes_BG[must] = (genes_BG[must] - hazard_BG[must]) / (1 - hazard_BG[must]).clamp(min=1e-6)
    return torch.where(takes_B, first + is_taken_BG.int().argmax(1), other_B)


def _others(logits_BV: torch.Tensor, legal_BV: torch.Tensor, vocabulary: Vocabulary) -> tuple[torch.Tensor, torch.Tensor]:
    """Running sum of the chances of depths, levels and the end, (B, frame ids), and whether any is legal, (B,)."""
    frame = slice(vocabulary.first_depth, vocabulary.end_of_cell + 1)
    others_BF = logits_BV[:, frame].float().masked_fill(~legal_BV[:, frame], -torch.inf)
    cumulative_BF = torch.softmax(others_BF, 1).nan_to_num_().cumsum(1)
    return cumulative_BF, cumulative_BF[:, -1] > 0


def _first_beyond(cumulative_BN: torch.Tensor, share_B: torch.Tensor) -> torch.Tensor:
    """First column whose running sum is above a share of the whole, and so the first that added to it; shape (B,).

    The share is held a little below the whole, so that there is one wherever the whole is more than nothing.
    """
    below = 1 - 2 * torch.finfo(cumulative_BN.dtype).eps
    wanted_B1 = share_B.to(cumulative_BN.dtype).clamp(max=below)[:, None] * cumulative_BN[:, -1:]
    return torch.searchsorted(cumulative_BN, wanted_B1, right=True).squeeze(1)
