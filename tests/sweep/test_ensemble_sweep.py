"""The kernel: against the oracle, in its limits, and across blocks, devices, seeds and layouts."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist.compute import blocks, devices, ensemble, tuning
from jaxdist.config import SweepConfig
from jaxdist.errors import InputError
from jaxdist.networks import mlp
from jaxdist.networks import model as networks_model
from jaxdist.networks.model import Model
from jaxdist.perturbations import edits, families, ranges
from jaxdist.sweep import ensemble_sweep, kernel
from jaxdist.types import Ranges
from tests import oracle
from tests.conftest import place, to_numpy

pytestmark = pytest.mark.usefixtures("optimised")  # what the oracle is held against is what users run

SITE = "dense0/pre"
FAMILIES = tuple(families.PAPER)


def swept(model, params, examples, *, options=None, ranges_from=None, **kwargs):
    """Sweep all families' points and split the counts by family."""
    measured = ranges.measure(model, params, ranges_from or examples, (SITE,))[SITE]
    parts = [families.build(f, measured, families.get(f).grid(), options or SweepConfig()) for f in FAMILIES]
    counts = ensemble_sweep.sweep(model, params, {SITE: edits.concatenate(parts)}, examples, **kwargs)
    return counts, np.cumsum([len(families.get(f).grid()) for f in FAMILIES])[:-1]


def some_edits(points, units, seeds=3):
    """Edits of many different sizes, for tests that only need some."""
    fractions = np.linspace(-1, 1, points)
    measured = Ranges(jnp.zeros((seeds, units)), jnp.ones((seeds, units)) * 9, jnp.zeros((seeds, units), bool))
    return {SITE: families.build("offset", measured, fractions, SweepConfig())}


@pytest.mark.parametrize("activation", ["relu", "abs"])
@pytest.mark.parametrize(
    "conventions", [{}, {"clip": "text", "offset": "intended"}, {"clip": "caption", "offset": "literal"}]
)
def test_every_count_equals_the_float64_oracle(activation, conventions, trained, train_set, digits):
    options = SweepConfig(
        clip_formula=conventions.get("clip", "code"), offset_formula=conventions.get("offset", "code")
    )
    counts, cuts = swept(mlp.model(activation), trained[activation], train_set, options=options)
    x, y = digits.train.images[:301].astype(np.float64), digits.train.labels[:301]
    for seed in range(3):
        one = jax.tree.map(lambda leaf, seed=seed: leaf[seed], to_numpy(trained[activation]))
        expected = oracle.sweep(one, activation, x, y, **conventions)
        for name, which in (("correct", 0), ("agree", 1), ("kept", 2)):
            for found, family in zip(np.split(getattr(counts, name)[seed], cuts), FAMILIES, strict=True):
                np.testing.assert_array_equal(found, expected[family][which], err_msg=f"{family} {name}")


def test_dead_units_follow_the_policy_and_nan_predicts_class_zero(trained, train_set, digits):
    params = jax.tree.map(jnp.array, trained["relu"])
    params["dense0"]["weight"] = params["dense0"]["weight"].at[:, 5].set(0.0)
    params["dense0"]["bias"] = params["dense0"]["bias"].at[:, 5].set(-1.0)
    x, y = digits.train.images[:301].astype(np.float64), digits.train.labels[:301]
    for policy in ("identity", "nan"):
        counts, cuts = swept(mlp.model("relu"), params, train_set, options=SweepConfig(dead_units=policy))
        one = jax.tree.map(lambda leaf: leaf[0], to_numpy(params))
        expected = oracle.sweep(one, "relu", x, y, dead_units=policy)
        for found, family in zip(np.split(counts.correct[0], cuts), FAMILIES, strict=True):
            np.testing.assert_array_equal(found, expected[family][0], err_msg=f"{policy} {family}")
        if policy == "nan":
            np.testing.assert_array_equal(np.split(counts.correct[0], cuts)[2], (y == 0).sum())


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_no_edit_changes_nothing(activation, trained, train_set):
    model, params = mlp.model(activation), trained[activation]
    none = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (3, 1, 24)), edits.unedited(24))
    counts = ensemble_sweep.sweep(model, params, {SITE: none}, train_set)
    assert (counts.agree == 301).all()
    np.testing.assert_array_equal(counts.correct[:, 0], counts.unperturbed)
    measured = ranges.measure(model, params, train_set, (SITE,))[SITE]
    for family in FAMILIES:
        at_identity = families.build(family, measured, np.array([families.get(family).identity]), SweepConfig())
        assert (ensemble_sweep.sweep(model, params, {SITE: at_identity}, train_set).agree == 301).all(), family


