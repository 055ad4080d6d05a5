"""How fast training is on this machine: real ids per second, beside a plain transformers loop, and with each part switched off by itself.

Ways are measured in turns, one after another and again from the first, so that what else the machine does falls on all alike: ratios
within a turn, their median and range, are what to read. On a processor everything of a step is counted one after the other; on a GPU the
next steps' inputs are made ahead in a thread, as in training.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scmulan.bench_losses import LOSSES, clock, cost, peak_bytes, whole_softmax
from scmulan.bench_sentences import Material, corpus_of
from scmulan.bench_ways import PackedWay, PlainWay, Switches, Timing, Way
from scmulan.corpus.pack import Packing
from scmulan.errors import EngineError, PromptError, nearest
from scmulan.model import PRESETS, n_parameters
from scmulan.training.packed import PackInputs

Say = Callable[[str], None]
MakeWay = Callable[[Material, str], Way]
LARGE_STEP = 65_536
"""Ids of a step, over which the optimizers' time is spread in ``tokens_per_second_large_step``: gradients add up over packs."""
WARM_UP, STEPS = 4, 2  # packs differ in their number of sentences, which compiles once more
LOSS_TURNS = 5
COMPILED = 64
"""Times that one piece of code may be compiled: all ways share the code of the layers, and past the limit one would run uncompiled."""


def _packed(**switches: Any) -> MakeWay:
    return lambda material, preset: PackedWay(material, preset, Switches(**switches))


def _plain(*, compiled: bool) -> MakeWay:
    return lambda material, preset: PlainWay(material, preset, compiled=compiled)


SHIPPED = "as shipped"
AGAINST_PLAIN: dict[str, MakeWay] = {
    SHIPPED: _packed(),
    "as shipped, AdamW for all": _packed(matrix_lr=0.0),
    "as shipped, not compiled": _packed(compiled=False),
    "plain transformers loop": _plain(compiled=False),
    "plain transformers loop, compiled": _plain(compiled=True),
}
PARTS: dict[str, MakeWay] = {
    SHIPPED: _packed(),
    "not compiled": _packed(compiled=False),
    "minibatches of like lengths, padded, for packs": _packed(sentences="bucketed"),
    "minibatches as drawn, padded, for packs": _packed(sentences="drawn"),
    "sentences of a pack see each other": _packed(isolated=False),
    "sdpa under a mask of the pack": _packed(attention="sdpa"),
    "softmax over legal ids, logits whole": _packed(loss_of=partial(whole_softmax, legal=True)),
    "softmax over all ids, logits whole": _packed(loss_of=partial(whole_softmax, legal=False)),
    "AdamW for all": _packed(matrix_lr=0.0),
}
WAYS = {"training": AGAINST_PLAIN, "parts": PARTS}


def measure_ways(
    what: str,
    *,
    presets: Sequence[str],
    tokenizer: str | None,
    device: str,
    data: Path | None,
    repetitions: int,
    steps: int = STEPS,
    only: Sequence[str] = (),
    peak_tflops: float | None = None,
    packing: Packing = Packing(),  # noqa: B008  (frozen)
    say: Say = print,
) -> dict[str, Any]:
    """Ids per second of each way of ``WAYS[what]``, for each preset.

    Parameters
    ----------
    tokenizer : ``demo`` or ``default``; by size when not given: ``default`` from 30m on
    only : the ways to measure, by name; all when empty
    peak_tflops : of the device in bfloat16, dense; then MFU is told, too
    """
    ways = {name: make for name, make in WAYS[what].items() if not only or name in only}
    for name in (*only, *presets):
        known = [*WAYS[what], *PRESETS]
        if name not in known:
            raise PromptError(f"bench {what}: {name!r}: needed one of {', '.join(known)}{nearest(name, known)}")
    _check_device(device)
    found: dict[str, Any] = {"device": _device_name(device), "pack_tokens": packing.pack_tokens, "context": packing.context}
    with tempfile.TemporaryDirectory() as scratch:
        for preset in presets:
            material = _material(Path(scratch), preset, tokenizer, data, packing)
            made = {name: make(material, preset) for name, make in ways.items()}
            with torch._dynamo.config.patch(recompile_limit=COMPILED):
                timings = take_turns(made, repetitions=repetitions, steps=steps, say=lambda line, preset=preset: say(f"{preset}: {line}"))  # type: ignore[misc]
            parameters = next(n_parameters(way.packed.lm if isinstance(way, PackedWay) else way.lm) for way in made.values())  # type: ignore[attr-defined]
            found[preset] = {
                "parameters": parameters,
                "vocabulary": material.writer.vocabulary.size,
                "fill": round(material.packs.fill, 4),
                "ways": {name: told(of_way, timings[next(iter(ways))], peak_tflops) for name, of_way in timings.items()},
            }
            del made
            gc.collect()
    return found


def _material(folder: Path, preset: str, tokenizer: str | None, data: Path | None, packing: Packing) -> Material:
    is_small = preset in ("tiny", "small", "demo")
    return Material.of(corpus_of(folder, tokenizer or ("demo" if is_small else "default"), data=data), packing)


def _check_device(device: str) -> None:
    """Training runs where accelerate puts it; EngineError when that is not where it was asked to be measured."""
    here = str(torch.accelerator.current_accelerator() or "cpu") if torch.accelerator.is_available() else "cpu"
    if torch.device(device).type != torch.device(here).type:
        way_out = "set CUDA_VISIBLE_DEVICES= to hide the GPU" if device == "cpu" else "needed a machine with a GPU that torch sees"
        raise EngineError(f"--device {device}: training would run on {here}; {way_out}")


def _device_name(device: str) -> str:
    is_gpu = torch.device(device).type == "cuda"
    return torch.cuda.get_device_name() if is_gpu else f"cpu, {torch.get_num_threads()} threads"


