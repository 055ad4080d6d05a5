"""The transformers engine: the same ids, scores and states as a plain loop over whole sentences without cache or batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from foreign import FAMILIES, write_model
from hypothesis import given, settings
from hypothesis import strategies as st

from scmulan import csentence
from scmulan.automaton import CellAutomaton
from scmulan.csentence import Ragged
from scmulan.decoding.sampling import Sampling, sample, uniform_draws
from scmulan.engines import CellRequest, transformers_writing
from scmulan.engines import transformers as engines
from scmulan.engines.asked import AskedReader, write_cell
from scmulan.engines.transformers import TransformersEngine, best_dtype, grouped_attention
from scmulan.errors import EngineError
from scmulan.hazard import likely, next_log_probabilities
from scmulan.model import Checkpoint, load_checkpoint, save_checkpoint
from scmulan.model_start import start_from_hf
from scmulan.rates import RatesOfKind
from scmulan.tasks import Model
from scmulan.tokenizer_extend import extend_tokenizer, read_foreign_tokenizer
from scmulan.training import attention
from scmulan.training.packed import PackedLM

GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def engine(model) -> TransformersEngine:
    return model.engine


@pytest.fixture(scope="module")
def plain(trained):
    """The same weights with transformers' own attention."""
    lm = load_checkpoint(trained.folder).model
    lm.set_attn_implementation("eager")
    return lm


@pytest.fixture(scope="module")
def cells(model, trained) -> Ragged:
    return model.read(trained.cells, reserve=64).ids


def requests_of(model, n: int = 6, depth: int | None = None, **wanted) -> list[CellRequest]:
    """Prompts of different lengths; ``wanted`` are further attributes of each request."""
    fields = [{"organ": "blood"}, {}, {"organism": "Homo sapiens", "organ": "blood", "cell_type": "natural killer cell"}]
    prompts = [model.writer.prompt("generate", fields[row % 3]) for row in range(n)]
    return [CellRequest(prompt=prompt, row=row, depth=depth, **wanted) for row, prompt in enumerate(prompts)]


@torch.no_grad()
def plain_cell(lm, model, request: CellRequest, sampling: Sampling, *, most: int) -> list[int]:
    """One cell, the whole sentence read again at each step."""
    automaton = CellAutomaton(model.vocabulary)
    automaton.begin(1)
    ids, draws = [*request.prompt.tolist(), model.vocabulary.cell], uniform_draws(sampling.seed, np.array([request.row]), most)
    for step in range(most):
        logits = lm(torch.tensor([ids])).logits[:, -1].float()
        legal = automaton.legal(left=most - step)
        legal = likely(logits, legal, sampling.least_hazard, model.vocabulary) if sampling.least_hazard else legal
        logs = next_log_probabilities(logits, legal, model.vocabulary)
        chosen = sample(logs, draws[:, step], sampling)
        if step == 0 and request.depth is not None:
            chosen = torch.tensor([request.depth])
        automaton.advance(chosen)
        ids.append(int(chosen))
        if bool(automaton.is_done[0]):
            break
    return ids[len(request.prompt) :]


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=3, least_hazard=0), Sampling(seed=3, least_hazard=0.01)])
def test_cells_are_those_of_a_plain_loop_without_cache_or_batch(model, engine, plain, sampling):
    requests = requests_of(model)
    written = engine.generate(requests, sampling)
    for request, ids in zip(requests, written, strict=True):
        assert ids.tolist() == plain_cell(plain, model, request, sampling, most=engine.context - len(request.prompt) - 1)


def test_coupled_cells_of_two_prompts_share_most_genes_and_do_not_depend_on_their_batch(model, engine):
    blood, none = (model.writer.prompt("generate", fields) for fields in ({"organ": "blood"}, {}))
    wanted = {name: Sampling(seed=5, coupled=name == "coupled") for name in ("coupled", "apart")}
    shared = {}
    for name, sampling in wanted.items():
        one, other = ([CellRequest(prompt=prompt, row=row, depth=None) for row in range(64)] for prompt in (blood, none))
        first, second = engine.generate(one, sampling), engine.generate(other, sampling)
        pairs = [(set(a.tolist()), set(b.tolist())) for a, b in zip(first, second, strict=True)]
        shared[name] = np.mean([len(a & b) / len(a | b) for a, b in pairs])
        assert [ids.tolist() for ids in engine.generate(one[3:5], sampling)] == [ids.tolist() for ids in first[3:5]]
    assert shared["coupled"] > shared["apart"] + 0.04


