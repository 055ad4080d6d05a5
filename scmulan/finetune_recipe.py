"""The recipe of a fine-tuning: a model, labelled cells, what is trained, and defaults that suit tens to hundreds of cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scmulan.adapters import AdapterRecipe
from scmulan.corpus.pack import Packing
from scmulan.corpus.plan import EMBEDDED
from scmulan.errors import RecipeError, nearest
from scmulan.finetune_split import HeldOutRecipe
from scmulan.prompts import CELL, Prompts, load_prompts
from scmulan.training.recipe import LossRecipe, ModelRecipe, OptimizerRecipe, Recipe, fill, read_plain


@dataclass(frozen=True, kw_only=True)
class MixRecipe:
    """Old cells among the new ones, against forgetting.

    Attributes
    ----------
    generated : so many cells written by the model itself, of the labels it has seen and in their proportion; or
    cells : a corpus folder, or sources as in a corpus plan, of which the training cells are taken
    share : of the cells that are seen in training, about
    """

    generated: int | None = None
    cells: Any = None
    share: float = 0.2

    def __post_init__(self) -> None:
        if (self.generated is None) == (self.cells is None):
            raise RecipeError("mix: needed either `generated:` (a number of cells) or `cells:` (a corpus, or sources), not both")
        if self.generated is not None and self.generated < 1:
            raise RecipeError(f"mix.generated is {self.generated}: needed at least 1 cell")
        if not 0 < self.share < 1:
            raise RecipeError(f"mix.share {self.share:g}: needed a share between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """A whole fine-tuning.

    Attributes
    ----------
    output : folder that gets corpus, checkpoints, the curve, and ``adapter`` (or ``model``, where all weights are trained)
    base : a model folder, or ``demo``
    cells : labelled cells: a file, or a list of sources as in a corpus plan
    held_out : which cells are held out, to stop by
    mix : old cells among the new ones; none when not given
    adapter : rank, alpha, targets and bits of the adapter; null trains all weights
    readout : whether a readout of counts (``scmulan.readout``) is fitted on the same cells and weighed into the answers of ``annotate``
    rates : whether rates (``scmulan.rates``) are fitted on the same cells, by which cells are written, where a task writes them
    tasks : task to weight, of those that are trained; as in prompts/tasks.yaml when not given
    optimizer : learning rates; those that suit an adapter or all weights when not given
    loss : weight of each part; when not given, the answers alone where no task writes cells, else labels weigh 50
    steps, patience, evaluate_every : training ends after ``patience`` evaluations without a better held-out loss, or after ``steps``;
        what is kept is the best
    """

    output: str = "runs/finetune"
    seed: int = 0
    base: str = "demo"
    cells: Any = None
    held_out: HeldOutRecipe = field(default_factory=HeldOutRecipe)
    mix: MixRecipe | None = None
    adapter: AdapterRecipe | None = field(default_factory=AdapterRecipe)
    readout: bool = True
    rates: bool = True
    tasks: dict[str, float] | None = None
    model: ModelRecipe = field(default_factory=ModelRecipe)
    packing: Packing = field(default_factory=lambda: Packing(context=2048, pack_tokens=4096, thin_share=0.7, thin_least=0.3))
    optimizer: OptimizerRecipe | None = None
    loss: LossRecipe | None = None
    steps: int = 600
    packs_per_step: int = 1
    thin_until: float = 1.0
    precision: str = "bf16"
    compile: bool = False
    evaluate_every: int = 25
    evaluation_cells: int = 100
    patience: int | None = 6
    checkpoint_every: int = 100
    checkpoint_activations: bool = False
    folder: str = "."

    def __post_init__(self) -> None:
        if self.model.start is not None:
            raise RecipeError(f"model.start is {self.model.start!r}: the model that is tuned is given as `base:`")
        if self.cells is None:
            raise RecipeError("no cells: give a file of labelled cells, or a list of sources, as `cells:`")

    def prompts(self) -> Prompts:
        """The tasks with the weights of this recipe; RecipeError for a task that can't be trained."""
        prompts = load_prompts()
        if self.tasks is None:
            return prompts
        for name, weight in self.tasks.items():
            if name not in prompts.built:
                raise RecipeError(
                    f"tasks: {name!r} is none that can be trained{nearest(str(name), prompts.built)}; these can: {', '.join(prompts.built)}"
                )
            if isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0:
                raise RecipeError(f"tasks: {name} is {weight!r}: needed a weight of 0 or more")
        if not any(self.tasks.values()):
            raise RecipeError("tasks: every weight is 0; needed at least one task that is trained")
        changed = {name: dataclasses.replace(task, weight=float(self.tasks.get(name, 0))) for name, task in prompts.tasks.items()}
        return dataclasses.replace(prompts, tasks=changed)

    def weight_of(self, task: str) -> float:
        """How often a task is trained beside the others; 0 when it is not."""
        return self.prompts().tasks[task].weight

    def is_answering_only(self) -> bool:
        """Whether no task is trained that writes cells."""
        return not any(CELL in task.predict for task in self.prompts().tasks.values() if task.weight > 0)

    def training(self, base: Path, corpus: Path, *, is_held_out: bool, context: int | None = None) -> Recipe:
        """The recipe of the training loop; sentences are no longer than the model's ``context``."""
        packing = dataclasses.replace(self.packing, context=min(self.packing.context, context or self.packing.context))
        return Recipe(
            output=self.output, seed=self.seed, corpus=str(corpus), model=dataclasses.replace(self.model, start=str(base)),
            packing=packing, optimizer=self.optimizer or default_optimizer(self.adapter),
            loss=self.loss or default_loss(answering_only=self.is_answering_only()), adapter=self.adapter,
            steps=self.steps, packs_per_step=self.packs_per_step, thin_until=self.thin_until, precision=self.precision,
            compile=self.compile, evaluate_every=self.evaluate_every, evaluation_cells=self.evaluation_cells,
            checkpoint_every=self.checkpoint_every,
            checkpoint_activations=self.checkpoint_activations, keep_best=is_held_out, patience=self.patience if is_held_out else None,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as the card keeps it: without the folders of this machine."""
        found = {key: value for key, value in dataclasses.asdict(self).items() if key not in ("output", "folder", "base", "cells")}
        return {**found, "tasks": {name: task.weight for name, task in self.prompts().tasks.items() if task.weight > 0}}


def default_optimizer(adapter: AdapterRecipe | None) -> OptimizerRecipe:
    """AdamW, at a rate that suits an adapter, or all weights of a small model."""
    return OptimizerRecipe(matrix_lr=0.0, lr=0.005 if adapter else 0.0005, warmup=10, stable=0.5, last=0.05)


def default_loss(*, answering_only: bool) -> LossRecipe:
    """Of what is learnt: the answers alone, or the cells too, with labels weighing 50."""
    return LossRecipe(depth=0.0, level=0.0, gene=0.0, fields=1.0) if answering_only else LossRecipe(fields=50.0)


STAGES: dict[str, type[Any]] = {
    "held_out": HeldOutRecipe, "mix": MixRecipe, "adapter": AdapterRecipe, "model": ModelRecipe, "packing": Packing,
    "optimizer": OptimizerRecipe, "loss": LossRecipe,
}  # fmt: skip


def fill_finetune(given: Mapping[str, Any], where: str) -> FinetuneRecipe:
    """A fine-tuning recipe from plain data; RecipeError names an unknown key and its nearest, or a value of the wrong kind.

    What a stage leaves out has the default of fine-tuning, not that of pretraining.
    """
    defaults = {entry.name: entry.default_factory() for entry in dataclasses.fields(FinetuneRecipe) if callable(entry.default_factory)}
    stages: dict[str, Any] = {}
    for key, value in given.items():
        if key not in STAGES or value is None or dataclasses.is_dataclass(value):
            continue
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where}: {key} is {value!r}: needed a mapping")
        kept = dataclasses.asdict(defaults[key]) if key in defaults else {}
        if key == "optimizer":
            kept = dataclasses.asdict(default_optimizer(AdapterRecipe() if given.get("adapter", {}) is not None else None))
        if key == "loss":
            kept = dataclasses.asdict(default_loss(answering_only=False))
        stages[key] = fill(STAGES[key], {**kept, **value}, f"{where}: {key}")
    recipe: FinetuneRecipe = fill(FinetuneRecipe, {**given, **stages}, where)
    return recipe


def read_finetune(path: str | Path, overrides: Sequence[str] = ()) -> FinetuneRecipe:
    """A fine-tuning recipe from YAML with ``key=value`` overrides."""
    given, where, folder = read_plain(path, overrides)
    said = [override.partition("=")[2] for override in overrides if override.startswith("cells=")]
    if said and given["cells"] == said[-1] and not said[-1].startswith(EMBEDDED):
        given["cells"] = str(Path(said[-1]).absolute())  # what is said on the command line is meant from where it is said
    return fill_finetune({**given, "folder": folder}, where)
