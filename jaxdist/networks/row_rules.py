"""How each operation of a traced program moves the axis of the examples, or brings examples together.

Semi-private parts of JAX: ``jax.extend.core``; names and parameters of its primitives are not promised. Private, for
the line in a message alone: ``jax._src.source_info_util``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxdist.networks.site_primitives import guard_p, site_p, tangent_p
from jaxdist.networks.site_programs import Atom, aval_of

LARGEST = 2**24
"""Constants with more entries are not looked through for differences between rows."""


class Fixed(NamedTuple):
    """A value that does not depend on x, with the axes along which its entries may differ."""

    varies: frozenset[int]


class ByExample(NamedTuple):
    """A value of whose entries that at index k along `axis` depends on example ``k // inner % n`` alone."""

    axis: int
    inner: int = 1


class Single(NamedTuple):
    """A value that depends on one example alone, that of a loop's iteration."""


State: TypeAlias = Fixed | ByExample | Single


class Independence(NamedTuple):
    """Whether each example's outputs depend on that example alone, and not on its place in the block."""

    independent: bool | None
    """None where it is undecided; then compare numbers."""
    reason: str = ""
    """The operation to blame, or which is not known; "" where they are independent."""
    line: str = ""
    """The user's line, where JAX has it."""
    axes: tuple[int | None, ...] = ()
    """For each of `site_values.Traced.every_site` the axis of its value that holds the examples, one entry for each;
    None where there is none, and where nothing is proved."""
    place: bool = False
    """Whether they are not independent by an example's place in the block alone, and each by no other example."""

    def __str__(self) -> str:
        return self.reason + (f", in {self.line}" if self.line else "")


class StopSearchError(Exception):
    """The end of the search."""

    def __init__(self, eqn: core.JaxprEqn, reason: str, *, undecided: bool = False) -> None:
        super().__init__(reason)
        name = {"jaxdist_site": "a site"}.get(eqn.primitive.name, eqn.primitive.name)
        self.verdict = Independence(None if undecided else False, f"{name} {reason}", line_of(eqn))


class PlaceError(StopSearchError):
    """An example's value depends on its place in the block; the search may go on with `state` and keep that in mind."""

    def __init__(self, eqn: core.JaxprEqn, reason: str, state: State, *, undecided: bool = False) -> None:
        super().__init__(eqn, reason, undecided=undecided)
        self.state = state


def line_of(eqn: core.JaxprEqn) -> str:
    """The user's line that an equation comes from, or ""."""
    try:
        from jax._src import source_info_util

        return source_info_util.summarize(eqn.source_info)
    except Exception:  # private to JAX, and only the message needs it
        return ""


def shape_of(atom: Atom) -> tuple[int, ...]:
    """The shape of a value of the program."""
    shape: tuple[int, ...] = getattr(aval_of(atom), "shape", ())
    return shape


def all_axes(atom: Atom) -> Fixed:
    """The state of a value that does not depend on x, and of which nothing more is known."""
    return Fixed(frozenset(axis for axis, size in enumerate(shape_of(atom)) if size > 1))


def constant(value: Any) -> Fixed:
    """Along which axes a constant's entries differ."""
    shape = np.shape(value)
    axes = frozenset(axis for axis, size in enumerate(shape) if size > 1)
    if isinstance(value, jax.core.Tracer) or math.prod(shape) > LARGEST or not is_numeric(value):
        return Fixed(axes)
    array = np.asarray(value)
    return Fixed(frozenset(axis for axis in axes if not np.array_equal(array, _first_entries(array, axis), True)))


def is_numeric(value: Any) -> bool:
    """Whether a constant is of numbers, and not of keys for random ones."""
    kind = getattr(value, "dtype", None)
    return kind is None or not jnp.issubdtype(kind, jax.dtypes.extended)


def _first_entries(array: np.ndarray, axis: int) -> np.ndarray:
    return np.broadcast_to(np.take(array, [0], axis), array.shape)


