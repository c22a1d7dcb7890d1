"""Reading, editing and replacing named intermediate values of any model function.

A model is a function ``apply(params, x, tap) -> logits`` that passes the value at each of its named sites through
``tap(site, value)`` and goes on with what comes back. It maps a block of examples x[n, ...].
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend import core

from jaxdist.errors import InputError
from jaxdist.types import Apply, Params, Tap

Action = Callable[[Array], Array]
"""Maps a value at a site to one of the same shape and type."""


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


LOGITS = "(logits)"
"""The site at which a model `with_logits` passes its logits."""


@dataclasses.dataclass(frozen=True)
class _WithLogits:
    apply: Apply
    class_axis: int
    axis: int

    def __call__(self, params: Params, x: Array, tap: Tap) -> Array:
        def theirs(site: str, value: Array) -> Array:
            if site == LOGITS:
                raise InputError(f"site '{LOGITS}': edits that restore the logits use this name; give the site another")
            return tap(site, value)

        logits = jnp.moveaxis(self.apply(params, x, theirs), self.class_axis, self.axis)
        return jnp.moveaxis(tap(LOGITS, logits), self.axis, self.class_axis)


def with_logits(model: Model) -> Model:
    """The same model with its logits as a further site, whose units are the classes."""
    apply = _WithLogits(model.apply, model.class_axis, model.unit_axis % 2)
    return dataclasses.replace(model, apply=apply)


class Site(NamedTuple):
    """A named intermediate value: its name, its shape for the given block, and whether it is out of reach.

    It is where the model reaches it within a transformation of its own, such as jax.jit: listed, but neither read nor
    edited.
    """

    name: str
    shape: tuple[int, ...]
    out_of_reach: bool = False

    def __repr__(self) -> str:
        reach = ", out_of_reach=True" if self.out_of_reach else ""
        return f"Site(name={self.name!r}, shape={self.shape}{reach})"


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
    try:
        jax.eval_shape(lambda p, b: apply(p, b, _listing(found, identity)), params, x)
    except InputError:
        raise
    except Exception as error:
        error.add_note(
            f"sites ran apply(params, x, tap) on x of shape {jnp.shape(x)}; params are one network's: of several seeds "
            "that are stacked give one"
        )
        raise
    return tuple(found)


def _listing(found: list[Site], tap: Tap) -> Tap:
    """Note in `found` every site that is reached, and pass the values within reach through `tap`."""
    outside = core.get_opaque_trace_state(convention="flax")

    def noting(site: str, value: Array) -> Array:
        _refuse_unless_named_array(site, value)
        # Within a transformation of the model's own, a value belongs to a trace that ends before the model's does.
        within = core.get_opaque_trace_state(convention="flax") != outside
        found.append(Site(site, value.shape, within))
        return value if within else tap(site, value)

    return noting


_MARK = core.Primitive("jaxdist_site")
"""Marks the value at a site in the program that `check` traces; a primitive of its own, which no model can hold,
whatever names its values and sites have."""


def _same(value: Any, *, site: str) -> Any:  # noqa: ARG001  (the mark's parameter)
    return value


_MARK.def_abstract_eval(_same)


class Sites(tuple[Site, ...]):
    """A model's sites in the order in which it reaches them, with the `program` in which it was traced."""

    program: core.ClosedJaxpr


def trace(apply: Apply, params: Params, x: Array | jax.ShapeDtypeStruct, tap: Tap = identity) -> Sites:
    """List the sites as `sites` does, with the values within reach passed through `tap`; nothing is computed."""
    reached: list[Site] = []
    traced: core.ClosedJaxpr = jax.make_jaxpr(lambda p, b: apply(p, b, _listing(reached, tap)))(params, x)
    listed = Sites(reached)
    listed.program = traced
    return listed


def check(apply: Apply, params: Params, x: Array | jax.ShapeDtypeStruct, names: Iterable[str] = ()) -> Sites:
    """List the sites as `sites` does, and refuse those of `names` that cannot be edited; one trace, nothing computed.

    Raises:
      InputError: if a named site is not reached, is reached twice or within a transformation, if its value is not of
        floating-point numbers, or if the logits do not depend on it; it lists the sites.
    """
    names = tuple(names)
    types: dict[str, jnp.dtype] = {}

    def marking(site: str, value: Array) -> Array:
        if site not in names:
            return value
        types[site] = value.dtype
        marked: Array = _MARK.bind(value, site=site)
        return marked

    found = trace(apply, params, x, marking)
    used = _marked_in_use(found.program.jaxpr)
    for site in names:
        _refuse_unless_editable(site, found)
        if not jnp.issubdtype(types[site], jnp.floating) or types[site].itemsize < 2:
            raise InputError(
                f"site '{site}': its value is of {types[site]}, where edits need floating-point numbers of 16 bits or "
                f"more; take a site whose value is of such, as in front of the step that makes {types[site]} of it"
            )
        if not math.prod(shape_of(site, found)):
            raise InputError(
                f"site '{site}': its value has shape {shape_of(site, found)}, so there is nothing to edit; take a site "
                "with at least one unit"
            )
        if site not in used:
            raise InputError(
                f"site '{site}': its value does not reach the logits, so no edit of it could change them; "
                f"the model's sites are {_listed(found)}"
            )
    return found


