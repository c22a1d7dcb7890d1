"""What a network is fit for: whether its numbers enter statements at all, and whether its accuracy can fall.

- A network is *not finite* if its weights, or its largest logit for some example, are no finite numbers. It is fit for
  nothing: it enters no number. An ensemble of such networks alone is an error.
- A network is *at chance* on a split if it is not shown to be right more often than the split's largest class is
  frequent, by a one-sided binomial test over the images counted; so is every network that gives all of them one class.
  Its accuracy has nothing to lose, so it has no tolerance radius and no verdict of accuracy; counts, flips and doses
  stand.
- Networks that were declared untrained (``train.steps`` 0) are controls: their numbers stand, and are said to be so.

The group ``unedited`` of a result holds what this follows from: `correct` and `not_finite` over (network, seed, split),
`predicted` over (network, seed, split, class), `labels` over (split, class), and `finite_weights` over (network, seed),
0 where they are not; then the attribute `not_finite_weights` names an array of them. A result without that group, of an
older version or of the paper's own code, does not say how frequent its classes are: there no network is known to be at
chance. Of tokens, `labels`, `predicted` and `correct` count those that have a label, which the test takes to be
independent; a regression has no class, and is never at chance.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy
import xarray as xr

from jaxdist.formatting import counted, listed
from jaxdist.sweep import results
from jaxdist.sweep.unedited import Unedited
from jaxdist.types import Flags

GROUP = "unedited"

LEVEL = 0.05
"""Of the one-sided binomial test: one in twenty networks at chance passes for better."""

_APART = 0.005
"""Shares of images that differ by less are those of the same weights, rounded otherwise."""

_LISTED, _REASONS = 8, 3
"""So many seeds are named, and so many reasons given; of more, their number is said."""


class Chance(NamedTuple):
    """One network's ensemble on one split, beside what always saying the largest class would get right."""

    seeds: npt.NDArray[np.int64]  # [S] their numbers
    at_chance: Flags  # [S]
    one_class: Flags  # [S] whether all images are given the same class
    largest: int  # images of the largest class
    total: int  # images
    control: bool  # whether the networks were declared untrained

    def of(self, seeds: npt.ArrayLike) -> Flags:
        """Which of these seeds, by their numbers, are at chance."""
        return np.isin(np.asarray(seeds), self.seeds[self.at_chance])

    @property
    def share(self) -> float:
        """Of the largest class, a fraction."""
        return self.largest / self.total


def at_chance(correct: npt.ArrayLike, total: int, largest: int) -> Flags:
    """Whether accuracies, images right of `total`, are not shown to be above the share of the `largest` class.

    >>> at_chance([10, 14, 19, 90], 100, 10)
    array([ True,  True, False, False])
    """
    # The probability that a network right with the largest class's frequency is right on as many images or more.
    right = np.asarray(correct)
    as_often = scipy.special.betainc(np.maximum(right, 1), total - right + 1.0, largest / total)
    return np.asarray((right == 0) | (as_often > LEVEL))


def group(
    counts: Mapping[str, Mapping[str, Unedited]], weights: Mapping[str, Sequence[str]], seeds: Sequence[int]
) -> xr.Dataset:
    """Label what was counted of each network and split, and the names of arrays that are not finite by network."""
    splits = list(next(iter(counts.values())))
    by_split = ("network", "seed", "split")

    def stacked(name: str) -> np.ndarray:
        return np.stack([np.stack([getattr(by[split], name) for split in splits], 1) for by in counts.values()])

    first = next(iter(counts.values()))
    finite = [[not array for array in arrays] for arrays in weights.values()]
    named = {
        f"{network}, {seed}": array
        for network, arrays in weights.items()
        for seed, array in zip(seeds, arrays, strict=True)
        if array
    }
    values: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "not_finite": (by_split, stacked("not_finite")),
        "finite_weights": (by_split[:2], np.array(finite, np.int8)),
    }
    coords: dict[str, Any] = {"network": list(counts), "seed": list(seeds), "split": splits}
    if first[splits[0]].labels is not None:
        labels = np.stack([np.asarray(first[split].labels) for split in splits])
        values |= {"correct": (by_split, stacked("correct"))}
        values |= {"predicted": ((*by_split, "class"), stacked("predicted")), "labels": (("split", "class"), labels)}
        coords["class"] = np.arange(labels.shape[1])
    return xr.Dataset(values, coords, {"not_finite_weights": json.dumps(named), "made": results.stage_provenance()})


def not_finite(measured: xr.Dataset) -> xr.DataArray:
    """Which networks are not finite, bool over (network, seed)."""
    return (measured.finite_weights == 0) | (measured.not_finite > 0).any("split")


def is_control(result: xr.DataTree) -> bool:
    """Whether a result is of networks that were declared untrained."""
    return results.untrained(result) is not None


def chances(result: xr.DataTree) -> dict[tuple[str, str], Chance]:
    """What is known of accuracies at chance, by network and split; nothing where the result does not tell of labels."""
    if GROUP not in result.children or "labels" not in result[GROUP]:
        return {}
    measured, control = result[GROUP].to_dataset(), is_control(result)
    measured = measured.isel(seed=~not_finite(measured).all("network").to_numpy())
    by_place = {}
    for split in measured.split.to_numpy():
        labels = measured.labels.sel(split=split)
        total, largest = int(labels.sum()), int(labels.max())
        for network in measured.network.to_numpy():
            part = measured.sel(network=network, split=split)
            part = part.isel(seed=~not_finite(measured.sel(network=network)).to_numpy())
            by_place[str(network), str(split)] = Chance(
                part.seed.to_numpy(),
                at_chance(part.correct.to_numpy(), total, largest),
                ((part.predicted > 0).sum("class") <= 1).to_numpy(),
                largest,
                total,
                control,
            )
    return by_place


