"""What runs over all networks of an ensemble and all blocks of examples: the one driver, and what it is given.

A `Reducer` is made of one network's examples block by block: `init`, `update`, `merge` and `result`, as metrics are in
other libraries. `fold_blocks` takes several over the blocks of one network, and can be traced within a larger program.
`over_networks` adds the mesh, groups of networks, compilation, and fetches what comes out.

A network's numbers are the same bits whatever its place in an ensemble and however many others there are: networks are
computed one at a time, or in groups of a fixed size, and their examples always lie in as many shares as there are
devices, whose sums are merged in order.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from jaxdist.compute import blocks, programs, tuning
from jaxdist.compute.devices import DATA, SEED, Examples, mesh_of, spread, to_host
from jaxdist.compute.streams import Streamed
from jaxdist.types import AnyArray, Params

Tree: TypeAlias = Any
"""A pytree of arrays."""


Each: TypeAlias = "Callable[[slice, Callable[[], Tree]], Tree]"
"""Given a call's networks and what measures them, returns its arrays, or what it makes of them."""


def at_once(_: slice, compute: Callable[[], Tree]) -> Tree:
    """An `Each` that measures and passes on."""
    return compute()


class Measurement(Protocol):
    """What is measured of one network, with what belongs to it, on this device's examples; static, so hashable.

    It runs inside ``shard_map``; what it returns is the same on all devices that share the examples.
    """

    def __call__(self, params: Params, given: Tree, examples: Examples, size: int) -> Tree: ...


class Reducer:
    """A `Measurement` that is made block by block; subclasses are frozen dataclasses of what is static."""

    rehearses: bool = False
    """Whether a block from the middle comes before all others too, with no row valid, for what has to be known then."""

    def init(self, params: Params, given: Tree, x: Tree) -> Tree:
        """The state before any example; `x` has the shapes of one example, [1, ...]."""
        raise NotImplementedError

    def update(self, state: Tree, params: Params, given: Tree, block: blocks.Block) -> Tree:
        """The state with a block's valid examples.

        Args:
          state: what `init` or the last `update` gave.
          params: of one network.
          given: what belongs to that network, such as its edits, leaves [P, H].
          block: n examples, some of which may not be `valid`.
        """
        raise NotImplementedError

    def merge(self, first: Tree, second: Tree) -> Tree:
        """The state of both; by default their sum."""
        return jax.tree.map(jnp.add, first, second)

    def result(self, state: Tree, total: Array) -> Tree:
        """What the state of all `total` examples comes to; by default itself."""
        return state

    def __call__(self, params: Params, given: Tree, examples: Examples, size: int) -> Tree:
        return fold_blocks((self,), params, given, examples, size)[0]


def fold_blocks(
    reducers: tuple[Reducer, ...], params: Params, given: Tree, examples: Examples, size: int
) -> tuple[Tree, ...]:
    """What each reducer makes of one network's examples, in one walk over their blocks; inside ``shard_map``.

    Args:
      reducers: those that go over the examples together.
      params: of one network; gradients by them within a reducer are of this device's block alone.
      given: what belongs to that network, the same for every reducer.
      examples: this device's part of a split, as `blocks.specs` cuts it.
      size: examples a block, at most.
    """
    x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), examples.x)
    params = blocks.varying(params)
    start = tuple(reducer.init(params, given, x) for reducer in reducers)

    def step(states: tuple[Tree, ...], block: blocks.Block) -> tuple[Tree, ...]:
        return tuple(r.update(state, params, given, block) for r, state in zip(reducers, states, strict=True))

    rehearse = any(reducer.rehearses for reducer in reducers)
    shares = _of_all_devices(blocks.fold(step, start, examples, size, rehearse=rehearse))
    count = jax.tree.leaves(shares)[0].shape[0]
    states = [jax.tree.map(lambda leaf, k=k: leaf[k], shares) for k in range(count)]
    return tuple(
        reducer.result(functools.reduce(reducer.merge, [state[k] for state in states]), examples.total)
        for k, reducer in enumerate(reducers)
    )


def _of_all_devices(shares: Tree) -> Tree:
    """The states [K, ...] of the shares of all devices, on all of them, given those of this device's own."""
    devices, this = lax.axis_size(DATA), lax.axis_index(DATA)

    def gathered(leaf: Array) -> Array:
        kind = jnp.int8 if leaf.dtype == bool else leaf.dtype
        places = jnp.zeros((devices, *leaf.shape), kind)
        # Each place is filled by one device alone, so that the sum is what that one has, bit for bit.
        leaves = lax.psum(lax.dynamic_update_index_in_dim(places, leaf.astype(kind), this, 0), DATA)
        return leaves.reshape(-1, *leaf.shape[1:]).astype(leaf.dtype)

    return jax.tree.map(gathered, shares)


