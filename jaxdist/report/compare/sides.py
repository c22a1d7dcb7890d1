"""The two things that are compared, each with its result, its protocol and, where they are known, its networks."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from jaxdist import files
from jaxdist.analysis import Series, every_series
from jaxdist.config import Config
from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.storage import folders, load, result_files, transfer
from jaxdist.sweep import fitness, results
from jaxdist.types import Params

PUBLISHED = "published"
"""In the place of a side, the paper's tables."""

SeriesKey = tuple[str, str, str, str]
"""Family, network, site and split of a series."""


class Side(NamedTuple):
    """One side of a comparison."""

    name: str
    folder: Path | None
    """Its run folder, if it is one."""
    result: xr.DataTree
    config: Config
    origin: dict[str, Any]
    """Where imported networks or results came from; empty for a run of jaxdist's own."""

    def series(self) -> dict[SeriesKey, Series]:
        """Every series by family, network, site and split."""
        return {(s.family, s.network, s.site, s.split): s for s in every_series(self.result)}

    @property
    def unfit(self) -> np.ndarray:
        """The numbers of the seeds that are not finite in some network, and so are in no series of it."""
        if fitness.GROUP not in self.result.children:
            return np.zeros(0, int)
        measured = self.result[fitness.GROUP].to_dataset()
        return measured.seed.to_numpy()[fitness.not_finite(measured).any("network").to_numpy()]

    def finite(self, one: Series) -> Series:
        """A series without seeds that any network lacks, as `networks` has the parameters."""
        return one.take(np.flatnonzero(~np.isin(one.seeds, self.unfit)).tolist()) if len(self.unfit) else one

    @property
    def digest(self) -> str:
        """Of the images; empty if they are not known."""
        return str(self.result.attrs["data_digest"])

    @property
    def words(self) -> str:
        """Name, networks and images, for a person."""
        counts = {series.network: len(series.seeds) for series in self.series().values()}
        networks = ", ".join(f"{count} x {network}" for network, count in counts.items())
        return f"{self.name}: {networks} on {self.config.data.name}"


def open_side(text: str) -> Side:
    """Open a run folder, a result file, or the paper's result file.

    Raises:
      InputError: if it is none of these, or holds no sweep.
    """
    path = files.expanded(text)
    if not path.exists() and difflib.get_close_matches(text, [PUBLISHED]):
        raise InputError(f"{text}: no such run folder or result file; did you mean '{PUBLISHED}'?")
    result = load(path)
    if not results.families_of(result):
        raise InputError(f"{path}: not swept yet, so there is nothing to compare; run 'jaxdist sweep {path}' first")
    origin = json.loads(result.attrs.get("origin", "{}"))
    folder = folders.of(path)
    is_run = origin.get("kind") != "paper-result" and (folder / "weights").is_dir()
    name = path.resolve().parent.name if path.name == result_files.FILE else path.resolve().name
    return Side(name, folder if is_run else None, result, results.config_of(result), origin)


def networks(side: Side) -> dict[str, Params]:
    """The stacked parameters behind a side's results, by activation; empty where they are not known.

    Without seeds that are not finite in some network. Those of the paper's result file are read from the tree it lies
    in, as far as that has one for every run.

    Raises:
      InputError: if a run folder's weights are missing or broken.
    """
    if side.folder:
        fit = ~np.isin(results.seeds_of(side.result), side.unfit)
        return jax.tree.map(lambda leaf: leaf[fit], folders.load_networks(side.config, side.folder))
    by_activation: dict[str, Params] = {}
    models = side.origin.get("models")
    counts = {series.network: len(series.seeds) for series in side.series().values()}
    for name in side.config.model.activations if models else ():
        try:
            params = transfer.read_networks(Path(str(models)), {"model.activations": name}).networks[name]
        except InputError:
            # Without readable networks the results are still there to compare.
            continue
        if len(params["dense0"]["weight"]) == counts.get(name):
            by_activation[name] = params
    return by_activation


class Relation(NamedTuple):
    """How the networks of two sides are related."""

    shared: bool
    words: str
    equal: bool = False
    """Their weights are known to be equal bit for bit."""
    seeds: tuple[list[int], list[int]] | None = None
    """The positions of the seeds that both hold, where they do not hold the same ones."""


_OWN = Relation(False, "networks of their own seeds")
_CLOSE = 0.1
"""Networks nearer than this are meant to be the same: those of other seeds are about 1.4 times their norm away."""


