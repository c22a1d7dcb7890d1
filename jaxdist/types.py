"""The axis glossary and the array aliases that every docstring and annotation uses.

- S, seeds: networks that differ only in their initial weights
- P, sweep points: one edit each
- N, examples of a whole split; n, the examples of one block
- D, input features
- H, hidden units
- C, classes
- T, training steps (parameter updates)

Accuracies are fractions everywhere in code and data; percentages appear only where a person reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from jax import Array
    from jaxtyping import Bool, Float

AnyArray: TypeAlias = "Array | np.ndarray"
"""An array that may be on a device or already on the host."""

PRNG = "threefry2x32"
"""How random bits are made, whatever JAX's default: a number drawn by a mapped key depends on that key alone."""

Values: TypeAlias = "npt.NDArray[np.float64]"
"""A float64 array; what its numbers are is said where it is used."""

Flags: TypeAlias = "npt.NDArray[np.bool_]"
"""An array of bool."""

Params: TypeAlias = Any
"""A pytree of arrays. Stacked parameters have a leading S on every leaf."""

Tap: TypeAlias = "Callable[[str, Array], Array]"
"""Called by a model at each named site with the value there; the model goes on with what it returns."""

Apply: TypeAlias = "Callable[..., Any]"
"""``apply(params, x[n, ...])``, or ``apply(params, x[n, ...], tap)``, on a block of examples; the form of every model.

It returns logits, or what `Model.output` picks them of.
"""


class Ranges(NamedTuple):
    """Per-unit statistics of a site over the training images; arrays of shape [H], or [S, H] for an ensemble."""

    low: Float[AnyArray, "*S H"]
    high: Float[AnyArray, "*S H"]
    dead: Bool[AnyArray, "*S H"]
    """The activation is 0 for every training image."""
