"""Builds the default tokenizer, ``tokenizer/default/``, from the repository alone: ``scmulan tokenizer build --default``.

Its genes: every human protein-coding, non-coding and immune-receptor gene with an Ensembl id that more than the newest annotation
knows; mouse genes by their orthologue's row; mouse-only protein-coding and immune-receptor genes; and whatever else a shipped data set
detects, which is mostly pseudogenes and mouse non-coding RNA. Ids rise with detection in the shipped data sets. The text part is trained
on the names of the ontologies, those of the table of labels and the phrasings of the prompts weighing more.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from scmulan import assets
from scmulan.genes import LOCUS_GROUPS, GeneTable
from scmulan.metadata import FIELDS, known_labels
from scmulan.ontology import NAMES, Ontology
from scmulan.prompts import GENES, load_prompts
from scmulan.requests import argument_tokens, request_tasks
from scmulan.tokenizer import build_tokenizer

TEXT_SIZE = 6144
RNA_GROUPS = ("protein-coding gene", "immune receptor gene", "non-coding RNA")
MOUSE_GROUPS = ("protein-coding gene", "immune receptor gene")
WEIGHTS = {"CL": 4, "EFO": 4, "HsapDv": 4, "MmusDv": 4, "UBERON": 1, "MONDO": 1}
OF_TABLE = 20
"""How often a name stands in the text part's training: of an ontology, and of the table of labels or the prompts."""


def build_default(folder: str | Path) -> PreTrainedTokenizerFast:
    """Write the default tokenizer's folder; the same bytes from the same files."""
    table, prompts = GeneTable.load(), load_prompts()
    detection = detection_in_shipped_cells(table)
    return build_tokenizer(
        folder,
        genes=[str(symbol) for symbol in table.symbols[in_order(table, default_genes(table, detection), detection)]],
        texts=default_texts(),
        fields=[*prompts.fields, GENES, *argument_tokens()],
        tasks=list(dict.fromkeys([*prompts.tasks, *request_tasks()])),
        text_size=TEXT_SIZE,
        gene_order="rising mean detection in the shipped data sets",
    )


def detection_in_shipped_cells(table: GeneTable) -> npt.NDArray[np.float64]:
    """(G,) share of cells that detect each gene, the mean over the shipped data sets, each weighing the same; to nine decimals."""
    from scmulan.cells import read_cells

    files = sorted(assets.path("embedded", "cells").glob("*.h5ad"))
    shares = np.zeros(len(table))
    for path in files:
        cells = read_cells(path)
        shares += np.asarray((cells.counts > 0).mean(0)).ravel()
    return np.round(shares / len(files), 9)


def default_genes(table: GeneTable, detection: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Rows of the gene table that the default tokenizer holds, in the table's order."""
    human = table.is_human & (table.gene_ids != "") & ~(table.is_recent & (table.locus_groups == "non-coding RNA"))
    chosen = (human & np.isin(table.locus_groups, RNA_GROUPS)) | (~table.is_human & np.isin(table.locus_groups, MOUSE_GROUPS))
    return np.flatnonzero(chosen | (detection > 0))


def in_order(table: GeneTable, rows: npt.NDArray[np.int64], detection: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Rows by rising detection; of equals, protein-coding genes last, mouse-only ones before human ones, then by the alphabet."""
    group = np.array([-LOCUS_GROUPS.index(name) for name in table.locus_groups[rows]])
    return rows[np.lexsort((table.symbols[rows].astype(str), table.is_human[rows], group, detection[rows]))]


def default_texts() -> list[str]:
    """Names and phrasings that the text part is trained on, as often as they weigh."""
    names = [label for name in NAMES for label in Ontology.load(name).labels() * WEIGHTS[name]]
    own = [label for field in FIELDS for label in known_labels(field)]
    return names + (own + load_prompts().texts()) * OF_TABLE
