"""The border between AnnData and everything else: cells in as counts over the gene table and labels, results out as AnnData.

No other module touches AnnData. Reading a data set finds its counts (`scmulan.counts`), genes (`scmulan.genes`) and labels
(`scmulan.fields`), and writes down what it found and did in a `CellReport`; what can't be used is an error that names the fix.
Limit: the whole matrix is held in memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData as AnnData  # exported: other modules name the type by this one

from scmulan import metadata
from scmulan.cells_damage import look_over
from scmulan.counts import LARGEST, Values
from scmulan.counts_forms import holds_whole_numbers, is_unit_variance, read_values
from scmulan.doctor import CellReport, report_fields, report_values
from scmulan.doctor_cells import report_cells
from scmulan.doctor_genes import fix_of, report_genes, report_organism, report_two_species, speaks_for_two
from scmulan.doctor_schema import report_schema
from scmulan.errors import CellDataError, ScmulanWarning, nearest, some
from scmulan.fields import FieldSet, read_fields, unique_names, values_of
from scmulan.genes import HUMAN, GeneMatch, GeneTable, species_of

COUNT_LAYERS = ("counts", "raw_counts", "raw", "count", "umi", "umis", "UMI", "raw_count")
SYMBOL_COLUMNS = ("feature_name", "gene_symbol", "gene_symbols", "symbol", "gene_name", "gene_names", "gene_short_name", "features")
ID_COLUMNS = ("gene_id", "gene_ids", "ensembl_id", "ensembl", "feature_id", "ensembl_ids")
TYPE_COLUMNS = ("feature_types", "feature_type")
HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Cells of a data set, over the genes of the gene table.

    Attributes
    ----------
    counts
        (n_cells, n_genes) int32 CSR of counts; columns are `GeneTable` rows; sorted indices, no explicit zeros.
    measured
        (n_measured,) int32, sorted: the `GeneTable` rows that the data set measured (its panel).
    fields
        Canonical field to the preferred label of each cell, None where unknown. Only fields of which some cell has a value.
    originals
        The same as the data set spelled it; None where the label was implied by others.
    cell_ids
        Unique name of each cell.
    donors, dataset
        Donor of each cell or None, and the data set it comes from.
    genes
        Where the data set's gene names lie in the table.
    report
        What was found and what was done.
    """

    counts: sp.csr_matrix
    measured: np.ndarray
    fields: dict[str, list[str | None]]
    originals: dict[str, list[str | None]]
    cell_ids: list[str]
    donors: list[str | None]
    dataset: list[str]
    genes: GeneMatch
    report: CellReport

    def __len__(self) -> int:
        return int(self.counts.shape[0])

    def take(self, rows: Sequence[int] | np.ndarray) -> Cells:
        """The cells at some positions, in that order; genes and report stay those of the whole."""
        chosen = [int(row) for row in rows]

        def of(values: Sequence[Any]) -> list[Any]:
            return [values[row] for row in chosen]

        return Cells(
            counts=self.counts[chosen], measured=self.measured, fields={name: of(values) for name, values in self.fields.items()},
            originals={name: of(values) for name, values in self.originals.items()}, cell_ids=of(self.cell_ids), donors=of(self.donors),
            dataset=of(self.dataset), genes=self.genes, report=self.report,
        )  # fmt: skip


@dataclass(kw_only=True)
class Draft:
    """What has been read of a data set so far."""

    report: CellReport
    adata: AnnData | None = None
    labels: FieldSet = field(default_factory=FieldSet)
    place: _Place | None = None
    values: Values | None = None
    match: GeneMatch | None = None
    counts: sp.csr_matrix | None = None
    measured: np.ndarray | None = None
    cell_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """One place where counts may lie, with its features."""

    where: str
    matrix: Any
    var: pd.DataFrame


