"""Reading, editing and replacing named intermediate values of any model function.

A model is a function ``apply(params, x, tap) -> logits`` that passes the value at each of its named sites through
``tap(site, value)`` and goes on with what comes back. It maps a block of examples x[n, ...].
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
from jax import Array

from jaxdist.errors import InputError
from jaxdist.types import Apply, Params

Action = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Model:
    """A model function with the layout of its values; hashable, so that equal models share compiled programs.

    `post` says what follows a site, where something needs the value behind it: the activation as a function, or the
    name of the site at which the model passes its value. The axes are those of units in a site's value and of classes
    in the logits; the defaults are Flax's ([n, ..., H] and [n, C]).
    """

    apply: Apply
    post: tuple[tuple[str, Action | str], ...] = ()
    unit_axis: int = -1
    class_axis: int = -1

    def after(self, site: str) -> Action | str | None:
        """What follows `site`, if the model says so: a function, or a site."""
        return dict(self.post).get(site)


class Site(NamedTuple):
    """A named intermediate value: its name, and its shape for the given block."""

    name: str
    shape: tuple[int, ...]


def identity(site: str, value: Array) -> Array:  # noqa: ARG001  (the form of every tap)
    """The tap that changes nothing."""
    return value


def sites(apply: Apply, params: Params, x: Array | jax.ShapeDtypeStruct) -> tuple[Site, ...]:
    """List the model's sites in the order in which it reaches them; nothing is computed.

    >>> import jax.numpy as jnp
    >>> sites(lambda w, x, tap: tap("hidden", x @ w), jnp.ones((3, 2)), jnp.ones((5, 3)))
    (Site(name='hidden', shape=(5, 2)),)
    """
    found: list[Site] = []

    def tap(site: str, value: Array) -> Array:
        found.append(Site(site, value.shape))
        return value

    jax.eval_shape(lambda p, b: apply(p, b, tap), params, x)
    return tuple(found)


def sites_for_one(apply: Apply, params: Params, x: Array) -> tuple[Site, ...]:
    """List the sites as `sites` does, of one network of stacked parameters (leading S), with one example's shapes."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)
    return sites(apply, one, jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype))


def widest(found: Iterable[Site]) -> int:
    """The most values at any of the sites."""
    return max((math.prod(site.shape) for site in found), default=1)


def edit(apply: Apply, params: Params, x: Array, actions: Mapping[str, Action]) -> Array:
    """Return the logits with each named site's value passed through its action.

    Raises:
      InputError: while tracing, if a named site is not reached or is reached twice; it lists the sites.
    """
    reached: Counter[str] = Counter()

    def tap(site: str, value: Array) -> Array:
        reached[site] += 1
        if site not in actions:
            return value
        result = actions[site](value)
        if result.shape != value.shape:
            raise ValueError(
                f"expected the action at site '{site}' to keep the shape {value.shape}, got {result.shape}"
            )
        return result

    logits = apply(params, x, tap)
    for site in actions:
        if reached[site] != 1:
            times = "never reaches it" if not reached[site] else f"reaches it {reached[site]} times"
            raise InputError(f"site '{site}': the model {times}; its sites are {', '.join(reached) or 'none'}")
    return logits


def replace(apply: Apply, params: Params, x: Array, values: Mapping[str, Array]) -> Array:
    """Return the logits with the values at the named sites replaced; raises as `edit` does.

    What computes a replaced value falls away in compilation, while x, still passed, keeps every other path from the
    input right.
    """
    return edit(apply, params, x, {site: functools.partial(_ignoring, value) for site, value in values.items()})


def _ignoring(value: Array, _: Array) -> Array:
    return value


def read(apply: Apply, params: Params, x: Array, names: Iterable[str]) -> tuple[Array, dict[str, Array]]:
    """Return the logits and the values at the named sites; raises as `edit` does."""
    values: dict[str, Array] = {}

    def keep(site: str) -> Action:
        def action(value: Array) -> Array:
            values[site] = value
            return value

        return action

    logits = edit(apply, params, x, {site: keep(site) for site in names})
    return logits, values


def read_behind(
    model: Model, params: Params, x: Array, names: Iterable[str]
) -> tuple[Array, dict[str, Array], dict[str, Array]]:
    """Return the logits, the values at the named sites, and those behind the activations that follow them.

    A site is missing from the last where the model does not say what follows it. Raises as `edit` does.
    """
    names = tuple(names)
    after = {site: follows for site in names if (follows := model.after(site)) is not None}
    elsewhere = [follows for follows in after.values() if isinstance(follows, str)]
    logits, values = read(model.apply, params, x, dict.fromkeys([*names, *elsewhere]))
    behind = {
        site: values[follows] if isinstance(follows, str) else follows(values[site]) for site, follows in after.items()
    }
    return logits, {site: values[site] for site in names}, behind
