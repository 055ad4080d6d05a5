"""Where the material lies: the folders a person may read and edit (tokenizer, prompts, training, serving, embedded).

In a wheel they are under ``scmulan/_shipped``; in a checkout they stand beside the package.
"""

from __future__ import annotations

from pathlib import Path

from scmulan.errors import CheckpointError

PACKAGE = Path(__file__).parent
FOLDERS = ("tokenizer", "prompts", "training", "serving", "embedded")


def path(*parts: str) -> Path:
    """Path of a shipped file or folder, for example ``path("prompts", "tasks.yaml")``.

    Raises CheckpointError when it does not exist, which means a broken installation.
    """
    if parts[0] not in FOLDERS:
        raise CheckpointError(f"asset folder {parts[0]!r}: needed one of {', '.join(FOLDERS)}")
    shipped = PACKAGE / "_shipped"
    found = (shipped if shipped.is_dir() else PACKAGE.parent).joinpath(*parts)
    if not found.exists():
        raise CheckpointError(f"{found}: missing from this installation; install scmulan again")
    return found
