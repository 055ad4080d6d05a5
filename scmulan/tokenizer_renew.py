"""A tokenizer with tokens for fields and tasks that came after it, in the places that were reserved for such.

Every other id keeps its meaning, so that a model goes on from what it has learnt: its weights fit the renewed tokenizer as they are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scmulan.errors import CheckpointError, VocabularyError, some
from scmulan.tokenizer import LAYOUT_FILE, TOKENIZER_FILES, load_tokenizer, tokenizer_hash

RESERVED = "<reserved:"
RENEWS = "renews"
"""Line of the layout file: hashes of the tokenizers whose ids mean the same, but for the reserved ones, oldest first."""


def renew_tokenizer(folder: str | Path, output: str | Path, *, fields: Sequence[str], tasks: Sequence[str]) -> list[str]:
    """Write a tokenizer that also has the tokens of these fields and tasks; returns those that it did not have.

    Raises
    ------
    CheckpointError
        When the folder holds no tokenizer of scmulan's, or ``output`` is the folder itself.
    VocabularyError
        When fewer places are reserved than tokens are new.
    """
    folder, output = Path(folder), Path(output)
    if output.resolve() == folder.resolve():
        raise CheckpointError(f"{output}: a tokenizer is renewed into another folder, for models carry the old one")
    load_tokenizer(folder)
    whole: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text())
    layout: dict[str, Any] = json.loads((folder / LAYOUT_FILE).read_text())
    ids: dict[str, int] = whole["model"]["vocab"]
    new = [token for token in dict.fromkeys([*(f"<{name}>" for name in fields), *(f"<task:{name}>" for name in tasks)]) if token not in ids]
    places = sorted((number, token) for token, number in ids.items() if token.startswith(RESERVED))
    if len(new) > len(places):
        raise VocabularyError(
            f"{folder}: {len(new)} tokens are new ({some(new)}), {len(places)} places are reserved; build a new tokenizer"
        )
    renamed = {token: fresh for (_, token), fresh in zip(places, new, strict=False)}
    whole["model"]["vocab"] = {renamed.get(token, token): number for token, number in ids.items()}
    for added in whole["added_tokens"]:
        added["content"] = renamed.get(added["content"], added["content"])
    layout["fields"] = list(dict.fromkeys([*layout["fields"], *fields]))
    layout["tasks"] = list(dict.fromkeys([*layout["tasks"], *tasks]))
    layout[RENEWS] = [*layout.get(RENEWS, []), tokenizer_hash(folder)]
    output.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, output / name)
    (output / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False))
    (output / LAYOUT_FILE).write_text(json.dumps(layout, indent=1) + "\n")
    load_tokenizer(output)
    return new


def is_renewal_of(folder: Path, sha256: str) -> bool:
    """Whether the ids of a tokenizer folder mean what those of the tokenizer with a hash do, but for reserved ones."""
    layout = json.loads((folder / LAYOUT_FILE).read_text())
    return sha256 in layout.get(RENEWS, [])
