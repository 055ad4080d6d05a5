"""The page beside a model's weights that says what it is, what it has seen and what it can't do: README.md with Hugging Face front matter.

Made from the card (``scmulan.json``) alone, so it is the same whoever writes it and can be written again later. It says only what the
card records; what the card does not know is said to be unknown. Front matter as in https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import csv
import functools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from scmulan import assets
from scmulan.metadata import FIELDS

PAGE = "README.md"
FEW_CELLS = 20
"""Labels with fewer training cells than this are named among the limits."""
MOST_SOURCES = 40
"""Sources with a row of their own; an atlas may have thousands, and all stand in scmulan.json."""
MOST_LABELS = 30
HUB_LICENCES = ("apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "mit")
NOT_STATED = "not stated by the source"
TAGS = ("biology", "single-cell", "scrna-seq", "transcriptomics", "generative")


def write_card(folder: Path, card: Mapping[str, Any]) -> Path:
    """Write ``README.md`` of a card into a model or adapter folder; returns its path."""
    path = folder / PAGE
    path.write_text(card_text(card))
    return path


def card_text(card: Mapping[str, Any]) -> str:
    """A model card in Markdown.

    Parameters
    ----------
    card : what ``scmulan.json`` holds
        All keys may be absent: ``parameters``, ``context``, ``steps``, ``tokens``, ``sources`` (as in a corpus's manifest; a source may
        have a ``licence``), ``labels`` (combinations of fields with their training ``cells``), ``held_out_nats`` (``task/part`` to nats),
        ``recipe``, the hashes, and for an adapter ``base`` (a name, or ``{name, weights_sha256}``).
    """
    sections = (
        ("", _about(card)),
        ("What it has seen", _seen(card)),
        ("Training", _training(card)),
        ("On held-out cells", _held_out(card)),
        ("How to use it", _use(card)),
        ("Limits", _limits(card)),
        ("Licence of the data", _licences(card)),
    )
    parts = [f"---\n{yaml.safe_dump(_front_matter(card), sort_keys=False, allow_unicode=True)}---\n\n# {_title(card)}"]
    for title, lines in sections:
        if lines:
            parts.append((f"## {title}\n\n" if title else "") + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def licence_of(source: Mapping[str, Any]) -> str | None:
    """Licence of a source: what its plan says, or what the embedded data sets' table has for a file of this name and number of cells."""
    if source.get("licence"):
        return str(source["licence"])
    entry = _embedded().get((Path(str(source.get("file", ""))).stem, source.get("cells", 0) + source.get("doubles", 0)))
    return entry["licence"] if entry else None


@functools.lru_cache(maxsize=1)
def _embedded() -> dict[tuple[str, int], dict[str, str]]:
    """The shipped data sets by name and number of cells, with repository and licence."""
    with open(assets.path("embedded", "cells", "SOURCES.tsv"), newline="") as file:
        return {(row["name"], int(row["cells"])): row for row in csv.DictReader(file, delimiter="\t")}


def _front_matter(card: Mapping[str, Any]) -> dict[str, Any]:
    base = _base(card)
    return {
        **_licence_entry(card),
        "library_name": "peft" if base else "scmulan",
        "tags": [*TAGS, *(["lora"] if base else [])],
        **({"base_model": base["name"]} if base else {}),
    }


def _licence_entry(card: Mapping[str, Any]) -> dict[str, str]:
    """The licence as the Hub wants it: one of its names, else ``other`` with a name, and ``unknown`` where a source states none."""
    found = {licence_of(source) for source in _sources(card)}
    if not found or None in found:
        return {"license": "unknown"}
    names = sorted(str(licence) for licence in found)
    if len(names) == 1 and names[0].lower() in HUB_LICENCES:
        return {"license": names[0].lower()}
    return {"license": "other", "license_name": " and ".join(names)}


def _title(card: Mapping[str, Any]) -> str:
    base = _base(card)
    if base:
        return f"scmulan adapter of {base['name']}"
    return f"scmulan, {_short(card['parameters'])} parameters" if "parameters" in card else "scmulan"


