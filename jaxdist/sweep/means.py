"""The mean of each unit's values over the training examples, with all positions or at each one."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdist.compute import Examples, Reducer, blocks, elementwise, over_networks
from jaxdist.networks import Model, sizes
from jaxdist.networks import model as networks_model
from jaxdist.sweep import averages
from jaxdist.sweep.averages import Averages
from jaxdist.types import Params


@dataclasses.dataclass(frozen=True)
class UnitMeans(Reducer):
    """The mean of each unit of one network's sites, over examples and positions, [H] by site."""

    model: Model
    sites: tuple[str, ...]

    def init(self, params: Params, given: None, x: Array) -> dict[str, Averages]:
        shapes = jax.eval_shape(lambda p, x: networks_model.read(self.model, p, x, self.sites)[1], params, x)
        return {site: averages.none((value.shape[self.model.axis_of(site)],)) for site, value in shapes.items()}

    def update(
        self, state: dict[str, Averages], params: Params, given: None, block: blocks.Block
    ) -> dict[str, Averages]:
        values = block.with_inputs(lambda x: networks_model.read(self.model, params, x, self.sites)[1])
        return {
            site: averages.merged(of, self._of(values[site], block.valid, self.model.axis_of(site)))
            for site, of in state.items()
        }

    @staticmethod
    def _of(value: Array, valid: Array, axis: int) -> Averages:
        weights = jnp.broadcast_to(blocks.rows_of(valid, value, axis), value.shape)
        units, counts = (
            jnp.moveaxis(each, axis, 0).reshape(value.shape[axis], -1)
            for each in (elementwise.single(value).astype(jnp.float32), weights.astype(jnp.float32))
        )
        return averages.of_values(jnp.where(counts > 0, units, 0), counts)

    def merge(self, first: dict[str, Averages], second: dict[str, Averages]) -> dict[str, Averages]:
        return {site: averages.merged(of, second[site]) for site, of in first.items()}

    def result(self, state: dict[str, Averages], total: Array) -> dict[str, Array]:
        return {site: jnp.asarray(of.value) for site, of in state.items()}


def measure(
    model: Model, params: Params, examples: Examples, sites: tuple[str, ...], *, block: int | None = None
) -> dict[str, np.ndarray]:
    """The means [S, H] of the units of an ensemble's sites, by site.

    Args:
      model: the networks' function.
      params: stacked, with a leading S.
      examples: of a split.
      sites: keys of the values.
      block: examples a block; chosen by default.

    Raises:
      InputError: if the model does not reach a site.
    """
    size = sizes.of_block(block, networks_model.sites_for_one(model, params, examples.x, sites))
    means: dict[str, np.ndarray] = over_networks(UnitMeans(model, sites), params, None, examples, size=size)
    return means


@dataclasses.dataclass(frozen=True)
class PositionMeans(Reducer):
    """The mean of one network's values over examples, by site and call: 1 in place of the examples' axis."""

    model: Model
    sites: tuple[str, ...]
    dims: tuple[int, ...]
    """How many axes each site's value has, without those of iterations."""

    def init(self, params: Params, given: None, x: Array) -> dict[str, tuple[Averages, ...]]:
        shapes = jax.eval_shape(lambda p, x: networks_model.read_each(self.model, p, x, self.sites), params, x)
        # Of a single example, so that the shapes are those of means.
        return jax.tree.map(lambda value: averages.none(value.shape), shapes)

    def update(
        self, state: dict[str, tuple[Averages, ...]], params: Params, given: None, block: blocks.Block
    ) -> dict[str, tuple[Averages, ...]]:
        values = networks_model.read_each(self.model, params, block.x, self.sites)
        merged = {}
        for site, dims in zip(self.sites, self.dims, strict=True):
            axis = (1 if self.model.axis_of(site) % dims == 0 else 0) - dims  # of examples, iterations being in front
            merged[site] = tuple(
                averages.merged(of, self._of(value, block.valid, axis))
                for of, value in zip(state[site], values[site], strict=True)
            )
        return merged

    @staticmethod
    def _of(value: Array, valid: Array, axis: int) -> Averages:
        each = jnp.moveaxis(elementwise.single(value).astype(jnp.float32), axis, -1)
        weights = jnp.broadcast_to(valid.astype(jnp.float32), each.shape)
        averaged = averages.of_values(jnp.where(weights > 0, each, 0), weights)
        return Averages(*(jnp.expand_dims(leaf, axis) for leaf in averaged))

    def merge(
        self, first: dict[str, tuple[Averages, ...]], second: dict[str, tuple[Averages, ...]]
    ) -> dict[str, tuple[Averages, ...]]:
        return {
            site: tuple(averages.merged(*pair) for pair in zip(calls, second[site], strict=True))
            for site, calls in first.items()
        }

    def result(self, state: dict[str, tuple[Averages, ...]], total: Array) -> dict[str, tuple[Array, ...]]:
        return {site: tuple(jnp.asarray(of.value)[None] for of in calls) for site, calls in state.items()}


def of_positions(
    model: Model, params: Params, examples: Examples, sites: tuple[str, ...], *, block: int | None = None
) -> dict[str, tuple[np.ndarray, ...]]:
    """The means of an ensemble's values at each position, by site and call: [S, 1, ...], loops' iterations in front.

    Args:
      model: the networks' function.
      params: stacked, with a leading S.
      examples: of a split.
      sites: keys of the values.
      block: examples a block; chosen by default.

    Raises:
      InputError: if the model does not reach a site.
    """
    listed = networks_model.sites_for_one(model, params, examples.x, sites)
    dims = tuple(len(listed.shape(site)) for site in sites)
    means: dict[str, tuple[np.ndarray, ...]] = over_networks(
        PositionMeans(model, sites, dims), params, None, examples, size=sizes.of_block(block, listed)
    )
    return means