_NAMES = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp clz complex conj
    convert_element_type copy copy_p cos cosh debug_callback debug_print digamma div eq erf erf_inv erfc exp
    exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow is_finite layout_constraint le lgamma log log1p
    logistic lt max min mul name ne neg nextafter not or polygamma population_count pow pvary random_fold_in
    random_seed random_unwrap random_wrap real reduce_precision regularized_incomplete_beta rem reshard round rsqrt
    select_n sharding_constraint shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square
    stop_gradient sub tan tanh threefry2x32 xor zeta
"""
ELEMENTWISE = frozenset(_NAMES.split()) | {site_p.name, tangent_p.name, guard_p.name}
"""Primitives that act on each element alone."""

ALONG = {
    "cumsum": "axis",
    "cumprod": "axis",
    "cummax": "axis",
    "cummin": "axis",
    "cumlogsumexp": "axis",
    "sort": "dimension",
    "top_k": "axis",
}
"""Primitives that work along one axis, with the parameter that says along which."""

TRAILING = {
    "cholesky": 2,
    "eig": 2,
    "eigh": 2,
    "geqrf": 2,
    "householder_product": 2,
    "lu": 2,
    "lu_pivots_to_permutation": 1,
    "qr": 2,
    "schur": 2,
    "svd": 2,
    "triangular_solve": 2,
}
"""Primitives that work along the last axes, and along how many."""

TOGETHER = "works along the batch axis"


def join(eqn: core.JaxprEqn, states: Sequence[State]) -> State:
    """The state of what is computed of values of the same axes."""
    by_example = {state for state in states if isinstance(state, ByExample)}
    fixed = [state for state in states if isinstance(state, Fixed)]
    if any(isinstance(state, Single) for state in states):
        if by_example:
            raise StopSearchError(eqn, "compares one example with a block of examples", undecided=True)
        return Single()
    if not by_example:
        return Fixed(frozenset().union(*(state.varies for state in fixed)))
    if len(by_example) > 1:
        raise StopSearchError(eqn, "brings each example together with others")
    (state,) = by_example
    if any(state.axis in each.varies for each in fixed):
        raise PlaceError(
            eqn,
            "brings in an array with an entry for each row of the block, so that an example's outputs depend on its "
            "place in it",
            state,
            undecided=state.inner != 1,
        )
    return state


def moved_to(
    eqn: core.JaxprEqn, state: State, where: Mapping[int, int], reason: str = TOGETHER, *, undecided: bool = False
) -> State:
    """The state after axes have moved; if that of the examples is gone, the search ends.

    Args:
      eqn: the equation that moves them.
      state: of its operand, or of several, joined.
      where: the axis of the output that each axis of the operand becomes; those that go are missing.
      reason: why the search ends then, as it follows the primitive's name in a message.
      undecided: leave the verdict open then, instead of finding that examples come together.

    Raises:
      StopSearchError: where the axis of the examples goes.
    """
    if isinstance(state, Fixed):
        return Fixed(frozenset(where[axis] for axis in state.varies if axis in where))
    if isinstance(state, Single):
        return state
    if state.axis not in where:
        raise StopSearchError(eqn, reason, undecided=undecided)
    return ByExample(where[state.axis], state.inner)


def stacked(state: State) -> State:
    """The state of what a loop stacks."""
    if isinstance(state, Fixed):
        return Fixed(frozenset({0, *(axis + 1 for axis in state.varies)}))
    return ByExample(state.axis + 1, state.inner) if isinstance(state, ByExample) else state


def _without(ndim: int, axes: Sequence[int]) -> dict[int, int]:
    return {axis: k for k, axis in enumerate(axis for axis in range(ndim) if axis not in set(axes))}


def _same(ndim: int, *but: int) -> dict[int, int]:
    return {axis: axis for axis in range(ndim) if axis not in but}


def _of_arrays(eqn: core.JaxprEqn, states: Sequence[State]) -> list[State]:
    """The states of the operands that have axes; scalars are the same for all examples."""
    return [state for state, atom in zip(states, eqn.invars, strict=True) if shape_of(atom)]


def fixed_outputs(eqn: core.JaxprEqn, states: list[Fixed]) -> list[State]:
    """Outputs of an equation that does not depend on x: along which axes they may vary."""
    name, static = eqn.primitive.name, eqn.params
    varies = states[0].varies if states else frozenset()
    ndim = len(shape_of(eqn.invars[0])) if eqn.invars else 0
    more: frozenset[int] | None = None  # axes along which it varies besides those of the first operand
    if name == "iota":
        return [Fixed(frozenset({static["dimension"]}))]
    if name in _KEYS:
        more = frozenset(range(ndim, len(shape_of(eqn.outvars[0])))) if name != "random_wrap" else frozenset({ndim - 1})
        if name == "random_wrap":
            return [Fixed(varies - more)]
    elif name in ELEMENTWISE or name in ("concatenate", "dynamic_update_slice"):
        varies = frozenset().union(*(state.varies for state in states))
        more = frozenset({static["dimension"]} if name == "concatenate" else range(ndim))
        if name in ELEMENTWISE:
            more = frozenset()
    elif name in ("slice", "dynamic_slice", "rev", "tile", "split", "stop_gradient"):
        more = frozenset()
    elif name == "stack":
        moved = [moved_by(eqn, [state] * len(states)) for state in states]
        varies = frozenset().union(*(state.varies for state in moved if isinstance(state, Fixed)))
        more = frozenset({static["axis"]})
    elif name == "pad":
        more = frozenset(axis for axis, pads in enumerate(static["padding_config"]) if tuple(pads) != (0, 0, 0))
    elif name in ALONG:
        varies = frozenset().union(*(state.varies for state in states))
        more = frozenset({static[ALONG[name]]})
    elif name == "reshape":
        more = None if varies else frozenset()
    elif name in ("broadcast_in_dim", "transpose", "squeeze", "unstack", "dot_general") or _is_reduction(name):
        return [moved_by(eqn, list(states))] * len(eqn.outvars)
    elif name == "gather":
        return [_gathered(eqn, states)]
    return [all_axes(var) if more is None else Fixed(varies | more) for var in eqn.outvars]


_INDEPENDENT = "key<fry>"
"""The type of keys of which mapped ones draw as each alone does: threefry, JAX's own default."""

