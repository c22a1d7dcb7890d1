"""Pictures of a run folder that a page shows as they are."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxdist.pages.parts import Picture, Section

SHOWN = {
    "layers": "Tolerance, layer by layer",
    "grid_": "Two edits at once",
    "units": "Each unit edited alone",
    "snapshots": "Along training",
}
"""What the pictures are of whose names begin so."""
MOST_BYTES = 700_000
"""Of all pictures on a page; it says which others there are."""


def sections(runs: Sequence[tuple[str, Path]]) -> Iterator[Section]:
    """A section a kind of picture, of runs by name and folder."""
    left, missing = MOST_BYTES, []
    for start, title in SHOWN.items():
        found = []
        for name, folder in runs:
            for path in sorted((folder / "figures").glob(f"{start}*.png")):
                if path.stat().st_size > left:
                    missing.append(str(path))
                    continue
                left -= path.stat().st_size
                words = path.stem.replace("_", " ") + (f", {name}" if len(runs) > 1 else "")
                found.append(Picture(words, f"{title}: {words}", base64.b64encode(path.read_bytes()).decode("ascii")))
        if found:
            yield Section(title, pictures=found)
    if missing:
        yield Section("Further pictures", [f"There was no room here for {', '.join(missing)}."], open=False)
