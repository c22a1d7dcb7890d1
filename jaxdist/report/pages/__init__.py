"""A run, or several over each other, as one page that a browser opens without a network."""

from jaxdist.report.pages.content import Run, page
from jaxdist.report.pages.rendering import FILE, write

__all__ = ["FILE", "Run", "page", "write"]
