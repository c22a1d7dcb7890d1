"""What a comparison leaves in a folder: its pictures and, beside the published tables, every cell as a table."""

from __future__ import annotations

from pathlib import Path

from jaxdist import files
from jaxdist.compare import cell_tables, pictures
from jaxdist.compare.comparison import Comparison


def save(comparison: Comparison, folder: Path) -> list[Path]:
    """Write the pictures, and ``published.md`` where the other side is the published tables; returns the files."""
    written = pictures.write(comparison, folder)
    if comparison.mode == "published":
        path = folder / "published.md"
        files.write_text(path, cell_tables.markdown(comparison))
        written.append(path)
    return written
