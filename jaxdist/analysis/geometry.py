"""Where units' boundaries lie among what they see: the geometry that Figures 2 and 3 of the paper draw.

A unit's boundary is where its preactivation is 0. Read as a distance, ``|w x + b|`` is the Mahalanobis distance of an
example from a cluster along one direction, if the boundary goes through the cluster's mean and values are divided by
its standard deviation (arXiv:2410.19352). The paper draws an Abs unit's boundary through a cluster, and a ReLU unit's
at the edge of one. Clusters are taken to be the classes here; the same of the network before training says what of it
is learned, since of several means one is always the nearest.

Pure NumPy and SciPy; values of one network's site are [H, N], all that is returned is [H].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy

from jaxdist.analysis import statistics
from jaxdist.errors import InputError
from jaxdist.types import Values

BINS = 256
"""Of a unit's histogram, from its smallest value to its largest."""

PROMINENCE = 0.05
"""A mode rises above what lies between it and a higher one by this share of the highest."""

QUANTITIES = {
    "above": "share of examples above the boundary",
    "mode": "boundary above the nearest mode, in standard deviations",
    "distance": "boundary from the nearest class mean, in the class's standard deviations",
    "crossed": "classes with examples of both sides, 1 % or more",
}
"""What a unit is described by, in words."""


class Geometry(NamedTuple):
    """Of each unit, NaN where its values are all alike."""

    above: Values
    """Share of examples with values above 0."""
    mode: Values
    """0 minus the nearest mode of its values, in their standard deviations."""
    cluster: Values
    """The class whose mean is nearest to 0 in its own standard deviations."""
    offset: Values
    """0 minus that mean, in these."""
    crossed: Values
    """How many classes have at least 1 % of their examples on either side."""

    @property
    def distance(self) -> Values:
        """How far the boundary is from that mean, whatever the side."""
        return np.abs(self.offset)


def describe(values: Values, labels: Values) -> Geometry:
    """Describe the units of one network.

    Args:
      values: preactivations [H, N].
      labels: the examples' classes [N].

    Raises:
      InputError: for no examples, or labels that do not fit.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.shape[1] or len(labels) != values.shape[1]:
        raise InputError(f"values: expected [H, N] with a label for each of N examples, got {values.shape}")
    varied = (values != values[:, :1]).any(axis=1)
    means, sds, aboves = of_classes(values, labels)
    with np.errstate(divide="ignore", invalid="ignore"):
        offsets = np.where(sds > 0, -means / sds, np.nan)  # [classes, H]
    distances = np.where(np.isnan(offsets), np.inf, np.abs(offsets))
    cluster = distances.argmin(axis=0)
    rows = np.arange(len(values))
    crossed = ((aboves >= 0.01) & (aboves <= 0.99)).sum(axis=0).astype(np.float64)
    described = Geometry(
        (values > 0).mean(axis=1),
        -_nearest_modes(values),
        np.where(np.isfinite(distances).any(axis=0), np.unique(labels)[cluster], np.nan),
        offsets[cluster, rows],
        crossed,
    )
    return Geometry(*(np.where(varied, of, np.nan) for of in described))


def of_classes(values: Values, labels: Values) -> tuple[Values, Values, Values]:
    """Means and standard deviations of each class's values, and its share above 0, each [classes, H]."""
    groups = [values[:, labels == label] for label in np.unique(labels)]
    means, sds = (np.stack([of(group, axis=1) for group in groups]) for of in (np.mean, np.std))
    return means, sds, np.stack([(group > 0).mean(axis=1) for group in groups])


def density(values: Values) -> tuple[Values, Values]:
    """A smoothed histogram of values [N]: places [BINS], and the density there.

    Smoothed by a normal distribution as wide as Silverman's rule says (1986, eq. 3.31).
    """
    low, high = float(values.min()), float(values.max())
    counts, edges = np.histogram(values, BINS, (low, high))
    width = edges[1] - edges[0]
    quartiles = np.subtract(*np.percentile(values, [75, 25])) / 1.34
    scale = min(float(values.std()), quartiles or np.inf) or width
    smoothed = scipy.ndimage.gaussian_filter1d(
        counts.astype(np.float64), 0.9 * scale * len(values) ** -0.2 / width, mode="constant"
    )
    return (edges[1:] + edges[:-1]) / 2, smoothed / (len(values) * width)


def _nearest_modes(values: Values) -> Values:
    """The mode nearest to 0 of each unit's values [H, N], in their standard deviations."""
    nearest = np.full(len(values), np.nan)
    for k, of_unit in enumerate(values):
        if of_unit.min() == of_unit.max():
            continue
        places, height = density(of_unit)
        # Padded, so that a peak may stand at either end.
        peaks, _ = scipy.signal.find_peaks(np.pad(height, 1), prominence=PROMINENCE * height.max())
        modes = places[peaks - 1]
        nearest[k] = modes[np.abs(modes).argmin()] / of_unit.std()
    return nearest


def frame(described: Geometry, **labels: object) -> pd.DataFrame:
    """A row for each unit, with what identifies the network."""
    columns = {"unit": np.arange(len(described.above)), **described._asdict(), "distance": described.distance}
    return pd.DataFrame({**labels, **columns})


def summary(units: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """A row for each network, site and quantity: trained, before training, and the difference of each seed's pair.

    Args:
      units: `frame` of all networks, with `network`, `site`, `seed` and `when`: trained or, where that is known,
        before.
      confidence: of the intervals over seeds, each of which stands with the median over its units.
    """
    rows = []
    for (network, site), part in units.groupby(["network", "site"], sort=False):
        for name in QUANTITIES:
            medians = part.groupby(["when", "seed"])[name].median().unstack("seed")
            each = {when: medians.reindex([when]).to_numpy()[0] for when in ("trained", "before")}
            row: dict[str, object] = {"network": network, "site": site, "quantity": name}
            for when, of_seeds in {**each, "learned": each["trained"] - each["before"]}.items():
                kept = of_seeds[~np.isnan(of_seeds)]
                mean, low, high = (
                    statistics.mean_interval(kept, confidence)[:3] if len(kept) else (np.nan, np.nan, np.nan)
                )
                row |= {when: float(mean), f"{when}_low": float(low), f"{when}_high": float(high)}
            rows.append({**row, "seeds": medians.shape[1]})
    return pd.DataFrame(rows)
