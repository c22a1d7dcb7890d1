"""The version of the package, and that of its result files."""

__version__ = "0.1.0"

SCHEMA = 2
"""The version of the result file, its attribute `schema`."""
