"""Models that begin as another causal LM: the same model with its ids in other places, new rows the means of their pieces."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from foreign import FAMILIES, change_json, write_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from scmulan.csentence import LEVEL_COUNTS
from scmulan.errors import CheckpointError, EngineError
from scmulan.model import load_checkpoint, save_checkpoint
from scmulan.model_start import is_foreign, start_from_hf
from scmulan.tokenizer import load_tokenizer, load_vocabulary
from scmulan.tokenizer_extend import extend_tokenizer, read_foreign_tokenizer

TEXT = "The natural killer cell of the blood is a lymphocyte, and a B cell makes antibodies."


class Started:
    """A foreign model, its folder, its extension and what scmulan makes of it."""

    def __init__(self, family: str, folder: Path, genes_of: Path):
        self.folder, self.tokenizer = folder / "hf", folder / "tokenizer"
        self.foreign_lm: PreTrainedModel = write_model(self.folder, family)
        self.foreign = read_foreign_tokenizer(self.folder)
        extend_tokenizer(self.foreign, self.tokenizer, genes_of=genes_of)
        self.lm = start_from_hf(self.folder, self.tokenizer, context=192, seed=1).eval()
        self.v = load_vocabulary(self.tokenizer)

    def rows(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Our and their matrices, of input and output."""
        both = [(model.get_input_embeddings().weight, model.get_output_embeddings().weight) for model in (self.lm, self.foreign_lm)]
        return [(ours.detach(), theirs.detach()) for ours, theirs in zip(*both, strict=True)]


@pytest.fixture(scope="module", params=FAMILIES)
def started(request, language, tmp_path_factory) -> Started:
    return Started(request.param, tmp_path_factory.mktemp(request.param), language.folder)


@pytest.fixture(scope="module")
def qwen3(language, tmp_path_factory) -> Started:
    return Started("qwen3", tmp_path_factory.mktemp("one"), language.folder)