def read_cells(
    source: str | Path | AnnData, *, fields: Mapping[str, str] | None = None, organism: str | None = None, layer: str | None = None
) -> Cells:
    """Cells of a data set.

    Parameters
    ----------
    source
        Path of an ``.h5ad`` file, or an AnnData object, which is left as it is.
    fields
        Column of ``obs`` for a field, where the usual names (`metadata.obs_columns`) don't find it: ``{"organ": "tissue"}``.
    organism
        Species, where ``obs`` and ``uns`` don't say it or say it wrong.
    layer
        Where the counts are: a layer's name, ``"raw"`` or ``"X"``. Looked for where not given.

    Raises
    ------
    CellDataError
        The file can't be read, or no counts or no known gene are in it; the message names the fix.

    Examples
    --------
    >>> adata = AnnData(np.array([[3, 0], [1, 2]]), var=pd.DataFrame(index=["GATA1", "Cd19"]))
    >>> cells = read_cells(adata)
    >>> cells.counts.shape[0], GeneTable.load().symbols[cells.measured].tolist(), cells.report["organism"].found
    (2, ['CD19', 'GATA1'], 'Homo sapiens, told from the gene names')
    """
    draft = read_draft(source, fields or {}, organism, layer)
    draft.report.raise_problem()
    counts, measured, match = draft.counts, draft.measured, draft.match
    if counts is None or measured is None or match is None or draft.values is None:
        raise AssertionError("a reading without problems has counts and genes")
    if draft.values.kind in ("pseudo-counts", "rounded"):
        warnings.warn(f"{draft.report.source}: {draft.report['values'].found}", ScmulanWarning, stacklevel=2)
    fallback = "unnamed" if isinstance(source, AnnData) else Path(source).stem
    return Cells(
        counts=counts, measured=measured, fields=draft.labels.fields, originals=draft.labels.originals, cell_ids=draft.cell_ids,
        donors=draft.labels.donors, dataset=[name or fallback for name in draft.labels.datasets], genes=match, report=draft.report,
    )  # fmt: skip


def check(
    source: str | Path | AnnData, *, fields: Mapping[str, str] | None = None, organism: str | None = None, layer: str | None = None
) -> CellReport:
    """What `read_cells` would find and do, with the same parameters; faults of the data are findings, not errors."""
    return read_draft(source, fields or {}, organism, layer).report


def read_h5ad(path: str | Path) -> AnnData:
    """An ``.h5ad`` file in memory; CellDataError when there is none, it is no ``.h5ad``, or it is cut short."""
    path = Path(path)
    if not path.is_file():
        beside = [other.name for other in path.parent.glob("*.h5ad")] if path.parent.is_dir() else []
        raise CellDataError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}{nearest(path.name, beside)}")
    try:
        with path.open("rb") as file:
            if file.read(len(HDF5)) != HDF5:
                raise CellDataError(f"{path}: not an HDF5 file, so not an .h5ad; write one with adata.write_h5ad")
        look_over(path)
        adata: AnnData = anndata.read_h5ad(path)
    except CellDataError:
        raise
    except Exception as error:
        # h5py and anndata raise many kinds of error here; each means that the file can't be read.
        raise CellDataError(f"{path}: not an .h5ad, or cut short or damaged; copy it again ({type(error).__name__}: {error})") from error
    return adata


def read_obs(path: str | Path) -> pd.DataFrame:
    """``obs`` of an ``.h5ad`` file that was read before, without its matrix."""
    with h5py.File(path) as file:
        return pd.DataFrame(anndata.io.read_elem(file["obs"]))


def read_draft(source: str | Path | AnnData, fields: Mapping[str, str], organism: str | None, layer: str | None) -> Draft:
    """A data set read step by step; a step that finds a fault reports it, and those that don't need its result go on."""
    name = "AnnData" if isinstance(source, AnnData) else str(source)
    draft = Draft(report=CellReport(source=name))
    steps: list[tuple[str, Callable[[], None]]] = [
        ("file", lambda: _open(draft, source)),
        ("fields", lambda: _find_fields(draft, fields, organism)),
        ("values", lambda: _find_values(draft, layer)),
        ("genes", lambda: _find_genes(draft, organism)),
        ("cells", lambda: _survey(draft)),
    ]
    for question, step in steps:
        try:
            step()
        except CellDataError as error:
            draft.report.add(question, "problem", str(error).removeprefix(f"{name}: "))
            if draft.adata is None:
                break
    return draft


