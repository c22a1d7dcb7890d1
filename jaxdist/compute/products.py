"""Products of float32 values with integer-valued pixels, cut so that matrix units compute each part exactly.

The first layer multiplies pixels, integers 0..255, twice a step: W @ x forward and dH @ x backward. Eight bits of a
float32 product's 24 are wasted on the pixels' side, and matrix units are many times faster on narrow operands. So only
the other side is cut, into three parts that together hold its 24 bits; each part's product is exact, and only their
sum rounds. How the pixels are stored says how their products are computed, see `pack`:

float32  as they are: one float32 product.
uint8    bfloat16: both sides as bfloat16, which holds 8 bits, so all pixels and each third of a value.
int8     digits: signed bytes, summed in 32-bit integers.

With digits, a weight's scale depends on nothing but its row and integer sums have no order, so preactivations are the
same bit for bit on any number of devices, in blocks of any size. The gradient's scale is its block's largest value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float32, Num, UInt8

from jaxdist.errors import InputError
from jaxdist.types import AnyArray

Backend = Literal["float32", "bfloat16", "digits"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

_SHIFT = 128
"""Pixels 0..255 less this are signed bytes."""

TILE = 64
"""Bytes of a row of a matrix unit's tile; rows of whole tiles were 1.3 times faster than those of 717 bytes."""

_TOP = 127 * 2.0**16
"""What a row's largest value becomes at most: its three digits are (127, 0, 0), which leaves room to round up."""

_SMALLEST = 1e-30
"""Rows whose largest value is below this are scaled as if it were this, so that no scale underflows to 0."""

NEIGHBOURS = 8
"""Weights of a row that round together with digits; a tile holds whole groups of them."""

_FRACTION_BITS = 4
"""Bits of each weight below an integer that are kept for that: sums of `NEIGHBOURS` weights stay below 2**31."""

MOST_TERMS = (2**31 - 1) // (128 * 255)
"""Terms a 32-bit sum of digits times pixels holds in any case: 65,793 inputs, or examples a block."""


def as_pixels(x: Num[np.ndarray, "N D"]) -> UInt8[np.ndarray, "N D"]:
    """Return inputs as uint8; raises `InputError` if they are not integers 0..255, as exact products need."""
    pixels = np.clip(np.nan_to_num(x), 0, 255).astype(np.uint8)
    wrong = pixels != x
    if wrong.any():
        raise InputError(
            f"compute.precision: 'exact' needs inputs that are integers from 0 to 255 (8 bits), got {x[wrong][0]:g}; "
            "use data.normalisation 'raw', or compute.precision 'float32'"
        )
    return pixels


def pack(pixels: UInt8[np.ndarray, "N D"], backend: Backend) -> Num[np.ndarray, "N stored"]:
    """Store pixels [N, D], uint8, as `backend` multiplies them.

    Digits take int8 [N, D'] with D' a multiple of the tile: a column of ones, zeros to as many as round together, then
    pixels less 128, then zeros. The ones make the sum over examples, which undoes the shift in the gradient, a
    by-product of the product itself.
    """
    if backend == "float32":
        return pixels.astype(np.float32)
    if backend == "bfloat16":
        return pixels
    inputs = pixels.shape[1]
    packed = np.zeros((len(pixels), _width(inputs)), np.int8)
    # Flipping the highest bit subtracts 128.
    packed[:, NEIGHBOURS : NEIGHBOURS + inputs] = (pixels ^ np.uint8(_SHIFT)).view(np.int8)
    packed[:, 0] = 1
    return packed


