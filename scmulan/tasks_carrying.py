"""Carries requests out by the model's own methods, one function a task, and says in sentences what came of them.

A request that can't be carried out is answered with the reason, and does not stop those after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scmulan.cells import AnnData
from scmulan.corpus.pairs import is_control
from scmulan.errors import PromptError, ScmulanError
from scmulan.metadata import obs_columns
from scmulan.requests import Request
from scmulan.requests_names import name_of
from scmulan.tasks_changed import most_changed
from scmulan.tasks_evidence import evidence, runner_up
from scmulan.tasks_saying import LISTED, Result, Saying, sentence
from scmulan.tasks_selecting import Selected, select, write_back

USUAL_NUMBER, USUAL_COUNT, USUAL_DEEPER = 10, 5, 4
"""Cells to write, counts of a gene that is to be high, and how many times deeper cells become, where a question does not say."""
FEW = 8
"""Cells that are looked at for genes that nobody asked for."""
ACTIONS = {"deleted": "delete", "lowered": "lower", "raised": "raise"}
WITHOUT_CELLS = ("generate", "complete", "genes_like", "outside")
CAN = (
    "generate, complete, annotate, locate, describe, speaks_for, perturb, explain_shift, next_state, fate, enhance, embed, edit, screen, "
    "genes_like and search"
)


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What requests are carried out with.

    Attributes
    ----------
    model : a `scmulan.tasks.Model`
    adata : the cells at hand, if any
    index : of reference cells, for ``search``
    before : results of the requests before this one
    """

    model: Any
    adata: AnnData | None = None
    index: Any = None
    seed: int = 0
    before: tuple[Result, ...] = ()


def carry_out(request: Request, given: Circumstances) -> Result:
    """What one request gives; a refusal is a result too."""
    carriers: dict[str, Callable[[Request, Circumstances], Result]] = {
        "generate": _generate, "complete": _complete, "annotate": _annotate, "locate": _locate, "describe": _describe, "embed": _embed,
        "perturb": _perturb, "explain_shift": _explain, "next_state": _next_state, "fate": _fate, "enhance": _enhance, "edit": _edit,
        "screen": _screen, "speaks_for": _speaks_for, "genes_like": _genes_like, "search": _search, "outside": _outside,
    }  # fmt: skip
    try:
        if given.adata is None and request.task not in WITHOUT_CELLS:
            raise PromptError("no cells were given; needed an AnnData or a file of cells")
        return carriers[request.task](request, given)
    except ScmulanError as error:
        facts = {"task": request.task, "reason": str(error)}
        return Result(request, None, (facts,), sentence("refused", facts), is_done=False)


def _outside(request: Request, given: Circumstances) -> Result:
    facts = {"can": CAN}
    return Result(request, None, (facts,), sentence("outside", facts), is_done=False)


def _selected(request: Request, given: Circumstances, saying: Saying) -> Selected:
    """The cells that are asked about; what was selected, or told, is said."""
    assert given.adata is not None
    found = select(given.adata, request)
    if found.what:
        saying.add("selected", n=found.adata.n_obs, all=given.adata.n_obs, what=found.what)
    return found


def _sizes(cells: AnnData) -> dict[str, Any]:
    counts = cells.layers["counts"]
    genes = np.asarray((counts > 0).sum(1)).ravel()
    return {"n": cells.n_obs, "counts": int(np.median(np.asarray(counts.sum(1)))), "genes": int(np.median(genes))}


def _generate(request: Request, given: Circumstances) -> Result:
    number = request.number or USUAL_NUMBER
    cells, saying = given.model.generate(n=number, seed=given.seed, **request.fields), Saying()
    saying.add("generate", kind=", ".join(request.fields.values()) or "of any kind", **_sizes(cells))
    if request.number is None:
        saying.add("generate_default")
    return saying.result(request, cells)


def _complete(request: Request, given: Circumstances) -> Result:
    genes = {gene.name: gene.count or USUAL_COUNT for gene in request.genes}
    cells = given.model.complete(genes, n=request.number or USUAL_NUMBER, seed=given.seed, **request.fields)
    saying = Saying()
    saying.add_list("complete", [{"gene": gene, "count": count} for gene, count in genes.items()], **_sizes(cells))
    return saying.result(request, cells)


