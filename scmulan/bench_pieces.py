"""In how much memory files of any size are annotated and embedded: cells mixed of real ones, a stand-in for the model's arithmetic.

All is as in use (cells read from disk, thinned, written as sentences, answers kept in pieces and put into a copy of the file) but for what
the model would compute: labels and states are drawn at random, for it is memory that is measured, and with the model a million cells
take a processor many hours. Each measurement runs in a process of its own, whose peak memory the system tells.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scmulan import assets
from scmulan.cells_mixed import make_cells
from scmulan.csentence import Ids
from scmulan.engines.base import Advance
from scmulan.engines.transformers import TransformersEngine
from scmulan.model import load_checkpoint
from scmulan.pieces.answering import annotate_file, embed_file
from scmulan.pieces.carrying import Opening
from scmulan.tasks import Model, load

Say = Callable[[str], None]
CELLS = 200_000
OF_THE_TASK = """
import sys
from scmulan.bench_pieces import measure
measure(*sys.argv[1:])
"""


class Stand(TransformersEngine):
    """Answers at random what would take the model's arithmetic."""

    def score(self, prompts: Sequence[Ids], answers: Sequence[Ids], *, on_cell: Advance | None = None) -> npt.NDArray[np.float64]:
        return np.log(np.random.default_rng(len(prompts)).random((len(prompts), len(answers))))

    def hidden(self, prompts: Sequence[Ids], *, after: Sequence[int] = (), on_cell: Advance | None = None) -> npt.NDArray[np.float32]:
        shape = (len(prompts), len(after), self.lm.config.hidden_size)
        return np.random.default_rng(len(prompts)).random(shape, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class StandIn(Opening):
    """Opens the model with the stand-in."""

    def open(self) -> Model:
        return load(self.model, engine=Stand(load_checkpoint(self.model), device=self.device))


def pieces(*, model: str, data: Path | None, n: int | None, seed: int, say: Say) -> dict[str, Any]:
    """Peak memory and cells per second for a tenth and all of ``n`` cells, beside reading the file whole."""
    source = (data or assets.path("embedded", "cells")) / "zheng_pbmc_facs.h5ad"
    folder = Path("corpora") / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"made of": source.name}
    for size in (max((n or CELLS) // 10, 1000), n or CELLS):
        path = folder / f"cells-{size}.h5ad"
        if not path.exists():
            say(f"making {path}")
            make_cells(source, path, size, seed)
        found[f"{size:,} cells, file, MB"] = path.stat().st_size // 2**20
        for task in ("annotate", "embed", "read whole"):
            name = f"{size:,} cells, {task}"
            found[name] = _measured(task, model, path)
            say(f"{name}: {found[name]}")
    return found


def _measured(task: str, model: str, path: Path) -> dict[str, Any]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", OF_THE_TASK, task, model, str(path)], stdout=subprocess.PIPE, text=True, check=True, env=env
    )
    measured: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return measured


def measure(task: str, model: str, path: str) -> None:
    """What a measuring process does: the whole task, and what it took."""
    from scmulan.bench_corpus import own_peak
    from scmulan.cells import read_h5ad

    output, began = Path(path).with_name(f"out-{os.getpid()}.h5ad"), time.perf_counter()
    try:
        if task == "annotate":
            n_cells = len(annotate_file(StandIn(model=model), path, output, cluster="cell_type").obs)
        elif task == "embed":
            n_cells = embed_file(StandIn(model=model), path, output)[0]
        else:
            n_cells = read_h5ad(path).n_obs
    finally:
        output.unlink(missing_ok=True)
    seconds = time.perf_counter() - began
    print(json.dumps({"cells per second": round(n_cells / seconds), "seconds": round(seconds, 1), "peak MB": round(own_peak() / 1024)}))
