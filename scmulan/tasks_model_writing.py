"""The methods of a `Model` that write cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy.typing as npt
import scipy.sparse as sp

from scmulan.cells import AnnData
from scmulan.decoding.sampling import Sampling
from scmulan.engines.base import Advance
from scmulan.errors import PromptError
from scmulan.metadata import canonical
from scmulan.tasks_model_base import ModelBase


class WritingModel(ModelBase):
    """Cells of a kind, and cells around genes."""

    def generate(
        self,
        *,
        n: int = 1,
        seed: int = 0,
        temperature: float = Sampling.temperature,
        top_p: float = Sampling.top_p,
        least_hazard: float = Sampling.least_hazard,
        rates: bool = Sampling.rates,
        depth: int | None = None,
        naming: str = "symbol",
        on_cell: Advance | None = None,
        **fields: str | None,
    ) -> AnnData:
        """Cells of a kind.

        Parameters
        ----------
        n : number of cells
        temperature, top_p, least_hazard, rates : as in ``Sampling``
        depth : counts per cell to aim at (within half an octave); drawn by the model when not given
        fields : any of the model's fields, for example ``organ="blood", cell_type="B cell"``; those left open are drawn in
            proportion to the training cells that agree with those given

        Returns
        -------
        AnnData
            ``layers["counts"]`` int32 counts, ``X`` log1p CP10k, the fields in ``obs``, provenance in ``uns["scmulan"]``.

        Raises
        ------
        PromptError
            When a value was never seen, or no training cell had the values together; names what is possible.
        """
        rows = self.rows_for(n, fields, seed)
        sampling = Sampling(temperature=temperature, top_p=top_p, least_hazard=least_hazard, seed=seed, rates=rates)
        return self.written.write(rows, {}, "generate", sampling, depth, naming, on_cell)

    def complete(
        self,
        genes: Mapping[str, int],
        *,
        n: int = 1,
        seed: int = 0,
        temperature: float = Sampling.temperature,
        top_p: float = Sampling.top_p,
        least_hazard: float = Sampling.least_hazard,
        rates: bool = Sampling.rates,
        depth: int | None = None,
        naming: str = "symbol",
        on_cell: Advance | None = None,
        **fields: str | None,
    ) -> AnnData:
        """Cells that hold some genes at given counts, as scMulan's gene prompting; not an intervention.

        Parameters
        ----------
        genes : counts by gene, for example ``{"GATA1": 8}``; any gene naming
        """
        if not genes:
            raise PromptError("no gene given; needed at least one, for example --gene GATA1=8")
        organism = fields.get("organism")
        around = self.around(genes, canonical("organism", organism).value if organism else None)
        rows = self.rows_for(n, fields, seed)
        sampling = Sampling(temperature=temperature, top_p=top_p, least_hazard=least_hazard, seed=seed, rates=rates)
        return self.written.write(rows, around, "complete", sampling, depth, naming, on_cell)

    def rows_for(self, n: int, fields: Mapping[str, str | None], seed: int) -> list[dict[str, str]]:
        """Fields of n cells to write: those given, the others drawn from what was seen together with them."""
        return self.written.rows_for(n, fields, seed)

    def around(self, genes: Mapping[str, int], organism: str | None = None) -> dict[int, int]:
        """Level by vocabulary column of the genes that a cell is to be written around, from counts by any gene name.

        Raises
        ------
        VocabularyError, PromptError
            When a gene is unknown, not of this model, given twice, or its count is not whole and positive.
        """
        return self.written.around(genes, organism)

    def write_counts(
        self,
        rows: Sequence[Mapping[str, str | None]],
        sampling: Sampling,
        *,
        around: Sequence[Mapping[int, int]] | None = None,
        depths: npt.ArrayLike | None = None,
        on_cell: Advance | None = None,
    ) -> sp.csr_matrix:
        """One cell for each prompt; fields that a prompt lacks stay open.

        Parameters
        ----------
        rows : (C,) fields of the prompts
        around : (C,) the genes that each cell is written around, as from ``Model.around``; an empty one for none
        depths : (C,) counts to aim at, within half an octave; drawn by the model when not given

        Returns
        -------
        CSR (C, vocabulary genes), int32 counts
        """
        return self.written.counts(rows, sampling, around=around, depths=depths, on_cell=on_cell)