def _width(inputs: int) -> int:
    return -(-(NEIGHBOURS + inputs) // TILE) * TILE


def stored_widths(inputs: Sequence[int], backend: Backend) -> tuple[int, ...]:
    """How many values the first so many inputs take, stored as `backend` multiplies them."""
    return tuple(_width(count) if backend == "digits" else count for count in inputs)


def product(
    weight: Float32[AnyArray, "H D"], x: Num[AnyArray, "n stored"], *, cut: bool = False
) -> Float32[Array, "H n"]:
    """Multiply weights [H, D] with a block of inputs [n, D], stored as by `pack`, to float32 [H, n]; differentiable.

    With `cut` the last inputs may be missing, of digits whole tiles: they are 0.

    Raises:
      ValueError: if the inputs do not fit the weights, or are too many for exact integer sums.
    """
    inputs = weight.shape[1]
    most = _width(inputs) if x.dtype == jnp.int8 else inputs
    fits = x.shape[1] < most and (x.dtype != jnp.int8 or x.shape[1] % TILE == 0) if cut else False
    if x.shape[1] != most and not fits:
        raise ValueError(f"expected {x.dtype} inputs [n, {most}] for weights {weight.shape}, got {x.shape}")
    if x.dtype == jnp.int8 and max(*x.shape, 0) > MOST_TERMS:
        raise ValueError(f"expected at most {MOST_TERMS:,} inputs, and examples a block, got {x.shape}")
    if x.dtype == jnp.int8:
        return _by_digits(weight, x)
    weight = jnp.asarray(weight)[:, : x.shape[1]]
    return _by_bfloat16(weight, x) if x.dtype == jnp.uint8 else _dot(weight, jnp.asarray(x), over_examples=False)


def _dot(values: Array, x: Array, *, over_examples: bool, to: type | None = None) -> Array:
    """Contract the last axis of `values` with the inputs' features, or with their examples."""
    axes = (((values.ndim - 1,), (0 if over_examples else 1,)), ((), ()))
    # Parts are exact as they are; asking for more precision could only split them again.
    precision = None if to is None else lax.Precision.DEFAULT
    return lax.dot_general(values, x, axes, precision=precision, preferred_element_type=to)


def _thirds(values: Array) -> Array:
    """Cut float32 values into three bfloat16 that add up to them, [3, ...], each holding the next 8 bits.

    By bit mask: XLA may take a cast to bfloat16 and back for nothing, and leave it out.
    """
    parts = []
    for _ in range(2):
        high = lax.bitcast_convert_type(values, jnp.uint32) & jnp.uint32(0xFFFF0000)
        parts.append(lax.bitcast_convert_type(high, jnp.float32))
        values = values - parts[-1]
    return jnp.stack([*parts, values]).astype(jnp.bfloat16)


def _bfloat16_product(values: Array, x: Array, *, over_examples: bool) -> Array:
    high, middle, low = _dot(_thirds(values), x.astype(jnp.bfloat16), over_examples=over_examples, to=jnp.float32)
    return high + (middle + low)


@jax.custom_vjp
def _by_bfloat16(weight: Array, x: Array) -> Array:
    return _bfloat16_product(weight, x, over_examples=False)


def _bfloat16_forward(weight: Array, x: Array) -> tuple[Array, Array]:
    return _by_bfloat16(weight, x), x


def _bfloat16_backward(x: Array, cotangent: Array) -> tuple[Array, None]:
    return _bfloat16_product(cotangent, x, over_examples=True), None


_by_bfloat16.defvjp(_bfloat16_forward, _bfloat16_backward)


def _digits(values: Array) -> tuple[Array, Array]:
    """Cut rows of values [H, K] into signed bytes [3, H, K] in base 256, highest first, and a scale [H, 1].

    The values are scaled to integers up to `_TOP` by their row's largest. Rounding to integers is the main error, up to
    half an integer, 1.2e-7 of the largest at most.
    """
    scale = _scale(values)
    return _bytes(jnp.round(values * (1 / scale)).astype(jnp.int32)), scale


def _weight_digits(weight: Array) -> tuple[Array, Array]:
    """Cut weights [H, D'], D' a multiple of the tile, as `_digits` does values, neighbours together.

    A weight's rounding is the same in every example, so it shifts a unit's preactivations in all of them alike, which
    training's gradient shows more than rounding that averages out. Neighbouring pixels are nearly the same in images;
    so the sums of the first of each `NEIGHBOURS` weights are what is rounded, and a rounded weight is the difference
    of two. Where neighbours are not alike, preactivations shift less too, and vary a little more. It is done in
    integers, which no program adds up differently.
    """
    scale = _scale(weight)
    fixed = jnp.round(weight * (2**_FRACTION_BITS / scale)).astype(jnp.int32)
    sums = jnp.cumsum(fixed.reshape(len(fixed), -1, NEIGHBOURS), axis=2)
    rounded = (sums + 2 ** (_FRACTION_BITS - 1)) >> _FRACTION_BITS
    before = jnp.pad(rounded[:, :, :-1], ((0, 0), (0, 0), (1, 0)))
    return _bytes((rounded - before).reshape(weight.shape)), scale


def _scale(values: Array) -> Array:
    """What rows of values [H, K] are divided by so that none is above `_TOP`, [H, 1]."""
    largest = jnp.maximum(jnp.max(jnp.abs(values), axis=1, keepdims=True), _SMALLEST)
    # Rounded up to a power of two: to multiply by it or its inverse rounds nothing, so however XLA fuses or rewrites
    # that in one program or another, the bits are the same.
    bits = lax.bitcast_convert_type(largest / _TOP, jnp.uint32)
    scale = lax.bitcast_convert_type((bits + jnp.uint32(0x7FFFFF)) & jnp.uint32(0xFF800000), jnp.float32)
    return jnp.where(largest < jnp.inf, scale, largest)  # NaN and infinity stay


def _bytes(integers: Array) -> Array:
    """The digits [3, H, K] of integers [H, K]: plain bytes, once 128 is added to each, which shifts and a mask cut."""
    shifts = jnp.array([16, 8, 0], jnp.int32).reshape(3, 1, 1)
    return ((((integers + jnp.int32(0x808080))[None] >> shifts) & 255) - _SHIFT).astype(jnp.int8)


def _joined(sums: Array, scale: Array) -> Array:
    """Put integer sums [3, H, K] of the three digits together."""
    high, middle, low = sums.astype(jnp.float32)
    return (high * 65536 + (middle * 256 + low)) * scale


@jax.custom_vjp
def _by_digits(weight: Array, x: Array) -> Array:
    # Padding first is faster than padding the bytes. The digits of padding are 0, so the column of ones adds nothing.
    behind = _width(weight.shape[1]) - NEIGHBOURS - weight.shape[1]
    digits, scale = _weight_digits(jnp.pad(weight, ((0, 0), (NEIGHBOURS, behind))))
    # Of all weights, so that their scale does not depend on how many inputs are missing.
    digits = digits[:, :, : x.shape[1]]
    # sum(d * pixel) = sum(d * (pixel - 128)) + 128 * sum(d).
    shift = _SHIFT * jnp.sum(digits, axis=2, keepdims=True, dtype=jnp.int32)
    return _joined(_dot(digits, x, over_examples=False, to=jnp.int32) + shift, scale)


def _digits_forward(weight: Array, x: Array) -> tuple[Array, tuple[Array, Array]]:
    return _by_digits(weight, x), (weight, x)


def _digits_backward(saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, None]:
    weight, x = saved
    inputs = weight.shape[1]
    digits, scale = _digits(cotangent)
    sums = _dot(digits, x, over_examples=True, to=jnp.int32)
    gradient = _joined(sums[:, :, NEIGHBOURS : NEIGHBOURS + inputs] + _SHIFT * sums[:, :, :1], scale)
    return jnp.pad(gradient, ((0, 0), (0, inputs - gradient.shape[1]))), None


_by_digits.defvjp(_digits_forward, _digits_backward)
