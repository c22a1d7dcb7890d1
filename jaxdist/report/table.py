"""A table: built once, of plain values, and rendered for a terminal, in Markdown, in HTML and as JSON.

A table says what its values are, `jaxdist.formatting` how numbers are written; only the renderers know a syntax.
"""

from __future__ import annotations

import html as escaping
import json
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from jaxdist.formatting import MISSING, radius, share, shortened

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 80
"""Columns of a terminal that answers are made for."""

Write: TypeAlias = Callable[[Any], str]
"""How values are written."""


class Column(NamedTuple):
    """A column: its heading, with the unit where values do not say it, and how they are written.

    Where rows are made of things, as of a data frame's rows, `take` says what of one: a function, or the name of an
    attribute, which is the heading if there is none. Where a terminal has no room its words, or those of rows that head
    others, are shortened to `least` letters, of several such columns the last first.
    """

    heading: str
    write: Write = str
    take: str | Callable[[Any], Any] = ""
    least: int | None = None

    def of(self, thing: Any) -> Any:
        """What the column takes of a thing."""
        return self.take(thing) if callable(self.take) else operator.attrgetter(self.take or self.heading)(thing)


class Otherwise(NamedTuple):
    """A value that is written otherwise than the others of its column, as a loss among accuracies."""

    value: Any
    write: Write


class Radius(NamedTuple):
    """A tolerance radius with its interval, the end of the grid that it may lie beyond, and the side of no edit."""

    median: float
    low: float
    high: float
    grid_end: float
    side: str

    @property
    def middle(self) -> str:
        """The median."""
        return radius(self.median, self.grid_end, self.side)

    @property
    def ends(self) -> str:
        """The interval, if there is one that says more than that the grid ends."""
        if math.isnan(self.low) or (math.isinf(self.low) and math.isinf(self.high)):
            return ""
        low, high = (radius(end, self.grid_end, self.side).removesuffix(" %") for end in (self.low, self.high))
        return f"[{low}, {high}]"

    def __str__(self) -> str:
        return f"{self.middle} {self.ends}".strip()


class Table(NamedTuple):
    """Rows of values under columns, with a title and notes.

    A value is a number or several, text as it is, None where there is none, a list of lines, or whatever its column
    writes. A row of one value heads the rows below it.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    notes: Sequence[str] = ()

    @property
    def headings(self) -> list[str]:
        """Those of the columns."""
        return [column.heading for column in self.columns]

    @property
    def texts(self) -> list[list[str]]:
        """What stands in every row."""
        return [[_text(column, value) for column, value in zip(self.columns, row, strict=False)] for row in self.rows]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column is of numbers, by which it is aligned and sorted."""
        values = ([row[k] for row in self.rows if k < len(row)] for k in range(len(self.columns)))
        return [
            column.write is not str or any(_key(value) is not None for value in of)
            for column, of in zip(self.columns, values, strict=True)
        ]


