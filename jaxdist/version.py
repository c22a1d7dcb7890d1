"""The version of the package, and that of its result files."""

__version__ = "0.2.0"

SCHEMA = 3
"""The version of the result file, its attribute `schema`."""

READABLE = (2, SCHEMA)
"""The versions that are read. Those of 2 have means over draws in place of a dimension `draw`."""
