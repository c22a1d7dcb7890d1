"""Two results side by side: which comparison fits, its verdicts, and everything compared as data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import pandas as pd

from jaxdist import config as configs
from jaxdist import files
from jaxdist.compare import counts, means, paper, protocol, sides
from jaxdist.compare.counts import Pairs
from jaxdist.compare.protocol import Difference
from jaxdist.compare.sides import Side
from jaxdist.errors import InputError
from jaxdist.types import Params

PUBLISHED = "published"
IMAGES = 2
"""Images by which rounding in another order may move a count of 60,000."""

Mode = Literal["shared", "independent", "published"]


class Verdict(NamedTuple):
    """What was found of one family, network and split, or of all published cells."""

    what: str
    verdict: str
    """agree, differ, not shown, or cannot judge."""
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
    margin: float
    """Of the equivalence test, a fraction."""
    folder: Path | None
    """The run folder of the first side that is one."""
    stem: str
    """Side b's name, fit for a file."""

    @property
    def verdict(self) -> str:
        """Of everything together: differ if anything does, agree if everything does, else not shown."""
        found = {one.verdict for one in self.verdicts}
        return next(verdict for verdict in ("differ", "cannot judge", "not shown", "agree") if verdict in found)

    @property
    def exit_code(self) -> int:
        """0 agree, 1 differ or not shown to agree, 2 nothing to judge by, as one seed beside the published tables."""
        return {"agree": 0, "differ": 1, "not shown": 1, "cannot judge": 2}[self.verdict]

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
            "units": {"shared": "images", "independent": "fraction", "published": "fraction; loss in nats"}[self.mode],
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
    chosen = changes or {}
    options = _options(first, chosen)
    pairs, notes = _pairs(first, second)
    networks = (sides.networks(first), sides.networks(second))
    relation = sides.relate(first, second, *networks, weights)
    differences = protocol.between(first, second)
    if relation.seeds:
        mine, theirs = relation.seeds
        pairs = {key: (one.take(mine), other.take(theirs)) for key, (one, other) in pairs.items()}
        networks = (_take(networks[0], mine), _take(networks[1], theirs))
    if relation.shared:
        points = counts.points(pairs)
        notes += _agreement(points, (first, second), networks, pairs, relation, differences, chosen.get("data.dir"))
        verdicts = _count_verdicts(points, images)
    else:
        points = means.points(pairs, options)
        verdicts = _mean_verdicts(points, options)
    return Comparison(
        mode="shared" if relation.shared else "independent",
        a=first.words,
        b=second.words,
        relation=relation.words,
        protocol=differences,
        verdicts=verdicts,
        points=points,
        curves=_curves(pairs),
        notes=notes,
        images=images,
        margin=options.margin,
        folder=first.folder or second.folder,
        stem=_stem(second.name),
    )


def _take(networks: dict[str, Params], seeds: list[int]) -> dict[str, Params]:
    return jax.tree.map(lambda leaf: leaf[np.asarray(seeds)], networks)


def _with_published(side: Side, changes: Mapping[str, str]) -> Comparison:
    options = _options(side, changes)
    cells = paper.cells(side, options)
    verdict, words = paper.verdict(cells)
    absent = paper.absent(cells)
    return Comparison(
        mode="published",
        a=side.words,
        b="the published tables: 20 x relu, 20 x abs on mnist",
        relation="networks of their own seeds",
        protocol=protocol.to_published(side),
        verdicts=[Verdict("the published tables", verdict, words)],
        points=cells,
        curves=_curves({key: (one, one) for key, one in side.series().items()}),
        notes=[f"not in this run: {absent}"] if absent else [],
        images=IMAGES,
        margin=options.margin,
        folder=side.folder,
        stem=PUBLISHED,
    )


def _options(side: Side, changes: Mapping[str, str]) -> configs.StatisticsConfig:
    chosen = {key: value for key, value in changes.items() if key.startswith("statistics.")}
    return configs.override(side.config, chosen).statistics


def _curves(pairs: Pairs) -> pd.DataFrame:
    return pd.concat(
        [
            pd.DataFrame({**one.labels, "fraction": one.fraction, "a": one.accuracy.mean(axis=0)})
            for one, _ in pairs.values()
        ],
        ignore_index=True,
    )


def _stem(name: str) -> str:
    """A side's name as that of a file."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


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
    both: tuple[Side, Side],
    networks: tuple[dict[str, Params], dict[str, Params]],
    pairs: Pairs,
    relation: sides.Relation,
    differences: list[Difference],
    data_dir: str | None,
) -> list[str]:
    """Add to `points` the images given the same class, where both sides can be evaluated; else say why not."""
    what = "agreement of the classes: not evaluated"
    if relation.equal and not differences:
        return ["with equal weights and protocol, the classes are those of one network: not evaluated twice"]
    if not all({key[1] for key in pairs} <= set(of) for of in networks):
        return [f"{what}, since one side has no weights"]
    if protocol.other_images(*both):
        return [f"{what}, since the two are of other images"]
    try:
        matching = counts.same_classes(both, networks, pairs, data_dir)
    except InputError as error:
        return [f"{what} ({error})"]
    points["same_class"] = np.concatenate([matching[key].reshape(-1) for key in pairs])
    return []


def _count_verdicts(points: pd.DataFrame, images: int) -> list[Verdict]:
    verdicts = []
    for what, part in _by_series(points):
        largest, total = int(part.difference.abs().max()), int(part.total.iloc[0])
        words = f"largest difference {largest} of {total} images at {part.fraction.nunique()} points"
        if part.seed.nunique() > 1:
            words += f" of {part.seed.nunique()} networks"
        if "same_class" in part:
            words += f"; same class for at least {100 * (part.same_class / part.total).min():.3f} %"
        verdicts.append(Verdict(what, "differ" if largest > images else "agree", words))
    return verdicts


def _mean_verdicts(points: pd.DataFrame, options: configs.StatisticsConfig) -> list[Verdict]:
    verdicts = []
    for what, part in _by_series(points):
        worst = part.iloc[int(part.difference.abs().to_numpy().argmax())]
        within = f"{part.equivalent.sum()} of {len(part)} within {100 * options.margin:g}"
        words = (
            f"B - A at most {100 * worst.difference:+.2f} points, at {100 * worst.fraction:.3g} %; {within}, "
            f"all within {100 * part.smallest_margin.max():.1f}"
        )
        verdicts.append(Verdict(what, means.verdict(part, options), words))
    return verdicts


def _by_series(points: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The points of each series with its name: family, network, split, and the site where there are several."""
    many = points.site.nunique() > 1
    for (family, network, site, split), part in points.groupby(["family", "network", "site", "split"], sort=False):
        yield " ".join([str(family), str(network), *([str(site)] if many else []), str(split)]), part


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
