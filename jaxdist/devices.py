"""Where the work happens: CPU devices, the mesh, and arrays of examples laid out on it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

SEED, DATA = "seed", "data"


def use_all_cores() -> None:
    """Give JAX one CPU device a core, which is faster than one device with several threads.

    Call it before JAX is used for anything else; afterwards the device count is fixed and a warning says so.
    It has no effect on accelerators.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        jax.config.update("jax_num_cpu_devices", cores)
    except RuntimeError:
        if len(jax.devices("cpu")) != cores:
            warnings.warn("JAX is already in use, so its number of CPU devices stays as it is", stacklevel=2)


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh (seed, data) over `devices`, or all that JAX sees; every device gets its share of the examples."""
    chosen = np.array(jax.devices() if devices is None else devices)
    return Mesh(chosen.reshape(1, -1), (SEED, DATA))


class Examples(NamedTuple):
    """A split laid out over the mesh's data axis, in its given order.

    The last device's share is filled up by repeating the last example; `total` says how many are real.
    """

    x: Any  # [N', ...] float32 or 8-bit integers (`products.pack`); a pytree of them for two views walked together
    y: Array  # [N'] int32
    total: Array  # [] int32, the number of real examples N


def place(x: np.ndarray, y: np.ndarray, mesh: Mesh, *, dtype: np.typing.DTypeLike = np.float32) -> Examples:
    """Lay inputs [N, ...], stored as `dtype`, and labels [N] out over the mesh.

    Raises:
      ValueError: if there are no examples, or not one label for each.
    """
    if len(x) != len(y) or not len(x):
        raise ValueError(
            f"expected one label for each of at least one example, got {len(x)} inputs and {len(y)} labels"
        )
    missing = -len(x) % mesh.shape[DATA]

    def filled(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array

    sharding = NamedSharding(mesh, PartitionSpec(DATA))
    return Examples(
        jax.device_put(filled(np.asarray(x, dtype)), sharding),
        jax.device_put(filled(np.asarray(y, np.int32)), sharding),
        jnp.int32(len(x)),
    )


def mesh_of(examples: Examples) -> Mesh:
    """The mesh that `place` laid these examples out on."""
    sharding = examples.y.sharding
    assert isinstance(sharding, NamedSharding)
    mesh = sharding.mesh
    assert isinstance(mesh, Mesh)
    return mesh