_KEYS = frozenset({"random_bits", "random_seed", "random_split", "random_unwrap", "random_wrap"})


def _is_reduction(name: str) -> bool:
    return name in ("argmax", "argmin", "reduce") or (
        name.startswith("reduce_") and not name.startswith("reduce_window") and name != "reduce_precision"
    )


def moved_by(eqn: core.JaxprEqn, states: list[State]) -> State:
    """The state of the outputs of an equation with no program in it."""
    name, static = eqn.primitive.name, eqn.params
    shape = shape_of(eqn.invars[0]) if eqn.invars else ()
    ndim = len(shape)
    if name in ELEMENTWISE:
        return join(eqn, _of_arrays(eqn, states) or states[:1])
    if name == "broadcast_in_dim":
        where = {a: b for a, b in enumerate(static["broadcast_dimensions"]) if shape[a] == static["shape"][b]}
        return moved_to(eqn, states[0], where)
    if name == "transpose":
        return moved_to(eqn, states[0], {axis: k for k, axis in enumerate(static["permutation"])})
    if name == "squeeze":
        return moved_to(eqn, states[0], _without(ndim, static["dimensions"]))
    if name == "dot_general":
        return _product(eqn, states)
    if _is_reduction(name):
        axes = static["axes"] if "axes" in static else static["dimensions"]
        return moved_to(eqn, join(eqn, _of_arrays(eqn, states)), _without(ndim, axes))
    if name in ALONG:
        return moved_to(eqn, join(eqn, states), _same(ndim, static[ALONG[name]]))
    if name in TRAILING:
        return moved_to(eqn, join(eqn, states), _same(ndim, *range(ndim - TRAILING[name], ndim)))
    if name == "fft":
        return moved_to(eqn, states[0], _same(ndim, *range(ndim - len(static["fft_lengths"]), ndim)))
    if name.startswith("reduce_window") or name == "select_and_scatter_add":
        return moved_to(eqn, join(eqn, _of_arrays(eqn, states)), _outside_windows(static, ndim))
    if name == "conv_general_dilated":
        numbers = static["dimension_numbers"]
        if isinstance(states[1], Fixed) and static["batch_group_count"] == 1:
            return moved_to(eqn, states[0], {numbers.lhs_spec[0]: numbers.out_spec[0]})
    if name in _PIECES or name.startswith("scatter"):
        return _pieces(eqn, states)
    if name in ("random_bits", "random_split"):
        if not isinstance(states[0], Fixed) and str(getattr(eqn.invars[0].aval, "dtype", "")) != _INDEPENDENT:
            raise StopSearchError(eqn, "draws with keys whose bits may depend on each other", undecided=True)
        return states[0]
    if name == "random_gamma":
        return _drawn(eqn, states)
    raise StopSearchError(eqn, "is not known to this check", undecided=True)


