"""A network whose named values can be read and edited, with the layout of its values: what everything measures.

Values that are read have examples on their first axis, or on the second where units are on the first. A site in a loop
has a value for each iteration, and one that is called several times a value for each call: these lie along axes of
their own, after that of examples where the model's axis of units is counted from the last, at the end where it is
counted from the first. An edit acts on each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend import core

from jaxdist.compute import elementwise
from jaxdist.config import Task
from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.networks import site_splits, site_values
from jaxdist.networks.site_primitives import site
from jaxdist.networks.site_programs import Action as Action
from jaxdist.networks.site_programs import Placed as Placed
from jaxdist.networks.site_splits import CutProgram as CutProgram
from jaxdist.networks.site_values import Site, Traced
from jaxdist.registry import kind_of
from jaxdist.types import Apply, Params

Output = str | int | Callable[[Any], Array]


@dataclasses.dataclass(frozen=True)
class Model:
    """A network's function with the layout of its values; hashable, so that equal models share compiled programs.

    `post` says what follows a site, where something needs the value after it: the activation as a function, or the
    name of the site that holds it. The axes are those of units in a site's value and of classes in the logits; the
    defaults are Flax's ([n, ..., H] and [n, C]); `axes` names sites whose units are on another axis than the rest's.
    Where the function returns more than logits, `output` picks them: a key or an attribute's name, a position, or a
    function. Its logits are [n, C] whatever `task` is, but for a class a token, [n, T, C]: those of a single logit z
    are 0 and z, and a regression's outputs are [n, K].
    """

    apply: Apply
    post: tuple[tuple[str, Action | str], ...] = ()
    unit_axis: int = -1
    class_axis: int = -1
    output: Output | None = None
    axes: tuple[tuple[str, int], ...] = ()
    task: Task = "classes"

    def after(self, key: str) -> Action | str | None:
        """What follows the values of a key, if the model says so: a function, or a site in the same call of it."""
        follows, own = of_key(dict(self.post), key), site_values.parsed(key)
        if not isinstance(follows, str) or key in dict(self.post) or follows == own.name:
            return follows
        other = site_values.parsed(follows)
        return site_values.written(own._replace(name=other.name) if other[1:] == (None, None) else other)

    def axis_of(self, key: str) -> int:
        """The axis of the units in a site's value."""
        axis = of_key(dict(self.axes), key)
        return self.unit_axis if axis is None else axis

    def logits(self, params: Params, x: Any) -> Array:
        """The logits of a block, without any edit.

        Raises:
          InputError: if the function does not return them as one array, and `output` does not pick one.
        """
        returned = self.apply(params, x, site) if site_values.takes_tap(self.apply) else self.apply(params, x)
        picked = _picked(returned, self.output)
        _refuse_unless_array(picked, self.output)
        if self.task == "binary" and picked.shape[1:] in ((), (1,)):
            single = jnp.reshape(picked, len(picked))
            return jnp.stack([jnp.zeros_like(single), single], -1)
        return picked[:, None] if self.task == "regression" and picked.ndim == 1 else picked

    def classes(self, logits: Array) -> Array:
        """The class of each example [n], or of each token one after the other [n * T]; int32."""
        return elementwise.argmax(logits, self.class_axis).reshape(-1)

    def outputs(self, logits: Array) -> Array:
        """What metrics are given: logits with classes last, or [n] of a network with a single output."""
        if self.task == "binary":
            return logits[:, 1]
        if self.task == "regression":
            return logits[:, 0] if logits.shape[1] == 1 else logits
        return jnp.moveaxis(logits, self.class_axis, -1)


T = TypeVar("T")


def of_key(given: Mapping[str, T], key: str) -> T | None:
    """What is given for a key, or for one that means its values among others: of ``mlp#1`` also what is for ``mlp``."""
    if key in given:
        return given[key]
    own = site_values.parsed(key)
    for text, value in given.items():
        other = site_values.parsed(text)
        parts = ((other.call, own.call), (other.iteration, own.iteration))
        if other.name == own.name and all(part in (None, own_part) for part, own_part in parts):
            return value
    return None


