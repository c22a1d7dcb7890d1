"""Two ensembles at once: the images to which both give the same class."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxdist import config
from jaxdist.networks import mlp
from jaxdist.perturbations import families, ranges
from jaxdist.sweep import ensemble_sweep
from tests.conftest import place


def test_matches_count_the_images_of_one_class(digits, trained):
    examples = place(digits, 101)
    site, model = "dense0/pre", mlp.model("relu")
    halves = []
    for scaled in (1.0, 1.2):
        params = jax.tree.map(lambda leaf, by=scaled: leaf * by, trained["relu"])
        measured = ranges.measure(model, params, examples, (site,))[site]
        halves.append(
            (params, {site: families.build("offset", measured, families.offset_grid()[::25], config.SweepConfig())})
        )
    found = np.asarray(ensemble_sweep.matches(model, *halves, (examples, examples), block=7))
    x = np.asarray(examples.x)[:101]
    for s in range(3):
        for p in range(5):
            classes = []
            for params, made in halves:
                one = jax.tree.map(lambda leaf, s=s: leaf[s], params)
                edit = jax.tree.map(lambda leaf, s=s, p=p: leaf[s, p], made[site])

                def tap(name, value, edit=edit):
                    return edit.apply(value, jnp.arange(101), 0) if name == site else value

                classes.append(np.asarray(model.apply(one, x, tap)).argmax(0))
            assert found[s, p] == (classes[0] == classes[1]).sum()
    assert 0 < found.min() < found.max() <= 101


def test_several_sites_are_edited_together(train_set):
    """Against the network without edits, they are the images on which the edited one agrees with it."""
    model, params = mlp.model("relu", 2), mlp.init_ensemble(jax.random.key(3), range(2), (64, 12, 7, 10))
    sites = ("dense0/pre", "dense1/pre")
    measured = ranges.measure(model, params, train_set, sites)
    grid = {"offset": np.array([-1.0, 0.1, 0.5])}
    made = {site: families.joined(measured[site], grid, config.SweepConfig()) for site in sites}
    none = {site: families.joined(measured[site], {"offset": np.zeros(3)}, config.SweepConfig()) for site in sites}
    found = ensemble_sweep.matches(model, (params, made), (params, none), (train_set, train_set))
    agree = ensemble_sweep.sweep(model, params, made, train_set).agree
    np.testing.assert_array_equal(found, agree)
    assert 0 < agree.min() < 301
