"""The embedded engine: transformers on CPU or GPU, length-bucketed, with a static cache of keys and values.

bf16 where the processor has it. Rows that end early are taken out of the batch; draws depend on (seed, row) alone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb

from scmulan.adapters import output_matrix, use_adapter
from scmulan.adapters_folder import Adapter, load_adapter
from scmulan.automaton import legal_targets
from scmulan.csentence import BOUNDS, Ids
from scmulan.decoding.sampling import Sampling
from scmulan.decoding.trie import Trie
from scmulan.engines.base import Advance, CellRequest, WordAutomaton, Written
from scmulan.engines.cell_rows import CellRows
from scmulan.engines.transformers_words import write_words
from scmulan.engines.transformers_writing import CellWriter
from scmulan.errors import EngineError
from scmulan.model import Checkpoint
from scmulan.training.hardware import multiplies_bf16
from scmulan.training.loss import legal_cross_entropy, plan_chunks

GROUPED = "scmulan_grouped"
KeysValues = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, (1, heads, places, width)."""
LIKE_QWEN3 = ("qwen3", "qwen2", "llama")
"""Model types whose layers are those of Qwen3, with or without a norm of the keys; of others every layer is run whole."""
SCORE_TOKENS = 8192
WORD_ROWS = 128
GENERATE_ROWS = 64
WORDS_AFTER = 40
"""Ids of an answer in words, as far as a bucket counts them."""


def best_dtype(device: str) -> torch.dtype:
    """bf16 where the hardware multiplies it, else float32."""
    return torch.bfloat16 if multiplies_bf16(device) else torch.float32


def grouped_attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BKSD: torch.Tensor,
    value_BKSD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of grouped heads without repeating keys and values; ``attention_mask`` (B or 1, 1, T, S) bool, True is seen."""
    n_rows, heads, n_queries, width = query_BHTD.shape
    if attention_mask is not None:  # of a static cache, only the slots that the mask covers are in use
        used = attention_mask.shape[-1]
        key_BKSD, value_BKSD = key_BKSD[:, :, :used], value_BKSD[:, :, :used]
    kv_heads = key_BKSD.shape[1]
    if n_queries == 1:  # the queries that share keys and values stand as if they were places of one sentence
        grouped = query_BHTD.reshape(n_rows, kv_heads, heads // kv_heads, width)
        out = torch.nn.functional.scaled_dot_product_attention(grouped, key_BKSD, value_BKSD, attn_mask=attention_mask, scale=scaling)
        return out.reshape(n_rows, 1, heads, width), None
    out_BHTD = torch.nn.functional.scaled_dot_product_attention(
        query_BHTD,
        key_BKSD,
        value_BKSD,
        attn_mask=attention_mask,
        is_causal=attention_mask is None,
        scale=scaling,
        enable_gqa=heads != kv_heads,
    )
    return out_BHTD.transpose(1, 2).contiguous(), None


def device_of(name: str) -> torch.device:
    """A device by name; EngineError where there is none of that name, or it can't be used here."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises each of them, by device and build
        found = str(error).strip().splitlines()[0]
        raise EngineError(f"device {name!r} can't be used here ({found}); give cpu, or a device that this torch was built for") from None
    return device


def _some_rows(logits_BV: torch.Tensor, rows: torch.Tensor, _: int) -> torch.Tensor:
    return logits_BV[rows]


