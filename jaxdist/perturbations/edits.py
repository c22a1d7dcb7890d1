"""Edits of a site's value as data.

An edit is a pytree of arrays with a leading P, so that a sweep is one map over it. `families` makes them from ranges
and fractions.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxdist.compute import elementwise
from jaxdist.types import PRNG, AnyArray

SomeEdit = TypeVar("SomeEdit")

Target: TypeAlias = Literal["example", "source", "mean"]
"""Where a value is led that its own network does not tell: see `Toward`."""


class Edit(Protocol):
    """A pytree whose leaves are [H] for one point; stacked points have a leading P."""

    def apply(self, value: Array, example_index: Array, unit_axis: int) -> Array:
        """Return the edited value, of the same shape.

        `example_index` [n] numbers the block's examples within the whole split, so that a random edit does not
        depend on blocks or devices.
        """
        ...


@runtime_checkable
class Drawn(Edit, Protocol):
    """An edit whose points use the same random numbers: they are drawn once a block, and not once a point."""

    def draw(self, value: Array, example_index: Array, unit_axis: int) -> Array:
        """The numbers that stacked points [P] use on a block, given the site's unedited value."""
        ...

    def apply_drawn(self, value: Array, drawn: Array, unit_axis: int) -> Array:
        """What `apply` gives at one point, from what `draw` has drawn."""
        ...


class Affine(NamedTuple):
    """``y = clip(scale * h + offset, low, high)``, unit by unit; leaves [H]."""

    scale: Array
    offset: Array
    low: Array
    high: Array

    def apply(self, value: Array, example_index: Array, unit_axis: int) -> Array:
        """Apply to a value whose axis `unit_axis` has H entries."""
        wide, (scale, offset, low, high) = _alike(value, self, unit_axis)
        edited = elementwise.at_most(elementwise.at_least(scale * wide + offset, low), high)
        return edited.astype(value.dtype)  # what follows computes as it does without an edit

    def sparing(self, spared: AnyArray) -> Affine:
        """The same edit, but none of the units that are `spared` [H]."""
        return jax.tree.map(lambda neutral, leaf: jnp.where(spared, neutral, leaf), unedited(spared.size), self)

    def flipped(self, signs: Array) -> Affine:
        """What this edit does to units whose sign was changed first and is changed back behind it; `signs` are +-1."""
        down = signs < 0
        low, high = jnp.where(down, -self.high, self.low), jnp.where(down, -self.low, self.high)
        return Affine(self.scale, self.offset * signs, low, high)


class Then(NamedTuple):
    """One edit after another; leaves as theirs."""

    first: Affine
    second: Affine

    def apply(self, value: Array, example_index: Array, unit_axis: int) -> Array:
        """Apply both, the second to what the first gives."""
        return self.second.apply(self.first.apply(value, example_index, unit_axis), example_index, unit_axis)


class OfMagnitude(NamedTuple):
    """An edit of ``|h|`` in place of h: what an even activation sees is the same, whatever the unit's sign."""

    edit: Affine

    def apply(self, value: Array, example_index: Array, unit_axis: int) -> Array:
        """Apply to the magnitude."""
        return self.edit.apply(jnp.abs(value), example_index, unit_axis)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["threshold", "fill"], meta_fields=["activation", "large"]
)
@dataclasses.dataclass(frozen=True)
class Fill:
    """Where the activation is at most `threshold`, or if `large` at least that, the value becomes `fill`; leaves [H].

    The activation is the function that follows the site, None where the site itself holds its values.
    """

    threshold: Array
    fill: Array
    activation: Callable[[Array], Array] | None = None
    large: bool = False

    def apply(self, value: Array, example_index: Array, unit_axis: int) -> Array:
        """Apply to a value whose axis `unit_axis` has H entries."""
        wide, (threshold, fill) = _alike(value, (self.threshold, self.fill), unit_axis)
        size = wide if self.activation is None else self.activation(wide)
        # What is no number stays so.
        beyond = size >= threshold if self.large else size <= threshold
        return jnp.where(beyond, fill, wide).astype(value.dtype)

    def sparing(self, spared: AnyArray) -> Fill:
        """The same edit, but none of the units that are `spared` [H]."""
        nowhere = jnp.inf if self.large else -jnp.inf
        return dataclasses.replace(self, threshold=jnp.where(spared, nowhere, self.threshold))


