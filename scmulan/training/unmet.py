"""Rows of words and genes that training never met, made as distinct as those it met, so that an adapter can learn to name them.

Whatever is never the next id is pushed down all alike: such rows end as one common direction with next to nothing of their own. An
adapter trains no rows; from hidden states alone it could not tell these apart. So each gets a random part of its own, as large as that
of rows that were met, on top of what they share, which keeps their chance as small as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from scmulan.corpus.shards import Corpus
from scmulan.metadata import FIELDS
from scmulan.prompts import SentenceWriter
from scmulan.training.seen import detection, seen_labels


def unmet_ids(corpus: Corpus, writer: SentenceWriter) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Text ids in no label of a corpus's training cells, and ids of genes that none of them detects."""
    v = writer.vocabulary
    text = np.arange(*v.text)
    labels = {(name, str(seen[name])) for seen in seen_labels(corpus) for name in FIELDS if name in seen}
    met = {int(word) for name, label in labels for word in writer.field_ids(name, label)}
    return text[~np.isin(text, list(met))], v.first_gene + np.flatnonzero(detection(corpus, writer) == 0)


@torch.no_grad()
def spread_rows(matrix_VD: torch.Tensor, unmet: npt.NDArray[np.int64], met: npt.NDArray[np.int64], *, seed: int = 0) -> None:
    """Give each unmet row a random part, so that they differ among each other as much as the met ones do.

    Parameters
    ----------
    matrix_VD : (V, D) of embeddings, changed in place
    unmet, met : ids of one kind, words or genes
    """
    if len(unmet) < 2 or len(met) < 2:
        return
    rows, known = matrix_VD[unmet].float(), matrix_VD[met].float()
    wanted = float((known - known.mean(0)).norm(dim=1).median())
    own = rows - rows.mean(0)
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(rows.shape, generator=generator).to(rows.device)
    missing = (wanted**2 - own.norm(dim=1, keepdim=True) ** 2).clamp(min=0).sqrt()
    matrix_VD[unmet] = (rows + missing * random / random.norm(dim=1, keepdim=True)).to(matrix_VD.dtype)


def spread_unmet(
    matrices_VD: Sequence[torch.Tensor], corpus: Corpus, writer: SentenceWriter, *, seed: int = 0, has_questions: bool = False
) -> tuple[int, int]:
    """Spread the rows that a corpus never meets, in each matrix; how many words and genes those are.

    ``has_questions``: questions were learnt from beside the cells, in which nearly every word stands; then none is taken for unmet.
    """
    v = writer.vocabulary
    words, genes = unmet_ids(corpus, writer)
    words = words[:0] if has_questions else words
    for number, matrix_VD in enumerate(matrices_VD):
        for unmet, every in ((words, np.arange(*v.text)), (genes, np.arange(v.first_gene, v.last_gene))):
            spread_rows(matrix_VD, unmet, np.setdiff1d(every, unmet), seed=seed + number)
    return len(words), len(genes)
