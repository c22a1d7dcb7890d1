"""What a page is made of: sections of words, charts and tables. Everything is text, and escaped where it is drawn."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from jaxdist.report.table import Table


class LegendEntry(NamedTuple):
    """A line of a chart's key."""

    label: str
    colour: str
    dash: str  # 'solid', or lengths


class Chart(NamedTuple):
    """An interactive chart, with a title and what it shows in words, for who cannot see it.

    Where the page's switches do not say what lines are of, a key does.
    """

    title: str
    alt: str
    figure: go.Figure
    key: Sequence[LegendEntry] = ()

    @property
    def plot(self) -> dict[str, Any]:
        """Traces and layout as plain data."""
        data: dict[str, Any] = json.loads(self.figure.to_json())
        return data


class Picture(NamedTuple):
    """A picture that does not move."""

    title: str
    alt: str
    png: str  # base64


class Section(NamedTuple):
    """A part of the page with a heading. What is not `open` the reader unfolds; `small` charts stand close."""

    title: str
    words: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    code: Sequence[tuple[str, str]] = ()  # label and text
    open: bool = True
    small: bool = False


class Choice(NamedTuple):
    """Something that charts show and the reader can switch off, with the look it has there."""

    kind: str  # 'network', 'family' or 'split'
    number: int
    label: str
    colour: str = ""
    dash: str = ""
    on: bool = True


class Page(NamedTuple):
    """A whole page."""

    title: str
    of: str  # which networks and images, in a line
    answer: Sequence[str]
    choices: Sequence[Choice]
    sections: Sequence[Section]


def literal(text: str) -> str:
    """Text as charts take it, which read some tags, ``%{...}`` and ``$...$`` in what they draw."""
    return html.escape(text, quote=False).replace("{", "&#123;").replace("$", "&#36;")
