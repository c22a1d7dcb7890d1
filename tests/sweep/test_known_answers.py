"""Networks that are built to read small values, large ones, or neither in particular: the verdict on each is known.

Units come in pairs, one for each of two classes. What is not read is equal within a pair and cancels; what is read is
larger, for all pairs alike, in the units of the image's class, so that erasing it acts together over all of them.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from jaxdist.analysis import preference
from jaxdist.compute import devices, elementwise
from jaxdist.config import Options, SweepConfig
from jaxdist.networks.model import Model
from jaxdist.perturbations import families
from jaxdist.sweep import counting, family_sweeps, labels
from jaxdist.sweep.counting import Context
from jaxdist.sweep.waves import Subject

SITE, PAIRS, SEEDS = "hidden", 128, 6
IMAGES = {"distance": 160, "intensity": 160, "neither": 64}
STUDIES = {"distance": 20, "intensity": 20, "neither": 200}
FAMILIES = (*preference.SMALL, preference.LARGE, preference.NOISE)

# It computes for longer than it compiles.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("optimised")]


def images(kind, rng):
    """Activations [N, 2 * PAIRS] and classes: each pair is small (below 1) or large (from 6 to 10) at random."""
    shape = (IMAGES[kind], PAIRS)
    y = rng.integers(0, 2, IMAGES[kind])
    is_large, small, large = rng.random(shape) < 0.5, rng.random(shape), rng.uniform(6, 10, shape)

    def read(start, more, width):
        """Values of the first and the second unit of every pair, larger by `more` for the image's class."""
        mine, other = start + more + width * rng.random(shape), start + width * rng.random(shape)
        first = (y == 0)[:, None]
        return np.where(first, mine, other), np.where(first, other, mine)

    if kind == "distance":
        units = [np.where(is_large, large, value) for value in read(0, 0.3, 0.7)]
    elif kind == "intensity":
        units = [np.where(is_large, value, small) for value in read(6, 1, 3)]
    else:
        units = [np.where(rng.random(shape) < 0.5, rng.random(shape), rng.uniform(6, 10, shape)) for _ in range(2)]
    return np.concatenate(units, 1).astype(np.float32), y.astype(np.int32)


def network(params, x, tap):
    """Units are the inputs in scales of their own."""
    return elementwise.relu(tap(SITE, x * params["scale"][None])) @ params["read"]


def networks(kind, count, rng):
    """Networks that read the pairs by their weights, or each unit by any."""
    scale, weight = rng.uniform(0.5, 2, (count, 2 * PAIRS)), rng.uniform(0.7, 1.3, (count, PAIRS))
    none = np.zeros_like(weight)
    read = np.stack([np.concatenate([weight, none], 1), np.concatenate([none, weight], 1)], 2)
    if kind == "neither":
        read = rng.normal(size=read.shape)
    return {"scale": scale.astype(np.float32), "read": (read / scale[:, :, None]).astype(np.float32)}


def nothing(*_):
    pass


@pytest.fixture(scope="module")
def answers():
    """The verdict of every study of six networks, by what they are built to read."""
    found = {}
    for kind, studies in STUDIES.items():
        rng, count = np.random.default_rng(5), studies * SEEDS
        x, y = images(kind, rng)
        examples = devices.place(x, y, devices.make_mesh(seeds=count), dtype=x.dtype)
        options = Options(sweep=SweepConfig(families=FAMILIES, dose=True, draws=2, splits=("train",)))
        given = Context(
            {"train": examples}, {SITE: (SITE,)}, options, range(count), nothing, lambda _, compute: compute()
        )
        model = Model(network, post=((SITE, elementwise.relu),))
        subjects = {"net": Subject(model, networks(kind, count, rng))}
        measured = {"net": counting.measure_ranges(subjects["net"], given, "net")}
        dosings = counting.dosings(subjects, given)
        grids = {name: families.coarse_grid(name, 2) for name in FAMILIES}
        swept = family_sweeps.sweep(subjects, measured, given, dosings, grids=grids)
        costs = {}
        for name, family in ((name, labels.over_draws(each)) for name, each in swept.items()):
            known = families.get(name)
            dose, agree = (family[variable][0, :, 0, 0].to_numpy() for variable in ("dose", "agree"))
            path = preference.path(
                family.fraction.to_numpy(), dose, 1 - agree / IMAGES[kind], identity=known.identity, side=known.sides[0]
            )
            costs |= {(name, level): preference.dose_at(path, level) for level in preference.LEVELS}
        found[kind] = [
            preference.verdict({key: dose.take(range(k, k + SEEDS)) for key, dose in costs.items()}, 0.95)
            for k in range(0, count, SEEDS)
        ]
    return found


@pytest.mark.parametrize("kind", ["distance", "intensity"])
def test_what_a_network_is_built_to_read_is_found_in_every_study(answers, kind):
    assert {verdict.answer for verdict in answers[kind]} == {kind}


def test_where_weights_are_random_neither_is_claimed_more_often_than_promised(answers):
    wrong = sum(verdict.answer != "neither" for verdict in answers["neither"])
    # Two claims, each with 5 %: more than this would happen once in a thousand.
    assert wrong <= stats.binom.isf(1e-3, STUDIES["neither"], 0.1)
