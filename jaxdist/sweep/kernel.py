"""What a sweep computes of one network and one block of examples: the mathematics of the kernel.

A site's value is computed once a block; each point then runs only what comes after that site.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxdist.compute import blocks
from jaxdist.errors import InputError
from jaxdist.networks import Action, CutProgram, Model, Placed, Sites, layouts
from jaxdist.networks import model as networks_model
from jaxdist.perturbations import Drawn, Edit, Target, Toward, of_points
from jaxdist.sweep import averages, metrics, moments
from jaxdist.sweep.averages import Averages
from jaxdist.sweep.metric import Metric
from jaxdist.sweep.moments import DoseMoments, Spread
from jaxdist.types import AnyArray, Params

PLAIN = frozenset({"jit", "pjit", "closed_call", "core_call"})
"""Primitives whose programs are evaluated where they are called, so that a value within them can be handed out."""


class Counts(NamedTuple):
    """Numbers of images, int32; of tokens, those that count, where each has a class."""

    correct: AnyArray  # [S, P] whose largest logit is their label's
    agree: AnyArray  # [S, P] whose largest logit is the unedited network's
    kept: AnyArray  # [S, P] both: correct with the edit and without
    unperturbed: AnyArray  # [S] correct without any edit


class Watch(NamedTuple):
    """Where the activations are whose moments are wanted: a site's values, or what a function makes of them."""

    site: str
    activation: Callable[[Array], Array] | None = None

    def value(self, at_site: Array) -> Array:
        """The activations, float32."""
        return (at_site if self.activation is None else self.activation(at_site)).astype(jnp.float32)


class Measures(NamedTuple):
    """Metrics over examples, M of them."""

    edited: Averages  # [S, P, M] with the edit
    change: Averages  # [S, P, M] with the edit less without, example by example
    unedited: Averages  # [S, M] without any edit
    edited_squared: Averages  # [S, P, M] as `edited`, by the squares of the examples' weights
    change_squared: Averages  # [S, P, M] as `change`, by these
    examples: AnyArray  # [S, M] that have a weight, int32


class Sums(NamedTuple):
    """What a sweep adds up."""

    counts: Counts | None
    """None of a regression, which has no classes."""
    moments: DoseMoments | None
    measures: Measures | None = None
    spread: Spread | None = None


class Predictor(NamedTuple):
    """One network on one block."""

    logits: Array  # without an edit
    before: Array | None  # the watched activations, if any, without an edit
    logits_and_after: Callable[[Mapping[str, Edit]], tuple[Array, Array | None]]
    """From a point's edits, leaves [H], to its logits and its watched activations."""


def predictor(
    model: Model,
    sites: tuple[str, ...],
    params: Params,
    part: blocks.Block,
    edits: Mapping[str, Edit],
    watch: Watch | None = None,
) -> Predictor:
    """What one network makes of one block.

    What no edit changes is computed once; a point computes the rest. Where the watched site has several calls, or lies
    in a loop and the like, a point computes the whole network: the activations of all calls and iterations are watched,
    with what edits of earlier ones have made of them.

    Args:
      model: the network's function.
      sites: keys of those that are edited.
      params: of one network.
      part: the block, n examples.
      edits: by site, those of all points, leaves [P, H].
      watch: the activations that are wanted.

    Raises:
      InputError: while tracing, as `site_splits.split` does.
    """
    several = watch is not None and _is_several(networks_model.trace(model, params, part.x), watch.site)
    keys = [*sites, *([watch.site] if watch and not several and watch.site not in sites else [])]
    cut, residuals = cut_block(model, params, part, keys)
    drawn = _drawn(model, params, part, edits, sites)
    targets = _targets(model, params, part, edits)

    def logits_and_after(point: Mapping[str, Edit]) -> tuple[Array, Array | None]:
        seen: list[Array] = []

        def action(site: str, toward: Callable[[Array], Array] | None = None) -> Action:
            axis = model.axis_of(site)

            def act(value: Array) -> Array:
                edit = point.get(site)
                if isinstance(edit, Toward) and toward is not None:
                    value = edit.toward(value, toward(value), axis)
                elif site in drawn and isinstance(edit, Drawn):
                    value = edit.apply_drawn(value, drawn[site], axis)
                elif edit is not None:
                    value = edit.apply(value, part.number, axis)
                if watch and site == watch.site and not several:
                    seen.append(watch.value(value))
                return value

            return act

        def placed(site: str, which: Array) -> Placed:
            def at(call: int | None, iterations: tuple[Any, ...]) -> Action:
                return action(site, functools.partial(_picked, site, targets[site], which, call, iterations))

            return Placed(at)

        actions = {
            site: placed(site, edit.which) if isinstance(edit := point.get(site), Toward) else action(site)
            for site in cut.marks
        }
        if watch and several:
            logits, values = networks_model.read(model, params, part.x, [watch.site], actions)
            return logits, watch.value(values[watch.site])
        logits = cut.after(residuals, actions)
        return logits, seen[0] if seen else None

    logits, before = logits_and_after({})
    return Predictor(logits, before, logits_and_after)


