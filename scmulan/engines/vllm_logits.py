"""scmulan's automaton, draws and rates inside vLLM: a logits processor for its V1 runner and one for its model runner V2.

The processor itself draws the next id of a cell (`scmulan.engines.cell_rows`), as the transformers engine does, and leaves vLLM only that
one to take. A request says what it asks in its extra arguments (`scmulan.engines.asked`); others pass untouched. A step whose outcome vLLM
throws away, as that of a prompt read in parts, is asked again and answered alike: a cell's state moves on only when vLLM has taken the id.
Speculative decoding and async scheduling are to be off.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality
from vllm.v1.sample.logits_processor.interface import LogitsProcessor as OnV1
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as OnV2

from scmulan.engines.asked import KEY, AskedReader, CellAsked, WordsAsked
from scmulan.engines.cell_rows import CellRows
from scmulan.tokenizer import load_vocabulary

if TYPE_CHECKING:
    from vllm.config import VllmConfig


class Slots:
    """What is asked in each slot, and the logits that answer it."""

    def __init__(self, config: VllmConfig, n_slots: int, device: torch.device):
        self.vocabulary = load_vocabulary(Path(config.model_config.model))
        self.reader = AskedReader(self.vocabulary)
        self.rows = CellRows(self.vocabulary, n_slots, config.model_config.max_model_len, device)
        self.taken = torch.full((n_slots,), -1, dtype=torch.long, device=device)
        self.is_cell, self.is_words, self.is_text = (np.zeros(n_slots, dtype=bool) for _ in range(3))

    def put(self, slot: int, params: SamplingParams, n_prompt: int, written: np.ndarray) -> bool:
        """Begin a request in a slot, or go on with one that was set aside; whether it asks anything of its logits."""
        text = (params.extra_args or {}).get(KEY)
        asked = None if text is None else self.reader.read(text)
        self.is_cell[slot], self.is_words[slot] = isinstance(asked, CellAsked), isinstance(asked, WordsAsked)
        self.is_text[slot] = isinstance(asked, WordsAsked) and asked.is_text
        if isinstance(asked, CellAsked):
            self.rows.put([slot], [asked.request], asked.sampling)
            self.rows.room[slot] = self.rows.context - n_prompt  # the prompt ends with <cell>
            self.rows.replay(slot, written)
        return asked is not None

    def moved_on(self, slots: np.ndarray, n_written: np.ndarray) -> None:
        """Read the last id of each cell that has taken one since it was asked."""
        at = torch.from_numpy(slots[n_written > self.rows.step[slots].cpu().numpy()])
        if len(at):
            self.rows.advance(at, self.taken[at])

    def answer(self, logits_BV: torch.Tensor, at: np.ndarray, slots: np.ndarray) -> torch.Tensor:
        """Logits whose rows ``at`` stand for these slots."""
        of_cell, of_words = self.is_cell[slots], self.is_words[slots]
        if of_words.any():
            self._words(logits_BV, at[of_words], self.is_text[slots[of_words]])
        if of_cell.any():
            device = logits_BV.device
            at_B, slots_B = (torch.from_numpy(part[of_cell]).to(device) for part in (at, slots))
            chosen_B = self.rows.choose(slots_B, lambda rows, first: self._from(logits_BV, at_B[rows], first))
            self.taken[slots_B] = chosen_B
            logits_BV[at_B] = -torch.inf
            logits_BV[at_B, chosen_B] = 0.0
        return logits_BV

    def _from(self, logits_BV: torch.Tensor, at_B: torch.Tensor, first: int) -> torch.Tensor:
        """Rows of the logits without the genes before a column."""
        if first == 0:
            return logits_BV[at_B]
        gene = self.vocabulary.first_gene
        return torch.cat([logits_BV[at_B, :gene], logits_BV[at_B, gene + first :]], dim=1)

    def _words(self, logits_BV: torch.Tensor, at: np.ndarray, is_text: np.ndarray) -> None:
        v = self.vocabulary
        rows = torch.from_numpy(at).to(logits_BV.device)
        logits_BV[rows, : v.eos] = -torch.inf
        logits_BV[rows, v.first_depth : v.first_gene] = -torch.inf
        logits_BV[rows, v.last_gene :] = -torch.inf
        logits_BV[rows[torch.from_numpy(is_text)], : v.text[0]] = -torch.inf


class CellLogits(OnV1):
    """For the V1 runner, whose requests stand at a place of the batch that may change."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool):
        n_slots = vllm_config.scheduler_config.max_num_seqs
        self.slots, self.free = Slots(vllm_config, n_slots, device), list(range(n_slots))
        self.at: dict[int, tuple[int, list[int]]] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        _validate(sampling_params)

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if batch_update is None:
            return
        for place in batch_update.removed:
            self._leave(place)
        for place, params, prompt, written in batch_update.added:
            self._leave(place)
            slot = self.free[-1]
            if self.slots.put(slot, params, len(prompt or ()), np.array(written, dtype=np.int64)):
                self.at[place] = (self.free.pop(), written)
        for one, other, way in batch_update.moved:
            first, second = self.at.pop(one, None), self.at.pop(other, None)
            if first is not None:
                self.at[other] = first
            if second is not None and way == MoveDirectionality.SWAP:
                self.at[one] = second
            elif second is not None:
                self.free.append(second[0])

    def _leave(self, place: int) -> None:
        held = self.at.pop(place, None)
        if held is not None:
            self.free.append(held[0])

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        if not self.at:
            return logits
        at, slots = np.fromiter(self.at, dtype=np.int64), np.array([slot for slot, _ in self.at.values()])
        is_cell = self.slots.is_cell[slots]
        n_written = np.array([len(written) for _, written in self.at.values()])
        self.slots.moved_on(slots[is_cell], n_written[is_cell])
        return self.slots.answer(logits, at, slots)


