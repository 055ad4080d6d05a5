"""Pictures of what was measured: each takes results or plain arrays and gives a matplotlib Figure, saved by ``.savefig``.

No global state: figures are made without pyplot, so they need no display, and the caller's matplotlib settings are left alone.
Colours are of Okabe and Ito 2008 and Tol's muted set, which survive the common colour blindnesses; nothing is told by colour
alone: there are numbers, marks or names beside it. The extra ``plots`` is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scmulan._drawing import GENERATED, INK, MARKERS, PALETTE, QUIET, REAL, RULE, colours, drawn, figure, readable, short
from scmulan.errors import CellDataError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from scmulan.measures.counts import Counts
    from scmulan.measures.metrics import Annotation, Calibration, GeneStatistics, TwoSample


@drawn
def confusion_matrix(found: Annotation, *, title: str = "Said label by true label") -> Figure:
    """Share of each true label (row) said to be each label (column), and in the last column the abstentions."""
    counts = np.column_stack([np.asarray(found.confusion), found.abstained])
    columns = [*found.labels, "no answer"]
    if not any(found.abstained):
        counts, columns = counts[:, :-1], columns[:-1]
    kept = counts.sum(1) > 0
    rows, counts = [label for label, keep in zip(found.labels, kept, strict=True) if keep], counts[kept]
    share = counts / counts.sum(1, keepdims=True)
    picture, axes = figure(3.2 + 0.46 * len(columns), 2.2 + 0.4 * len(rows))
    axes.pcolormesh(np.arange(len(columns) + 1) - 0.5, np.arange(len(rows) + 1) - 0.5, share, cmap="Blues", vmin=0, vmax=1,
                    edgecolor="white", linewidth=1.5)  # fmt: skip
    axes.invert_yaxis()
    for i, j in zip(*np.nonzero(counts), strict=True):
        text = f"{100 * share[i, j]:.0f}" if share[i, j] >= 0.005 else "·"
        axes.text(j, i, text, ha="center", va="center", fontsize=9, color="white" if share[i, j] > 0.55 else INK)
    axes.set_xticks(range(len(columns)), [short(label, columns) for label in columns], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), [f"{short(label, rows)}  ({n:,})" for label, n in zip(rows, counts.sum(1), strict=True)])
    if "no answer" in columns:
        axes.axvline(len(columns) - 1.5, color=QUIET, linewidth=1.2)
    axes.set(xlabel="said", ylabel="true (cells)")
    axes.set_title(f"{title}, % of row · accuracy {found.accuracy:.3f}")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return picture


@drawn
def reliability(found: Calibration, *, title: str = "Is the probability right?") -> Figure:
    """Share right against stated probability, by bin, over the number of cells in each bin."""
    bins = [each for each in found.bins if each.n]
    x, y, n = (np.array([getattr(each, name) for each in bins], dtype=float) for name in ("probability", "accuracy", "n"))
    picture, (upper, lower) = figure(4.6, 4.8, rows=2, height_ratios=[3, 1], sharex=True)
    upper.plot([0, 1], [0, 1], color=QUIET, linestyle="--", linewidth=1)
    upper.text(0.12, 0.04, "line: as stated", color=QUIET)
    upper.text(0.03, 0.92, f"calibration error {found.error:.3f}")
    upper.vlines(x, np.minimum(x, y), np.maximum(x, y), color="#D55E00", linewidth=2, alpha=0.6)
    upper.plot(x, y, "o-", color=GENERATED, markersize=6)
    upper.set(ylim=(-0.02, 1.04), xlim=(-0.02, 1.02), ylabel="share right")
    upper.set_title(title)
    width = found.bins[0].high - found.bins[0].low
    lower.bar([each.low + width / 2 for each in bins], n, width=0.9 * width, color=RULE)
    for each in bins:
        lower.text(each.low + width / 2, each.n, f"{each.n:,}", ha="center", va="bottom", fontsize=8, color=QUIET)
    lower.set(xlabel="probability stated", ylabel="cells", ylim=(0, 1.35 * n.max() if len(n) else 1))
    return picture


@drawn
def umap_positions(real_CK: ArrayLike, generated_CK: ArrayLike, *, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Places of real and generated cells in one UMAP of both, from their principal components, ``[C, 2]`` each."""
    real, generated = np.asarray(real_CK), np.asarray(generated_CK)
    both = np.vstack([real, generated])
    if len(both) < 10:
        raise CellDataError(f"UMAP: {len(both)} cells; needed 10 or more")
    from umap import UMAP

    places = UMAP(n_neighbors=min(30, len(both) - 1), min_dist=0.8, negative_sample_rate=2, random_state=seed, n_jobs=1).fit_transform(both)
    return places[: len(real)], places[len(real) :]


