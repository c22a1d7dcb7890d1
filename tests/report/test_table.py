"""One table in its four renderings: the same values everywhere, and what each syntax asks for."""

from __future__ import annotations

import html.parser
import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from jaxdist.formatting import MISSING, interval, loss, number, p_value, percent, share
from jaxdist.report import table
from jaxdist.report.table import Column, Otherwise, Radius, Table

NAN, INF = math.nan, math.inf
GIVEN = Table(
    "What is lost",
    [
        Column("edit"),
        Column("drop", interval),
        Column("p (Holm)", p_value),
        Column("accuracy", percent),
        Column("seeds"),
    ],
    [
        ["clipped at", (0.1503, 0.14, 0.16), 4.5e-19, 0.9833, 6],
        ["offset | up", (0.02, NAN, NAN), NAN, Otherwise(0.0698, loss), 2],
        ["<b>[b]", (NAN, NAN, NAN), 1.0, None, 1],
    ],
    ["Drops are in points."],
)
EXPECTED = [
    ["edit", "drop", "p (Holm)", "accuracy", "seeds"],
    ["clipped at", "15.03 [14.00, 16.00]", "4.5e-19", "98.33", "6"],
    ["offset | up", "2.00", MISSING, "0.0698", "2"],
    ["<b>[b]", MISSING, "1", MISSING, "1"],
]


def printed(given, width=table.WIDTH, **how):
    console = Console(width=width, file=io.StringIO(), legacy_windows=False)
    console.print(table.terminal(given, width, **how))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def cells(line):
    """The cells of a line of Markdown."""
    return [cell.replace("\\|", "|").strip() for cell in line.strip("|").replace("\\|", "\0").split("|")]


