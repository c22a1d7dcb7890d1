"""Refined tolerance radii: against a very fine grid over the same bracket, and what refinement must never do."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxdist import crossings
from jaxdist.config import SweepConfig
from jaxdist.crossings import Bracket
from jaxdist.errors import InputError
from jaxdist.networks import mlp
from jaxdist.perturbations import families, ranges
from jaxdist.sweep import ensemble_sweep, radii

SITE, MARGIN, IMAGES = "dense0/pre", 0.02, 301
SIDES = [(family.name, side) for family in map(families.get, families.PAPER) for side in family.sides]


def accuracies(model, params, measured, family, fractions, examples):
    counts = ensemble_sweep.sweep(
        model, params, {SITE: families.build(family, measured, fractions, SweepConfig())}, examples
    )
    return counts.correct / IMAGES, counts.unperturbed / IMAGES


@pytest.fixture(scope="module")
def setting(trained, train_set):
    """The abs network's ranges, and the grid's brackets of every family and side."""
    model, params = mlp.model("abs"), trained["abs"]
    measured = ranges.measure(model, params, train_set, (SITE,))[SITE]
    coarse = []
    for name, side in SIDES:
        family = families.get(name)
        grid = family.grid()
        accuracy, unperturbed = accuracies(model, params, measured, name, grid, train_set)
        coarse.append(
            crossings.tolerance(
                grid,
                accuracy,
                unperturbed,
                identity=family.identity,
                coordinate=family.spacing,
                side=side,
                margin=MARGIN,
            )
        )
    searches = [radii.Search(name, side, found.bracket) for (name, side), found in zip(SIDES, coarse, strict=True)]
    return model, params, measured, coarse, searches


def refined(setting, examples, **kwargs):
    model, params, measured, _, searches = setting
    return radii.refine(model, params, {SITE: measured}, searches, examples, SweepConfig(), margin=MARGIN, **kwargs)


def test_the_grids_bracket_encloses_its_exit(setting):
    _, _, _, coarse, _ = setting
    for found in coarse:
        here = ~found.censored
        assert np.isnan(np.array(found.bracket)[:, ~here]).all()
        inside, outside, before, after = (values[here] for values in found.bracket)
        assert (
            (np.minimum(inside, outside) <= found.exit[here]) & (found.exit[here] <= np.maximum(inside, outside))
        ).all()
        assert (before < MARGIN).all()
        assert (after >= MARGIN).all()
    assert any(found.censored.any() for found in coarse)
    assert sum((~found.censored).sum() for found in coarse) >= 9


def test_refinement_agrees_with_a_very_fine_grid(setting, train_set):
    """3,000 points over each network's own bracket, through the kernel: the first outside is the bracket's end."""
    model, params, measured, coarse, searches = setting
    found = refined(setting, train_set, tolerance=1e-4)
    for radius, start, search in zip(found, coarse, searches, strict=True):
        family = families.get(search.family)
        fine = radii.subdivided(start.bracket, family, 3000)
        accuracy, unperturbed = accuracies(model, params, measured, search.family, fine, train_set)
        outside = np.round(unperturbed[:, None] - accuracy, crossings.DECIMALS) >= MARGIN
        for seed in np.flatnonzero(~start.censored):
            path = np.append(fine[seed], start.bracket.outside[seed])
            first = path[np.append(outside[seed], True).argmax()]
            step = np.abs(np.diff(fine[seed])).max()
            width = abs(radius.bracket.outside[seed] - radius.bracket.inside[seed])
            # A drop that falls below the margin again may hide an earlier exit from the coarser passes.
            monotone = not (np.diff(outside[seed].astype(int)) < 0).any()
            if monotone:
                assert abs(radius.exit[seed] - first) <= width + step
            else:
                assert (first - radius.exit[seed]) * np.sign(first - start.bracket.inside[seed]) <= width + step


def test_refinement_narrows_and_never_leaves_the_bracket(setting, train_set):
    _, _, _, coarse, searches = setting
    before = ensemble_sweep._sweep._cache_size()
    found = refined(setting, train_set, tolerance=1e-5)
    assert ensemble_sweep._sweep._cache_size() <= before + 1, "all passes are one program"
    for radius, start, search in zip(found, coarse, searches, strict=True):
        np.testing.assert_array_equal(np.isinf(radius.exit), start.censored)
        np.testing.assert_array_equal(radius.exit[start.censored], start.exit[start.censored])
        log = families.get(search.family).spacing == "log"
        for seed in np.flatnonzero(~start.censored):
            outer = sorted((start.bracket.inside[seed], start.bracket.outside[seed]))
            inner = sorted((radius.bracket.inside[seed], radius.bracket.outside[seed]))
            assert outer[0] <= inner[0] <= radius.exit[seed] <= inner[1] <= outer[1]
            assert radius.bracket.drop_inside[seed] < MARGIN <= radius.bracket.drop_outside[seed]
            width = np.log(inner[1] / inner[0]) if log else inner[1] - inner[0]
            images = (radius.bracket.drop_outside[seed] - radius.bracket.drop_inside[seed]) * IMAGES
            assert width <= 1.001e-5 or round(images) <= 1


def test_each_networks_radius_is_its_own(setting, train_set):
    """A network alone, its bracket at other fractions than its neighbours', gives the same."""
    model, params, measured, _, searches = setting
    together = refined(setting, train_set)
    one = jax.tree.map(lambda leaf: leaf[1:2], (params, measured))
    some = [s._replace(bracket=Bracket(*(values[1:2] for values in s.bracket))) for s in searches]
    alone = radii.refine(model, one[0], {SITE: one[1]}, some, train_set, SweepConfig(), margin=MARGIN)
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.exit[1:2], b.exit, rtol=1e-6)


