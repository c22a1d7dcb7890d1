"""What is told and drawn of a family of edits: the part of its record that needs no JAX, and that a result keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

Side: TypeAlias = Literal["below", "above"]
Spacing: TypeAlias = Literal["linear", "log"]
Unit: TypeAlias = Literal["range", "value", "way", "own"]
Effect: TypeAlias = Literal["small", "large", "control", "moved", "scale", "other"]
Dash: TypeAlias = Literal["solid", "dashed", "mixed", "dotted"]

SIDES: tuple[Side, ...] = ("below", "above")
_STORED_AS = {"identity": "nominal_identity"}
"""Fields that are other attributes: a group's `identity` is where it edited nothing as it was measured."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traits:
    """What reports know of a family: names and looks, and which way its fractions go."""

    name: str
    """Of the group of a result and in tables: small letters, digits and underscores."""
    text: str
    """One sentence that says what it does."""
    below: str = ""
    """What it does below no edit, in at most 16 letters; empty if it edits nothing there."""
    above: str = ""
    """The same above no edit."""
    identity: float = 0.0
    """The fraction at which it edits nothing."""
    spacing: Spacing = "linear"
    """How its grid's points lie, and how positions between them are found."""
    unit: Unit = "range"
    """What its fractions are of: the range of each unit, the value itself, the way to another value, or something of
    its own, which its sentence tells."""
    label: str = ""
    """What its line is called in figures; empty: its name."""
    axis: str = ""
    """What an axis of its fractions says; empty: its name and unit."""
    effect: Effect = "other"
    """What it erases or moves, which gives its line's colour; 'scale' is one scale common to all units, which has no
    dose, and 'control' is random."""
    dash: Dash = "solid"
    """Its line among those of its effect."""
    compared_at: tuple[float, ...] = ()
    """Fractions at which the table of gauges compares them."""

    @property
    def sides(self) -> tuple[Side, ...]:
        """Where from the identity its points edit anything; above 1, a clip does not."""
        return tuple(side for side in SIDES if getattr(self, side))

    def outward(self, side: str) -> str:
        """What it does on a side of no edit."""
        return str({"below": self.below, "above": self.above}[side])

    @property
    def words(self) -> str:
        """Its name as text."""
        return self.name.replace("_", " ")

    @property
    def percent(self) -> str:
        """What percent of its fractions are."""
        return {"range": "% of range", "value": "% of value", "way": "% of the way", "own": "p in %"}[self.unit]

    @property
    def axis_label(self) -> str:
        """What an axis of its fractions, in percent, says."""
        return self.axis or f"{self.words.capitalize()} ({self.percent})"


def attributes(traits: Traits) -> dict[str, Any]:
    """The attributes of a family's group; `read` gives the traits back."""
    fields = {field.name: getattr(traits, field.name) for field in dataclasses.fields(Traits)}
    return {
        _STORED_AS.get(name, name): list(value) if isinstance(value, tuple) else value
        for name, value in fields.items()
        if value not in ("", ())
    }


def read(attrs: Mapping[Any, Any], group: str) -> Traits | None:
    """The traits that the attributes of a family's group tell, None of other groups and those of older results."""
    if not is_told(attrs, group):
        return None
    told: dict[str, Any] = {}
    for field in dataclasses.fields(Traits):
        key = _STORED_AS.get(field.name, field.name)
        if key in attrs:
            value = attrs[key]
            kind = type(field.default) if field.default is not dataclasses.MISSING else str
            told[field.name] = tuple(map(float, np.atleast_1d(value))) if kind is tuple else kind(value)
    return Traits(**told)


def is_told(attrs: Mapping[Any, Any], group: str) -> bool:
    """Whether a group is a family's, and its attributes tell of it; those of gauges tell of the same."""
    return attrs.get("name") == group and "nominal_identity" in attrs