@drawn
def umap(
    real_C2: NDArray[Any],
    generated_C2: NDArray[Any],
    real_types: Sequence[str],
    generated_types: Sequence[str],
    *,
    title: str = "",
) -> Figure:
    """Real cells left, generated cells right, in one UMAP, by type; the other side's cells lie in grey behind.

    A type has its colour, its mark and its number, which stands at the middle of its cells and in the legend.
    """
    palette = colours([*real_types, *generated_types])
    names = list(palette)
    picture, panels = figure(9.4, 4.8 + 0.2 * -(-len(names) // 3), columns=2, sharex=True, sharey=True)
    sides = (("Real", real_C2, real_types, generated_C2), ("Generated", generated_C2, generated_types, real_C2))
    for axes, (name, places, types, others) in zip(panels, sides, strict=True):
        axes.scatter(*np.asarray(others).T, s=5, color="#D8DDE2", linewidths=0)
        for number, label in enumerate(names, 1):
            cells = np.asarray(places)[np.asarray(types) == label]
            if len(cells):
                axes.scatter(*cells.T, s=11, color=palette[label], marker=MARKERS[(number - 1) % len(MARKERS)], linewidths=0, alpha=0.75)
        _number(axes, np.asarray(places), np.asarray(types), names)
        axes.set_title(f"{name}, {len(places):,} cells")
        axes.set(xticks=[], yticks=[], xlabel="UMAP 1")
    panels[0].set_ylabel("UMAP 2")
    _type_legend(picture, palette)
    if title:
        picture.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return picture


@drawn
def composition(
    shares: Mapping[str, Mapping[str, float]], *, gene: str, without: str | None = None, least: float = 0.03, title: str | None = None
) -> Figure:
    """Stacked shares of the types that cells are said to be, at each level of a gene, with the cells ``without`` it set apart.

    ``shares`` maps each level, in order, to the share of each type, which sum to one. A type below ``least`` at every level
    goes to "other".
    """
    levels = list(shares)
    types = sorted({label for level in shares.values() for label in level})
    shown = [label for label in types if max(level.get(label, 0.0) for level in shares.values()) >= least]
    shown.sort(key=lambda label: -max(level.get(label, 0.0) for level in shares.values()))
    palette = colours(types) | {"other": "#E4E8EB"}
    rows = {label: [shares[level].get(label, 0.0) for level in levels] for label in shown}
    if len(shown) < len(types):
        rows["other"] = [1 - sum(row[i] for row in rows.values()) for i in range(len(levels))]
    x = np.arange(len(levels)) + np.array([0.0 if level == without or without is None else 0.35 for level in levels])
    picture, axes = figure(3.6 + 0.95 * len(levels), max(4.0, 0.24 * len(rows) + 1.4))
    below = np.zeros(len(levels))
    for number, (label, row) in enumerate(rows.items(), 1):
        mark = "" if label == "other" else f"{number} "
        axes.bar(
            x, row, bottom=below, width=0.78, color=palette[label], edgecolor="white", linewidth=0.8, label=f"{mark}{short(label, rows)}"
        )
        for place, share, foot in zip(x, row, below, strict=True):
            if share >= 0.06:
                axes.text(place, foot + share / 2, f"{mark}· {share:.0%}" if mark else f"{share:.0%}", ha="center", va="center",
                          fontsize=8.5, color=readable(palette[label]))  # fmt: skip
        below += row
    axes.set_xticks(x, levels)
    axes.set(ylim=(0, 1), xlabel=f"count of {gene} in the prompt", ylabel="share of generated cells said to be")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_title(title or f"Cells generated from {gene}")
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], names[::-1], loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, handlelength=1.2)
    return picture


