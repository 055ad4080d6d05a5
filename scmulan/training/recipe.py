"""The recipe of a pretraining run: one YAML file, one dataclass a stage; an unknown key is an error that names the nearest."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from scmulan import assets
from scmulan.adapters import AdapterRecipe
from scmulan.corpus.pack import Packing
from scmulan.errors import RecipeError, nearest


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """Which model is trained.

    Attributes
    ----------
    start : a model folder to go on from, with fresh optimizers; its tokenizer has to be the corpus's. Or the folder of a Hugging Face
        causal LM (a Qwen, a Llama), whose tokenizer the corpus's extends (``scmulan tokenizer extend``)
    preset : a name of ``scmulan.model.PRESETS``, from scratch, where there is no ``start``
    gene_start : how gene embeddings begin: ``detection`` (Fourier features of cumulative detection) or ``random``
    dropout : share of the embeddings and of what each layer adds that is dropped in training
    """

    start: str | None = None
    preset: str = "demo"
    gene_start: str = "detection"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise RecipeError(f"model.dropout {self.dropout}: needed a share from 0 to less than 1")
        if self.gene_start not in ("detection", "random"):
            raise RecipeError(f"model.gene_start {self.gene_start!r}: needed detection or random")


RATED = ("generate", "perturb")
SCHEDULES = ("wsd", "cosine")


@dataclass(frozen=True, kw_only=True)
class OptimizerRecipe:
    """Muon for the matrices of the layers, AdamW for the rest.

    Attributes
    ----------
    matrix_lr : learning rate of Muon, its update scaled to AdamW's (0: AdamW for all)
    lr : learning rate of AdamW (embeddings, norms)
    weight_decay : of both
    warmup : steps of linear rise
    schedule : ``wsd`` (rise, level, linear fall) or ``cosine`` (rise, then half a cosine)
    stable : of ``wsd``, share of the steps before the linear fall begins
    last : share of the learning rate at the end of the fall
    clip : largest gradient norm
    """

    matrix_lr: float = 0.01
    lr: float = 0.004
    weight_decay: float = 0.0
    warmup: int = 30
    schedule: str = "wsd"
    stable: float = 0.4
    last: float = 0.02
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise RecipeError(f"optimizer.schedule {self.schedule!r}: needed {' or '.join(SCHEDULES)}{nearest(self.schedule, SCHEDULES)}")


@dataclass(frozen=True, kw_only=True)
class LossRecipe:
    """Weight of each part of a sentence; a field not named has ``fields``."""

    depth: float = 1.0
    level: float = 1.0
    gene: float = 1.0
    fields: float = 5.0
    of_field: dict[str, float] = field(default_factory=dict)

    def weight_of(self, part: str) -> float:
        """Weight of a part by name; what is given and the frame weigh nothing."""
        fixed = {"given": 0.0, "frame": 0.0, "depth": self.depth, "level": self.level, "gene": self.gene}
        return fixed.get(part, self.of_field.get(part, self.fields))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run.

    Attributes
    ----------
    output : folder that gets tokenizer, corpus, checkpoints, the curve and the model
    plan : corpus plan, as in ``scmulan corpus build``; or
    corpus : a corpus folder that exists
    adapter : an adapter on ``model.start``, which alone is trained; all weights are when not given
    steps : optimizer steps
    packs_per_step : packs that make one step, over all processes; or
    tokens_per_step : places of ids that make one step, rounded to whole packs
    thin_until : share of the steps after which no cell is thinned for augmentation any more
    precision : ``bf16`` (float32 where the hardware multiplies no bfloat16) or ``no``
    compile : whether the layers are compiled
    evaluate_every, checkpoint_every : steps; ``keep`` checkpoints stay
    evaluation_cells : held-out cells that each evaluation reads
    checkpoint_activations : layers are computed again in the backward pass, which takes a third more time and far less memory
    save_in_background : training goes on while a checkpoint is written
    bad_steps : so many steps in a row may be left out, for a loss that is no number or leaps, before the run stops
    keep_best : the model that is written is that of the best held-out loss, not of the last step
    patience : so many evaluations without a better held-out loss end the run; never when not given
    rates : tasks (``generate``, ``perturb``) of which ``scmulan pretrain`` then fits rates on the training cells
    """

    output: str = "runs/pretrain"
    seed: int = 0
    plan: dict[str, Any] | None = None
    corpus: str | None = None
    model: ModelRecipe = field(default_factory=ModelRecipe)
    packing: Packing = field(default_factory=Packing)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    loss: LossRecipe = field(default_factory=LossRecipe)
    adapter: AdapterRecipe | None = None
    steps: int = 1000
    packs_per_step: int | None = None
    tokens_per_step: int | None = None
    thin_until: float = 0.7
    precision: str = "bf16"
    compile: bool = False
    evaluate_every: int = 500
    evaluation_cells: int = 200
    checkpoint_every: int = 200
    keep: int = 2
    checkpoint_activations: bool = False
    save_in_background: bool = False
    bad_steps: int = 3
    keep_best: bool = False
    patience: int | None = None
    rates: list[str] = field(default_factory=list)
    folder: str = "."

    def __post_init__(self) -> None:
        if (self.plan is None) == (self.corpus is None):
            raise RecipeError(
                "the recipe needs either `plan:` (sources to build a corpus from) or `corpus:` (a folder that exists), not both"
            )
        if self.adapter is not None and self.model.start is None:
            raise RecipeError("adapter: needed a model that it stands on; give its folder as model.start")
        if self.precision not in ("bf16", "no"):
            raise RecipeError(f"precision {self.precision!r}: needed bf16 or no")
        if self.packs_per_step is not None and self.tokens_per_step is not None:
            raise RecipeError("packs_per_step and tokens_per_step are two ways to say one thing; leave one of them out")
        if self.tokens_per_step is not None and self.tokens_per_step < self.packing.pack_tokens:
            raise RecipeError(f"tokens_per_step is {self.tokens_per_step}: needed at least one pack ({self.packing.pack_tokens})")
        for name in self.rates:
            if name not in RATED:
                raise RecipeError(f"rates: {name!r}: needed {' or '.join(RATED)}{nearest(name, RATED)}")
        for name in ("steps", "packs_per_step", "evaluate_every", "checkpoint_every", "keep", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecipeError(f"{name} is {value}: needed at least 1")

    @property
    def step_packs(self) -> int:
        """Packs that make one step, over all processes."""
        if self.tokens_per_step is not None:
            return round(self.tokens_per_step / self.packing.pack_tokens)
        return self.packs_per_step or 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it is saved with every result."""
        return dataclasses.asdict(self)


def packing_of(recipe: Recipe, tokens_per_epoch: float, epoch: int) -> Packing:
    """How an epoch is packed: without thinning in the last epochs, so that the end of training sees real depths only."""
    steps_per_epoch = tokens_per_epoch / (recipe.packing.pack_tokens * recipe.step_packs)
    if epoch * steps_per_epoch >= recipe.thin_until * recipe.steps:
        return dataclasses.replace(recipe.packing, thin_share=0.0)
    return recipe.packing


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from YAML with ``key=value`` overrides (dots reach inside); relative names are also looked for among the shipped ones."""
    given, where, folder = read_plain(path, overrides)
    try:
        recipe: Recipe = fill(Recipe, given | {"folder": folder}, where)
    except RecipeError as error:  # of the values together, it does not know the file
        raise RecipeError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    return recipe


def read_plain(path: str | Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], str, str]:
    """A recipe file's plain data with its overrides, where it was found, and its folder."""
    path = Path(path)
    if not path.is_file() and not path.is_absolute():
        shipped = assets.path("training")
        path = next((found for found in (shipped / path.name, shipped.parent / path) if found.is_file()), path)
    try:
        given = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}; give the path of a recipe, for example training/demo.yaml") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: not YAML ({error})") from None
    if not isinstance(given, dict):
        raise RecipeError(f"{path} holds {type(given).__name__}: needed a mapping, as in training/demo.yaml")
    for override in overrides:
        _override(given, override)
    return given, str(path), str(path.parent)