class Read(html.parser.HTMLParser):
    """What a browser would find in a table."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.keys, self.kinds, self.caption, self.inside = [], [], [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.inside = "td" if tag in ("td", "th") else self.inside if tag == "button" else tag
        if tag == "tr":
            self.rows.append([])
            self.keys.append([])
            self.kinds.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.keys[-1].append(dict(attrs).get("data-key"))
            self.kinds[-1].append(dict(attrs).get("class"))

    def handle_endtag(self, tag):
        self.inside = "" if tag in ("td", "th", "caption") else self.inside

    def handle_data(self, data):
        if self.inside == "td":
            self.rows[-1][-1] += data
        elif self.inside == "caption":
            self.caption += data


def test_all_renderings_say_the_same_of_every_value():
    lines = [line for line in table.markdown(GIVEN).splitlines() if line.startswith("| ")]
    assert [[cell.replace("\0", "|") for cell in cells(line)] for line in lines] == EXPECTED
    assert Read(table.html(GIVEN)).rows == EXPECTED
    text = "\n".join(printed(GIVEN))
    for row in EXPECTED:
        for cell in row:
            assert cell in text


def test_titles_and_notes_stand_where_each_syntax_has_them():
    assert table.markdown("# Whole", GIVEN).startswith("# Whole\n\n## What is lost\n\nDrops are in points.\n\n| edit")
    assert Read(table.html(GIVEN)).caption == "What is lost Drops are in points."
    lines = printed(GIVEN)
    assert (lines[0], lines[-1]) == ("What is lost", "Drops are in points.")
    assert table.markdown(GIVEN._replace(title="", notes=())).startswith("| edit")


def test_markdown_columns_are_as_wide_as_their_widest_cell():
    lines = table.markdown(GIVEN._replace(title="", notes=())).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert set(lines[1]) == set("|:-")


def test_html_is_sorted_by_numbers_with_what_is_missing_last():
    read = Read(table.html(GIVEN))
    assert read.keys[1] == [None, "0.1503", "4.5e-19", "0.9833", "6.0"]
    assert read.keys[2] == [None, "0.02", "", "0.0698", "2.0"]
    assert read.keys[3] == [None, "", "1.0", "", "1.0"]
    assert read.kinds[0] == [None, "number", "number", "number", "number"]
    ends = Table("", [Column("")], [[Radius(INF, NAN, NAN, 9, "above")], [Radius(-INF, NAN, NAN, -2, "below")]])
    assert [keys for keys in Read(table.html(ends)).keys if keys != [None]] == [["1e+300"], ["-1e+300"]]


def test_shares_are_sorted_by_what_they_are_of():
    shares = Table("", [Column("to end of grid", share)], [[(7, 20)], [(6, 6)], [(0, 0)]])
    assert [keys for keys in Read(table.html(shares)).keys if keys != [None]] == [["0.35"], ["1.0"], [""]]


def test_nothing_in_a_value_is_syntax():
    text = table.html(GIVEN._replace(title="<i>", columns=[Column("<u>"), *GIVEN.columns[1:]]))
    assert not any(tag in text for tag in ("<b>", "<i>", "<u>"))
    assert "<b>[b]" in "\n".join(printed(GIVEN))
    assert table.markdown(GIVEN).count("offset \\| up") == 1


def test_numbers_stand_at_the_right_of_a_terminal_and_words_at_the_left():
    given = Table("", [Column("word"), Column("number", number)], [["a", 1.0], ["longer", 22.5]])
    rows = [line for line in printed(given, 30) if "." in line]
    assert [row.index("a") if "a" in row else row.index("longer") for row in rows] == [1, 1]
    assert len({len(row) for row in rows}) == 1


@pytest.mark.parametrize(("width", "whole"), [(80, [True, True]), (60, [True, False]), (44, [False, False])])
def test_words_give_way_where_a_terminal_is_narrow_the_last_column_first(width, whole):
    columns = [Column("run", least=8), Column("network", least=6), Column("accuracy", percent)]
    names = ["runs/with_a_very_long_name_of_a_folder", "a_network_with_a_long_name"]
    lines = printed(Table("", columns, [[*names, 0.9876]]), width)
    assert max(map(len, lines)) <= width
    (row,) = (line.split() for line in lines if "98.76" in line)
    assert [word == name for word, name in zip(row, names, strict=False)] == whole
    assert all("…" in word for word, kept in zip(row, whole, strict=False) if not kept)


def test_a_row_of_one_value_heads_those_below():
    given = Table(
        "", [Column("", least=8), Column("size", number)], [["a" * 60], ["  small", 1.0], ["b"], ["  large", 2.0]]
    )
    lines = printed(given, 40, framed=True)
    (head,) = (line for line in lines if "aaa" in line)
    assert "…" in head
    assert max(map(len, lines)) <= 40
    assert sum(line.startswith("├") for line in lines) == 1


def test_several_lines_in_a_cell_stand_below_each_other():
    given = Table("", [Column("run"), Column("test", percent)], [["a", [0.9, None]], ["b", [0.25, 1.0]]])
    lines = [line.split() for line in printed(given, 40) if line.strip()][2:]
    assert lines == [["a", "90.00"], [MISSING], ["b", "25.00"], ["100.00"]]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Radius(0.0492, 0.03, 0.07, 9, "above"), "4.92 % [3, 7]"),
        (Radius(INF, 1.5, INF, 9, "above"), "> 900 % [150, > 900]"),
        (Radius(-INF, -INF, -0.5, -2, "below"), "< -200 % [< -200, -50]"),
        (Radius(INF, INF, INF, 9, "above"), "> 900 %"),
        (Radius(0.1, NAN, NAN, 9, "above"), "10 %"),
        (Radius(NAN, NAN, NAN, 9, "above"), MISSING),
    ],
)
def test_a_radius_says_its_interval_and_where_the_grid_ends(value, text):
    assert str(value) == text


def test_json_has_plain_values_and_null_where_there_is_none():
    frame = pd.DataFrame({"network": ["relu"], "p": [4.512345e-19], "radius": [INF], "seeds": np.array([6], np.int32)})
    rows = table.records(table.of_frame(frame))
    assert rows == [{"network": "relu", "p": 4.512345e-19, "radius": None, "seeds": 6}]
    assert json.loads(table.document(rows)) == rows
    assert table.plain((0.5, NAN, np.float32(1))) == [0.5, None, 1.0]
    radius = {"median": 0.5, "low": None, "high": None, "grid_end": 9, "side": "above"}
    assert table.plain(Radius(0.5, NAN, INF, 9, "above")) == radius
    assert table.records(table.of_frame(frame.iloc[:0])) == []


def test_columns_take_what_they_need_of_each_row():
    frame = pd.DataFrame({"family": ["clip", "offset"], "flips": [0.1, 0.2]})
    columns = [Column("family"), Column("flipped", percent, "flips"), Column("kept", percent, lambda r: 1 - r.flips)]
    made = table.of_rows("Flips", frame.itertuples(), [*columns, Column("bits", take="flips.real")])
    assert made.texts == [["clip", "10.00", "90.00", "0.1"], ["offset", "20.00", "80.00", "0.2"]]
    assert made.numeric == [False, True, True, True]
