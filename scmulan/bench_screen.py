"""How fast genes are edited and asked about, by several ways of reading the edited cells, and how well a slope foretells the answers.

    one by one           each edited cell read by itself
    together             edited cells read in bunches, nothing shared
    shared starts        what an edited cell has in common with the cell is read once (`scmulan.engines.transformers_variants`)
    gradient             one pass backward a cell for all genes (`scmulan.engines.transformers_slopes`)

All but the last are exact: the largest difference from one by one stands beside each. Speeds are told by the clock and by the time that
the processor worked, which others on the machine do not lengthen as much.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from scmulan import assets, tasks_screen
from scmulan.cells import AnnData, read_h5ad
from scmulan.engines.transformers import TransformersEngine
from scmulan.engines.transformers_variants import score_variants
from scmulan.model import load_checkpoint
from scmulan.tasks import Model

GOAL, START = {"cell_type": "basophil"}, {"cell_type": "hematopoietic multipotent progenitor cell"}
ALONE = 24


class Timer:
    """The clock and the processor's time from when it was made."""

    def __init__(self) -> None:
        self.began, self.worked = time.perf_counter(), time.process_time()

    def speed(self, n: int) -> dict[str, float]:
        """``n`` genes times cells over the time since."""
        seconds, work = time.perf_counter() - self.began, time.process_time() - self.worked
        return {"genes_x_cells_per_second": round(n / seconds, 1), "per_second_of_a_core": round(n / work, 1)}


def held_out(name: str, part: str = "test") -> AnnData:
    """Cells of an embedded data set that the model did not see, or those that it did."""
    adata = read_h5ad(assets.path("embedded", "cells", f"{name}.h5ad"))
    return adata[(adata.obs["split"] == part).to_numpy()].copy()


def screen(*, model: str, device: str, seed: int, n: int | None, say: Callable[[str], None], **_: Any) -> dict[str, Any]:
    """Genes times cells per second on ``n`` (200) edits of each of two cells, in float32 and in the engine's own type."""
    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    types = list(dict.fromkeys((torch.float32, TransformersEngine(load_checkpoint(model), device=device).dtype)))
    for dtype in types:
        checkpoint = load_checkpoint(model)
        opened = Model(checkpoint, TransformersEngine(checkpoint, device=device, dtype=dtype))
        for action in ("raise", "delete"):
            name = f"{str(dtype).removeprefix('torch.')}, {action}"
            found[name] = _ways(opened, action, n or 200, seed)
            say(f"{name}: {found[name]}")
        name = f"{str(dtype).removeprefix('torch.')}, gradient"
        found[name] = _gradient(opened, n or 200, seed)
        say(f"{name}: {found[name]}")
    return found


def _ways(opened: Model, action: str, n: int, seed: int) -> dict[str, Any]:
    """Genes times cells per second of each way, and its largest difference from one by one, in nats of log-odds."""
    engine, rng = opened.engine, np.random.default_rng(seed)
    asked = tasks_screen.ask(opened.answers, held_out("larry_haematopoiesis"), GOAL, START, None, False, 2, 0, seed)
    said, cells = asked.goal.answers(opened.answers), []
    for row in asked.rows:
        numbers, counts_G = tasks_screen.variants(asked, row, action)
        chosen = rng.permutation(numbers)[:n].tolist()
        edited = [cell for _, part in tasks_screen.edited_cells(opened.answers, asked, row, chosen, counts_G, action) for cell in part]
        cells.append(opened.answers.type_prompts([asked.ready.ids[row], *edited], [asked.known[row]] * (len(edited) + 1)))
    score_variants(engine, cells[0][0], cells[0][:3], said)  # warm
    ways: dict[str, tuple[int, Callable[[], list[np.ndarray[Any, Any]]]]] = {
        "one by one": (ALONE * 2, lambda: [np.concatenate([engine.score([each], said) for each in own[1 : ALONE + 1]]) for own in cells]),
        "together": (sum(map(len, cells)) - 2, lambda: [engine.score(own[1:], said) for own in cells]),
        "shared starts": (sum(map(len, cells)) - 2, lambda: [score_variants(engine, own[0], own[1:], said) for own in cells]),
    }
    found: dict[str, Any] = {}
    true: list[np.ndarray[Any, Any]] = []
    for name, (size, way) in ways.items():
        timer = Timer()
        odds = [asked.goal.log_odds(scores) for scores in way()]
        speed = timer.speed(size)
        true = true or odds
        off = max(float(np.abs(one[:ALONE] - other[:ALONE]).max()) for one, other in zip(true, odds, strict=True))
        found[name] = {**speed, "largest_difference": float(f"{off:.2g}")}
    return found


def _gradient(opened: Model, n: int, seed: int) -> dict[str, Any]:
    """Speed of the slopes, and their rank correlation with the exact shifts of ``n`` genes in ten cells."""
    adata = held_out("larry_haematopoiesis")
    timer = Timer()
    slopes = opened.screen(adata, GOAL, start=START, by="gradient", most_cells=10, seed=seed)
    speed = timer.speed(int(slopes["cells"].sum()))
    genes = np.random.default_rng(seed).permutation(slopes.index)[:n].tolist()
    exact = opened.screen(adata, GOAL, start=START, genes=genes, controls=0, most_cells=10, seed=seed)
    both = exact.join(slopes["shift"].rename("slope"))
    top = set(both.nlargest(n // 10, "shift").index) & set(both.nlargest(n // 10, "slope").index)
    return {
        **speed,
        "spearman_with_exact": round(float(spearmanr(both["shift"], both["slope"]).statistic), 3),
        "of_the_best_tenth_found": round(len(top) / (n // 10), 3),
    }