def over_networks(
    measure: Measurement,
    params: Params,
    given: Tree,
    examples: Examples | Streamed,
    *,
    size: int,
    precision: str = "float32",
    work: float | None = None,
    each: Each = at_once,
) -> Tree:
    """Measure every network of stacked parameters, with what belongs to it (leading S), and fetch what comes out.

    Args:
      size: examples a block, at most.
      precision: of matrix products.
      work: evaluations of one network, by which the ensemble is cut into calls of some seconds; by default all of it is
        one call.
      each: is given each call's networks and what measures them, and returns its arrays (leading: those networks), or
        what it makes of them, perhaps from an earlier time.

    Raises:
      AssertionError: if the leading axes of `params` and `given` are not all alike.
    """
    programs.release_if_many()
    seeds = jax.tree.leaves(params)[0].shape[0]
    mesh = examples.mesh if isinstance(examples, Streamed) else mesh_of(examples)
    chex.assert_tree_shape_prefix((params, given), (seeds,))
    together = group(seeds, work, mesh)
    parts = []
    for first in range(0, seeds, together):
        these = slice(first, min(first + together, seeds))

        def compute(these: slice = these) -> Tree:
            some = filled(jax.tree.map(lambda leaf: np.asarray(leaf[these]), (params, given)), together)
            static = {"measure": measure, "size": size, "precision": precision, "chosen": tuning.current()}
            if isinstance(examples, Streamed):
                results = _over_chunks(measure, spread(some, mesh), examples, static)
            else:
                results = _run(*spread(some, mesh), examples, **static, mesh=mesh)
            return jax.tree.map(lambda leaf: leaf[: these.stop - these.start], to_host(results))

        parts.append(each(these, compute))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


@dataclasses.dataclass(frozen=True)
class _OfChunk(Reducer):
    """The state of a reducer after a chunk, before its `result`."""

    whole: Reducer

    def init(self, params: Params, given: Tree, x: Tree) -> Tree:
        return self.whole.init(params, given, x)

    def update(self, state: Tree, params: Params, given: Tree, block: blocks.Block) -> Tree:
        return self.whole.update(state, params, given, block)

    def merge(self, first: Tree, second: Tree) -> Tree:
        return self.whole.merge(first, second)


def _over_chunks(
    measure: Measurement, networks: tuple[Params, Tree], examples: Streamed, static: dict[str, Any]
) -> Tree:
    """What a reducer makes of a stream, in one walk over its chunks, each fetched before the next is read."""
    # What walks more than once, or chooses something by a rehearsal, is refused before it comes to this.
    assert isinstance(measure, Reducer), measure
    assert not measure.rehearses, measure
    chosen = {**static, "measure": _OfChunk(measure), "mesh": examples.mesh}
    states = (to_host(_run(*networks, chunk, **chosen)) for chunk in examples.chunks())
    return _finished(measure, functools.reduce(functools.partial(_merged, measure), states), np.int32(examples.total))


@functools.partial(jax.jit, static_argnums=0)
def _merged(measure: Reducer, first: Tree, second: Tree) -> Tree:
    return jax.vmap(measure.merge)(first, second)


@functools.partial(jax.jit, static_argnums=0)
def _finished(measure: Reducer, states: Tree, total: Array) -> Tree:
    return jax.vmap(measure.result, in_axes=(0, None))(states, total)


def group(seeds: int, work: float | None, mesh: Mesh) -> int:
    """Networks of one call: as even as whole rows of the mesh, and whole groups that run together, allow."""
    chosen = tuning.current()
    least = mesh.shape[SEED] * chosen.networks
    most = -(-seeds // least) * least if work is None else int(chosen.evaluations / work) // least * least
    calls = -(-seeds // max(least, most))
    return -(-seeds // calls // least) * least


def filled(tree: Tree, count: int) -> Tree:
    """Arrays with their last entry repeated until there are so many, so that every call runs one program."""

    def longer(leaf: AnyArray) -> np.ndarray:
        array = np.asarray(leaf)
        missing = count - len(array)
        return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array

    return jax.tree.map(longer, tree)


def each_network(measure: Callable[[Tree], Tree], networks: Tree, together: int) -> Tree:
    """Apply `measure` to every network of a device, so many at a time.

    What is around the loop does not change how a network is computed, even where there is but one.
    """

    def isolated(network: Tree) -> Tree:
        return lax.optimization_barrier(measure(lax.optimization_barrier(network)))

    return lax.map(isolated, networks, batch_size=together if together > 1 else None)


@functools.partial(jax.jit, static_argnames=("measure", "size", "precision", "chosen", "mesh"))
def _run(
    params: Params,
    given: Tree,
    examples: Examples,
    *,
    measure: Measurement,
    size: int,
    precision: str,
    chosen: tuning.Tuning,
    mesh: Mesh,
) -> Tree:
    def ensemble(params: Params, given: Tree, examples: Examples) -> Tree:
        def measure_network(network: tuple[Params, Tree]) -> Tree:
            return measure(network[0], network[1], examples, size)

        return each_network(measure_network, (params, given), chosen.networks)

    with jax.default_matmul_precision(precision):
        specs = (PartitionSpec(SEED), PartitionSpec(SEED), blocks.specs(examples))
        # Unchecked, since a network's own constants are not marked as varying with the devices.
        run = jax.shard_map(ensemble, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(SEED), check_vma=False)
        return run(params, given, examples)
