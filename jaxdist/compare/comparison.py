"""Two results side by side: which comparison fits, its verdicts, and everything compared as data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from jaxdist import config as configs
from jaxdist import files
from jaxdist.compare import counts, means, paper, protocol, sides
from jaxdist.compare.counts import Pairs
from jaxdist.compare.protocol import Difference
from jaxdist.compare.sides import Side
from jaxdist.errors import InputError

PUBLISHED = "published"
IMAGES = 2
"""Images by which rounding in another order may move a count of 60,000."""

Mode = Literal["shared", "independent", "published"]


class Verdict(NamedTuple):
    """What was found of one family, network and split, or of all published cells."""

    what: str
    verdict: str
    """agree, differ, or not shown."""
    words: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two results compared; `points` has a row a point, or a row a published cell."""

    mode: Mode
    a: str
    b: str
    relation: str
    protocol: list[Difference]
    verdicts: list[Verdict]
    points: pd.DataFrame
    curves: pd.DataFrame
    """Mean accuracy `a` of side a at every point of its grids, by family, network, site and split."""
    notes: list[str]
    images: int
    """Images that the counts of shared networks may differ by."""
    folder: Path | None
    """The run folder of the first side that is one."""

    @property
    def verdict(self) -> str:
        """Of everything together: differ if anything does, agree if everything does, else not shown."""
        found = {one.verdict for one in self.verdicts}
        return next(verdict for verdict in ("differ", "not shown", "agree") if verdict in found)

    @property
    def exit_code(self) -> int:
        """0 agree, 1 differ or not shown to agree, 2 nothing to judge by: a single seed beside the published tables."""
        if self.mode == "published" and self.verdict == "not shown":
            return 2
        return 0 if self.verdict == "agree" else 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; what is undefined is None."""
        return {
            "mode": self.mode,
            "a": self.a,
            "b": self.b,
            "networks": self.relation,
            "protocol_differences": [one._asdict() for one in self.protocol],
            "verdicts": [one._asdict() for one in self.verdicts],
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "notes": self.notes,
            "points": self.points.astype(object).where(np.isfinite(_numbers(self.points)), None).to_dict("records"),
        }

    def write_json(self, path: Path) -> None:
        """Write `to_dict` as JSON."""
        files.write_text(path, json.dumps(self.to_dict(), indent=1, allow_nan=False, default=_plain) + "\n")


def compare(
    a: str | Path,
    b: str | Path,
    *,
    weights: str = "auto",
    images: int = IMAGES,
    changes: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare two of: a run folder, its result file, the paper's result file, or the word ``published``.

    Networks that both sides share are compared by counts of images, which may differ by `images`; networks of their
    own seeds by means, with an equivalence test against ``statistics.margin``; a run and the published tables cell by
    cell in standard errors. `weights` (auto, shared, independent) overrides how the first two are told apart;
    `changes` overrides config fields: where the images are, margin and confidence.

    Raises:
      InputError: if a side cannot be read, or the two have nothing that can be compared.
    """
    if PUBLISHED in (str(a), str(b)):
        if str(a) == str(b):
            raise InputError("compare: both sides are 'published'; give a run folder for one of them")
        return _with_published(sides.open_side(str(b if str(a) == PUBLISHED else a)), changes or {})
    first, second = sides.open_side(str(a)), sides.open_side(str(b))
    options = _options(first, changes or {})
    pairs, notes = _pairs(first, second)
    relation = sides.relate(first, second, weights)
    differences = protocol.between(first, second)
    if relation.shared:
        points = counts.points(pairs)
        notes += _agreement(points, first, second, pairs, relation, differences, changes or {})
        verdicts = _count_verdicts(points, images)
    else:
        points = means.points(pairs, options)
        verdicts = _mean_verdicts(points, options)
    mode: Mode = "shared" if relation.shared else "independent"
    return Comparison(
        mode,
        first.name,
        second.name,
        relation.words,
        differences,
        verdicts,
        points,
        _curves(first),
        notes,
        images,
        first.folder or second.folder,
    )


def _with_published(side: Side, changes: Mapping[str, str]) -> Comparison:
    cells = paper.cells(side, _options(side, changes))
    judged = cells[cells.quantity != "loss"].z.dropna()
    near = int((judged.abs() <= paper.NEAR).sum())
    words = f"{near} of {len(judged)} accuracy cells within {paper.NEAR:g} standard errors"
    if judged.empty:
        words = "a single seed has no standard error; train two or more to judge"
    absent = [name for name in ("relu", "abs") if name not in set(cells.network)]
    notes = [f"{name} is not in this run" for name in absent]
    return Comparison(
        "published",
        side.name,
        "the published tables",
        "networks of their own seeds",
        protocol.to_published(side),
        [Verdict("the published tables", paper.verdict(cells), words)],
        cells,
        _curves(side),
        notes,
        IMAGES,
        side.folder,
    )


