"""Perturbations as text: what was done to which genes, or with which agent, in the words of the field ``perturbation``.

A gene is named first, so that its own token stands there, then what was done to it: ``STAT1 knockout``; several are joined by `` + `` in
the order of their names. An agent is its label, as in ``tokenizer/labels.tsv``: ``interferon beta``. A label that the model has seen is
taken however it is spelled; one that it has not is another question, and is said to be one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scmulan.corpus.pairs import CONTROLS
from scmulan.errors import PromptError, some
from scmulan.genes import GeneTable
from scmulan.labels import SeenLabels

ACTIONS: dict[str, tuple[str, ...]] = {
    "knockout": ("knockout", "knock-out", "ko", "deletion", "delete", "crispr", "cas9"),
    "knockdown": ("knockdown", "knock-down", "kd", "crispri", "shrna", "sirna", "repression", "repress"),
    "overexpression": ("overexpression", "over-expression", "oe", "crispra", "activation", "activate", "orf"),
}
JOIN = " + "


@dataclass(frozen=True)
class Perturbation:
    """A perturbation as it is asked about.

    Attributes
    ----------
    label : the text of the field
    is_seen : whether training cells had it
    genes : preferred symbols of the genes that it names
    """

    label: str
    is_seen: bool
    genes: tuple[str, ...] = ()


def perturbation_of(given: str | Mapping[str, str], seen: SeenLabels, table: GeneTable) -> Perturbation:
    """A perturbation from its label, or from what was done to each gene: ``{"STAT1": "knockout"}``.

    Raises
    ------
    PromptError
        When the model has learnt from no perturbed cell, a gene or what was done to it is unknown, or a label is neither one that it has
        seen nor one that names genes; the message names the nearest.

    Examples
    --------
    >>> seen = SeenLabels(({"perturbation": "STAT1 knockout"},), (10,))
    >>> perturbation_of({"stat1": "KO"}, seen, GeneTable.load())
    Perturbation(label='STAT1 knockout', is_seen=True, genes=('STAT1',))
    """
    known = seen.values("perturbation")
    if not known:
        raise PromptError(
            "this model has seen no perturbed cell; fine-tune it on some that were, or ask `edit` what the model makes of a gene"
        )
    parts = dict(given) if isinstance(given, Mapping) else _read(str(given))
    spelled = {_gene(name, table): _action(name, action) for name, action in parts.items()} if parts else {}
    if not spelled:
        return Perturbation(seen.known("perturbation", str(given)), True)
    label = JOIN.join(f"{gene} {spelled[gene]}" for gene in sorted(spelled))
    genes = tuple(sorted(spelled))
    by_case = {one.lower(): one for one in known}
    plain = JOIN.join(genes)  # data sets may name the gene alone
    for candidate in (label, str(given) if isinstance(given, str) else label, plain):
        if candidate.lower() in by_case:
            return Perturbation(by_case[candidate.lower()], True, genes)
    return Perturbation(label, False, genes)


def _read(text: str) -> dict[str, str]:
    """Genes and what was done to each, from a label such as ``STAT1 knockout + IRF1 knockout``; empty for a label of another form."""
    found: dict[str, str] = {}
    for part in text.split("+"):
        name, _, action = part.strip().rpartition(" ")
        if not name or _standard(action) is None:
            return {}
        found[name] = action
    return found


def _standard(action: str) -> str | None:
    return next((name for name, spellings in ACTIONS.items() if action.strip().lower() in spellings), None)


def _action(gene: str, action: str) -> str:
    found = _standard(action)
    if found is None:
        raise PromptError(f"perturbation {gene}={action!r}: needed one of {', '.join(ACTIONS)}")
    return found


def _gene(name: str, table: GeneTable) -> str:
    row = int(table.resolve([name]).index[0])
    if row < 0:
        raise PromptError(f"perturbation of gene {name!r}, which is not known; nearest: {some(table.nearest(name)) or 'none'}")
    return str(table.symbols[row])


def control_label(seen: SeenLabels) -> str | None:
    """What the training cells that were not perturbed were called, most cells first; None where there were none."""
    return next((value for value in seen.values("perturbation") if value in CONTROLS), None)
