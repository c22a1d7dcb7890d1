"""Where the work happens: CPU devices, the mesh, and arrays laid out on it and fetched from it.

With several processes (`hosts`) the mesh spans all of them, and every process calls these functions alike.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdist.compute import staircases, tuning
from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.types import AnyArray

SEED = "seed"
DATA = "data"
"""The mesh's axes: networks, and the images that the devices of a row share."""


LEAST_SHARED = 256
"""Examples a device that a split has at least where it shares its arrays with others."""


def use_all_cores() -> None:
    """Give JAX one CPU device a core, which is faster than one device with several threads.

    Call it before JAX is used for anything else; afterwards the device count is fixed and a warning says so.
    It has no effect on accelerators. A number that XLA_FLAGS or JAX_NUM_CPU_DEVICES asks for stays.
    """
    if "--xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        jax.config.update("jax_num_cpu_devices", cores)
    except RuntimeError:
        if len(jax.devices("cpu")) != cores:
            warnings.warn("JAX is already in use, so its number of CPU devices stays as it is", stacklevel=2)


def make_mesh(devices: Sequence[jax.Device] | None = None, seeds: int = 1) -> Mesh:
    """A mesh (seed, data) over `devices`, or all that JAX sees, for ensembles of so many seeds.

    Seeds first, since networks need nothing of each other: as many rows as divide both devices and seeds, so that no
    device works on what is thrown away. The devices of a row share the examples.

    Raises:
      InputError: where JAX is set to draw other random numbers than elsewhere, as whatever runs on a mesh may draw.
    """
    for name, usual in (("jax_threefry_partitionable", True), ("jax_random_seed_offset", 0)):
        if (value := jax.config.values[name]) != usual:
            raise InputError(
                f"{name} is {value}: with that JAX draws other random numbers, so that results differ from others of "
                f"the same seeds; set it to {usual}"
            )
    chosen = np.array(jax.devices() if devices is None else devices)
    return Mesh(chosen.reshape(math.gcd(chosen.size, seeds), -1), (SEED, DATA))


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["x", "y", "first", "total", "laid", "before", "source", "number", "step", "places"],
    meta_fields=["least", "shares", "widths"],
)
@dataclasses.dataclass(frozen=True)
class Examples:
    """A split laid out over the mesh's data axis; every row of the mesh has all of it.

    It lies in its given order, or in that of a staircase (`staircases`), whose `number` and `places` lead back.

    The N examples lie in as many equal shares as there are devices in the whole mesh, `shares` of them one after the
    other on each device, from its row `first` on; the last ones are filled up by repeating the last example. What
    stands around them belongs to other splits, which lie in the same arrays.
    """

    x: Any  # [N', ...] float32 or 8-bit integers (`products.pack`); a pytree of them for two views walked together
    y: Array  # [N'] int32, or [N', T] of tokens, or the float32 targets [N', ...] of a regression
    first: Array  # [] int32
    total: Array  # [] int32, the number of real examples N
    least: int  # rows of the smallest share in these arrays, which no block exceeds
    shares: int = 1  # on each device
    laid: Array | None = None  # [] int32 of a chunk (`streams`), the examples it has room for, where N are fewer
    before: Array | None = None  # [] int32 of a chunk, the examples of the split before it
    source: Any = None  # other inputs, one for each example, laid out as x, whose values edits may put in place of x's
    number: Array | None = None  # [N'] int32, the examples' positions in the split, where they lie in another order
    step: Array | None = None  # [N'] int32, the place in `widths` of what an example needs
    places: Array | None = None  # [N or more] int32, where the example of a position lies
    widths: tuple[int, ...] = ()  # how many of the first inputs a block may be cut to, the others being 0


def place(x: Any, y: np.ndarray, mesh: Mesh, *, dtype: np.typing.DTypeLike | None = np.float32) -> Examples:
    """Lay one split out over the mesh, as `place_splits` does several.

    Args:
      x: inputs [N, ...], an array or a pytree of them.
      y: labels [N, ...], or real targets.
      mesh: from `make_mesh`.
      dtype: that inputs are stored as; None: each array's own.

    Raises:
      ValueError: as `place_splits` does.
    """
    return _laid_out({"only": (x, y)}, mesh, dtype)["only"]


