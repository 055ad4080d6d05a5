"""A recipe's run before it starts: what it reads, what it costs, where it fits, and which model its corpus could feed.

The arithmetic is `sizing`; here are the figures that go into it, from the recipe and from a sample of the corpus's cells packed as
training would pack them.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig

from scmulan.corpus.pack import Packs, counts_of, epoch_packs
from scmulan.corpus.sentences import Sentences, mean_keys
from scmulan.corpus.shards import Corpus
from scmulan.corpus.windows import folder_of
from scmulan.csentence import Vocabulary
from scmulan.errors import CheckpointError, CorpusError, RecipeError
from scmulan.model import model_folder
from scmulan.prompts import SentenceWriter
from scmulan.training import sizing
from scmulan.training.hardware import Device
from scmulan.training.loss import Chunk, HazardChunk
from scmulan.training.packed import PackInputs
from scmulan.training.recipe import Recipe

SAMPLED_CELLS = 1024
SAMPLED_SHARDS = 8
SAMPLED_PACKS = 8
EPOCHS_NEARLY_AS_GOOD = 4
"""Muennighoff et al. 2023: data repeated so often are nearly as good as new."""


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a run would be; ``memory`` by how the model lies on the devices, ``optimal`` by epochs, ``notes`` what a user should change."""

    model: dict[str, Any]
    corpus: dict[str, Any]
    run: dict[str, Any]
    operations: dict[str, Any]
    time: dict[str, Any]
    memory: dict[str, dict[str, int]]
    disk: dict[str, int]
    optimal: dict[str, dict[str, Any]]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


def model_size(recipe: Recipe, vocabulary: Vocabulary) -> sizing.Size:
    """The size of the model that a recipe begins with; CheckpointError when it starts from a folder without a config."""
    if recipe.model.start is None:
        return sizing.preset_size(recipe.model.preset, vocabulary)
    folder = model_folder(recipe.model.start)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"model.start {folder}: no config of a model ({error}); give a model folder") from None
    config.vocab_size = max(config.vocab_size, vocabulary.size)
    return sizing.config_size(config, recipe.adapter)


def measure_sentences(corpus: Corpus, recipe: Recipe, writer: SentenceWriter, *, on_gpu: bool) -> Sentences:
    """A corpus's training sentences, from a sample of cells packed as in the first epoch; CorpusError when there is none to train on."""
    cells = sum(source["splits"].get("train", 0) for source in corpus.manifest["sources"])
    files = [shard["file"] for shard in corpus.manifest["shards"]]
    spread = np.unique(np.linspace(0, len(files) - 1, min(SAMPLED_SHARDS, len(files))).astype(int))
    rows = corpus.read("train", [files[place] for place in spread]) if files else None
    if rows is None or not len(rows):
        raise CorpusError(f"{corpus.folder}: no cell in the train split; change the plan's split")
    rows = rows.select(np.random.default_rng(0).permutation(len(rows))[:SAMPLED_CELLS].tolist())
    packs = epoch_packs(rows, counts_of(rows.ids, writer), writer, recipe.packing, seed=recipe.seed, epoch=0)
    lengths = np.concatenate([np.diff(bounds) for bounds in packs.bounds]).astype(np.int64)
    columns, chunk = _loss_shape(packs, writer, "cuda" if on_gpu else "cpu")
    packed = _packed_fill(corpus, recipe, writer)
    return Sentences(
        cells=cells, tokens=round(cells * lengths.sum() / len(rows)), length=float(lengths.mean()), keys=mean_keys(lengths),
        fill=packed or (packs.fill if len(rows) == cells else _fill(packs)), columns=columns, chunk=chunk,
        how=f"measured on {len(rows):,} of {cells:,} training cells" + (", fill on the packed files" if packed else ""),
    )  # fmt: skip


def _fill(packs: Packs) -> float:
    """Share of the places that hold an id, the emptiest pack left out: of a whole corpus's many packs it is one."""
    ends = sorted(int(bounds[-1]) for bounds in packs.bounds)
    return float(np.mean(ends[1:] or ends) / packs.ids.shape[1])


def _packed_fill(corpus: Corpus, recipe: Recipe, writer: SentenceWriter) -> float | None:
    """The same of the files that `scmulan corpus pack` wrote for this recipe; None where there are none."""
    manifest = folder_of(corpus, writer, recipe.packing, recipe.seed) / "manifest.json"
    if not manifest.is_file():
        return None
    windows = json.loads(manifest.read_text())["windows"]
    return float(sum(window["packs"] * window["fill"] for window in windows) / sum(window["packs"] for window in windows))


def _loss_shape(packs: Packs, writer: SentenceWriter, device: str) -> tuple[float, int]:
    """Logits of a token's loss on average, and those of the largest chunk."""
    weights = np.ones(len(writer.prompts.parts), dtype=np.float32)
    chosen = range(min(SAMPLED_PACKS, len(packs)))
    logits = [[_logits(one) for one in PackInputs.of(packs, place, weights, writer.vocabulary, device=device).chunks] for place in chosen]
    tokens = sum(int(packs.bounds[place][-1]) for place in chosen)
    return sum(sum(of_pack) for of_pack in logits) / tokens, max((max(of_pack, default=0) for of_pack in logits), default=0)


def _logits(chunk: Chunk) -> int:
    spans = ((chunk.first, chunk.last),) if isinstance(chunk, HazardChunk) else chunk.spans
    return len(chunk.at) * sum(last - first for first, last in spans)