def test_a_cell_drawn_alone_is_the_same_as_in_a_batch_in_any_order(model, engine):
    requests = requests_of(model, 9)
    together = engine.generate(requests, Sampling(seed=5))
    turned = engine.generate(requests[::-1], Sampling(seed=5))[::-1]
    for number, request in enumerate(requests):
        assert together[number].tolist() == turned[number].tolist()
        assert together[number].tolist() == engine.generate([request], Sampling(seed=5))[0].tolist()


@pytest.mark.parametrize("room", [12, 19])
def test_a_cell_that_fills_the_context_is_the_same_alone_and_in_a_batch(model, trained, room):
    requests = requests_of(model, 6)
    engine = short(trained, max(len(request.prompt) for request in requests) + room)
    together = engine.generate(requests, Sampling(seed=1))
    for request, ids in zip(requests, together, strict=True):
        assert ids.tolist() == engine.generate([request], Sampling(seed=1))[0].tolist()
        assert len(request.prompt) + len(ids) <= engine.context
        csentence.decode(ids, model.vocabulary)


def short(trained, context: int) -> TransformersEngine:
    """The model with a context so short that cells fill it."""
    opened = load_checkpoint(trained.folder)
    opened.model.config.max_position_embeddings = context
    return TransformersEngine(
        Checkpoint(opened.folder, opened.model, opened.tokenizer, opened.vocabulary, opened.card), dtype=torch.float32
    )


@pytest.mark.parametrize(("rows", "shrink_below"), [(1, 0.75), (4, 0.0), (64, 1.0)])
def test_batch_size_and_taking_out_ended_rows_change_nothing(model, engine, monkeypatch, rows, shrink_below):
    requests = requests_of(model, 10)
    usual = engine.generate(requests, Sampling(seed=2))
    monkeypatch.setattr(engines, "GENERATE_ROWS", rows)
    monkeypatch.setattr(transformers_writing, "SHRINK_BELOW", shrink_below)
    for found, wanted in zip(engine.generate(requests, Sampling(seed=2)), usual, strict=True):
        assert found.tolist() == wanted.tolist()


def test_every_generated_cell_parses_and_progress_counts_each_once(model, engine):
    told = []
    for ids in engine.generate(requests_of(model, 100), Sampling(seed=8, temperature=3.0), on_cell=told.append):
        csentence.decode(ids, model.vocabulary)
    assert sum(told) == 100


def test_another_seed_or_row_gives_another_cell(model, engine):
    prompt = model.writer.prompt("generate", {"organ": "blood"})
    drawn = engine.generate([CellRequest(prompt=prompt, row=row) for row in range(8)], Sampling(seed=0))
    again = engine.generate([CellRequest(prompt=prompt, row=row) for row in range(8)], Sampling(seed=1))
    assert len({tuple(ids.tolist()) for ids in [*drawn, *again]}) == 16


def test_a_given_depth_opens_the_cell(model, engine):
    depth = model.vocabulary.first_depth + 12
    assert {int(ids[1]) for ids in engine.generate(requests_of(model, 4, depth), Sampling())} == {depth}


def test_the_panel_is_kept_to_and_used(model, engine):
    panel = np.arange(model.vocabulary.n_genes) % 3 == 0
    columns = [csentence.decode(ids, model.vocabulary)[0] for ids in engine.generate(requests_of(model, 12, panel=panel), Sampling())]
    named = set(np.concatenate(columns).tolist())
    assert named <= set(np.flatnonzero(panel).tolist())
    assert len(named) > 5


@settings(max_examples=10)
@given(columns=st.lists(st.integers(0, 60), min_size=1, max_size=4, unique=True), level=st.integers(0, 20), seed=st.integers(0, 99))
def test_forced_genes_stand_in_every_cell_at_their_level(model, columns, level, seed):
    forced = tuple((column, int(model.vocabulary.level_id(level))) for column in columns)
    panel = np.ones(model.vocabulary.n_genes, dtype=bool)
    panel[columns[0]] = False  # what is forced stands there even where the panel has not got it
    for ids in model.engine.generate(requests_of(model, 3, panel=panel, forced=forced), Sampling(seed=seed)):
        found, counts = csentence.decode(ids, model.vocabulary)
        assert {column: int(count) for column, count in zip(found, counts, strict=True) if column in columns} == dict.fromkeys(
            columns, int(csentence.LEVEL_COUNTS[level])
        )


