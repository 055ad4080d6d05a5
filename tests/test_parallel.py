"""Two processes over gloo, by the shipped configurations: the single process's curve, whatever the strategy, and resumed by any number."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import tiny_recipe
from safetensors.torch import load_file

from scmulan import assets
from scmulan.adapters_folder import WEIGHTS
from scmulan.errors import RecipeError
from scmulan.model import load_checkpoint
from scmulan.training.curve import curve_lines
from scmulan.training.parallel import Parallel

STRATEGIES = ("single", "ddp", "fsdp2")
GENTLE = {"warmup": 3, "matrix_lr": 0.004, "lr": 0.002}
"""Learning rates at which rounding does not grow: Muon turns matrices in bfloat16, whatever the precision of the rest."""


def start(strategy: str, recipe: Path, *changes: str) -> subprocess.Popen[str]:
    config = assets.path("training", "accelerate", "cpu.yaml" if strategy == "single" else f"cpu_{strategy}.yaml")
    launch = [] if strategy == "single" else ["-m", "accelerate.commands.launch", "--config_file", str(config), "--main_process_port", "0"]
    train = ["-m", "scmulan", "pretrain", str(recipe), *(part for change in changes for part in ("--set", change))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *launch, *train], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def train(strategy: str, recipe: Path, *changes: str) -> str:
    run = start(strategy, recipe, *changes)
    said, _ = run.communicate(timeout=240)
    assert run.returncode == 0, said
    return said


def recipe_of(folder: Path, corpus: Path, **changes: object) -> Path:
    recipe = tiny_recipe(folder / "run", packs_per_step=4, optimizer=GENTLE, **changes) | {"corpus": str(corpus)}
    path = folder / "recipe.yaml"
    folder.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(recipe))
    return path


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in curve_lines(folder / "run" / "curve.jsonl")]


@pytest.fixture(scope="module")
def runs(trained, tmp_path_factory) -> dict[str, Path]:
    """The same recipe by each strategy."""
    folder = tmp_path_factory.mktemp("strategies")
    for strategy in STRATEGIES:
        train(strategy, recipe_of(folder / strategy, trained.corpus))
    return {strategy: folder / strategy for strategy in STRATEGIES}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_give_the_curve_of_one(runs, strategy):
    np.testing.assert_allclose(losses(runs[strategy]), losses(runs["single"]), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_write_the_model_of_one(runs, strategy):
    wanted = load_checkpoint(runs["single"] / "run" / "model")
    found = load_checkpoint(runs[strategy] / "run" / "model")
    assert found.card["held_out_nats"] == pytest.approx(wanted.card["held_out_nats"], rel=1e-3)
    for name, tensor in found.model.state_dict().items():
        np.testing.assert_allclose(tensor.numpy(), wanted.model.state_dict()[name].numpy(), rtol=1e-2, atol=4e-3)  # written in bfloat16


@pytest.mark.slow
def test_two_processes_train_the_adapter_of_one(trained, tmp_path):
    """With its part beside the output matrix, which is multiplied outside of any layer."""
    found = dict[str, dict[str, torch.Tensor]]()
    for strategy in STRATEGIES:
        changes = {"model": {"start": str(trained.folder)}, "adapter": {"rank": 4, "dropout": 0.0}, "packing": {"context": 128}}
        recipe = recipe_of(tmp_path / strategy, trained.corpus, **changes)
        train(strategy, recipe, "optimizer.matrix_lr=0", "steps=8")
        found[strategy] = load_file(tmp_path / strategy / "run" / "adapter" / WEIGHTS)
        np.testing.assert_allclose(losses(tmp_path / strategy), losses(tmp_path / "single"), atol=1e-4)
    assert any("lm_head.lora_B" in name and tensor.any() for name, tensor in found["single"].items())
    for strategy in ("ddp", "fsdp2"):
        assert found[strategy].keys() == found["single"].keys()
        for name, tensor in found[strategy].items():
            torch.testing.assert_close(tensor, found["single"][name], rtol=1e-2, atol=4e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("fsdp2", "ddp"), ("single", "fsdp2"), ("ddp", "single")])
def test_a_run_goes_on_with_another_number_of_processes(runs, trained, tmp_path, first, then):
    recipe = recipe_of(tmp_path / "run", trained.corpus, checkpoint_every=1)
    run = start(first, recipe)
    while len(losses(tmp_path / "run")) < 4 and run.poll() is None:
        time.sleep(0.02)
    run.kill()
    run.wait()
    subprocess.run(["pkill", "-9", "-f", str(recipe)], check=False)  # what a killed launcher leaves
    said = train(then, recipe)
    assert "goes on from step" in said
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(runs["single"]), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["single", "ddp"])
def test_sigterm_saves_and_ends_with_status_0(trained, tmp_path, strategy):
    recipe = recipe_of(tmp_path / "run", trained.corpus, checkpoint_every=10_000, steps=4000)
    run = start(strategy, recipe)
    while len(losses(tmp_path / "run")) < 3 and run.poll() is None:
        time.sleep(0.05)
    if strategy == "single":
        run.send_signal(signal.SIGTERM)
    else:
        subprocess.run(["pkill", "-TERM", "-f", f"^[^ ]*python[0-9.]* -u -m scmulan pretrain {recipe}"], check=True)
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 0, said
    assert "asked to end: saved at step" in said
    steps = len(losses(tmp_path / "run"))
    (checkpoint,) = (tmp_path / "run" / "run" / "checkpoints").iterdir()
    assert json.loads((checkpoint / "manifest.json").read_text())["step"] == steps


@pytest.mark.slow
def test_packs_that_can_not_be_shared_evenly_are_an_error(trained, tmp_path):
    run = start("ddp", recipe_of(tmp_path / "run", trained.corpus), "packs_per_step=3")
    said, _ = run.communicate(timeout=120)
    assert run.returncode
    assert "a step of 3 packs can't be shared evenly by 2 processes; set packs_per_step to a multiple of 2" in " ".join(said.split())


def test_one_process_needs_no_launcher():
    here = Parallel("no")
    assert (here.strategy, here.processes, here.is_main) == ("single", 1, True)
    assert here.share_of(3) == 3
    assert here.sum(1.0, 2.0) == [1.0, 2.0]
    here.processes = 2
    with pytest.raises(RecipeError, match="multiple of 2"):
        here.share_of(3)


@pytest.mark.parametrize("path", sorted(assets.path("training", "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_is_one_that_accelerate_reads(path):
    from accelerate.commands.config.config_args import load_config_from_file

    opened = load_config_from_file(str(path))
    assert opened.num_processes >= 1
    assert opened.distributed_type != "FSDP" or opened.fsdp_config["fsdp_version"] == 2