def test_infinite_clip_is_no_edit_and_clip_at_the_bottom_leaves_only_constants(trained, train_set):
    model, params = mlp.model("relu"), trained["relu"]
    measured = ranges.measure(model, params, train_set, (SITE,))[SITE]
    made = families.build("clip", measured, np.array([np.inf, 0.0]), SweepConfig())
    counts = ensemble_sweep.sweep(model, params, {SITE: made}, train_set)
    assert (counts.agree[:, 0] == 301).all()
    labels = np.asarray(train_set.y)[:301]
    for seed in range(3):
        head = jax.tree.map(lambda leaf, k=seed: leaf[k], params["dense1"])
        constant = int(jnp.argmax(head["weight"] @ measured.low[seed] + head["bias"]))
        assert counts.correct[seed, 1] == (labels == constant).sum()


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_scaling_changes_no_prediction_without_an_output_bias(activation, trained, train_set):
    """Both activations are positively homogeneous, so one positive scale multiplies all logits."""
    params = jax.tree.map(jnp.array, trained[activation])
    params["dense1"]["bias"] = jnp.zeros_like(params["dense1"]["bias"])
    counts, cuts = swept(mlp.model(activation), params, train_set)
    assert (np.split(counts.agree, cuts, axis=1)[0] >= 300).all()


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_scale_family_equals_its_one_product_form(activation, trained, train_set):
    """s * (act(H) @ W1) + b1: an oracle for the scale family that needs a single product."""
    params = trained[activation]
    counts, cuts = swept(mlp.model(activation), params, train_set)
    one = jax.tree.map(lambda leaf: leaf[0], to_numpy(params))
    x, y = np.asarray(train_set.x, np.float64)[:301], np.asarray(train_set.y)[:301]
    products = oracle.ACTIVATIONS[activation](oracle.hidden(one, x)) @ one["dense1"]["weight"].T
    expected = [((s * products + one["dense1"]["bias"]).argmax(axis=1) == y).sum() for s in oracle.GRID]
    np.testing.assert_array_equal(np.split(counts.correct[0], cuts)[0], expected)


def test_an_ensemble_equals_its_networks_one_by_one(trained, train_set):
    model, params = mlp.model("relu"), trained["relu"]
    together, _ = swept(model, params, train_set)
    for seed in range(3):
        alone, _ = swept(model, jax.tree.map(lambda leaf, k=seed: leaf[k : k + 1], params), train_set)
        for all_, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(all_[seed], one[0])


@pytest.mark.parametrize("block", [1, 7, 150, 151, 10_000])
def test_blocks_change_no_count(block, trained, train_set):
    model, params = mlp.model("abs"), trained["abs"]
    default, _ = swept(model, params, train_set)
    chunked, _ = swept(model, params, train_set, block=block)
    chex.assert_trees_all_equal(default, chunked)


def test_devices_change_no_count(trained, train_set, digits):
    model, params = mlp.model("relu"), jax.tree.map(np.asarray, trained["relu"])
    assert devices.mesh_of(train_set).size == 2
    chex.assert_trees_all_equal(
        jax.tree.map(np.asarray, swept(model, params, train_set)[0]),
        jax.tree.map(np.asarray, swept(model, params, place(digits, 301, devices_used=1))[0]),
    )


def test_eager_equals_compiled(trained, train_set):
    """The mathematics of a block, run without jit."""
    model = mlp.model("relu")
    one = jax.tree.map(lambda leaf: leaf[0], trained["relu"])
    edit = jax.tree.map(lambda leaf: leaf[0], some_edits(5, 24))
    x, y = jnp.asarray(np.asarray(train_set.x)[:301]), jnp.asarray(np.asarray(train_set.y)[:301])
    part = blocks.Block(x, y, jnp.arange(301), jnp.ones(301, bool), jnp.bool_(True))
    with jax.disable_jit():
        eager = kernel.block_sums(model, (SITE,), one, edit, part).counts
    compiled = ensemble_sweep.sweep(model, trained["relu"], some_edits(5, 24), train_set)
    np.testing.assert_array_equal(eager.correct, compiled.correct[0])
    np.testing.assert_array_equal(eager.agree, compiled.agree[0])


class CountingModel:
    """A model function that counts how often it is traced."""

    def __init__(self):
        self.traces = 0

    def __call__(self, params, x, tap):
        self.traces += 1
        return mlp.model("relu").apply(params, x, tap)


def test_a_sweep_is_one_trace_and_a_second_one_compiles_nothing(trained, train_set):
    counting = CountingModel()
    model = Model(counting, mlp.model("relu").post, unit_axis=0, class_axis=0)
    made = some_edits(325, 24)
    ensemble_sweep.sweep(model, trained["relu"], made, train_set)
    # To list the sites, and for the program: not once a point, seed or block.
    assert counting.traces == 2
    other = jax.tree.map(lambda leaf: leaf * 1.5, trained["relu"])
    ensemble_sweep.sweep(model, other, jax.tree.map(lambda leaf: leaf + 0.5, made), train_set)
    assert counting.traces == 2  # the sites are known as well


