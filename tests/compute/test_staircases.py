"""Staircases: what a block is cut to holds all that its examples have, and nothing comes out different."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxdist.compute import Reducer, blocks, devices, over_networks, products, staircases
from jaxdist.compute.devices import DATA
from jaxdist.data import inputs
from jaxdist.networks import mlp, training
from tests.staircase_support import shifted

pytestmark = pytest.mark.usefixtures("optimised")  # rounding as users have it


@pytest.fixture(scope="module")
def images(digits):
    """Training and test images [N, 256], 0..240, mostly 0, and their labels."""
    return {name: shifted(getattr(digits, name), count, seed=k) for k, (name, count) in enumerate(COUNTS.items())}


COUNTS = {"train": 4097, "test": 1030}
"""Images that no number of devices divides."""


@pytest.mark.parametrize(("before", "together", "tile"), [(0, 1, 16), (8, 8, 64), (0, 3, 1)])
def test_every_example_has_nothing_behind_the_width_of_its_step(images, before, together, tile):
    on = images["train"][0] != 0
    planned = staircases.plan(on, tile=tile, before=before, together=together)
    assert planned is not None
    assert sorted(planned.columns) == list(range(on.shape[1]))
    assert list(planned.widths) == sorted(set(planned.widths))
    assert len(planned.widths) <= staircases.STEPS
    assert all((before + width) % tile == 0 for width in planned.widths[:-1])
    groups = np.split(planned.columns // together, range(together, on.shape[1], together))
    assert all(len(set(group.tolist())) == 1 for group in groups[: on.shape[1] // together - 1])
    steps = planned.steps(on)
    for row, step in zip(on, steps, strict=True):
        needed = np.flatnonzero(row[planned.columns]).max(initial=-1) + 1
        assert needed <= planned.widths[step]
        assert step == 0 or needed > planned.widths[step - 1]


def test_examples_that_all_need_everything_have_no_staircase(images):
    rng = np.random.default_rng(0)
    assert staircases.plan(rng.random((5000, 300)) < 0.2, tile=16) is None
    # As narrow as what is ever set, so that nothing is saved either.
    framed = np.pad(rng.random((5000, 100)) < 0.5, ((0, 0), (100, 100)))
    assert staircases.plan(framed, tile=16) is None
    assert staircases.plan(images["train"][0][:1000] != 0, tile=16) is None, "too few for a step"


def test_groups_of_columns_are_whole_but_for_the_last():
    on = np.zeros((3000, 100), bool)
    on[:, 90:] = True  # what is left over when columns go by eight is set most often
    on[::2, 16:24] = True
    columns = staircases._ordered(on, 8)
    assert sorted(columns) == list(range(100))
    assert columns[:8].tolist() == list(range(88, 96))
    assert columns[8:16].tolist() == list(range(16, 24))
    assert columns[-4:].tolist() == list(range(96, 100))


@pytest.mark.parametrize("seed", range(4))
def test_no_other_cut_multiplies_fewer_columns(seed, monkeypatch):
    monkeypatch.setattr(staircases, "STEPS", 3)
    needed = np.sort(np.random.default_rng(seed).integers(1, 50, 9))
    ends, mean = staircases._cut(needed)

    def cost(ends):
        return sum(needed[last] * (last - first) for first, last in itertools.pairwise([-1, *ends]))

    every = [[*some, 8] for count in range(3) for some in itertools.combinations(range(8), count)]
    assert mean * 9 == cost(ends) == min(map(cost, every))


@dataclasses.dataclass(frozen=True)
class Seen(Reducer):
    """Sums that tell whether each example is there once, as itself: whole, cut, and fetched by its number."""

    def init(self, params, given, x):
        return jnp.zeros((4, 3), jnp.int32)

    def update(self, state, params, given, block):
        def moments(x):
            whole = x.astype(jnp.int32)
            each = jnp.stack([jnp.sum(whole, 1), jnp.sum(whole * whole, 1), block.y], 1)
            return jnp.sum(jnp.where(block.valid[:, None], each * (block.number[:, None] % 7 + 1), 0), 0)

        number = jnp.minimum(block.number, params - 1)
        cut = [block.with_inputs(moments, every=every) for every in (1, 3)]
        return state + jnp.stack([moments(block.x), *cut, moments(block.rows(number))])


@pytest.mark.parametrize("size", [100, 383, 5000])
@pytest.mark.parametrize(("count", "seeds"), [(1, 1), (2, 1), (2, 2)])
def test_every_example_is_walked_over_once_as_itself(images, size, count, seeds):
    mesh = devices.make_mesh(jax.devices()[:count], seeds=seeds)
    laid_out = inputs.lay_out(images, mesh, "float32")
    for name, (x, y) in images.items():
        examples = laid_out.splits[name]
        assert examples.widths
        total = len(y)
        each = np.stack([x.sum(1), (x * x).sum(1), y], 1).astype(np.int64)
        expected = (each * (np.arange(total)[:, None] % 7 + 1)).sum(0).astype(np.int32)
        seen = over_networks(Seen(), np.full(seeds, total, np.int32), None, examples, size=size)
        assert seen.tolist() == [[expected.tolist()] * 4] * seeds


def test_shares_have_alike_parts_of_every_step(images):
    mesh = devices.make_mesh()
    examples = inputs.lay_out(images, mesh, "float32").splits["train"]
    share = devices.share_of(COUNTS["train"], mesh)
    shares = np.asarray(examples.step).reshape(mesh.shape[DATA], -1)[:, :share]
    assert (np.diff(shares, axis=1) >= 0).all()
    counts = [np.bincount(share, minlength=len(examples.widths)) for share in shares]
    assert np.ptp(counts, axis=0).max() <= mesh.size


def test_blocks_are_cut(images):
    """The widths that a function is applied to are those of the steps, and only where it is needed the last."""
    mesh = devices.make_mesh(jax.devices()[:1])
    examples = inputs.lay_out(images, mesh, "float32").splits["train"]

    def walk(examples):
        def step(state, block):
            return state + block.with_inputs(lambda x: jnp.int32(x.shape[1]), every=1)

        return blocks.fold(step, jnp.int32(0), examples, 64)

    specs = (blocks.specs(examples),)
    run = jax.shard_map(walk, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(DATA), check_vma=False)
    (columns,) = np.asarray(jax.jit(run)(examples))
    count = -(-COUNTS["train"] // 64)
    steps = np.asarray(examples.step)[: COUNTS["train"]]
    expected = [examples.widths[steps[min(64 * k + 63, len(steps) - 1)]] for k in range(count)]
    assert columns == sum(expected)
    assert columns < 0.9 * count * examples.widths[-1]


SCALED = {
    "raw": lambda x: x,
    "standard": lambda x: (x / 255 - np.float32(0.13)) / np.float32(0.3),
    "inverted": lambda x: 240 - x,
}


@pytest.fixture(scope="module")
def both(images):
    """The images of a scaling and backend, in the order of a staircase and in their own."""

    def laid_out(scaling, backend="float32", count=2):
        mesh = devices.make_mesh(jax.devices()[:count])
        splits = {name: (SCALED[scaling](x).astype(np.float32), y) for name, (x, y) in images.items()}
        pair = [inputs.lay_out(splits, mesh, backend, in_order=in_order) for in_order in (False, True)]
        assert [bool(each.splits["train"].widths) for each in pair] == [True, False]
        return pair

    return functools.cache(laid_out)


def initial(activation, hidden=(24,), seeds=3):
    return mlp.init_ensemble(jax.random.key(1), range(seeds), (256, *hidden, 10), activation=activation)


def trained(laid_out, activation="relu", hidden=(24,), steps=12, rate=1e-4):
    whole = initial(activation, hidden)
    model = mlp.model(activation, len(hidden), laid_out.background)
    optimizer = training.optimizer("sgd", rate)
    splits = laid_out.splits["train"], laid_out.splits["test"]
    made = training.train(model, mlp.narrow(whole, laid_out.used), *splits, steps=steps, optimizer=optimizer)
    return mlp.widen(made.params, laid_out.used, whole), made.metrics


@pytest.mark.parametrize(
    ("scaling", "backend", "rate"),
    [
        ("raw", "float32", 1e-4),
        ("raw", "bfloat16", 1e-4),
        ("raw", "digits", 1e-4),
        # At larger rates each step amplifies what the last one rounded.
        ("standard", "float32", 0.003),
        ("inverted", "float32", 2e-7),
    ],
)
@pytest.mark.parametrize("activation", ["relu", "abs_l2"])
def test_training_is_that_of_the_images_in_their_order(both, scaling, backend, rate, activation):
    (weights, metrics), (expected, others) = (trained(each, activation, rate=rate) for each in both(scaling, backend))
    for a, b, start in zip(*map(jax.tree.leaves, (weights, expected, initial(activation))), strict=True):
        moved = np.abs(np.asarray(b) - start).max()
        np.testing.assert_allclose(a, b, atol=1e-4 * moved + 1e-7)
    np.testing.assert_allclose(metrics.loss, others.loss, rtol=1e-5)
    for split in ("train", "test"):
        cut, whole = getattr(metrics, f"{split}_accuracy"), getattr(others, f"{split}_accuracy")
        assert np.abs(cut - whole).max() * COUNTS[split] <= 2.1
    assert (others.loss[-1] < others.loss[0]).all(), "it learns, so that wrong gradients would show"


def test_the_background_is_what_most_inputs_are(both):
    assert both("raw")[0].background == 0
    assert both("raw")[1].background is None
    assert both("standard")[0].background == np.float32((np.float32(0) - np.float32(0.13)) / np.float32(0.3))
    assert both("inverted")[0].background == 240
    # Whatever is taken from all inputs, all of their weights are trained; of black corners none are.
    assert [len(both(name)[0].used) for name in SCALED] == [
        np.count_nonzero(np.diff(sorted(both(name)[0].used), prepend=-1)) for name in SCALED
    ]
    assert len(both("inverted")[0].used) == 256


def test_preactivations_by_digits_are_the_same_bits(both):
    """Integer sums have no order, and what is left out of them is 0."""
    weight = np.random.default_rng(2).normal(size=(5, 256)).astype(np.float32)
    laid_out = both("raw", "digits", 1)[0]
    x = laid_out.splits["train"].x
    here = weight[:, laid_out.used]
    whole = np.asarray(products.product(here, x[:200]))
    steps = np.asarray(laid_out.splits["train"].step)
    width = laid_out.splits["train"].widths[steps[:200].max()]
    assert width < x.shape[1]
    np.testing.assert_array_equal(products.product(here, x[:200, :width], cut=True), whole)
    with pytest.raises(ValueError, match="expected int8 inputs"):
        products.product(here, x[:200, :width])  # unless it is asked for
    with pytest.raises(ValueError, match="expected int8 inputs"):
        products.product(here, x[:200, : width - 8], cut=True)  # no whole tile