def _picked(returned: Any, output: Output | None) -> Any:
    if output is None:
        return returned
    if callable(output):
        return output(returned)
    try:
        return getattr(returned, output) if isinstance(output, str) and hasattr(returned, output) else returned[output]
    except (LookupError, TypeError):
        raise InputError(
            f"output: apply returns {_kind(returned)[0]}, which has no {output!r}; name what holds the logits, or "
            "pass a function that picks them"
        ) from None


def _kind(returned: object) -> tuple[str, str]:
    """What was returned, in words, and what would pick an array of it."""
    kind, pick = "None" if returned is None else kind_of(returned), ""
    fields = getattr(returned, "_fields", None) or (
        [field.name for field in dataclasses.fields(returned)] if dataclasses.is_dataclass(returned) else []
    )
    # What is picked has the logits' usual name, or comes first.
    if fields:
        pick = repr("logits" if "logits" in fields else fields[0])
    elif isinstance(returned, Mapping) and returned:
        kind += f" with {', '.join(map(repr, returned))}"
        pick = repr("logits" if "logits" in returned else next(iter(returned)))
    elif isinstance(returned, (tuple, list)) and returned:
        kind, pick = f"{kind} of {len(returned)}", "0"
    return kind, pick


def _refuse_unless_array(logits: object, output: Output | None) -> None:
    if isinstance(logits, (Array, np.ndarray)):
        return
    kind, pick = _kind(logits)
    what = "apply" if output is None else f"output={output!r}"
    way_out = (
        f"pick them with output={pick}" if pick and output is None else "pass a function as output that picks them"
    )
    if output is None and not pick:
        way_out = "return them as one array"
    raise InputError(f"{what}: expected logits [n, C] for x[n, ...] as one array, got {kind}; {way_out}")


LOGITS = "\0logits"
"""The site of the logits of a model `with_logits`; no model's own can have this name."""


@dataclasses.dataclass(frozen=True)
class _WithLogits:
    model: Model

    def __call__(self, params: Params, x: Any) -> Array:
        inner, axis = self.model.class_axis, self.model.axis_of(LOGITS) % 2
        logits = jnp.moveaxis(self.model.logits(params, x), inner, axis)
        return jnp.moveaxis(site(LOGITS, logits), axis, inner)


def with_logits(model: Model) -> Model:
    """The same model with its logits as a further site, whose units are the classes."""
    return dataclasses.replace(model, apply=_WithLogits(model), output=None)


class Sites(tuple[Site, ...]):
    """A model's sites in the order of its program, a call each, with the `traced` network that they are of."""

    traced: Traced

    @property
    def program(self) -> core.ClosedJaxpr:
        """What the network computes."""
        return self.traced.program

    @property
    def names(self) -> list[str]:
        """Their names, each once."""
        return list(dict.fromkeys(each.name for each in self))

    def of(self, key: str) -> list[Site]:
        """The calls that a key means, of one name.

        Raises:
          InputError: if it means none, or sites of several names.
        """
        resolved = self.traced.keys(key)
        if len(resolved) > 1:
            names = ", ".join(each.name for each in resolved)
            raise InputError(f"site '{key}': matches {counted(len(resolved), 'site')}, {names}; name each of them")
        (meant,) = resolved
        calls = [each for each in self.traced.every_site if each.name == meant.name]
        return [each for each in calls if meant.call in (None, each.call)]

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of the value that an edit at a key acts on: that of each of its calls and iterations."""
        return self.of(key)[0].shape

    def whole_shape(self, key: str, unit_axis: int) -> tuple[int, ...]:
        """The shape of what `read` gives at a key."""
        calls = self.of(key)
        iterated = () if self.traced.keys(key)[0].iteration is not None else calls[0].loops
        more = ((len(calls),) if len(calls) > 1 else ()) + tuple(length or 1 for length in iterated)
        shape = calls[0].shape
        place = _further_axis(key, len(shape), unit_axis) if more else 0
        return (*shape[:place], *more, *shape[place:])


def _further_axis(key: str, ndim: int, unit_axis: int) -> int:
    """Where further axes go into a value at a site, so that `unit_axis` stays the axis of its units.

    Raises:
      InputError: if there is no such place.
    """
    if unit_axis >= 0:
        return ndim
    if ndim + unit_axis > 0:
        return 1
    raise InputError(
        f"site '{key}': unit_axis {unit_axis} is the first of its axes, but a site with several calls or iterations "
        "needs an axis counted from the first; pass unit_axis 0"
    )


def trace(model: Model, params: Params, x: Any) -> Sites:
    """List a model's sites for one network's parameters and a block; both may be shapes; nothing is computed."""
    traced = site_values.trace(model.logits, params, x)
    listed = Sites(traced.sites)
    listed.traced = traced
    return listed


def shapes_of_one(x: Any) -> Any:
    """The shapes and types of one example [1, ...] of inputs, an array or a pytree of them."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), x)