def take_turns(ways: Mapping[str, Way], *, repetitions: int, steps: int, say: Say) -> dict[str, list[Timing]]:
    """Each way in turn for so many steps, and again; the first steps of each, which compile, are not counted."""
    for name, way in ways.items():
        seconds = sum((way.step() for _ in range(WARM_UP)), Timing.nothing()).seconds
        say(f"{name}: warm after {seconds:.0f} s")
    found: dict[str, list[Timing]] = {name: [] for name in ways}
    for turn in range(repetitions):
        for name, way in ways.items():
            found[name].append(sum((way.step() for _ in range(steps)), Timing.nothing()))
            say(f"turn {turn + 1}, {name}: {found[name][-1].tokens / found[name][-1].seconds:,.0f} ids/s")
    return found


def told(timings: Sequence[Timing], of_first: Sequence[Timing], peak_tflops: float | None) -> dict[str, Any]:
    """What is told of a way: medians and ranges over the turns, and its ratio to the first way in the same turn."""
    speeds = [timing.tokens / timing.seconds for timing in timings]
    large = [_large_step(timing) for timing in timings]
    ratios = [speed / (other.tokens / other.seconds) for speed, other in zip(speeds, of_first, strict=True)]
    large_ratios = [speed / _large_step(other) for speed, other in zip(large, of_first, strict=True)]
    whole = sum(timings, Timing.nothing())
    found = {
        "tokens_per_second": round(statistics.median(speeds), 1),
        "range": _range(speeds, 1),
        "ratio_to_first": round(statistics.median(ratios), 3),
        "ratio_range": _range(ratios, 3),
        "tokens_per_second_large_step": round(statistics.median(large), 1),
        "large_step_ratio_to_first": round(statistics.median(large_ratios), 3),
        "share_prepare": round(whole.prepare / whole.seconds, 3),
        "share_gradients": round(whole.gradients / whole.seconds, 3),
        "share_update": round(whole.update / whole.seconds, 3),
    }
    if peak_tflops is not None and whole.operations:
        rates = [timing.operations / timing.tokens * speed for timing, speed in zip(timings, large, strict=True)]
        found["mfu_large_step"] = round(statistics.median(rates) / (peak_tflops * 1e12), 4)
    return found


def _large_step(timing: Timing) -> float:
    """Ids per second where the optimizers act once in ``LARGE_STEP`` ids; the number of updates is that of the steps measured."""
    per_id = (timing.prepare + timing.gradients) / timing.tokens
    return 1 / (per_id + timing.update / timing.updates / LARGE_STEP)


def _range(values: Sequence[float], digits: int) -> list[float]:
    return [round(min(values), digits), round(max(values), digits)]


# -- the loss alone ------------------------------------------------------------------------------------------------------------------


def measure_losses(
    *, presets: Sequence[str], tokenizer: str | None, device: str, data: Path | None, turns: int = LOSS_TURNS, say: Say = print
) -> dict[str, Any]:
    """Seconds of each loss with its gradients on the same hidden states, beside those of the layers, and the most memory each holds."""
    _check_device(device)
    found: dict[str, Any] = {"device": _device_name(device)}
    with tempfile.TemporaryDirectory() as scratch:
        for preset in presets:
            material = _material(Path(scratch), preset, tokenizer, data, Packing())
            found[preset] = _losses_of(PackedWay(material, preset, Switches(compiled=False)), turns, lambda line: say(f"{preset}: {line}"))  # noqa: B023
    return found


def _losses_of(way: PackedWay, turns: int, say: Say) -> dict[str, Any]:
    packed, device, vocabulary = way.packed, way.parallel.device, way.packed.vocabulary
    inputs = way._inputs(way.material.packs, 0)
    hidden, layers = _layers(way, inputs)
    calls = {
        name: cost(loss_of, hidden, packed.lm.get_output_embeddings().weight, inputs, vocabulary, is_bf16=way.parallel.is_bf16)
        for name, loss_of in LOSSES.items()
    }
    calls["layers, forward and backward"] = layers
    calls["plan of the shipped loss"] = lambda: _seconds(lambda: way._inputs(way.material.packs, 0), device)
    peaks = {name: peak_bytes(call, device) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            seconds[name].append(call())
    shipped = next(iter(LOSSES))
    found = {}
    for name, values in seconds.items():
        ratios = [one / other for one, other in zip(values, seconds[shipped], strict=True)]
        found[name] = {
            "seconds": round(statistics.median(values), 4),
            "range": _range(values, 4),
            "ratio_to_shipped": round(statistics.median(ratios), 3),
            "peak_mb": round(peaks[name] / 2**20, 1),
        }
        say(f"{name}: {found[name]}")
    return {"vocabulary": vocabulary.size, "ids": len(inputs.ids), "of": found}


def _layers(way: PackedWay, inputs: PackInputs) -> tuple[torch.Tensor, Callable[[], float]]:
    """Last hidden states of a pack, and what times the layers that make them, forward and backward."""
    device = way.parallel.device
    kept: list[torch.Tensor] = []

    def record(hidden_TD: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        kept[:] = [hidden_TD.detach()]
        return hidden_TD.sum(), hidden_TD.new_zeros(len(hidden_TD))

    loss_of, way.packed.loss_of = way.packed.loss_of, record

    def once() -> float:
        began = clock(device)
        way.packed.loss_of = record
        with way.parallel.gradients(way.module, is_last=True):
            loss, _ = way.module(inputs)
        loss.backward()
        way.module.zero_grad()
        way.packed.loss_of = loss_of
        return clock(device) - began

    once()
    return kept[0], once


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    began = clock(device)
    call()
    return clock(device) - began