def _top(table: pd.DataFrame) -> tuple[list[dict[str, Any]], float]:
    """How many cells have each label for their likeliest, most first, and the mean probability of a cell's likeliest."""
    best = pd.Series(table.columns.to_numpy()[table.to_numpy().argmax(1)]).value_counts()
    entries = [{"label": str(label), "count": int(count), "share": count / len(table)} for label, count in best.items()]
    return entries, float(table.to_numpy().max(1).mean())


def _say_labels(saying: Saying, template: str, table: pd.DataFrame, **facts: Any) -> None:
    entries, p = _top(table)
    saying.add_list(template, entries[:LISTED], n=len(table), p=p, **facts)


def _annotate(request: Request, given: Circumstances) -> Result:
    saying = Saying()
    chosen = _selected(request, given, saying)
    told = dict(chosen.told) or None
    if told:
        saying.add("told", what=", ".join(f"{name} {value}" for name, value in told.items()))
    if len(request.among) == 1:
        label = request.among[0]
        table = given.model.annotate(chosen.adata, level=[label], fields=None)
        p = table[label] if label in table else table.iloc[:, 0]
        others = table.drop(columns=p.name).max(axis=1) if table.shape[1] > 1 else 0 * p
        saying.add("is_it", label=label, p=float(p.mean()), count=int((p > others).sum()), n=len(p))
    else:
        level = "lineage" if "lineage" in request.asked else "cell_type"
        labels = list(request.among) or None
        adata = _with_fields(chosen.adata, told)
        table = given.model.annotate(adata, labels=labels, level=level)
        write_back(chosen.adata, adata)
        _say_labels(saying, "annotate", table)
    assert given.adata is not None
    write_back(given.adata, chosen.adata)
    return saying.result(request, table)


def _with_fields(adata: AnnData, told: Mapping[str, str] | None) -> AnnData:
    """The cells with fields that the question told, where the data do not have them; the data themselves where it told none."""
    if not told:
        return adata
    copy = adata.copy()
    for name, value in told.items():
        copy.obs[obs_columns(name)[0]] = value
    return copy


def _locate(request: Request, given: Circumstances) -> Result:
    saying = Saying()
    chosen = _selected(request, given, saying)
    table = given.model.locate(chosen.adata)
    _say_labels(saying, "locate", table)
    assert given.adata is not None
    write_back(given.adata, chosen.adata)
    return saying.result(request, table)


def _describe(request: Request, given: Circumstances) -> Result:
    saying = Saying()
    chosen = _selected(request, given, saying)
    tables: dict[str, pd.DataFrame] = given.model.describe(chosen.adata)
    missing = [name for name in request.asked if name not in tables]
    if missing:
        raise PromptError(f"this model has seen no {' or '.join(missing)} in its training cells; it can tell {', '.join(tables)}")
    for name in request.asked or tables:
        entries, p = _top(tables[name])
        saying.add("describe", field=name, label=entries[0]["label"], count=entries[0]["count"], n=len(tables[name]), p=p)
    assert given.adata is not None
    write_back(given.adata, chosen.adata)
    return saying.result(request, {name: tables[name] for name in request.asked} if request.asked else tables)


def _embed(request: Request, given: Circumstances) -> Result:
    saying = Saying()
    chosen = _selected(request, given, saying)
    states = given.model.embed(chosen.adata)
    saying.add("embed", n=len(states), width=states.shape[1], key="X_scmulan")
    return saying.result(request, states)


def _changes(saying: Saying, cells: AnnData, what: str) -> None:
    """The genes that a predicted change moved most."""
    moved = most_changed(cells.var)["scmulan_change"] if "scmulan_change" in cells.var else pd.Series(dtype=float)
    if moved.empty:
        saying.add("unchanged", n=cells.n_obs, what=what)
        return
    most = [{"gene": str(gene), "log2": float(by)} for gene, by in moved.head(LISTED).items()]
    saying.add_list("change", most, n=cells.n_obs, what=what)


def _perturb(request: Request, given: Circumstances) -> Result:
    said = dict(request.fields)
    perturbation, how = said.pop("perturbation", None), {name: said.pop(name, None) for name in ("dose", "time")}
    if perturbation is None:
        raise PromptError("which perturbation is not said; needed as 'STAT1 knockout' or 'interferon beta'")
    saying = Saying()
    chosen = _selected(Request(task="perturb", fields=said, cluster=request.cluster), given, saying)
    gene, _, action = perturbation.rpartition(" ")
    asked = {gene: action} if action in ("knockout", "knockdown", "overexpression") else perturbation
    cells = given.model.perturb(chosen.adata, asked, **how, seed=given.seed)
    _changes(saying, cells, " ".join(["after", perturbation, *filter(None, how.values())]))
    return saying.result(request, cells)


