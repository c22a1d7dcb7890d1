"""What a comparison leaves in a folder: its pictures and, beside the published tables, every cell as a table."""

from __future__ import annotations

from pathlib import Path

from jaxdist import files
from jaxdist.compare import cell_tables, pictures
from jaxdist.compare.comparison import Comparison


def save(comparison: Comparison, folder: Path) -> list[Path]:
    """Write the pictures, and ``cells.md`` where the other side is the published tables; returns the files."""
    written = []
    if comparison.mode == "published":
        written.append(folder / "cells.md")
        files.write_text(written[0], cell_tables.markdown(comparison))
    return [*written, *pictures.write(comparison, folder)]