def _open(draft: Draft, source: str | Path | AnnData) -> None:
    adata = source if isinstance(source, AnnData) else read_h5ad(source)
    if 0 in adata.shape:
        raise CellDataError(f"{adata.n_obs:,} cells x {adata.n_vars:,} genes: an empty matrix")
    draft.adata = adata
    draft.cell_ids = unique_names([str(name) for name in adata.obs_names])


def _find_fields(draft: Draft, chosen: Mapping[str, str], organism: str | None) -> None:
    assert draft.adata is not None
    draft.labels = read_fields(draft.adata.obs, chosen, draft.adata.uns)
    if organism is not None:
        n_cells = draft.adata.n_obs
        draft.labels.fields["organism"] = [metadata.canonical("organism", organism).value] * n_cells
        draft.labels.originals.setdefault("organism", [organism] * n_cells)
        draft.labels.columns["organism"] = "as given"


def _find_values(draft: Draft, layer: str | None) -> None:
    """Take the first place that holds counts, else the one from which most cells' counts can be recovered, else pseudo-counts."""
    assert draft.adata is not None
    faults: dict[str, str] = {}
    for place in _places(draft.adata, layer):
        draft.place = draft.place or place
        is_gene = is_gene_column(place.var)
        try:
            values = read_values(
                place.matrix, None if is_gene.all() else np.flatnonzero(is_gene), (draft.cell_ids, list(place.var.index[is_gene]))
            )
        except CellDataError as error:
            faults[place.where] = str(error)
            continue
        if draft.values is None or values.kind == "counts" or values.recovered > draft.values.recovered:
            draft.place, draft.values = place, values
        if values.kind == "counts":
            break
    elsewhere = [] if draft.values is not None and draft.values.kind == "counts" else _whole_numbers(draft.adata)
    if draft.values is None or draft.place is None:
        found = (
            "; ".join(f"{where}: {fault}" for where, fault in faults.items())
            or "no matrix; counts are needed, in layers['counts'], raw or X"
        )
        raise CellDataError(found + (f"; whole numbers lie in {', '.join(elsewhere)}" if elsewhere else ""))
    is_scaled = draft.values.kind == "pseudo-counts" and is_unit_variance(draft.place.matrix)
    form = "each gene was divided by its standard deviation" if is_scaled else ""
    report_values(draft.report, draft.place.where, draft.values, form=form, passed_by=faults, elsewhere=elsewhere)


def _whole_numbers(adata: AnnData) -> list[str]:
    """Layers of other names that may hold counts."""
    return [f"layers[{name!r}]" for name, matrix in adata.layers.items() if name not in COUNT_LAYERS and holds_whole_numbers(matrix)]


def _places(adata: AnnData, layer: str | None) -> list[_Place]:
    """Where counts may lie, best first; only the place asked for when one is."""
    names = [name for name in COUNT_LAYERS if name in adata.layers] if layer is None else [layer] if layer in adata.layers else []
    places = [_Place(where=f"layers[{name!r}]", matrix=adata.layers[name], var=adata.var) for name in names]
    if adata.raw is not None and layer in (None, "raw"):
        places.append(_Place(where="raw", matrix=adata.raw.X, var=adata.raw.var))
    if adata.X is not None and layer in (None, "X"):
        places.append(_Place(where="X", matrix=adata.X, var=adata.var))
    if layer is not None and not places:
        known = [*adata.layers, *(["raw"] if adata.raw is not None else []), "X"]
        raise CellDataError(f"no layer {layer!r}; found {', '.join(known)}{nearest(layer, known)}")
    return places


