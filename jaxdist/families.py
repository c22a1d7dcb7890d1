"""The families of edits by name: where nothing is edited, how fractions are spaced, and to which sides they go."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxdist.errors import InputError, nearest

PAPER = ("scale", "clip", "offset")
"""The families of the paper."""


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of edit: where on its grid nothing is edited, and the sides on which its points edit anything."""

    name: str
    identity: float
    spacing: Literal["linear", "log"] = "linear"
    sides: tuple[Literal["below", "above"], ...] = ("below", "above")
    random: bool = False


ALL = {
    family.name: family
    for family in (
        Family("scale", 1.0, "log"),
        Family("clip", 1.0, sides=("below",)),
        Family("offset", 0.0),
        Family("shift", 0.0),
        Family("random_offset", 0.0, sides=("above",), random=True),
        Family("restored_offset", 0.0),
        Family("random_scale", 0.0, sides=("above",), random=True),
        Family("noise", 0.0, sides=("above",), random=True),
        Family("floor", 0.0, sides=("above",)),
        Family("dead_zone", 0.0, sides=("above",)),
        Family("clip_both", 1.0, sides=("below",)),
    )
}


def get(name: str) -> Family:
    """Return the family of that name; raises `InputError` that names the nearest known one."""
    if name not in ALL:
        raise InputError(f"unknown family '{name}'{nearest(name, ALL)}")
    return ALL[name]
