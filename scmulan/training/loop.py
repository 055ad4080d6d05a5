"""The pretraining loop: packs in, checkpoints and a curve out, on whatever accelerate was configured for.

Data order is a function of (seed, step) alone and is the same on any number of processes; a resumed run repeats the uninterrupted
one, whatever the number of processes was. Knows ids only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from accelerate.utils import set_seed
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PreTrainedTokenizerFast

from scmulan.adapters_folder import base_of, save_adapter
from scmulan.corpus.pack import Packing
from scmulan.corpus.shards import Corpus
from scmulan.csentence import Vocabulary
from scmulan.errors import CorpusError, EngineError
from scmulan.model import n_parameters, save_checkpoint
from scmulan.prompts import Prompts, SentenceWriter, load_prompts
from scmulan.tokenizer import load_tokenizer, load_vocabulary, tokenizer_hash
from scmulan.training import checkpoints
from scmulan.training.card import training_card
from scmulan.training.curve import curve_lines, cut_curve
from scmulan.training.held_out import evaluate, held_out_packs
from scmulan.training.models import model_of
from scmulan.training.optimizers import learning_rate_share, make_optimizers
from scmulan.training.packed import Loss, PackedLM, PackInputs, shipped_loss
from scmulan.training.parallel import Parallel
from scmulan.training.recipe import Recipe, packing_of
from scmulan.training.seen import training_size
from scmulan.training.stream import Cursor, PackStream, StepFeeder, StepInputs
from scmulan.training.unmet import spread_unmet
from scmulan.training.watch import EndRequest, LossWatch

Say = Callable[[str], None]
MAY_CHANGE = (
    "output",
    "folder",
    "plan",
    "corpus",
    "keep",
    "checkpoint_every",
    "evaluate_every",
    "save_in_background",
    "checkpoint_activations",
    "rates",
    "bad_steps",
    "patience",
    "compile",
)
"""Keys of a recipe that another value may be given when a run goes on: they change nothing of what is learnt."""


def pretrain(
    recipe: Recipe, corpus_folder: str | Path, *, say: Say = print, log_with: str | None = "tensorboard", stop_after: int | None = None
) -> Path:
    """Train a model on a corpus; goes on from the newest whole checkpoint of the recipe's output folder.

    Returns
    -------
    Path
        The model folder, ``output/model``, or that of the adapter, ``output/adapter``.

    Raises
    ------
    SystemExit
        With status 0, after SIGTERM: the run has saved a checkpoint and goes on from it when it is started again.
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
        loss_of: Loss = shipped_loss,
    ):
        self.recipe, self.output = recipe, Path(recipe.output)
        self.output.mkdir(parents=True, exist_ok=True)
        set_seed(recipe.seed)
        self.parallel = Parallel(recipe.precision, log_with=_tracker(log_with), folder=str(self.output))
        self.parallel.share_of(recipe.step_packs)
        self.say: Say = say if self.parallel.is_main else lambda line: None
        self.tokenizer_folder = corpus_folder / "tokenizer"
        self.corpus = Corpus(corpus_folder, tokenizer_sha256=tokenizer_hash(self.tokenizer_folder))
        self.vocabulary = load_vocabulary(self.tokenizer_folder)
        self.writer = make_writer(load_tokenizer(self.tokenizer_folder), self.vocabulary, load_prompts())
        self.weights = np.array([recipe.loss.weight_of(part) for part in self.writer.prompts.parts], dtype=np.float32)
        self.n_train, self.tokens_per_epoch = training_size(self.corpus, recipe.packing.context)
        if not self.n_train:
            raise CorpusError(f"{self.corpus.folder}: no cell in the train split; change the plan's split")
        self.step, self.tokens, self.bad_in_a_row = 0, 0, 0
        self.best: dict[str, float] = {}
        self.cursor, self.curve_file = Cursor(), self.output / "curve.jsonl"
        self.end, self.is_ending = EndRequest(), False
        self._prepare_model(loss_of)
        self._resume()
        self._open_data()

    def _prepare_model(self, loss_of: Loss) -> None:
        start = model_of(self.recipe, self.corpus, self.writer)
        self.lm, self.start_card, self.adapted = start.lm, start.card, start.adapted
        self.packed = PackedLM(self.lm, self.vocabulary, loss_of)
        self.module = self.parallel.wrap(self.packed, compiled=self.recipe.compile)
        self.optimizers = make_optimizers(self.packed, self.recipe)
        self.base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]

    def _open_data(self) -> None:
        self.held_out = held_out_packs(self.corpus, self.writer, self.recipe)
        self.stream = PackStream(self.corpus, self.writer, self._packing_of, self.recipe.seed, self.cursor)

    def _packing_of(self, epoch: int) -> Packing:
        return packing_of(self.recipe, self.tokens_per_epoch, epoch)

    # -- checkpoints ------------------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        self.checkpoints = checkpoints.Writer(self.output / "checkpoints", self.recipe.keep, in_background=self.recipe.save_in_background)
        found = checkpoints.newest_whole(self.checkpoints.folder)
        self.parallel.wait()  # before the first process cuts the curve or writes anything
        if found is None:
            if self.parallel.is_main:
                self.curve_file.unlink(missing_ok=True)
            self.watch = LossWatch()
            return
        state, progress, broken = found
        for problem in broken:
            self.say(f"left aside a broken checkpoint: {problem}")
        if progress["fingerprint"] != self._fingerprint():
            raise EngineError(f"{self.output}: its checkpoints are of another recipe or corpus; give another output folder or delete them")
        self.parallel.load(self.packed, self.optimizers, state)
        self.cursor = Cursor(**{name: progress[name] for name in ("epoch", "window", "place")})
        self.step, self.tokens, self.best = progress["step"], progress["tokens"], progress["best"]
        kept = cut_curve(self.curve_file, self.step) if self.parallel.is_main else []
        self.parallel.wait()
        kept = kept or curve_lines(self.curve_file)
        self.watch = LossWatch([line["loss"] for line in kept])
        self.say(f"goes on from step {self.step:,}")

    def _fingerprint(self) -> str:
        fixed = {key: value for key, value in self.recipe.to_dict().items() if key not in MAY_CHANGE}
        fixed |= {"packs_per_step": self.recipe.step_packs, "tokens_per_step": None}
        shards = [shard["sha256"] for shard in self.corpus.manifest["shards"]]
        return json.dumps([fixed, self.corpus.manifest["tokenizer_sha256"], shards], sort_keys=True)

    def _save(self) -> None:
        state = {
            "model": self.parallel.model_state(self.packed),
            "optimizers": self.parallel.optimizer_state(self.packed, self.optimizers),
        }
        if self.parallel.is_main:
            progress = {**vars(self.cursor), "tokens": self.tokens, "best": self.best, "fingerprint": self._fingerprint()}
            self.checkpoints.save(self.step, state, progress)
        self.parallel.wait()

    def _save_best(self) -> None:
        state = {"model": self.parallel.model_state(self.packed)}
        if self.parallel.is_main:
            checkpoints.save(self.output / "best", self.step, state, {}, 1)

    # -- training ---------------------------------------------------------------------------------------------------------

    def train(self, stop_after: int | None = None) -> Path:
        """Go through the remaining steps and write the model."""
        self.parallel.accelerator.init_trackers("tensorboard", config={})
        million_tokens = self.tokens_per_epoch / 1e6
        self.say(f"{n_parameters(self.lm) / 1e6:.1f}M parameters, {million_tokens:.2f}M tokens of cells, {self.recipe.steps:,} steps")
        if self.recipe.precision == "bf16" and not self.parallel.is_bf16:
            self.say("in float32, for this hardware multiplies no bfloat16")
        if self.parallel.processes > 1:
            self.say(f"{self.parallel.processes} processes, {self.parallel.strategy}")
        last = min(self.recipe.steps, stop_after or self.recipe.steps)
        n_packs, here = self.recipe.step_packs, self.parallel
        feeder = StepFeeder(self.stream, self._inputs, n_packs, process=here.process, processes=here.processes)
        self.module.train()
        try:
            with self._progress() as (curve, advance), self.end.listening():
                while self.step < last and not self._is_over():
                    line = self._step(feeder.next())
                    line |= self._evaluate() if self._is_due(self.recipe.evaluate_every, self.recipe.steps) else {}
                    curve.write(json.dumps(line) + "\n")
                    self.parallel.accelerator.log({name: value for name, value in line.items() if isinstance(value, float)}, step=self.step)
                    advance(line)
                    is_good = not self.bad_in_a_row  # else a run that fails would go on from amidst its failure
                    if (self._is_due(self.recipe.checkpoint_every, last) and is_good) or self._is_over():
                        self._save()
        finally:
            feeder.close()
        self.checkpoints.wait()
        if self.is_ending and self.step < self.recipe.steps:
            self.say(f"asked to end: saved at step {self.step:,}; start the run again and it goes on from there")
            self.parallel.accelerator.end_training()
            raise SystemExit(0)
        folder = self._write_model()
        self.parallel.accelerator.end_training()
        return folder

    def _inputs(self, packs: Any, place: int) -> PackInputs:
        return self.packed.prepare(packs, place, self.weights, self.parallel.device.type)

    def _is_due(self, every: int, last: int) -> bool:
        return self.step % every == 0 or self.step == last

    def _is_over(self) -> bool:
        """Whether the run ends before its last step: asked to, or nothing more is gained."""
        waited = self.step - self.best.get("step", self.step)
        is_patient = self.recipe.patience is None or waited < self.recipe.patience * self.recipe.evaluate_every
        return self.is_ending or not is_patient

    @contextmanager
    def _progress(self) -> Iterator[tuple[TextIO, Callable[[dict[str, Any]], None]]]:
        """The curve file, and what tells of a step on the terminal; of all processes but the first, neither is seen."""
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} {task.fields[note]}"))
        is_main = self.parallel.is_main
        curve_path = self.curve_file if is_main else Path("/dev/null")
        with (
            Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not is_main) as progress,
            open(curve_path, "a", buffering=1) as curve,
        ):
            bar = progress.add_task("pretrain", total=self.recipe.steps, completed=self.step, note="")

            def advance(line: dict[str, Any]) -> None:
                note = f"loss {line['loss']:.3f}, {line['tokens_per_second']:,.0f} tokens/s"
                progress.update(bar, completed=self.step, note=note)

            yield curve, advance

    def _step(self, inputs: StepInputs) -> dict[str, Any]:
        began = time.perf_counter()
        for optimizer, rates in zip(self.optimizers, self.base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * learning_rate_share(self.step, self.recipe)
        loss_sum = 0.0
        for turn, (number, pack) in enumerate(inputs.mine, 1):
            torch.manual_seed((self.recipe.seed * 1_000_003 + self.step) * 4_099 + number)  # dropout is a function of (seed, step, pack)
            with self.parallel.gradients(self.module, is_last=turn == len(inputs.mine)):
                loss, _ = self.module(pack)
                (loss / inputs.total * self.parallel.processes).backward()
            loss_sum += float(loss.detach()) / inputs.total
        norm = self.parallel.clip(self.module, self.recipe.optimizer.clip)
        loss_sum, asked = self.parallel.sum(loss_sum, float(self.end.is_set))
        self.is_ending = asked > 0  # what one process was asked is agreed on here alone, so that all end after the same step
        verdict = self.watch.verdict(loss_sum, norm)
        self._take_step(verdict, loss_sum, norm)
        self.step, self.tokens, self.cursor = self.step + 1, self.tokens + inputs.tokens, inputs.cursor
        line = {"step": self.step, "loss": loss_sum, "gradient_norm": norm, "tokens": self.tokens}
        line["tokens_per_second"] = inputs.tokens / (time.perf_counter() - began)
        return line | ({"left_out": verdict} if verdict else {})

    def _take_step(self, verdict: str | None, loss: float, norm: float) -> None:
        """Change the weights, unless the loss is no number or leaps; EngineError when that is so too often in a row."""
        if verdict is None:
            self.parallel.step(self.optimizers)
        self.bad_in_a_row = self.bad_in_a_row + 1 if verdict else 0
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        if verdict is None:
            return
        where = f"step {self.step}: loss {loss:.6g}, gradient norm {norm:.6g} ({verdict})"
        if self.bad_in_a_row > self.recipe.bad_steps:
            self.checkpoints.wait()
            raise EngineError(f"{where}, {self.bad_in_a_row} steps in a row; lower the learning rates; the last checkpoint is whole")
        self.say(f"{where}: left out")

    def _evaluate(self) -> dict[str, Any]:
        if self.held_out is None:
            return {}
        held = evaluate(self.module, self.packed, self.held_out, self.writer, self.weights, self.parallel)
        self.say(f"step {self.step:,}: {held.line()}")
        if held.loss < self.best.get("loss", np.inf):
            self.best = {"loss": held.loss, "step": self.step}
            if self.recipe.keep_best:
                self._save_best()
        return {"held_out_loss": held.loss, "held_out_per_token": held.per_token, "held_out_per_sentence": held.per_sentence}

    # -- the model --------------------------------------------------------------------------------------------------------

    def _write_model(self) -> Path:
        folder, step = self.output / ("model" if self.adapted is None else "adapter"), self.step
        best = checkpoints.newest_whole(self.output / "best") if self.recipe.keep_best else None
        if best is not None and self.best:
            state, progress, _ = best
            step = progress["step"]
            self.parallel.load(self.packed, [], state)
        state = self.parallel.model_state(self.packed)
        if self.parallel.is_main:
            curve = [line for line in curve_lines(self.curve_file) if line["step"] <= step]
            tokens = curve[-1]["tokens"] if curve else self.tokens
            start = self.start_card if self.adapted is None else {}
            card = training_card(self.recipe, self.lm, self.corpus, curve, start=start, step=step, tokens=tokens)
            if self.adapted is None:
                save_checkpoint(folder, self.lm, self.tokenizer_folder, card, state=self._spread(_without("lm.", state)))
            else:
                base = base_of(self.start_card, str(self.recipe.model.start))
                save_adapter(folder, self.adapted, base, card, state=_without("lm.", state))
        self.parallel.wait()
        return folder

    def _spread(self, weights: dict[str, Any]) -> dict[str, Any]:
        """Weights to be written; where the model is new, words and genes that its corpus never meets have rows of their own."""
        if self.recipe.model.start is not None:
            return weights
        names = ["model.embed_tokens.weight", *([] if self.lm.config.tie_word_embeddings else ["lm_head.weight"])]
        spread = {name: weights[name].clone() for name in names}
        has_questions = self.recipe.packing.questions > 0
        spread_unmet(list(spread.values()), self.corpus, self.writer, seed=self.recipe.seed, has_questions=has_questions)
        return weights | spread


def _without(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _tracker(name: str | None) -> str | None:
    """TensorBoard when it is installed; the curve file is always written."""
    if name == "tensorboard":
        try:
            import tensorboard  # type: ignore[import-untyped]  # noqa: F401
        except ImportError:
            return None
    return name
