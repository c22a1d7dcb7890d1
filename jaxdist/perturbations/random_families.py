"""Families that change values at random, as controls that erase nothing in particular."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxdist.perturbations import edits
from jaxdist.perturbations.edits import Affine, Noise
from jaxdist.perturbations.family import Family
from jaxdist.perturbations.grids import upward
from jaxdist.registry import FAMILIES
from jaxdist.types import PRNG, Ranges


def random_scale(ranges: Ranges, fraction: Array, key: Array) -> Affine:
    """Every unit times exp(p*z), with z its own normal number."""
    normal = jax.random.normal(jax.random.wrap_key_data(key, impl=PRNG), ranges.low.shape, jnp.float32)
    return edits.unedited(ranges.low.size)._replace(scale=jnp.exp(fraction * normal))


def noise(ranges: Ranges, fraction: Array, key: Array) -> Noise:
    """Normal noise of standard deviation p*r, for each unit and example its own."""
    return Noise(fraction * (ranges.high - ranges.low), key, jnp.int32(0))


RANDOM_SCALE = Family(
    name="random_scale",
    text=FAMILIES["random_scale"],
    edit=random_scale,
    grid=upward(0.03, 3, 10),
    above="random scale to",
    random=True,
    label="random scale of each unit",
    effect="control",
    dash="dotted",
)

NOISE = Family(
    name="noise",
    text=FAMILIES["noise"],
    edit=noise,
    grid=upward(0.005, 3, 15),
    above="noise up to",
    kind="noise",
    random=True,
    effect="control",
)
