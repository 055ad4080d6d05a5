"""Results out as AnnData: new data sets of counts, answers written into one that is there, and files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData, concat, read_h5ad

from scmulan.counts import log1p_cp10k
from scmulan.errors import CellDataError, ScmulanError
from scmulan.fields import unique_names
from scmulan.genes import GeneTable


def new_adata(
    counts: sp.csr_matrix,
    gene_index: np.ndarray,
    table: GeneTable,
    *,
    obs: pd.DataFrame,
    organism: str,
    naming: str = "symbol",
    names: Sequence[str] | None = None,
    uns: Mapping[str, Any] | None = None,
) -> AnnData:
    """AnnData of counts: ``X`` log1p CP10k float32, ``layers["counts"]`` int32, ``var`` with ``gene_symbol`` and ``gene_id``.

    Parameters
    ----------
    counts
        (n_cells, n) counts of the genes in ``gene_index``.
    gene_index
        (n,) rows of the gene table.
    obs
        A row a cell.
    organism, naming
        Spelling of ``var_names``; ``names`` gives them outright.
    """
    if counts.shape != (len(obs), len(gene_index)):
        raise CellDataError(f"counts of shape {counts.shape}: needed ({len(obs)}, {len(gene_index)}), cells of obs by gene_index")
    var = var_of_genes(gene_index, table, organism, naming, names)
    named = obs.set_axis(pd.Index([str(name) for name in obs.index], dtype=object))
    whole = sp.csr_matrix(counts, dtype=np.int32)
    return AnnData(X=log1p_cp10k(whole), obs=named, var=var, layers={"counts": whole}, uns=dict(uns or {}))


def var_of_genes(
    gene_index: np.ndarray, table: GeneTable, organism: str, naming: str = "symbol", names: Sequence[str] | None = None
) -> pd.DataFrame:
    """``var`` of some genes of the table, parameters as of `new_adata`."""
    spelled = [str(name) for name in names] if names is not None else table.spell(gene_index, organism, naming)
    symbols, ids = table.spell(gene_index, organism), table.spell(gene_index, organism, "ensembl")
    ids = [name if name.startswith("ENS") else "" for name in ids]
    return pd.DataFrame({"gene_symbol": symbols, "gene_id": ids}, index=pd.Index(unique_names(spelled), dtype=object))


def annotate_adata(
    adata: AnnData, obs: Mapping[str, Any], obsm: Mapping[str, np.ndarray] | None = None, uns: Mapping[str, Any] | None = None
) -> None:
    """Write results into an AnnData in place.

    Parameters
    ----------
    obs
        Values of n_cells; a key gets the prefix ``scmulan_`` where it lacks it, texts become categories.
    obsm
        (n_cells, d) arrays; a key gets the prefix ``X_`` where it lacks it.
    uns
        Joined to what ``uns["scmulan"]`` holds.
    """
    for key, values in {**obs, **(obsm or {})}.items():
        if len(values) != adata.n_obs:
            raise CellDataError(f"result {key!r}: {len(values):,} values for {adata.n_obs:,} cells")
    for key, values in obs.items():
        adata.obs[key if key.startswith("scmulan_") else f"scmulan_{key}"] = as_column(values, adata.obs_names)
    for key, array in (obsm or {}).items():
        adata.obsm[key if key.startswith("X_") else f"X_{key}"] = np.asarray(array)
    if uns:
        adata.uns["scmulan"] = {**adata.uns.get("scmulan", {}), **uns}


def as_column(values: Any, index: pd.Index) -> pd.Series:
    """A value a cell as a column of ``obs``; texts become categories."""
    column = pd.Series(list(values), index=index)
    is_text = column.map(lambda value: value is None or isinstance(value, str)).all()
    return column.astype("category") if is_text else column


def write_h5ad(adata: AnnData, path: str | Path) -> None:
    """Write an ``.h5ad`` whole or not at all."""
    with appearing(Path(path)) as temporary:
        adata.write_h5ad(temporary, compression="gzip")


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A temporary file beside a path, renamed to it once it is written; CellDataError where that fails, and nothing is left."""
    if not path.parent.is_dir():
        raise CellDataError(f"{path}: no folder {path.parent}; make it first")
    if path.is_dir():
        raise CellDataError(f"{path}: a folder; name a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except ScmulanError:
        raise
    except (OSError, TypeError, ValueError, KeyError, NotImplementedError) as error:
        raise CellDataError(f"{path}: can't be written ({type(error).__name__}: {error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_back(path: Path) -> AnnData:
    """A file that scmulan wrote itself, as it stands."""
    return read_h5ad(path)


def join_cells(parts: Sequence[AnnData]) -> AnnData:
    """Cells of several pieces; a label that some pieces never had has probability 0 there."""
    if len(parts) == 1:
        return parts[0]
    tables = [name for name in parts[0].obsm if isinstance(parts[0].obsm[name], pd.DataFrame)]
    whole = {name: pd.concat([part.obsm[name] for part in parts]).fillna(0.0) for name in tables}
    for part in parts:
        for name in tables:
            del part.obsm[name]
    joined = concat(parts, merge="first")
    joined.uns["scmulan"] = parts[0].uns.get("scmulan", {})
    for name, table in whole.items():
        joined.obsm[name] = table
    return joined
