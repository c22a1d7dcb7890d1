"""Edits that leave the mean logits as they are: what an edit adds to every image's logits alike is taken away again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Float32

from jaxdist.compute import (
    Each,
    Examples,
    Reducer,
    at_once,
    blocks,
    elementwise,
    over_networks,
)
from jaxdist.networks import Model, sizes
from jaxdist.networks import model as networks_model
from jaxdist.perturbations import Affine, Edit
from jaxdist.sweep.kernel import predictor
from jaxdist.types import Params


@dataclasses.dataclass(frozen=True)
class MeanMoves(Reducer):
    """How far edits move each class's mean logit of one network, [P, C]."""

    model: Model
    sites: tuple[str, ...]

    def init(self, params: Params, given: Mapping[str, Edit], x: Array) -> Array:
        logits = jax.eval_shape(self.model.logits, params, x)
        return jnp.zeros((jax.tree.leaves(given)[0].shape[0], logits.shape[self.model.class_axis]), jnp.float32)

    def update(self, state: Array, params: Params, given: Mapping[str, Edit], block: blocks.Block) -> Array:
        logits, _, logits_and_after = predictor(self.model, self.sites, params, block, given)

        def point(edit: Mapping[str, Edit]) -> Array:
            # Class by class of the difference, which is small where the edit is.
            difference = elementwise.single(logits_and_after(edit)[0]) - elementwise.single(logits)
            moved = jnp.moveaxis(difference, self.model.class_axis, 0)
            return jnp.where(block.valid, moved, 0).astype(jnp.float32).sum(1)

        return state + lax.map(point, given)

    def result(self, state: Array, total: Array) -> Array:
        return state / total.astype(jnp.float32)


def moved(
    model: Model,
    params: Params,
    edits: Mapping[str, Edit],
    examples: Examples,
    *,
    precision: str = "float32",
    block: int | None = None,
    each: Each = at_once,
) -> Float32[np.ndarray, "S P C"]:
    """How far edits move each class's mean logit over the examples, [S, P, C].

    Args:
      model: the networks' function.
      params: stacked, with a leading S.
      edits: by site, leaves [S, P, H], of at least one site.
      examples: of a split.
      precision: of matrix products.
      block: examples a block; chosen by default.
      each: as in `ensemble.over_networks`.

    Raises:
      InputError: if a site cannot be edited (`model.check_editable`).
    """
    listed = networks_model.sites_for_one(model, params, examples.x, edits)
    measure = MeanMoves(model, tuple(edits))
    work = jax.tree.leaves(dict(edits))[0].shape[1] * examples.y.shape[0]
    size = sizes.of_block(block, listed)
    moves = over_networks(measure, params, dict(edits), examples, size=size, precision=precision, work=work, each=each)
    return np.asarray(moves)


def undone(moved: Float[np.ndarray, "S P C"]) -> Affine:
    """The edit of the logits, at `model.LOGITS` of a `model.with_logits`, that takes moves [S, P, C] back."""
    back = -moved
    infinite = np.full_like(back, np.inf)
    return Affine(*map(jnp.asarray, (np.ones_like(back), back, -infinite, infinite)))