def _text(column: Column, value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(_text(column, line) for line in value)
    if isinstance(value, Otherwise):
        return value.write(value.value)
    return MISSING if value is None else value if isinstance(value, str) else column.write(value)


def _key(value: Any) -> float | None:
    """The number that a value is sorted by, the first of several; None of words."""
    while isinstance(value, (tuple, list)):
        value = value[0] if value else None
    return None if value is None or isinstance(value, str) else float(value)


def terminal(table: Table, width: int = WIDTH, *, framed: bool = False) -> RichTable:
    """A table for `rich` to print in some columns."""
    texts = table.texts
    unbounded = Console(width=10_000)
    uncut = _rich(table, texts, None, framed=framed)
    over = Measurement.get(unbounded, unbounded.options, uncut).maximum - width
    long = [row for row in texts if len(row) == 1] or texts  # what heads others is longer than these
    for k, column in reversed(list(enumerate(table.columns))):
        if column.least is not None and over > 0:
            longest = max(len(line) for row in long for line in row[k].split("\n"))
            room = max(longest - over, min(column.least, longest))
            over -= longest - room
            for row in long:
                row[k] = "\n".join(shortened(line, room) for line in row[k].split("\n"))
    return _rich(table, texts, width, framed=framed)


def _rich(table: Table, texts: Sequence[Sequence[str]], width: int | None, *, framed: bool) -> RichTable:
    rich_table = RichTable(
        title=table.title or None, caption=" ".join(table.notes) or None, width=width if framed else None
    )
    if not framed:
        rich_table.box, rich_table.padding, rich_table.pad_edge = SIMPLE_HEAD, (0, 1, 0, 0), False
        rich_table.title_justify = rich_table.caption_justify = "left"
    for column, numeric in zip(table.columns, table.numeric, strict=True):
        rich_table.add_column(column.heading, justify="right" if numeric else "left", overflow="fold")
    for row in texts:
        if len(row) == 1 < len(table.columns):
            rich_table.add_section()
        rich_table.add_row(*map(Text, row))  # of a str, rich takes [words] for markup
    return rich_table


def markdown(*parts: str | Table) -> str:
    """A document in Markdown: paragraphs, and tables with their titles as headings of the second level."""
    return "\n\n".join(part if isinstance(part, str) else _pipes(part) for part in parts) + "\n"


def _pipes(table: Table) -> str:
    rows = [[text.replace("|", "\\|") for text in row] for row in (table.headings, *table.texts)]
    widths = [max(len(heading) + 2, *(len(row[k]) for row in rows)) for k, heading in enumerate(rows[0])]
    lines = [f"| {' | '.join(f'{text:{size}}' for text, size in zip(row, widths, strict=True))} |" for row in rows]
    lines.insert(1, f"|{'|'.join(':' + '-' * (size + 1) for size in widths)}|")
    return "\n\n".join([*([f"## {table.title}"] if table.title else []), *table.notes, "\n".join(lines)])


def html(table: Table) -> str:
    """A table in HTML, which the page's script sorts by any column: infinite numbers last, missing ones after them."""
    escape, numeric = escaping.escape, table.numeric
    kind = [' class="number"' if number else "" for number in numeric]
    lines = [f"<table>\n<caption>{escape(' '.join([table.title, *table.notes]))}</caption>\n<thead>\n<tr>"]
    for heading, of in zip(table.headings, kind, strict=True):
        lines.append(f'<th scope="col"{of}><button type="button">{escape(heading)}</button></th>')
    lines.append("</tr>\n</thead>\n<tbody>")
    for row, texts in zip(table.rows, table.texts, strict=True):
        keys = [
            f' data-key="{_sorted_by(_share_of(value) if column.write is share else _key(value))}"' if of else ""
            for column, value, of in zip(table.columns, row, numeric, strict=True)
        ]
        cells = [f"<td{of}{key}>{escape(text)}</td>" for of, key, text in zip(kind, keys, texts, strict=True)]
        lines.append("\n".join(["<tr>", *cells, "</tr>"]))
    return "\n".join([*lines, "</tbody>\n</table>"])


def _share_of(value: tuple[int, int] | None) -> float | None:
    """By which a count of some whole is sorted."""
    return None if value is None else value[0] / value[1] if value[1] else math.nan


def _sorted_by(key: float | None) -> str:
    return "" if key is None or math.isnan(key) else repr(min(max(key, -1e300), 1e300))


def records(table: Table) -> list[dict[str, Any]]:
    """The rows as JSON has them, an object each: values under their headings, as `plain` gives them."""
    return [dict(zip(table.headings, map(plain, row), strict=True)) for row in table.rows]


def plain(value: Any) -> Any:
    """A value as JSON has it; what is undefined or infinite is None."""
    if isinstance(value, tuple):
        names = getattr(value, "_fields", None)
        parts = [plain(each) for each in value]
        return dict(zip(names, parts, strict=True)) if names else parts
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def document(value: Any) -> str:
    """Plain values as a JSON document."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def of_rows(title: str, things: Iterable[Any], columns: Sequence[Column], notes: Sequence[str] = ()) -> Table:
    """A table with a row for each of some things.

    Args:
      title: above the table; empty for none.
      things: such as a frame's rows.
      columns: each takes its value of a thing.
      notes: sentences below the table.
    """
    return Table(title, columns, [[column.of(thing) for column in columns] for thing in things], notes)


def of_frame(frame: pd.DataFrame) -> Table:
    """A data frame as it is."""
    return Table("", [Column(str(name)) for name in frame], [*frame.itertuples(index=False, name=None)])
