"""Embedded data that a page opens at a click, with questions to try."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from scmulan import assets
from scmulan.errors import PromptError, nearest

CHUNK = 2**20


@dataclass(frozen=True, kw_only=True)
class Example:
    """A data set that is embedded: its file, what it is, and what may be asked of it.

    Attributes
    ----------
    name : of the file, without its suffix
    """

    name: str
    title: str
    about: str
    cells: int
    questions: tuple[str, str, str]

    @property
    def path(self) -> Path:
        """Where it lies."""
        return assets.path("embedded", "cells", f"{self.name}.h5ad")


EXAMPLES = (
    Example(
        name="zheng_pbmc_facs", title="Blood, sorted", cells=3874,
        about="Ten kinds of blood cells, sorted by antibodies before they were sequenced (Zheng et al. 2017).",
        questions=("What kinds of cells are these?", "Which genes speak for B cells?", "Generate 20 natural killer cells of blood."),
    ),
    Example(
        name="papalexi_eccite_thp1", title="Knock-outs in THP-1 cells", cells=20729,
        about="A monocytic cell line with 25 genes knocked out, 299 genes measured (Papalexi et al. 2021).",
        questions=("What happens if STAT1 is knocked out?", "Which organ are these cells from?", "What happens if IFNGR1 is knocked out?"),
    ),
    Example(
        name="larry_haematopoiesis", title="Blood formation, mouse", cells=781,
        about="Haematopoietic progenitors over six days in culture (Weinreb et al. 2020).",
        questions=("What will these cells be on day 6?", "What kinds of cells are these?", "Generate 20 basophils of mouse bone marrow."),
    ),
    Example(
        name="joost_epidermis", title="Skin, mouse", cells=720,
        about="Cells of the epidermis and its hair follicles (Joost et al. 2016).",
        questions=("What kinds of cells are these?", "Which organ are these cells from?", "Which genes say that they are keratinocytes?"),
    ),
    Example(
        name="pollen_cortex", title="Developing brain, human", cells=299,
        about="Cells of the developing cortex and of cell lines (Pollen et al. 2014).",
        questions=("What kinds of cells are these?", "Tell me the organ and the disease of each cell.", "Which genes are most like SOX2?"),
    ),
)  # fmt: skip


def example(name: str) -> Example:
    """An example by its name; PromptError where there is none."""
    found = {one.name: one for one in EXAMPLES}
    if name not in found:
        raise PromptError(f"no example {name!r}{nearest(name, list(found))}; there are {', '.join(found)}")
    return found[name]


async def chunks(path: Path) -> AsyncIterator[bytes]:
    """The bytes of a file, as an upload takes them."""
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            yield part
