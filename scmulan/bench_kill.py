"""Training killed with signal 9 at random moments, on one process or on several: its curve against that of an uninterrupted run."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from scmulan import assets
from scmulan.errors import EngineError, PromptError, nearest
from scmulan.training.curve import curve_lines

STEPS = 60
STRATEGIES = ("single", "ddp", "fsdp2")
CHANGES = (
    f"steps={STEPS}",
    "model.preset=tiny",
    "checkpoint_every=5",
    "evaluate_every=1000",
    "compile=false",
    "packing.pack_tokens=2048",
    "packs_per_step=2",
    "optimizer.matrix_lr=0",  # AdamW for all, and float32: bfloat16, in Muon too, shows the order of a sum over processes
    "precision='no'",
)


def kill(*, seed: int, n: int | None, strategy: str, say: Callable[[str], None]) -> dict[str, Any]:
    """A small training killed ``n`` (10) times, the last run to the end on one process.

    Parameters
    ----------
    strategy : ``single``: one process; ``ddp`` or ``fsdp2``: two processes, of which one or both are killed
    """
    if strategy not in STRATEGIES:
        raise PromptError(f"strategy {strategy!r}: needed one of {', '.join(STRATEGIES)}{nearest(strategy, STRATEGIES)}")
    rng, kills = np.random.default_rng(seed), n or 10
    with tempfile.TemporaryDirectory() as name:
        whole, broken = Path(name, "whole"), Path(name, "broken")
        if _start(whole, "single").wait():  # builds the corpus, which the others share
            raise EngineError(f"scmulan pretrain does not run with {' '.join(CHANGES)}; run it by hand to see why")
        for part in ("corpus", "tokenizer"):
            shutil.copytree(whole / part, broken / part)
        shutil.copy(whole / "plan.json", broken)
        began = time.perf_counter()
        _start(broken, strategy).wait()
        seconds, over = time.perf_counter() - began, _difference(whole, broken)
        _start_over(broken)
        done, differences = 0, list[float]()
        while done < kills:
            run = _start(broken, strategy)
            time.sleep(float(rng.uniform(0.3, 0.95)) * seconds)
            if run.poll() is None:
                _kill(run, rng)
                done += 1
                say(f"killed {done} of {kills}, at step {_last_step(broken)}")
            run.wait()
            if _last_step(broken) >= STEPS and done < kills:
                differences.append(_difference(whole, broken))
                _start_over(broken)
        _start(broken, "single").wait()
        differences.append(_difference(whole, broken))
    return {
        "strategy": strategy,
        "kills": done,
        "steps": STEPS,
        "largest_loss_difference_unkilled": over,
        "runs_brought_to_the_end": len(differences),
        "largest_loss_difference": float(np.max(differences)),
    }


def _start_over(output: Path) -> None:
    """Forget a run's steps; its corpus stays."""
    shutil.rmtree(output / "checkpoints", ignore_errors=True)
    (output / "curve.jsonl").unlink(missing_ok=True)


def _start(output: Path, strategy: str) -> subprocess.Popen[bytes]:
    changes = [part for change in (f"output={output}", *CHANGES) for part in ("--set", change)]
    train = ["-m", "scmulan", "pretrain", str(assets.path("training", "demo.yaml")), *changes]
    config = assets.path("training", "accelerate", "cpu.yaml" if strategy == "single" else f"cpu_{strategy}.yaml")
    launch = [] if strategy == "single" else ["-m", "accelerate.commands.launch", "--config_file", str(config), "--main_process_port", "0"]
    return subprocess.Popen([sys.executable, *launch, *train], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _kill(run: subprocess.Popen[bytes], rng: np.random.Generator) -> None:
    """Kill the run and all below it, or one process of several, whose launcher then ends the others."""
    below: Sequence[psutil.Process] = psutil.Process(run.pid).children(recursive=True)
    workers = [process for process in below if _is_worker(process)]
    if len(workers) > 1 and rng.random() < 0.5:
        below = [workers[int(rng.integers(len(workers)))]]
    else:
        run.kill()
    for process in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "-u" in process.cmdline()
    except psutil.NoSuchProcess:  # it ended in this moment
        return False


def _difference(whole: Path, broken: Path) -> float:
    """Largest difference of the losses of two runs; not a number when their steps differ."""
    first, second = (curve_lines(run / "curve.jsonl") for run in (whole, broken))
    if [line["step"] for line in first] != [line["step"] for line in second]:
        return float("nan")
    return max(abs(float(a["loss"]) - float(b["loss"])) for a, b in zip(first, second, strict=True))


def _last_step(output: Path) -> int:
    return max((int(line["step"]) for line in curve_lines(output / "curve.jsonl")), default=0)
