"""Ways to take a training step, each timed in its parts: scmulan's, with its parts switched off, and a plain transformers loop.

The plain loop is what one would write with transformers alone, without a mistake: the same model class and size, sentences, precision and
places a step; minibatches of sentences of like length, padded on the right; sdpa under a causal and padding mask; the model's own loss
over the whole vocabulary; fused AdamW.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Protocol

import numpy as np
import torch

from scmulan.bench_losses import clock
from scmulan.bench_sentences import Material, Minibatch, minibatches
from scmulan.corpus.pack import Packs
from scmulan.model import new_model
from scmulan.training.attention import PACKED
from scmulan.training.loss import SoftmaxChunk
from scmulan.training.models import model_of
from scmulan.training.optimizers import make_optimizers
from scmulan.training.packed import Loss, PackedLM, PackInputs, shipped_loss
from scmulan.training.parallel import Parallel
from scmulan.training.recipe import ModelRecipe, OptimizerRecipe, Recipe
from scmulan.training.sizing import Size, operations, size_of

STEPS_AHEAD = 2
CLIP = 1.0


@dataclass(frozen=True)
class Timing:
    """Seconds of steps by part, and the ids they read, padding not counted.

    Attributes
    ----------
    prepare : what is made before the model can run; on a GPU, the waiting for it
    gradients : forward and backward
    update : clipping and the optimizers
    operations : floating-point operations that the model needs for these ids
    updates : steps that these are
    """

    tokens: int
    prepare: float
    gradients: float
    update: float
    operations: float = 0.0
    updates: int = 1

    @classmethod
    def nothing(cls) -> Timing:
        return cls(0, 0.0, 0.0, 0.0, updates=0)

    @property
    def seconds(self) -> float:
        return self.prepare + self.gradients + self.update

    def __add__(self, other: Timing) -> Timing:
        return Timing(*(one + two for one, two in zip(vars(self).values(), vars(other).values(), strict=True)))


class Way(Protocol):
    """A way to train, ready to take steps."""

    def step(self) -> Timing: ...


@dataclass(frozen=True, kw_only=True)
class Switches:
    """What of the shipped step is in use.

    Attributes
    ----------
    sentences : ``packed``, or in minibatches padded to the longest, ``bucketed`` by length or ``drawn``
    isolated : whether sentences of a pack do not see each other
    attention : of the model; ``sdpa`` has a mask of the whole pack
    matrix_lr : 0 is AdamW for all
    """

    compiled: bool = True
    sentences: str = "packed"
    isolated: bool = True
    attention: str = PACKED
    loss_of: Loss = shipped_loss
    matrix_lr: float = OptimizerRecipe.matrix_lr


def operations_needed(size: Size, inputs: PackInputs) -> float:
    """Floating-point operations of a pack, forward and backward, as `scmulan.training.sizing` counts them."""
    lengths = np.diff(inputs.bounds).astype(float)
    n_ids, pairs, logits = float(lengths.sum()), float((lengths * (lengths + 1) / 2).sum()), 0
    for chunk in inputs.chunks:
        spans = chunk.spans if isinstance(chunk, SoftmaxChunk) else ((chunk.first, chunk.last),)
        logits += len(chunk.at) * sum(last - first for first, last in spans)
    return operations(size, keys=pairs / n_ids, columns=logits / n_ids).needed * n_ids


class PackedWay:
    """scmulan's step on one pack."""

    def __init__(self, material: Material, preset: str, switches: Switches, *, seed: int = 0):
        recipe = Recipe(
            corpus=str(material.corpus.folder), seed=seed, packing=material.packing, model=ModelRecipe(preset=preset),
            optimizer=OptimizerRecipe(matrix_lr=switches.matrix_lr, clip=CLIP),
        )  # fmt: skip
        self.material, self.switches = material, switches
        self.parallel = Parallel(recipe.precision)
        lm = model_of(recipe, material.corpus, material.writer).lm
        lm.set_attn_implementation(switches.attention)
        self.size = size_of(lm)
        self.packed = PackedLM(lm, material.writer.vocabulary, switches.loss_of)
        self.module = self.parallel.wrap(self.packed, compiled=switches.compiled)
        self.optimizers = make_optimizers(self.packed, recipe)
        self.feed = _ahead(self._prepared(), is_ahead=self.parallel.device.type == "cuda")

    def _packs(self) -> Sequence[tuple[Packs, int, int]]:
        """Packs by place, with their real ids."""
        packs = self.material.packs
        if self.switches.sentences == "packed":
            return [(packs, place, int(packs.bounds[place][-1])) for place in range(len(packs))]
        is_bucketed = self.switches.sentences == "bucketed"
        found = minibatches(packs, self.material.packing.pack_tokens, pad=self.material.writer.vocabulary.pad, bucketed=is_bucketed)
        return [(each.as_pack(), 0, int(each.lengths.sum())) for each in found]

    def _prepared(self) -> Iterator[Callable[[], tuple[PackInputs, int]]]:
        for packs, place, tokens in cycle(self._packs()):
            yield lambda packs=packs, place=place, tokens=tokens: (self._inputs(packs, place), tokens)  # type: ignore[misc]

    def _inputs(self, packs: Packs, place: int) -> PackInputs:
        inputs = self.packed.prepare(packs, place, self.material.weights, self.parallel.device.type)
        return inputs if self.switches.isolated else replace(inputs, bounds=[0, len(inputs.ids)])

    def step(self) -> Timing:
        device = self.parallel.device
        began = clock(device)
        inputs, tokens = next(self.feed)
        ready = clock(device)
        with self.parallel.gradients(self.module, is_last=True):
            loss, _ = self.module(inputs)
            (loss / float(inputs.weights.sum())).backward()
        computed = clock(device)
        self.parallel.clip(self.module, CLIP)
        self.parallel.step(self.optimizers)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        updated = clock(device)
        return Timing(tokens, ready - began, computed - ready, updated - computed, operations_needed(self.size, inputs))


