"""Whether a gene's score stands out from that of genes that are detected as often: what a score owes to detection is no finding.

Each gene is compared with the controls nearest to it in detection. The middle and spread of those (median and MAD, which a few true hits
do not move) give z: an empirical null (Efron 2004). Where every gene is tested, the controls are the other genes, so that an empirical p
can't survive a correction; the q is of the normal tail of z, and is right as far as the bulk of the genes has no effect of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import false_discovery_control, norm

Floats = npt.NDArray[np.float64]
NEAREST = 100
"""Controls that a gene is compared with; all there are, where there are fewer."""
FEWEST = 5


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Of each score; NaN where it is not known, or there are fewer than five controls. All (n,).

    Attributes
    ----------
    z : distance from the middle of its controls, in their spread
    p : share of controls, itself counted, whose z is as far from 0 or farther
    q : false discovery rate (Benjamini-Hochberg) of the two-sided normal tail of z
    """

    z: Floats
    p: Floats
    q: Floats


def matched(scores: npt.ArrayLike, detection: npt.ArrayLike, is_control: npt.ArrayLike, *, nearest: int = NEAREST) -> Matched:
    """Compare scores with those of controls of like detection.

    Parameters
    ----------
    scores : (n,) NaN where unknown
    detection : (n,) share of cells, or another measure of level, by the logarithm of which controls are near
    is_control : (n,) bool; a control is not compared with itself

    Examples
    --------
    >>> found = matched([*range(20), 100], [0.5] * 21, [True] * 20 + [False])
    >>> round(float(found.z[-1]), 1), round(float(found.p[-1]), 3)
    (12.2, 0.048)
    """
    score = np.asarray(scores, dtype=np.float64)
    level = np.log(np.asarray(detection, dtype=np.float64) + 1e-3)
    known = np.isfinite(score)
    controls = np.flatnonzero(known & np.asarray(is_control, dtype=bool))
    z = np.full(len(score), np.nan)
    for place in np.flatnonzero(known):
        others = controls[controls != place]
        if len(others) >= FEWEST:
            near = others[np.argsort(np.abs(level[others] - level[place]), kind="stable")[:nearest]]
            z[place] = _standing(score[place], score[near])
    has = np.isfinite(z)
    among = np.sort(np.abs(z[controls][np.isfinite(z[controls])]))
    as_far = len(among) - np.searchsorted(among, np.abs(z) - 1e-12)
    is_new = ~np.isin(np.arange(len(score)), controls)
    p, q = np.full(len(score), np.nan), np.full(len(score), np.nan)
    if has.any():
        p[has] = ((as_far + is_new)[has]) / (len(among) + is_new[has])
        q[has] = false_discovery_control(2 * norm.sf(np.abs(z[has])))
    return Matched(z=z, p=p, q=q)


def _standing(score: float, others: Floats) -> float:
    """Distance from the middle of others, in their spread; 0 where nothing differs."""
    middle = float(np.median(others))
    spread = 1.4826 * float(np.median(np.abs(others - middle))) or float(others.std())
    return (score - middle) / spread if spread > 0 else 0.0