def _product(eqn: core.JaxprEqn, states: Sequence[State]) -> State:
    (left_sum, right_sum), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    left, right = (len(shape_of(atom)) for atom in eqn.invars)
    left_free = [axis for axis in range(left) if axis not in (*left_sum, *left_batch)]
    right_free = [axis for axis in range(right) if axis not in (*right_sum, *right_batch)]
    start = len(left_batch) + len(left_free)
    of_left = {axis: k for k, axis in enumerate([*left_batch, *left_free])}
    of_right = {axis: k for k, axis in enumerate(right_batch)}
    of_right |= {axis: start + k for k, axis in enumerate(right_free)}
    moved = [moved_to(eqn, state, where) for state, where in zip(states, (of_left, of_right), strict=True)]
    return join(eqn, moved)


def _outside_windows(static: Mapping[str, Any], ndim: int) -> dict[int, int]:
    """The axes along which windows have one entry, and take each once."""
    ones = (1,) * ndim
    padding = static.get("padding") or ((0, 0),) * ndim
    along = zip(
        static["window_dimensions"],
        static["window_strides"],
        static.get("base_dilation") or ones,
        padding,
        strict=True,
    )
    return {
        axis: axis
        for axis, (size, stride, dilation, pads) in enumerate(along)
        if (size, stride, dilation) == (1, 1, 1) and tuple(pads) == (0, 0)
    }


_PIECES = frozenset({
    "bitcast_convert_type", "concatenate", "dynamic_slice", "dynamic_update_slice", "gather", "pad", "reshape", "rev",
    "slice", "split", "stack", "tile", "unstack",
})  # fmt: skip
"""Primitives that take arrays apart or put them together; along the batch axis that may come to nothing in the end."""


def _pieces(eqn: core.JaxprEqn, states: list[State]) -> State:
    name, static = eqn.primitive.name, eqn.params
    shape, out = shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
    ndim = len(shape)
    if name == "gather":
        return _gathered(eqn, states)
    if name.startswith("scatter"):
        return _scattered(eqn, states)
    taken = "splits the batch axis"
    if name in ("slice", "dynamic_slice"):
        where = {axis: axis for axis in range(ndim) if shape[axis] == out[axis]}
        return moved_to(eqn, states[0], where, taken, undecided=True)
    if name == "dynamic_update_slice":
        update = shape_of(eqn.invars[1])
        where = {axis: axis for axis in range(ndim) if shape[axis] == update[axis]}
        return moved_to(eqn, join(eqn, states[:2]), where, taken, undecided=True)
    if name == "pad":
        where = {axis: axis for axis, pads in enumerate(static["padding_config"]) if tuple(pads) == (0, 0, 0)}
        return moved_to(eqn, states[0], where, taken, undecided=True)
    if name == "rev":
        return moved_to(eqn, states[0], _same(ndim, *static["dimensions"]), taken, undecided=True)
    if name == "bitcast_convert_type":
        return moved_to(eqn, states[0], _same(min(ndim, len(out))), taken, undecided=True)
    if name == "tile":
        return states[0]
    if name == "unstack":
        return moved_to(eqn, states[0], _without(ndim, [static["axis"]]), taken, undecided=True)
    if name == "split":
        return moved_to(eqn, states[0], _same(ndim, static["axis"]), taken, undecided=True)
    try:
        state = join(eqn, states)
    except StopSearchError as stop:  # as where rows are numbered for a gather, which may be each example's own
        raise StopSearchError(eqn, "brings each example together with other arrays", undecided=True) from stop
    if name == "stack":
        return moved_to(eqn, state, {axis: axis + (axis >= static["axis"]) for axis in range(ndim)})
    return moved_to(eqn, state, _same(ndim, static["dimension"]), taken, undecided=True)


