"""Draws that cells written twice share: each row has a number of its own for each level and gene, whatever its prompt.

Where the list of a level is read, a gene is taken if its number is below its hazard. So cells are drawn as the model has them, and two
cells of one row, written from two prompts, differ where the prompts make chances differ and hardly elsewhere (common random numbers): the
mean change of few pairs is as sure as that of many cells drawn apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from scmulan.csentence import Vocabulary


class CoupledDraws:
    """The numbers of cells that are being written, at the level where each stands.

    Attributes
    ----------
    genes_BG : (slots, n_genes) float32 in [0, 1)
    others_B : (slots,) float32 in [0, 1), by which a level or the end is drawn when the list is through
    """

    def __init__(self, n_slots: int, vocabulary: Vocabulary, device: torch.device):
        self.vocabulary = vocabulary
        self.seeds, self.rows = np.zeros(n_slots, dtype=np.uint64), np.zeros(n_slots, dtype=np.uint64)
        self.genes_BG = torch.empty(n_slots, vocabulary.n_genes, device=device)
        self.others_B = torch.empty(n_slots, device=device)
        self.level = np.full(n_slots, -1)

    def put(self, slots: Sequence[int], seed: int, rows: npt.NDArray[np.int64]) -> None:
        """Cells of a seed and their rows stand in these slots from now on."""
        self.seeds[slots], self.rows[slots], self.level[slots] = seed & 0xFFFFFFFFFFFFFFFF, rows, -1

    def at(self, slots_B: torch.Tensor, level_B: torch.Tensor, first: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers of the genes from a column on, and of what else may come, of some slots that stand at these levels now (ids, or the one
        before the first); (B, G - first) and (B,)."""
        slots, levels = slots_B.cpu().numpy(), level_B.cpu().numpy() - self.vocabulary.first_level + 1
        for place in np.flatnonzero(levels != self.level[slots]).tolist():
            slot = slots[place]
            key = np.array([self.seeds[slot], self.rows[slot]], dtype=np.uint64)
            # draws of steps begin at counter 0; these stand where no cell is long enough to come
            philox = np.random.Philox(key=key, counter=np.array([0, 0, 1, int(levels[place])], dtype=np.uint64))
            drawn = torch.from_numpy(np.random.Generator(philox).random(self.vocabulary.n_genes + 1, dtype=np.float32))
            self.genes_BG[slot], self.others_B[slot] = drawn[:-1].to(self.genes_BG), drawn[-1].to(self.genes_BG)
        self.level[slots] = levels
        return self.genes_BG[slots_B, first:], self.others_B[slots_B]