@functools.partial(jax.tree_util.register_dataclass, data_fields=["sd", "key", "which"], meta_fields=["draws"])
@dataclasses.dataclass(frozen=True)
class Noise:
    """Normal noise of each unit's standard deviation, drawn for every unit and example; `sd` [H].

    Stacked points are those of one draw after another, P / `draws` each; `which` [] is a point's draw and `key` [2]
    the data of that draw's key. Points of one draw use the same numbers, so that a curve over them is smooth.
    """

    sd: Array
    key: Array
    which: Array
    draws: int = 1

    def apply(self, value: Array, example_index: Array, unit_axis: int) -> Array:
        """Apply to a value whose axis `unit_axis` has H entries."""
        return self._added(value, _normal(self.key, value, example_index, unit_axis), unit_axis)

    def draw(self, value: Array, example_index: Array, unit_axis: int) -> Array:
        """Normal numbers for every draw, ``[draws, *value.shape]``."""
        keys = self.key[:: len(self.key) // self.draws]
        return lax.map(lambda key: _normal(key, value, example_index, unit_axis), keys)

    def apply_drawn(self, value: Array, drawn: Array, unit_axis: int) -> Array:
        """Add this point's share of what was drawn."""
        return self._added(value, drawn[self.which], unit_axis)

    def sparing(self, spared: AnyArray) -> Noise:
        """The same edit, but none of the units that are `spared` [H]."""
        return dataclasses.replace(self, sd=jnp.where(spared, 0, self.sd))

    def _added(self, value: Array, normal: Array, unit_axis: int) -> Array:
        wide, (sd,) = _alike(value, (self.sd,), unit_axis)
        return (wide + sd * normal.astype(sd.dtype)).astype(value.dtype)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["edit", "key", "which"], meta_fields=["draws"])
@dataclasses.dataclass(frozen=True)
class Signed:
    """``v + s (X(v) - v)`` of an edit X, with a random sign s for every unit and example: as far, but incoherent.

    Stacked points are those of one draw after another, P / `draws` each; `which` [] is a point's draw and `key` [2] the
    data of that draw's key. The first draw's signs are all 1, so that its points are those of X itself. Points of one
    draw use the same signs.
    """

    edit: Edit
    key: Array
    which: Array
    draws: int = 1

    def apply(self, value: Array, example_index: Array, unit_axis: int) -> Array:
        """Apply to a value whose axis `unit_axis` has H entries."""
        signs = jnp.where(self.which == 0, 1, _signs(self.key, value, example_index, unit_axis))
        return self._turned(value, signs, example_index, unit_axis)

    def draw(self, value: Array, example_index: Array, unit_axis: int) -> Array:
        """Signs for every draw, ``[draws, *value.shape]``, of 8 bits each."""
        keys = self.key[:: len(self.key) // self.draws]
        drawn = lax.map(lambda key: _signs(key, value, example_index, unit_axis), keys[1:])
        return jnp.concatenate([jnp.ones((1, *value.shape), drawn.dtype), drawn])

    def apply_drawn(self, value: Array, drawn: Array, unit_axis: int) -> Array:
        """Apply with this point's signs of what was drawn."""
        return self._turned(value, drawn[self.which], jnp.zeros(0, jnp.int32), unit_axis)

    def sparing(self, spared: AnyArray) -> Signed:
        """The same edit, but none of the units that are `spared` [H]."""
        return dataclasses.replace(self, edit=sparing(self.edit, spared))

    def _turned(self, value: Array, signs: Array, example_index: Array, unit_axis: int) -> Array:
        edited = self.edit.apply(value, example_index, unit_axis)
        # X's own values as they are, not put together again.
        return jnp.where(signs > 0, edited, value - (edited - value)).astype(value.dtype)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["fraction", "key", "which", "shared"],
    meta_fields=["of", "draws"],
)
@dataclasses.dataclass(frozen=True)
class Toward:
    """``v + p * (target - v)``, where the sweep finds the target; p is the `fraction` [H] of each unit.

    `of` says what the target is: the site's value of another "example" of the split, that of the "source" which goes
    with the example, or its "mean" over the training examples, at each position. Which other example is drawn: stacked
    points are those of one draw after another, P / `draws` each; `which` [] is a point's draw and `key` [2] the data of
    that draw's key. All sites of a network take the values of the same example.
    """

    fraction: Array
    key: Array
    which: Array
    of: Target
    draws: int = 1
    shared: Any = None
    """What points have in common, once the sweep knows it: [draws, N] of examples, or each call's mean."""

    def apply(self, value: Array, example_index: Array, unit_axis: int) -> Array:
        """Not known from the value alone; raises `TypeError`."""
        raise TypeError("Toward: only a sweep knows the targets; use toward(value, target, unit_axis)")

    def toward(self, value: Array, target: Array, unit_axis: int) -> Array:
        """The edited value, given its target, which has one example or as many as the value."""
        wide, (fraction,) = _alike(value, (self.fraction,), unit_axis)
        target = target.astype(wide.dtype)
        between = (1 - fraction) * wide + fraction * target
        # As it is at 0 and the target alone at 1, also where they are infinite.
        return jnp.where(fraction == 0, wide, jnp.where(fraction == 1, target, between)).astype(value.dtype)

    def sparing(self, spared: AnyArray) -> Toward:
        """The same edit, but none of the units that are `spared` [H]."""
        return dataclasses.replace(self, fraction=jnp.where(spared, 0, self.fraction))


