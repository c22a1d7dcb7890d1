"""Each unit edited alone: the sweep's counts, and how far metrics move, unit by unit.

Where a site reaches the logits through its activation and one linear map (`heads`), an edit of unit j changes the
logits by its outgoing weights times the change of its activation: an exact update of rank one. Elsewhere everything
behind the site is computed for every unit and point.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxdist.compute import (
    Examples,
    Reducer,
    blocks,
    fold_blocks,
    over_networks,
)
from jaxdist.errors import InputError
from jaxdist.networks import Model, heads, sizes
from jaxdist.networks import model as networks_model
from jaxdist.perturbations import Edit
from jaxdist.sweep import averages, metrics
from jaxdist.sweep.averages import Averages
from jaxdist.sweep.ensemble_sweep import check_edit
from jaxdist.sweep.kernel import Counts, count_equal, cut_block, expected_classes
from jaxdist.sweep.metric import Metric
from jaxdist.types import Params

Head = Literal["auto", "linear", "full"]


class UnitCounts(NamedTuple):
    """What edits of single units change."""

    counts: Counts  # [S, P, H], without an edit [S]
    change: Averages | None  # [S, P, H, M] of metrics, with the edit less without, example by example


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
    measured: tuple[Metric, ...] = (),
) -> UnitCounts:
    """Count predictions with one unit of a site edited at a time, for stacked parameters (leading S), and fetch them.

    Args:
      edits: leaves [S, P, H], as in `ensemble_sweep.sweep`; unit j's entries are applied while all other units stay.
      head: 'linear' updates the logits by rank one, 'full' computes what follows the site, 'auto' takes the first
        where it is exact. They round differently, so a few counts may differ.
      measured: metrics whose changes are averaged, M of them.

    Returns:
      `correct`, `agree` and `kept` of shape [S, P, H], `unperturbed` [S]. Memory does not grow with N, nor with P and
      H together beyond the counts and changes.

    Raises:
      InputError: if the model does not reach the site, or `head` is 'linear' and the site's is not.
      ValueError: if the edits' leaves do not fit the ensemble and the site.
    """
    listed = networks_model.sites_for_one(model, params, examples.x, [site])
    seeds = jax.tree.leaves(params)[0].shape[0]
    check_edit(model, listed, site, edits, seeds)
    linear = head != "full" and model.task != "tokens" and heads.is_linear(model, params, site, examples)
    if head == "linear" and not linear:
        raise InputError(f"site '{site}': {heads.not_linear(model, site)}; use head 'full' or 'auto'")
    size = sizes.of_block(block, listed)
    measure = SingleUnits(model, site, linear, measured)
    alone: UnitCounts = over_networks(measure, params, edits, examples, size=size, precision=precision)
    return alone


def block_sums(
    model: Model,
    site: str,
    params: Params,
    edits: Edit,
    part: blocks.Block,
    weights: Array | None,
    measured: tuple[Metric, ...] = (),
) -> UnitCounts:
    """Count one block of examples for one network at every point and unit.

    Args:
      model: the network's function.
      site: its key.
      params: of one network.
      edits: of the site, leaves [P, H].
      part: the block, n examples.
      weights: outgoing weights [H, C] to update the logits with, by rank one; None to compute what follows the site.
      measured: metrics whose changes are averaged, M of them.
    """
    cut, residuals = cut_block(model, params, part, [site])
    logits = cut.after(residuals, {})
    expected = expected_classes(model.classes(logits), part)

    if measured:
        outputs = model.outputs(logits)
        numbers, counting = metrics.of_block(measured, outputs, outputs, part)

    def compared(edited: Array) -> tuple[Array, Averages | None]:
        counts = count_equal(model.classes(edited)[None], expected)
        if not measured:
            return counts, None
        there, _ = metrics.of_block(measured, model.outputs(edited), outputs, part)
        return counts, averages.of_values(there - numbers, counting)

    def full(edit: Edit) -> tuple[Array, Averages | None]:
        def unit(j: Array) -> tuple[Array, Averages | None]:
            def edit_unit(value: Array) -> Array:
                changed, axis = edit.apply(value, part.number, model.axis_of(site)), model.axis_of(site) % value.ndim
                return jnp.where(lax.broadcasted_iota(jnp.int32, value.shape, axis) == j, changed, value)

            return compared(cut.after(residuals, {site: edit_unit}))

        return lax.map(unit, jnp.arange(jax.tree.leaves(edit)[0].shape[-1]))

    def update(edit: Edit) -> tuple[Array, Averages | None]:
        edited = edit.apply(value, part.number, model.axis_of(site))
        moved = heads.after(model, site, params, part.x, edited) - before

        def unit(of: tuple[Array, Array]) -> tuple[Array, Averages | None]:
            outgoing, rise = of
            return compared(jnp.moveaxis(rows + outgoing[:, None] * rise[None], 0, model.class_axis))

        return lax.map(unit, (weights, jnp.moveaxis(moved, model.axis_of(site), 0)))

    if weights is not None:
        value = networks_model.read(model, params, part.x, (site,))[1][site]
        before = heads.after(model, site, params, part.x, value)
        rows = jnp.moveaxis(logits, model.class_axis, 0)
    counts, change = lax.map(full if weights is None else update, edits)
    correct, agree, kept = jnp.moveaxis(counts, -1, 0)
    return UnitCounts(Counts(correct, agree, kept, jnp.sum(expected[2] >= 0, dtype=jnp.int32)), change)


@dataclasses.dataclass(frozen=True)
class SingleUnits:
    """The counts, and changes of metrics, of one network with one unit of a site edited at a time."""

    model: Model
    site: str
    linear: bool
    measured: tuple[Metric, ...] = ()

    def __call__(self, params: Params, given: Edit, examples: Examples, size: int) -> UnitCounts:
        weights = heads.outgoing(self.model, self.site, params, blocks.some(examples, 1)) if self.linear else None
        units = _Units(self.model, self.site, self.measured)
        alone: UnitCounts
        (alone,) = fold_blocks((units,), params, (given, weights), examples, size)
        return alone


@dataclasses.dataclass(frozen=True)
class _Units(Reducer):
    model: Model
    site: str
    measured: tuple[Metric, ...]

    def init(self, params: Params, given: tuple[Edit, Array | None], x: Array) -> UnitCounts:
        shape = jax.tree.leaves(given[0])[0].shape
        counts = Counts(*(jnp.zeros(s, jnp.int32) for s in (shape, shape, shape, ())))
        return UnitCounts(counts, averages.none((*shape, len(self.measured))) if self.measured else None)

    def update(
        self, state: UnitCounts, params: Params, given: tuple[Edit, Array | None], block: blocks.Block
    ) -> UnitCounts:
        edits, weights = given
        return self.merge(state, block_sums(self.model, self.site, params, edits, block, weights, self.measured))

    def merge(self, first: UnitCounts, second: UnitCounts) -> UnitCounts:
        counts = Counts(*map(jnp.add, first.counts, second.counts))
        if first.change is None or second.change is None:
            return UnitCounts(counts, None)
        return UnitCounts(counts, averages.merged(first.change, second.change))
