"""Measurements of speed, memory and exactness: every such figure of docs/benchmarks.md comes from ``scmulan bench``.

    speed       annotate, embed, generate and tokenise, cells per second, and peak memory
    roundtrip   counts -> ids -> counts and ids -> text -> ids, for every cell and every vocabulary entry
    sampling    tokens drawn under the automaton: how many illegal, how many cells parse
    invariance  cells and genes shuffled: sentences, labels and embeddings compared
    sentence    the layouts, losses and settings of scmulan.trials, each trained alike
    training    ids per second of the shipped step and of a plain transformers loop, in turns
    parts       the same with each part of the step switched off by itself: compiling, packing, isolation, attention, loss, optimizer
    losses      seconds and memory of the loss over legal ids beside losses over all ids
    packing     how full packs are, by context and pack size
    optimizers  held-out loss after equal tokens for AdamW and Muon, at several rates and two schedules
    organs      a new organ from 20 to 300 labelled cells: adapter and all weights beside logistic regression and the base
    readout     the readout of counts by itself on the same organs, over several draws of the labelled cells
    ask         questions in English: held-out phrasings, and those written by hand, beside the nearest phrasing
    integration embeddings across assays, donors and species beside PCA, Harmony and scVI; --data FOLDER
    search      an index of many cells: recall against exact search, time, size
    corpus      a large data set of mixed real cells made into a corpus: cells per second, peak memory
    pieces      a large file annotated and embedded in pieces: peak memory, with a stand-in for the model's arithmetic
    kill        training killed with signal 9 at random moments: the resumed curve against the uninterrupted one; --only ddp or fsdp2
    screen      genes edited in cells: genes times cells per second of several ways, and how well a slope foretells the exact shifts
    regulators  ranks of known regulators for the fates they drive, known edges, classes of genes: each beside its baselines
    check       what ``scmulan check`` says of every file of a folder, and whether counts come back once it is normalised
    change      cells of a perturbation foretold, and the perturbation told from cells: the simple ways, beside the noise of the truth
    perturb     the same with a model fine-tuned on the training cells beside them (twenty minutes and more a setting)
    change-types the answer to interferon of a type of cell whose answer was never seen: other types', and a linear rule
    enhance     thinned cells brought back to depth: neighbours, posteriors and, where they are installed and named, MAGIC and scVI
    serving     ids per second of the engines, of scmulan's processor and of adapters in vLLM, which has to be installed
    load        a server under many clients for minutes, its vLLM and itself killed: times to answer, errors, memory
    page        the page in a browser: from a file dropped to a map and answers; frames a second while 200,000 points are dragged
    next-state  later states and fates of barcoded clones foretold: neighbours, transport, regression, clones held out
    fuzz-reader files broken at random: each must be read or refused with one kind of error

Absolute times are of the machine they were taken on; ratios within one run travel better.
"""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scmulan import (
    bench_ask,
    bench_change,
    bench_change_types,
    bench_enhance,
    bench_exactness,
    bench_kill,
    bench_next_state,
    bench_organs,
    bench_perturb,
    bench_reader,
    bench_readout,
    csentence,
    trials,
)
from scmulan.bench_exactness import blood_cells
from scmulan.bench_regulators import regulators
from scmulan.bench_screen import screen
from scmulan.errors import PromptError, nearest
from scmulan.tasks import load

Say = Callable[[str], None]
TASK_CELLS = 200
TURNS = 5
TRAINED = ("demo",)