def _options(side: Side, changes: Mapping[str, str]) -> configs.StatisticsConfig:
    chosen = {key: value for key, value in changes.items() if key.startswith("statistics.")}
    return configs.override(side.config, chosen).statistics


def _curves(side: Side) -> pd.DataFrame:
    return pd.concat(
        [
            pd.DataFrame({**one.labels, "fraction": one.fraction, "a": one.accuracy.mean(axis=0)})
            for one in side.series().values()
        ],
        ignore_index=True,
    )


def _pairs(a: Side, b: Side) -> tuple[Pairs, list[str]]:
    """The series that both sides have, and what only one has, in words."""
    first, second = a.series(), b.series()
    pairs = {key: (one, second[key]) for key, one in first.items() if key in second}
    if not pairs:
        raise InputError(
            f"{a.name} and {b.name} have no family, network, site and split in common; "
            f"one has {_said(first)}, the other {_said(second)}"
        )
    for key, (one, other) in pairs.items():
        if one.fraction.shape != other.fraction.shape or not np.allclose(one.fraction, other.fraction, rtol=1e-9):
            raise InputError(f"{' '.join(key)}: {a.name} and {b.name} have unlike grids; sweep both at the same points")
    notes = [
        f"only in {side.name}: {_said(only)}"
        for side, only in ((a, first.keys() - pairs), (b, second.keys() - pairs))
        if only
    ]
    return pairs, notes


def _said(keys: Any) -> str:
    return ", ".join(sorted({" ".join((network, split)) + f" ({family})" for family, network, _, split in keys}))


def _agreement(
    points: pd.DataFrame,
    a: Side,
    b: Side,
    pairs: Pairs,
    relation: sides.Relation,
    differences: list[Difference],
    changes: Mapping[str, str],
) -> list[str]:
    """Add to `points` the images given the same class, where both sides can be evaluated; else say why not."""
    if relation.equal and not differences:
        return ["with equal weights and protocol, the classes are those of one network: not evaluated twice"]
    if not (a.networks and b.networks):
        return ["agreement of the classes: not evaluated, since one side has no weights"]
    try:
        matching = counts.same_classes(a, b, pairs, changes)
    except InputError as error:
        return [f"agreement of the classes: not evaluated ({error})"]
    points["same_class"] = np.concatenate([matching[key].reshape(-1) for key in pairs])
    return []


def _count_verdicts(points: pd.DataFrame, images: int) -> list[Verdict]:
    verdicts = []
    for (family, network, split), part in points.groupby(["family", "network", "split"], sort=False):
        beyond = part[part.difference.abs() > images]
        largest = int(part.difference.abs().max())
        words = f"largest difference {largest} of {part.total.iloc[0]} images at {len(part)} points"
        if "same_class" in part:
            words += f"; same class for at least {100 * (part.same_class / part.total).min():.3f} %"
        verdicts.append(Verdict(f"{family} {network} {split}", "differ" if len(beyond) else "agree", words))
    return verdicts


def _mean_verdicts(points: pd.DataFrame, options: configs.StatisticsConfig) -> list[Verdict]:
    verdicts = []
    for (family, network, split), part in points.groupby(["family", "network", "split"], sort=False):
        worst = part.iloc[int(part.difference.abs().to_numpy().argmax())]
        words = (
            f"largest difference {100 * worst.difference:+.2f} points at {100 * worst.fraction:.4g} %; "
            f"equivalent within {100 * options.margin:g} at {int(part.equivalent.sum())} of {len(part)}, "
            f"within {100 * part.smallest_margin.max():.2f} at all"
        )
        verdicts.append(Verdict(f"{family} {network} {split}", means.verdict(part, options), words))
    return verdicts


def _numbers(frame: pd.DataFrame) -> np.ndarray:
    """The frame with everything that is not a float replaced by 0, to look for values that JSON cannot hold."""
    return np.column_stack(
        [frame[name].to_numpy() if frame[name].dtype.kind == "f" else np.zeros(len(frame)) for name in frame]
    )


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not a number, text or list")
