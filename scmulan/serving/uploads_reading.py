"""What reads an uploaded file: a program of its own, ``python -m scmulan.serving.uploads_reading LIMITS`` in the folder of the upload.

It is confined first, looks over the structure of the file, reads it as all of scmulan reads, and writes the clean file beside it; one JSON
document on stdout says how that went. Nothing heavy is imported before the structure is seen, so that most of what is refused is refused
in a third of a second.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from scmulan.serving.uploads_confined import confine
from scmulan.serving.uploads_limits import CLEAN, RECEIVED, REMEDY, UploadLimits, UploadRefused, UploadTooLarge


def main() -> None:
    """Read as the first argument, `UploadLimits` as JSON, allows."""
    limits = UploadLimits(**json.loads(sys.argv[1]))
    answer = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        said: dict[str, Any] = {"network": confine(limits), **_answer(limits)}
    except (OSError, ValueError) as error:
        said = _refused(f"this server can't hold what reads files to its limits ({error}), so it takes none; it needs Linux")
    with os.fdopen(answer, "w") as file:
        json.dump(said, file)


def _answer(limits: UploadLimits) -> dict[str, Any]:
    try:
        return _read(limits)
    except UploadRefused as error:
        return {**_refused(str(error), isinstance(error, UploadTooLarge)), "report": error.report}
    except MemoryError:
        found = f"reading it takes more than {limits.memory / 2**30:.1f} GiB of memory; needed less"
        return _refused(f"{found}; upload fewer cells, or leave out layers that are not needed, and store matrices sparse", True)
    except Exception as error:  # noqa: BLE001  whatever the file provokes is an answer about the file
        return _refused(f"can't be read ({type(error).__name__}: {error}); {REMEDY}")


def _refused(why: str, is_too_large: bool = False) -> dict[str, Any]:
    return {"refused": why, "is_too_large": is_too_large}


def _read(limits: UploadLimits) -> dict[str, Any]:
    from scmulan.serving.uploads_structure import look_inside

    look_inside(Path(RECEIVED), limits)

    from scmulan.cells import read_draft, read_h5ad
    from scmulan.errors import CellDataError
    from scmulan.serving.uploads_clean import clean_cells, shown_columns, told

    try:
        adata = read_h5ad(RECEIVED)
    except CellDataError as error:
        if isinstance(error.__cause__, MemoryError) or "alloc" in str(error.__cause__):
            raise MemoryError from None
        raise UploadRefused(str(error).removeprefix(f"{RECEIVED}: ")) from None
    draft = read_draft(adata, {}, None, None)
    draft.report.source = RECEIVED
    report = told(draft.report.to_dict())
    try:
        draft.report.raise_problem()
    except CellDataError as error:
        raise UploadRefused(str(error).removeprefix(f"{RECEIVED}: "), report) from None
    assert draft.values is not None
    if adata.n_obs > limits.cells or draft.values.counts.nnz > limits.values:
        found = f"{adata.n_obs:,} cells with {draft.values.counts.nnz:,} counts above zero"
        needed = f"at most {limits.cells:,} cells with {limits.values:,}"
        raise UploadTooLarge(f"{found}; needed {needed}; upload it in parts, such as adata[:{adata.n_obs // 2}].copy()", report)
    clean, left_out = clean_cells(draft)
    clean.write_h5ad(CLEAN, compression="lzf")  # a third of the time of gzip, twice the size
    return {
        "cells": clean.n_obs,
        "genes": clean.n_vars,
        "report": report,
        "obs": told(shown_columns(clean.obs)),
        "left_out": told(left_out),
    }


if __name__ == "__main__":
    main()
