"""Words that several places share: numbers with their nouns, and what small samples allow."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from jaxdist import formatting
from jaxdist.analysis import tables
from jaxdist.config import StatisticsConfig
from jaxdist.report import summary
from tests import results_support
from tests.page_support import ROOT

NUMBERED = re.compile(
    r" (?:(?!the )[a-z]+ )?(?:seeds|networks|units|images|points|steps|files|runs|parts|cells|labels|inputs|examples|"
    r"axes|classes|values|processes|devices|jobs|arrays|updates|bytes|dimensions|pictures|layers|sites|entries|kills|waves)\b"
)
SAYS_NO_NUMBER = re.compile(
    r"split|where|theirs|level|percent|shortened|[A-Z_]{3,}|name|what|kind|its|other|data_dir|folder|doing|dtype|join|margin$"
)
"""Expressions in front of a noun that give a word, a fixed number above 1, or a number with decimals."""


@pytest.mark.parametrize(
    ("count", "singular"),
    [
        *((0, False), (1, True), (2, False), (-2, False), (np.int64(1), True), (np.int32(11), False)),
        *(("1", True), ("+1", True), ("-1", True), ("1.0", False), ("1,001", False)),
    ],
)
@pytest.mark.parametrize(("noun", "plural"), [("dead unit", None), ("class", "classes"), ("axis", "axes")])
def test_a_number_stands_with_its_noun(count, singular, noun, plural):
    expected = noun if singular else plural or f"{noun}s"
    assert formatting.counted(count, noun, plural) == f"{count} {expected}"


def numbered(path: Path):
    """The places of a file's f-strings where something is followed by a noun in the plural."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for value, after in zip(getattr(node, "values", []), getattr(node, "values", [])[1:], strict=False):
            # All of several seeds are said to be so by `formatting.all_seeds` alone.
            if path.name == "formatting.py" or not isinstance(node, ast.JoinedStr):
                continue
            if not isinstance(value, ast.FormattedValue):
                continue
            if value.format_spec is not None and "f" in ast.unparse(value.format_spec):
                continue  # decimals have a plural
            written = ast.unparse(value.value)
            if isinstance(after, ast.Constant) and NUMBERED.match(str(after.value)):
                yield f"{path.name}, line {value.lineno}: {{{written}}}{after.value[:24]}"


def test_no_number_stands_before_a_plural_of_its_own():
    places = {
        place
        for folder in ("jaxdist", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for place in numbered(path)
        if not SAYS_NO_NUMBER.search(place.partition("{")[2].partition("}")[0])
    }
    assert not places


@pytest.mark.parametrize(
    ("dead", "seeds", "said"),
    [
        (1, 2, "relu: 1 dead unit in 1 of 2 networks; such are left as they are"),
        (2, 2, "relu: 2 dead units in 1 of 2 networks, left as they are"),
        (1, 1, "relu: 1 dead unit in 1 of 1 network; such are left as they are"),
        (0, 2, None),
    ],
)
def test_dead_units_are_counted(dead, seeds, said):
    result = results_support.made_up(networks=("relu",), seeds=seeds)
    flags = result["ranges"].dead.to_numpy()
    flags[:] = False
    flags[0, 0, 0, :dead] = True
    assert summary._dead_notes(result) == ([said] if said else [])


def test_the_median_of_one_seed_is_of_one():
    for seeds, said in ((1, "Median of 1 seed "), (2, "Median of 2 seeds ")):
        reach = tables.tolerance(results_support.made_up(seeds=seeds, kept=False), StatisticsConfig())
        assert summary.interval_words(reach, StatisticsConfig()).startswith(said)
