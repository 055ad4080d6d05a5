"""A tokenizer made for a plan: the genes that its training cells detect, its text part trained on their labels and the phrasings."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from scmulan.corpus.blocks import Block, splits_of, store_of
from scmulan.corpus.plan import Plan
from scmulan.errors import CellDataError, CorpusError
from scmulan.genes import GeneTable
from scmulan.metadata import FIELDS, known_labels
from scmulan.prompts import GENES, load_prompts
from scmulan.questions_sentences import question_texts
from scmulan.requests import argument_tokens, request_tasks
from scmulan.tokenizer import build_tokenizer


def build_plan_tokenizer(plan: Plan, folder: str | Path, *, skip_broken: bool = False) -> PreTrainedTokenizerFast:
    """Write a tokenizer folder for a plan.

    Parameters
    ----------
    skip_broken : leave out sources that can't be read, which the building of the corpus then names

    Raises
    ------
    CorpusError
        When no gene is left.
    CellDataError
        When a source can't be read.
    """
    table, prompts = GeneTable.load(), load_prompts()
    detected = np.zeros(len(table), dtype=np.int64)
    texts: list[str] = []
    for number in range(len(plan.sources)):
        try:
            of_source, labels = _detection(plan, number, len(table))
        except CellDataError:
            if not skip_broken:
                raise
            continue
        detected += of_source
        for values in labels.values():
            texts += [value for value in sorted(values) if value] * 4
    chosen = np.flatnonzero(detected >= max(plan.tokenizer.least_cells, 1))
    if plan.tokenizer.most_genes:
        chosen = chosen[np.argsort(-detected[chosen], kind="stable")][: plan.tokenizer.most_genes]
    if not len(chosen):
        least = max(plan.tokenizer.least_cells, 1)
        raise CorpusError(f"no gene is detected in {least:,} training cells of sources that can be read; lower tokenizer.least_cells")
    texts += question_texts(list(prompts.fields)) + prompts.texts() + [label for name in FIELDS for label in known_labels(name)]
    fields, tasks = control_names()
    genes = table.symbols[_ordered(chosen, detected, table.symbols, plan.tokenizer.gene_order)]
    return build_tokenizer(
        folder,
        genes=[str(symbol) for symbol in genes],
        texts=texts,
        fields=fields,
        tasks=tasks,
        text_size=plan.tokenizer.text_size,
        gene_order=plan.tokenizer.gene_order,
    )


def control_names() -> tuple[list[str], list[str]]:
    """Names of the fields, and of the tasks, that have a token of their own in a new tokenizer."""
    prompts = load_prompts()
    return [*prompts.fields, GENES, *argument_tokens()], list(dict.fromkeys([*prompts.tasks, *request_tasks()]))


def _detection(plan: Plan, number: int, n_genes: int) -> tuple[npt.NDArray[np.int64], dict[str, set[str]]]:
    """In how many training cells of a source each gene of the table is detected, and the source's labels."""
    source = plan.sources[number]
    detected, labels = np.zeros(n_genes, dtype=np.int64), dict[str, set[str]]()
    with tempfile.TemporaryDirectory() as scratch, store_of(source, scratch) as store:
        block = Block(source=source, number=number, first=0, last=store.n_cells, folder=scratch, tokenizer="", weights={}, identity="")
        for first, last in store.spans():
            counts, _ = store.counts(first, last, store.gene_index, n_genes)
            found = store.labels(first, last)
            is_train = np.array(splits_of(block, store, first, last, found)) == "train"
            detected += np.bincount(counts[is_train].indices, minlength=n_genes)
            for name, values in found.fields.items():
                labels.setdefault(name, set()).update(value for value in values if value)
    return detected, labels


def _ordered(
    chosen: npt.NDArray[np.int64], detected: npt.NDArray[np.int64], symbols: npt.NDArray[Any], order: str
) -> npt.NDArray[np.int64]:
    alphabetical = chosen[np.argsort(symbols[chosen].astype(str), kind="stable")]
    if order == "alphabetical":
        return alphabetical
    sign = 1 if order == "rising" else -1
    return alphabetical[np.argsort(sign * detected[alphabetical], kind="stable")]
