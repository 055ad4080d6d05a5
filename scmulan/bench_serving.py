"""How fast cells are written and annotated by each engine, and what scmulan's logits processor and adapters cost in vLLM.

    model.generate      transformers alone, from its distribution over all ids: what it writes need not be a cell
    transformers        scmulan's transformers engine
    vLLM alone          vLLM without scmulan's processor, from its distribution over all ids
    vLLM                with it

The ways take turns, and ratios are taken within a turn. All begin with the same prompts. vLLM alone writes sentences as long as scmulan's
cells, one by one, so that as many stand in each step; model.generate writes as many ids as they have by the mean. Limit: a fixed depth
keeps the cells short, some hundred ids, so that a turn takes minutes.
"""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from scmulan.adapters_folder import open_adapter
from scmulan.bench_screen import held_out
from scmulan.csentence import Ids, depth_of
from scmulan.decoding.sampling import Sampling
from scmulan.engines.base import CellRequest, Engine
from scmulan.engines.served import ServedEngine
from scmulan.engines.transformers import TransformersEngine
from scmulan.engines.vllm import VllmEngine
from scmulan.errors import PromptError, nearest
from scmulan.finetune import finetune
from scmulan.model import Checkpoint, load_checkpoint
from scmulan.tasks import Model

Say = Callable[[str], None]
PARTS = ("engines", "adapters", "cells")
SIZES = (1, 16, 64)
TURNS = 3
DEPTH = 400
"""Counts of the cells that are written to compare engines."""
ADAPTERS = 4
WHOLE_CELLS, FEW_CELLS = 32, 4
BRIEF: dict[str, Any] = {
    "steps": 2, "evaluate_every": 2, "checkpoint_every": 2, "packing": {"context": 512, "pack_tokens": 1024}, "readout": False,
    "adapter": {"rank": 8, "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]},
}  # fmt: skip
"""An adapter trained for a moment, held four times over: what it says does not matter for speed."""


def serving(*, model: str, device: str, seed: int, n: int | None, only: Sequence[str], say: Say, **_: Any) -> dict[str, Any]:
    """The parts named, or all; ``engines, 1`` is that part for one sentence alone.

    Parameters
    ----------
    n : turns of ``engines`` and ``adapters`` (3); the most that any part takes is some ten minutes on two cores
    """
    at = {f"engines, {size}": functools.partial(engines, sizes=(size,)) for size in SIZES}
    parts: dict[str, Callable[..., dict[str, Any]]] = {"engines": engines, **at, "adapters": adapters, "cells": cells}
    unknown = [name for name in only if name not in parts]
    if unknown:
        raise PromptError(f"--only {unknown[0]!r}: needed one of {'; '.join(parts)}{nearest(unknown[0], list(parts))}")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "1")  # a process has room for one engine core, and two are compared
    checkpoint = load_checkpoint(model)
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "depth": DEPTH}
    for name in only or PARTS:
        found[name] = parts[name](checkpoint, device, seed, n or TURNS, say)
    return found


def requests_of(engine_model: Model, n: int, seed: int) -> list[CellRequest]:
    """Cells of blood, of one depth."""
    v = engine_model.vocabulary
    rows = engine_model.rows_for(n, {"organ": "blood"}, seed)
    depth = v.first_depth + int(depth_of(DEPTH))
    return [CellRequest(prompt=engine_model.writer.prompt("generate", each), row=row, depth=depth) for row, each in enumerate(rows)]


