"""What a result holds of one network's ensemble under one family: counts of images, and what follows from them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from jaxdist.analysis import one_network
from jaxdist.perturbations import Traits
from jaxdist.sweep import Chance, crossings, fitness, results


class Series(NamedTuple):
    """One network's ensemble at one site on one split, under one family."""

    traits: Traits
    network: str
    site: str
    split: str
    identity: float | None  # the fraction at which nothing is edited, if there is one
    seeds: np.ndarray  # [S] their numbers
    fraction: np.ndarray  # [P]
    total: int  # images
    correct: np.ndarray  # [S, P] images; means of several draws where the family is random, and so below
    agree: np.ndarray | None  # [S, P] images; None in a result that does not have it, such as the paper's own
    kept: np.ndarray | None  # [S, P] images, right with the edit and without; None as above
    correct_unperturbed: np.ndarray  # [S] images
    chance: Chance | None = None  # what is known of accuracies at chance, if anything
    of_tokens: bool = False  # whether counts are of tokens, of which an example has several that depend on each other

    @property
    def family(self) -> str:
        """The family's name."""
        return self.traits.name

    @property
    def accuracy(self) -> np.ndarray:
        """[S, P], a fraction."""
        return self.correct / self.total

    @property
    def unperturbed(self) -> np.ndarray:
        """[S] accuracy without an edit, a fraction."""
        return self.correct_unperturbed / self.total

    @property
    def drop(self) -> np.ndarray:
        """[S, P] accuracy lost, a fraction."""
        return np.round(self.unperturbed[:, None] - self.accuracy, crossings.DECIMALS)

    @property
    def flips(self) -> np.ndarray | None:
        """[S, P] share of images whose class changes; None where it was not counted."""
        return None if self.agree is None else np.round(1 - self.agree / self.total, crossings.DECIMALS)

    @property
    def images(self) -> one_network.Images | None:
        """What a single network does to its images, where that is what statistics can be over: not of tokens.

        Means of several draws are rounded to images. They vary less than one draw, so intervals are not too narrow.
        """
        if len(self.seeds) != 1 or self.kept is None or self.of_tokens:
            return None
        before, (kept,), (correct,) = int(self.correct_unperturbed[0]), self.kept, self.correct
        lost, won = (np.rint(count).astype(int) for count in (before - kept, correct - kept))
        return one_network.images(before - lost + won, before - lost, before, self.total)

    @property
    def flipped(self) -> one_network.Images | None:
        """The same of predictions that change: a network that is right where it stays as it was."""
        if len(self.seeds) != 1 or self.agree is None or self.of_tokens:
            return None
        same = self.total - np.rint(self.total - self.agree[0]).astype(int)
        return one_network.images(same, same, self.total, self.total)

    @property
    def at_chance(self) -> np.ndarray:
        """[S] whether a network's accuracy is known to be at chance."""
        return np.zeros(len(self.seeds), bool) if self.chance is None else self.chance.of(self.seeds)

    @property
    def judged(self) -> Series:
        """The networks whose accuracy can fall, which alone have radii and verdicts of it; maybe none.

        All of those that were declared untrained, which are shown as they are.
        """
        out = self.at_chance
        if not out.any() or (self.chance is not None and self.chance.control):
            return self
        return self.take(np.flatnonzero(~out).tolist())

    def take(self, seeds: list[int]) -> Series:
        """The same of some seeds, given by their positions."""
        agree, kept = (None if counts is None else counts[seeds] for counts in (self.agree, self.kept))
        return self._replace(
            seeds=self.seeds[seeds],
            correct=self.correct[seeds],
            agree=agree,
            kept=kept,
            correct_unperturbed=self.correct_unperturbed[seeds],
        )

    def at(self, points: np.ndarray) -> Series:
        """The same at some points, given by their positions."""
        agree, kept = (None if counts is None else counts[:, points] for counts in (self.agree, self.kept))
        return self._replace(fraction=self.fraction[points], correct=self.correct[:, points], agree=agree, kept=kept)

    @property
    def labels(self) -> dict[str, str]:
        """What identifies the series, as table columns."""
        return {"family": self.family, "network": self.network, "site": self.site, "split": self.split}


def every_series(result: xr.DataTree) -> Iterator[Series]:
    """Every series of a result, family by family; none of a regression, of which nothing is counted."""
    chances = fitness.chances(result)
    for name, traits in results.families_of(result).items():
        if "correct" not in result[name]:
            continue
        yield from series_of(traits, result[name].to_dataset(), chances)


def series_of(traits: Traits, group: xr.Dataset, chances: Mapping[tuple[str, str], Chance]) -> Iterator[Series]:
    """Every series of one family's group, without networks that a site or all seeds are missing of.

    `chances` are `fitness.chances` of the result; nothing where the networks are not those that it tells of.
    """
    group = results.over_draws(group)
    axes = (group[name].to_numpy() for name in ("network", "site", "split"))
    for network, site, split in itertools.product(*axes):
        part = group.sel(network=network, site=site, split=split)
        part = part.isel(seed=part.correct.to_numpy()[:, 0] != results.MISSING)
        if part.sizes["seed"] == 0:
            continue
        yield Series(
            traits,
            str(network),
            str(site),
            str(split),
            group.attrs.get("identity"),
            part.seed.to_numpy(),
            part.fraction.to_numpy(),
            int(part.total),
            part.correct.to_numpy(),
            part.agree.to_numpy() if "agree" in part else None,
            part.kept.to_numpy() if "kept" in part else None,
            part.unperturbed.to_numpy(),
            chances.get((str(network), str(split))),
            group.attrs.get("of") == "tokens",
        )
