"""The Python and the command that give what a job or a chat gave: on the same file, with the same model, options and seeds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from scmulan.serving.answers import Reproduced
from scmulan.serving.asked import TASKS, Asked, Generate, OnFile, options
from scmulan.serving.asked_views import CellSet, Compare
from scmulan.serving.work import seed_of_piece

SELECTED = "selected.h5ad"
FLAGS = {"threshold": "--threshold", "by": "--by", "depth": "--depth", "temperature": "--temperature", "top_p": "--top-p", "seed": "--seed"}
FLAGS |= {"dose": "--dose", "time": "--time", "n": "-n", "draws": "--draws", "action": "--action", "most_cells": "--most-cells"}
"""Options that the command calls by a name like the method's."""


class Setting(TypedDict):
    """Which model answered, of which file: ``model`` and ``adapter`` as the server calls them."""

    model: str
    adapter: str | None
    filename: str | None
    other_filename: str | None


def of_job(task: str, asked: Mapping[str, Any], setting: Setting) -> Reproduced | None:
    """What gives the result of a job; None for a job that asks no model."""
    if task not in TASKS:
        return None
    wanted = TASKS[task].model_validate(dict(asked))
    rows = wanted.rows if isinstance(wanted, OnFile) else None
    opened = [*_opening(setting), *_cells(setting, rows)]
    python = [*opened, *_calls(wanted, setting, len(rows) if rows else None)]
    command = _command(wanted, setting, SELECTED if rows else setting["filename"])
    first = [f"# the cells that were chosen: adata.write_h5ad({SELECTED!r}) of the Python"] if rows else []
    return {"python": "\n".join(python) + "\n", "command": "\n".join([*first, command]) + "\n"}


def of_chat(requests: Sequence[Mapping[str, Any]], rows: Sequence[int] | None, seed: int, setting: Setting) -> Reproduced:
    """What gives the answer of a chat, by its requests."""
    has_cells = setting["filename"] is not None
    lines = [*_opening(setting), *_cells(setting, rows)]
    asked = list(requests)
    lines += [f"answer = model.ask({'adata' if has_cells else 'None'}, request={asked!r}, seed={seed})", "print(answer.text)"]
    which = SELECTED if rows is not None else setting["filename"]
    parts = [
        "scmulan",
        "ask",
        "",
        *([which] if which else []),
        "--request",
        json.dumps(asked),
        *_model_flags(setting),
        *(["--seed", str(seed)] if seed else []),
    ]
    first = [f"# the cells that were asked about: adata.write_h5ad({SELECTED!r}) of the Python"] if rows is not None else []
    return {"python": "\n".join(lines) + "\n", "command": "\n".join([*first, shlex.join(parts)]) + "\n"}


def of_comparison(asked: Compare, names: tuple[str, str]) -> Reproduced:
    """What gives a comparison.

    Parameters
    ----------
    names : of the files that the sets are of
    """
    lines, files, cut = ["import anndata", "import scmulan", ""], [], []
    for letter, one, name in zip("ab", (asked.a, asked.b), names, strict=True):
        lines += [f"{letter} = anndata.read_h5ad({name!r}){_source(one)}"]
        if one.rows is not None:
            lines.append(f"{letter} = {letter}[{list(one.rows)!r}].copy()")
            cut.append(f"# the cells of set {letter}: {letter}.write_h5ad('set_{letter}.h5ad') of the Python")
        files.append(name if one.rows is None else f"set_{letter}.h5ad")
    lines += ["genes = scmulan.compare(a, b)"]
    command = shlex.join(["scmulan", "compare", *files, "-o", "genes.csv"])
    return {"python": "\n".join(lines) + "\n", "command": "\n".join([*cut, command]) + "\n"}


def _source(one: CellSet) -> str:
    return "" if one.job_id is None else f"  # /v1/jobs/{one.job_id}/result.h5ad"


def _opening(setting: Setting) -> list[str]:
    """The model opened; its adapter by the name that the server gives it, which stands for its folder."""
    model, adapter = setting["model"], setting["adapter"]
    opened = f"model = scmulan.load({model!r}, adapters={{{adapter!r}: {adapter!r}}})  # the folder of the adapter"
    begin = ["import anndata", "import scmulan", ""]
    return [*begin, opened, f"model.use({adapter!r})"] if adapter else [*begin, f"model = scmulan.load({model!r})"]


def _cells(setting: Setting, rows: Sequence[int] | None) -> list[str]:
    if setting["filename"] is None:
        return []
    read = [f"adata = anndata.read_h5ad({setting['filename']!r})"]
    return read if rows is None else [*read, f"adata = adata[{list(rows)!r}].copy()"]


def _arguments(how: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in how.items())


def _given(wanted: Asked) -> dict[str, Any]:
    """Options that are not as they are when nothing is said."""
    said = wanted.model_dump(exclude_defaults=True)
    return {name: value for name, value in options(wanted).items() if name in said}