def _override(given: dict[str, Any], override: str) -> None:
    """Put ``packing.context=128`` into a recipe's plain data."""
    key, _, value = override.partition("=")
    *outer, last = key.split(".")
    place = given
    for name in outer:
        below = place.setdefault(name, {})
        if not isinstance(below, dict):
            raise RecipeError(f"--set {key}: {name} is {below!r}, which has no parts")
        place = below
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"--set {override}: not YAML") from None


STAGES: dict[str, type[Any]] = {
    "model": ModelRecipe,
    "packing": Packing,
    "optimizer": OptimizerRecipe,
    "loss": LossRecipe,
    "adapter": AdapterRecipe,
}


def fill(cls: type[Any], given: Mapping[str, Any], where: str) -> Any:
    """A recipe dataclass from a mapping; RecipeError names an unknown key and its nearest, or a value of the wrong kind."""
    known = {entry.name: entry for entry in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise RecipeError(f"{where}: unknown key {key!r}{nearest(str(key), list(known))}; known: {', '.join(known)}")
        if cls is Recipe and key in STAGES and not (key == "adapter" and value is None):
            if not isinstance(value or {}, Mapping):
                raise RecipeError(f"{where}: {key} is {value!r}: needed a mapping")
            values[key] = fill(STAGES[key], value or {}, f"{where}: {key}")
            continue
        values[key] = _checked(value, str(known[key].type), f"{where}: {key}")
    return cls(**values)


KINDS = (("bool", bool, "true or false"), ("str", str, "a text"), ("dict", Mapping, "a mapping"), ("list", list, "a list"))


def _checked(value: Any, kind: str, where: str) -> Any:
    """The value, or RecipeError when it is of another kind than the one needed."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "float" and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise RecipeError(f"{where} is {value!r}: needed a number") from None
    if value is None and "None" in kind:
        return None
    kind = kind.removesuffix(" | None")
    if kind in ("int", "float") and not is_number:
        raise RecipeError(f"{where} is {value!r}: needed a number")
    if kind == "int" and not float(value).is_integer():
        raise RecipeError(f"{where} is {value!r}: needed a whole number")
    for name, needed, words in (
        ("bool", bool, "true or false"),
        ("str", str, "a text"),
        ("dict", Mapping, "a mapping"),
        ("list", list, "a list"),
    ):
        if kind.split("[")[0] == name and not isinstance(value, needed):
            is_bare_word = name == "str" and isinstance(value, bool)
            quotes = " (YAML reads no, yes, on and off as truth unless they stand in quotes)" if is_bare_word else ""
            raise RecipeError(f"{where} is {value!r}: needed {words}{quotes}")
    return int(value) if kind == "int" else value