def run(
    what: str,
    *,
    model: str = "demo",
    device: str = "cpu",
    seed: int = 0,
    data: Path | None = None,
    n: int | None = None,
    only: Sequence[str] = (),
    presets: Sequence[str] = (),
    tokenizer: str | None = None,
    peak_tflops: float | None = None,
    steps: int | None = None,
    keep: Path | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """One measurement by name, as plain data."""
    measures: dict[str, Callable[..., dict[str, Any]]] = {
        "speed": speed,
        "roundtrip": bench_exactness.roundtrip,
        "sampling": bench_exactness.sampling,
        "invariance": bench_exactness.invariance,
        "sentence": sentence,
        "kill": kill,
        "ask": bench_ask.ask,
        "organs": bench_organs.organs,
        "readout": bench_readout.readout,
        "integration": integration,
        "search": search,
        "corpus": corpus,
        "pieces": pieces,
        "change": bench_change.change,
        "perturb": bench_perturb.perturb,
        "change-types": bench_change_types.change_types,
        "enhance": bench_enhance.enhance,
        "next-state": bench_next_state.next_state,
        "serving": serving,
        "load": load_bench,
        "page": page,
        "training": training,
        "parts": parts,
        "losses": losses,
        "packing": packing,
        "optimizers": optimizers,
        "screen": screen,
        "regulators": regulators,
        "check": bench_reader.check_files,
        "fuzz-reader": bench_reader.fuzz_reader,
    }
    if what not in measures:
        raise PromptError(f"bench {what!r}: needed one of {', '.join(measures)}{nearest(what, list(measures))}")
    if data is not None and not data.is_dir():
        raise PromptError(f"--data {data}: {'a file' if data.exists() else 'no such folder'}; needed a folder of .h5ad files")
    of_training = {"presets": presets or TRAINED, "tokenizer": tokenizer, "peak_tflops": peak_tflops, "steps": steps, "keep": keep}
    result = measures[what](model=model, device=device, seed=seed, data=data, n=n, only=only, say=say, **of_training)
    return {**result, "machine": f"{platform.machine()}, {_threads()} threads", "peak_memory_mb": peak_memory()}


def corpus(*, data: Path | None, n: int | None, seed: int, say: Say, **_: Any) -> dict[str, Any]:
    """See `scmulan.bench_corpus`."""
    from scmulan import bench_corpus

    return bench_corpus.corpus(data, n, seed, say)


def pieces(*, model: str, data: Path | None, n: int | None, seed: int, say: Say, **_: Any) -> dict[str, Any]:
    """See `scmulan.bench_pieces`."""
    from scmulan import bench_pieces

    return bench_pieces.pieces(model=model, data=data, n=n, seed=seed, say=say)


def integration(**options: Any) -> dict[str, Any]:
    """See `scmulan.bench_integration`."""
    from scmulan.bench_integration import integration_bench

    return integration_bench(**options)


def serving(**options: Any) -> dict[str, Any]:
    """See `scmulan.bench_serving`."""
    from scmulan.bench_serving import serving

    return serving(**options)


def load_bench(**options: Any) -> dict[str, Any]:
    """See `scmulan.bench_load`."""
    from scmulan.bench_load import load

    return load(**options)


def page(**options: Any) -> dict[str, Any]:
    """See `scmulan.bench_page`."""
    from scmulan.bench_page import page

    return page(**options)


def search(*, model: str, n: int | None, seed: int, say: Say, **_: Any) -> dict[str, Any]:
    """See `scmulan.bench_search`."""
    from scmulan.bench_search import measure_search

    return measure_search(model=model, n=n, seed=seed, say=say)


def training(*, n: int | None, say: Say, what: str = "training", **options: Any) -> dict[str, Any]:
    """Each way to train in ``n`` (5) turns of two steps; see `scmulan.bench_training`."""
    from scmulan.bench_training import measure_ways

    names = ("presets", "tokenizer", "device", "data", "only", "peak_tflops")
    return measure_ways(what, repetitions=n or TURNS, say=say, **{name: options[name] for name in names})


def parts(**options: Any) -> dict[str, Any]:
    """As ``training``, with each part of the step switched off by itself."""
    return training(what="parts", **options)


def losses(
    *, presets: Sequence[str], tokenizer: str | None, device: str, data: Path | None, n: int | None, say: Say, **_: Any
) -> dict[str, Any]:
    """Each loss in ``n`` (5) turns; see `scmulan.bench_training`."""
    from scmulan.bench_training import measure_losses

    return measure_losses(presets=presets, tokenizer=tokenizer, device=device, data=data, turns=n or TURNS, say=say)


def packing(*, tokenizer: str | None, data: Path | None, say: Say, **_: Any) -> dict[str, Any]:
    """See `scmulan.bench_packing`."""
    from scmulan.bench_packing import measure_packing

    return measure_packing(tokenizer=tokenizer, data=data, say=say)


def optimizers(*, n: int | None, only: Sequence[str], seed: int, say: Say, **_: Any) -> dict[str, Any]:
    """Trials of ``n`` (200) steps; see `scmulan.bench_optimizers`."""
    from scmulan.bench_optimizers import measure_optimizers

    return measure_optimizers(steps=n, only=only, seeds=(seed,), say=say)


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())


def peak_memory() -> int:
    """Largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / 1024 if sys.platform != "darwin" else peak / 1024**2)


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def speed(*, model: str, device: str, seed: int, n: int | None, say: Say, **_: Any) -> dict[str, Any]:
    """Cells per second of each task on blood cells (about 600 tokens each), the model loaded and warm."""
    opened, n = load(model, device=device), n or TASK_CELLS
    adata = blood_cells(n)
    opened.annotate(adata[:8].copy())
    found: dict[str, Any] = {"cells": n}
    found["annotate_cells_per_second"] = round(n / _timed(lambda: opened.annotate(adata)), 1)
    say(f"annotate {found['annotate_cells_per_second']} cells/s")
    found["embed_cells_per_second"] = round(n / _timed(lambda: opened.embed(adata)), 1)
    say(f"embed {found['embed_cells_per_second']} cells/s")
    written = min(n, 128)
    found["generate_cells_per_second"] = round(written / _timed(lambda: opened.generate(organ="blood", n=written, seed=seed)), 2)
    say(f"generate {found['generate_cells_per_second']} cells/s")
    counts = opened.read(blood_cells(3000)).counts
    found["counts_to_ids_cells_per_second"] = round(
        3000 / min(_timed(lambda: csentence.encode(counts, opened.vocabulary)) for _ in range(3))
    )
    return found


def sentence(*, n: int | None, only: Sequence[str], say: Say, **_: Any) -> dict[str, Any]:
    """How a cell should be written: small models trained for ``n`` steps on each layout and loss, the trials named or all."""
    return {"steps": n or trials.STEPS, "trials": trials.run_trials(only, steps=n or trials.STEPS, say=say)}


def kill(*, seed: int, n: int | None, only: Sequence[str], say: Say, **_: Any) -> dict[str, Any]:
    """A small training killed with signal 9 ``n`` (10) times, on one process or by the strategies named, each on two."""
    return {strategy: bench_kill.kill(seed=seed, n=n, strategy=strategy, say=say) for strategy in only or ("single",)}
