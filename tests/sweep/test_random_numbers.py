"""Random numbers depend on the seed's number, the family and the example: on no default, block or other family."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdist
from jaxdist.experiment import probes
from jaxdist.networks import rows
from jaxdist.perturbations import families

X = np.asarray(jax.random.normal(jax.random.key(0), (192, 6)))
Y = np.arange(192) % 3
PARAMS = {"w": jax.random.normal(jax.random.key(1), (6, 8)), "v": jax.random.normal(jax.random.key(2), (8, 3))}
RANDOM = ("noise", "random_scale", "random_offset", "resample")


def network(params, x):
    return jax.nn.relu(jaxdist.site("hidden", x @ params["w"])) @ params["v"]


def counts(*names, **options):
    result = jaxdist.probe(network, PARAMS, train=(X, Y), sites=["hidden"], families=names, draws=4, **options)
    return {name: result[name].agree.squeeze().to_numpy() for name in result.children if name in families.ALL}


def test_they_are_the_same_whatever_the_default_generator_and_the_blocks():
    expected = counts(*RANDOM)
    assert all(len(np.unique(each)) > 3 for each in expected.values())
    with jax.default_prng_impl("rbg"):
        for block in (None, 64):
            jax.tree.map(np.testing.assert_array_equal, counts(*RANDOM, block=block), expected)


def test_a_familys_do_not_depend_on_others_of_its_kind():
    other = families.REGISTER.add(dataclasses.replace(families.get("noise"), name="noise_b", text="Noise, again."))
    alone, both = counts("noise"), counts("noise", other)
    np.testing.assert_array_equal(both["noise"], alone["noise"])
    assert (both["noise_b"] != alone["noise"]).any(), "it has a key of its own"


def test_what_is_kept_of_a_family_goes_by_its_kind_and_name(monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(probes, "_at_once", lambda name, compute: asked.append(name) or compute())

    def fill(value, fraction):
        return (1 - fraction) * value

    def toward(value, fraction):
        return value + fraction

    options = {"post": {"hidden": jax.nn.relu}, "families": ("floor", "dead_zone", "clip", "noise", fill, toward)}
    jaxdist.probe(network, PARAMS, train=(X, Y), **options)
    assert len(asked) == len(set(asked)) > 4


@pytest.mark.parametrize(("kind", "proved"), [("threefry2x32", True), ("rbg", None)])
def test_numbers_of_mapped_keys_are_an_examples_own_only_where_keys_are_independent(kind, proved):
    keys = jax.random.split(jax.random.key(0, impl=kind), 8)

    def noisy(params, x):
        drawn = jax.vmap(lambda row: jax.random.bits(jax.random.fold_in(keys[0], row.sum().astype(int))))(x)
        return x @ params["w"] + drawn[:, None].astype(jnp.float32)

    assert rows.examine(noisy, PARAMS, X[:1]).independent is proved