def sites_for_one(model: Model, params: Params, x: Any, keys: Iterable[str] = ()) -> Sites:
    """List a model's sites for one example, and refuse those that cannot be edited.

    Args:
      model: the networks' function.
      params: stacked, with a leading S, or their shapes.
      x: inputs [n, ...] or their shapes, an array or a pytree of them.
      keys: of sites that are to be edited.

    Raises:
      InputError: as `check_editable` does.
    """
    network = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)
    leaves, structure = jax.tree.flatten((network, shapes_of_one(x)))
    # What a type comes to depends on these.
    context = tuple(getattr(jax.config, name) for name in ("jax_enable_x64", "jax_numpy_dtype_promotion"))
    listed = functools.partial(_traced_of_one, model, structure, tuple(leaves), context)
    keys = tuple(keys)
    with contextlib.suppress(InputError):
        check_editable(listed(), keys)
        return listed()
    # What the function reads of its surroundings may have changed since it was traced.
    _traced_of_one.cache_clear()
    check_editable(listed(), keys)
    return listed()


@functools.lru_cache(maxsize=8)  # each measurement asks again, and so does the next of equal networks
def _traced_of_one(
    model: Model, structure: Any, leaves: tuple[jax.ShapeDtypeStruct, ...], _context: tuple[Any, ...]
) -> Sites:
    return trace(model, *jax.tree.unflatten(structure, leaves))


def check_editable(sites: Sites, keys: Iterable[str]) -> None:
    """Refuse keys whose values cannot be edited.

    Raises:
      InputError: if a site is not reached or out of reach, if calls differ in shape, if its values are not of
        floating-point numbers, or if the logits do not depend on it.
    """
    for key in keys:
        calls = sites.of(key)
        if len({each.shape for each in calls}) > 1 or len({each.loops for each in calls}) > 1:
            shapes = ", ".join(dict.fromkeys(str(each.shape) for each in calls))
            raise InputError(
                f"site '{key}': its {len(calls)} calls have values of different shapes or loops, {shapes}; name one "
                f"call, such as '{key}#0'"
            )
        (shape, dtype) = calls[0].shape, calls[0].dtype
        if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize < 2:
            raise InputError(
                f"site '{key}': its value has type {dtype}, but edits need floating-point numbers of 16 bits or more; "
                f"choose a site with such a value, for example before the conversion to {dtype}"
            )
        if not math.prod(shape):
            raise InputError(
                f"site '{key}': its value has shape {shape}, so there is nothing to edit; choose a site with at least "
                "one unit"
            )
        site_splits.split(sites.traced, [key])


def check_together(sites: Sites, keys: Sequence[str]) -> None:
    """Refuse keys that cannot be edited at once; raises as `site_splits.split` does."""
    site_splits.split(sites.traced, keys)


def cut(model: Model, params: Params, x: Any, keys: Sequence[str]) -> CutProgram:
    """A model's program, cut at the sites that edits are of.

    Args:
      model: the network's function.
      params: of one network, or their shapes.
      x: a block of inputs [n, ...], or their shapes.
      keys: of the sites.

    Raises:
      InputError: as `site_splits.split` does.
    """
    return site_splits.split(site_values.trace(model.logits, params, x), keys)


