"""The paper's sentences beside its own tables and a run, as Markdown, and their verdicts for the terminal."""

from __future__ import annotations

from jaxdist.formatting import percent
from jaxdist.report import table
from jaxdist.report.compare.comparison import Comparison
from jaxdist.report.table import Column, Table

WHAT = (Column("networks", take="network"), Column("claim"))
VERDICT = Column("verdict")


def markdown(comparison: Comparison) -> str:
    """The whole document."""
    return table.markdown(
        "# The paper's sentences",
        f"What arXiv:2411.17932 says of its networks, what its own tables print, and {comparison.a}, on training "
        f"images. That accuracy is kept is a test against a margin of {percent(comparison.margin)} points at every "
        "point of the range; intervals are over seeds. Predictions are those that change, right or wrong.",
        table.of_rows(
            "",
            comparison.claims,
            [*WHAT, Column("the paper's tables", take="paper"), Column("this run", take="measured"), VERDICT],
        ),
    )


def short(comparison: Comparison) -> Table:
    """Each sentence with its verdict."""
    return table.of_rows("The paper's sentences, of this run", comparison.claims, [*WHAT, VERDICT])
