"""Draws that cells written twice share: each row has a number of its own for each level and gene, whatever its prompt.

Where the list of a level is read, a gene is taken if its number is below its hazard. So cells are drawn as the model has them, and two
cells of one row, written from two prompts, differ where the prompts make chances differ and hardly elsewhere (common random numbers): the
mean change of few pairs is as sure as that of many cells drawn apart.
"""

from __future__ import annotations

import numpy as np
import torch

from scmulan.csentence import Vocabulary


class CoupledDraws:
    """The numbers of rows that are being written, at the level where each stands.

    Attributes
    ----------
    genes_BG : (B, n_genes) float32 in [0, 1)
    others_B : (B,) float32 in [0, 1), by which a level or the end is drawn when the list is through
    """

    def __init__(self, seed: int, rows: np.ndarray, vocabulary: Vocabulary, device: torch.device):
        self.seed, self.rows, self.vocabulary = seed & 0xFFFFFFFFFFFFFFFF, rows, vocabulary
        self.genes_BG = torch.empty(len(rows), vocabulary.n_genes, device=device)
        self.others_B = torch.empty(len(rows), device=device)
        self.level = np.full(len(rows), -1)

    def turn_to(self, level_B: torch.Tensor) -> None:
        """Rows stand at these levels now (ids, or the one before the first)."""
        levels = level_B.cpu().numpy() - self.vocabulary.first_level + 1
        for place in np.flatnonzero(levels != self.level).tolist():
            key = np.array([self.seed, int(self.rows[place])], dtype=np.uint64)
            # draws of steps begin at counter 0; these stand where no cell is long enough to come
            philox = np.random.Philox(key=key, counter=np.array([0, 0, 1, int(levels[place])], dtype=np.uint64))
            drawn = torch.from_numpy(np.random.Generator(philox).random(self.vocabulary.n_genes + 1, dtype=np.float32))
            self.genes_BG[place], self.others_B[place] = drawn[:-1].to(self.genes_BG), drawn[-1].to(self.genes_BG)
        self.level = levels

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some rows only."""
        kept = rows.cpu().numpy()
        self.rows, self.level = self.rows[kept], self.level[kept]
        self.genes_BG, self.others_B = self.genes_BG[rows], self.others_B[rows]
