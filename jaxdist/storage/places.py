"""Where things lie in a run folder; for those who look without loading what computes."""

from __future__ import annotations

RESULT = "result.nc"

CONFIG = "config.toml"

UNFINISHED = "unfinished"
"""The folder of what a run keeps until it is finished."""

NOTED = "run.toml"
"""In that folder, what the work is for."""

SUMMARY = "summary.json"
"""In the folder ``tables``, the main numbers of `jaxdist.report.documents`."""

MANIFEST = "manifest.json"
"""What jaxdist wrote there, file by file."""

LOCK = ".lock"

MANIFEST_LOCK = ".manifest.lock"
"""Held for moments, by whoever changes the list of files; else it is not there, unless its holder was killed."""

LOCKS = (LOCK, MANIFEST_LOCK)

WEIGHTS, TABLES, FIGURES, COMPARISONS, GEOMETRY, CONTROLS = FOLDERS = (
    "weights", "tables", "figures", "comparisons", "geometry", "controls",
)  # fmt: skip
"""The folders in it, but for that of unfinished work."""
