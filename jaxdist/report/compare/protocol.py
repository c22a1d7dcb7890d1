"""Where the protocols of two sides differ."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxdist import config as configs
from jaxdist.config import Config
from jaxdist.report.compare.sides import Side
from jaxdist.storage import published, sources
from jaxdist.sweep import results

FIELDS = (
    "data.name",
    "data.normalisation",
    "data.mean",
    "data.sd",
    "model.hidden",
    *sources.HISTORY,
    "ranges.measured_on",
    "ranges.rule",
    "ranges.quantile",
    "ranges.deviations",
    "sweep.clip_formula",
    "sweep.offset_formula",
    "sweep.dead_units",
    "sweep.draws",
    "compute.precision",
)


class Difference(NamedTuple):
    """One field of the protocols that is not the same, as text."""

    field: str
    a: str
    b: str


def between(a: Side, b: Side) -> list[Difference]:
    """What differs between two results' protocols; fields that a side does not know are said to be so."""
    differences = _fields(a.config, b.config, _unknown(a), _unknown(b))
    if other_images(a, b):
        differences.append(Difference("images (digest)", a.digest[:16], b.digest[:16]))
    return differences


def other_images(a: Side, b: Side) -> bool:
    """Whether both sides' images are known, and not the same."""
    return results.UNKNOWN_DATA not in (a.digest, b.digest) and a.digest != b.digest


def on_other_images(a: Side, b: Side) -> list[str]:
    """A note where two results are of different images, by their digests or, where one is not known, their names."""
    names = a.config.data.name, b.config.data.name
    if results.UNKNOWN_DATA in (a.digest, b.digest):
        return _other_images(*names) if names[0] != names[1] else []
    if a.digest == b.digest:
        return []
    same_name = names[0] == names[1]
    return _other_images(*(f"{n} {s.digest[:8]}" if same_name else n for n, s in zip(names, (a, b), strict=True)))


def on_other_images_than_published(a: Side) -> list[str]:
    """The same note beside the published tables, which are of MNIST."""
    names = a.config.data.name, published.PROTOCOL.data.name
    return _other_images(*names) if names[0] != names[1] else []


def _other_images(a: str, b: str) -> list[str]:
    return [f"on different images ({a}, {b}): this compares experiments, not networks"]


def to_published(a: Side) -> list[Difference]:
    """What differs between a run's protocol and the paper's, as its code runs it.

    Weights that this code draws on a CPU or a GPU are no difference: they are of the same distribution.
    """
    differences = _fields(a.config, published.PROTOCOL, _unknown(a), ())
    return [each for each in differences if each.field != "model.init" or not a.config.model.from_paper]


def _unknown(side: Side) -> tuple[str, ...]:
    """Config fields that say nothing here, since the networks or results came without that part of their history."""
    return tuple(side.origin.get("unknown", ()))


def _fields(a: Config, b: Config, unknown_a: tuple[str, ...], unknown_b: tuple[str, ...]) -> list[Difference]:
    differences = []
    for field in FIELDS:
        said = [
            "not known" if field in unknown else _say(config, field)
            for config, unknown in ((a, unknown_a), (b, unknown_b))
        ]
        if said[0] != said[1]:
            differences.append(Difference(field, *said))
    return differences


def _say(config: Config, field: str) -> str:
    section, name = field.split(".")
    value: Any = configs.to_dict(config)[section].get(name, "unset")
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