@drawn
def gene_agreement(real: GeneStatistics, generated: GeneStatistics) -> Figure:
    """Mean, variance and share of zeros of each gene, generated against real; a point is a gene, the line is equality."""
    picture, panels = figure(10.8, 3.9, columns=3)
    names = (("mean", "Mean, log1p CP10k"), ("variance", "Variance, log1p CP10k"), ("zero_fraction", "Share of cells without it"))
    seen = (real.zero_fraction < 1) | (generated.zero_fraction < 1)
    for axes, (name, label) in zip(panels, names, strict=True):
        x, y = getattr(real, name)[seen], getattr(generated, name)[seen]
        low, high = min(x.min(), y.min()), max(x.max(), y.max())
        margin = 0.03 * (high - low) or 0.1
        axes.plot([low, high], [low, high], color="#D55E00", linewidth=1, zorder=3)
        axes.scatter(x, y, s=5, color=GENERATED, alpha=0.25, linewidths=0, rasterized=True)
        axes.set(xlabel="real", xlim=(low - margin, high + margin), ylim=(low - margin, high + margin), aspect="equal")
        r = np.corrcoef(x, y)[0, 1] if np.ptp(x) > 0 and np.ptp(y) > 0 else float("nan")
        axes.text(0.04, 0.96, f"r {r:.3f}\nRMSE {np.sqrt(np.mean((x - y) ** 2)):.3f}", transform=axes.transAxes, va="top")
        axes.set_title(label)
    panels[0].set_ylabel("generated")
    return picture


@drawn
def two_sample(figures: Mapping[str, TwoSample], *, title: str = "Told from real cells by a random forest") -> Figure:
    """AUC of each kind of cells on 50 components and on the variable genes, with two standard errors; 0.5 is not told apart."""
    picture, axes = figure(7.4, 1.6 + 0.58 * len(figures))
    y = np.arange(len(figures))[::-1]
    axes.axvline(0.5, color=QUIET, linestyle="--", linewidth=1)
    series = (("auc_pcs", "50 components", "o", 0.14, PALETTE[0]), ("auc_hvgs", "variable genes", "s", -0.14, PALETTE[5]))
    for name, label, marker, shift, colour in series:
        value = np.array([getattr(each, name) for each in figures.values()])
        error = 2 * np.array([getattr(each, f"{name}_error") for each in figures.values()])
        axes.errorbar(value, y + shift, xerr=error, fmt=marker, color=colour, label=label, markersize=7, capsize=0, linewidth=1.5)
        for place, mean, reach in zip(y + shift, value, error, strict=True):
            axes.text(mean + reach + 0.008, place, f"{mean:.3f}", va="center", fontsize=9)
    axes.set_yticks(y, list(figures))
    low = min(0.42, *(min(each.auc_pcs, each.auc_hvgs) - 0.04 for each in figures.values()))
    axes.set(xlim=(low, 1.05), ylim=(-0.6, len(figures) - 0.4), xlabel="AUC (0.5: not told apart, 1: always)")
    picture.legend(loc="outside lower center", ncols=2)
    axes.set_title(title)
    return picture


@drawn
def field_probabilities(
    answers: Mapping[str, Mapping[str, float]], *, true: Mapping[str, str] | None = None, most: int = 4, title: str = ""
) -> Figure:
    """The likeliest values of each field with their probabilities; the true value, where it is known, is marked and always shown."""
    known = true or {}
    rows: list[tuple[str, str, float]] = []
    for name, values in answers.items():
        best = sorted(values, key=lambda value: -values[value])[:most]
        if name in known and known[name] not in best:
            best.append(known[name])
        rows += [(name, value, values.get(value, 0.0)) for value in best]
    starts = [i for i, row in enumerate(rows) if i == 0 or rows[i - 1][0] != row[0]]
    y = -(np.arange(len(rows)) + 0.7 * np.array([sum(start <= i for start in starts) for i in range(len(rows))]))
    picture, axes = figure(8.2, 1.0 + 0.29 * (len(rows) + len(starts)))
    for place, (name, value, probability) in zip(y, rows, strict=True):
        is_true = known.get(name) == value
        axes.barh(place, probability, height=0.8, color=GENERATED if is_true else "#A9C6DC")
        text = f"{probability:.3f}" + (" ◂ true" if is_true else "")
        axes.text(probability + 0.01, place, text, va="center", fontsize=9, fontweight="bold" if is_true else "normal")
    for start in starts:
        axes.text(0, y[start] + 0.82, rows[start][0].replace("_", " "), fontweight="bold", va="center")
    axes.set_yticks(y, [short(value, [other for _, other, _ in rows]) for _, value, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, 1.18), xticks=[0, 0.25, 0.5, 0.75, 1], xlabel="probability")
    axes.spines["bottom"].set_bounds(0, 1)
    axes.set_title(title)
    return picture