def test_memory_grows_neither_with_examples_nor_with_points():
    """Temporary memory of the compiled program, as XLA reports it, for 4x the images and 4x the points."""

    def temporary(examples, points):
        mesh = devices.make_mesh()
        shape = (examples, 64)
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(devices.DATA))
        params = jax.eval_shape(lambda: mlp.init_ensemble(jax.random.key(0), range(2), (64, 128, 10)))
        made = {SITE: edits.Affine(*(jax.ShapeDtypeStruct((2, points, 128), jnp.float32) for _ in range(4)))}
        laid_out = devices.Examples(
            jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding),
            jax.ShapeDtypeStruct(shape[:1], jnp.int32, sharding=sharding),
            jax.ShapeDtypeStruct((), jnp.int32),
            jax.ShapeDtypeStruct((), jnp.int32),
            examples // mesh.size,
        )
        static = {"precision": "float32", "size": 500, "mesh": mesh, "chosen": tuning.current()}
        counting = ensemble_sweep.Counting(mlp.model("relu"), (SITE,), None, together=1)
        lowered = ensemble._run.lower(params, ensemble_sweep.Given(made, None), laid_out, measure=counting, **static)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    base = temporary(20_000, 50)
    assert temporary(80_000, 50) <= base * 1.01
    # The edits and counts of a network are copied as the seeds are walked; N x H x P would be 400 MB here.
    assert temporary(20_000, 200) <= base + 10 * 150 * 128 * 4


def test_only_what_follows_the_site_is_computed_for_a_point():
    """FLOPs of the compiled head: the product behind the site, not the 12 times larger one before it."""
    model = mlp.model("relu")
    params = mlp.init(jax.random.key(0), (784, 128, 10))
    x, value = jnp.ones((250, 784)), jnp.ones((128, 250))

    def head(params, x, value):
        return networks_model.edit(model, params, x, {SITE: lambda _: value})

    flops = jax.jit(head).lower(params, x, value).compile().cost_analysis()["flops"]
    assert 2 * 250 * 128 * 10 <= flops < 1.3 * 2 * 250 * 128 * 10


def skip_connection(params, x, tap):
    """Example-major, as Flax has it, with a path from the input around the site and a second site behind it."""
    hidden = tap("hidden", x @ params["a"])
    late = tap("late", jnp.maximum(hidden, 0) @ params["b"] + x @ params["c"])
    return jnp.maximum(late, 0) @ params["d"]


def test_any_function_of_the_model_form_is_swept_even_around_the_site(train_set):
    rng = np.random.default_rng(3)
    shapes = {"a": (64, 16), "b": (16, 12), "c": (64, 12), "d": (12, 10)}
    params = {k: rng.normal(size=(2, *shape)).astype(np.float32) for k, shape in shapes.items()}
    flat = dataclasses.replace(train_set, x=jax.jit(lambda x: x.reshape(len(x), -1))(train_set.x))
    model = Model(skip_connection, post=(("hidden", jax.nn.relu), ("late", jax.nn.relu)))
    scales = np.array([0.2, 1.0, 3.0])
    made = {}
    for site, units in (("late", 12), ("hidden", 16)):
        one = jnp.ones((2, 3, units))
        made[site] = edits.Affine(
            one * jnp.asarray(scales, jnp.float32)[None, :, None], one * 0.7, -jnp.inf * one, jnp.inf * one
        )
    counts = ensemble_sweep.sweep(model, params, made, flat)
    x, y = np.asarray(flat.x, np.float64)[:301], np.asarray(flat.y)[:301]
    for seed in range(2):
        a, b, c, d = (params[k][seed].astype(np.float64) for k in "abcd")
        for p, s in enumerate(np.float32(scales).astype(np.float64)):
            hidden = s * (x @ a) + np.float32(0.7)
            late = s * (np.maximum(hidden, 0) @ b + x @ c) + np.float32(0.7)
            assert counts.correct[seed, p] == ((np.maximum(late, 0) @ d).argmax(axis=1) == y).sum()


def test_a_layout_with_examples_first_gives_the_same_counts(trained, train_set):
    def examples_first(params, x, tap):
        first, second = params["dense0"], params["dense1"]
        h = tap("dense0/pre", x.reshape(len(x), -1) @ first["weight"].T + first["bias"][None])
        return jnp.maximum(h, 0) @ second["weight"].T + second["bias"][None]

    model = Model(examples_first, post=(("dense0/pre", jax.nn.relu),))
    ours, _ = swept(mlp.model("relu"), trained["relu"], train_set)
    theirs, _ = swept(model, trained["relu"], train_set)
    assert max(int(jnp.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True)) <= 1


def test_a_site_that_is_not_there_is_refused_with_the_list_of_sites(trained, train_set):
    made = {"dense1/pre": some_edits(2, 24)[SITE]}
    with pytest.raises(
        InputError,
        match=r"'dense1/pre': the network has no such site; did you mean 'dense0/pre'.; its sites are dense0/pre",
    ):
        ensemble_sweep.sweep(mlp.model("relu"), trained["relu"], made, train_set)


def test_edits_that_do_not_fit_are_refused(trained, train_set):
    good = some_edits(2, 24)[SITE]
    narrow = jax.tree.map(lambda leaf: leaf[..., :1], good)
    with pytest.raises(ValueError, match=r"expected leaves \[3, P, 24\], got \[3, 2, 1\]"):
        ensemble_sweep.sweep(mlp.model("relu"), trained["relu"], {SITE: narrow}, train_set)
    with pytest.raises(ValueError, match="expected at least one site"):
        ensemble_sweep.sweep(mlp.model("relu"), trained["relu"], {}, train_set)