def of_units(edit: Any) -> list[Array]:
    """An edit's leaves that have an entry for each unit [H]: all but keys, and the numbers of draws."""
    if isinstance(edit, Signed):
        return of_units(edit.edit)
    if isinstance(edit, Noise):
        return [edit.sd]
    return [edit.fraction] if isinstance(edit, Toward) else jax.tree.leaves(edit)


def of_points(edit: Any) -> Any:
    """An edit's leaves that have an entry for each point [P], without what points have in common."""
    return dataclasses.replace(edit, shared=None) if isinstance(edit, Toward) else edit


@functools.partial(jax.jit, static_argnames="count")
def other_examples(keys: AnyArray, *, count: int) -> Array:
    """Of `count` examples another one for each, by the data of keys [..., 2]; int32 [..., count].

    It is a random permutation of a single cycle: the examples are put in a random order, each followed by the next.
    """

    def permutation(key: Array) -> Array:
        order = jax.random.permutation(jax.random.wrap_key_data(key, impl=PRNG), jnp.arange(count, dtype=jnp.int32))
        return jnp.zeros(count, jnp.int32).at[order].set(jnp.roll(order, -1))

    flat = jnp.asarray(keys).reshape(-1, 2)
    return jax.vmap(permutation)(flat).reshape(*keys.shape[:-1], count)


class Sparing(NamedTuple):
    """Any other edit, but none of the units that are `spared` [H]."""

    edit: Edit
    spared: Array

    def apply(self, value: Array, example_index: Array, unit_axis: int) -> Array:
        """Apply, and put the values of spared units back."""
        edited = self.edit.apply(value, example_index, unit_axis)
        return jnp.where(beside(self.spared, value, unit_axis), value, edited).astype(value.dtype)


def sparing(edit: Edit, spared: AnyArray) -> Edit:
    """An edit of one point that leaves the units that are `spared` [H] as they are."""
    if isinstance(edit, Affine | Fill | Noise | Signed | Toward):
        return edit.sparing(spared)
    return Sparing(edit, jnp.asarray(spared))


def _of_examples(
    draw: Callable[[Array, tuple[int, ...]], Array], key_data: Array, value: Array, example_index: Array, unit_axis: int
) -> Array:
    """Random numbers of a value's shape; an example's depend on the key and its number alone."""
    key, axis = jax.random.wrap_key_data(key_data, impl=PRNG), 1 if unit_axis % value.ndim == 0 else 0
    shape = value.shape[:axis] + value.shape[axis + 1 :]
    return jax.vmap(lambda i: draw(jax.random.fold_in(key, i), shape), out_axes=axis)(example_index)


def _normal(key_data: Array, value: Array, example_index: Array, unit_axis: int) -> Array:
    """Standard normal numbers of a value's shape, float32."""
    draw = functools.partial(jax.random.normal, dtype=jnp.float32)  # with 64 bits too, so that numbers are the same
    return _of_examples(draw, key_data, value, example_index, unit_axis)


def _signs(key_data: Array, value: Array, example_index: Array, unit_axis: int) -> Array:
    """Signs of a value's shape, int8, 1 and -1 being as frequent."""
    draw = functools.partial(jax.random.rademacher, dtype=jnp.int8)
    return _of_examples(draw, key_data, value, example_index, unit_axis)


def beside(leaf: Array, value: Array, unit_axis: int) -> Array:
    """A leaf [H] in a shape that broadcasts along a value's units."""
    return jnp.expand_dims(leaf, [axis for axis in range(value.ndim) if axis != unit_axis % value.ndim])


def _alike(value: Array, leaves: Sequence[Array], unit_axis: int) -> tuple[Array, list[Array]]:
    """The value and the edit's leaves [H] to lie along its units, all in the finer precision of both."""
    dtype = max(value.dtype, leaves[0].dtype, key=lambda each: each.itemsize)
    return value.astype(dtype), [beside(leaf, value, unit_axis).astype(dtype) for leaf in leaves]


def unedited(units: int) -> Affine:
    """The edit of H units that changes nothing."""
    ones = jnp.ones(units, jnp.float32)
    return Affine(ones, 0 * ones, -jnp.inf * ones, jnp.inf * ones)


def concatenate(parts: Sequence[SomeEdit], axis: int = -2) -> SomeEdit:
    """Join the points of several edits of one kind, so that all of them run through one program; leaves [..., P, H]."""
    joined: SomeEdit = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=axis), *parts)
    return joined
