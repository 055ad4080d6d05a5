"""The pretraining loop: packs in, checkpoints and a curve out, on whatever accelerate was configured for.

Data order is a function of (seed, epoch, place in the epoch) alone and is the same on any number of processes; a resumed run
repeats the uninterrupted one. Knows ids only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from scmulan import __version__
from scmulan.corpus.pack import Packing, Packs, counts_of, epoch_packs
from scmulan.corpus.shards import CellRows, Corpus
from scmulan.corpus.windows import Window, window_packs, windows_of
from scmulan.csentence import Vocabulary
from scmulan.errors import CorpusError, EngineError
from scmulan.model import load_checkpoint, n_parameters, new_model, save_checkpoint, start_genes_by_detection
from scmulan.prompts import Prompts, SentenceWriter, load_prompts
from scmulan.tokenizer import load_tokenizer, load_vocabulary, tokenizer_hash
from scmulan.training import attention, checkpoints
from scmulan.training.dropout import add_dropout
from scmulan.training.held_out import evaluate
from scmulan.training.loss import Loss, loss_of_pack, pack_loss
from scmulan.training.optimizers import learning_rate_share, make_optimizers
from scmulan.training.recipe import Recipe, packing_of
from scmulan.training.seen import detection, seen_labels, training_size

Say = Callable[[str], None]
SHARDS_HELD_OUT = 64
"""Held-out cells to be evaluated are drawn from so many shards, so that an atlas need not be read for them."""


@dataclass
class Cursor:
    """Where the run stands in its data."""

    step: int = 0
    epoch: int = 0
    window: int = 0
    place: int = 0
    tokens: int = 0


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


class PackStream:
    """Packs of one window after another, the next one made or opened while this one is trained on."""

    def __init__(self, corpus: Corpus, writer: SentenceWriter, packing_of: Callable[[int], Packing], seed: int, cursor: Cursor):
        self.corpus, self.writer, self.packing_of, self.seed, self.cursor = corpus, writer, packing_of, seed, cursor
        self.pool = ThreadPoolExecutor(1)
        self.packs: Packs = self._make(cursor.epoch, cursor.window)
        self.ahead: Future[Packs] = self.pool.submit(self._make, *self._after())

    def _windows(self, epoch: int) -> list[Window]:
        return windows_of(self.corpus, self.packing_of(epoch).window_cells, seed=self.seed, epoch=epoch)

    def _after(self) -> tuple[int, int]:
        """Epoch and window that come after those of the cursor."""
        is_last = self.cursor.window + 1 == len(self._windows(self.cursor.epoch))
        return (self.cursor.epoch + 1, 0) if is_last else (self.cursor.epoch, self.cursor.window + 1)

    def _make(self, epoch: int, number: int) -> Packs:
        return window_packs(self.corpus, self._windows(epoch)[number], self.writer, self.packing_of(epoch), seed=self.seed)

    def take(self, n_packs: int) -> Iterator[tuple[Packs, int]]:
        """The next packs, windows and epochs joined without a gap."""
        for _ in range(n_packs):
            while self.cursor.place >= len(self.packs):
                self.packs = self.ahead.result()
                (self.cursor.epoch, self.cursor.window), self.cursor.place = self._after(), 0
                self.ahead = self.pool.submit(self._make, *self._after())
            yield self.packs, self.cursor.place
            self.cursor.place += 1

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)


def pretrain(
    recipe: Recipe, corpus_folder: str | Path, *, say: Say = print, log_with: str | None = "tensorboard", stop_after: int | None = None
) -> Path:
    """Train a model on a corpus; goes on from the newest whole checkpoint of the recipe's output folder.

    Returns
    -------
    Path
        The model folder, ``output/model``.
    """
    return Run(recipe, Path(corpus_folder), say=say, log_with=log_with).train(stop_after)


class Run:
    """One run: what it was made of, and where it stands.

    ``make_writer`` and ``loss_of`` are other ways to write a sentence and to count its nats, for comparisons.
    """

    def __init__(
        self,
        recipe: Recipe,
        corpus_folder: Path,
        *,
        say: Say,
        log_with: str | None,
        make_writer: Callable[[PreTrainedTokenizerFast, Vocabulary, Prompts], SentenceWriter] = SentenceWriter,
        loss_of: Loss = loss_of_pack,
    ):
        self.recipe, self.say, self.output, self.loss_of = recipe, say, Path(recipe.output), loss_of
        self.output.mkdir(parents=True, exist_ok=True)
        set_seed(recipe.seed)
        attention.register()
        AcceleratorState._reset_state()  # else a second run of a process could have no other precision than the first
        self.accelerator = Accelerator(mixed_precision=recipe.precision, log_with=_tracker(log_with), project_dir=str(self.output))
        self.tokenizer_folder = corpus_folder / "tokenizer"
        self.corpus = Corpus(corpus_folder, tokenizer_sha256=tokenizer_hash(self.tokenizer_folder))
        self.vocabulary = load_vocabulary(self.tokenizer_folder)
        self.writer = make_writer(load_tokenizer(self.tokenizer_folder), self.vocabulary, load_prompts())
        self.weights = np.array([recipe.loss.weight_of(part) for part in self.writer.prompts.parts], dtype=np.float32)
        self.start_card: dict[str, Any] = {}
        self.cursor, self.curve_file = Cursor(), self.output / "curve.jsonl"
        self.n_train, self.tokens_per_epoch = training_size(self.corpus, recipe.packing.context)
        if not self.n_train:
            raise CorpusError(f"{self.corpus.folder}: no cell in the train split; change the plan's split")
        self._prepare_model()
        self._resume()
        self._open_data()

    def _prepare_model(self) -> None:
        settings = self.recipe.model
        lm = self._new_model() if settings.start is None else self._model_to_go_on_from(settings.start)
        lm.set_attn_implementation(attention.PACKED)
        add_dropout(lm, settings.dropout)
        self.lm = lm
        body = torch.compile(lm.model) if self.recipe.compile else lm.model
        self.optimizers = make_optimizers(lm, self.recipe)
        self.body, *prepared = self.accelerator.prepare(body, *self.optimizers)
        self.prepared = prepared
        self.output_VD: torch.Tensor = lm.get_output_embeddings().weight
        self.base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]

    def _new_model(self) -> PreTrainedModel:
        settings = self.recipe.model
        lm = new_model(settings.preset, self.vocabulary, context=self.recipe.packing.context, seed=self.recipe.seed)
        if settings.gene_start == "detection":
            start_genes_by_detection(lm, self.vocabulary, detection(self.corpus, self.writer))
        return lm

    def _model_to_go_on_from(self, name: str) -> PreTrainedModel:
        """The model of a folder, to be trained further on this corpus."""
        found = load_checkpoint(name)
        if found.card["tokenizer_sha256"] != self.corpus.manifest["tokenizer_sha256"]:
            raise EngineError(
                f"model.start {name}: its tokenizer is not that of {self.corpus.folder}; build the corpus with that model's tokenizer"
            )
        # positions are rotations: those beyond the old context need no new weights, only training
        found.model.config.max_position_embeddings = max(found.context, self.recipe.packing.context)
        self.start_card = found.card
        return found.model.train()

    def _open_data(self) -> None:
        split = next(
            (name for name in ("valid", "test") if any(name in source["splits"] for source in self.corpus.manifest["sources"])), None
        )
        self.held_out: Packs | None = None
        if split is not None:
            held = Data.open(self.corpus, split, self.writer, self.recipe.evaluation_cells)
            packing = replace(self.recipe.packing, thin_share=0.0, dataset_weights=None)
            self.held_out = epoch_packs(held.rows, held.counts, self.writer, packing, seed=1, epoch=0, augment=False)
        self.stream = PackStream(self.corpus, self.writer, self._packing_of, self.recipe.seed, self.cursor)

    def _packing_of(self, epoch: int) -> Packing:
        return packing_of(self.recipe, self.tokens_per_epoch, epoch)

    def _resume(self) -> None:
        found = checkpoints.newest_whole(self.output / "checkpoints")
        if found is None:
            self.curve_file.unlink(missing_ok=True)
            return
        state, progress, broken = found
        for problem in broken:
            self.say(f"left aside a broken checkpoint: {problem}")
        if progress["fingerprint"] != self._fingerprint():
            raise EngineError(f"{self.output}: its checkpoints are of another recipe or corpus; give another output folder or delete them")
        self.lm.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.cursor = Cursor(**{name: progress[name] for name in ("step", "epoch", "window", "place", "tokens")})
        kept = [line for line in curve_lines(self.curve_file) if line["step"] <= self.cursor.step]
        self.curve_file.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self.say(f"goes on from step {self.cursor.step:,}")

    def _fingerprint(self) -> str:
        fixed = {
            key: value
            for key, value in self.recipe.to_dict().items()
            if key not in ("output", "folder", "keep", "checkpoint_every", "plan", "corpus", "evaluate_every")
        }
        return json.dumps(
            [fixed, self.corpus.manifest["tokenizer_sha256"], [shard["sha256"] for shard in self.corpus.manifest["shards"]]], sort_keys=True
        )

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            state = {"model": self.lm.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}
            progress = {
                "epoch": self.cursor.epoch,
                "window": self.cursor.window,
                "place": self.cursor.place,
                "tokens": self.cursor.tokens,
                "fingerprint": self._fingerprint(),
            }
            checkpoints.save(self.output / "checkpoints", self.cursor.step, state, progress, self.recipe.keep)
        self.accelerator.wait_for_everyone()

    def train(self, stop_after: int | None = None) -> Path:
        """Go through the remaining steps and write the model."""
        self.accelerator.init_trackers("tensorboard", config={})
        million_tokens = self.tokens_per_epoch / 1e6
        self.say(f"{n_parameters(self.lm) / 1e6:.1f}M parameters, {million_tokens:.2f}M tokens of cells, {self.recipe.steps:,} steps")
        last = min(self.recipe.steps, stop_after or self.recipe.steps)
        self.body.train()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} {task.fields[note]}"),
            TimeRemainingColumn(),
        )
        with (
            Progress(*columns, console=Console(stderr=True), disable=not self.accelerator.is_main_process) as progress,
            open(self.curve_file, "a", buffering=1) as curve,
        ):
            bar = progress.add_task("pretrain", total=self.recipe.steps, completed=self.cursor.step, note="")
            while self.cursor.step < last:
                line = self._step()
                if self.cursor.step % self.recipe.evaluate_every == 0 or self.cursor.step == self.recipe.steps:
                    line |= self._evaluate()
                curve.write(json.dumps(line) + "\n")
                self.accelerator.log({name: value for name, value in line.items() if isinstance(value, float)}, step=self.cursor.step)
                progress.update(bar, completed=self.cursor.step, note=f"loss {line['loss']:.3f}, {line['tokens_per_second']:,.0f} tokens/s")
                if self.cursor.step % self.recipe.checkpoint_every == 0 or self.cursor.step == last:
                    self._save()
        self.stream.close()
        self.accelerator.end_training()
        return self._write_model()

    def _step(self) -> dict[str, Any]:
        began = time.perf_counter()
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.cursor.step)  # so that a resumed run drops out the same
        for optimizer, rates in zip(self.optimizers, self.base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * learning_rate_share(self.cursor.step, self.recipe)
        members = [(packs, place) for packs, place in self.stream.take(self.recipe.packs_per_step)]
        total = sum(float(self.weights[packs.parts[place][1:]].sum()) for packs, place in members)
        loss_sum, tokens = 0.0, 0
        mine = members[self.accelerator.process_index :: self.accelerator.num_processes]
        for packs, place in mine:
            with self.accelerator.autocast():
                loss, _, _ = pack_loss(self.body, self.output_VD, packs, place, self.writer, self.weights, self.loss_of)
            self.accelerator.backward(loss / total * self.accelerator.num_processes)
            loss_sum += float(loss.detach()) / total
        tokens = sum(int(packs.bounds[place][-1]) for packs, place in members)
        norm = float(self.accelerator.clip_grad_norm_(self.lm.parameters(), self.recipe.optimizer.clip))
        if not np.isfinite(norm) or not np.isfinite(loss_sum):
            raise EngineError(
                f"step {self.cursor.step}: loss {loss_sum}, gradient norm {norm}; lower the learning rates; the last checkpoint is whole"
            )
        for optimizer in self.prepared:
            optimizer.step()
            optimizer.zero_grad()
        self.cursor.step += 1
        self.cursor.tokens += tokens
        seconds = time.perf_counter() - began
        loss_sum = float(self.accelerator.reduce(torch.tensor(loss_sum, device=self.accelerator.device), "sum"))
        return {
            "step": self.cursor.step,
            "loss": loss_sum,
            "gradient_norm": norm,
            "tokens": self.cursor.tokens,
            "tokens_per_second": tokens / seconds,
        }

    def _evaluate(self) -> dict[str, Any]:
        if self.held_out is None:
            return {}
        with self.accelerator.autocast():
            held = evaluate(self.body, self.output_VD, self.held_out, self.writer, self.loss_of)
        self.say(f"step {self.cursor.step:,}: {held.line()}")
        return {"held_out_per_token": held.per_token, "held_out_per_sentence": held.per_sentence}

    def _write_model(self) -> Path:
        folder = self.output / "model"
        if self.accelerator.is_main_process:
            save_checkpoint(folder, self.lm, self.tokenizer_folder, self._card())
        self.accelerator.wait_for_everyone()
        return folder

    def _card(self) -> dict[str, Any]:
        """What the model is and has seen."""
        sources = [{key: value for key, value in source.items() if key != "findings"} for source in self.corpus.manifest["sources"]]
        curve = curve_lines(self.curve_file)
        held: dict[str, float] = next((line["held_out_per_sentence"] for line in reversed(curve) if "held_out_per_sentence" in line), {})
        return {
            "format": 1,
            "scmulan": __version__,
            "parameters": n_parameters(self.lm),
            "context": int(self.lm.config.max_position_embeddings),
            "steps": self.cursor.step + self.start_card.get("steps", 0),
            "tokens": self.cursor.tokens + self.start_card.get("tokens", 0),
            "sources": sources,
            "labels": seen_labels(self.corpus),
            "held_out_nats": held,
            "recipe": {key: value for key, value in self.recipe.to_dict().items() if key not in ("output", "folder", "corpus")},
        }


def curve_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a curve file; a line that a kill cut short is left out, for its step is done again."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def _tracker(name: str | None) -> str | None:
    """TensorBoard when it is installed; the curve file is always written."""
    if name == "tensorboard":
        try:
            import tensorboard  # type: ignore[import-untyped]  # noqa: F401
        except ImportError:
            return None
    return name
