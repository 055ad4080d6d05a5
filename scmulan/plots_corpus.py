"""The picture of a corpus: its organs, cell types, depths and lengths. The extra ``plots`` is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scmulan._drawing import GENERATED, QUIET, drawn, figure, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LABELS = 20


@drawn
def draw_corpus(contents: Mapping[str, Any], path: str | Path) -> None:
    """Draw what `scmulan.corpus.contents.contents_of` found, and save it; the suffix of ``path`` says in what format."""
    organs, types = (contents["labels"].get(name, {}) for name in ("organ", "cell_type"))
    rows = max(min(len(types), MOST_LABELS + 1), min(len(organs), MOST_LABELS + 1), 6)
    picture, panels = figure(12, 2.8 + 0.26 * rows + 2.4, rows=2, columns=2, height_ratios=[0.26 * rows + 1, 2.4])
    (left, right), (below_left, below_right) = panels
    _labels(left, organs, "Organs")
    _labels(right, types, "Cell types")
    _histogram(below_left, contents["depths"]["bins"], "Depth", "counts a cell, from")
    _histogram(below_right, contents["lengths"]["bins"], "Length", "ids a cell, from")
    picture.suptitle(f"{contents['cells']:,} cells, {contents['tokens']:,} ids, {len(contents['sources']):,} sources", ha="left", x=0.02)
    picture.savefig(path, dpi=150)


def _labels(axes: Axes, cells: Mapping[str, int], title: str) -> None:
    """A bar a label, most frequent first; the rest as one."""
    shown = dict(list(cells.items())[:MOST_LABELS])
    rest = sum(cells.values()) - sum(shown.values())
    if rest:
        shown[f"{len(cells) - MOST_LABELS:,} more"] = rest
    names = list(shown)
    axes.barh(range(len(shown)), list(shown.values()), color=GENERATED, height=0.7)
    for place, value in enumerate(shown.values()):
        axes.text(value, place, f" {value:,}", va="center", fontsize=8, color=QUIET)
    axes.set_yticks(range(len(shown)), [short(name, names) for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="cells", xlim=(0, 1.2 * max(shown.values(), default=1)))
    axes.set_title(f"{title} ({len(cells):,})" if cells else f"{title}: none known")


def _histogram(axes: Axes, bins: Mapping[str, int], title: str, unit: str) -> None:
    axes.bar(range(len(bins)), list(bins.values()), color=GENERATED, width=0.9)
    step = max(1, -(-len(bins) // 10))
    axes.set_xticks(range(0, len(bins), step), [f"{int(bound):,}" for bound in list(bins)[::step]], rotation=30, ha="right")
    axes.set(xlabel=unit, ylabel="cells")
    axes.set_title(title)
