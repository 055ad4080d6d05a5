"""The methods of a `Model` about cells that change: perturbation, time, depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from scmulan.cells import AnnData
from scmulan.decoding.sampling import Sampling
from scmulan.engines.base import Advance
from scmulan.tasks_model_base import ModelBase


class ChangingModel(ModelBase):
    """A second cell told from a first, or what turned the one into the other."""

    def perturb(
        self,
        adata: AnnData,
        perturbation: str | Mapping[str, str],
        *,
        dose: str | None = None,
        time: str | None = None,
        n: int | None = None,
        seed: int = 0,
        sampling: Sampling | None = None,
        on_cell: Advance | None = None,
    ) -> AnnData:
        """The cells as they would be after a perturbation, learnt from cells that were perturbed beside cells that were not.

        Parameters
        ----------
        adata : control cells; each is answered about by itself
        perturbation : ``{"STAT1": "knockout"}``, several genes at once, or a label such as ``"interferon beta"``
        dose, time : as in the training cells, for example ``"10 nM"`` and ``"hour 24"``
        n : cells to predict, from cells drawn evenly; one for each cell when not given
        sampling : as in ``generate``; ``seed`` is taken when not given

        Returns
        -------
        AnnData
            Predicted cells, ``obs["scmulan_from"]`` the cell of each. In ``var``, what the perturbation changes beside the same cells
            predicted with none: ``scmulan_before``, ``_after``, ``_change`` (log2), ``_low``, ``_high`` and ``_q_value``.

        Raises
        ------
        PromptError
            When the model has learnt from no perturbed cell, or a gene or label is unknown. A perturbation that no training cell had is
            answered with a warning.
        """
        return self.changes.perturb(
            adata, perturbation, {"dose": dose, "time": time}, n, sampling or Sampling(seed=seed, coupled=True), on_cell
        )

    def explain_shift(
        self,
        control: AnnData,
        perturbed: AnnData,
        *,
        perturbations: Sequence[str] | None = None,
        seed: int = 0,
        on_cell: Advance | None = None,
    ) -> pd.DataFrame:
        """Which perturbation turned control cells into others, likeliest first.

        Told by how likely each cell is as `perturb` would write it from a control, where the model has rates of all the perturbations;
        else by the task `explain_shift`, in words.

        Parameters
        ----------
        perturbations : to choose from; all that the model has learnt when not given

        Returns
        -------
        DataFrame
            A row a perturbation: ``probability``, over all cells as one population; ``mean_probability`` of a single cell; ``cells``, of
            which it is the likeliest. Each cell's own answer is written into ``perturbed.obs``.
        """
        return self.changes.explain(control, perturbed, perturbations, seed, on_cell)

    def next_state(
        self,
        adata: AnnData,
        time: str,
        *,
        n: int | None = None,
        seed: int = 0,
        sampling: Sampling | None = None,
        on_cell: Advance | None = None,
    ) -> AnnData:
        """What the cells become by a later time, for example ``"day 6"``; as `perturb` gives it."""
        return self.changes.next_state(adata, time, n, sampling or Sampling(seed=seed), on_cell)

    def fate(self, adata: AnnData, time: str, *, labels: Sequence[str] | None = None, on_cell: Advance | None = None) -> pd.DataFrame:
        """Probabilities of the types that each cell takes by a later time; (C, types), the likeliest written into ``adata`` too."""
        return self.changes.fate(adata, time, labels, on_cell)

    def enhance(
        self,
        adata: AnnData,
        depth: int,
        *,
        draws: int = 4,
        seed: int = 0,
        sampling: Sampling | None = None,
        on_cell: Advance | None = None,
    ) -> AnnData:
        """The same cells, measured to a greater depth.

        Parameters
        ----------
        depth : counts a cell to aim at, within half an octave
        draws : whole cells that are drawn for each; more of them make a better estimate, and each takes as long as the first

        Returns
        -------
        AnnData
            ``layers["counts"]``, one draw a cell; ``layers["expected"]``, float32, the counts that were seen and, for the rest of the
            depth, what the model expects along all draws; ``X`` log1p CP10k of ``expected``.
        """
        return self.changes.enhance(adata, depth, draws, sampling or Sampling(seed=seed), on_cell)
