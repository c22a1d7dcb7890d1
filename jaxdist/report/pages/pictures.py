"""Pictures of a run folder that a page shows as they are."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import xarray as xr

from jaxdist.report.pages.parts import Picture, Section
from jaxdist.storage import manifests

MOST_BYTES = 700_000
"""Of all pictures on a page; it says which others there are."""


class Kind(NamedTuple):
    """Pictures whose names begin alike, of results that have something to show in them."""

    start: str
    title: str
    there: Callable[[xr.DataTree], bool]


def _has(start: str) -> Callable[[xr.DataTree], bool]:
    return lambda result: any(name.startswith(start) for name in result.children)


def _has_layers(result: xr.DataTree) -> bool:
    return any(group.sizes.get("site", 0) > 1 for group in result.children.values())


def _has_metrics(result: xr.DataTree) -> bool:
    return any("metric" in group.dims for group in result.children.values())


KINDS = (
    Kind("metric_", "Further metrics", _has_metrics),
    Kind("layers", "Tolerance, layer by layer", _has_layers),
    Kind("grid_", "Two edits at once", _has("grid_")),
    Kind("units", "Each unit edited alone", _has("units_")),
    Kind("snapshots", "Along training", _has("snapshots_")),
)


def sections(runs: Sequence[tuple[str, xr.DataTree, Path]]) -> Iterator[Section]:
    """A section a kind of picture, of runs by name, result and folder; not of what an earlier sweep has left there.

    Words stand in the place of a picture that is no longer what was written.
    """
    left, missing = MOST_BYTES, []
    for kind in KINDS:
        pictures, changed = [], []
        for name, folder in ((name, folder) for name, result, folder in runs if kind.there(result)):
            for path in sorted((folder / "figures").glob(f"{kind.start}*.png")):
                if not manifests.is_own(folder, path):
                    continue
                if not (path.is_file() and manifests.is_whole(path)):
                    changed.append(
                        f"{path.relative_to(folder).as_posix()} was changed since jaxdist wrote it; "
                        f"`jaxdist report {shlex.quote(str(folder))}` makes it again."
                    )
                    continue
                words = path.stem.replace("_", " ") + (f", {name}" if len(runs) > 1 else "")
                if path.stat().st_size > left:
                    missing.append(words)
                    continue
                left -= path.stat().st_size
                png = base64.b64encode(path.read_bytes()).decode("ascii")
                pictures.append(Picture(words, f"{kind.title}: {words}", png))
        if pictures or changed:
            yield Section(kind.title, changed, pictures=pictures)
    if missing:
        said = f"There was no room here for {', '.join(missing)}; they are in the folder figures of the run."
        yield Section("Further pictures", [said], open=False)