def relate(a: Side, b: Side, first: dict[str, Params], second: dict[str, Params], asked: str) -> Relation:
    """Say whether two sides hold the same networks, by their weights where both are known.

    Without weights on one side, imported networks are taken for those of the paper's result file.

    Args:
      a, b: the sides.
      first, second: their stacked parameters by activation, as `networks` reads them.
      asked: shared or independent to say so, auto to find out.

    Raises:
      InputError: if what is asked contradicts the weights.
    """
    both = [name for name in first if name in second]
    if not both:
        imported = {a.origin.get("kind"), b.origin.get("kind")} == {"paper-tree", "paper-result"}
        if asked == "shared" or (asked == "auto" and imported):
            return Relation(True, "taken for the same networks; one side has no weights to check that with")
        return _OWN
    common = _common_seeds(first, second, both)
    apart = _distance(first, second, both)
    # A few weights that were changed leave most of them equal; a network trained on elsewhere stays near.
    same = apart is not None and (apart.distance < _CLOSE or apart.equal > 0.5)
    if asked == "independent" and (same or common[0]):
        raise InputError(
            f"{a.name} and {b.name} hold some of the same networks, so they are not independent; leave out --weights"
        )
    if asked == "shared" and apart is None and not common[0]:
        raise InputError(
            f"{a.name} and {b.name} have networks of different shapes, so they cannot share them; leave out --weights"
        )
    if apart is not None and (same or asked == "shared"):
        if apart.distance == 0:
            return Relation(True, "the same networks, weights equal bit for bit", equal=True)
        same_start = "the same seeds, trained differently"
        words = same_start if _trained_differently(a, b) else "the same networks, but their weights are not equal"
        return Relation(True, f"{words}: {apart.where}")
    if common[0]:
        count = len(common[0])
        return Relation(
            True, f"{counted(count, 'seed')} in common, equal bit for bit; the others are left out", True, common
        )
    return _OWN


def _trained_differently(a: Side, b: Side) -> bool:
    """Whether both sides trained the same seeds from the same start here, by other means or on other data."""

    def start(side: Side) -> tuple[Any, ...]:
        model = side.config.model
        # The weights of the paper's code are drawn from its own seed.
        seed = None if model.from_paper else side.config.train.seed
        return seed, model.hidden, model.init, results.seeds_of(side.result)

    def training(side: Side) -> tuple[Any, ...]:
        train, images = side.config.train, side.config.data
        scaling = images.normalisation, images.mean, images.sd
        return train.steps, train.optimizer, train.learning_rate, scaling, side.digest

    return not a.origin and not b.origin and start(a) == start(b) and training(a) != training(b)


def _common_seeds(first: dict[str, Params], second: dict[str, Params], both: list[str]) -> tuple[list[int], list[int]]:
    """Positions of the seeds whose networks are equal bit for bit, of every activation."""

    def prints(of: dict[str, Params]) -> list[bytes]:
        count = min(len(of[name]["dense0"]["weight"]) for name in both)
        return [
            b"".join(np.asarray(leaf[s]).tobytes() for name in both for leaf in jax.tree.leaves(of[name]))
            for s in range(count)
        ]

    places = {print_: s for s, print_ in enumerate(prints(second))}
    pairs = [(s, places[print_]) for s, print_ in enumerate(prints(first)) if print_ in places]
    return [position for position, _ in pairs], [other for _, other in pairs]


class _Distance(NamedTuple):
    distance: float  # norm of the difference of all weights over the norm of the first side's
    equal: float  # share of the weights that are equal bit for bit
    where: str  # the tensor that differs most


def _distance(first: dict[str, Params], second: dict[str, Params], both: list[str]) -> _Distance | None:
    """How far two ensembles are apart, seed by seed; None if their shapes differ."""
    square, norm, equal, size, worst, where = 0.0, 0.0, 0, 0, 0.0, ""
    for network in both:
        leaves, others = (jax.tree_util.tree_leaves_with_path(of[network]) for of in (first, second))
        if [(key, leaf.shape) for key, leaf in leaves] != [(key, leaf.shape) for key, leaf in others]:
            return None
        for (key, tensor), (_, other) in zip(leaves, others, strict=True):
            apart = np.abs(np.asarray(tensor, np.float64) - np.asarray(other, np.float64))
            square, norm = square + float((apart**2).sum()), norm + float((np.asarray(tensor, np.float64) ** 2).sum())
            equal, size = equal + int((apart == 0).sum()), size + apart.size
            relative = float(np.linalg.norm(apart)) / max(float(np.linalg.norm(tensor)), 1e-30)
            if relative > worst:
                seed, *index = (int(i) for i in np.unravel_index(apart.argmax(), apart.shape))
                values = f"{tensor[(seed, *index)]:.6g} and {other[(seed, *index)]:.6g}"
                name = jax.tree_util.keystr(key, simple=True, separator=".")
                count = f"{int((apart != 0).sum())} of {apart.size} in {network} {name}"
                worst, where = relative, f"{count}, most at seed {seed} {index} ({values})"
    return _Distance((square / max(norm, 1e-30)) ** 0.5, equal / max(size, 1), where)


def fitness_notes(*sides: Side) -> list[str]:
    """What has to be known of networks of either side that are not finite or at chance."""
    return [f"{side.name}: {note}" for side in sides for note in fitness.notes(side.result)]
