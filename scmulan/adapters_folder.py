"""Adapter folders: PEFT's own (``adapter_config.json``, ``adapter_model.safetensors``) with a card that says what they were trained on.

The card, ``scmulan.json``, holds the hash of the base's weights and of its tokenizer; an adapter is refused on any other model, for it
would be read without an error and mean nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from scmulan import assets
from scmulan.adapters import OUTPUT, TRAINED, import_peft, key_of, target_names, use_adapter, without_tied_warning
from scmulan.errors import CheckpointError, some
from scmulan.model import CARD, Checkpoint, file_hash, load_checkpoint, save_checkpoint
from scmulan.model_card import write_card

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
READOUT, RATES = "readout.safetensors", "rates.st"
"""What may stand beside them: ``scmulan.readout`` and ``scmulan.rates``, both in the format of safetensors; vLLM would take every file of
a model that is named so for its weights, and rates stand in models too."""
BESIDE = {"readout": READOUT, "rates": RATES}
"""The same, by the line of the card that tells of each."""
FORMAT = 1


@dataclass(frozen=True)
class Adapter:
    """An adapter folder whose files are those of its card."""

    folder: Path
    card: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def base(self) -> Mapping[str, str]:
        """Name, ``weights_sha256`` and ``tokenizer_sha256`` of the model it stands on."""
        found: Mapping[str, str] = self.card["base"]
        return found

    @property
    def sha256(self) -> str:
        return str(self.card["weights_sha256"])

    def labels(self, field: str) -> list[str]:
        """Labels of a field among the cells it was trained on."""
        return sorted({str(entry[field]) for entry in self.card["labels"] if entry.get(field)})


def base_of(card: Mapping[str, Any], folder: str | Path) -> dict[str, str]:
    """What an adapter's card says of the model it stands on: its name, not where it lies."""
    is_embedded = str(folder) == "demo" or Path(folder).resolve() == assets.path("embedded", "model").resolve()
    return {
        "name": "demo" if is_embedded else Path(folder).resolve().name,
        "weights_sha256": card["weights_sha256"],
        "tokenizer_sha256": card["tokenizer_sha256"],
    }


def save_adapter(
    folder: Path, peft_model: Any, base: Mapping[str, str], card: Mapping[str, Any], *, state: Mapping[str, torch.Tensor] | None = None
) -> Path:
    """Write the adapter that was trained, whole or not at all.

    Parameters
    ----------
    base : as from ``base_of``
    card : what it was trained on, with the keys of a model's card; the hashes are added
    state : trained tensors by their names in the model, where they do not lie whole in it; those of the model when not given
    """
    from peft import get_peft_model_state_dict

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    given = None if state is None else {f"base_model.model.{name}": tensor for name, tensor in state.items()}
    found = get_peft_model_state_dict(peft_model, given, adapter_name=TRAINED, save_embedding_layers=False)
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in found.items()}
    config = peft_model.peft_config[TRAINED]
    before = config.base_model_name_or_path, config.inference_mode
    config.base_model_name_or_path, config.inference_mode = base["name"], True
    try:
        save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
        config.save_pretrained(partial)
        hashes = {"weights_sha256": file_hash(partial / WEIGHTS), "tokenizer_sha256": base["tokenizer_sha256"]}
        whole = {**card, "kind": "adapter", "format": FORMAT, "base": dict(base), **hashes}
        (partial / CARD).write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
        write_card(partial, whole)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(f"{folder}: can't be written ({error}); what stood there before is whole") from error
    finally:
        config.base_model_name_or_path, config.inference_mode = before
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    return folder


