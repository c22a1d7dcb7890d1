"""Each unit edited alone: the sweep's counts, unit by unit.

Where a site reaches the logits through its activation and one linear map (`heads`), an edit of unit j changes the
logits by its outgoing weights times the change of its activation: an exact update of rank one. Elsewhere everything
behind the site is computed for every unit and point.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxdist.compute import (
    Examples,
    Reducer,
    blocks,
    elementwise,
    fold_blocks,
    over_networks,
)
from jaxdist.errors import InputError
from jaxdist.networks import Model, heads, sizes
from jaxdist.networks import model as networks_model
from jaxdist.perturbations import Edit
from jaxdist.sweep.ensemble_sweep import check_edit
from jaxdist.sweep.kernel import Counts, equal, wanted
from jaxdist.types import Params

Head = Literal["auto", "linear", "full"]


def sweep(
    model: Model,
    params: Params,
    site: str,
    edits: Edit,
    examples: Examples,
    *,
    head: Head = "auto",
    precision: str = "float32",
    block: int | None = None,
) -> Counts:
    """Count predictions with one unit of a site edited at a time, for stacked parameters (leading S), and fetch them.

    Args:
      edits: leaves [S, P, H], as in `ensemble_sweep.sweep`; unit j's entries are applied while all other units stay.
      head: 'linear' updates the logits by rank one, 'full' computes what follows the site, 'auto' takes the first
        where it is exact. They round differently, so a few counts may differ.

    Returns:
      `correct`, `agree` and `kept` of shape [S, P, H], `unperturbed` [S]. Memory does not grow with N, nor with P and
      H together beyond the counts.

    Raises:
      InputError: if the model does not reach the site, or `head` is 'linear' and the site's is not.
      ValueError: if the edits' leaves do not fit the ensemble and the site.
    """
    found = networks_model.sites_for_one(model, params, examples.x, [site])
    seeds = jax.tree.leaves(params)[0].shape[0]
    check_edit(model, found, site, edits, seeds)
    linear = head != "full" and model.task != "tokens" and heads.is_linear(model, params, site, examples)
    if head == "linear" and not linear:
        raise InputError(f"site '{site}': {heads.not_linear(model, site)}; use head 'full' or 'auto'")
    size = sizes.of_block(block, found)
    counts: Counts = over_networks(Single(model, site, linear), params, edits, examples, size=size, precision=precision)
    return counts


def block_counts(
    model: Model, site: str, params: Params, edits: Edit, part: blocks.Block, weights: Array | None
) -> Counts:
    """Count one block of examples for one network at every point and unit; edit leaves [P, H].

    With outgoing weights [H, C] the logits are updated by rank one.
    """
    cut = networks_model.cut(model, params, part.x, [site])
    residuals = cut.before(params, part.x)
    logits = cut.after(residuals, {})
    expected = wanted(model.classes(logits), part)

    def full(edit: Edit) -> Array:
        def unit(j: Array) -> Array:
            def alone(value: Array) -> Array:
                changed, axis = edit.apply(value, part.number, model.axis_of(site)), model.axis_of(site) % value.ndim
                return jnp.where(lax.broadcasted_iota(jnp.int32, value.shape, axis) == j, changed, value)

            edited = cut.after(residuals, {site: alone})
            return equal(model.classes(edited)[None], expected)

        return lax.map(unit, jnp.arange(jax.tree.leaves(edit)[0].shape[-1]))

    def update(edit: Edit) -> Array:
        edited = edit.apply(value, part.number, model.axis_of(site))
        moved = heads.after(model, site, params, part.x, edited) - before

        def unit(of: tuple[Array, Array]) -> Array:
            outgoing, rise = of
            return equal(elementwise.argmax(rows + outgoing[:, None] * rise[None], 0)[None], expected)

        return lax.map(unit, (weights, jnp.moveaxis(moved, model.axis_of(site), 0)))

    if weights is not None:
        value = networks_model.read(model, params, part.x, (site,))[1][site]
        before = heads.after(model, site, params, part.x, value)
        rows = jnp.moveaxis(logits, model.class_axis, 0)
    counts = lax.map(full if weights is None else update, edits)
    correct, agree, kept = jnp.moveaxis(counts, -1, 0)
    return Counts(correct, agree, kept, jnp.sum(expected[2] >= 0, dtype=jnp.int32))


@dataclasses.dataclass(frozen=True)
class Single:
    """The counts of one network with one unit of a site edited at a time."""

    model: Model
    site: str
    linear: bool

    def __call__(self, params: Params, given: Edit, examples: Examples, size: int) -> Counts:
        weights = heads.outgoing(self.model, self.site, params, blocks.some(examples, 1)) if self.linear else None
        counts: Counts
        (counts,) = fold_blocks((_Units(self.model, self.site),), params, (given, weights), examples, size)
        return counts


@dataclasses.dataclass(frozen=True)
class _Units(Reducer):
    model: Model
    site: str

    def init(self, params: Params, given: tuple[Edit, Array | None], x: Array) -> Counts:
        shape = jax.tree.leaves(given[0])[0].shape
        return Counts(*(jnp.zeros(s, jnp.int32) for s in (shape, shape, shape, ())))

    def update(self, state: Counts, params: Params, given: tuple[Edit, Array | None], block: blocks.Block) -> Counts:
        edits, weights = given
        return jax.tree.map(jnp.add, state, block_counts(self.model, self.site, params, edits, block, weights))