def test_a_narrowed_bracket_ends_at_the_first_exit_by_hand():
    bracket = Bracket(*(np.array([value]) for value in (1.0, 0.0, 0.0, 0.5)))
    fractions, drops = np.array([[0.75, 0.5, 0.25]]), np.array([[0.01, 0.03, 0.0]])
    found = radii.narrowed(bracket, fractions, drops, 0.02, np.array([True]))
    np.testing.assert_array_equal(np.array(found)[:, 0], [0.75, 0.5, 0.01, 0.03])
    kept = radii.narrowed(bracket, fractions, drops, 0.02, np.array([False]))
    np.testing.assert_array_equal(np.array(kept)[:, 0], [1.0, 0.0, 0.0, 0.5])
    none = radii.narrowed(bracket, fractions, 0 * drops, 0.02, np.array([True]))
    np.testing.assert_array_equal(np.array(none)[:, 0], [0.25, 0.0, 0.0, 0.5])


def test_points_are_evenly_spaced_in_the_familys_coordinate():
    bracket = Bracket(*(np.array([value, np.nan]) for value in (0.25, 4.0, 0.0, 0.5)))
    np.testing.assert_allclose(radii.subdivided(bracket, families.get("scale"), 3), [[0.5, 1.0, 2.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(radii.subdivided(bracket, families.get("offset"), 2), [[1.5, 2.75], [0.0, 0.0]])


def test_bad_searches_are_refused(setting, train_set):
    model, params, measured, _, searches = setting
    short = searches[0]._replace(bracket=Bracket(*(values[:1] for values in searches[0].bracket)))
    with pytest.raises(InputError, match="scale, below: expected inside of 3 networks"):
        radii.refine(model, params, {SITE: measured}, [short], train_set, SweepConfig(), margin=MARGIN)
    with pytest.raises(InputError, match="margin: expected a number above 0"):
        radii.refine(model, params, {SITE: measured}, searches, train_set, SweepConfig(), margin=0)
    assert radii.refine(model, params, {SITE: measured}, [], train_set, SweepConfig(), margin=MARGIN) == []