def answers_of(model) -> list[np.ndarray]:
    names = ["B cell", "natural killer cell", "natural killer cell CD56", "T cell", "keratinocyte"]
    return [model.writer.answer({"cell_type": name}, ["cell_type"]) for name in names]


@torch.no_grad()
def plain_score(lm, model, prompt: np.ndarray, answer: np.ndarray) -> float:
    """Teacher-forced log-softmax of an answer over the words that the grammar allows, one sentence at a time."""
    v = model.vocabulary
    ids = torch.tensor([[*prompt.tolist(), *answer.tolist()]])
    logits, total = lm(ids).logits[0].float(), 0.0
    for at in range(len(prompt) - 1, ids.shape[1] - 1):
        legal = torch.zeros(v.size, dtype=torch.bool)
        legal[v.eos : v.first_depth] = True
        legal[v.first_gene : v.last_gene] = True
        if v.cell < int(ids[0, at]) < v.text[0] and at >= len(prompt):  # after a field's token only words
            legal[: v.text[0]] = False
        total += float(logits[at].masked_fill(~legal, -torch.inf).log_softmax(0)[ids[0, at + 1]])
    return total


def test_scores_are_those_of_a_plain_teacher_forced_softmax(model, engine, plain, cells):
    prompts = [model.writer.prompt("annotate", {"organ": "blood"} if row % 2 else {}, cell=cells[row]) for row in range(5)]
    answers = answers_of(model)
    wanted = [[plain_score(plain, model, prompt, answer) for answer in answers] for prompt in prompts]
    np.testing.assert_allclose(engine.score(prompts, answers), wanted, atol=1e-4)


def test_scores_do_not_depend_on_the_other_answers_or_prompts(model, engine, cells):
    prompts = [model.writer.prompt("annotate", {}, cell=cells[row]) for row in range(8)]
    answers, order = answers_of(model), [3, 0, 4, 1, 2]
    together = engine.score(prompts, answers)
    np.testing.assert_allclose(engine.score(prompts[::-1], answers)[::-1], together, atol=1e-5)
    np.testing.assert_allclose(engine.score(prompts, [answers[number] for number in order]), together[:, order], atol=1e-5)
    alone = [[engine.score([prompt], [answer])[0, 0] for answer in answers] for prompt in prompts]
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_nats_are_those_of_the_training_loss(model, engine, cells, trained):
    lm = load_checkpoint(trained.folder).model
    attention.register()
    lm.set_attn_implementation(attention.PACKED)
    task, fields = model.prompts.task("generate"), {"organ": "blood", "cell_type": "B cell"}
    prompt = model.writer.prompt("generate", fields)
    for row in range(3):
        sentence = np.concatenate([prompt, cells[row], [model.vocabulary.eos]])
        parts = np.zeros(len(sentence), np.uint8)
        parts[len(prompt) : -1] = model.writer.cell_parts(cells[row])
        parts[len(prompt)] = 0
        packs = _Packs(sentence, parts)
        with torch.no_grad():
            packed = PackedLM(lm, model.vocabulary)
            loss, nats_T = packed(packed.prepare(packs, 0, np.array([0, *[1.0] * 30], np.float32)))
        found = engine.nats([prompt], [cells[row]])[0]
        assert len(found) == len(cells[row])
        assert found[0] == 0
        assert found.sum() == pytest.approx(float(loss), rel=1e-5)
        np.testing.assert_allclose(found[1:], nats_T[len(prompt) : -2].numpy(), atol=1e-4)
    assert CELL_TASK in task.predict


CELL_TASK = "cell"


class _Packs:
    """One sentence as a pack of its own."""

    def __init__(self, ids: np.ndarray, parts: np.ndarray):
        self.ids, self.parts, self.bounds = ids[None].astype(np.uint16), parts[None], [np.array([0, len(ids)], np.int32)]