def _explain(request: Request, given: Circumstances) -> Result:
    assert given.adata is not None
    column = next((column for column in obs_columns("perturbation") if column in given.adata.obs), None)
    if column is None:
        raise PromptError(f"obs says not which cells are controls; needed a column such as {', '.join(obs_columns('perturbation')[:3])}")
    values = given.adata.obs[column].astype(str)
    unperturbed = values.map(lambda text: is_control(name_of("perturbation", text).value)).to_numpy()
    if unperturbed.all() or not unperturbed.any():
        raise PromptError(f"obs[{column!r}] has {'only' if unperturbed.all() else 'no'} control cells; needed both controls and others")
    table = given.model.explain_shift(given.adata[unperturbed].copy(), given.adata[~unperturbed].copy(), seed=given.seed)
    saying = Saying()
    entries = [{"label": str(name), "p": float(p)} for name, p in table["probability"].iloc[:LISTED].items()]
    saying.add_list("shift", entries, n=len(table))
    return saying.result(request, table)


def _time_of(request: Request) -> tuple[str, Request]:
    """The time that is asked for, and the request without it."""
    fields = dict(request.fields)
    time = fields.pop("time", None)
    if time is None:
        raise PromptError("no time is said; needed one that the model has seen, for example 'by day 6'")
    return time, Request(task=request.task, fields=fields, cluster=request.cluster)


def _next_state(request: Request, given: Circumstances) -> Result:
    saying = Saying()
    time, rest = _time_of(request)
    cells = given.model.next_state(_selected(rest, given, saying).adata, time, seed=given.seed)
    _changes(saying, cells, f"at {time}")
    return saying.result(request, cells)


def _fate(request: Request, given: Circumstances) -> Result:
    saying = Saying()
    time, rest = _time_of(request)
    chosen = _selected(rest, given, saying)
    table = given.model.fate(chosen.adata, time, labels=list(request.among) or None)
    _say_labels(saying, "fate", table, time=time)
    assert given.adata is not None
    write_back(given.adata, chosen.adata)
    return saying.result(request, table)


def _enhance(request: Request, given: Circumstances) -> Result:
    saying = Saying()
    chosen = _selected(request, given, saying)
    before = int(np.median(np.asarray(given.model.read(chosen.adata).whole.sum(1))))
    cells = given.model.enhance(chosen.adata, request.count or USUAL_DEEPER * before, seed=given.seed)
    saying.add("enhanced", before=before, **_sizes(cells))
    if request.count is None:
        saying.add("enhance_default")
    return saying.result(request, cells)


def _edit(request: Request, given: Circumstances) -> Result:
    genes = {gene.name: gene.action for gene in request.genes if gene.action}
    if not genes:
        raise PromptError("which gene is to be edited, and how, is not said; needed as 'GATA1 deleted'")
    saying = Saying()
    chosen = _selected(request, given, saying)
    edited = given.model.edit(chosen.adata, {gene: ACTIONS[action] for gene, action in genes.items()})
    said = edited.summary()
    shifts = [{"label": label, "shift": by} for label, by in list((said["probability_shift"] or {}).items())[:LISTED]]
    saying.facts.extend(shifts)
    moved = ", ".join(sentence("moved_entry", one) for one in shifts)
    entries = [{"gene": gene, "action": action} for gene, action in genes.items()]
    saying.add_list("edited", entries, n=said["cells"], changed=said["cells_changed"], moved=moved or "none")
    return saying.result(request, edited)


def _screen(request: Request, given: Circumstances) -> Result:
    if request.goal is None:
        raise PromptError("the goal of the screen is not said; needed a cell type")
    start = {"cell_type": request.start} if request.start else None
    table = given.model.screen(given.adata, {"cell_type": request.goal}, start=start, seed=given.seed)
    saying = Saying()
    entries = [{"gene": str(gene), "shift": float(by)} for gene, by in table["shift"].iloc[:LISTED].items()]
    saying.add_list("screened", entries, n=len(table), goal=request.goal)
    return saying.result(request, table)