@drawn
def gene_contributions(nats: Mapping[str, float], *, label: str, most: int = 20, title: str | None = None) -> Figure:
    """Genes that speak most for a label (bars right) and against it (left), in nats of log probability, strongest first."""
    genes = sorted(nats, key=lambda gene: -abs(nats[gene]))[:most]
    if not genes:
        raise CellDataError(f"genes that speak for {label!r}: found none; needed the nats of one or more")
    values = np.array([nats[gene] for gene in genes])
    picture, axes = figure(6.4, 1.3 + 0.25 * len(genes))
    y = -np.arange(len(genes))
    axes.barh(y, values, color=[GENERATED if value >= 0 else "#D55E00" for value in values], height=0.75)
    reach = float(np.abs(values).max()) or 1.0
    for place, value in zip(y, values, strict=True):
        side = "left" if value >= 0 else "right"
        axes.text(value + np.copysign(0.015 * reach, value), place, f"{value:+.2f}".replace("-", "−"), va="center", ha=side, fontsize=8.5)
    axes.axvline(0, color=QUIET, linewidth=1)
    axes.set_yticks(y, genes, fontstyle="italic")
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(-1.2 * reach if (values < 0).any() else 0, 1.2 * reach if (values >= 0).any() else 0))
    axes.set_xlabel(f"nats against (−) and for (+) {label}")
    axes.set_title(title or f"Genes that speak most for {label}")
    return picture


