"""Named values ("sites") of any network that JAX can trace: listed, read and edited.

A network is a function ``apply(params, x[n, ...])`` whose output is any pytree of arrays. It names a value by
`site`, or is made of a library's module (`jaxdist.networks.modules`), whose submodules' outputs have names; a function
``apply(params, x, tap)`` gets `site` for its tap. It is traced once, and its program is then evaluated with the named
values read or edited, so that sites lie within ``jax.jit``, ``vmap``, ``scan``, ``remat`` and the like as well.

A key says which values are meant, the same everywhere:

- ``encoder/mlp``: the value at this site, in all calls of it
- ``encoder/mlp#1``: the second call alone; calls are counted from 0 in the order of the program
- ``layers/mlp@3``: iteration 3 of the scan around it alone, and ``layers/mlp@1,4`` of two nested ones
- ``layers/*/up``: all sites whose names match; ``*`` matches within one part of the path, ``**`` across parts

The name of a site may itself hold such signs: a key that is the name of a site means that site.

Semi-private parts of JAX: ``jax.extend.core``.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend import core

from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.networks import site_programs
from jaxdist.networks.site_primitives import site as site
from jaxdist.networks.site_primitives import site_p, tangent_p
from jaxdist.networks.site_programs import Action, Key, Placed
from jaxdist.registry import kind_of
from jaxdist.types import Params

Edit: TypeAlias = Action | Array | np.ndarray
"""A function of the value at a site, which keeps its shape and type, or an array to take its place."""

LISTED = 40
"""Names of sites that a message lists at most."""


class Site(NamedTuple):
    """One call of a named value: its name, and its shape and type for the given block."""

    name: str
    shape: tuple[int, ...]
    dtype: Any
    call: int = 0
    """Which call of this name it is, and how many there are."""
    calls: int = 1
    batched: int = 0
    """How many axes ``jax.vmap`` of the network's own has put in front of it."""
    loops: tuple[int | None, ...] = ()
    """The lengths of the loops around it, outermost first; None for a while loop, whose sites cannot be read."""
    inside: tuple[str, ...] = ()
    """The primitives around it, outermost first."""
    refusal: str | None = None
    """Why it cannot be edited, if so."""

    @property
    def out_of_reach(self) -> bool:
        """Whether it cannot be edited; `refusal` says why."""
        return self.refusal is not None

    @property
    def key(self) -> str:
        """The key of this call alone."""
        return self.name if self.calls == 1 else f"{self.name}#{self.call}"

    def __repr__(self) -> str:
        parts = [f"name={self.name!r}", f"shape={self.shape}", f"dtype={self.dtype}"]
        for field in self._fields[3:]:
            if getattr(self, field) != self._field_defaults[field]:
                parts.append(f"{field}={getattr(self, field)!r}")
        return f"Site({', '.join(parts)})"


tracing = jax.make_user_context(default_value=None)
"""Set while a network is traced for its sites: a fresh value each time, which is in the keys of JAX's caches, so that a
jit within the network that was traced before is traced again, with its sites."""