def _genes_like(request: Request, given: Circumstances) -> Result:
    if not request.genes:
        raise PromptError("no gene is said; needed one, for example GATA1")
    saying, found = Saying(), {}
    for gene in request.genes:
        found[gene.name] = given.model.genes.like(gene.name, n=request.number or USUAL_NUMBER)
        entries = [{"gene": str(name), "cosine": float(by)} for name, by in found[gene.name].items()]
        saying.add_list("genes_like", entries, **{"of": gene.name})
    return saying.result(request, found)


def _search(request: Request, given: Circumstances) -> Result:
    if given.index is None:
        raise PromptError("no index of reference cells was given; needed index=FOLDER (--index)")
    saying = Saying()
    chosen = _selected(request, given, saying)
    table = given.model.search(chosen.adata, given.index, k=request.number or USUAL_NUMBER)
    named = next((name for name in ("cell_type", "lineage", "organ", "dataset") if name in table and table[name].notna().any()), None)
    counts = table[named].value_counts() if named else pd.Series(dtype=int)
    entries = [{"label": str(name), "count": int(n), "share": n / len(table)} for name, n in counts.iloc[:LISTED].items()]
    saying.add_list("search", entries, n=chosen.adata.n_obs)
    return saying.result(request, table)


def _speaks_for(request: Request, given: Circumstances) -> Result:
    """Genes for a label against another; without a label, for what the request before this one answered."""
    saying = Saying()
    fields = dict(request.fields)
    label = fields.pop("cell_type", None)
    field = "cell_type"
    before = given.before[-1] if given.before else None
    if label is None and before is not None and before.is_done:
        field, label = _answered(before)
    chosen = _selected(Request(task="speaks_for", fields=fields, cluster=request.cluster), given, saying)
    against = request.against or runner_up(given.model, chosen.adata, field, label)
    if label is None:
        label, against = against[0], against[1]
    else:
        against = against if isinstance(against, str) else next(name for name in against if name != label)
    found, n = evidence(given.model, chosen.adata, field, label, against, seed=given.seed)
    entries = [{"gene": str(gene), "nats": float(nats)} for gene, nats in found.iloc[: request.number or 2 * LISTED].items()]
    saying.add_list("speaks_for", entries, label=label, against=against, n=n)
    return saying.result(request, found)


def both_sides(annotated: Result, given: Circumstances) -> Result | None:
    """Genes that speak for and against the commonest label of an annotation, where it has one that can be told from another.

    The other label is the second likeliest of the cells that have the commonest one; at most `FEW` of these cells are looked at.
    """
    table = annotated.value
    field, label = _answered(annotated) if isinstance(table, pd.DataFrame) and table.shape[1] > 1 else ("", None)
    if given.adata is None or field != "cell_type" or label is None or len(annotated.request.among) == 1:
        return None
    mine = table.columns[table.to_numpy().argmax(1)] == label
    others = table.loc[mine].drop(columns=[name for name in (label, "other", "none") if name in table]).mean()
    if others.empty:
        return None
    against = str(others.idxmax())
    request = Request(task="speaks_for", fields={"cell_type": label}, against=against, cluster=annotated.request.cluster)
    cells = select(given.adata, annotated.request).adata[np.flatnonzero(mine)[:: max(1, int(mine.sum()) // FEW)][:FEW]].copy()
    try:
        found, n = evidence(given.model, cells, field, label, against, seed=given.seed)
    except ScmulanError as error:
        facts = {"task": request.task, "reason": str(error)}
        return Result(request, None, (facts,), sentence("refused", facts), is_done=False)
    saying = Saying()
    sides = found[found > 0].head(LISTED), found[found < 0].tail(LISTED).iloc[::-1]
    entries, opposed = ([{"gene": str(gene), "nats": float(nats)} for gene, nats in side.items()] for side in sides)
    named = ", ".join(sentence("both_sides_entry", one) for one in opposed) or "none"
    saying.add_list("both_sides", entries, label=label, against=against, n=n, others=named)
    saying.facts.extend(opposed)
    return saying.result(request, found)


def _answered(before: Result) -> tuple[str, str | None]:
    """Which field the request before answered, and its commonest answer."""
    field = {"annotate": "cell_type", "locate": "organ"}.get(before.request.task)
    table = before.value
    if before.request.task == "describe" and len(before.value) == 1:
        field, table = next(iter(before.value.items()))
    if field is None or not isinstance(table, pd.DataFrame) or before.request.asked == ("lineage",):
        return "cell_type", None
    label = _top(table)[0][0]["label"]
    return field, None if label in ("other", "none") else label


__all__: Sequence[str] = ("CAN", "Circumstances", "both_sides", "carry_out")