def edit(model: Model, params: Params, x: Any, edits: Mapping[str, site_values.Edit]) -> Array:
    """The logits with some values edited.

    Args:
      model: the network's function.
      params: of one network.
      x: a block of inputs [n, ...].
      edits: by key of a site, a function that its values pass through, or an array to take their place.

    Raises:
      InputError: while tracing, if a site is not reached, or an edit changes a value's shape or type.
    """
    logits: Array = site_values.edit(model.logits, params, x, edits)
    return logits


def read(
    model: Model,
    params: Params,
    x: Any,
    keys: Iterable[str],
    edits: Mapping[str, site_values.Edit | Placed] | None = None,
) -> tuple[Array, dict[str, Array]]:
    """The logits and the values at the named sites, by key, perhaps with others edited.

    Args:
      model: the network's function.
      params: of one network.
      x: a block of inputs [n, ...].
      keys: of the sites to read, each of one name.
      edits: as in `edit`, or `Placed`; by default none.

    Raises:
      InputError: as `edit` does.
    """
    keys = tuple(dict.fromkeys(keys))
    sites = trace(model, params, x)
    logits, values = sites.traced.evaluate(params, x, edits or {}, keys)
    written = {key: site_values.written(sites.traced.keys(key)[0]) for key in keys}
    return logits, {key: _laid_out(values[written[key]], sites, key, model.axis_of(key)) for key in keys}


def read_each(model: Model, params: Params, x: Any, keys: Sequence[str]) -> dict[str, tuple[Array, ...]]:
    """The values at the named sites as the program has them: one of each call, iterations of loops in front.

    Args:
      model: the network's function.
      params: of one network.
      x: a block of inputs [n, ...].
      keys: of the sites to read, each of one name.

    Raises:
      InputError: while tracing, if a site is not reached.
    """
    traced = site_values.trace(model.logits, params, x)
    values = traced.evaluate(params, x, {}, keys)[1]
    each = {key: values[site_values.written(traced.keys(key)[0])] for key in keys}
    return {key: value if isinstance(value, tuple) else (value,) for key, value in each.items()}


def _laid_out(value: Any, sites: Sites, key: str, unit_axis: int) -> Array:
    """The values of all calls and iterations in one array, as the module says."""
    calls = sites.of(key)
    iterated = 0 if sites.traced.keys(key)[0].iteration is not None else len(calls[0].loops)
    if len(calls) == 1 and not iterated:
        return value
    place = _further_axis(key, len(calls[0].shape), unit_axis)
    each = [
        jnp.moveaxis(call, range(iterated), range(place, place + iterated))
        for call in (value if isinstance(value, tuple) else (value,))
    ]
    return each[0] if len(each) == 1 else jnp.stack(each, place)


def read_after(
    model: Model, params: Params, x: Any, keys: Iterable[str]
) -> tuple[Array, dict[str, Array], dict[str, Array]]:
    """The logits, the values at the named sites, and those after the activations that follow them.

    A site is missing from the last where the model does not say what follows it.

    Args:
      model: the network's function.
      params: of one network.
      x: a block of inputs [n, ...].
      keys: of the sites to read, each of one name.

    Raises:
      InputError: as `edit` does.
    """
    keys = tuple(keys)
    after = {key: follows for key in keys if (follows := model.after(key)) is not None}
    elsewhere = [follows for follows in after.values() if isinstance(follows, str)]
    logits, values = read(model, params, x, [*keys, *elsewhere])
    results = {
        key: values[follows] if isinstance(follows, str) else follows(values[key]) for key, follows in after.items()
    }
    return logits, {key: values[key] for key in keys}, results


def programs(equation: core.JaxprEqn) -> Iterable[core.Jaxpr]:
    """The programs within an equation: what it calls, repeats or chooses from."""
    return core.jaxprs_in_params(equation.params)


def equations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """All equations of a traced program, each followed by those of the programs within it."""
    for equation in jaxpr.eqns:
        yield equation
        for program in programs(equation):
            yield from equations(program)
