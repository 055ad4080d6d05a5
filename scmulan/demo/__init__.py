"""The whole of scmulan in a few minutes, on the embedded model and cells: files, pictures, and one page that shows all of it.

    scmulan demo -o demo

Everything that is claimed on the page is computed from the results there, beside its baseline, and says so where it is not beaten.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scmulan import assets
from scmulan.demo import asking, changes, depths, edits, fields, labels, mapping, prompting, sentence, states, written
from scmulan.demo.stage import Sizes, Stage, open_datasets, require_plots
from scmulan.report import Report, shown
from scmulan.tasks import load

__all__ = ["Sizes", "run"]

PARTS = {
    "labels": labels, "written": written, "fields": fields, "prompting": prompting, "sentence": sentence, "changes": changes,
    "states": states, "depths": depths, "edits": edits, "mapping": mapping, "asking": asking,
}  # fmt: skip
LEAD = (
    "scmulan is a language model of single cells: it reads and writes a cell, with what is known about it, as one sentence. On this "
    "page one small model, trained for an hour or two on two processor cores, is put to eleven kinds of questions about cells that it has "
    "not seen: what they are, what others of their kind look like, what they would be after a knock-out, later, or measured more deeply, "
    "and what is asked of them in English. Each figure stands beside that of a simple way, and where that is better, it is said."
)


def run(
    output: str | Path,
    *,
    model: str | Path = "demo",
    device: str = "cpu",
    seed: int = 0,
    say: Callable[[str], None] = print,
    data: Sequence[Path] | None = None,
    sizes: Sizes | None = None,
) -> dict[str, Any]:
    """Run the demonstration; what an earlier run left in the folder is replaced.

    Parameters
    ----------
    output : folder for ``report.html``, ``annotated.h5ad``, ``generated.h5ad``, ``summary.json`` and pictures
    model : a model folder, or ``demo`` for the embedded one
    say : called with each line of what is being done and found
    data : ``.h5ad`` files whose ``obs["split"]`` says train or test; the embedded ones when not given
    sizes : how many cells each part uses

    Returns
    -------
    The content of ``summary.json``: every figure of the page.

    Raises
    ------
    EngineError
        When the extra ``plots`` is not installed.
    CheckpointError
        When the model can't be opened.
    """
    require_plots()
    start, output = time.perf_counter(), Path(output)
    output.mkdir(parents=True, exist_ok=True)
    opened = load(model, device=device)
    card = opened.checkpoint.card
    say(f"model of {card.get('parameters', 0) / 1e6:.1f}M parameters, {len(opened.vocabulary.genes):,} genes; cells:")
    paths = list(data) if data is not None else sorted(assets.path("embedded", "cells").glob("*.h5ad"))
    chosen = sizes or Sizes()
    stage = Stage(
        model=opened, datasets=open_datasets(paths, chosen, seed, say), output=output, report=Report("What scmulan does", LEAD),
        seed=seed, sizes=chosen, say=say,
    )  # fmt: skip
    found: dict[str, Any] = {}
    for name, part in PARTS.items():
        began = time.perf_counter()
        result = part.run(stage)
        found[name] = {**dataclasses.asdict(result), "seconds": round(time.perf_counter() - began, 1)}
    return _finish(stage, found, time.perf_counter() - start)


def _finish(stage: Stage, found: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Write the page and the summary."""
    how = stage.model.provenance(seed=stage.seed, parameters=stage.model.checkpoint.card.get("parameters"))
    summary = {"made_by": how, "seconds": round(seconds, 1), **found}
    stage.report.section("How this was made").table([[key, str(value)] for key, value in how.items()], ["what", "which"])
    page = stage.report.write(stage.output / "report.html")
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
    (stage.output / "summary.json").write_text(text + "\n", encoding="utf-8")
    stage.say(f"done in {shown(seconds)} s: open {page}")
    return summary
