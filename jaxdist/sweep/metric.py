"""The record of a metric: a number an example, which a sweep averages at every point."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from jax import Array

Better: TypeAlias = Literal["higher", "lower", ""]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricTraits:
    """What a result keeps of a metric, so that reports need not know its record."""

    name: str
    """In tables and files: small letters, digits and underscores."""
    text: str
    """One sentence that says what it is."""
    unit: str = ""
    """Of its numbers, such as nats; empty where they have none."""
    better: Better = ""
    """Which way a network is better; empty where neither is."""
    chance: float | None = None
    """Of a network that has learned nothing, where that is known."""
    label: str = ""
    """Its heading in tables and figures; empty: its name."""

    @property
    def words(self) -> str:
        """Its heading, with its unit."""
        name = self.label or self.name.replace("_", " ").capitalize()
        return f"{name} ({self.unit})" if self.unit else name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A number an example, of the network's outputs and the labels.

    A sweep gives its mean and standard deviation over the examples at every point, and those of its difference from
    the unedited network's, example by example.
    """

    name: str
    """In tables and files: small letters, digits and underscores."""
    text: str
    """One sentence that says what it is."""
    of: Callable[..., Array | tuple[Array, Array]]
    """``of(outputs[n, C], labels[n])``: a number [n] an example; where it `compares`, ``of(outputs, labels, unedited)``
    with the unedited network's outputs [n, C]. Or a pair of numbers and weights, both [n]: means are weighted then.

    Where each token has a class, outputs are [n, T, C] and labels [n, T], -100 where a token does not count. Numbers
    may be [n, T] too, and means are over all tokens: those that count, or by weights [n, T]. Outputs of a single logit
    are [n], and those of a regression are [n] or [n, K], as its targets."""
    unit: str = ""
    """Of its numbers, such as nats; empty where they have none."""
    better: Better = ""
    """Which way a network is better; empty where neither is."""
    compares: bool = False
    """Whether it takes the unedited network's outputs too."""
    chance: Callable[[int], float] | None = None
    """Its value for a network that has learned nothing, by the number of classes, where that is known."""
    label: str = ""
    """Its heading in tables and figures; empty: its name."""

    def told(self, classes: int) -> MetricTraits:
        """What a result of so many classes keeps of it."""
        chance = None if self.chance is None or not classes else float(self.chance(classes))
        told = {field.name: getattr(self, field.name) for field in dataclasses.fields(MetricTraits)}
        return MetricTraits(**{**told, "chance": chance})


def attribute(metrics: Sequence[Metric], classes: int) -> str:
    """What a group's attribute `metrics` says of the metrics along its dimension of that name.

    `traits_of` gives it back.
    """
    return json.dumps([dataclasses.asdict(metric.told(classes)) for metric in metrics])


def traits_of(attrs: Mapping[Any, Any]) -> dict[str, MetricTraits]:
    """What a group's attributes tell of its metrics, by name; nothing where it has none."""
    return {each["name"]: MetricTraits(**each) for each in json.loads(attrs.get("metrics", "[]"))}
