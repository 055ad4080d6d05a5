"""What one task may take, in one place; light, for the command line shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one task may take.

    Attributes
    ----------
    cells : of a file
    written : cells that are written
    megabytes : of a file, 2**20 bytes each
    variants : cells with a gene edited that a screen may ask about
    """

    cells: int = 20_000
    written: int = 10_000
    megabytes: int = 1024
    variants: int = 20_000
