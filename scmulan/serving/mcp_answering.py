"""Tools that answer about the cells of a file: check, annotate, locate, describe, embed, and search and transfer with an index.

Each returns its result and the sentences beside it; the docstrings are what assistants are told.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from scmulan.cells import AnnData
from scmulan.labels import choose
from scmulan.levels import LEVELS
from scmulan.serving.mcp_arguments import CellsFile, CellsOrTable, Choice, Columns, Index, Label, Organism, Overwrite, Table
from scmulan.serving.mcp_results import (
    MOST_ROWS,
    Checked,
    Described,
    Embedded,
    Found,
    Labelled,
    Labels,
    labels_of,
    number,
    plain,
    said_of_labels,
)
from scmulan.serving.mcp_work import Task
from scmulan.tasks_saying import sentence

MOST_LABELS = 8
"""Labels of a finding of `check` that are listed."""
NAMED = ("cell_type", "lineage", "organ", "dataset", "donor")
"""What is said of the neighbours of cells."""


def check(task: Task, file: CellsFile, columns: Columns = None, organism: Organism = None) -> tuple[Checked, str]:
    """Say what is in a file of cells, what would be done with it, and how to mend what is wrong; nothing is changed.

    Call it first for a file that you have not used yet: it tells counts, genes, species and labels as the other tools will read them.
    """
    report = task.files.check(file, fields=columns, organism=organism)
    said = report.to_dict()
    findings = [{key: _short(value) for key, value in finding.items()} for finding in said["findings"]]
    return Checked(verdict=said["verdict"], findings=plain(findings)), report.to_text()


def _short(value: Any) -> Any:
    """A list or mapping of a finding cut to its first entries, with how many there are more."""
    if isinstance(value, dict) and len(value) > MOST_LABELS:
        return {**dict(list(value.items())[:MOST_LABELS]), "...": f"{len(value) - MOST_LABELS:,} more"}
    if isinstance(value, list | tuple) and len(value) > MOST_LABELS:
        return [*value[:MOST_LABELS], f"... {len(value) - MOST_LABELS:,} more"]
    return value


def annotate(
    task: Task,
    file: CellsFile,
    labels: Annotated[Choice, Field(description="Labels to choose from; those that the model saw for the organ when not given.")] = None,
    threshold: Annotated[float, Field(ge=0, le=1, description="Below this probability a cell stays 'unassigned'.")] = 0.0,
    level: Annotated[
        Label | list[Label], Field(description="cell_type; lineage; or coarser types to sum probabilities up to, as ['T cell', 'B cell'].")
    ] = "cell_type",
    by: Annotated[
        Literal["answer", "both"], Field(description="both weighs in the likelihood of the cell under each label: better, and slower.")
    ] = "answer",
    cluster: Annotated[Label | None, Field(description="Column of obs; each of its clusters also gets its majority label.")] = None,
    columns: Columns = None,
    organism: Organism = None,
    output: CellsOrTable = None,
    overwrite: Overwrite = False,
) -> tuple[Labelled, str]:
    """Tell the cell type of each cell of a file, with exact probabilities over a closed set of labels.

    Returns how many cells got each label. The whole is written with `output`: obs has scmulan_cell_type, its probability, ontology id
    and lineage; a .csv has the probability of every label of every cell.
    """
    path = task.files.writable(output, overwrite)
    adata = task.cells(file, fields=columns, organism=organism)
    at = level.lower() if isinstance(level, str) and level.lower() in LEVELS else level
    table = task.model.annotate(
        adata, labels=labels, threshold=threshold, cluster=cluster, by=by, level=at, fields=columns, on_cell=task.tick
    )
    seen = set(task.model.seen.values("cell_type"))
    result = labelled(adata, table, "scmulan_cell_type")
    result.never_seen = [label for label in choose(labels, "labels") if label not in seen][:MOST_ROWS] if labels else []
    if cluster is not None:
        of_cluster = adata.obs.groupby(adata.obs[cluster].astype(str))["scmulan_cell_type_cluster"].first()
        result.by_cluster = {str(name): str(label) for name, label in of_cluster.iloc[:MOST_ROWS].items()}
    if path:
        result.output = task.files.write(path, overwrite, cells=adata, table=table)
    return result, said_of_labels("annotate", result.labels, result.cells, result.mean_probability)


def labelled(adata: AnnData, table: pd.DataFrame, key: str) -> Labelled:
    """The labels in a column of obs, with the mean probability of each cell's likeliest."""
    labels = labels_of(adata.obs[key], adata.obs[f"{key}_probability"])
    return Labelled(cells=len(table), mean_probability=number(table.to_numpy().max(1).mean()) or 0.0, labels=labels)


def locate(
    task: Task, file: CellsFile, organism: Organism = None, output: CellsOrTable = None, overwrite: Overwrite = False
) -> tuple[Labelled, str]:
    """Tell the organ of each cell of a file from the cell alone, whatever the file says of it.

    Returns how many cells are placed in each organ; with `output` each cell's organ, region and probabilities are written.
    """
    path = task.files.writable(output, overwrite)
    adata = task.cells(file, organism=organism)
    table = task.model.locate(adata, on_cell=task.tick)
    result = labelled(adata, table, "scmulan_organ")
    if path:
        result.output = task.files.write(path, overwrite, cells=adata, table=table)
    return result, said_of_labels("locate", result.labels, result.cells, result.mean_probability)