def _base(card: Mapping[str, Any]) -> dict[str, str]:
    """Name and hash of the model that an adapter belongs to; empty for a whole model."""
    base = card.get("base")
    if isinstance(base, str):
        return {"name": base}
    if not isinstance(base, Mapping):
        return {}
    return {"name": "unnamed", **{str(key): str(value) for key, value in base.items()}}


def _about(card: Mapping[str, Any]) -> list[str]:
    lines = [
        "A generative language model of single cells. A cell and what is known about it are one sentence; the model writes cells for given",
        "labels, labels for given cells, and completes cells. Genes are tokens, counts are read and written as counts.",
    ]
    base = _base(card)
    if base:
        of = f" (weights sha256 `{base['weights_sha256']}`)" if "weights_sha256" in base else ""
        lines += ["", f"This folder holds an adapter, which works on its base alone: {base['name']}{of}."]
    return lines


def _seen(card: Mapping[str, Any]) -> list[str]:
    sources = _sources(card)
    if not sources:
        return ["The card names no source, so what this model has seen is unknown."]
    total = sum(source.get("splits", {}).get("train", 0) for source in sources)
    lines = [f"{_count(total, 'training cell')} of {_count(len(sources), 'source')}; only `train` was learnt from.", ""]
    lines += ["| source | cells | train / valid / test | species | organs | assays | cell types | sha256 |", "|" + "---|" * 8]
    lines += [_source_row(source) for source in sources[:MOST_SOURCES]]
    if len(sources) > MOST_SOURCES:
        lines.append(f"\nand {_count(len(sources) - MOST_SOURCES, 'source')} more.")
    return [*lines, "", "Whole hashes and every label with its cells stand in `scmulan.json`."]


def _source_row(source: Mapping[str, Any]) -> str:
    labels, splits = source.get("labels", {}), source.get("splits", {})
    shown = [_some(labels.get(name, [])) for name in ("organism", "organ", "assay", "cell_type")]
    counts = " / ".join(f"{splits.get(name, 0):,}" for name in ("train", "valid", "test"))
    cells = [source.get("file", "?"), f"{source.get('cells', 0):,}", counts, *shown, f"`{str(source.get('sha256', ''))[:12]}`"]
    return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |"


def _training(card: Mapping[str, Any]) -> list[str]:
    recipe = card.get("recipe") or {}
    steps, tokens = card.get("steps"), card.get("tokens")
    lines = []
    if steps is not None:
        lines.append(f"{_count(steps, 'step')}" + (f" over {tokens:,} tokens" if tokens is not None else "") + ".")
    if "parameters" in card:
        context = f", context {card['context']:,} tokens" if "context" in card else ""
        lines.append(f"{card['parameters']:,} parameters{context}; cross-entropy over the legal next ids only.")
    if "readout" in card:
        readout = card["readout"]
        fitted = f"fitted on {_count(readout['cells'], 'cell')} (those held out too) of {_count(len(readout['labels']), 'type')}"
        lines += ["", f"A readout of counts, {fitted}, is weighed into the answers of `annotate`; beside it the model's own answer has"]
        lines += [f"the weight {readout['answer']:g}. `annotate(..., readout=False)` asks the model alone."]
    if "rates" in card:
        of_kinds = f"{_count(card['rates']['cells'], 'cell')} of {_count(len(card['rates']['kinds']), 'kind')}"
        lines += ["", f"Cells of the new kinds are written with rates fitted on {of_kinds}: how much oftener they take each gene and"]
        lines += ["count than the model expects. Likelihoods are the model's alone. `generate(..., rates=False)` leaves them out."]
    if recipe:
        plain = yaml.safe_dump(
            {key: value for key, value in recipe.items() if key != "plan" and value is not None}, sort_keys=False, allow_unicode=True
        )
        lines += ["", "```yaml", plain.rstrip(), "```"]
    return lines


def _held_out(card: Mapping[str, Any]) -> list[str]:
    nats = {name: value for name, value in (card.get("held_out_nats") or {}).items() if not name.endswith("/frame")}
    if not nats:
        return ["Not measured."]
    lines = ["Nats a sentence (of a part that is predicted), on held-out cells, as last measured in training; less is better.", ""]
    lines += ["| task | part | nats |", "|---|---|---|"]
    return lines + [f"| {name.partition('/')[0]} | {name.partition('/')[2]} | {value:,.3f} |" for name, value in nats.items()]


