"""What lies between a site and the logits: whether it is the site's activation and one linear map, and that map.

Where it is, the logits are those without an edit plus, for each unit, the change of its activation times its outgoing
weights. That is found by evaluation and never guessed from names: the weights are a derivative, and the logits that
they predict are compared with the model's own, for every network, several images and site values of many sizes. So is
the activation with some units moved and with all: one that mixes units is not known by its weights.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from jaxdist.compute import DATA, Examples, blocks, devices, elementwise, over_networks
from jaxdist.errors import InputError
from jaxdist.networks import model as networks_model
from jaxdist.networks.model import Model
from jaxdist.types import Params

LINEAR = 1e-4
"""Largest relative error of predicted logits that float32 explains; anything nonlinear misses by far more."""

ROWS = 64
"""Images a device for which logits are predicted, at most."""

SIZES = (0.03, 0.3, 3.0, 30.0)
"""How far the site's values are moved in the comparison, in units of their own root mean square."""


TINY = 1e-30
"""Stands for a change of nothing, whose error is then 0 or anything but."""


def after(model: Model, site: str, params: Params, x: Any, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The value after the activation that follows a site, were another value the site's.

    Args:
      model: one that says what follows the site.
      site: its key.
      params: of one network.
      x: a block of inputs [n, ...].
      value: in the place of the site's, of its shape.

    Raises:
      InputError: while tracing, if the model does not reach the site.
    """
    follows = model.after(site)
    if callable(follows):
        return follows(value)
    assert follows is not None, site
    return networks_model.read(model, params, x, [follows], {site: value})[1][follows]


def outgoing(model: Model, site: str, params: Params, x: Any) -> Float[Array, "H C"]:
    """The weights [H, C] from each unit's activation to the logits, where the head is linear.

    Args:
      model: one that says what follows the site.
      site: its key.
      params: of one network.
      x: any block of inputs [n, ...], of which the first example is taken.

    Raises:
      InputError: while tracing, if the model does not reach the site.
    """
    example = devices.rows(x, slice(0, 1))
    value = networks_model.read(model, params, example, (site,))[1][site]
    # Ones that depend on the value, so that inside a ``shard_map`` they differ between devices as it does: the
    # derivative is then each device's own.
    ones = jnp.where(value > value, value, jnp.ones_like(value))
    follows = model.after(site)
    replaced = follows if isinstance(follows, str) else site

    def logits(value: Array) -> Array:
        return networks_model.edit(model, params, example, {replaced: value}).reshape(-1)

    weights = jax.jacrev(logits)(ones).reshape(-1, value.size).T
    if callable(follows):
        weights = weights / jax.grad(lambda v: follows(v).sum())(ones).reshape(-1, 1)
    return weights


def rise(
    weights: Float[Array, "H C"], moved: Float[Array, "_ _"], unit_axis: int, class_axis: int
) -> Float[Array, "_ _"]:
    """How far logits rise, in their layout, where activations move.

    Args:
      weights: outgoing weights [H, C].
      moved: how far each activation moves, [n, H] or [H, n].
      unit_axis: of `moved`.
      class_axis: of the logits.
    """
    product = jnp.einsum("hc,hn->cn", weights, jnp.moveaxis(moved, unit_axis, 0))
    return jnp.moveaxis(product, 0, class_axis)


def departure(model: Model, site: str, params: Params, x: Any) -> Float[Array, ""]:
    """The largest error of logits predicted from outgoing weights, relative to their largest change.

    Or that of activations predicted unit by unit, where it is larger; NaN where anything is not finite.

    Args:
      model: one that says what follows the site.
      site: its key.
      params: of one network.
      x: inputs [n, ...] to predict for.

    Raises:
      InputError: while tracing, if the model does not reach the site.
    """
    weights = outgoing(model, site, params, x)
    logits, values = networks_model.read(model, params, x, (site,))
    value = values[site]
    before = after(model, site, params, x, value)
    wide = elementwise.single(value)
    size = jnp.sqrt(jnp.mean(wide * wide))

    def largest_error(of: tuple[Array, Array]) -> Array:
        scale, key = of
        step, choice = jax.random.split(key)
        apart = scale.astype(wide.dtype) * size * jax.random.normal(step, value.shape, jnp.float32).astype(wide.dtype)
        moved = (wide + apart).astype(value.dtype)
        activations = after(model, site, params, x, moved)
        some = jax.random.bernoulli(choice, shape=value.shape)
        mixed = after(model, site, params, x, jnp.where(some, moved, value))
        change = networks_model.edit(model, params, x, {site: moved}) - logits
        expected = rise(weights, activations - before, model.axis_of(site), model.class_axis)
        return jnp.maximum(
            _relative(change, expected), _relative(mixed - before, jnp.where(some, activations - before, 0))
        )

    keys = jax.random.split(jax.random.key(0), len(SIZES))
    return lax.map(largest_error, (jnp.asarray(SIZES, jnp.float32), keys)).max()


def _relative(actual: Array, expected: Array) -> Array:
    return jnp.abs(actual - expected).max() / jnp.maximum(jnp.abs(actual).max(), TINY)


def is_linear(model: Model, params: Params, site: str, examples: Examples) -> bool:
    """Whether all that lies between a site and the logits is its activation, unit by unit, and one linear map.

    False where the model does not say what follows the site, and for values that are not [n, H] or [H, n].

    Args:
      model: the networks' function.
      params: stacked, with a leading S; it must hold for every network.
      site: its key.
      examples: of a split, some of which are looked at.

    Raises:
      InputError: if the model does not reach the site.
    """
    shape = _shape(model, params, site, examples)
    if model.after(site) is None or len(shape) != 2 or _shape_after(model, params, site, examples) != shape:
        return False
    errors = over_networks(Departures(model, site), params, None, examples, size=ROWS)
    return bool((errors < LINEAR).all())


def weights(model: Model, params: Params, site: str, examples: Examples) -> Float[np.ndarray, "S H C"]:
    """The outgoing weights [S, H, C] of a site with a linear head, for an ensemble.

    Args:
      model: the networks' function.
      params: stacked, with a leading S.
      site: its key.
      examples: of a split, some of which are looked at.

    Raises:
      InputError: if the head is not linear, or the model does not reach the site.
    """
    if not is_linear(model, params, site, examples):
        raise InputError(f"site '{site}': {not_linear(model, site)}, so its units have no outgoing weights")
    return np.asarray(over_networks(Outgoing(model, site), params, None, examples, size=1))


def not_linear(model: Model, site: str) -> str:
    """Say why a site has no linear head."""
    if model.after(site) is None:
        return f"the model does not say what follows it (post={{'{site}': fn}})"
    return "what follows it is not an activation, unit by unit, and one linear map"


def _shape(model: Model, params: Params, site: str, examples: Examples) -> tuple[int, ...]:
    return networks_model.sites_for_one(model, params, examples.x, [site]).whole_shape(site, model.axis_of(site))


def _shape_after(model: Model, params: Params, site: str, examples: Examples) -> tuple[int, ...]:
    network = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)
    x = networks_model.shapes_of_one(examples.x)
    return jax.eval_shape(lambda p, b: networks_model.read_after(model, p, b, (site,))[2][site], network, x).shape


@dataclasses.dataclass(frozen=True)
class Departures:
    """How far one network's head is from a linear one, the largest of all devices."""

    model: Model
    site: str

    def __call__(self, params: Params, given: None, examples: Examples, size: int) -> Array:
        # Spread over all of a device's images, since a path that only some of them take must not be missed.
        return lax.pmax(departure(self.model, self.site, params, blocks.some(examples, size)), DATA)


@dataclasses.dataclass(frozen=True)
class Outgoing:
    """One network's outgoing weights [H, C], the same on every device of a row up to rounding: those of the first."""

    model: Model
    site: str

    def __call__(self, params: Params, given: None, examples: Examples, size: int) -> Array:
        weights = outgoing(self.model, self.site, params, blocks.some(examples, size))
        return lax.psum(jnp.where(lax.axis_index(DATA) == 0, weights, 0), DATA)