def engines(checkpoint: Checkpoint, device: str, seed: int, turns: int, say: Say, sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    """Ids a second of every way, by the number of sentences at once; medians over turns."""
    plain = Model(checkpoint, TransformersEngine(checkpoint, device=device))
    vllm = VllmEngine(checkpoint, device=device, rows=max(SIZES))
    found: dict[str, Any] = {}
    for size in sizes:
        asked, drawn = requests_of(plain, size, seed), Sampling(seed=seed)
        lengths = [len(cell) - 1 for cell in plain.engine.generate(asked, drawn)]
        length = round(float(np.mean(lengths)))
        prompts = [np.append(request.prompt, plain.vocabulary.cell) for request in asked]
        ways: dict[str, Callable[[], int]] = {
            "model.generate": functools.partial(_generate, checkpoint, prompts, plain.vocabulary.pad, length),
            "transformers": functools.partial(_written, plain.engine, asked, drawn),
            "vLLM alone": functools.partial(vllm.write_alone, prompts, lengths),
            "vLLM": functools.partial(_written, vllm, asked, drawn),
        }
        speeds = in_turns(ways, turns)
        overhead = [1 - with_it / alone for with_it, alone in zip(speeds["vLLM"], speeds["vLLM alone"], strict=True)]
        beside = {name: statistics.median(a / b for a, b in zip(speeds[name], speeds["model.generate"], strict=True)) for name in ways}
        found[str(size)] = {
            "ids_a_cell": length,
            "ids_per_second": {name: round(statistics.median(each), 1) for name, each in speeds.items()},
            "times_model_generate": {name: round(ratio, 2) for name, ratio in beside.items()},
            "share_of_time_for_the_automaton_in_vllm": round(statistics.median(overhead), 3),
        }
        say(f"{size} at once: {found[str(size)]}")
    return found


def in_turns(ways: dict[str, Callable[[], int]], turns: int) -> dict[str, list[float]]:
    """Ids a second of each way in each turn, after a turn that is not counted."""
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            speed = way() / (time.perf_counter() - began)
            if turn:
                speeds[name].append(speed)
    return speeds


def _written(engine: Engine, asked: Sequence[CellRequest], drawn: Sampling) -> int:
    """Cells by scmulan: their ids."""
    return sum(len(cell) - 1 for cell in engine.generate(asked, drawn))


def _generate(checkpoint: Checkpoint, prompts: Sequence[Ids], pad: int, length: int) -> int:
    """``model.generate`` as its page shows it: prompts padded on the left, drawn from all ids."""
    longest = max(map(len, prompts))
    ids_BT = torch.full((len(prompts), longest), pad)
    for row, prompt in enumerate(prompts):
        ids_BT[row, longest - len(prompt) :] = torch.from_numpy(np.asarray(prompt))
    with torch.inference_mode():
        said_BT = checkpoint.model.generate(
            input_ids=ids_BT.to(checkpoint.model.device), attention_mask=(ids_BT != pad).long().to(checkpoint.model.device),
            do_sample=True, top_k=0, min_new_tokens=length, max_new_tokens=length, pad_token_id=pad,
        )  # fmt: skip
    return int((said_BT.shape[1] - longest) * len(prompts))


def adapters(checkpoint: Checkpoint, device: str, seed: int, turns: int, say: Say) -> dict[str, Any]:
    """Ids a second of the base in a vLLM without adapters and in one that holds four; of one adapter, of four in one batch."""
    without = VllmEngine(checkpoint, device=device, rows=max(SIZES))
    with TemporaryDirectory() as name:
        tuned = finetune(held_out("zheng_pbmc_facs")[:60].copy(), Path(name, "tuned"), base=checkpoint.folder, say=say, **BRIEF)
        holding = VllmEngine(checkpoint, device=device, rows=max(SIZES), adapters=ADAPTERS, rank=8)
        for number in range(ADAPTERS):
            holding.add_adapter(f"a{number}", open_adapter(tuned))
        holding.use_adapter(None)
        asked, drawn = requests_of(Model(checkpoint, without), max(SIZES), seed), Sampling(seed=seed)

        def written(engine: ServedEngine, names: Sequence[str | None]) -> int:
            sentences = [engine.sentence(request, drawn, names[row % len(names)]) for row, request in enumerate(asked)]
            return sum(len(each.ids) for each in engine.run(sentences))

        ways: dict[str, Callable[[], int]] = {
            "no room for adapters": lambda: written(without, [None]),
            "the base": lambda: written(holding, [None]),
            "one adapter": lambda: written(holding, ["a0"]),
            "four adapters": lambda: written(holding, [f"a{number}" for number in range(ADAPTERS)]),
            "base and four": lambda: written(holding, [None, *(f"a{number}" for number in range(ADAPTERS))]),
        }
        speeds = in_turns(ways, turns)
    medians = {name: statistics.median(each) for name, each in speeds.items()}
    ratios = {name: [a / b for a, b in zip(each, speeds["no room for adapters"], strict=True)] for name, each in speeds.items()}
    found = {
        "at_once": max(SIZES),
        "ids_per_second": {name: round(each, 1) for name, each in medians.items()},
        "of_the_base_alone": {name: round(statistics.median(each), 3) for name, each in ratios.items()},
    }
    say(f"adapters: {found}")
    return found


def cells(checkpoint: Checkpoint, device: str, seed: int, turns: int, say: Say) -> dict[str, Any]:
    """Whole cells a second that are generated, and real ones annotated, by each engine; by vLLM's own way of weighing labels a few."""
    adata = held_out("zheng_pbmc_facs")[:WHOLE_CELLS].copy()
    found: dict[str, Any] = {"cells": WHOLE_CELLS}
    for name, kind in (("transformers", TransformersEngine), ("vLLM", VllmEngine)):
        opened = Model(checkpoint, kind(checkpoint, device=device))
        opened.annotate(adata[:2].copy())
        began = time.perf_counter()
        opened.annotate(adata.copy())
        between = time.perf_counter()
        opened.generate(organ="blood", n=WHOLE_CELLS, seed=seed)
        ended = time.perf_counter()
        found[name] = {
            "annotated_per_second": round(WHOLE_CELLS / (between - began), 2),
            "generated_per_second": round(WHOLE_CELLS / (ended - between), 3),
        }
        say(f"{name}: {found[name]}")
        if isinstance(opened.engine, ServedEngine):
            opened.engine.scores_here = False
            opened.annotate(adata[:1].copy())
            began = time.perf_counter()
            opened.annotate(adata[:FEW_CELLS].copy())
            found[name]["annotated_per_second_by_vllm_itself"] = round(FEW_CELLS / (time.perf_counter() - began), 3)
            say(f"{name}: {found[name]}")
    return found