class Stairs(NamedTuple):
    """The steps of a staircase that the examples of several splits are on (`staircases`)."""

    widths: tuple[int, ...]
    steps: Mapping[str, np.ndarray]  # [N] int32 of each split


def place_splits(
    splits: Mapping[str, tuple[Any, np.ndarray]],
    mesh: Mesh,
    *,
    dtype: np.typing.DTypeLike | None = np.float32,
    stairs: Stairs | None = None,
) -> dict[str, Examples]:
    """Lay several splits out over the mesh.

    On a CPU, where blocks are small, they share their arrays and differ only in where they lie: what is compiled for
    one split serves all. A split of few examples lies by itself, so that the others' blocks need not be as small.

    Args:
      splits: by name, inputs [N, ...], an array or a pytree of them, with labels [N, ...], or real targets.
      mesh: from `make_mesh`.
      dtype: that inputs are stored as; None: each array's own.
      stairs: with these each device has its share of the examples of every step, in the order of the steps.

    Raises:
      ValueError: if a split has no examples, or not one label for each.
    """
    large = {name for name, (_, y) in splits.items() if len(y) >= LEAST_SHARED * mesh.size}
    shapes = {kind_of(splits[name]) for name in large}
    together = large if tuning.current().shares_arrays and len(shapes) == 1 else set()
    shared = _laid_out({name: pair for name, pair in splits.items() if name in together}, mesh, dtype, stairs)
    alone = {name: pair for name, pair in splits.items() if name not in shared}
    laid_out = shared | {name: _laid_out({name: pair}, mesh, dtype, stairs)[name] for name, pair in alone.items()}
    return {name: laid_out[name] for name in splits}


def kind_of(x: Any) -> tuple[Any, ...]:
    """The structure of inputs, with each array's shape but for the examples, and its type."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(x)]
    return (jax.tree.structure(x), *((leaf.shape[1:], leaf.dtype) for leaf in leaves))


def rows(x: Any, which: Any) -> Any:
    """Some examples of inputs [N, ...], an array or a pytree of them."""
    return jax.tree.map(lambda leaf: leaf[which], x)


def count(x: Any) -> int:
    """How many examples there are in inputs [N, ...], an array or a pytree of them."""
    return len(jax.tree.leaves(x)[0])


def _laid_out(
    splits: Mapping[str, tuple[Any, np.ndarray]],
    mesh: Mesh,
    dtype: np.typing.DTypeLike | None,
    stairs: Stairs | None = None,
) -> dict[str, Examples]:
    """The splits in shared arrays: on each device its share of the first split, of the second, and so on."""
    for x, y in splits.values():
        for leaf in jax.tree.leaves(x):
            if len(leaf) != len(y) or not len(leaf):
                raise ValueError(
                    f"expected at least one example and one label for each, got {counted(len(leaf), 'input')} and "
                    f"{counted(len(y), 'label')}"
                )
    if not splits:
        return {}
    orders = [None if stairs is None else staircases.dealt(stairs.steps[name], mesh.size) for name in splits]
    inputs = jax.tree.map(
        lambda *leaves: _interleaved(list(map(np.asarray, leaves)), mesh, dtype or np.asarray(leaves[0]).dtype, orders),
        *(x for x, _ in splits.values()),
    )
    every = [np.asarray(y) for _, y in splits.values()]
    labels = _interleaved(every, mesh, np.float32 if every[0].dtype.kind == "f" else np.int32, orders)
    totals = [len(y) for _, y in splits.values()]
    shares, each = [share_of(total, mesh) for total in totals], mesh.shape[SEED]
    firsts = np.cumsum([0, *shares]).tolist()
    numbers, steps = None, None
    if stairs is not None:
        numbers = _interleaved([np.arange(total) for total in totals], mesh, np.int32, orders)
        steps = _interleaved([stairs.steps[name] for name in splits], mesh, np.int32, orders)
    return {
        name: Examples(
            inputs,
            labels,
            same(first, mesh),
            same(total, mesh),
            min(shares) // each,
            each,
            number=numbers,
            step=steps,
            # As long for every split, so that what is compiled for one serves all.
            places=None if order is None else same(staircases.places(order, max(totals)), mesh),
            widths=() if stairs is None else stairs.widths,
        )
        for name, first, total, order in zip(splits, firsts, totals, orders, strict=False)
    }


def share_of(total: int, mesh: Mesh) -> int:
    """Rows of a device: equal shares, as many in all as there are devices, so that sums do not depend on the mesh."""
    return -(-total // mesh.size) * mesh.shape[SEED]


def _interleaved(
    arrays: Sequence[np.ndarray], mesh: Mesh, dtype: np.typing.DTypeLike, orders: Sequence[np.ndarray | None]
) -> Array:
    """The arrays' shares on each device of the data axis, filled up by the array's last entry; each in its order."""
    devices = mesh.shape[DATA]
    shares = [share_of(len(array), mesh) for array in arrays]
    shape = (devices * sum(shares), *arrays[0].shape[1:])

    @functools.cache  # devices of several rows of the mesh hold the same
    def of_device(k: int) -> np.ndarray:
        parts = []
        for array, share, order in zip(arrays, shares, orders, strict=True):
            mine = slice(k * share, (k + 1) * share)
            parts.append(array[mine] if order is None else array[order[mine]])
        if len(parts) == 1 and len(parts[0]) == shares[0]:
            return np.asarray(parts[0], dtype)  # nothing to copy
        buffer = rest = np.empty((sum(shares), *shape[1:]), dtype)
        for part, array, share, order in zip(parts, arrays, shares, orders, strict=True):
            rest[: len(part)], rest[len(part) : share] = part, array[-1 if order is None else order[-1]]
            rest = rest[share:]
        return buffer

    sharding = NamedSharding(mesh, PartitionSpec(DATA))
    return jax.make_array_from_callback(shape, sharding, lambda index: of_device(_first(index) // sum(shares)))


def _first(index: Any) -> int:
    """The first row of a device's part of an array."""
    return index[0].start or 0


