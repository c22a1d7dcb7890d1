"""The mean of each unit's values over the training examples, and edits that lead there."""

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
        return {site: averages.none((value.shape[self.model.unit_axis],)) for site, value in shapes.items()}

    def update(
        self, state: dict[str, Averages], params: Params, given: None, block: blocks.Block
    ) -> dict[str, Averages]:
        values = networks_model.read(self.model, params, block.x, self.sites)[1]
        return {site: averages.merged(of, self._of(values[site], block.valid)) for site, of in state.items()}

    def _of(self, value: Array, valid: Array) -> Averages:
        weights = jnp.broadcast_to(blocks.rows_of(valid, value, self.model.unit_axis), value.shape)
        units, counts = (
            jnp.moveaxis(each, self.model.unit_axis, 0).reshape(value.shape[self.model.unit_axis], -1)
            for each in (elementwise.single(value).astype(jnp.float32), weights.astype(jnp.float32))
        )
        return averages.of_values(jnp.where(counts > 0, units, 0), counts)

    def merge(self, first: dict[str, Averages], second: dict[str, Averages]) -> dict[str, Averages]:
        return {site: averages.merged(of, second[site]) for site, of in first.items()}

    def result(self, state: dict[str, Averages], total: Array) -> dict[str, Array]:
        return {site: jnp.asarray(of.mean) for site, of in state.items()}


def measure(
    model: Model, params: Params, examples: Examples, sites: tuple[str, ...], *, block: int | None = None
) -> dict[str, np.ndarray]:
    """The means [S, H] of the units of an ensemble's sites.

    Raises:
      InputError: if the model does not reach a site.
    """
    size = sizes.of_block(block, networks_model.sites_for_one(model, params, examples.x, sites))
    means: dict[str, np.ndarray] = over_networks(UnitMeans(model, sites), params, None, examples, size=size)
    return means