@dataclasses.dataclass(frozen=True, eq=False)
class Traced:
    """A network as a program, for parameters and a block of the given shapes."""

    program: core.ClosedJaxpr
    arguments: Any
    """The shapes and types of (params, x), as a pytree."""
    outputs: Any
    """The shapes and types of what the network returns, as a pytree."""

    @functools.cached_property
    def every_site(self) -> tuple[Site, ...]:
        """All sites, in the order of the program; those too that do not depend on x."""
        listed: list[Site] = []
        calls: Counter[str] = Counter()
        for mark in site_programs.marks(self.program.jaxpr):
            if mark.eqn.primitive is not site_p:
                continue
            name, value = mark.eqn.params["name"], site_programs.aval_of(mark.eqn.invars[0])
            listed.append(
                Site(
                    name,
                    value.shape,
                    value.dtype,
                    call=calls[name],
                    batched=mark.eqn.params["batched"],
                    loops=mark.loops,
                    inside=mark.inside,
                    refusal=_refusal(mark, self.differentiated.get(name, 0)),
                )
            )
            calls[name] += 1
        return tuple(each._replace(calls=calls[each.name]) for each in listed)

    @functools.cached_property
    def differentiated(self) -> dict[str, int]:
        """How often the network differentiates itself through a site, by name, where it does."""
        orders: dict[str, int] = {}
        for mark in site_programs.marks(self.program.jaxpr):
            if mark.eqn.primitive is tangent_p:
                name, order = mark.eqn.params["name"], mark.eqn.params["order"]
                orders[name] = max(order, orders.get(name, 0))
        return orders

    @functools.cached_property
    def sites(self) -> tuple[Site, ...]:
        """The sites, in the order of the program.

        Submodules' outputs that do not depend on x are left out, such as weights that a module makes; a key can name
        them.
        """
        count = len(jax.tree.leaves(self.arguments[0]))
        inputs = [k >= count for k in range(len(self.program.jaxpr.invars))]
        depends: list[bool] = []
        site_programs.dependence(self.program.jaxpr, inputs, depends)
        kinds = [
            mark.eqn.params["kind"] for mark in site_programs.marks(self.program.jaxpr) if mark.eqn.primitive is site_p
        ]
        return tuple(
            each for each, on_x, kind in zip(self.every_site, depends, kinds, strict=True) if on_x or kind != "call"
        )

    def keys(self, text: str, *, to_read: bool = False) -> tuple[Key, ...]:
        """The values that a key means, one for each name.

        Raises:
          InputError: if there are none, or they can be neither edited nor (where `to_read`) read.
        """
        return _resolved(text, self, to_read=to_read)

    def evaluate(
        self, params: Params, x: Any, edits: Mapping[str, Edit | Placed], keys: Iterable[str] = ()
    ) -> tuple[Any, dict[str, Any]]:
        """The output with the named values edited, and the values read.

        Args:
          params, x: of the shapes and types that the network was traced with.
          edits: by key; those of the same value act in the order in which they are given.
          keys: of the values to read.

        Returns:
          The output, and the values by the keys of their names, such as ``layers/0/up`` for ``layers/*/up``; of a name
          with several calls they are a tuple. Those of a scan are stacked in front, iteration by iteration; those of a
          branch that was not taken are NaN, or 0 as integers.

        Raises:
          InputError: for a key without a site, an edit that changes the shape or the type, and arguments of other
            shapes.
        """
        actions = [(key, action_of(text, edit)) for text, edit in edits.items() for key in self.keys(text)]
        by_text = {text: self.keys(text, to_read=True) for text in keys}
        reads = tuple(dict.fromkeys(key for each in by_text.values() for key in each))
        job = site_programs.Job(actions, reads)
        outputs, values = site_programs.run(self.program.jaxpr, self.program.consts, self.leaves(params, x), job)
        return self.output(outputs), {written(key): _picked(values, key) for key in reads}

    def leaves(self, params: Params, x: Any) -> list[Any]:
        """The arrays of these arguments.

        Raises:
          InputError: if they are not of the shapes that the network was traced with.
        """
        expected: Any = jax.tree.structure(self.arguments)
        got: Any = jax.tree.structure((params, x))
        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves((params, x))]
        if got != expected:
            raise InputError(f"sites: expected params and x as the network was traced with, {expected}, got {got}")
        for leaf, shape in zip(leaves, jax.tree.leaves(self.arguments), strict=True):
            if (leaf.shape, leaf.dtype) != (shape.shape, shape.dtype):
                raise InputError(
                    f"sites: expected an array of shape {shape.shape} and {shape.dtype}, as the network was traced "
                    f"with, got {leaf.shape} and {leaf.dtype}; trace the network for each shape"
                )
        return leaves

    def output(self, leaves: Sequence[Any]) -> Any:
        """What the network returns, of its arrays."""
        return jax.tree.unflatten(jax.tree.structure(self.outputs), leaves)


def _refusal(mark: site_programs.Mark, order: int) -> str | None:
    strange = [primitive for primitive in mark.inside if primitive not in site_programs.ENTERED]
    if strange:
        return site_programs.within(strange[0])
    kind = mark.eqn.params["kind"]
    if kind == "fixed" or (kind == "sown" and mark.from_outside):
        return (
            "its value is sown inside a transformation, and the network continues with the value that it has outside; "
            "it can be read, but to be edited the module must pass it through perturb or jaxdist.site"
        )
    if order > 1:
        return (
            "the network takes derivatives through it more than once, so an edit would need derivatives of a "
            "derivative; choose another site"
        )
    return None


def trace(apply: Callable[..., Any], params: Params, x: Any) -> Traced:
    """Trace a network once, for shapes such as these; nothing is computed.

    Args:
      apply: ``apply(params, x)``, or ``apply(params, x, tap)`` with a third argument that must be given.
      params: its parameters, a pytree of arrays or of their shapes, as ``jax.ShapeDtypeStruct``.
      x: a block of examples [n, ...], or its shape; a pytree where the network takes one.

    Raises:
      InputError: if it returns anything but arrays.
    """
    arguments = jax.tree.map(shape_of, (params, x))
    with_tap = takes_tap(apply)

    def called(params: Params, x: Any) -> Any:
        output = apply(params, x, site) if with_tap else apply(params, x)
        for leaf in jax.tree.leaves(output):
            if not isinstance(leaf, (Array, np.ndarray, np.generic, int, float, complex)):
                raise InputError(
                    f"apply: expected a pytree of arrays as output, got {kind_of(leaf)} in it; return its arrays, for "
                    "example in a dictionary, or register the class with jax.tree_util.register_dataclass"
                )
        return output

    try:
        # Of shapes alone: where an array lies now must not be written into the program. Within jax.shard_map, though,
        # the program has to know which values vary along the mesh.
        with tracing(object()):
            program, outputs = jax.make_jaxpr(called, return_shape=True)(
                *jax.tree.map(lambda leaf, shape: leaf if _varies(leaf) else shape, (params, x), arguments)
            )
    except InputError:
        raise
    except Exception as error:  # a function's own, raised again
        error.add_note(
            f"sites ran apply(params, x{', tap' if with_tap else ''}) on x of shape "
            f"{jax.tree.map(lambda leaf: leaf.shape, arguments[1])}; params must be those of one network: of several "
            "stacked seeds, pass one"
        )
        raise
    return Traced(program, arguments, outputs)