def spread(tree: Any, mesh: Mesh) -> Any:
    """Lay arrays with a leading S, on the host or this process's devices, out over the mesh's seed axis.

    Where S does not divide, the last seed is repeated: cut what comes back to S.
    """
    return jax.tree.map(lambda leaf: _split(np.asarray(leaf), mesh, SEED), tree)


def same(value: AnyArray | int, mesh: Mesh) -> Array:
    """Put the same array, or int32, on every device of the mesh."""
    return _put(np.asarray(value, np.int32 if isinstance(value, int) else None), mesh, PartitionSpec())


def to_host(tree: Any) -> Any:
    """Fetch arrays, whole, as NumPy arrays that are the same in every process."""

    def fetched(leaf: AnyArray) -> np.ndarray:
        if isinstance(leaf, Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(fetched, tree)


def of_each(values: np.ndarray, mesh: Mesh) -> np.ndarray:
    """What each device's process holds as `values` [K], as [devices, K]: the way to find out whether they differ."""
    sharding = NamedSharding(mesh, PartitionSpec((SEED, DATA)))
    each = jax.make_array_from_callback((mesh.size, len(values)), sharding, lambda _: values[None])
    return np.asarray(to_host(each))


def _split(array: np.ndarray, mesh: Mesh, axis: str) -> Array:
    """Split the leading axis evenly over a mesh axis, its last entry repeated until that is possible."""
    missing = -len(array) % mesh.shape[axis]
    filled = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array
    return _put(filled, mesh, PartitionSpec(axis))


def _put(array: np.ndarray, mesh: Mesh, spec: PartitionSpec) -> Array:
    # Every process holds the whole array, and gives its own devices their parts of it.
    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, spec), lambda index: array[index])


def mesh_of(examples: Examples) -> Mesh:
    """The mesh that `place` laid these examples out on."""
    sharding = examples.y.sharding
    assert isinstance(sharding, NamedSharding)
    mesh = sharding.mesh
    assert isinstance(mesh, Mesh)
    return mesh
