"""Targets: what an edit is made at, a site, or several that are edited together at the same fraction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from jaxdist.errors import InputError

Targets: TypeAlias = Mapping[str, tuple[str, ...]]
"""The sites that are edited together, by the name of the target."""

ALL = "all"
"""The target, in the place of a site, that edits all sites together."""


def targets_of(sites: Sequence[str], layers: str) -> dict[str, tuple[str, ...]]:
    """The targets of these sites: each by itself, all of several together, or both.

    Raises:
      InputError: for a site given twice, or one with the name of all together.

    >>> list(targets_of(["dense0/pre", "dense1/pre"], "both"))
    ['dense0/pre', 'dense1/pre', 'all']
    """
    for site in sites:
        if sites.count(site) > 1 or (site == ALL and len(sites) > 1):
            problem = "is the name for all sites together" if site == ALL else "is named twice"
            raise InputError(f"sites: '{site}' {problem}; name each site once, by a name of its own")
    each: dict[str, tuple[str, ...]] = {site: (site,) for site in sites}
    together = {ALL: tuple(sites)} if len(sites) > 1 else each
    return {"each": each, "all": together, "both": {**each, **together}}[layers]