def _calls(wanted: Asked, setting: Setting, n_rows: int | None) -> list[str]:
    """The call of the model's method; several where the server did the work in lots with seeds of their own."""
    how = _given(wanted)
    if isinstance(wanted, Generate):
        return _written(wanted, how)
    if wanted.TASK == "explain_shift":
        return [
            f"perturbed = anndata.read_h5ad({setting['other_filename']!r})",
            f"found = model.explain_shift(adata, perturbed{_more(how)})",
        ]
    if wanted.TASK in ("next_state", "enhance"):
        how.pop("seed", None)
        size, seed = wanted.IN_PIECES, wanted.model_dump()["seed"]
        return [
            "import numpy as np", "", f"lots = range(0, adata.n_obs, {size})",
            f"seeds = [int(np.random.SeedSequence([{seed}, lot]).generate_state(1)[0]) for lot in range(len(lots))]",
            f"parts = [model.{wanted.TASK}(adata[lot : lot + {size}].copy(){_more(how)}, seed=seed) for lot, seed in zip(lots, seeds)]",
            "cells = anndata.concat(parts, index_unique='_')",
        ]  # fmt: skip
    return [f"found = model.{wanted.TASK}(adata{_more(how)})"]


def _more(how: Mapping[str, Any]) -> str:
    return f", {_arguments(how)}" if how else ""


def _written(wanted: Generate, how: dict[str, Any]) -> list[str]:
    fields, genes = how.pop("fields", {}), how.pop("genes", None)
    how = {name: value for name, value in how.items() if name not in ("n", "seed")}
    first = f"{genes!r}, " if genes else ""
    more = "".join(f", {part}" for part in (_arguments(how), _arguments(fields)) if part)
    size = wanted.IN_PIECES
    sizes = [size] * (wanted.n // size) + ([wanted.n % size] if wanted.n % size else [])
    if len(sizes) == 1:
        return [f"cells = model.{wanted.TASK}({first}n={wanted.n}, seed={seed_of_piece(wanted.seed, 0)}{more})"]
    return [
        "import numpy as np", "", f"sizes = [{size}] * {wanted.n // size}" + (f" + [{wanted.n % size}]" if wanted.n % size else ""),
        f"seeds = [int(np.random.SeedSequence([{wanted.seed}, lot]).generate_state(1)[0]) for lot in range({len(sizes)})]",
        f"parts = [model.{wanted.TASK}({first}n=n, seed=seed{more}) for n, seed in zip(sizes, seeds)]",
        "cells = anndata.concat(parts, index_unique='_')",
    ]  # fmt: skip


def _model_flags(setting: Setting) -> list[str]:
    model = [] if setting["model"] == "demo" else ["--model", setting["model"]]
    return model + (["--adapter", setting["adapter"]] if setting["adapter"] else [])


def _command(wanted: Asked, setting: Setting, filename: str | None) -> str:
    how = _given(wanted)
    parts = ["scmulan", wanted.TASK.replace("_", "-")]
    parts += [filename] if filename is not None else []
    parts += [str(setting["other_filename"])] if wanted.TASK == "explain_shift" else []
    output = "genes.csv" if wanted.TASK == "screen" else "cells.h5ad"
    if isinstance(wanted, Generate):
        if wanted.n <= wanted.IN_PIECES:
            how["seed"] = seed_of_piece(wanted.seed, 0)
        parts += ["-n", str(wanted.n)]
        how.pop("n", None)
        for name, value in how.pop("fields", {}).items():
            parts += [f"--{name.replace('_', '-')}", value] if name in ("organ", "cell_type", "organism") else ["--set", f"{name}={value}"]
    parts += _words(wanted.TASK, how)
    return shlex.join([*parts, "-o", output, *_model_flags(setting)])


def _words(task: str, how: Mapping[str, Any]) -> list[str]:
    """Options as the command takes them."""
    said: list[str] = []
    for name, value in how.items():
        if name == "genes" and isinstance(value, dict):
            said += [word for gene, what in value.items() for word in ("--gene", f"{gene}={what}")]
        elif name == "genes":
            said += [word for gene in value for word in ("--gene", gene)]
        elif name == "perturbation":
            said += (
                [word for gene, what in value.items() for word in ("--gene", f"{gene}={what}")]
                if isinstance(value, dict)
                else ["--agent", value]
            )
        elif name == "perturbations":
            said += [word for each in value for word in ("--perturbation", each)]
        elif name == "labels":
            said += ["--labels", ";".join(value)] if task == "annotate" else [word for each in value for word in ("--label", each)]
        elif name in ("goal", "start"):
            said += [f"--{name}", "=".join(next(iter(value.items())))]
        elif name in FLAGS:
            said += [FLAGS[name], str(value)]
    return said