def reshaped(eqn: core.JaxprEqn, state: ByExample, number: int) -> State:
    """The state after a reshape, for this number of examples."""
    old, new = shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
    stride = state.inner * math.prod(old[state.axis + 1 :])  # between examples, in the order of the entries
    for axis, size in enumerate(new):
        step = math.prod(new[axis + 1 :])
        if step > stride or stride % step or eqn.params["dimensions"] is not None:
            continue
        inner = stride // step
        if size % (inner * number) == 0:
            return ByExample(axis, inner)
    raise StopSearchError(eqn, "splits the batch axis", undecided=True)


def _gathered(eqn: core.JaxprEqn, states: Sequence[State]) -> State:
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    shape, out = shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
    dropped = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    windows = [axis for axis in range(len(shape)) if axis not in dropped]
    fixed = isinstance(states[0], Fixed)  # of which a part varies where the whole does
    of_operand = {axis: numbers.offset_dims[k] for k, axis in enumerate(windows) if fixed or sizes[axis] == shape[axis]}
    of_indices = dict(enumerate(axis for axis in range(len(out)) if axis not in numbers.offset_dims))
    batching = zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    of_operand |= {axis: of_indices[other] for axis, other in batching}
    picked = "picks rows out of the block"
    moved = [
        moved_to(eqn, states[0], of_operand, picked, undecided=True),
        moved_to(eqn, states[1], of_indices, picked, undecided=True),
    ]
    return join(eqn, moved)


def _scattered(eqn: core.JaxprEqn, states: Sequence[State]) -> State:
    numbers = eqn.params["dimension_numbers"]
    shape, updates = shape_of(eqn.invars[0]), shape_of(eqn.invars[2])
    dropped = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    windows = [axis for axis in range(len(shape)) if axis not in dropped]
    of_updates = {
        update: axis
        for update, axis in zip(numbers.update_window_dims, windows, strict=True)
        if updates[update] == shape[axis]
    }
    of_operand = {axis: axis for axis in (*numbers.operand_batching_dims, *of_updates.values())}
    of_indices = {
        index: axis
        for axis, index in zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True)
    }
    free = [axis for axis in range(len(updates)) if axis not in numbers.update_window_dims]
    of_updates |= {free[index]: axis for index, axis in of_indices.items()}
    written = "writes to rows of the block"
    moved = [
        moved_to(eqn, state, where, written, undecided=True)
        for state, where in zip(states, (of_operand, of_indices, of_updates), strict=True)
    ]
    return join(eqn, moved)


def _drawn(eqn: core.JaxprEqn, states: Sequence[State]) -> State:
    """Numbers that are drawn by keys, each for what it is given."""
    keys, values = states[0], states[1]
    if isinstance(values, ByExample) and isinstance(keys, Fixed) and values.axis >= len(shape_of(eqn.invars[0])):
        raise PlaceError(
            eqn, "draws for the whole block with one key, so that an example's outputs depend on its place", values
        )
    return join(eqn, [keys, values])


# The number of examples as a number.
