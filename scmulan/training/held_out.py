"""Nats of held-out sentences, by task and part, as the training loop measures them on its way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from scmulan.corpus.pack import Packs, counts_of, epoch_packs, sentence_tasks
from scmulan.corpus.shards import CellRows, Corpus
from scmulan.prompts import CELL_PARTS, FRAME, SentenceWriter
from scmulan.training.packed import PackedLM
from scmulan.training.parallel import Parallel
from scmulan.training.recipe import Recipe

SHARDS_HELD_OUT = 64
"""Held-out cells to be evaluated are drawn from so many shards, so that an atlas need not be read for them."""


@dataclass(frozen=True)
class Data:
    """Cells of a split, as ids and as counts, with what is needed to write sentences of them."""

    rows: CellRows
    counts: sp.csr_matrix
    writer: SentenceWriter

    @classmethod
    def open(cls, corpus: Corpus, split: str, writer: SentenceWriter, most: int | None = None) -> Data:
        rows = corpus.read(split, _spread(corpus, SHARDS_HELD_OUT) if most is not None else None)
        if most is not None and len(rows) > most:
            rows = rows.select(np.random.default_rng(0).permutation(len(rows))[:most].tolist())
        return cls(rows, counts_of(rows.ids, writer), writer)


def _spread(corpus: Corpus, most: int) -> list[str]:
    """Up to ``most`` shards, evenly spread over the corpus."""
    files = [shard["file"] for shard in corpus.manifest["shards"]]
    return [files[place] for place in np.unique(np.linspace(0, len(files) - 1, min(most, len(files))).astype(int))]


def held_out_packs(corpus: Corpus, writer: SentenceWriter, recipe: Recipe) -> Packs | None:
    """Packs of held-out cells, of the ``valid`` split or else of ``test``; None when the corpus has neither."""
    split = next((name for name in ("valid", "test") if any(name in source["splits"] for source in corpus.manifest["sources"])), None)
    if split is None:
        return None
    held = Data.open(corpus, split, writer, recipe.evaluation_cells)
    questions = min(recipe.packing.questions, 2 * recipe.evaluation_cells)
    packing = replace(recipe.packing, thin_share=0.0, dataset_weights=None, questions=questions)
    return epoch_packs(held.rows, held.counts, writer, packing, seed=1, epoch=0, augment=False)


@dataclass
class HeldOut:
    """Nats on held-out cells, unthinned where they fit, one sentence each; ``loss`` is weighted as in training."""

    loss: float = float("nan")
    per_token: dict[str, float] = field(default_factory=dict)
    per_sentence: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        cell = self.per_sentence.get("generate/cell")
        labels = [
            f"{name.split('/')[1]} {value:.2f}"
            for name, value in self.per_sentence.items()
            if name.startswith("annotate/") and name.split("/")[1] not in (*CELL_PARTS, FRAME, "cell")
        ]
        cells = [f"{cell:,.0f} nats a cell given its fields"] if cell is not None else []
        answers = [f"annotate {', '.join(labels)} nats a label"] if labels else []
        return "; ".join([f"held out: loss {self.loss:.4f}", *cells, *answers])


def evaluate(
    module: torch.nn.Module, inner: PackedLM, packs: Packs, writer: SentenceWriter, weights: npt.NDArray[np.float32], parallel: Parallel
) -> HeldOut:
    """Nats per token and per sentence of every task and part, the packs shared by the processes.

    Parameters
    ----------
    module : what answers a pack, as wrapped for the processes
    inner : the module within
    weights : (parts,) of the training loss
    """
    names, tasks = writer.prompts.parts, sentence_tasks(writer)
    found = np.zeros((3, len(tasks), len(names)))  # nats, tokens, sentences
    module.eval()
    with torch.no_grad(), parallel.accelerator.autocast():
        for first in range(0, len(packs), parallel.processes):
            # every process takes a turn, for FSDP2 gathers in each; the last ones may have none of their own
            place = min(first + parallel.process, len(packs) - 1)
            inputs = inner.prepare(packs, place, weights, parallel.device.type)
            nats = module(inputs)[1].float().cpu().numpy()
            if first + parallel.process < len(packs):
                found += _sums(nats, inputs.predicted, packs.bounds[place], packs.tasks[place], found.shape[1:])
    module.train()
    sums, tokens, sentences = np.array(parallel.sum(*found.ravel().tolist())).reshape(found.shape)
    return _held_out(sums, tokens, sentences, [task.name for task in tasks], names, weights)


def _sums(
    nats: npt.NDArray[np.float32], predicted: npt.NDArray[np.int64], bounds: npt.ArrayLike, tasks: npt.ArrayLike, shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """Nats, tokens and sentences of one pack by task and part; (3, tasks, parts)."""
    found, edges = np.zeros((3, *shape)), np.asarray(bounds)
    for task, first, last in zip(np.asarray(tasks), edges[:-1], edges[1:], strict=True):
        inside = predicted[first : last - 1]
        count = np.bincount(inside, minlength=shape[1])
        found[0, task] += np.bincount(inside, nats[first : last - 1], shape[1])
        found[1, task] += count
        found[2, task] += count > 0
    return found


def _held_out(
    sums: npt.NDArray[np.float64],
    tokens: npt.NDArray[np.float64],
    sentences: npt.NDArray[np.float64],
    tasks: list[str],
    names: tuple[str, ...] | list[str],
    weights: npt.NDArray[np.float32],
) -> HeldOut:
    learnt = slice(1, None)
    held = HeldOut(loss=float((sums[:, learnt] * weights[learnt]).sum() / max(float((tokens[:, learnt] * weights[learnt]).sum()), 1e-9)))
    for code, task in enumerate(tasks):
        for part, name in enumerate(names[1:], 1):
            if tokens[code, part]:
                held.per_token[f"{task}/{name}"] = float(sums[code, part] / tokens[code, part])
                held.per_sentence[f"{task}/{name}"] = float(sums[code, part] / sentences[code, part])
        whole = sums[code, 1:4].sum() / max(sentences[code, 1:4].max(), 1)
        if whole:
            held.per_sentence[f"{task}/cell"] = float(whole)
    return held