def describe(
    task: Task, file: CellsFile, organism: Organism = None, output: CellsOrTable = None, overwrite: Overwrite = False
) -> tuple[Described, str]:
    """Tell every field of each cell of a file from the cell alone: organism, assay, organ, disease, time, lineage, cell type ...

    Returns the labels of each field with how many cells got them; with `output` each cell's labels and probabilities are written.
    """
    path = task.files.writable(output, overwrite)
    adata = task.cells(file, organism=organism)
    tables = task.model.describe(adata, on_cell=task.tick)
    fields, lines = {}, []
    for name, table in tables.items():
        labels = labels_of(adata.obs[f"scmulan_{name}"], adata.obs[f"scmulan_{name}_probability"])
        p = float(table.to_numpy().max(1).mean())
        first = labels.rows[0]
        fields[name] = Labels(rows=labels.rows[:MOST_LABELS], left_out=labels.left_out + max(0, len(labels.rows) - MOST_LABELS))
        lines.append(sentence("describe", {"field": name, "label": first.label, "count": first.cells, "n": len(table), "p": p}))
    result = Described(cells=adata.n_obs, fields=fields)
    if path:
        of_fields = [column for name in tables for column in (f"scmulan_{name}", f"scmulan_{name}_probability")]
        result.output = task.files.write(path, overwrite, cells=adata, table=adata.obs[of_fields])
    return result, " ".join(lines)


def embed(
    task: Task, file: CellsFile, organism: Organism = None, output: CellsOrTable = None, overwrite: Overwrite = False
) -> tuple[Embedded, str]:
    """Embed each cell of a file, told no label, for neighbours, clusters and maps; the embedding itself is written with `output` only.

    An .h5ad gets it as obsm['X_scmulan'], a .csv has a row a cell.
    """
    path = task.files.writable(output, overwrite)
    adata = task.cells(file, organism=organism)
    points = task.model.embed(adata, on_cell=task.tick)
    result = Embedded(cells=len(points), dimensions=points.shape[1], key="X_scmulan")
    if path:
        result.output = task.files.write(path, overwrite, cells=adata, table=pd.DataFrame(points, index=adata.obs_names))
    return result, sentence("embed", {"n": len(points), "width": points.shape[1], "key": "X_scmulan"})


def search(
    task: Task,
    file: CellsFile,
    index: Index,
    k: Annotated[int, Field(ge=1, le=200, description="Neighbours of each cell.")] = 10,
    organism: Organism = None,
    output: Table = None,
    overwrite: Overwrite = False,
) -> tuple[Found, str]:
    """Find the nearest reference cells of each cell of a file, in an index that this model made.

    Returns how often the neighbours have each label; a .csv has a row for each pair of cells.
    """
    path, folder = task.files.writable(output, overwrite, (".csv",)), task.index(index)
    assert folder is not None
    adata = task.cells(file, organism=organism)
    table = task.model.search(adata, folder, k=k, on_cell=task.tick)
    fields = {name: labels_of(table[name]) for name in NAMED if name in table and table[name].notna().any()}
    result = Found(cells=adata.n_obs, neighbours=len(table), mean_distance=number(table["distance"].mean()), fields=fields)
    if path:
        result.output = task.files.write(path, overwrite, table=table.set_index("cell"))
    named = next(iter(fields.values()), Labels(rows=[]))
    entries = [{"label": row.label, "count": row.cells, "share": row.cells / max(len(table), 1)} for row in named.rows[:5]]
    listed = ", ".join(sentence("search_entry", entry) for entry in entries)
    return result, sentence("search", {"n": adata.n_obs, "listed": listed})


def transfer(
    task: Task,
    file: CellsFile,
    index: Index,
    field: Annotated[Label, Field(description="Field whose labels are carried over: cell_type, lineage, organ ...")] = "cell_type",
    k: Annotated[int, Field(ge=1, le=200, description="Neighbours that vote.")] = 15,
    threshold: Annotated[float, Field(ge=0, le=1, description="Below this share of the votes a cell stays 'unassigned'.")] = 0.0,
    organism: Organism = None,
    output: CellsOrTable = None,
    overwrite: Overwrite = False,
) -> tuple[Labelled, str]:
    """Carry labels over to the cells of a file by votes of their nearest reference cells, in an index that this model made."""
    path, folder = task.files.writable(output, overwrite), task.index(index)
    assert folder is not None
    adata = task.cells(file, organism=organism)
    table = task.model.transfer(adata, folder, field=field, k=k, threshold=threshold, on_cell=task.tick)
    key = f"scmulan_transferred_{field}"
    labels = labels_of(adata.obs[key], adata.obs[f"{key}_probability"])
    shares = np.asarray(adata.obs[f"{key}_probability"], dtype=float)
    result = Labelled(cells=adata.n_obs, mean_probability=number(shares.mean()) or 0.0, labels=labels)
    if path:
        result.output = task.files.write(path, overwrite, cells=adata, table=table)
    return result, said_of_labels("annotate", labels, result.cells, result.mean_probability)