def _use(card: Mapping[str, Any]) -> list[str]:
    base, cells = _base(card), _commonest(card)
    opened = f'scmulan.load("{base["name"]}", adapter="this-folder")' if base else 'scmulan.load("this-folder")'
    asked = "".join(f"{name}={json.dumps(cells[name], ensure_ascii=False)}, " for name in ("organ", "cell_type") if name in cells)
    return [
        "```python",
        "import anndata, scmulan",
        "",
        f"model = {opened}",
        f"cells = model.generate({asked}n=100)  # AnnData with counts",
        'adata = anndata.read_h5ad("my_cells.h5ad")',
        "model.annotate(adata)  # obs['scmulan_cell_type'] and its probability",
        "```",
    ]


def _limits(card: Mapping[str, Any]) -> list[str]:
    seen = _cells_of(card)
    lines = [
        "- It must be decoded under scmulan's automaton of legal sentences, which its loss takes for granted: a plain `generate` of the",
        "  weights draws sentences that are no cells.",
        "- Not for clinical use: nothing here was validated for diagnosis or treatment.",
        "- A label it has not seen is at best a guess from its words, and a cell of a kind it has not seen gets a label that it has.",
    ]
    for name, what in (("organism", "species"), ("organ", "organs"), ("assay", "assays")):
        known = _some((label for label, _ in seen[name].most_common()), most=MOST_LABELS) if name in seen else ""
        lines.append(f"- Of {what} it knows {known}; others are outside what it learnt." if known else f"- Its data name no {what}.")
    unseen = [name for name in FIELDS if name not in seen]
    if seen and unseen:
        lines.append(f"- No training cell says anything of: {', '.join(unseen)}.")
    few = [f"{label} ({count})" for label, count in seen.get("cell_type", Counter()).most_common() if count < FEW_CELLS]
    if few:
        lines.append(f"- Cell types with fewer than {FEW_CELLS} training cells: {_some(few, most=MOST_LABELS)}.")
    return lines


def _licences(card: Mapping[str, Any]) -> list[str]:
    if not _sources(card):
        return []
    by_licence: dict[str, list[str]] = {}
    for source in _sources(card):
        by_licence.setdefault(licence_of(source) or NOT_STATED, []).append(str(source.get("file", "?")))
    lines = [f"- {licence}: {_some(files, most=10)}" for licence, files in sorted(by_licence.items())]
    if any(_is_embedded(source) for source in _sources(card)):
        lines += ["", "Who made the embedded data sets stands in `embedded/cells/ATTRIBUTION.md` and `SOURCES.tsv` of scmulan."]
    return lines


def _is_embedded(source: Mapping[str, Any]) -> bool:
    return not source.get("licence") and licence_of(source) is not None


def _sources(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [source for source in card.get("sources") or [] if isinstance(source, Mapping)]


def _entries(card: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (entry for entry in card.get("labels") or [] if isinstance(entry, Mapping))


def _cells_of(card: Mapping[str, Any]) -> dict[str, Counter[str]]:
    """Field to label to training cells."""
    found: dict[str, Counter[str]] = {}
    for entry in _entries(card):
        for name, label in entry.items():
            if name != "cells":
                found.setdefault(name, Counter())[str(label)] += int(entry.get("cells", 0))
    return found


def _commonest(card: Mapping[str, Any]) -> Mapping[str, Any]:
    """The combination of labels with most training cells among those with a type."""
    typed = [entry for entry in _entries(card) if "cell_type" in entry]
    return max(typed, key=lambda entry: int(entry.get("cells", 0)), default={})


def _some(names: Iterable[str], most: int = 4) -> str:
    """The first names; between them a semicolon, for the names of cell types hold commas."""
    listed = list(names)
    return "; ".join(listed[:most]) + (f" and {len(listed) - most:,} more" if len(listed) > most else "")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _short(number: int) -> str:
    return f"{number / 1e9:.2f} billion" if number >= 1e9 else f"{number / 1e6:.1f} million"
