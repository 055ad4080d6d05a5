"""From logits to next-id probabilities inside a cell: genes are gone through in id order, and each is taken or passed by.

A level lists its genes in id order, so the next gene is the first one that is not passed by. The logit of a gene, less a constant,
is the log-odds of taking it when the reader of the list comes to it (a discrete-time hazard); what passes all legal genes goes to
the levels and the end, by a softmax of theirs. A plain softmax over thousands of later genes would have to put the chance of each
gene and the distance to it into one number; it leaks to far genes, and every draw there skips all genes between.
"""

from __future__ import annotations

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
