"""Which cells a request is about: a group of a clustering, or those that the data label as the request says.

A field of the request that the data have a column for selects cells; one that they have not is told to the model, where a task can be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scmulan.cells import AnnData
from scmulan.errors import PromptError, nearest, some
from scmulan.metadata import canonical, obs_columns
from scmulan.requests import Request

CLUSTER_COLUMNS = ("leiden", "louvain", "cluster", "clusters", "seurat_clusters", "cluster_id", "group")


@dataclass(frozen=True)
class Selected:
    """The cells of a request.

    Attributes
    ----------
    adata : those cells; the data themselves where all are meant
    what : how they were selected, in words; empty where all are meant
    told : fields that the data do not have, for the model to be told
    """

    adata: AnnData
    what: str
    told: Mapping[str, str]


def select(adata: AnnData, request: Request) -> Selected:
    """The cells that a request is about.

    Raises
    ------
    PromptError
        When there is no such group, or no cell with that label; names what there is.
    """
    kept = np.ones(adata.n_obs, dtype=bool)
    what, told = [], {}
    if request.cluster is not None:
        column = next((name for name in CLUSTER_COLUMNS if name in adata.obs), None)
        if column is None:
            raise PromptError(
                f"cluster {request.cluster}: obs has no clustering; needed one of {', '.join(CLUSTER_COLUMNS)} (it has {some(adata.obs)})"
            )
        groups = adata.obs[column].astype(str).to_numpy()
        kept &= groups == request.cluster
        if not kept.any():
            names = sorted(set(groups))
            raise PromptError(
                f"obs[{column!r}] has no group {request.cluster!r}{nearest(request.cluster, names)}; it has {some(names, most=12)}"
            )
        what.append(f"{column} {request.cluster}")
    for name, value in request.fields.items():
        column = next((column for column in obs_columns(name) if column in adata.obs), None)
        if column is None:
            told[name] = value
            continue
        spelled = {text: canonical(name, text).value for text in adata.obs[column].astype(str).unique()}
        has = adata.obs[column].astype(str).map(lambda text, spelled=spelled, value=value: spelled[text] == value).to_numpy()
        if not has.any():
            known = sorted(set(spelled.values()))
            raise PromptError(f"obs[{column!r}] has no cell of {name} {value!r}{nearest(value, known)}; it has {some(known, most=6)}")
        kept &= has
        what.append(f"{name} {value}")
    if what and not kept.any():
        raise PromptError(f"no cell is {' and '.join(what)} at once")
    return Selected(adata if kept.all() else adata[kept].copy(), ", ".join(what) if not kept.all() else "", told)


def write_back(adata: AnnData, part: AnnData) -> None:
    """Put columns that a task added to some of the cells into all of them, empty elsewhere."""
    if part is adata:
        return
    for name in [name for name in part.obs if str(name).startswith("scmulan_")]:
        column = part.obs[name]
        column = column if column.dtype.kind in "fi" else column.astype(object)
        adata.obs[name] = column.reindex(adata.obs_names)