def takes_tap(apply: Callable[..., Any]) -> bool:
    """Whether a network's function must be given a third positional argument."""
    try:
        parameters = inspect.signature(apply).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 2 and positional[2].default is inspect.Parameter.empty


def _varies(leaf: Any) -> bool:
    """Whether an array varies along a mesh within ``jax.shard_map``, as far as JAX keeps account of it."""
    if not isinstance(leaf, jax.core.Tracer):
        return False
    return bool(getattr(getattr(jax.typeof(leaf), "manual_axis_type", None), "varying", False))


def shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
    """The shape and type of an array, a number, or a value of a program, without where it lies."""
    aval = leaf if hasattr(leaf, "shape") and hasattr(leaf, "weak_type") else jax.typeof(leaf)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=bool(getattr(aval, "weak_type", False)))


def sites(apply: Callable[..., Any], params: Params, x: Any) -> tuple[Site, ...]:
    """List the sites in the order of the program; nothing is computed. Arguments are those of `trace`.

    >>> import jax.numpy as jnp
    >>> sites(lambda w, x: site("hidden", x @ w), jnp.ones((3, 2)), jnp.ones((5, 3)))
    (Site(name='hidden', shape=(5, 2), dtype=float32),)
    """
    return trace(apply, params, x).sites


def read(apply: Callable[..., Any], params: Params, x: Any, keys: Iterable[str]) -> tuple[Any, dict[str, Any]]:
    """Return the output, and the values at the sites that the keys name (`Traced.evaluate` says how).

    >>> import jax.numpy as jnp
    >>> output, values = read(lambda w, x: 2 * site("hidden", x @ w), jnp.ones((3, 2)), jnp.ones((1, 3)), ["hidden"])
    >>> values["hidden"].tolist(), output.tolist()
    ([[3.0, 3.0]], [[6.0, 6.0]])

    Args:
      apply: as `trace` takes it.
      params: its parameters, a pytree of arrays.
      x: a block of inputs [n, ...], an array or a pytree of them.
      keys: of the values to read.

    Raises:
      InputError: for a key without a site, or of a site in a while loop.
    """
    return trace(apply, params, x).evaluate(params, x, {}, texts("read", keys))


def edit(apply: Callable[..., Any], params: Params, x: Any, edits: Mapping[str, Edit]) -> Any:
    """Return the output with the values at the sites that the keys name passed through a function, or replaced.

    It can be jitted, mapped and differentiated, with respect to what the functions hold, too.

    >>> import jax.numpy as jnp
    >>> network = lambda w, x: 2 * site("hidden", x @ w)
    >>> edit(network, jnp.ones((3, 2)), jnp.ones((1, 3)), {"hidden": lambda value: value + 1}).tolist()
    [[8.0, 8.0]]

    Args:
      apply: as `trace` takes it.
      params: its parameters, a pytree of arrays.
      x: a block of inputs [n, ...], an array or a pytree of them.
      edits: by key, a function of the value that keeps its shape and type, or an array to take its place.

    Raises:
      InputError: for a key without a site, and an edit that changes the shape or the type.
    """
    return trace(apply, params, x).evaluate(params, x, edits)[0]


def action_of(text: str, edit: Edit | Placed) -> Action | Placed:
    """What an edit of a key does, checked: a function, also where an array takes the place of the value."""
    if isinstance(edit, Placed):
        return Placed(lambda call, iterations: functools.partial(site_programs.act, text, edit.at(call, iterations)))
    action = edit if callable(edit) else lambda _: jnp.asarray(edit)
    return functools.partial(site_programs.act, text, action)


# Keys.

_FORM = re.compile(r"(?P<name>.+?)(?:#(?P<call>\d+))?(?:@(?P<iteration>\d+(?:,\d+)*))?", re.DOTALL)