@pytest.mark.parametrize("is_narrow", [False, True])
@torch.no_grad()
def test_nats_are_those_of_the_sampler_step_by_step(model, engine, plain, cells, is_narrow):
    """The likelihood of a cell is the product of what the sampler, kept to the same panel, would have drawn each id with."""
    prompt, cell = model.writer.prompt("generate", {}), cells[0]
    panel = np.arange(model.vocabulary.n_genes) % 3 == 0 if is_narrow else np.ones(model.vocabulary.n_genes, dtype=bool)
    panel[cell[cell >= model.vocabulary.first_gene] - model.vocabulary.first_gene] = True
    automaton = CellAutomaton(model.vocabulary)
    automaton.begin(1, panel=torch.from_numpy(panel))
    logits = plain(torch.tensor([[*prompt.tolist(), *cell.tolist()]])).logits[0].float()
    wanted = [0.0]
    for at, token in enumerate(cell[1:].tolist()):
        legal = automaton.legal()[0]
        wanted.append(-float(next_log_probabilities(logits[None, len(prompt) + at], legal[None], model.vocabulary)[0, token]))
        automaton.advance(torch.tensor([token]))
    np.testing.assert_allclose(engine.nats([prompt], [cell], panel=panel)[0], wanted, atol=1e-4)
    assert (engine.nats([prompt], [cell])[0].sum() > sum(wanted) + 1) == is_narrow


def test_hidden_states_are_the_same_alone_batched_and_shuffled(model, engine, plain, cells):
    prompts = [model.embedding_prompt(cells[row]) for row in range(len(cells))]
    together, order = engine.hidden(prompts), np.random.default_rng(0).permutation(len(prompts))
    scale = np.abs(together).max()
    np.testing.assert_allclose(engine.hidden([prompts[row] for row in order]), together[order], atol=1e-5 * scale)
    np.testing.assert_allclose(np.concatenate([engine.hidden([prompt]) for prompt in prompts]), together, atol=1e-5 * scale)
    with torch.no_grad():
        whole = plain.model(torch.from_numpy(prompts[0])[None]).last_hidden_state[0, -1].numpy()
    np.testing.assert_allclose(together[0], whole, atol=1e-4)
    assert np.abs(together - together[0]).max() > 0.1, "different cells differ"


@pytest.mark.parametrize("tokens", [1, 300, 100_000])
def test_how_rows_are_bucketed_changes_nothing(model, engine, cells, monkeypatch, tokens):
    prompts = [model.writer.prompt("annotate", {}, cell=cells[row]) for row in range(len(cells))]
    before = engine.score(prompts, answers_of(model)), engine.hidden(prompts)
    monkeypatch.setattr(engines, "SCORE_TOKENS", tokens)
    np.testing.assert_allclose(engine.score(prompts, answers_of(model)), before[0], atol=1e-4)
    np.testing.assert_allclose(engine.hidden(prompts), before[1], atol=1e-4)


def test_every_row_falls_into_one_bucket(engine, monkeypatch):
    monkeypatch.setattr(engines, "SCORE_TOKENS", 50)
    lengths = [3, 40, 60, 5, 5, 20, 1]
    buckets = list(engine.buckets(lengths))
    assert sorted(row for rows in buckets for row in rows) == list(range(len(lengths)))
    assert all(len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= 50 for rows in buckets)


def test_progress_is_told_of_every_row(model, engine, cells):
    prompts, told = [model.writer.prompt("annotate", {}, cell=cells[row]) for row in range(len(cells))], []
    for call in (
        lambda: engine.score(prompts, answers_of(model), on_cell=told.append),
        lambda: engine.hidden(prompts, on_cell=told.append),
        lambda: engine.nats([prompt[:1] for prompt in prompts], [cells[row] for row in range(len(cells))], on_cell=told.append),
    ):
        told.clear()
        call()
        assert sum(told) == len(cells)


@pytest.mark.parametrize("ask", ["generate", "score", "hidden", "nats"])
def test_what_is_longer_than_the_context_is_an_error_that_names_both(model, engine, ask):
    long = np.full(engine.context + 1, model.vocabulary.text[0], dtype=np.int64)
    calls = {
        "generate": lambda: engine.generate([CellRequest(prompt=long, row=0)], GREEDY),
        "score": lambda: engine.score([long], answers_of(model)),
        "hidden": lambda: engine.hidden([long]),
        "nats": lambda: engine.nats([long[:3]], [long]),
    }
    with pytest.raises(EngineError, match=r"tokens is longer than the model's context of 192; thin the cell or give fewer fields"):
        calls[ask]()


def test_nothing_asked_is_nothing_answered(model, engine):
    assert engine.generate([], Sampling()) == []
    assert engine.hidden([]).shape[0] == 0
    assert engine.score([], answers_of(model)).shape == (0, 5)
    assert engine.nats([], []) == []


