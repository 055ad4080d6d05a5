"""Columns of cells as a page draws them: categories as codes, numbers, expression of a gene; arrays as base64, which JSON bears."""

from __future__ import annotations

import base64
from typing import Literal, NotRequired

import numpy as np
import numpy.typing as npt
import pandas as pd
from typing_extensions import TypedDict

from scmulan.cells import Cells
from scmulan.counts import log1p_cp10k
from scmulan.errors import CellDataError, nearest, some
from scmulan.genes import GeneTable

MOST_CATEGORIES = 1000


class Array(TypedDict):
    """Numbers, little endian, flat."""

    dtype: Literal["float32", "int32"]
    data: str


class Values(TypedDict):
    """One value a cell: ``codes`` into ``categories``, -1 for none; or ``values``, NaN for none; ``rows``: of which cells, if not all."""

    name: str
    kind: Literal["category", "number"]
    categories: NotRequired[list[str]]
    codes: NotRequired[Array]
    values: NotRequired[Array]
    rows: NotRequired[Array]
    pieces: NotRequired[int]


def array(values: npt.ArrayLike, dtype: Literal["float32", "int32"]) -> Array:
    """An array as plain data.

    >>> array([1, 2], "int32")
    {'dtype': 'int32', 'data': 'AQAAAAIAAAA='}
    """
    flat = np.ascontiguousarray(values, dtype=f"<{'f' if dtype == 'float32' else 'i'}4").ravel()
    return {"dtype": dtype, "data": base64.b64encode(flat.tobytes()).decode()}


def column(obs: pd.DataFrame, name: str) -> Values:
    """A column of cells; CellDataError where there is none of that name, or a column of text has more than a thousand values."""
    if name not in obs:
        raise CellDataError(f"no column {name!r}{nearest(name, list(obs.columns))}; columns: {some(list(obs.columns))}")
    found = obs[name]
    if pd.api.types.is_numeric_dtype(found) and not pd.api.types.is_bool_dtype(found):
        return {"name": name, "kind": "number", "values": array(found.to_numpy(dtype=np.float64, na_value=np.nan), "float32")}
    codes, categories = pd.factorize(found.astype(object).where(found.notna(), None).map(lambda value: value and str(value)), sort=True)
    if len(categories) > MOST_CATEGORIES:
        raise CellDataError(f"column {name!r} has {len(categories):,} values; needed at most {MOST_CATEGORIES:,} to show it")
    return {"name": name, "kind": "category", "categories": [str(each) for each in categories], "codes": array(codes, "int32")}


def expression(cells: Cells, gene: str, table: GeneTable) -> Values:
    """log1p CP10k of a gene by any of its names; CellDataError where it is unknown or was not measured."""
    row = int(table.resolve([gene]).index[0])
    if row < 0:
        raise CellDataError(f"gene {gene!r} is not known; nearest: {some(table.nearest(gene)) or 'none'}")
    symbol = str(table.symbols[row])
    if row not in cells.measured:
        raise CellDataError(f"gene {symbol} was not measured in these cells")
    measured = cells.counts[:, cells.measured]
    place = int(np.searchsorted(cells.measured, row))
    return {"name": symbol, "kind": "number", "values": array(log1p_cp10k(measured)[:, [place]].todense(), "float32")}