def cut_block(model: Model, params: Params, part: blocks.Block, keys: Sequence[str]) -> tuple[CutProgram, list[Any]]:
    """A program cut at some sites, and what its second part needs of the first, on the inputs that a block needs.

    Args:
      model: the network's function.
      params: of one network.
      part: the block, n examples.
      keys: of the sites.

    Raises:
      InputError: while tracing, as `site_splits.split` does.
    """
    full_cut = networks_model.cut(model, params, part.x, keys)

    def before(x: Any) -> list[Any]:
        # Fewer inputs have a program of their own, which hands over the same.
        cut = full_cut if x is part.x else networks_model.cut(model, params, x, keys)
        return cut.before(params, x)

    return full_cut, part.with_inputs(before)


def _is_several(sites: Sites, site: str) -> bool:
    """Whether a site's values are several arrays, or are made within a program that hands out no array but its own."""
    calls = sites.of(site)
    return len(calls) > 1 or any(not PLAIN.issuperset(call.inside) for call in calls)


def _targets(
    model: Model, params: Params, part: blocks.Block, edits: Mapping[str, Edit]
) -> dict[str, tuple[Array, ...]]:
    """What values are led towards, by site: of each call [draws, ...], iterations in front of the value's axes.

    Those of other examples come from the unedited network on these, of which the part before the sites is left.
    """
    aimed = {site: edit for site, edit in edits.items() if isinstance(edit, Toward)}
    targets = {site: edit.shared for site, edit in aimed.items() if edit.of == "mean"}

    def read_targets(x: Any, of: Target) -> dict[str, tuple[Array, ...]]:
        return networks_model.read_each(model, params, x, [site for site, edit in aimed.items() if edit.of == of])

    orders = [edit.shared for edit in aimed.values() if edit.of == "example"]
    if orders:
        rows = part.rows
        assert rows is not None
        number = jnp.minimum(part.number, orders[0].shape[-1] - 1)  # rows that are not valid may lie behind the end
        targets |= lax.map(lambda order: read_targets(rows(order[number]), "example"), orders[0])
    if any(edit.of == "source" for edit in aimed.values()):
        targets |= jax.tree.map(lambda value: value[None], read_targets(part.source, "source"))
    return targets


def _picked(
    site: str,
    targets: tuple[Array, ...],
    which: Array,
    call: int | None,
    iterations: tuple[Any, ...],
    value: Array,
) -> Array:
    """The target [n, ...] of a value in one call and iteration, of those of a draw.

    Raises:
      InputError: where it is not known which call it is.
    """
    if call is None and len(targets) > 1:
        raise InputError(
            f"site '{site}': the network takes derivatives through it and calls it several times, so it is not known "
            "which values of another input belong to which call; choose another site, or a family such as 'mean'"
        )
    target = lax.dynamic_index_in_dim(targets[0 if len(targets) == 1 else call or 0], which, keepdims=False)
    for number in iterations[: target.ndim - value.ndim]:
        target = lax.dynamic_index_in_dim(target, number, keepdims=False)
    return target


def _drawn(
    model: Model, params: Params, part: blocks.Block, edits: Mapping[str, Edit], sites: tuple[str, ...]
) -> dict[str, Array]:
    """The random numbers of edits whose points share them, by site.

    Those of a site in a loop, or of several calls, are drawn where they act: in each iteration and call the same.
    """
    drawing = {site: edit for site in sites if isinstance(edit := edits[site], Drawn)}
    if not drawing:
        return {}
    listed = networks_model.trace(model, params, part.x)
    single = {
        site: edit for site, edit in drawing.items() if len(listed.of(site)) == 1 and not listed.of(site)[0].loops
    }
    values = networks_model.read(model, params, part.x, single)[1]
    return {site: edit.draw(values[site], part.number, model.axis_of(site)) for site, edit in single.items()}


