"""The Hugging Face tokenizer of c-sentences: byte-level BPE text, control tokens, and one token a gene.

``AutoTokenizer.from_pretrained(folder)`` loads it without remote code. Genes are ordinary vocabulary entries spelled with a
leading space; ``ignore_merges`` makes a whole word that is in the vocabulary one token, and the pre-tokenizer keeps words with
inner ``-``, ``.`` and ``_`` whole. So a c-sentence decodes to readable text and encodes back to the same ids.

Id order: bounds, fields, tasks, reserve, text, depths, levels (falling), ``</cell>``, genes. Everything that may follow a gene
(a later gene, a lower level, the end) is one run of ids each, which the loss and the automaton use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from scmulan import assets
from scmulan.csentence import BOUNDS, END_OF_CELL, N_DEPTHS, Vocabulary, structure_tokens
from scmulan.errors import CheckpointError, VocabularyError, some

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LAYOUT_FILE = "scmulan_vocabulary.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", LAYOUT_FILE)
SHIPPED = {"default": ("tokenizer", "default"), "demo": ("embedded", "model")}
"""Tokenizers that are known by name, and where they lie."""
LARGEST_VOCABULARY = 65_536
RESERVED_TOKENS = 32
ROW_MULTIPLE = 64

WORDS = r" ?-?[\p{L}\p{N}]+(?:[-._@/()][\p{L}\p{N}]+)*| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What counts as one word: letters and digits, a hyphen before them and inner - . _ @ / ( ) kept whole; else a run of other signs, or of
white space."""


def build_tokenizer(
    folder: str | Path,
    *,
    genes: Sequence[str],
    texts: Iterable[str],
    fields: Sequence[str],
    tasks: Sequence[str],
    text_size: int = 1024,
    gene_order: str = "as given",
) -> PreTrainedTokenizerFast:
    """Train the text part, lay out the ids, and save a tokenizer folder.

    Parameters
    ----------
    genes : (G,) preferred symbols, in the order their ids shall have
    texts : label names and prompt phrasings that the text part is trained on
    fields, tasks : names; ``organ`` becomes ``<organ>``, ``annotate`` becomes ``<task:annotate>``
    text_size : ids of the text part, its 256 bytes included
    gene_order : how ``genes`` was ordered, kept in the folder for the record

    Raises
    ------
    VocabularyError
        When genes repeat, can't be one word, or the ids would not fit uint16.
    """
    text, merges = _train_text(texts, text_size)
    return write_tokenizer(folder, genes=genes, text=text, merges=merges, fields=fields, tasks=tasks, gene_order=gene_order)


def write_tokenizer(
    folder: str | Path,
    *,
    genes: Sequence[str],
    text: Sequence[str],
    merges: list[tuple[str, str]],
    fields: Sequence[str],
    tasks: Sequence[str],
    gene_order: str,
    more: Mapping[str, Any] | None = None,
) -> PreTrainedTokenizerFast:
    """Lay out the ids and save a tokenizer folder; a text piece that spells a gene is the gene.

    Parameters
    ----------
    text, merges : byte-level BPE pieces, the 256 bytes among them, and the merges that make them
    more : what else the layout file shall say
    """
    if len(set(genes)) != len(genes):
        raise VocabularyError(f"{len(genes) - len(set(genes)):,} gene symbols stand twice in the list; needed each once")
    control, structure = control_tokens(fields, tasks), structure_tokens()
    spelled = [byte_spelling(f" {gene}") for gene in genes]
    own = set(spelled)
    text = [piece for piece in text if piece not in own]
    ordered = [*control, *text, *structure, *spelled]
    spare = -len(ordered) % ROW_MULTIPLE
    if len(ordered) + spare >= LARGEST_VOCABULARY:
        raise VocabularyError(f"{len(ordered) + spare:,} ids; needed fewer than {LARGEST_VOCABULARY:,} (uint16): give fewer genes or text")
    fast = _assemble(ordered, merges, special=[*control, *structure])
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(folder)
    layout = {
        "format": 1,
        "size": len(ordered) + spare,
        "text": [len(control), len(control) + len(text)],
        "first_gene": len(ordered) - len(genes),
        "n_genes": len(genes),
        "gene_order": gene_order,
        "fields": list(fields),
        "tasks": list(tasks),
        **(more or {}),
    }
    (folder / LAYOUT_FILE).write_text(json.dumps(layout, indent=1) + "\n")
    _check_genes_are_words(fast, genes, len(ordered) - len(genes))
    return fast


def control_tokens(fields: Sequence[str], tasks: Sequence[str]) -> list[str]:
    """The tokens before the text, in id order: bounds, fields, tasks, reserve."""
    control = [*BOUNDS, *(f"<{field}>" for field in fields), *(f"<task:{task}>" for task in tasks)]
    return control + [f"<reserved:{number}>" for number in range(RESERVED_TOKENS)]


