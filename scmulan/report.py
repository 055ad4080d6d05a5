"""One HTML file that shows what was measured: text, tables, figures and code, with nothing to fetch and nothing to run.

Everything given is text and is escaped; images are embedded; the page forbids itself scripts and the network. Tables keep their
values as given, so that ``to_json`` holds the exact figures of which the page shows a few digits.
The extra ``plots`` (jinja2) is needed to write the page.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import scmulan
from scmulan.errors import CellDataError, EngineError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("report.html.jinja")
IMAGE_TYPES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".svg": "svg+xml", ".gif": "gif", ".webp": "webp"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of values under named columns; ``emphasise`` is the first value of the rows to set in bold."""

    columns: list[str]
    rows: list[list[Any]]
    caption: str
    emphasise: str | None
    kind: str = "table"

    @property
    def is_numeric(self) -> list[bool]:
        """Whether each column holds numbers only, and is set flush right."""
        return [all(row[c] is None or isinstance(row[c], int | float) for row in self.rows) for c in range(len(self.columns))]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image as a data address, with the width it was drawn for in CSS pixels, where that is known."""

    address: str
    caption: str
    alt: str
    width: int | None
    kind: str = "picture"


@dataclass(frozen=True, kw_only=True)
class Words:
    """Paragraphs (``kind`` "text") or a block of code ("code")."""

    text: str
    caption: str = ""
    kind: str = "text"


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A figure to see first: its value, its name, and what to hold it against."""

    name: str
    value: Any
    beside: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A title, its address within the page, and what stands under it."""

    title: str
    anchor: str
    blocks: list[Table | Picture | Words] = field(default_factory=list)


class Report:
    """A page under construction; every method that adds something returns the report, so that calls may be chained.

    Paragraphs are parted by empty lines; text between backticks is set as code. What is added before the first section stands
    under the lead.

    Parameters
    ----------
    title, lead
        Heading of the page, and a paragraph or more under it.
    footer
        Last line, for example what made the page; by default the version of scmulan.

    Examples
    --------
    >>> report = Report("Held-out blood", "775 cells that the model never saw.")
    >>> _ = report.section("Annotation").table([["scmulan", 0.931], ["logistic regression", 0.912]], ["who", "accuracy"])
    >>> report.html().count("<td")
    4
    """

    def __init__(self, title: str, lead: str = "", *, footer: str | None = None) -> None:
        self.title = title
        self.lead = lead
        self.footer = f"Made by scmulan {scmulan.__version__}" if footer is None else footer
        self.headlines: list[Headline] = []
        self.sections = [Section(title="", anchor="top")]

    def headline(self, name: str, value: Any, beside: str = "") -> Self:
        """Show a figure at the top of the page, for example ``("accuracy", 0.931, "logistic regression 0.912")``."""
        self.headlines.append(Headline(name=name, value=_plain(value), beside=beside))
        return self

    def section(self, title: str, text: str = "") -> Self:
        """Begin a section; its title stands in the table of contents."""
        taken = {section.anchor for section in self.sections}
        stem = re.sub(r"[^\w]+", "-", title.lower()).strip("-") or "section"
        anchor = next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, len(taken) + 3))) if name not in taken)
        self.sections.append(Section(title=title, anchor=anchor))
        return self.text(text) if text else self

    def text(self, text: str) -> Self:
        """Add paragraphs."""
        return self._add(Words(text=text))

    def table(
        self,
        rows: Sequence[Sequence[Any]] | Sequence[Mapping[str, Any]],
        columns: Sequence[str] | None = None,
        caption: str = "",
        *,
        emphasise: str | None = None,
    ) -> Self:
        """Add a table of rows, or of mappings from column to value (their keys are the columns, in order of appearance).

        Numbers are shown by `shown`, to three decimals where they are below ten; None and NaN as a dash. Rows whose first
        value is ``emphasise`` are set in bold.

        Raises
        ------
        CellDataError
            When a row has more or fewer values than there are columns.
        """
        records = [row for row in rows if isinstance(row, Mapping)]
        names = list(columns) if columns is not None else list(dict.fromkeys(key for row in records for key in row))
        cells = [[row.get(name) for name in names] if isinstance(row, Mapping) else list(row) for row in rows]
        for number, row in enumerate(cells, 1):
            if len(row) != len(names):
                raise CellDataError(f"table {caption!r}, row {number}: {len(row)} values for {len(names)} columns {names}")
        plain = [[_plain(value) for value in row] for row in cells]
        return self._add(Table(columns=[str(name) for name in names], rows=plain, caption=caption, emphasise=emphasise))

    def figure(self, figure: Figure | str | os.PathLike[str], caption: str = "", alt: str = "") -> Self:
        """Add a matplotlib figure, or an image file; ``alt`` says in words what is to be seen, by default the caption.

        Raises
        ------
        CellDataError
            When the file is missing or no image, or when there is neither caption nor alt.
        """
        if not (caption or alt):
            raise CellDataError("figure: neither caption nor alt; needed words for those who can't see it")
        if isinstance(figure, str | os.PathLike):
            address, width = _file_address(Path(figure)), None
        else:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", facecolor="white")
            address, width = _address(buffer.getvalue(), "png"), round(figure.get_figwidth() * 96)
        return self._add(Picture(address=address, caption=caption, alt=alt or caption, width=width))

    def code(self, text: str, caption: str = "") -> Self:
        """Add a block of code or other text to be shown as it is; long lines wrap."""
        return self._add(Words(text=text.strip("\n"), caption=caption, kind="code"))

    def html(self) -> str:
        """The page.

        Raises
        ------
        EngineError
            When jinja2 is not installed.
        """
        try:
            from jinja2 import Environment, StrictUndefined
        except ModuleNotFoundError as missing:
            raise EngineError("report: needs jinja2, which is not installed; pip install 'scmulan[plots]'") from missing
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        environment.filters |= {"shown": shown, "paragraphs": _paragraphs}
        return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(report=self)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page, whole or not at all, and return its path. Folders that are missing are made."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.part")
        unfinished.write_text(self.html(), encoding="utf-8")
        unfinished.replace(target)
        return target

    def to_json(self) -> str:
        """Title, headlines, and the text, tables and captions of each section, as JSON; values are those given, None for NaN."""
        content = {
            "title": self.title,
            "lead": self.lead,
            "headlines": [{"name": each.name, "value": each.value, "beside": each.beside} for each in self.headlines],
            "sections": [_section_content(section) for section in self.sections if section.title or section.blocks],
            "footer": self.footer,
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)

    def _add(self, block: Table | Picture | Words) -> Self:
        self.sections[-1].blocks.append(block)
        return self


def shown(value: Any) -> str:
    """A value as the page shows it.

    Examples
    --------
    >>> [shown(value) for value in (0.93125, 0.00042, 31.25, 1879.27, 12345, None, True, "B cell")]
    ['0.931', '0.00042', '31.2', '1,879', '12,345', '–', 'yes', 'B cell']
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if not isinstance(value, float):
        return str(value)
    if value and abs(value) < 0.001:
        return f"{value:.3g}".replace("-", "−")
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{digits}f}".replace("-", "−")