def is_gene_column(var: pd.DataFrame) -> np.ndarray:
    """(n_vars,) bool: False for antibodies, guides and the like, where ``var`` tells features apart."""
    everything = np.ones(len(var), dtype=bool)
    column = next((name for name in TYPE_COLUMNS if name in var), None)
    if column is None:
        return everything
    kinds = values_of(var, column).map(str).str.lower()
    is_gene: np.ndarray = kinds.isin(["gene expression", "gene", "nan"]).to_numpy()
    return is_gene if kinds.isin(["gene expression", "gene"]).any() else everything


def _find_genes(draft: Draft, organism: str | None) -> None:
    """Match gene names, sum names of one gene, and bring the counts to the gene table's columns."""
    assert draft.adata is not None
    table, var = GeneTable.load(), draft.place.var if draft.place is not None else draft.adata.var
    is_gene = is_gene_column(var)
    left_out, var = [str(name) for name in var.index[~is_gene]], var[is_gene]
    said = next((value for value in draft.labels.fields.get("organism", ()) if value), None)
    ids, symbols = ([list(map(str, values_of(var, name))) for name in names if name in var] for names in (ID_COLUMNS, SYMBOL_COLUMNS))
    names = list(map(str, var.index))
    match = table.match(names, ids, symbols, said)
    species = table.species(names)
    if speaks_for_two(names, species):
        report_two_species(draft.report, species, draft.values.counts if draft.values is not None else None, organism)
        match = match.only(species >= 0 if species_of(organism) == HUMAN else species <= 0, names) if species_of(organism) else match
    known = np.flatnonzero(match.index >= 0)
    if not len(known):
        raise CellDataError(
            f"no known gene among {some(names)}: found {match.naming} names, needed symbols or Ensembl ids of human or mouse; "
            + fix_of(match)
        )
    draft.match, draft.measured = match, np.unique(match.index[known]).astype(np.int32)
    per_name = None
    if draft.values is not None:
        counts = draft.values.counts
        to_table = sp.csr_matrix((np.ones(len(known), dtype=np.int32), (known, match.index[known])), shape=(len(match.index), len(table)))
        summed = counts.astype(np.int64) @ to_table
        if summed.data.max(initial=0) > LARGEST:
            raise CellDataError(f"a count of {summed.data.max():,} in the names of one gene: more than {LARGEST:,}")
        draft.counts = sp.csr_matrix(summed, dtype=np.int32)
        draft.counts.sort_indices()
        per_name = np.asarray(counts.sum(axis=0, dtype=np.int64)).ravel()
    report_genes(draft.report, match, names, per_name, left_out, species_of(said) or match.organism)
    _settle_organism(draft, match, said, organism is not None)


def _settle_organism(draft: Draft, match: GeneMatch, said: str | None, is_sure: bool) -> None:
    """Fill in the species that the names speak for where none is said."""
    values = draft.labels.fields.get("organism", [None] * len(draft.cell_ids))
    report_organism(draft.report, match, said, sum(value not in (None, said) for value in values), is_sure)
    if said is None:
        draft.labels.fields = {"organism": [match.organism] * len(values), **draft.labels.fields}
        draft.labels.originals = {"organism": [None] * len(values), **draft.labels.originals}
        draft.labels.columns["organism"] = "told from the gene names"


def _survey(draft: Draft) -> None:
    assert draft.adata is not None
    adata, raw = draft.adata, draft.adata.raw
    if draft.counts is not None and draft.measured is not None:
        repeated = adata.n_obs - adata.obs_names.nunique()
        none = [None] * adata.n_obs  # for where fields could not be read
        kinds = draft.labels.fields.get("cell_type", none)
        groups = [str(group) for group in zip(draft.labels.datasets or none, draft.labels.donors or none, kinds, strict=True)]
        report_cells(draft.report, draft.counts, draft.cell_ids, repeated, draft.measured, groups)
    report_fields(draft.report, draft.labels)
    report_schema(draft.report, adata.obs, adata.var, adata.uns, raw.var if raw is not None else None, list(adata.obsm))