@drawn
def loss_curve(
    steps: ArrayLike,
    training: ArrayLike,
    *,
    held_out: tuple[ArrayLike, ArrayLike] | None = None,
    baselines: Mapping[str, float] | None = None,
    unit: str = "nats per token",
) -> Figure:
    """Training loss by step (thin) with its running mean (thick), held-out loss ``(steps, loss)``, and baselines as level lines."""
    picture, axes = figure(7.2, 4.0)
    x, y = np.asarray(steps, dtype=float), np.asarray(training, dtype=float)
    window = max(1, len(y) // 40)
    smooth = np.convolve(y, np.ones(window) / window, mode="valid")
    axes.plot(x, y, color=PALETTE[4], linewidth=0.6, alpha=0.6)
    axes.plot(x[window // 2 :][: len(smooth)], smooth, color=PALETTE[0], linewidth=2, label=f"training, last {smooth[-1]:,.4g}")
    lowest, highest = smooth.min(), smooth[: max(1, len(smooth) // 10)].max()
    if held_out is not None:
        at, loss = (np.asarray(each, dtype=float) for each in held_out)
        axes.plot(at, loss, "o--", color=PALETTE[5], markersize=5, linewidth=1, label=f"held out, last {loss[-1]:,.4g}")
        lowest = min(lowest, loss.min())
    for name, value in (baselines or {}).items():
        axes.axhline(value, color=QUIET, linestyle=":", linewidth=1.4)
        axes.annotate(f"{name} {value:,.4g}", (1, value), xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points",
                      ha="right", color=QUIET, fontsize=9)  # fmt: skip
        lowest = min(lowest, value)
    margin = 0.06 * (highest - lowest) or 0.1
    axes.set(xlabel="step", ylabel=unit, ylim=(lowest - margin, highest + margin))
    axes.legend(loc="upper right")
    axes.set_title("Loss")
    return picture


@drawn
def volcano(changes: pd.DataFrame, *, title: str = "What changes", most: int = 12, least_change: float = 0.25) -> Figure:
    """Each gene's change (log2) against how sure it is; the genes of the largest sure changes by name.

    Parameters
    ----------
    changes : rows of genes, as ``Model.perturb`` writes them into ``var``: ``scmulan_change`` and ``scmulan_q_value``
    least_change : below it no gene is marked, however sure
    """
    change, q = (changes[f"scmulan_{name}"].to_numpy(dtype=float) for name in ("change", "q_value"))
    height = -np.log10(np.maximum(q, 1e-30))
    sure = (q < 0.05) & (np.abs(change) >= least_change)
    picture, axes = figure(5.6, 4.4)
    for chosen, colour, marker, name in (
        (~sure, RULE, "o", "not sure or small"),
        (sure & (change > 0), "#D55E00", "^", "rises"),
        (sure & (change < 0), GENERATED, "v", "falls"),
    ):
        axes.scatter(change[chosen], height[chosen], s=16, c=colour, marker=marker, linewidth=0, label=f"{name} ({int(chosen.sum()):,})")
    for place in np.flatnonzero(sure)[np.argsort(-np.abs(change[sure]), kind="stable")][:most]:
        side = "left" if change[place] > 0 else "right"
        axes.annotate(str(changes.index[place]), (change[place], height[place]), (4 if side == "left" else -4, 2),
                      textcoords="offset points", fontsize=8, ha=side)  # fmt: skip
    axes.axvline(0, color=QUIET, linewidth=0.8)
    axes.set(xlabel="change, log2 of CP10k + 1", ylabel="-log10 of the q value")
    axes.set_title(title)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=8)
    axes.margins(x=0.12)
    return picture


@drawn
def depths(real: Counts, generated: Counts) -> Figure:
    """Counts per cell and genes detected per cell, real (filled) and generated (outlined), with their medians."""
    from matplotlib.ticker import LogLocator, NullFormatter

    picture, panels = figure(9.2, 3.8, columns=2)
    sums = [np.asarray(side.sum(1)).ravel() for side in (real, generated)]
    genes = [np.asarray((side > 0).sum(1)).ravel() for side in (real, generated)]
    for axes, (one, other), label in zip(panels, (sums, genes), ("counts per cell", "genes detected per cell"), strict=True):
        low, high = max(1, min(one.min(), other.min())), max(one.max(), other.max(), 2)
        bins = np.geomspace(low, high * 1.001, 36).tolist()
        shares = [np.ones(len(each)) / len(each) for each in (one, other)]
        axes.hist(one, bins, weights=shares[0], color="#C9D1D8", label=f"real, median {np.median(one):,.0f}")
        axes.hist(other, bins, weights=shares[1], histtype="step", color=GENERATED, linewidth=1.8,
                  label=f"generated, median {np.median(other):,.0f}")  # fmt: skip
        axes.axvline(np.median(one), color=REAL, linewidth=1.2)
        axes.axvline(np.median(other), color=GENERATED, linewidth=1.2, linestyle="--")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(label)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=9)
    panels[0].set_ylabel("share of cells")
    return picture


def _number(axes: Axes, places: NDArray[Any], types: NDArray[Any], names: Sequence[str]) -> None:
    """Write each type's number at the middle of its cells, pushed apart where two would lie on each other."""
    from matplotlib.patheffects import withStroke

    shown = [(number, np.median(places[types == label], axis=0)) for number, label in enumerate(names, 1) if (types == label).any()]
    at = np.array([middle for _, middle in shown])
    reach = np.ptp(np.vstack([axes.get_xlim(), axes.get_ylim()]), axis=1) * 0.045
    at = at + 1e-3 * reach * np.arange(len(at))[:, None]
    for _ in range(40):
        apart = (at[:, None] - at[None]) / reach
        distance = np.linalg.norm(apart, axis=2) + np.eye(len(at))
        at = at + 0.5 * reach * (apart / distance[..., None] * np.clip(1 - distance, 0, None)[..., None]).sum(1)
    for (number, _), (x, y) in zip(shown, at, strict=True):
        text = axes.text(x, y, str(number), ha="center", va="center", fontweight="bold", fontsize=10)
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])


def _type_legend(picture: Figure, palette: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker=MARKERS[(i - 1) % len(MARKERS)], color=colour, label=f"{i}  {short(label, palette)}")
        for i, (label, colour) in enumerate(palette.items(), 1)
    ]
    longest = max((len(short(label, palette)) for label in palette), default=0)
    picture.legend(handles=handles, loc="outside lower left", ncols=2 if longest > 30 else 3, fontsize=9, handletextpad=0.2)
