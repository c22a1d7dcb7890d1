"""The sweep: every point, for every network of an ensemble, counted over all examples by the kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxdist.compute import (
    Each,
    Examples,
    Reducer,
    at_once,
    blocks,
    elementwise,
    over_networks,
    to_host,
    tuning,
)
from jaxdist.errors import InputError
from jaxdist.networks import Model, Sites, sizes
from jaxdist.networks import model as networks_model
from jaxdist.perturbations import Edit, Toward, of_units, other_examples
from jaxdist.sweep import averages, moments
from jaxdist.sweep.averages import Averages
from jaxdist.sweep.kernel import Counts, Measures, Sums, Watch, block_sums, count_equal, predictor
from jaxdist.sweep.metric import Metric
from jaxdist.sweep.moments import Spread
from jaxdist.types import AnyArray, Params, Values

Edited: TypeAlias = tuple[Params, Mapping[str, Edit]]
"""An ensemble's stacked parameters and its edits by site, leaves [S, P, H]."""

NO_SOURCE = (
    "there is no source to take values from; pass source=x to probe, with inputs like those of train, and leave "
    "families such as 'patch' out of a config"
)
NO_OTHER = (
    "values of another example need a split of at least two examples, but this one has 1; pass more, or choose "
    "another family"
)
"""Why values of a source, or of another example, cannot be had."""


def sweep(
    model: Model,
    params: Params,
    edits: Mapping[str, Edit],
    examples: Examples,
    *,
    precision: str = "float32",
    block: int | None = None,
) -> Counts:
    """Count correct and unchanged predictions at every point, for stacked parameters (leading S), and fetch the counts.

    There are none to count of a regression, whose metrics `sweep_sums` gives.

    Args:
      edits: by site; leaves [S, P, H]. At each point all of its sites are edited together.
      block: examples a block; chosen by default.

    Memory does not grow with N or P beyond the edits and the counts.

    Raises:
      InputError: if a site cannot be edited (`model.check_editable`).
      ValueError: if there are no edits, or their leaves do not fit the ensemble and the site.
    """
    counted: Sums = sweep_sums(model, params, edits, examples, precision=precision, block=block)
    assert counted.counts is not None, model.task
    return counted.counts


def sweep_sums(
    model: Model,
    params: Params,
    edits: Mapping[str, Edit],
    examples: Examples,
    *,
    watch: Watch | None = None,
    weights: Values | None = None,
    metrics: tuple[Metric, ...] = (),
    precision: str = "float32",
    block: int | None = None,
    each: Each = at_once,
) -> Any:
    """Count as `sweep` does, and fetch `Sums`: with the moments of activations that are watched, and metrics.

    Args:
      model: the networks' function.
      params: stacked, with a leading S.
      edits: by site; leaves [S, P, H]. At each point all of its sites are edited together.
      examples: of a split.
      watch: the activations whose moments are wanted.
      weights: of the watched units [S, H], where `kernel.Sums.spread` is wanted.
      metrics: those that are averaged, M of them.
      precision: of matrix products.
      block: examples a block; chosen by default.
      each: as in `ensemble.over_networks`; what it makes of the networks of each call, joined along S, is returned in
        place of the sums.

    Raises:
      InputError: as `sweep` does.
      ValueError: as `sweep` does.
    """
    sites = networks_model.sites_for_one(model, params, examples.x, (*edits, *([watch.site] if watch else [])))
    if not edits:
        raise ValueError("edits: expected at least one site, got none")
    seeds = jax.tree.leaves(params)[0].shape[0]
    for site, edit in edits.items():
        check_edit(model, sites, site, edit, seeds)
    edits = _aimed(edits, sites, examples)
    measure = Counting(model, tuple(edits), watch, tuning.current().points, metrics)
    work = jax.tree.leaves(dict(edits))[0].shape[1] * examples.y.shape[0]
    size = sizes.of_block(block, sites)
    given = Given(dict(edits), None if weights is None else np.asarray(weights, np.float32))
    return over_networks(measure, params, given, examples, size=size, precision=precision, work=work, each=each)


