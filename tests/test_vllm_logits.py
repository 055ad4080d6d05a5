"""scmulan's processor for vLLM's model runner V2, driven as that runner drives it: it needs Triton, which vLLM's CPU build lacks."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("vllm")

from vllm.sampling_params import SamplingParams
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState

from scmulan.csentence import decode_many
from scmulan.decoding.sampling import Sampling
from scmulan.engines.asked import KEY, write_cell, write_words
from scmulan.engines.base import CellRequest
from scmulan.engines.cell_rows import CellRows
from scmulan.engines.vllm_logits import CellLogitsV2

pytestmark = pytest.mark.vllm
CONTEXT, N_SLOTS = 128, 4


class Runner:
    """Steps as model runner V2 takes them: requests keep a slot, rows come in any order, a long prompt is read in two parts, and what is
    sampled after the first part is thrown away."""

    def __init__(self, language, model):
        self.vocabulary, self.model = language.vocabulary, model
        held = lambda: torch.zeros(N_SLOTS, dtype=torch.int32)  # noqa: E731
        self.prompt_len, self.total_len, self.ids = held(), held(), torch.zeros(N_SLOTS, CONTEXT, dtype=torch.int32)
        self.states = LogitsProcRequestState(
            device=torch.device("cpu"), max_num_reqs=N_SLOTS, vocab_size=model.shape[1],
            all_token_ids=SimpleNamespace(gpu=self.ids), prompt_len=SimpleNamespace(np=self.prompt_len.numpy()),
            prefill_len=SimpleNamespace(np=self.prompt_len.numpy()), total_len=SimpleNamespace(gpu=self.total_len),
        )  # fmt: skip
        config = SimpleNamespace(model_config=SimpleNamespace(model=str(language.folder), max_model_len=CONTEXT))
        self.logits, self.is_read = CellLogitsV2(config, self.states), np.zeros(N_SLOTS, dtype=bool)
        self.rng = np.random.default_rng(0)

    def add(self, slot, asked, prompt, written=()):
        ids = [*prompt, *written]
        self.ids[slot, : len(ids)] = torch.tensor(ids, dtype=torch.int32)
        self.prompt_len[slot], self.total_len[slot], self.is_read[slot] = len(prompt), len(ids), len(prompt) < 8
        assert self.logits.add_request(slot, SamplingParams(extra_args={KEY: asked}))
        self.logits.apply_staged_writes()

    def step(self, slots):
        """One step of some slots; the ids that were sampled."""
        order = self.rng.permutation(slots)
        pos = torch.tensor([int(self.total_len[slot]) - 1 if self.is_read[slot] else 4 for slot in order])
        at = torch.from_numpy(order)
        last = self.ids[at, pos].long()
        context = LogitsContext(
            expanded_idx_mapping=at, idx_mapping=at, idx_mapping_np=order, expanded_local_pos=torch.zeros_like(at),
            input_ids=last, pos=pos, seq_lens_upper_bound_np=pos.numpy() + 1,
        )  # fmt: skip
        sampled = self.logits.apply(self.model[last].clone(), context).argmax(1)
        for slot, number in zip(order, sampled.tolist(), strict=True):
            if self.is_read[slot]:
                self.ids[slot, int(self.total_len[slot])] = number
                self.total_len[slot] += 1
            self.is_read[slot] = True

    def written(self, slot):
        return self.ids[slot, int(self.prompt_len[slot]) : int(self.total_len[slot])].numpy().astype(np.int64)


@pytest.fixture
def model(language):
    """Logits after each id, the same for all that stands before it."""
    n_ids = language.vocabulary.last_gene
    return torch.randn(n_ids, n_ids, generator=torch.Generator().manual_seed(0))


def alone(language, model, request, sampling):
    """The cell as the code that all engines share writes it."""
    v, found = language.vocabulary, []
    rows = CellRows(v, 1, CONTEXT)
    rows.put([0], [request], sampling)
    slot, last = torch.zeros(1, dtype=torch.long), v.cell
    while not found or found[-1] != v.end_of_cell:
        logits = model[last][None]
        of = lambda _, first, logits=logits: torch.cat([logits[:, : v.first_gene], logits[:, v.first_gene + first :]], 1)  # noqa: E731
        chosen = rows.choose(slot, of)
        rows.advance(slot, chosen)
        found.append(last := int(chosen))
    return np.array(found)


def test_its_cells_are_those_of_the_shared_code_in_any_slot_and_when_set_aside(language, model):
    v, sampling = language.vocabulary, Sampling(seed=3)
    short, long = [v.text[0]] * 3 + [v.cell], [v.text[0]] * 11 + [v.cell]
    prompts = [short, long, short, long, short, long]
    asked = [CellRequest(prompt=np.array(prompt[:-1]), row=row) for row, prompt in enumerate(prompts)]
    wanted = [alone(language, model, request, sampling) for request in asked]
    runner, waiting, at, found = Runner(language, model), list(range(6)), {}, {}
    was_set_aside = False
    while waiting or at:
        for slot in sorted(set(range(N_SLOTS)) - set(at)):
            if waiting:
                row = at[slot] = waiting.pop(0)
                runner.add(slot, write_cell(asked[row], sampling, v.n_genes), prompts[row])
        runner.step(sorted(at))
        if not was_set_aside and len(runner.written(3)) == 5:  # its slot is needed; it comes back to it with what it has written
            written, was_set_aside = runner.written(3), True
            runner.add(3, write_cell(asked[at[3]], sampling, v.n_genes), prompts[at[3]], written)
        for slot in list(at):
            written = runner.written(slot)
            if len(written) and written[-1] == v.end_of_cell:
                found[at.pop(slot)] = written
    assert was_set_aside
    for row, cell in enumerate(wanted):
        assert found[row].tolist() == cell.tolist()
    decode_many([np.append(v.cell, cell) for cell in found.values()], v, np.random.default_rng(0))


def test_words_are_weighed_among_words_alone(language, model):
    v, runner = language.vocabulary, Runner(language, model)
    runner.add(0, write_words(is_text=True), [v.text[0]] * 3)
    runner.step([0])
    (said,) = runner.written(0)
    assert v.text[0] <= said < v.text[1] or v.first_gene <= said < v.last_gene
