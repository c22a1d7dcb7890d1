"""How near a run's networks are to the paper's own: a table, and a sentence for each activation."""

from __future__ import annotations

from collections.abc import Sequence

from jaxdist.analysis import Sameness
from jaxdist.formatting import counted, p_value, percent, share
from jaxdist.report import table
from jaxdist.report.table import Column, Table
from jaxdist.storage import SEEDS

TITLE = "Are they the paper's own networks?"

EXPLAINED = (
    "A published mean is matched if it rounds to the same digits. t is that of the paper's own test with three "
    "decimals, as its repository once had it; it matches within 1 %, and its difference is the median of "
    "|t / published t - 1|. The last column is the share of pairs of samples, drawn with replacement from this run's "
    "networks, whose t are as near to each other as this run's are to the paper's."
)


def tabled(same: Sequence[Sameness], title: str = TITLE) -> Table:
    """A row for each activation."""
    return table.of_rows(
        title,
        same,
        [
            Column("network"),
            Column("cells matched", share, lambda r: (r.equal, r.cells)),
            Column("one digit off", take="adjacent"),
            Column("farther", take="beyond"),
            Column("t matched", share, lambda r: (r.t_near, r.t_cells)),
            Column("difference of t, %", percent, "t_apart"),
            Column("pairs as near", p_value, "p"),
        ],
    )


def sentences(same: Sequence[Sameness]) -> list[str]:
    """What follows for each activation."""
    return [f"{each.network}: {_sentence(each)}." for each in same]


def _sentence(like: Sameness) -> str:
    if like.seeds != SEEDS:
        return f"{counted(like.seeds, 'network')} cannot be told from others by t, which are of {SEEDS} in the paper"
    if like.same:
        return "nothing tells these networks from the paper's own"
    if like.nearer and not like.beyond:
        return "the paper's own networks but for rounding: every mean is within a digit, and independent samples differ"
    if like.nearer:
        return "nearer to the paper's networks than independent samples are, so some of them may be the same"
    return "not shown to be nearer to the paper's networks than independent samples are"
