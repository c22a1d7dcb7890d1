"""What a comparison leaves in a folder: its pictures and, beside the published tables, every cell and claim."""

from __future__ import annotations

import contextlib
from pathlib import Path

from jaxdist import files
from jaxdist.report.compare import cell_tables, claim_tables, pictures
from jaxdist.report.compare.comparison import Comparison
from jaxdist.storage import manifests


def save(comparison: Comparison, folder: Path) -> list[Path]:
    """Write the pictures, and ``cells.md`` and ``claims.md`` beside the published tables; returns the files.

    What lies in the run's own folder goes with the result that it is of.
    """
    run, written = comparison.folder, []
    inside = run is not None and folder.resolve().is_relative_to(run.resolve())
    with manifests.recording(run) if run is not None and inside else contextlib.nullcontext():
        if comparison.mode == "published":
            written.append(folder / "cells.md")
            files.write_text(written[0], cell_tables.markdown(comparison))
            if comparison.claims:
                written.append(folder / "claims.md")
                files.write_text(written[1], claim_tables.markdown(comparison))
        written += pictures.write(comparison, folder)
    return written