def parsed(text: str) -> Key:
    """A key's name, call and iteration; the name may hold asterisks.

    >>> parsed("layers/*/up#1@2,3")
    Key(name='layers/*/up', call=1, iteration=(2, 3))
    """
    form = _FORM.fullmatch(text)
    if form is None:
        return Key(text, None, None)
    call, iteration = form["call"], form["iteration"]
    return Key(
        form["name"],
        None if call is None else int(call),
        None if iteration is None else tuple(int(number) for number in iteration.split(",")),
    )


def written(key: Key) -> str:
    """The text of a key.

    >>> written(Key("layers/up", 1, (2, 3)))
    'layers/up#1@2,3'
    """
    call = "" if key.call is None else f"#{key.call}"
    iteration = "" if key.iteration is None else "@" + ",".join(str(number) for number in key.iteration)
    return key.name + call + iteration


def matches(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern, whose `*` matches within one part of a path and `**` across parts.

    >>> matches("layers/*/up", "layers/0/up"), matches("layers/*", "layers/0/up"), matches("layers/**", "layers/0/up")
    (True, False, True)
    """
    parts = {"**": ".*", "*": "[^/]*"}
    form = "".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*)", pattern))
    return re.fullmatch(form, name, re.DOTALL) is not None


def texts(function: str, keys: Iterable[str]) -> tuple[str, ...]:
    """The keys that a function was given."""
    if isinstance(keys, str):
        raise InputError(f"{function}: expected a list of site names, got {keys!r}; pass [{keys!r}]")
    return tuple(keys)


def _resolved(text: str, traced: Traced, *, to_read: bool) -> tuple[Key, ...]:
    if not isinstance(text, str):
        raise InputError(f"sites: expected the name of a site, such as 'encoder/mlp', got {text!r}")
    every: dict[str, list[Site]] = {}
    for each in traced.every_site:
        every.setdefault(each.name, []).append(each)
    key = Key(text, None, None) if text in every else parsed(text)
    listed = list(dict.fromkeys(each.name for each in traced.sites))
    names = [key.name] if key.name in every else [name for name in listed if matches(key.name, name)]
    if not names:
        raise InputError(
            f"site '{text}': the network has no such site{_meant(key.name, listed)}; its sites are "
            f"{listed_names(listed)}"
        )
    keys = [key._replace(name=name) for name in names]
    for single in keys:
        _refuse_call_or_iteration(text, single, every[single.name])
        for call in every[single.name]:
            if key.call in (None, call.call):
                _refuse_unless_within_reach(text, call, to_read=to_read)
    return tuple(keys)


def _refuse_call_or_iteration(text: str, key: Key, calls: Sequence[Site]) -> None:
    if key.call is not None and key.call >= len(calls):
        raise InputError(
            f"site '{text}': expected a call of '{key.name}' before #{len(calls)}, since it has "
            f"{counted(len(calls), 'call')}, counted from 0"
        )
    if key.iteration is None:
        return
    for call in calls:
        if key.call not in (None, call.call):
            continue
        if len(call.loops) != len(key.iteration):
            way_out = (
                f"write as many numbers after '@', as in '{key.name}@{','.join('0' * len(call.loops))}'"
                if call.loops
                else f"write '{key.name}'"
            )
            raise InputError(
                f"site '{text}': got {counted(len(key.iteration), 'iteration number')}, but it is inside "
                f"{counted(len(call.loops), 'loop')} of the network's program; {way_out}"
            )
        for number, length in zip(key.iteration, call.loops, strict=True):
            if length is not None and number >= length:
                raise InputError(
                    f"site '{text}': expected an iteration from 0 to {length - 1} of a loop of length {length}, got "
                    f"{number}"
                )


def _refuse_unless_within_reach(text: str, site: Site, *, to_read: bool) -> None:
    looked_into = all(primitive in site_programs.ENTERED for primitive in site.inside)
    if not to_read or not looked_into:
        if site.refusal is not None:
            raise InputError(f"site '{text}': {site.refusal}")
    elif None in site.loops:
        raise InputError(
            f"site '{text}': it is inside a while loop, whose number of iterations is not known before it runs, so no "
            "array can hold its values; it can be edited, and could be read if the loop were a jax.lax.scan or a "
            "fori_loop of known length"
        )


def _meant(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def listed_names(names: Sequence[str]) -> str:
    """The names in a row, the first of many."""
    more = len(names) - LISTED
    return (", ".join(names[:LISTED]) or "none") + (f" and {more} more" if more > 0 else "")


def _picked(values: Mapping[tuple[str, int], Any], key: Key) -> Any:
    """The value of a key, or a tuple of its calls' values; in one iteration where the key names one."""
    calls = sorted(call for name, call in values if name == key.name and key.call in (None, call))
    stacked = [values[key.name, call] for call in calls]
    picked = stacked if key.iteration is None else [value[key.iteration] for value in stacked]
    return picked[0] if len(picked) == 1 else tuple(picked)