@torch.no_grad()
def test_text_has_the_logits_that_it_had(started):
    """The permutation: the same pieces under both numberings give the same logits of every piece."""
    tokenizer = load_tokenizer(started.tokenizer)
    theirs = started.foreign.encode([TEXT])[0]
    ours = tokenizer.convert_tokens_to_ids([started.foreign.tokenizer.id_to_token(number) for number in theirs])
    pieces = [piece for piece in started.foreign.pieces if piece != "ĠT"]  # a gene, and moved with the genes
    wanted = started.foreign_lm(torch.tensor([theirs])).logits[0][:, [started.foreign.pieces[piece] for piece in pieces]]
    found = started.lm(torch.tensor([ours])).logits[0][:, tokenizer.convert_tokens_to_ids(pieces)]
    assert wanted.std() > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_gene_begins_as_the_mean_of_the_pieces_that_spell_it(started):
    """In the output matrix, all genes' rows are moved by the same vector."""
    is_tied = started.lm.config.tie_word_embeddings
    for number, (ours, theirs) in enumerate(started.rows()):
        moved = [
            ours[started.v.gene_id(gene)] - theirs[started.foreign.encode([f" {gene}"])[0]].mean(0)
            for gene in ("HLA-DRA", "RP11-34P13.7", "GENE7", "T")
        ]
        for vector in moved:
            torch.testing.assert_close(vector, moved[0] if number or is_tied else torch.zeros_like(vector), rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@torch.no_grad()
def test_what_all_logits_share_is_taken_from_the_genes_alone(family, language, tmp_path):
    """A softmax does not see it; the hazard of a gene would."""
    plain = write_model(tmp_path / "hf", family)
    plain.model.embed_tokens.weight.data[:, :8] += 0.5
    middle = plain.model(torch.arange(200)[None]).last_hidden_state[0].mean(0)
    plain.get_output_embeddings().weight.data += 12 * middle / (middle @ middle)
    plain.save_pretrained(tmp_path / "hf")
    extend_tokenizer(read_foreign_tokenizer(tmp_path / "hf"), tmp_path / "tokenizer", genes_of=language.folder)
    lm = start_from_hf(tmp_path / "hf", tmp_path / "tokenizer", context=192).eval()
    v = load_vocabulary(tmp_path / "tokenizer")
    ids = torch.tensor([[v.bos, v.cell, v.first_depth + 15, int(v.level_id(0)), *range(v.first_gene, v.first_gene + 60)]])
    logits = lm(ids).logits[0]
    assert logits[:, v.text[0] : v.text[1]].mean() > 6
    assert logits[:, v.first_gene : v.last_gene].mean().abs() < 1


def test_structure_begins_as_its_wording(started):
    v = started.v
    said = {v.first_depth + 20: " depth 20", int(v.level_id(2)): f" count {LEVEL_COUNTS[2]}", v.end_of_cell: " end of cell"}
    said[load_tokenizer(started.tokenizer).convert_tokens_to_ids("<cell_type>")] = " cell type"
    for ours, theirs in started.rows():
        for number, words in said.items():
            wanted = theirs[started.foreign.encode([words])[0]].mean(0)
            assert (ours[number] - wanted).abs().max() < 0.5 * theirs.std(), words  # noise there may be, for another row says the same


def test_the_end_begins_as_the_other_models_end(started):
    config = started.foreign_lm.config
    for ours, theirs in started.rows():
        assert torch.equal(ours[started.v.eos], theirs[config.eos_token_id])
        assert torch.equal(ours[started.v.pad], theirs[config.pad_token_id])
        assert 0 < (ours[started.v.bos] - theirs[config.eos_token_id]).abs().mean() < theirs.std(), "a bos of its own it has not"


def test_no_two_rows_are_equal(started):
    for ours, _ in started.rows():
        assert len(torch.unique(ours, dim=0)) == started.v.size
        assert torch.isfinite(ours).all()


def test_the_config_is_that_of_the_new_ids(started):
    config, v = started.lm.config, started.v
    assert (config.vocab_size, config.bos_token_id, config.eos_token_id, config.pad_token_id) == (v.size, v.bos, v.eos, v.pad)
    assert config.max_position_embeddings == 192
    assert started.lm.get_input_embeddings().padding_idx == v.pad
    is_tied = started.lm.get_input_embeddings().weight is started.lm.get_output_embeddings().weight
    assert is_tied == config.tie_word_embeddings == started.foreign_lm.config.tie_word_embeddings


def test_a_saved_start_loads_as_it_was(started, tmp_path):
    save_checkpoint(tmp_path / "model", started.lm, started.tokenizer, {"labels": []}, dtype=torch.float32)
    found = load_checkpoint(tmp_path / "model")
    assert (found.context, found.vocabulary) == (192, started.v)
    for name, tensor in started.lm.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor), name
    written = "".join(path.read_text() for path in (tmp_path / "model").glob("*.json") if path.name != "tokenizer.json")
    assert str(started.folder) not in written, "no path of the machine it was made on"


def test_the_same_seed_gives_the_same_start(qwen3):
    again = start_from_hf(qwen3.folder, qwen3.tokenizer, context=192, seed=1)
    other = start_from_hf(qwen3.folder, qwen3.tokenizer, context=192, seed=2)
    assert torch.equal(again.lm_head.weight, qwen3.lm.lm_head.weight)
    assert not torch.equal(other.lm_head.weight, qwen3.lm.lm_head.weight)


def test_a_foreign_folder_is_told_from_our_own(qwen3, tmp_path):
    assert is_foreign(qwen3.folder)
    save_checkpoint(tmp_path / "model", qwen3.lm, qwen3.tokenizer, {})
    assert not is_foreign(tmp_path / "model")
    assert not is_foreign(tmp_path)


def test_a_tokenizer_that_extends_nothing_or_another_is_an_error_with_the_command(qwen3, language, tmp_path):
    with pytest.raises(CheckpointError, match=r"extends no other tokenizer; .*run `scmulan tokenizer extend .* -o FOLDER`"):
        start_from_hf(qwen3.folder, language.folder, context=192)
    other = Path(shutil.copytree(qwen3.folder, tmp_path / "hf"))
    change_json(other / "tokenizer.json", model__ignore_merges=True)
    with pytest.raises(CheckpointError, match=r"extends another tokenizer; .*run `scmulan tokenizer extend"):
        start_from_hf(other, qwen3.tokenizer, context=192)


@pytest.fixture
def copied(qwen3, tmp_path) -> Path:
    return Path(shutil.copytree(qwen3.folder, tmp_path / "hf"))