def block_sums(
    model: Model,
    sites: tuple[str, ...],
    params: Params,
    edits: Mapping[str, Edit],
    part: blocks.Block,
    *,
    watch: Watch | None = None,
    factors: Array | None = None,
    weights: Array | None = None,
    measured: tuple[Metric, ...] = (),
    together: int = 1,
) -> Sums:
    """Count one block of examples for one network at every point.

    Args:
      model: the network's function.
      sites: keys of those that are edited.
      params: of one network.
      edits: by site, leaves [P, H].
      part: the block, n examples.
      watch: the activations whose moments are wanted; those of a rehearsal are of all rows.
      factors: [P], the multiples of the unedited activations that moments are about.
      weights: [H] of the watched units, where it is wanted how an edit's energy spreads over the examples.
      measured: metrics to average, M of them.
      together: points that are computed at once.
    """
    logits, before, logits_and_after = predictor(model, sites, params, part, edits, watch)
    chex.assert_equal_shape([part.valid, part.number])
    chex.assert_tree_shape_prefix([part.y, part.valid], part.valid.shape)
    each = {site: of_points(edit) for site, edit in edits.items()}
    chex.assert_tree_shape_prefix(each, jax.tree.leaves(each)[0].shape[:1])
    expected = None if model.task == "regression" else expected_classes(model.classes(logits), part)
    # A rehearsal's moments are of all rows.
    all_or_valid = part.valid | ~part.counted
    axis = model.axis_of(watch.site) if watch else 0
    rows = None if before is None else blocks.rows_of(all_or_valid, before, axis).astype(jnp.float32)

    if measured:
        outputs = model.outputs(logits)
        numbers, shares = metrics.of_block(measured, outputs, outputs, part)

    def measures(edited: Array) -> tuple[Averages, ...]:
        there, shares = metrics.of_block(measured, model.outputs(edited), outputs, part)
        both = (there, there - numbers)
        return tuple(averages.of_values(values, by) for by in (shares, shares * shares) for values in both)

    def point(of: tuple[Mapping[str, Edit], Array | None]) -> tuple[Any, ...]:
        edit, factor = of
        edited, after = logits_and_after(edit)
        counts = None if expected is None else count_equal(model.classes(edited)[None], expected)
        compared = None
        if before is not None and after is not None and factor is not None and rows is not None:
            compared = moments.of_point(before, after, factor, rows, axis)
        spread = None
        if before is not None and after is not None and weights is not None:
            spread = moments.moved(before, after, weights, part.valid, axis)
        return counts, compared, measures(edited) if measured else None, spread

    points = (each, factors)
    turned = layouts.with_transposed_products(point, jax.tree.map(lambda leaf: leaf[0], points))
    counts, compared, averaged, spread = lax.map(turned, points, batch_size=together if together > 1 else None)
    sums = Sums(None, None, spread=None if spread is None else Spread(*spread))
    if expected is not None:
        correct, agree, kept = counts.T
        sums = sums._replace(counts=Counts(correct, agree, kept, jnp.sum(expected[2] >= 0, dtype=jnp.int32)))
    if before is not None and factors is not None and rows is not None:
        of_all = moments.of_block(before, rows, axis)
        sums = sums._replace(moments=DoseMoments(factors, compared[0], compared[1], of_all))
    if measured:
        edited, change, edited_squared, change_squared = averaged
        alone, there = averages.of_values(numbers, shares), jnp.sum(shares != 0, axis=-1, dtype=jnp.int32)
        sums = sums._replace(measures=Measures(edited, change, alone, edited_squared, change_squared, there))
    return sums


def expected_classes(unedited: Array, part: blocks.Block) -> Array:
    """The classes [3, n] that `correct`, `agree` and `kept` count, given those without an edit.

    Or [3, n * T] of tokens. All at once, and no class where a row is not valid, or a token does not count: the fewest
    operations a point.
    """
    rows = jnp.expand_dims(part.valid, tuple(range(1, part.y.ndim)))
    y, counts = part.y.reshape(-1), (rows & (part.y >= 0)).reshape(-1)
    right = jnp.where(unedited == y, y, -1)
    return jnp.where(counts, jnp.stack([y, unedited, right]), -1)


def count_equal(predicted: Array, expected: Array) -> Array:
    """Count where classes are the expected ones, along the last axis."""
    return jnp.sum(predicted == expected, axis=-1, dtype=jnp.int32)
