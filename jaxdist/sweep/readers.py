"""What the edits of a layer's small and large activations do to what reads them: trained, permuted, or untrained.

A collapse moves activations in a common direction: those of one unit all towards one value. Beside each stands the same
edit with random signs, which moves every activation as far and has no direction. How much sooner a reader notices the
one than the other tells of the reader only where it is compared with readers of the same activations that have learned
nothing: the same output weights, put to other units.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdist.compute import Examples, to_host
from jaxdist.errors import InputError
from jaxdist.networks import Model
from jaxdist.perturbations import Fill, Signed, collapse_families, families
from jaxdist.sweep import doses, ensemble_sweep
from jaxdist.sweep.kernel import Sums, Watch
from jaxdist.types import PRNG, AnyArray, Params, Values

TRAINED, BEFORE, FIRST_BEFORE, PERMUTED = "trained", "before", "first layers before", "permuted"
"""What readers are: those with permuted weights are numbered, each with a space before its number."""

EDITS = ("small", "large")
"""The collapses, of a unit's small activations and of its large ones."""

FAMILIES = tuple(f"collapse_{edit}" for edit in EDITS)
"""Their names."""


class Reader(NamedTuple):
    """Networks whose last layers read what their earlier ones make."""

    params: Params
    """Stacked, with a leading S."""
    first: str
    """Readers with the same have the same layers up to the site."""


class Curves(NamedTuple):
    """What each edit does to a reader, [S, edits, draws, P]: of draw 0 the edit itself, then with random signs."""

    flips: Values
    """Share of examples whose class changes."""
    dose: Values
    """Angular, of the reader's own outgoing weights."""
    participation: Values
    """``(sum e)^2 / (N sum e^2)`` of what is moved of each example, e: 1 where all are moved alike, 1 / N for one."""
    correct: AnyArray
    """How many examples the unedited networks are right on [S]."""


def permuted(params: Params, layer: str, keys: AnyArray) -> Params:
    """The same networks with the columns of a layer's weights [S, C, H] put to other units, by keys' data [S, 2]."""
    weight = jnp.asarray(params[layer]["weight"])

    def shuffled(key: jax.Array, weight: jax.Array) -> jax.Array:
        order = jax.random.permutation(jax.random.wrap_key_data(key, impl=PRNG), weight.shape[1])
        return weight[:, order]

    return {**params, layer: {**params[layer], "weight": np.asarray(jax.vmap(shuffled)(jnp.asarray(keys), weight))}}


def measure(
    model: Model,
    readers: Mapping[str, Reader],
    sites: tuple[str, str],
    examples: tuple[Examples, Examples],
    fractions: Values,
    numbers: Sequence[int],
    *,
    draws: int,
    tell: Callable[[int, int, str], None],
    block: int | None = None,
) -> dict[str, Curves]:
    """The curves of every reader, with the same signs for the same number of a network.

    Args:
      model: the networks' function.
      readers: by name.
      sites: keys of the units' preactivations, from which the outgoing weights are found, and of their activations.
      examples: training examples, on which thresholds and means are measured, and those that are counted.
      fractions: shares of each unit's variance to erase [P], above 0.
      numbers: what each network's random signs depend on [S].
      draws: of signs, K.
      tell: is called with what is done, of how many, and the reader's name.
      block: examples a block; chosen by default.

    Raises:
      InputError: as `collapse_families.measure` and `ensemble_sweep.sweep_sums` do, and where the activations do not
        reach the logits by one linear map.
    """
    before, site = sites
    training, counted = examples
    total, points = int(to_host(counted.total)), len(fractions)
    keys = jnp.repeat(jnp.asarray(families.keys("signs of collapses", numbers, 1 + draws)), points, axis=1)
    which = jnp.broadcast_to(jnp.repeat(jnp.arange(1 + draws, dtype=jnp.int32), points), keys.shape[:2])
    ends: dict[tuple[str, str], tuple[AnyArray, AnyArray]] = {}
    sides: dict[str, list[tuple[Values, ...]]] = {}
    correct: dict[str, AnyArray] = {}
    squares_of: dict[str, Values] = {}
    steps = list(itertools.product(readers.items(), EDITS))
    for k, ((name, reader), side) in enumerate(steps):
        tell(k, len(steps), name)
        large = side == "large"
        if name not in squares_of:
            weights = doses.weights(model, reader.params, before, Watch(site), training)
            if not weights.outgoing:
                raise InputError(
                    f"site '{before}': what follows it is no activation and linear map, so that its units have no "
                    "outgoing weights to compare readers by"
                )
            squares_of[name] = weights.squared
        squared = squares_of[name]
        if (reader.first, side) not in ends:
            wanted = np.broadcast_to(np.asarray(fractions)[None, :, None], (len(numbers), points, squared.shape[1]))
            ends[reader.first, side] = collapse_families.measure(
                model, reader.params, training, site, wanted, large=large, block=block
            )
        # Draw after draw, each at all points.
        threshold, fill = (jnp.tile(jnp.asarray(end), (1, 1 + draws, 1)) for end in ends[reader.first, side])
        edit = Signed(Fill(threshold, fill, large=large), keys, which, 1 + draws)
        # Only what units count for beside each other matters to how an edit's energy spreads.
        shares = squared / np.maximum(squared.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        sums: Sums = ensemble_sweep.sweep_sums(
            model, reader.params, {site: edit}, counted, watch=Watch(site), weights=shares, block=block
        )
        assert sums.counts is not None
        assert sums.moments is not None
        assert sums.spread is not None
        moved, squares = (np.asarray(leaf, np.float64) for leaf in sums.spread)
        with np.errstate(invalid="ignore"):
            participation = np.where(squares > 0, moved**2 / (total * squares), np.nan)
        flips = 1 - np.asarray(sums.counts.agree, np.float64) / total
        angular = doses.of(sums.moments, squared).angular
        each = (array.reshape(len(numbers), 1, 1 + draws, points) for array in (flips, angular, participation))
        sides.setdefault(name, []).append(tuple(each))
        correct[name] = np.asarray(sums.counts.unperturbed)
    tell(len(steps), len(steps), "")
    joined = {name: [np.concatenate(each, axis=1) for each in zip(*both, strict=True)] for name, both in sides.items()}
    return {
        name: Curves(flips, dose, participation, correct[name]) for name, (flips, dose, participation) in joined.items()
    }