def notes(result: xr.DataTree) -> list[str]:
    """What a reader has to know of networks that are not finite or at chance, a sentence each; none in most results."""
    if GROUP not in result.children:
        return []
    measured = result[GROUP].to_dataset()
    return [*_notes_not_finite(measured), *_notes_at_chance(chances(result)), *_notes_other_weights(result, measured)]


def remark(result: xr.DataTree) -> str:
    """How many networks a figure of means is without, or holds though they are at chance; empty in most results.

    In lines that fit a panel of one column.
    """
    if is_control(result):
        return "Untrained networks"
    if GROUP not in result.children:
        return ""
    lost = int(not_finite(result[GROUP].to_dataset()).sum())
    low = max((int(chance.at_chance.sum()) for chance in chances(result).values()), default=0)
    lines = [f"{counted(lost, 'network')} not finite, left out"] * bool(lost)
    return "\n".join([*lines, *[f"{counted(low, 'network')} at chance, shown"] * bool(low)])


def _notes_not_finite(measured: xr.Dataset) -> list[str]:
    sentences = []
    for network in measured.network.to_numpy():
        part = measured.sel(network=network)
        unfit = not_finite(part).to_numpy()
        if unfit.any():
            enter = "it enters" if unfit.sum() == 1 else "they enter"
            left = left_words(int((~unfit).sum()), len(unfit))
            sentences.append(f"{network}: {why_not_finite(part.isel(seed=unfit))}; {enter} no number, {left}")
    return sentences


def why_not_finite(part: xr.Dataset) -> str:
    """Which of some seeds of a network, none of them finite, and why: "seed 2 is not finite (weights 'w')"."""
    seeds = part.seed.to_numpy()
    reasons = [_reason(part.isel(seed=k)) for k in range(len(seeds))]
    if len(set(reasons)) > 1:
        reasons = [f"seed {seed}: {reason}" for seed, reason in zip(seeds, reasons, strict=True)]
    several = list(dict.fromkeys(reasons))
    more = f"; {len(several) - _REASONS} more" if len(several) > _REASONS else ""
    return f"{seed_words(seeds)} not finite ({'; '.join(several[:_REASONS])}{more})"


def _reason(single: xr.Dataset) -> str:
    """Why a single network is not finite: the name of an array, or where its logits are not."""
    if not single.finite_weights:
        named = json.loads(single.attrs["not_finite_weights"])
        array = named.get(f"{single.network.item()}, {single.seed.item()}")
        return f"weights '{array}'" if array else "weights"
    counts = {str(split): int(single.not_finite.sel(split=split)) for split in single.split.to_numpy()}
    return "logits of " + listed([counted(count, f"{split} image") for split, count in counts.items() if count])


def _notes_at_chance(by_place: Mapping[tuple[str, str], Chance]) -> list[str]:
    sentences = []
    for (network, split), chance in by_place.items():
        seeds = chance.seeds[chance.at_chance]
        if not len(seeds):
            continue
        one_class = chance.one_class[chance.at_chance]
        reason = f"not shown to be above the largest class's {100 * chance.share:.1f} %"
        if one_class.all():
            reason = "one class for all images"
        elif one_class.any():
            reason += f", {one_class.sum()} of them with one class for all images"
        subject = f"{network}: {seed_words(seeds)} at chance on {split} images ({reason})"
        left = left_words(len(chance.seeds) - len(seeds), len(chance.seeds))
        done = f"no radius and no verdict of accuracy, {left}; accuracies, flips and doses count"
        sentences.append(f"{subject}: {'untrained, shown as controls' if chance.control else done}")
    return sentences


def _notes_other_weights(result: xr.DataTree, measured: xr.Dataset) -> Iterator[str]:
    """Where networks trained here are right on other shares of the images than their training ended with."""
    if "training" not in result.children or "origin" in result.attrs:
        return
    history, fit = result["training"].to_dataset(), ~not_finite(measured)
    for split in measured.split.to_numpy():
        recorded = history[f"{split}_accuracy"].dropna("step", how="all").isel(step=-1)
        shares = measured.correct.sel(split=split) / int(measured.labels.sel(split=split).sum())
        recorded, shares, of_fit = xr.align(recorded, shares, fit, join="inner")
        for network in shares.network.to_numpy():
            apart = (abs(shares - recorded) > _APART) & of_fit
            for seed in shares.seed.to_numpy()[apart.sel(network=network).to_numpy()]:
                ended, now = (100 * float(each.sel(network=network, seed=seed)) for each in (recorded, shares))
                yield (
                    f"{network}: seed {seed} is right on {now:.2f} % of the {split} images, where its training ended "
                    f"with {ended:.2f} %, so its weights are not those that were trained"
                )


def seed_words(seeds: Sequence[int] | Sequence[str] | npt.NDArray[np.int64]) -> str:
    """Name some seeds as the subject of a sentence.

    >>> seed_words([2]), seed_words([2, 5]), seed_words(range(20))
    ('seed 2 is', 'seeds 2 and 5 are', '20 seeds are')
    """
    numbers = [str(seed) for seed in seeds]
    if len(numbers) == 1:
        return f"seed {numbers[0]} is"
    return f"{counted(len(numbers), 'seed')} are" if len(numbers) > _LISTED else f"seeds {listed(numbers)} are"


def left_words(left: int, of: int) -> str:
    """How many seeds are left.

    >>> left_words(5, 6), left_words(1, 2), left_words(0, 1)
    ('5 of 6 seeds are left', '1 of 2 seeds is left', 'no seed is left')
    """
    if not left:
        return "no seed is left"
    return f"{left} of {counted(of, 'seed')} {'is' if left == 1 else 'are'} left"
