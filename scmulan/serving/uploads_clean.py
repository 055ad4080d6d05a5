"""What is kept of an upload: its counts, the names of its cells and genes, columns of numbers and texts, small embeddings; nothing else.

Genes keep the names they came with, and the columns that help to read them, so that what is found can be joined to the file the user has.
What is left out is named. Reading the clean file gives the cells that reading the uploaded one gives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from scmulan.cells import ID_COLUMNS, SYMBOL_COLUMNS, AnnData, Draft, is_gene_column
from scmulan.errors import some
from scmulan.fields import values_of

KEY = re.compile(r"(?!_index$)[^/\0]{1,200}")
WIDEST = 50  # columns of an embedding that is kept
MOST_TEXT, MOST_ITEMS = 500, 100  # of a text and of a list in what is told
SHOWN_VALUES = 5


def clean_cells(draft: Draft) -> tuple[AnnData, list[str]]:
    """AnnData of what is kept of a reading without problems, and what was left out, in words."""
    adata, place, values = draft.adata, draft.place, draft.values
    if adata is None or place is None or values is None:
        raise AssertionError("a reading without problems has cells and counts")
    obs, odd_columns = _clean_obs(adata.obs)
    if draft.labels.columns.get("organism", "").startswith("uns"):
        obs["organism"] = _as_text(pd.Series(draft.labels.originals["organism"], index=obs.index))
    var = place.var[is_gene_column(place.var)]
    names = [name for name in (*ID_COLUMNS, *SYMBOL_COLUMNS) if name in var]
    kept = pd.DataFrame({name: _as_text(values_of(var, name)) for name in names}, index=_names(var.index))
    obsm = {str(key): array for key, array in adata.obsm.items() if KEY.fullmatch(str(key)) and _is_embedding(array)}
    clean = AnnData(X=values.counts, obs=obs, var=kept, obsm={key: np.asarray(array) for key, array in obsm.items()})
    left: dict[str, list[str]] = {
        "obs": odd_columns, "obsm": [key for key in adata.obsm if key not in obsm], "obsp": list(adata.obsp),
        "layers": [key for key in adata.layers if place.where != f"layers[{key!r}]"], "uns": list(adata.uns),
        "varm": list(adata.varm), "varp": list(adata.varp),
    }  # fmt: skip
    return clean, [f"{where}: {some(keys)}" for where, keys in left.items() if keys]


def _clean_obs(obs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Columns of numbers and texts, and the names of the others."""
    kept: dict[str, pd.Series] = {}
    left = []
    for number, name in enumerate(map(str, obs.columns)):
        column = _plain_column(obs.iloc[:, number]) if KEY.fullmatch(name) and name not in kept else None
        if column is None:
            left.append(name)
        else:
            kept[name] = column.set_axis(_names(obs.index))
    return pd.DataFrame(kept, index=_names(obs.index)), left


def _plain_column(column: pd.Series) -> pd.Series | None:
    """Numbers as they are, anything else as texts; None where it is neither."""
    dtype: Any = column.cat.categories.dtype if isinstance(column.dtype, pd.CategoricalDtype) else column.dtype
    if dtype.kind in "biuf":
        return column
    return _as_text(column) if dtype.kind in "OTSU" else None


def _as_text(column: pd.Series) -> pd.Series:
    """Texts as categories; a text of HDF5 can't hold NUL."""
    values = column.astype(object)
    return values.where(values.isna(), values.map(lambda value: str(value).replace("\0", ""))).astype("category")


def _names(index: pd.Index) -> pd.Index:
    return pd.Index([str(name).replace("\0", "") for name in index], dtype=object)


def _is_embedding(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.ndim == 2 and array.shape[1] <= WIDEST and array.dtype.kind in "biuf"


def shown_columns(obs: pd.DataFrame) -> dict[str, list[Any]]:
    """The first distinct values of each of the first hundred columns."""
    return {name: obs[name].dropna().drop_duplicates()[:SHOWN_VALUES].tolist() for name in obs.columns[:MOST_ITEMS]}


def told(found: Any) -> Any:
    """Plain data, ready for JSON and of bounded size: long texts and lists are cut and say so; numbers not known are None."""
    if isinstance(found, Mapping):
        cut = {str(told(key)): told(value) for key, value in list(found.items())[:MOST_ITEMS]}
        return {**cut, "…": f"{len(found):,} in all"} if len(found) > MOST_ITEMS else cut
    if isinstance(found, list | tuple):
        return [told(value) for value in found[:MOST_ITEMS]] + ([f"… {len(found):,} in all"] if len(found) > MOST_ITEMS else [])
    found = found.item() if isinstance(found, np.generic) else found
    if isinstance(found, float):
        return found if math.isfinite(found) else None
    if found is None or isinstance(found, int):
        return found
    text = str(found).encode("utf-8", "replace").decode()
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}…"