def test_grouped_heads_attend_as_repeated_ones_do():
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 1, 8, generator=generator)
    key, value = (torch.randn(2, 2, 6, 8, generator=generator) for _ in range(2))
    seen = torch.rand(2, 1, 1, 6, generator=generator) < 0.7
    seen[..., 0] = True
    wanted = torch.nn.functional.scaled_dot_product_attention(
        query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), attn_mask=seen
    )
    found, _ = grouped_attention(torch.nn.Module(), query, key, value, seen)
    torch.testing.assert_close(found, wanted.transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_weights_run_in_bfloat16_where_the_processor_multiplies_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert best_dtype("cpu") == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert best_dtype("cpu") == torch.float32
    assert best_dtype("cuda:1") == torch.bfloat16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_writes_the_greedy_cells_of_the_processor(model, engine, trained):
    other = TransformersEngine(load_checkpoint(trained.folder), device="cuda", dtype=torch.float32)
    requests = requests_of(model)
    for found, wanted in zip(other.generate(requests, GREEDY), engine.generate(requests, GREEDY), strict=True):
        assert found.tolist() == wanted.tolist()


@pytest.fixture(scope="module", params=FAMILIES)
def other_family(request, model, trained, tmp_path_factory):
    """The tiny model's labels and tokens on a model of another family, opened, and the same with transformers' own attention."""
    folder = tmp_path_factory.mktemp(request.param)
    write_model(folder / "hf", request.param)
    extend_tokenizer(read_foreign_tokenizer(folder / "hf"), folder / "tokenizer", genes_of=trained.tokenizer)
    lm = start_from_hf(folder / "hf", folder / "tokenizer", context=192)
    save_checkpoint(folder / "model", lm, folder / "tokenizer", {"labels": model.checkpoint.card["labels"]}, dtype=torch.float32)
    checkpoint = load_checkpoint(folder / "model")
    plain = load_checkpoint(folder / "model").model
    plain.set_attn_implementation("eager")
    return Model(checkpoint, TransformersEngine(checkpoint, dtype=torch.float32)), plain


@torch.no_grad()
def test_other_families_are_read_as_by_a_plain_loop(other_family, trained):
    """Scores and hidden states of prompts of different lengths."""
    model, plain = other_family
    cells, answers = model.read(trained.cells, reserve=64).ids, answers_of(model)
    prompts = [model.writer.prompt("annotate", {"organ": "blood"} if row % 2 else {}, cell=cells[row]) for row in range(4)]
    states = [plain.model(torch.from_numpy(prompt)[None]).last_hidden_state[0, -1].numpy() for prompt in prompts]
    np.testing.assert_allclose(model.engine.hidden(prompts), np.stack(states), atol=1e-4)
    wanted = [[plain_score(plain, model, prompt, answer) for answer in answers] for prompt in prompts]
    np.testing.assert_allclose(model.engine.score(prompts, answers), wanted, atol=1e-3)


def test_other_families_write_the_cells_of_a_plain_loop(other_family):
    model, plain = other_family
    sampling = Sampling(seed=3)
    requests = requests_of(model, 3, depth=model.vocabulary.first_depth + 12)
    for request, ids in zip(requests, model.engine.generate(requests, sampling), strict=True):
        assert ids.tolist() == plain_cell(plain, model, request, sampling, most=model.engine.context - len(request.prompt) - 1)


def test_other_families_annotate_and_generate(other_family, new_cells):
    model, _ = other_family
    model.annotate(new_cells)
    assert new_cells.obs["scmulan_cell_type_probability"].between(0, 1).all()
    assert model.generate(organ="blood", cell_type="B cell", n=3).n_obs == 3


@pytest.mark.parametrize("is_rated", [True, False])
def test_what_is_asked_of_a_servers_logits_is_read_as_it_was_written(model, is_rated):
    v, sampling = model.vocabulary, Sampling(seed=2, temperature=0.5, rates=is_rated)
    frame = np.ones((2, v.end_of_cell + 1 - v.first_depth), np.float32)
    rates = RatesOfKind(np.arange(v.n_genes, dtype=np.float32), frame) if is_rated else None
    asked = AskedReader(v).read(write_cell(CellRequest(prompt=np.zeros(1, np.int64), row=3, rates=rates), sampling, v.n_genes))
    assert (asked.request.row, asked.sampling.seed, asked.sampling.temperature) == (3, 2, 0.5)
    assert hash(asked.sampling) == hash(Sampling(seed=2, temperature=0.5))
    assert (asked.request.rates is not None) == is_rated
    if is_rated:
        assert (asked.request.rates.genes == rates.genes).all()