def open_adapter(folder: str | Path) -> Adapter:
    """An adapter folder, its files compared with their hashes.

    Raises
    ------
    CheckpointError
        When a file is missing or damaged, or the folder is a whole model.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such adapter folder; give a folder written by `scmulan finetune`")
    if (folder / "model.safetensors").is_file() and not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: a whole model, no adapter; open it by itself, scmulan.load({str(folder)!r})")
    for needed in (CONFIG, WEIGHTS, CARD):
        if not (folder / needed).is_file():
            raise CheckpointError(f"{folder}: no {needed}; needed an adapter folder written by `scmulan finetune`")
    card, config = (_read(folder / name) for name in (CARD, CONFIG))
    lacking = [key for key in ("base", "labels", "weights_sha256") if key not in card]
    if lacking or not {"weights_sha256", "tokenizer_sha256"} <= set(card["base"]):
        raise CheckpointError(f"{folder / CARD}: says nothing of {some(lacking or ['base'])}; copy the adapter again")
    if file_hash(folder / WEIGHTS) != card["weights_sha256"]:
        raise CheckpointError(
            f"{folder / WEIGHTS}: its sha256 is not the one in {CARD}; the file is damaged or another; copy the adapter again"
        )
    for line, name in BESIDE.items():
        if line in card and (not (folder / name).is_file() or file_hash(folder / name) != card[line]["sha256"]):
            raise CheckpointError(f"{folder / name}: missing, or its sha256 is not the one in {CARD}; copy the adapter again")
    return Adapter(folder, card, config)


def check_base(adapter: Adapter, base_card: Mapping[str, Any], base_folder: str | Path) -> None:
    """CheckpointError when an adapter was trained on another model or tokenizer than this."""
    for key, what in (("tokenizer_sha256", "tokenizer"), ("weights_sha256", "weights")):
        if adapter.base[key] != base_card[key]:
            raise CheckpointError(
                f"{adapter.folder}: trained on another model: on {adapter.base.get('name', 'one')} of {what} {adapter.base[key][:12]}, "
                f"and {base_of(base_card, base_folder)['name']} has {what} {base_card[key][:12]}; open that model, or train one on this"
            )


def load_adapter(lm: PreTrainedModel, adapter: Adapter, name: str, onto: Any = None, *, dtype: torch.dtype = torch.float32) -> Any:
    """Put an opened adapter on a model's layers and let it work; returns the ``PeftModel``, ``onto`` where there is one already.

    Raises
    ------
    CheckpointError
        When its tensors are not those that its configuration asks for, or the model has no such layers.
    """
    peft, key = import_peft(), key_of(name)
    if onto is not None and key in onto.peft_config:
        raise CheckpointError(f"{adapter.folder}: there is an adapter {name!r} already; give this one another name")
    config = _lora_config(peft, adapter, lm if onto is None else None)
    try:
        with without_tied_warning():
            if onto is None:
                onto = peft.get_peft_model(lm, config, adapter_name=key)
            else:
                onto.add_adapter(key, config)
        found = peft.set_peft_model_state_dict(onto, load_file(adapter.folder / WEIGHTS), adapter_name=key)
    except (RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{adapter.folder}: can't be put on this model ({error}); copy the adapter again") from error
    missing = [tensor for tensor in found.missing_keys if f".{key}." in tensor]
    if missing or found.unexpected_keys:
        raise CheckpointError(f"{adapter.folder}: {CONFIG} and {WEIGHTS} do not agree on {some([*missing, *found.unexpected_keys])}")
    for tensor, parameter in onto.named_parameters():
        if f".{key}." in tensor:
            parameter.data = parameter.data.to(lm.device, dtype)
    use_adapter(onto, name)
    onto.eval()
    return onto


def _lora_config(peft: Any, adapter: Adapter, lm: PreTrainedModel | None) -> Any:
    if adapter.config.get("peft_type") != "LORA" or adapter.config.get("modules_to_save"):
        raise CheckpointError(f"{adapter.folder / CONFIG}: needed a LoRA of linear layers alone, without modules_to_save")
    targets = adapter.config.get("target_modules") or []
    if lm is not None:
        known = target_names(lm)
        unknown = sorted(set(targets) - set(known))
        if unknown:
            raise CheckpointError(f"{adapter.folder / CONFIG}: the model has no linear layer {some(unknown)}; it has {', '.join(known)}")
    config = peft.LoraConfig.from_pretrained(str(adapter.folder))
    config.inference_mode = True
    config.base_model_name_or_path = None  # the card names the base, by its hash
    return config


def adapters_in(folder: str | Path) -> list[Adapter]:
    """The adapters in a folder: itself, or those in the folders below it (two deep), by name; CheckpointError for a damaged one."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    places = (
        [folder]
        if (folder / CONFIG).is_file()
        else sorted({path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{CONFIG}")})
    )
    return [open_adapter(place) for place in places if not place.name.endswith(".partial")]


def merge(base: str | Path, adapter: str | Path, output: str | Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Write a whole model folder that answers as the base with the adapter does.

    Parameters
    ----------
    dtype : of the weights written; bfloat16 halves the file, and rounds away much of what a small adapter says

    Raises
    ------
    CheckpointError
        When the adapter is of another base, or ``output`` is there already.
    """
    output = Path(output)
    if output.exists():
        raise CheckpointError(f"{output}: there already; name another folder")
    checkpoint, opened = load_checkpoint(base), open_adapter(adapter)
    check_base(opened, checkpoint.card, base)
    if OUTPUT in opened.config.get("target_modules", ()):
        _untie(checkpoint.model)
    merged = load_adapter(checkpoint.model, opened, opened.folder.name).merge_and_unload()
    save_checkpoint(output, merged, checkpoint.folder, merged_card(checkpoint, opened), dtype=dtype)
    for name in BESIDE.values():
        if (opened.folder / name).is_file():
            shutil.copyfile(opened.folder / name, output / name)
    return output


def _untie(lm: PreTrainedModel) -> None:
    """Give a model whose input and output embeddings are one matrix an output matrix of its own."""
    if lm.config.tie_word_embeddings:
        lm.config.tie_word_embeddings = False
        head = lm.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())


def merged_card(checkpoint: Checkpoint, adapter: Adapter) -> dict[str, Any]:
    """The base's card, with what the adapter has seen beside what the base has."""
    card = {key: value for key, value in checkpoint.card.items() if key not in ("weights_sha256", "tokenizer_sha256")}
    beside = {line: adapter.card[line] for line in BESIDE if line in adapter.card}
    return {
        **card,
        **beside,
        "steps": card.get("steps", 0) + adapter.card.get("steps", 0),
        "tokens": card.get("tokens", 0) + adapter.card.get("tokens", 0),
        "sources": [*card.get("sources", []), *adapter.card.get("sources", [])],
        "labels": joined_labels(card["labels"], adapter.card["labels"]),
        "held_out_nats": adapter.card.get("held_out_nats", {}),
        "recipe": adapter.card.get("recipe", {}),
        "tuned_from": dict(adapter.base),
        "merged_adapter": {"name": adapter.folder.name, "weights_sha256": adapter.sha256},
    }


def joined_labels(*cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Combinations of fields of several cards, the cells of equal ones added up."""
    cells: dict[tuple[tuple[str, str], ...], int] = {}
    for entry in (entry for labels in cards for entry in labels):
        key = tuple((name, value) for name, value in entry.items() if name != "cells")
        cells[key] = cells.get(key, 0) + int(entry["cells"])
    return [{**dict(key), "cells": count} for key, count in cells.items()]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); copy the adapter again") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: found {type(found).__name__}, needed a mapping; copy the adapter again")
    return found