class PlainWay:
    """A plain transformers step on one padded minibatch."""

    def __init__(self, material: Material, preset: str, *, compiled: bool, seed: int = 0):
        self.device = Parallel("bf16").device
        self.lm = new_model(preset, material.writer.vocabulary, context=material.packing.context, seed=seed)
        self.lm.set_attn_implementation("sdpa")
        self.lm.to(self.device).train()
        self.module = torch.compile(self.lm, dynamic=True) if compiled else self.lm
        self.optimizer = torch.optim.AdamW(self.lm.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        vocabulary = material.writer.vocabulary
        self.minibatches = cycle(minibatches(material.packs, material.packing.pack_tokens, pad=vocabulary.pad, bucketed=True, seed=seed))

    def _inputs(self, minibatch: Minibatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ids = torch.from_numpy(minibatch.ids.astype(np.int64))
        mask = torch.arange(ids.shape[1]) < torch.from_numpy(minibatch.lengths)[:, None]
        labels = ids.masked_fill(~mask, -100)
        ids, mask, labels = (part.to(self.device) for part in (ids, mask.long(), labels))
        return ids, mask, labels

    def step(self) -> Timing:
        minibatch = next(self.minibatches)
        began = clock(self.device)
        ids, mask, labels = self._inputs(minibatch)
        ready = clock(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self.module(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        computed = clock(self.device)
        torch.nn.utils.clip_grad_norm_(self.lm.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return Timing(int(minibatch.lengths.sum()), ready - began, computed - ready, clock(self.device) - computed)


def _ahead(calls: Iterator[Callable[[], tuple[PackInputs, int]]], *, is_ahead: bool) -> Iterator[tuple[PackInputs, int]]:
    """What the calls return; made some steps ahead in a thread, as in training, where the device is another than the processor."""
    if not is_ahead:
        for call in calls:
            yield call()
    pool = ThreadPoolExecutor(1)
    waiting: deque[Future[tuple[PackInputs, int]]] = deque(pool.submit(next(calls)) for _ in range(STEPS_AHEAD))
    while True:
        waiting.append(pool.submit(next(calls)))
        yield waiting.popleft().result()