def _plain(value: Any) -> Any:
    """Python's own number, text or None in place of numpy's and of NaN."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value if isinstance(value, bool | int | float | None) else str(value)


def _paragraphs(text: str) -> list[list[tuple[str, bool]]]:
    """Paragraphs, each a list of pieces with whether they are code."""
    return [
        [(piece, bool(i % 2)) for i, piece in enumerate(paragraph.split("`"))]
        for paragraph in re.split(r"\n\s*\n", text.strip())
        if paragraph
    ]


def _address(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _file_address(path: Path) -> str:
    kind = IMAGE_TYPES.get(path.suffix.lower())
    if kind is None:
        raise CellDataError(f"{path}: not an image to show; needed one of {', '.join(IMAGE_TYPES)}")
    if not path.is_file():
        raise CellDataError(f"{path}: no such image")
    return _address(path.read_bytes(), kind)


def _section_content(section: Section) -> dict[str, Any]:
    blocks = section.blocks
    return {
        "title": section.title,
        "text": [block.text for block in blocks if isinstance(block, Words) and block.kind == "text"],
        "tables": [
            {"caption": block.caption, "columns": block.columns, "rows": block.rows} for block in blocks if isinstance(block, Table)
        ],
        "figures": [block.caption or block.alt for block in blocks if isinstance(block, Picture)],
        "code": [block.text for block in blocks if isinstance(block, Words) and block.kind == "code"],
    }