def _assemble(ordered: Sequence[str], merges: list[tuple[str, str]], special: Sequence[str]) -> PreTrainedTokenizerFast:
    """The tokenizer of a vocabulary in id order."""
    from transformers import PreTrainedTokenizerFast  # here, for it takes a second that reading a vocabulary need not spend

    tokenizer = Tokenizer(
        models.BPE(vocab={token: number for number, token in enumerate(ordered)}, merges=merges, ignore_merges=True, fuse_unk=False)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", clean_up_tokenization_spaces=False
    )


def default_folder() -> Path:
    """The shipped default tokenizer: every gene of note, human and mouse (`scmulan.tokenizer_build`)."""
    return assets.path(*SHIPPED["default"])


def tokenizer_folder(name: str | Path) -> Path:
    """The folder of a tokenizer by path, or of a shipped one by name: ``default``, or ``demo``, that of the embedded model.

    Raises
    ------
    CheckpointError
        When there is no such folder.
    """
    if str(name) in SHIPPED:
        return assets.path(*SHIPPED[str(name)])
    if not Path(name).is_dir():
        what = "a file" if Path(name).exists() else "no such folder"
        raise CheckpointError(f"tokenizer {str(name)!r}: {what}; needed a tokenizer or model folder, or {' or '.join(SHIPPED)}")
    return Path(name)


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder; CheckpointError when it holds none of scmulan's."""
    from transformers import PreTrainedTokenizerFast

    folder = Path(folder)
    for name in ("tokenizer.json", LAYOUT_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: no {name}; needed a tokenizer folder written by `scmulan tokenizer build`")
    try:
        json.loads((folder / LAYOUT_FILE).read_text())
        return PreTrainedTokenizerFast.from_pretrained(folder)
    except Exception as error:
        # the tokenizers library raises bare Exception for a file it can't read; each means that the folder is damaged
        raise CheckpointError(f"{folder}: tokenizer.json or {LAYOUT_FILE} is damaged ({error}); copy the folder again") from error


def load_vocabulary(folder: str | Path) -> Vocabulary:
    """The meaning of a tokenizer folder's ids."""
    folder = Path(folder)
    try:
        layout: dict[str, Any] = json.loads((folder / LAYOUT_FILE).read_text())
        ids: dict[str, int] = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        spelled = sorted((number, token) for token, number in ids.items() if number >= layout["first_gene"])
        return Vocabulary(
            pad=ids["<pad>"],
            bos=ids["<bos>"],
            eos=ids["<eos>"],
            cell=ids["<cell>"],
            first_depth=ids["<depth:0>"],
            first_level=ids["<depth:0>"] + N_DEPTHS,
            end_of_cell=ids[END_OF_CELL],
            first_gene=layout["first_gene"],
            genes=tuple(_from_byte_spelling(token)[1:] for _, token in spelled[: layout["n_genes"]]),
            size=layout["size"],
            text=(layout["text"][0], layout["text"][1]),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}: not a scmulan tokenizer ({error!r}); needed tokenizer.json and {LAYOUT_FILE}") from None


def tokenizer_hash(folder: str | Path) -> str:
    """sha256 of what decides the meaning of ids: vocabulary, merges, how text is cut into words, layout."""
    folder = Path(folder)
    try:
        whole = json.loads((folder / "tokenizer.json").read_text())
        model = whole["model"]
        decisive = [model["vocab"], model["merges"], whole["pre_tokenizer"], json.loads((folder / LAYOUT_FILE).read_text())]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}: not a scmulan tokenizer ({error!r}); needed tokenizer.json and {LAYOUT_FILE}") from None
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _train_text(texts: Iterable[str], size: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Byte-level BPE pieces and merges, bytes first."""
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), special_tokens=[], show_progress=False
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    pieces = [piece for piece, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    return pieces, [(left, right) for left, right in model["merges"]]


def byte_spelling(text: str) -> str:
    """How byte-level BPE spells a string in its vocabulary."""
    return str(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[0][0])


def _from_byte_spelling(token: str) -> str:
    return str(decoders.ByteLevel().decode([token]))


def _check_genes_are_words(tokenizer: PreTrainedTokenizerFast, genes: Sequence[str], first_gene: int) -> None:
    ids = tokenizer([f" {gene}" for gene in genes], add_special_tokens=False)["input_ids"] if len(genes) else []
    split = [gene for number, gene in enumerate(genes) if not gene.strip() or ids[number] != [first_gene + number]]
    if split:
        raise VocabularyError(
            f"gene symbols that are not one word: {some(split)}; needed letters and digits with single inner - . _ @ / ( )"
        )
