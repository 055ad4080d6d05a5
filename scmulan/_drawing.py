"""The look of scmulan's pictures: style, colours, and the one way a figure is made.

Figures are made without pyplot, inside ``rc_context``: no display is needed and the caller's settings stay as they are.
Colours: Okabe and Ito 2008, then Tol's muted set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from scmulan.errors import EngineError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

# fmt: off
PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#332288", "#999933", "#882255", "#44AA99",
    "#DDCC77", "#AA4499", "#117733", "#CC6677", "#6699CC", "#661100", "#88CCEE", "#F0E442", "#555555", "#AA7744",
)
# fmt: on
MARKERS = "osD^vPX"
REAL, GENERATED = "#5F6B76", "#0072B2"
INK, QUIET, RULE = "#1F2933", "#6B7680", "#C9D1D8"
STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def drawn(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function in scmulan's style; EngineError where matplotlib or umap-learn is missing.

    The error names the package and the install line, so that the core installs and imports without either.
    """

    @wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            import matplotlib

            with matplotlib.rc_context(STYLE):
                return draw(*args, **kwargs)
        except ModuleNotFoundError as missing:
            if missing.name not in ("matplotlib", "umap"):
                raise
            raise EngineError(f"{draw.__name__}: needs {missing.name}, which is not installed; pip install 'scmulan[plots]'") from missing

    return in_style


def colours(labels: Iterable[str]) -> dict[str, str]:
    """One colour for each label, in alphabetical order, so that pictures of the same labels agree; they repeat after 20.

    Examples
    --------
    >>> colours(["NK", "B", "B"])
    {'B': '#0072B2', 'NK': '#E69F00'}
    """
    return {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(sorted(set(labels)))}


def figure(width: float, height: float, *, rows: int = 1, columns: int = 1, height_ratios: Sequence[float] | None = None,
            sharex: bool = False, sharey: bool = False) -> tuple[Figure, Any]:  # fmt: skip
    """A figure that lays itself out, and its axes."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return made, made.subplots(rows, columns, height_ratios=height_ratios, sharex=sharex, sharey=sharey)


def short(label: str, among: Iterable[str] = (), most: int = 36) -> str:
    """A long label without its middle, of which more is kept where another label would read the same."""
    others = [other for other in among if other != label]
    while len(label) > most and _cut(label, most) in [_cut(other, most) for other in others]:
        most += 6
    return _cut(label, most)


def _cut(label: str, most: int) -> str:
    return label if len(label) <= most else f"{label[: most // 2]}…{label[-(most // 2 - 1) :]}"


def readable(colour: str) -> str:
    """Ink or white, whichever is read better on a colour."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"