class Given(NamedTuple):
    """What belongs to each network of a sweep."""

    edits: Mapping[str, Edit]
    """By site, leaves [S, P, H]."""
    weights: AnyArray | None
    """Of the watched units [S, H], where it is wanted how an edit's energy spreads over the examples."""


def check_edit(model: Model, sites: Sites, site: str, edit: Edit, seeds: int) -> None:
    """Refuse an edit that does not fit the ensemble and one of the model's sites.

    Args:
      model: the networks' function.
      sites: the model's, for one example.
      site: the key of the one that is edited.
      edit: leaves [S, P, H].
      seeds: S.

    Raises:
      InputError: if the model does not reach the site.
      ValueError: for leaves of other shapes.
    """
    shape = sites.shape(site)
    units = shape[model.axis_of(site) % len(shape)]  # the logits may have fewer axes than other sites
    for leaf in of_units(edit):
        if leaf.ndim != 3 or (leaf.shape[0], leaf.shape[2]) != (seeds, units):
            raise ValueError(f"edits of site '{site}': expected leaves [{seeds}, P, {units}], got {list(leaf.shape)}")


def _aimed(edits: Mapping[str, Edit], sites: Sites, examples: Examples) -> dict[str, Edit]:
    """The edits, with what those that lead to a network's own values need to find them.

    Raises:
      InputError: without other examples, or a source, and for means of other positions than these examples have.
    """
    aimed = {site: edit for site, edit in edits.items() if isinstance(edit, Toward)}
    others: dict[str, Edit] = {}
    for site, edit in aimed.items():
        if edit.of == "source" and examples.source is None:
            raise InputError(f"site '{site}': {NO_SOURCE}")
        if edit.of == "mean":
            for mean in edit.shared:
                if mean.shape[-len(sites.shape(site)) :] != sites.shape(site):
                    raise InputError(
                        f"site '{site}': the means of each position come from training examples, which have values of "
                        f"shape {mean.shape[-len(sites.shape(site)) :]}, but these have {sites.shape(site)}; use the "
                        "family 'mean', or examples of one size"
                    )
        if edit.of == "example":
            count = int(to_host(examples.total))
            if count == 1:
                raise InputError(f"site '{site}': {NO_OTHER}")
            keys = np.asarray(edit.key)[:, :: edit.key.shape[1] // edit.draws]
            others[site] = dataclasses.replace(edit, shared=other_examples(keys, count=count))
            if not np.array_equal(edit.key, next(iter(aimed.values())).key):
                raise ValueError("edits: expected the same keys at each site, so that one other example is drawn")
    return {**edits, **others}


@dataclasses.dataclass(frozen=True)
class Counting(Reducer):
    """The counts of one network at every point, the moments of what is watched, and metrics."""

    model: Model
    sites: tuple[str, ...]
    watch: Watch | None
    together: int
    """Points that are computed together."""
    metrics: tuple[Metric, ...] = ()

    @property
    def rehearses(self) -> bool:  # type: ignore[override]
        """Moments are about factors, which are chosen by one block."""
        return self.watch is not None

    def init(self, params: Params, given: Given, x: Array) -> Sums:
        points, metrics = jax.tree.leaves(given)[0].shape[0], len(self.metrics)
        counts = Counts(*(jnp.zeros(shape, jnp.int32) for shape in ((points,), (points,), (points,), ())))
        units = _units(self.model, self.watch, params, x) if self.watch else 0
        each, there = averages.none((points, metrics)), jnp.zeros((metrics,), jnp.int32)
        return Sums(
            None if self.model.task == "regression" else counts,
            moments.none(points, units) if self.watch else None,
            Measures(each, each, averages.none((metrics,)), each, each, there) if metrics else None,
            None if given.weights is None else Spread(*(jnp.zeros(points, jnp.float32) for _ in Spread._fields)),
        )

    def update(self, state: Sums, params: Params, given: Given, block: blocks.Block) -> Sums:
        factors = None if state.moments is None else jnp.asarray(state.moments.factor)
        sums = block_sums(
            self.model,
            self.sites,
            params,
            given.edits,
            block,
            watch=self.watch,
            factors=factors,
            weights=None if given.weights is None else jnp.asarray(given.weights),
            measured=self.metrics,
            together=self.together,
        )
        both = _merged(state, sums)
        if state.moments is None or sums.moments is None:
            return both
        return both._replace(moments=moments.added(state.moments, sums.moments, block.counted))

    def merge(self, first: Sums, second: Sums) -> Sums:
        both = _merged(first, second)
        if first.moments is None or second.moments is None:
            return both
        return both._replace(moments=moments.merged(first.moments, second.moments))


def _merged(first: Sums, second: Sums) -> Sums:
    """The counts, metrics and spread of both."""
    counts, spread = (
        jax.tree.map(jnp.add, *pair) for pair in ((first.counts, second.counts), (first.spread, second.spread))
    )
    if first.measures is None or second.measures is None:
        return Sums(counts, None, spread=spread)
    both: Any = zip(first.measures, second.measures, strict=True)
    each: list[Any] = [averages.merged(*p) if isinstance(p[0], Averages) else jnp.add(*p) for p in both]
    return Sums(counts, None, Measures(*each), spread)


def _units(model: Model, watch: Watch, params: Params, x: Array) -> int:
    """How many units the watched activations have."""

    def activations(params: Params, x: Array) -> Array:
        return watch.value(networks_model.read(model, params, x, (watch.site,))[1][watch.site])

    return jax.eval_shape(activations, params, x).shape[model.axis_of(watch.site)]


def matches(
    model: Model, first: Edited, second: Edited, examples: tuple[Examples, Examples], *, block: int | None = None
) -> np.ndarray:
    """Count the images [S, P] to which two ensembles, each with its own edits, give the same class at each point.

    Everything is in float32.

    Args:
      model: the networks' function.
      first, second: each an ensemble's stacked parameters with its edits by site, leaves [S, P, H]. Seeds are taken in
        pairs, and the edits are of the same sites.
      examples: the same images in each ensemble's own scaling, laid out in order on one mesh.
      block: examples a block; chosen by default.

    Raises:
      InputError: if a site cannot be edited (`model.check_editable`).
    """
    # Two orders would pair different images, and no width fits both.
    assert not any(each.widths for each in examples), "matches needs images in their own order"
    both = dataclasses.replace(examples[0], x=(examples[0].x, examples[1].x))
    sites = networks_model.sites_for_one(model, first[0], examples[0].x, first[1])
    work = jax.tree.leaves(dict(first[1]))[0].shape[1] * examples[0].y.shape[0]
    size = sizes.of_block(block, sites)
    return np.asarray(
        over_networks(Matching(model, tuple(first[1])), (first, second), None, both, size=size, work=work)
    )


@dataclasses.dataclass(frozen=True)
class Matching(Reducer):
    """The images [P] to which two networks, each with its own edits, give the same class at each point."""

    model: Model
    sites: tuple[str, ...]

    def init(self, params: tuple[Edited, Edited], given: None, x: Any) -> Array:
        return jnp.zeros(jax.tree.leaves(params[0][1])[0].shape[0], jnp.int32)

    def update(self, state: Array, params: tuple[Edited, Edited], given: None, block: blocks.Block) -> Array:
        first, second = (
            predictor(self.model, self.sites, weights, block._replace(x=x), site_edits).logits_and_after
            for (weights, site_edits), x in zip(params, block.x, strict=True)
        )

        def agree(edit: tuple[Mapping[str, Edit], Mapping[str, Edit]]) -> Array:
            classes, other = (
                elementwise.argmax(logits(of)[0], self.model.class_axis)
                for logits, of in zip((first, second), edit, strict=True)
            )
            return count_equal(classes, jnp.where(block.valid, other, -1))

        return state + lax.map(agree, (params[0][1], params[1][1]))