@pytest.mark.parametrize("model_type", ["t5", "bert-of-my-own"])
def test_a_kind_that_is_no_causal_lm_is_an_error_that_names_it(qwen3, copied, model_type):
    change_json(copied / "config.json", model_type=model_type)
    with pytest.raises(EngineError, match=f"model type '{model_type}'.*needed a causal LM like Qwen2, Qwen3 or Llama"):
        start_from_hf(copied, qwen3.tokenizer, context=192)


def test_code_that_lies_in_the_folder_is_not_run(qwen3, copied, tmp_path):
    mark = tmp_path / "ran"
    (copied / "modeling_own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    own = {"AutoConfig": "modeling_own.Config", "AutoModelForCausalLM": "modeling_own.Model"}
    change_json(copied / "config.json", auto_map=own)
    start_from_hf(copied, qwen3.tokenizer, context=192)
    change_json(copied / "config.json", model_type="own")
    with pytest.raises(EngineError, match="model type 'own'"):
        start_from_hf(copied, qwen3.tokenizer, context=192)
    assert not mark.exists()


def test_pickled_weights_are_not_read(qwen3, copied):
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="the weights can't be loaded"):
        start_from_hf(copied, qwen3.tokenizer, context=192)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_config_is_an_error_that_names_it(qwen3, copied, content):
    (copied / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json: can't be read"):
        start_from_hf(copied, qwen3.tokenizer, context=192)


def other_kind(folder: Path, config) -> Path:
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def test_architectures_that_training_can_not_reach_into_are_named(qwen3, copied):
    from transformers import GPT2Config

    other_kind(copied, GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=460, n_positions=64))
    with pytest.raises(EngineError, match=r"GPT2LMHeadModel \(gpt2\) has no model\.layers; needed"):
        start_from_hf(copied, qwen3.tokenizer, context=192)


def test_layers_without_the_usual_parts_are_named(qwen3, copied):
    from transformers import Qwen3MoeConfig

    shape = {"hidden_size": 16, "intermediate_size": 16, "moe_intermediate_size": 16, "num_experts": 2, "num_experts_per_tok": 1}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    other_kind(copied, Qwen3MoeConfig(**shape, **heads, vocab_size=460))
    with pytest.raises(EngineError, match=r"Qwen3MoeForCausalLM \(qwen3_moe\) has no mlp\.down_proj in layers '0'"):
        start_from_hf(copied, qwen3.tokenizer, context=192)


def test_layers_with_a_sliding_window_are_refused(qwen3, copied):
    change_json(copied / "config.json", use_sliding_window=True, sliding_window=16, layer_types=["full_attention", "sliding_attention"])
    with pytest.raises(EngineError, match=r"do not see the whole sentence \(full_attention, sliding_attention\)"):
        start_from_hf(copied, qwen3.tokenizer, context=192)


def test_logits_that_are_more_than_a_product_are_refused(qwen3, copied):
    from transformers import GraniteConfig

    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    other_kind(copied, GraniteConfig(**shape, vocab_size=460, logits_scaling=8.0))
    with pytest.raises(EngineError, match="makes more of its logits than hidden states times output matrix"):
        start_from_hf(copied, qwen3.tokenizer, context=192)


def test_a_tokenizer_of_a_larger_model_is_an_error(qwen3, copied):
    config = json.loads((copied / "config.json").read_text())
    other_kind(copied, FAMILIES["qwen3"](vocab_size=300, bos_token_id=None, eos_token_id=2, pad_token_id=0))
    assert config["vocab_size"] > 300
    with pytest.raises(CheckpointError, match="the tokenizer has an id 419, the model 300 rows; copy both from one model"):
        start_from_hf(copied, qwen3.tokenizer, context=192)


def test_a_model_without_begin_end_and_padding_still_starts(qwen3, copied):
    change_json(copied / "config.json", bos_token_id=None, eos_token_id=[5, 6], pad_token_id=None)
    lm = start_from_hf(copied, qwen3.tokenizer, context=192)
    rows = qwen3.foreign_lm.get_input_embeddings().weight
    deviations = [(lm.get_input_embeddings().weight[number] - rows[5]).abs().max() for number in (qwen3.v.bos, qwen3.v.eos, qwen3.v.pad)]
    assert max(deviations) < rows.std()