def programs(equation: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """The programs within an equation: what it calls, repeats or chooses from."""
    for parameter in equation.params.values():
        for program in parameter if isinstance(parameter, (tuple, list)) else [parameter]:
            inner = program.jaxpr if isinstance(program, core.ClosedJaxpr) else program
            if isinstance(inner, core.Jaxpr):
                yield inner


def equations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """All equations of a traced program, each followed by those of the programs within it."""
    for equation in jaxpr.eqns:
        yield equation
        for program in programs(equation):
            yield from equations(program)


def _marked_in_use(jaxpr: core.Jaxpr) -> set[str]:
    """The marked sites on which the outputs depend; all that goes into an inner jaxpr counts as used by it."""
    needed = {var for var in jaxpr.outvars if not isinstance(var, core.Literal)}
    used = set()
    for equation in reversed(jaxpr.eqns):
        if needed.isdisjoint(equation.outvars):
            continue
        needed.update(var for var in equation.invars if not isinstance(var, core.Literal))
        if equation.primitive is _MARK:
            used.add(equation.params["site"])
    return used


def _refuse_unless_named_array(site: object, value: object) -> None:
    if not isinstance(site, str) or not isinstance(value, (Array, np.ndarray)):
        raise InputError(
            f"tap: expected a site's name and one array, as tap('hidden', value), got {_kind(site)} and {_kind(value)}"
        )


def _kind(value: object) -> str:
    return repr(value) if isinstance(value, str) else f"a {type(value).__name__}"


def _refuse_unless_editable(site: str, found: Sequence[Site]) -> None:
    reached = [one for one in found if one.name == site]
    if not reached:
        problem = (
            f"the model never reaches it; its sites are {_listed(found)}{_meant(site, found)} "
            "(a part under jax.jit hides its own: leave the jit away)"
        )
    elif any(one.out_of_reach for one in reached):
        problem = (
            "the model reaches it within a jax.jit, scan, remat, vmap or grad of its own, where its value cannot be "
            "taken out; leave that transformation away, or take a site outside of it; "
            f"within reach are {_listed([one for one in found if not one.out_of_reach])}"
        )
    elif len(reached) > 1:
        problem = (
            f"the model reaches it {len(reached)} times, as where a module is used twice; its sites are "
            f"{_listed(found)}; give each use a name or a module of its own"
        )
    else:
        return
    raise InputError(f"site '{site}': {problem}")


def _meant(site: str, found: Iterable[Site]) -> str:
    close = difflib.get_close_matches(site, [one.name for one in found], n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _listed(found: Iterable[Site]) -> str:
    return ", ".join(dict.fromkeys(site.name for site in found)) or "none"


def sites_for_one(apply: Apply, params: Params, x: Array, names: Iterable[str] = ()) -> Sites:
    """List the sites as `check` does, of one network of stacked parameters (leading S), with one example's shapes."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)
    return check(apply, one, jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), names)


def shape_of(site: str, found: Iterable[Site]) -> tuple[int, ...]:
    """The shape of a site's value, one of those found."""
    return next(each.shape for each in found if each.name == site)


def edit(apply: Apply, params: Params, x: Array, actions: Mapping[str, Action]) -> Array:
    """Return the logits with each named site's value passed through its action.

    Raises:
      InputError: while tracing, if a named site is not reached, or is reached twice or within a transformation; it
        lists the sites.
    """
    found: list[Site] = []

    def acting(site: str, value: Array) -> Array:
        if site not in actions:
            return value
        result = actions[site](value)
        if (result.shape, result.dtype) != (value.shape, value.dtype):
            raise ValueError(
                f"expected the action at site '{site}' to keep the shape {value.shape} and {value.dtype}, "
                f"got {result.shape} and {result.dtype}"
            )
        return result

    logits = apply(params, x, _listing(found, acting))
    for site in actions:
        _refuse_unless_editable(site, found)
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