def plan_run(
    recipe: Recipe, sentences: Sentences, vocabulary: Vocabulary, *, device: Device, devices: int = 1, mfu: float = 0.4
) -> RunPlan:
    """What a recipe's run would be on so many devices that reach a share ``mfu`` of their peak.

    Raises
    ------
    RecipeError
        When ``mfu`` is no share of 1, or ``devices`` less than 1.
    """
    if not 0 < mfu <= 1:
        raise RecipeError(f"--mfu {mfu:g}: needed a share of the peak, more than 0 and at most 1; 0.4 is usual")
    if devices < 1:
        raise RecipeError(f"--gpus {devices}: needed at least 1")
    size, sizes = model_size(recipe, vocabulary), sizing.preset_sizes(vocabulary)
    has_muon = recipe.optimizer.matrix_lr > 0
    per_step = recipe.step_packs * recipe.packing.pack_tokens * sentences.fill
    tokens = per_step * recipe.steps
    epochs = tokens / max(sentences.tokens, 1)
    needed = sizing.operations(size, keys=sentences.keys, columns=sentences.columns, is_checkpointed=recipe.checkpoint_activations)
    hours = sizing.hours((needed.needed + needed.recomputed) * tokens, peak_tflops=device.peak_tflops, mfu=mfu, devices=devices)
    memory = _memory(recipe, size, sentences.chunk, device, devices)
    return RunPlan(
        model={"name": recipe.model.start or recipe.model.preset, **dataclasses.asdict(size)},
        corpus=dataclasses.asdict(sentences),
        run={
            "steps": recipe.steps, "tokens_per_step": round(per_step), "tokens": round(tokens), "epochs": epochs,
            "worth_new_tokens": round(sizing.effective_tokens(sentences.tokens, epochs)), "tokens_per_parameter": tokens / size.total,
        },
        operations={
            "per_token": {**dataclasses.asdict(needed), "needed": needed.needed}, "run": needed.needed * tokens,
        },
        time={
            "hours": hours, "device": device.name, "devices": devices, "mfu": mfu, "peak_tflops": device.peak_tflops,
            "peak_from": device.source, "tokens_per_second": tokens / max(hours * 3600, 1e-9),
        },
        memory=memory,
        disk={
            "checkpoints_and_model": sizing.checkpoint_bytes(size, has_muon=has_muon, keep=recipe.keep),
            "of_which_model": sizing.folder_bytes(size),
        },
        optimal={str(number): _optimal(sentences.tokens, number, sizes) for number in (1, EPOCHS_NEARLY_AS_GOOD)},
        notes=_notes(recipe, size, sentences.tokens, epochs, memory, device, devices),
    )  # fmt: skip


def _memory(recipe: Recipe, size: sizing.Size, chunk: int, device: Device, devices: int) -> dict[str, dict[str, int]]:
    """Bytes by part, for each way to lay the model out, with and without activations made again."""
    found = {}
    for name, shards in (("DDP" if devices > 1 else "one process", False), ("FSDP2", True)):
        if shards and devices == 1:
            continue
        for is_checkpointed in (False, True):
            memory = sizing.memory(
                size, recipe.packing.pack_tokens, chunk=chunk, precision=recipe.precision, has_muon=recipe.optimizer.matrix_lr > 0,
                is_checkpointed=is_checkpointed, on_gpu=device.name != "cpu", devices=devices, shards=shards,
                accumulates=recipe.step_packs > devices,
            )  # fmt: skip
            found[name + (", checkpointed" if is_checkpointed else "")] = {**dataclasses.asdict(memory), "total": memory.total}
    return found


def _optimal(unique: int, epochs: int, sizes: dict[str, sizing.Size]) -> dict[str, Any]:
    worth = sizing.effective_tokens(unique, epochs)
    parameters = sizing.optimal_parameters(worth)
    return {"worth_new_tokens": round(worth), "parameters": round(parameters), "nearest_preset": sizing.nearest_preset(parameters, sizes)}


def _notes(
    recipe: Recipe, size: sizing.Size, unique: int, epochs: float, memory: dict[str, dict[str, int]], device: Device, devices: int
) -> list[str]:
    notes = []
    best = sizing.optimal_parameters(sizing.effective_tokens(unique, EPOCHS_NEARLY_AS_GOOD))
    if size.trained > 3 * best and not size.adapter:
        notes.append(
            f"the model is {size.total / best:,.1f} times as large as {EPOCHS_NEARLY_AS_GOOD} epochs of this corpus feed; a smaller one, "
            "thinning, dropout or more cells keep it from learning cells by heart"
        )
    if epochs > 4 * EPOCHS_NEARLY_AS_GOOD:
        notes.append(f"{epochs:,.0f} epochs: beyond about {4 * EPOCHS_NEARLY_AS_GOOD}, repeated data add next to nothing")
    if recipe.step_packs % devices:
        notes.append(f"packs_per_step {recipe.step_packs} can't be shared evenly by {devices} processes; set it to a multiple of {devices}")
    limit = device.memory_gb
    tight = [name for name, parts in memory.items() if limit and parts["total"] > limit * 1e9]
    if tight:
        notes.append(f"more than the {limit:g} GB of {device.name}: {'; '.join(tight)}")
    return notes


def writer_of(corpus_folder: Path) -> SentenceWriter:
    """The writer of sentences under a corpus's tokenizer."""
    from scmulan.prompts import load_prompts
    from scmulan.tokenizer import load_tokenizer, load_vocabulary

    folder = corpus_folder / "tokenizer"
    return SentenceWriter(load_tokenizer(folder), load_vocabulary(folder), load_prompts())
