"""A tokenizer of c-sentences whose text part is another language model's: ``scmulan tokenizer extend``.

The text pieces and merges of a byte-level BPE (Qwen, Llama 3, GPT-2) are laid out between scmulan's control tokens and genes, so that
`scmulan.model_start` can give each piece the row that it has in that model. Special tokens are not carried over, and text is cut into
words as ``scmulan.tokenizer.WORDS`` says. Ids have 16 bits: where text and genes are more, the merges of lowest priority are left out;
any text stays representable, in more tokens, and the layout file says how much was left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from scmulan.csentence import structure_tokens
from scmulan.errors import CheckpointError, VocabularyError
from scmulan.prompts import GENES, load_prompts
from scmulan.tokenizer import LARGEST_VOCABULARY, LAYOUT_FILE, ROW_MULTIPLE, byte_spelling, control_tokens, load_vocabulary, write_tokenizer

NEEDED = "needed a byte-level BPE, as Qwen, Llama 3 and GPT-2 have"
Merge = tuple[str, str]


@dataclass(frozen=True)
class ForeignTokenizer:
    """Another model's byte-level BPE.

    Attributes
    ----------
    sha256 : of its ``tokenizer.json``, by which an extension knows it again
    pieces : id of each text piece; special and other added tokens left out
    merges : highest priority first
    """

    folder: Path
    sha256: str
    pieces: dict[str, int]
    merges: list[Merge]
    tokenizer: Tokenizer

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Its own ids of each text, without special tokens."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def read_foreign_tokenizer(folder: str | Path) -> ForeignTokenizer:
    """The tokenizer of a Hugging Face model folder.

    Raises
    ------
    CheckpointError
        When the folder holds no ``tokenizer.json`` that can be read.
    VocabularyError
        When it is no byte-level BPE.
    """
    path = Path(folder) / "tokenizer.json"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path}: {error.strerror}; needed a model folder with a fast tokenizer; "
            "`AutoTokenizer.from_pretrained(folder).save_pretrained(folder)` of transformers may write one"
        ) from None
    try:
        whole: dict[str, Any] = json.loads(content)
        _check_byte_level(path, whole)
        added = {token["content"] for token in whole.get("added_tokens") or []}
        pieces = {piece: int(number) for piece, number in whole["model"]["vocab"].items() if piece not in added}
        merges = [_merge(entry) for entry in whole["model"]["merges"]]
        tokenizer = Tokenizer.from_str(content.decode())
    except VocabularyError:
        raise
    except Exception as error:
        # the tokenizers library raises bare Exception for a file that it can't read
        raise CheckpointError(f"{path}: not a tokenizer that can be read ({error!r}); copy the folder again") from error
    lacking = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(pieces))
    if lacking:
        raise VocabularyError(f"{path}: {len(lacking)} of the 256 bytes have no piece of their own; {NEEDED}")
    return ForeignTokenizer(Path(folder), hashlib.sha256(content).hexdigest(), pieces, merges, tokenizer)


def _merge(entry: str | Sequence[str]) -> Merge:
    """A merge as a pair; older files write it as one text with a space."""
    left, right = entry.split(" ") if isinstance(entry, str) else entry
    return left, right


def _check_byte_level(path: Path, whole: dict[str, Any]) -> None:
    """VocabularyError unless the tokenizer is a byte-level BPE without marks of its own."""
    model = whole["model"]
    kind = model.get("type", "BPE" if "merges" in model else "unknown")
    if kind != "BPE":
        raise VocabularyError(f"{path}: a tokenizer of kind {kind}; {NEEDED}")
    steps = [step["type"] for step in _steps(whole.get("pre_tokenizer"))] + [step["type"] for step in _steps(whole.get("decoder"))]
    if "Metaspace" in steps or model.get("byte_fallback"):
        raise VocabularyError(f"{path}: a BPE of characters with spaces as ▁ (SentencePiece); {NEEDED}")
    if "ByteLevel" not in steps:
        raise VocabularyError(f"{path}: a BPE of characters, not bytes; {NEEDED}")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise VocabularyError(f"{path}: pieces carry the mark {model[name]!r} ({name}); {NEEDED}")


def _steps(step: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """A pre-tokenizer or decoder and all that it is made of."""
    if step:
        yield step
        for below in [*(step.get("pretokenizers") or []), *(step.get("decoders") or [])]:
            yield from _steps(below)


def extend_tokenizer(foreign: ForeignTokenizer, folder: str | Path, *, genes_of: str | Path) -> dict[str, Any]:
    """Write the tokenizer folder of another model's text and of the genes of a scmulan tokenizer.

    Parameters
    ----------
    genes_of : tokenizer folder whose genes, in its order, are taken

    Returns
    -------
    dict
        What the layout file says under ``extends``: ``tokenizer_sha256``; ``pieces`` and ``merges`` of the other tokenizer,
        ``pieces_kept`` and ``merges_kept`` of them.

    Raises
    ------
    VocabularyError
        When the genes leave no room for the 256 bytes.
    """
    prompts, source = load_prompts(), Path(genes_of)
    genes = load_vocabulary(source).genes
    fields, tasks = [*prompts.fields, GENES], list(prompts.tasks)
    reserved, spelled = [*control_tokens(fields, tasks), *structure_tokens()], {byte_spelling(f" {gene}") for gene in genes}
    room = (LARGEST_VOCABULARY - 1) // ROW_MULTIPLE * ROW_MULTIPLE - len(reserved) - len(genes)
    text, merges = prune(foreign, room, free=spelled, forbidden=set(reserved))
    extends = {
        "tokenizer_sha256": foreign.sha256,
        "pieces": len(foreign.pieces),
        "pieces_kept": len(text),
        "merges": len(foreign.merges),
        "merges_kept": len(merges),
    }
    order = json.loads((source / LAYOUT_FILE).read_text())["gene_order"]
    write_tokenizer(folder, genes=genes, text=text, merges=merges, fields=fields, tasks=tasks, gene_order=order, more={"extends": extends})
    return extends


def prune(
    foreign: ForeignTokenizer, room: int, *, free: Collection[str] = (), forbidden: Collection[str] = ()
) -> tuple[list[str], list[Merge]]:
    """The pieces and merges that fit: the 256 bytes and as many merges as there is room for, highest priority first.

    Parameters
    ----------
    room : most pieces
    free : pieces that take no room, for they have an id already
    forbidden : pieces that mean something else here

    Returns
    -------
    pieces : by their id in the other model
    merges : in their order; pieces that no merge makes are kept only when all merges are
    """
    kept = set(pre_tokenizers.ByteLevel.alphabet())
    taken, merges = len(kept - set(free)), list[Merge]()
    if taken > room:
        raise VocabularyError(f"room for {max(room, 0):,} pieces of text; needed at least {taken} (the bytes): take fewer genes")
    is_whole = True
    for left, right in foreign.merges:
        needed = {left, right, left + right}
        if not needed.isdisjoint(forbidden) or not needed <= foreign.pieces.keys():
            continue
        new = needed - kept
        taken += len(new.difference(free))
        if taken > room:
            is_whole = False
            break
        kept |= new
        merges.append((left, right))
    if is_whole:
        alone = [piece for piece in sorted(foreign.pieces, key=foreign.pieces.__getitem__) if piece not in kept and piece not in forbidden]
        kept.update(alone[: max(room - taken, 0)])
    return sorted(kept, key=foreign.pieces.__getitem__), merges


def extension_of(folder: str | Path) -> dict[str, Any] | None:
    """What the layout file of a tokenizer folder says under ``extends``; None when it extends no other tokenizer."""
    try:
        layout = json.loads((Path(folder) / LAYOUT_FILE).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: not a scmulan tokenizer ({error!r}); needed tokenizer.json and {LAYOUT_FILE}") from None
    found: dict[str, Any] | None = layout.get("extends") if isinstance(layout, dict) else None
    return found
