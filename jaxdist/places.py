"""Where things lie in a run folder; for those who look without loading what computes."""

from __future__ import annotations

RESULT = "result.nc"

SCHEMA = 2
"""The version of the result file, its attribute `schema`."""

CONFIG = "config.toml"

UNFINISHED = "unfinished"
"""The folder of what a run keeps until it is finished."""

NOTED = "run.toml"
"""In that folder, what the work is for."""

SUMMARY = "summary.json"
"""In the folder ``tables``, the main numbers of `jaxdist.documents`."""

MANIFEST = "manifest.json"
"""What jaxdist wrote there, file by file."""

LOCK = ".lock"

WEIGHTS, TABLES, FIGURES, COMPARISONS = FOLDERS = ("weights", "tables", "figures", "comparisons")
"""The folders in it, but for that of unfinished work."""
