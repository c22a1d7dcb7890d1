"""How near a run's networks are to the paper's own: a table, and a sentence for each activation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxdist.analysis import Sameness, same_networks
from jaxdist.formatting import MISSING, counted, percent, share
from jaxdist.report import table
from jaxdist.report.table import Column, Table
from jaxdist.storage import SEEDS

TITLE = "Are they the paper's own networks?"

EXPLAINED = (
    "A published mean is matched if it rounds to the same digits. t is that of the paper's own test with three "
    "decimals, as its repository once had it; it matches within 1 %, and its distance is the median of "
    "|t / published t - 1|. The last column is the share of pairs of ensembles, drawn with replacement from this run's "
    "networks, whose t are as near to each other: two samples of one distribution are about as near as that."
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
            Column("distance of t", lambda value: f"{percent(value)} %", "t_apart"),
            Column("as near by chance", _chance, "p"),
        ],
    )


def _chance(p: float) -> str:
    if math.isnan(p):
        return MISSING
    return f"< {1 / same_networks.DRAWN:.0e}" if p == 0 else f"{p:.2g}"


def sentences(same: Sequence[Sameness]) -> list[str]:
    """What follows for each activation."""
    return [f"{one.network}: {_sentence(one)}." for one in same]


def _sentence(one: Sameness) -> str:
    if one.seeds != SEEDS:
        return f"{counted(one.seeds, 'network')} cannot be the paper's {SEEDS}"
    if one.same:
        return "nothing tells these networks from the paper's own"
    if one.nearer:
        return "the paper's own networks but for rounding, since no others of their kind come as near"
    return "not shown to be nearer to the paper's own networks than others of their kind"
