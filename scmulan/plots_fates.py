"""The picture of fates: for each clone what its later cells are, beside what was foretold of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from scmulan._drawing import INK, drawn, figure, short
from scmulan.errors import CellDataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawn
def fates_by_clone(shares: Mapping[str, ArrayLike], fates: Sequence[str], *, title: str = "Fates by clone") -> Figure:
    """Shares of fates as one panel a way, ``[clones, fates]`` each, the clones in the same order; a share of 10 % or more is written out.

    Examples
    --------
    >>> picture = fates_by_clone({"true": [[1.0, 0.0]], "scmulan": [[0.7, 0.3]]}, ["neutrophil", "monocyte"])
    >>> len(picture.axes)
    2
    """
    panels = {who: np.asarray(each, dtype=float) for who, each in shares.items()}
    if not panels or any(each.shape != next(iter(panels.values())).shape or each.shape[1] != len(fates) for each in panels.values()):
        raise CellDataError(f"fates by clone: shapes {[each.shape for each in panels.values()]}; needed clones × {len(fates)} fates each")
    n_clones = next(iter(panels.values())).shape[0]
    picture, every = figure(1.2 + len(panels) * (0.5 + 0.42 * len(fates)), 2.2 + 0.24 * n_clones, columns=len(panels), sharey=True)
    for axes, (who, values) in zip(np.atleast_1d(every), panels.items(), strict=True):
        axes.pcolormesh(np.arange(len(fates) + 1) - 0.5, np.arange(n_clones + 1) - 0.5, values, cmap="Blues", vmin=0, vmax=1,
                        edgecolor="white", linewidth=1)  # fmt: skip
        for i, j in zip(*np.nonzero(values >= 0.095), strict=True):
            axes.text(
                j, i, f"{100 * values[i, j]:.0f}", ha="center", va="center", fontsize=7.5, color="white" if values[i, j] > 0.55 else INK
            )
        axes.set_xticks(range(len(fates)), [short(name, fates, 24) for name in fates], rotation=45, ha="right", rotation_mode="anchor")
        axes.set(yticks=[])
        axes.set_title(who)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    first = np.atleast_1d(every)[0]
    first.set_ylabel(f"{n_clones:,} clones")
    first.invert_yaxis()
    picture.suptitle(f"{title}, %", x=0.01, ha="left", fontweight="bold")
    return picture
