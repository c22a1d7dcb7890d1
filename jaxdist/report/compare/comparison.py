"""Two results side by side: which comparison fits, its verdicts, and everything compared as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pandas as pd

from jaxdist import config as configs
from jaxdist import files
from jaxdist.analysis import Claim, Sameness, claims, paper_cells, same_networks
from jaxdist.errors import InputError
from jaxdist.report import table
from jaxdist.report.compare import counts, means, protocol, sides
from jaxdist.report.compare import pairs as pairing
from jaxdist.report.compare.pairs import ComparisonVerdict, Pairs
from jaxdist.report.compare.protocol import Difference
from jaxdist.report.compare.sides import PUBLISHED, Side
from jaxdist.storage import published
from jaxdist.types import Params

IMAGES = 2
"""Images by which rounding in another order may move a count of 60,000."""

Mode = Literal["shared", "independent", "published"]

_UNITS: dict[Mode, str] = {
    "shared": "images",
    "independent": "fraction",
    "published": "fraction; loss in nats; z, drop_z in standard errors; t, p of tests",
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two results compared; `points` has a row a point, or a row a published cell."""

    mode: Mode
    a: str
    b: str
    relation: str
    protocol: list[Difference]
    verdicts: list[ComparisonVerdict]
    points: pd.DataFrame
    curves: pd.DataFrame
    """Mean accuracy `a` of side a, with its interval over seeds from `low` to `high`, at every point of its grids, by
    family, network, site and split."""
    notes: list[str]
    images: int
    """Images that the counts of shared networks may differ by."""
    margin: float
    """Of the equivalence test, a fraction."""
    folder: Path | None
    """The run folder of the first side that is one."""
    stem: str
    """Side b's name, fit for a file."""
    same: list[Sameness] = dataclasses.field(default_factory=list)
    """Beside the published tables, how near each activation's networks are to the paper's own."""
    claims: list[Claim] = dataclasses.field(default_factory=list)
    """Beside the published tables, what becomes of the paper's sentences."""

    @property
    def verdict(self) -> str:
        """Of everything together: differ if anything does, agree if everything does, else not shown."""
        answers = {verdict.verdict for verdict in self.verdicts}
        return next(verdict for verdict in ("differ", "cannot judge", "not shown", "agree") if verdict in answers)

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
            "protocol_differences": [difference._asdict() for difference in self.protocol],
            "verdicts": [verdict._asdict() for verdict in self.verdicts],
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "notes": self.notes,
            "units": _UNITS[self.mode],
            "same_networks": [{**table.plain(one), "same": one.same} for one in self.same],
            "claims": [claim._asdict() for claim in self.claims],
            "points": table.records(table.of_frame(self.points)),
        }

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return table.document(self.to_dict())


def compare(
    a: str | Path,
    b: str | Path,
    *,
    weights: str = "auto",
    images: int = IMAGES,
    changes: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare two results, in the way that fits them.

    Networks that both sides share are compared by counts of images; networks of their own seeds by means, with an
    equivalence test against ``statistics.margin``; a run and the published tables cell by cell in standard errors.

    Args:
      a, b: each a run folder, its result file, the paper's result file, or, of one, the word ``published``.
      weights: which of the first two ways: auto to find out by the weights, shared or independent to say so.
      images: by how many the counts of shared networks may differ.
      changes: config fields to override: where the images are, margin and confidence.

    Raises:
      InputError: if a side cannot be read, or the two have nothing that can be compared.
    """
    if PUBLISHED in (str(a), str(b)):
        if str(a) == str(b):
            raise InputError("compare: both sides are 'published'; use a run folder for one of them")
        return _with_published(sides.open_side(str(b if str(a) == PUBLISHED else a)), changes or {})
    first, second = sides.open_side(str(a)), sides.open_side(str(b))
    chosen = changes or {}
    options = _options(first, chosen)
    pairs, notes = pairing.match(first, second)
    networks = (sides.networks(first), sides.networks(second))
    pairs = {key: (first.finite(series), second.finite(other)) for key, (series, other) in pairs.items()}
    relation = sides.relate(first, second, *networks, weights)
    differences = protocol.between(first, second)
    notes = protocol.on_other_images(first, second) + sides.fitness_notes(first, second) + notes
    if relation.seeds:
        mine, theirs = relation.seeds
        pairs = {key: (series.take(mine), other.take(theirs)) for key, (series, other) in pairs.items()}
        networks = (_take(networks[0], mine), _take(networks[1], theirs))
    if relation.shared:
        points = counts.points(pairs)
        notes += _agreement(points, (first, second), networks, pairs, relation, differences, chosen.get("data.dir"))
        verdicts = counts.verdicts(points, images)
    else:
        pairs = {key: (series.judged, other.judged) for key, (series, other) in pairs.items()}
        points = means.points(pairs, options)
        verdicts = means.verdicts(points, options)
        notes += means.cautions(points)
    return Comparison(
        mode="shared" if relation.shared else "independent",
        a=first.words,
        b=second.words,
        relation=relation.words,
        protocol=differences,
        verdicts=verdicts,
        points=points,
        curves=pairing.curves((series for series, _ in pairs.values()), options.confidence),
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
    cells = paper_cells.cells(side.result, options, name=side.name)
    verdict, words = paper_cells.verdict(cells)
    absent = paper_cells.absent(cells)
    return Comparison(
        mode="published",
        a=side.words,
        b=f"the published tables: {published.SEEDS} x relu, {published.SEEDS} x abs on mnist",
        relation="networks of their own seeds",
        protocol=protocol.to_published(side),
        verdicts=[ComparisonVerdict("the published tables", verdict, words)],
        points=cells,
        curves=pairing.curves([series.judged for series in side.series().values()], options.confidence),
        notes=protocol.on_other_images_than_published(side)
        + sides.fitness_notes(side)
        + ([f"not in this run, or at chance: {absent}"] if absent else []),
        images=IMAGES,
        margin=options.margin,
        folder=side.folder,
        stem=PUBLISHED,
        same=same_networks.compare(cells, paper_cells.to_baseline(side.result)),
        claims=claims.judge(side.result, options),
    )


def _options(side: Side, changes: Mapping[str, str]) -> configs.StatisticsConfig:
    chosen = {key: value for key, value in changes.items() if key.startswith("statistics.")}
    return configs.override(side.config, chosen).statistics


def _stem(name: str) -> str:
    """A side's name as that of a file."""
    return next(iter(files.parts(["".join(c if c.isalnum() or c in "-_." else "_" for c in name)]).values()))


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
    unknown = {key: np.full(series.correct.shape, np.nan) for key, (series, _) in pairs.items() if key not in matching}
    agreements = matching | unknown
    points["same_class"] = np.concatenate([agreements[key].reshape(-1) for key in pairs])
    skipped = list(dict.fromkeys(key[0] for key in unknown))
    return [f"{what} for {', '.join(skipped)}, which are not single affine edits of a site"] if skipped else []
