"""How work is cut for a platform: a record each of numbers that change speed and memory, and results by rounding alone.

Whatever depends on the platform reads it here. What is in use is chosen by JAX's default backend; `using` puts other
numbers in their place for a while, which a config's section ``compute`` asks for.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Tuning:
    """The numbers of one platform."""

    tile: int
    """Block sizes are multiples of this."""
    values: int
    """Float32 values of a block's widest site, or of its logits, over all networks and points that run together."""
    most: int
    """The most values of a block anywhere in a model, such as its inputs."""
    networks: int
    """Networks that run together, as one batched program; the others follow one after the other."""
    points: int
    """Points of a sweep that run together, likewise."""
    evaluations: float
    """Networks times points times examples of a call, after which progress is shown and kept."""
    flops: float
    """Floating-point operations of a call that trains, likewise."""
    shares_arrays: bool
    """Whether splits lie in the same arrays, so that one program serves all of them."""
    turns_products: bool
    """Whether narrow products are computed as their transposes (`layouts`)."""
    staircases: bool
    """Whether blocks are cut to the inputs that they need (`staircases`), where that saves enough."""
    lanes: int | None
    """Examples that are added up at once before they are summed; None where the compiler's own sums are as fast."""


CPU = Tuning(
    # Rows of whole cache lines, and products of whole tiles, are faster than those of 500 or 1,000 examples.
    tile=64,
    # What stays in a core's second-level cache beside what is made of it, one network at a time, and no power of two,
    # whose rows would share a cache's sets.
    values=3 * 2**14,
    # 128 MB for each core; binds only where something is far wider than the sites and logits, as feature maps are.
    most=2**25,
    networks=1,
    points=1,
    evaluations=1e8,
    flops=3e10,
    # Blocks are small, and compiling takes long.
    shares_arrays=True,
    turns_products=True,
    # Blocks are small against the examples of a step of a staircase.
    staircases=True,
    # XLA sums one number after the other, but adds whole vectors.
    lanes=64,
)

ACCELERATOR = Tuning(
    tile=64,
    # Enough to keep the device busy.
    values=2**28,
    most=2**28,
    networks=10,
    points=32,
    evaluations=1e10,
    flops=3e12,
    shares_arrays=False,
    turns_products=False,
    staircases=False,
    lanes=None,
)

_OF_PLATFORM = {"cpu": CPU}

_changes: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("changes", default={})  # noqa: B039


def current() -> Tuning:
    """The numbers of the platform that JAX computes on, with the changes that `using` has made."""
    return dataclasses.replace(_OF_PLATFORM.get(jax.default_backend(), ACCELERATOR), **_changes.get())


@contextlib.contextmanager
def using(**changes: Any) -> Iterator[None]:
    """Replace fields of `Tuning` by those that are not None."""
    fields = {name: value for name, value in changes.items() if value is not None}
    token = _changes.set({**_changes.get(), **fields})
    try:
        yield
    finally:
        _changes.reset(token)