class CellLogitsV2(OnV2):
    """For model runner V2, whose requests keep a slot."""

    def __init__(self, vllm_config: VllmConfig, req_states: LogitsProcRequestState):
        self.slots, self.states = Slots(vllm_config, req_states.max_num_reqs, req_states.device), req_states
        self.has = np.zeros(req_states.max_num_reqs, dtype=bool)
        self.n_prompt = np.zeros(req_states.max_num_reqs, dtype=np.int64)
        self._waiting: dict[int, SamplingParams] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        _validate(sampling_params)

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        self.has[req_idx] = KEY in (sampling_params.extra_args or {})
        if self.has[req_idx]:
            self._waiting[req_idx] = sampling_params
        return bool(self.has[req_idx])

    def apply_staged_writes(self) -> None:
        for slot, params in self._waiting.items():
            n_prompt, total = int(self.states.prompt_len.np[slot]), int(self.states.total_len.gpu[slot])
            written = self.states.all_token_ids.gpu[slot, n_prompt:total].cpu().numpy().astype(np.int64)
            self.n_prompt[slot] = n_prompt
            self.slots.put(slot, params, n_prompt, written)
        self._waiting.clear()

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        of_row = ctx.expanded_idx_mapping.cpu().numpy()
        n_written = ctx.pos.cpu().numpy() + 1 - self.n_prompt[of_row]
        at = np.flatnonzero(self.has[of_row] & (n_written >= 0))
        if not len(at):
            return logits
        slots = of_row[at].astype(np.int64)
        is_cell = self.slots.is_cell[slots]
        self.slots.moved_on(slots[is_cell], n_written[at][is_cell])
        return self.slots.answer(logits, at, slots)


def _validate(params: SamplingParams) -> None:
    """ValueError of what no vocabulary could read; the rest is seen when the request is put into its slot."""
    extra = params.extra_args or {}
    if KEY in extra and not isinstance(extra[KEY], str):
        raise ValueError(f"{KEY}: needed the text that scmulan writes")
