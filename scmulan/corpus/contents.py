"""What is in a corpus, summed over its sources from the manifest alone: labels, depths, lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from scmulan.csentence import DEPTH_STEPS_PER_OCTAVE

QUARTERS = (0.25, 0.5, 0.75)


def contents_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Cells, ids, splits, labels and histograms of a corpus.

    Returns
    -------
    dict
        ``labels``: field to label to cells, most frequent first. ``depths`` and ``lengths``: ``bins`` of lower bound (counts a cell; ids a
        cell) to cells, and ``quartiles``. The rest as in the manifest.
    """
    labels: dict[str, Counter[str]] = {}
    depths, lengths, splits = Counter[int](), Counter[int](), Counter[str]()
    for source in manifest["sources"]:
        for name, values in source["label_cells"].items():
            labels.setdefault(name, Counter()).update(values)
        depths.update({_least_total(int(step)): cells for step, cells in source["depths"].items()})
        lengths.update({int(length): cells for length, cells in source["lengths"].items()})
        splits.update(source["splits"])
    kept = ("cells", "tokens", "doubles", "donors", "donors_in_several_splits", "left_out", "tokenizer_sha256")
    return {
        **{name: manifest[name] for name in kept},
        "splits": dict(splits),
        "labels": {name: dict(labels[name].most_common()) for name in manifest["fields"] if name in labels},
        "depths": _histogram(depths),
        "lengths": _histogram(lengths),
        "sources": [{key: value for key, value in source.items() if key not in ("findings", "labels")} for source in manifest["sources"]],
    }


def _least_total(step: int) -> int:
    """Smallest library size of a depth step."""
    return 0 if step == 0 else int(np.ceil(2 ** ((step - 1) / DEPTH_STEPS_PER_OCTAVE)))


def _histogram(bins: Counter[int]) -> dict[str, Any]:
    """Bins in order, and the lower bounds of those that hold the quartiles."""
    ordered = sorted(bins.items())
    upto = np.cumsum([cells for _, cells in ordered])
    places = [int(np.searchsorted(upto, share * upto[-1])) for share in QUARTERS] if ordered else []
    return {"bins": {str(bound): cells for bound, cells in ordered}, "quartiles": [ordered[place][0] for place in places] or [0, 0, 0]}
