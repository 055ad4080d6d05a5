"""What is known of the cells of a job while it runs: the columns of the pieces that are done, each cell by its number in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from scmulan.cells_writing import read_back
from scmulan.errors import CellDataError
from scmulan.serving.columns import Values, array, column
from scmulan.serving.jobs import DONE, Job


def values_of_job(job: Job, folder: Path, rows: npt.NDArray[np.int64], name: str, since: int, in_pieces: int) -> Values:
    """A column of the cells of the pieces from ``since`` on.

    Parameters
    ----------
    folder : of the job
    rows : which cells of its file the job is about
    in_pieces : cells of a piece

    Raises
    ------
    CellDataError
        When no piece has such a column.
    """
    if job.state == DONE:
        obs = read_back(folder / "result.h5ad").obs
        first = since * in_pieces if since < job.total else len(obs)
        obs, rows = obs.iloc[first:], rows[first : len(obs)]
    else:
        parts = [read_back(folder / "pieces" / f"{number:06d}.h5ad").obs for number in range(since, job.done)]
        if not parts:
            return {
                "name": name,
                "kind": "category",
                "categories": [],
                "codes": array([], "int32"),
                "rows": array([], "int32"),
                "pieces": job.done,
            }
        obs = pd.concat([part.astype(dict.fromkeys(part.select_dtypes("category"), object)) for part in parts])
        rows = rows[since * in_pieces :][: len(obs)]
    found = column(obs, name)
    if len(rows) != len(obs):
        raise CellDataError(f"{len(obs):,} cells in the result, {len(rows):,} were asked about: they are not the file's cells")
    return {**found, "rows": array(rows, "int32"), "pieces": job.done if job.state != DONE else job.total}
