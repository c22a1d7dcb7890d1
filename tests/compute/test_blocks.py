"""Blocks: every example of a split is walked once, whatever the blocks, the devices and what lies beside the split."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from jaxdist.compute import blocks, devices
from jaxdist.config import SweepConfig
from jaxdist.networks import mlp
from jaxdist.perturbations import families, ranges
from jaxdist.sweep import ensemble_sweep
from tests.conftest import traced_at_most

SITE, GRIDS = "dense0/pre", {"scale": [0.5, 1], "clip": [0.3, 0.6, 1], "offset": [-0.2, 0.1, 0.4]}


def walked(examples, size, rows, *, rehearse=False):
    """For each example's number, how often it was counted and the sum of the values and labels it came with."""
    mesh = devices.mesh_of(examples)

    @jax.jit
    def run(examples):
        def local(examples):
            def step(total, part):
                weight = part.valid.astype(jnp.int32)
                seen = jnp.stack([weight, weight * part.x[:, 0], weight * part.y])
                return total.at[:, jnp.where(part.valid, part.number, rows)].add(seen)

            none = jnp.zeros((3, rows + 1), jnp.int32)
            shares = blocks.fold(step, none, examples, size, rehearse=rehearse)
            found = lax.psum(shares.sum(0), devices.DATA)
            return lax.pmax(found, devices.SEED)

        return jax.shard_map(local, mesh=mesh, in_specs=(blocks.specs(examples),), out_specs=PartitionSpec())(examples)

    return np.asarray(run(examples))


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("counts", [(1300, 513), (7, 300), (37,)])
def test_inputs_at_any_position_are_fetched_from_whatever_device_holds_them(counts, seeds):
    mesh = devices.make_mesh(jax.devices()[:2], seeds)
    rng = np.random.default_rng(0)
    splits = {str(k): (1000 * k + np.arange(count)[:, None], np.arange(count)) for k, count in enumerate(counts)}
    for name, examples in devices.place_splits(splits, mesh, dtype=np.int32).items():
        x, count = splits[name][0], len(splits[name][1])
        wanted = rng.permutation(count)

        @jax.jit
        def run(examples, wanted=wanted, count=count):
            def local(examples):
                def step(total, part):
                    rows = part.rows(jnp.asarray(wanted)[jnp.minimum(part.number, count - 1)])[:, 0]
                    return total.at[jnp.where(part.valid, part.number, count)].add(jnp.where(part.valid, rows, 0))

                shares = blocks.fold(step, jnp.zeros(count + 1, jnp.int32), examples, 64)
                return lax.pmax(lax.psum(shares.sum(0), devices.DATA), devices.SEED)

            specs = (blocks.specs(examples),)
            return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)(examples)

        np.testing.assert_array_equal(np.asarray(run(examples))[:-1], x[wanted, 0])


@pytest.mark.parametrize("rehearse", [False, True])
@pytest.mark.parametrize("size", [64, 192, 1000])
@pytest.mark.parametrize("counts", [(1000, 600), (1300, 513, 2000), (7, 300), (1, 1), (129,)])
def test_every_example_of_every_split_is_walked_once(counts, size, rehearse):
    mesh = devices.make_mesh(jax.devices()[:2])
    splits = {
        str(k): (1000 * k + np.arange(count)[:, None], np.arange(count) % 10) for k, count in enumerate(counts, start=1)
    }
    for name, examples in devices.place_splits(splits, mesh, dtype=np.int32).items():
        (x, y), count = splits[name], len(splits[name][1])
        times, values, labels = walked(examples, size, max(counts), rehearse=rehearse)
        np.testing.assert_array_equal(times[:-1], np.arange(max(counts)) < count)
        np.testing.assert_array_equal(values[:count], x[:, 0])
        np.testing.assert_array_equal(labels[:count], y)


def test_no_block_and_no_sample_reaches_out_of_its_split():
    """Whatever the block size, so that what lies beside cannot leak into sums, nor cost time."""
    mesh = devices.make_mesh(jax.devices()[:2])
    splits = {"train": (np.full((2000, 1), 5), np.zeros(2000, int)), "test": (np.full((700, 1), 9), np.zeros(700, int))}
    placed = devices.place_splits(splits, mesh, dtype=np.int32)
    assert placed["train"].x is placed["test"].x
    for (name, examples), value in zip(placed.items(), (5, 9), strict=True):
        for size in (64, 1000, 10**6):

            def local(examples, size=size):
                def step(seen, part):
                    return jnp.minimum(seen[0], part.x.min()), jnp.maximum(seen[1], part.x.max())

                low, high = blocks.fold(step, (jnp.int32(99), jnp.int32(0)), examples, size, rehearse=True)
                sample = blocks.some(examples, 64)
                return jnp.stack([low.min(), high.max(), sample.min(), sample.max()])[None]

            run = jax.jit(
                lambda e, local=local: jax.shard_map(
                    local, mesh=mesh, in_specs=(blocks.specs(e),), out_specs=PartitionSpec((devices.SEED, devices.DATA))
                )(e)
            )
            np.testing.assert_array_equal(run(examples), value, err_msg=name)


def test_splits_that_are_small_or_of_another_shape_lie_by_themselves():
    mesh = devices.make_mesh(jax.devices()[:2])
    x, y = np.zeros((1000, 4)), np.zeros(1000, int)
    for other in ((x[:100], y[:100]), (x[:, :2], y)):
        placed = devices.place_splits({"train": (x, y), "test": other}, mesh)
        assert list(placed) == ["train", "test"]
        assert placed["train"].x is not placed["test"].x
        assert placed["test"].x.shape == other[0].shape


@pytest.mark.slow
def test_splits_of_shared_arrays_are_measured_as_if_they_lay_alone(digits, trained):
    """With values that would show in ranges and counts if a row of the other split were taken for one's own."""
    mesh, params = devices.make_mesh(jax.devices()[:2]), trained["relu"]
    relu = mlp.model("relu")
    # In the programs of the ranges and of the sweep, which are the same for both splits.
    once = dataclasses.replace(relu, apply=traced_at_most(relu.apply, 11))
    x = digits.train.images.reshape(len(digits.train.images), -1).astype(np.float32)
    own = {"few": (x[:601], digits.train.labels[:601]), "many": (100 * x, digits.train.labels)}
    together = devices.place_splits(own, mesh)

    def measured(examples, model=relu):
        found = ranges.measure(model, params, examples, (SITE,))[SITE]
        return found, ensemble_sweep.sweep(
            model, params, {SITE: families.joined(found, GRIDS, SweepConfig())}, examples
        )

    beside = {name: measured(examples, once) for name, examples in together.items()}
    for name, (images, labels) in own.items():
        alone = measured(devices.place(images, labels, mesh))
        chex.assert_trees_all_close(beside[name][0], alone[0], rtol=1e-4, atol=1e-5)
        for one, other in zip(beside[name][1], alone[1], strict=True):
            assert np.abs(one.astype(int) - other).max() <= 1


def test_a_split_without_an_example_or_with_a_label_too_few_is_refused():
    mesh = devices.make_mesh(jax.devices()[:2])
    x, y = np.zeros((4, 2)), np.zeros(4, int)
    for pair in ((x[:0], y[:0]), (x, y[:3])):
        with pytest.raises(ValueError, match="at least one example and one label for each"):
            devices.place_splits({"train": (x, y), "test": pair}, mesh)
