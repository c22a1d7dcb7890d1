"""A page's parts as one HTML file, with all that it needs inside."""

from __future__ import annotations

import base64
import functools
import gzip
import importlib.resources
from pathlib import Path

import jinja2
import markupsafe
from plotly.offline import get_plotlyjs

from jaxdist import files
from jaxdist.report import table
from jaxdist.report.pages.parts import Page

FILE = "report.html"


def write(page: Page, path: Path) -> Path:
    """Write a page to a file; returns its path."""
    files.write_text(path, render(page))
    return path


def render(page: Page) -> str:
    """A page as HTML: whatever a name or label holds stands there as text."""
    return _template().render(
        page=page,
        style=markupsafe.Markup(_read_asset("style.css")),
        script=markupsafe.Markup(_read_asset("page.js")),
        plotly=_plotly(),
    )


@functools.cache
def _plotly() -> str:
    """The library that draws the charts, compressed to a third of its five megabytes; `page.js` unpacks it."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode("ascii")


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["table"] = lambda each: markupsafe.Markup(table.html(each))
    return environment.from_string(_read_asset("report.html.jinja"))


def _read_asset(name: str) -> str:
    return importlib.resources.files("jaxdist.report.pages").joinpath(name).read_text(encoding="utf-8")