class TransformersEngine:
    """Runs a checkpoint in this process.

    Parameters
    ----------
    checkpoint : an opened model folder
    dtype : of weights and products; the best of the hardware when not given
    """

    def __init__(self, checkpoint: Checkpoint, *, device: str = "cpu", dtype: torch.dtype | None = None):
        ALL_ATTENTION_FUNCTIONS.register(GROUPED, grouped_attention)
        self.vocabulary, self.context, self.device = checkpoint.vocabulary, checkpoint.context, device_of(device)
        self.dtype = dtype or best_dtype(device)
        self.lm = checkpoint.model.to(device=self.device, dtype=self.dtype).eval()
        self.lm.set_attn_implementation(GROUPED)
        self.body: Any = self.lm.model
        self._take_output()
        self._adapted: Any = None

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """Put an adapter beside the layers, and let it work; those there before stay, and wait."""
        self._adapted = load_adapter(self.lm, adapter, name, self._adapted, dtype=self.dtype)
        self._take_output()

    def use_adapter(self, name: str | None) -> None:
        """Let one of the adapters work, or the model as it is without any."""
        if self._adapted is not None:
            use_adapter(self._adapted, name)
            self._take_output()
        elif name is not None:
            raise EngineError(f"adapter {name!r}: none is loaded; load it with scmulan.load(..., adapter=FOLDER)")

    def _take_output(self) -> None:
        """The output matrix, as the adapter in use makes it."""
        self.output_VD = output_matrix(self.lm).detach()
        self._outputs: dict[int, torch.Tensor] = {}

    def output_from(self, column: int) -> torch.Tensor:
        """Output matrix without the genes before a column; (V - column, D)."""
        if column not in self._outputs:
            first = self.vocabulary.first_gene
            self._outputs[column] = torch.cat([self.output_VD[:first], self.output_VD[first + column :]]) if column else self.output_VD
        return self._outputs[column]

    def fits(self, length: int, what: str) -> None:
        if length > self.context:
            raise EngineError(
                f"{what} of {length:,} tokens is longer than the model's context of {self.context:,}; thin the cell or give fewer fields"
            )

    def buckets(self, lengths: Sequence[int], extra: int = 0) -> Iterator[list[int]]:
        """Row numbers of like lengths, so that a bucket holds about ``SCORE_TOKENS`` tokens."""
        rows: list[int] = []
        for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
            if rows and (len(rows) + 1) * (lengths[rows[0]] + extra) > SCORE_TOKENS:
                yield rows
                rows = []
            rows.append(row)
        if rows:
            yield rows

    def padded(self, sequences: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
        """Sequences padded on the right, and their lengths."""
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        ids_BT = torch.full((len(sequences), int(lengths.max())), self.vocabulary.pad, dtype=torch.long)
        for row, sequence in enumerate(sequences):
            ids_BT[row, : len(sequence)] = torch.from_numpy(np.asarray(sequence, dtype=np.int64))
        return ids_BT.to(self.device), lengths.to(self.device)

    @torch.inference_mode()
    def hidden(self, prompts: Sequence[Ids], *, after: Sequence[int] = (), on_cell: Advance | None = None) -> npt.NDArray[np.float32]:
        """Last hidden state at the last id of each prompt, (prompts, D), or at each of the ids ``after`` it, (prompts, after, D)."""
        lengths = [len(prompt) for prompt in prompts]
        self.fits(max(lengths, default=0) + bool(after), "a prompt")
        trie = Trie.of([np.array([number, self.vocabulary.eos]) for number in after]) if after else None
        found = np.zeros((len(prompts), max(len(after), 1), self.lm.config.hidden_size), dtype=np.float32)
        for rows in self.buckets(lengths, len(after)):
            states_BSD = self.read([prompts[row] for row in rows], trie)
            found[rows] = states_BSD[:, 1 if after else 0 :].float().cpu().numpy()
            if on_cell:
                on_cell(len(rows))
        return found if after else found[:, 0]

    @torch.inference_mode()
    def score(self, prompts: Sequence[Ids], answers: Sequence[Ids], *, on_cell: Advance | None = None) -> npt.NDArray[np.float64]:
        """Log-probability of each answer after each prompt; shape (prompts, answers), nats."""
        trie = Trie.of(answers)
        lengths = [len(prompt) for prompt in prompts]
        self.fits(max(lengths, default=0) + int(trie.depth.max()) + 1, "a prompt with its answer")
        found = np.zeros((len(prompts), len(answers)))
        for rows in self.buckets(lengths, len(trie.inner)):
            states_BSD = self.read([prompts[row] for row in rows], trie)
            found[rows] = trie.log_probabilities(self.node_log_probabilities(states_BSD, trie)).cpu().numpy()
            if on_cell:
                on_cell(len(rows))
        return found

    def read(self, prompts: Sequence[Ids], trie: Trie | None = None, start: KeysValues | None = None) -> torch.Tensor:
        """Last hidden states at the end of each prompt, then at the trie's inner nodes after it; shape (B, 1 + inner nodes, D).

        All but the last id of the prompts go first, for their keys and values; what is asked about stands upon those. ``start`` are
        keys and values of ids that all prompts begin with, fewer than any of them has.
        """
        ids_BT, length_B = self.padded(prompts)
        n_rows, longest = ids_BT.shape
        before, known = longest - 1, 0 if start is None else start[0][0].shape[2]
        cache = DynamicCache(config=self.lm.config)
        for number, keys_values in enumerate(start or ()):
            cache.update(*(part.expand(n_rows, -1, -1, -1) for part in keys_values), number)
        if before > known:
            self.fill(cache, ids_BT[:, known:-1], known)
        last_B1 = ids_BT.gather(1, length_B[:, None] - 1)
        inner = trie.inner if trie is not None else np.zeros(0, np.int64)
        nodes = torch.from_numpy(trie.token[inner] if trie is not None else inner).to(self.device)
        depth = torch.from_numpy(trie.depth[inner] if trie is not None else inner).to(self.device)
        among = np.ones((1 + len(inner), 1 + len(inner)), dtype=bool)  # the end of the prompt, then nodes: all see the first
        among[0, 1:] = False
        if trie is not None:
            among[1:, 1:] = trie.sees[np.ix_(inner, inner)]
        of_prompt = (torch.arange(before, device=self.device) < length_B[:, None] - 1)[:, None, None, :]
        of_asked = torch.from_numpy(among).to(self.device)[None, None]
        seen = torch.cat([of_prompt.expand(-1, -1, len(among), -1), of_asked.expand(n_rows, -1, -1, -1)], dim=3)
        states: torch.Tensor = self.body(
            input_ids=torch.cat([last_B1, nodes.expand(n_rows, -1)], dim=1),
            position_ids=torch.cat([length_B[:, None] - 1, length_B[:, None] + depth], dim=1),
            attention_mask=seen,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return states

    def fill(self, cache: DynamicCache, ids_BT: torch.Tensor, known: int = 0) -> None:
        """Keys and values of ids that nothing is asked at, after ``known`` that the cache holds; of the last layer no more than those."""
        body, last = self.body, self.body.layers[-1]
        attention = last.self_attn
        place_1T = torch.arange(known, known + ids_BT.shape[1], device=self.device)[None]
        seen = (torch.arange(known + ids_BT.shape[1], device=self.device) <= place_1T[0, :, None])[None, None] if known else None
        if self.lm.config.model_type not in LIKE_QWEN3:
            body(input_ids=ids_BT, position_ids=place_1T, attention_mask=seen, past_key_values=cache, use_cache=True)
            return
        states = body.embed_tokens(ids_BT)
        turns = body.rotary_emb(states, place_1T)
        for layer in body.layers[:-1]:
            states = layer(
                states, attention_mask=seen, position_ids=place_1T, past_key_values=cache, use_cache=True, position_embeddings=turns
            )
        states = last.input_layernorm(states)
        shape = (*states.shape[:-1], -1, attention.head_dim)
        keys = attention.k_proj(states).view(shape)
        keys = (attention.k_norm(keys) if hasattr(attention, "k_norm") else keys).transpose(1, 2)
        values = attention.v_proj(states).view(shape).transpose(1, 2)
        keys, _ = apply_rotary_pos_emb(keys, keys, *turns)
        cache.update(keys, values, attention.layer_idx)

    def node_log_probabilities(self, states_BSD: torch.Tensor, trie: Trie) -> torch.Tensor:
        """Log-probability of each node's token among the legal words: neither depths nor levels, and text alone after a field's token."""
        v = self.vocabulary
        fed = np.concatenate([[v.eos], trie.token[trie.inner]])
        after_field = (fed >= len(BOUNDS)) & (fed < v.text[0])
        output_WD = torch.cat([self.output_VD[v.eos : v.first_depth], self.output_VD[v.first_gene : v.last_gene]])
        column = np.where(trie.token < v.first_depth, trie.token - v.eos, trie.token - v.first_gene + v.first_depth - v.eos)
        text_only = torch.from_numpy(after_field).to(self.device).expand(len(states_BSD), -1).flatten()
        rows_RD, n_slots = states_BSD.flatten(0, 1), len(fed)
        columns = torch.from_numpy(column).to(self.device)
        chosen_RC = torch.empty(len(rows_RD), len(trie.token), device=self.device)
        for first in range(0, len(rows_RD), WORD_ROWS):
            part = slice(first, first + WORD_ROWS)
            logits_RW = (rows_RD[part] @ output_WD.T).float()
            logits_RW[:, : v.text[0] - v.eos].masked_fill_(text_only[part, None], -torch.inf)
            chosen_RC[part] = logits_RW[:, columns] - torch.logsumexp(logits_RW, 1, keepdim=True)
        found_BN = chosen_RC.view(len(states_BSD), n_slots, -1)[:, torch.from_numpy(trie.slot), torch.arange(len(trie.token))]
        return found_BN

    @torch.inference_mode()
    def nats(
        self,
        prompts: Sequence[Ids],
        continuations: Sequence[Ids],
        *,
        panel: npt.NDArray[np.bool_] | None = None,
        on_cell: Advance | None = None,
    ) -> list[npt.NDArray[np.float64]]:
        """Nats of each id of a cell after its prompt, over legal ids and genes of the panel; the first, ``<cell>``, has 0."""
        panel_G = None if panel is None else torch.from_numpy(np.asarray(panel)).to(self.device)
        whole = [np.concatenate([prompt, cell]) for prompt, cell in zip(prompts, continuations, strict=True)]
        lengths = [len(ids) for ids in whole]
        self.fits(max(lengths, default=0), "a sentence")
        found: list[npt.NDArray[np.float64]] = [np.zeros(0)] * len(whole)
        for rows in self.buckets(lengths):
            ids_BT, _ = self.padded([whole[row] for row in rows])
            states_BTD = self.body(input_ids=ids_BT, use_cache=False).last_hidden_state
            for place, row in enumerate(rows):
                learnt = np.zeros(lengths[row], dtype=bool)
                learnt[len(prompts[row]) + 1 :] = True
                chunks = plan_chunks(legal_targets(whole[row], learnt, self.vocabulary), self.vocabulary)
                states = states_BTD[place, : lengths[row]].float()
                ones = torch.ones(len(states), device=self.device)
                _, nats = legal_cross_entropy(states, self.output_VD.float(), ones, chunks, self.vocabulary, panel_G=panel_G)
                found[row] = np.concatenate([[0.0], nats[len(prompts[row]) : -1].double().cpu().numpy()])
            if on_cell:
                on_cell(len(rows))
        return found

    @torch.inference_mode()
    def generate(self, requests: Sequence[CellRequest], sampling: Sampling, *, on_cell: Advance | None = None) -> list[Ids]:
        """One cell a request, from ``<cell>`` to ``</cell>``; every one is a legal c-sentence that fits the context."""
        found: list[Ids] = [np.zeros(0, np.int64)] * len(requests)
        self.fits(max((len(request.prompt) for request in requests), default=0) + 9, "a prompt")
        depths = self._depths(requests, sampling)
        requests = [replace(request, depth=depth) for request, depth in zip(requests, depths, strict=True)]
        # cells of like depth are of like length, and end together
        order = sorted(range(len(requests)), key=lambda number: (depths[number], len(requests[number].prompt), number))
        for first in range(0, len(order), GENERATE_ROWS):
            members = order[first : first + GENERATE_ROWS]
            writer = CellWriter(self, [requests[number] for number in members], sampling)
            for number, ids in zip(members, writer.write(on_cell), strict=True):
                found[number] = ids
        return found

    @torch.inference_mode()
    def write_words(self, prompts: Sequence[Ids], automata: Sequence[WordAutomaton]) -> list[Written]:
        """The likeliest legal continuation of each prompt, id by id, until its automaton is done."""
        lengths = [len(prompt) for prompt in prompts]
        self.fits(max(lengths, default=0) + 1, "a question")
        found: list[Written] = [Written(np.zeros(0, np.int64), 0.0)] * len(prompts)
        for rows in self.buckets(lengths, WORDS_AFTER):
            for row, written in zip(rows, write_words(self, [prompts[row] for row in rows], [automata[row] for row in rows]), strict=True):
                found[row] = written
        return found

    def _depths(self, requests: Sequence[CellRequest], sampling: Sampling) -> list[int]:
        """The depth id of each request, drawn where it is not given."""
        found = [request.depth if request.depth is not None else -1 for request in requests]
        undecided = [number for number, depth in enumerate(found) if depth < 0]
        lengths = [len(requests[number].prompt) + 1 for number in undecided]
        for rows in self.buckets(lengths):
            members = [undecided[row] for row in rows]
            ids_BT, length_B = self.padded([np.append(requests[number].prompt, self.vocabulary.cell) for number in members])
            states_BTD = self.body(input_ids=ids_BT, use_cache=False).last_hidden_state
            logits_BV = states_BTD[torch.arange(len(rows), device=self.device), length_B - 1] @ self.output_VD.T
            begun = CellRows(self.vocabulary, len(rows), self.context, self.device)
            begun.put(range(len(rows)), [requests[number] for number in members], sampling)
            every = torch.arange(len(rows), device=self.device)
            drawn = begun.choose(every, functools.partial(_some_rows, logits_BV))
            for number, depth in zip(members, drawn.tolist(), strict=True):
                found[number] = depth
        return found
