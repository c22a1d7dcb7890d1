"""Exact products: against float64, across blocks and devices, in training and sweep, and lowered for accelerators."""

from __future__ import annotations

import json

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdist import config, data
from jaxdist.compute import backends, devices, ensemble, products, tuning
from jaxdist.config import Config, DataConfig, SweepConfig
from jaxdist.errors import InputError
from jaxdist.experiment import running
from jaxdist.networks import mlp, training
from jaxdist.networks import model as networks_model
from jaxdist.perturbations import edits, families, ranges
from jaxdist.sweep import ensemble_sweep, kernel

# It is about rounding.
pytestmark = pytest.mark.usefixtures("optimised")

SITE = "dense0/pre"
EXACT = ("bfloat16", "digits")
RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 256, (70, 90), np.uint8)


def weights(scale=1.0):
    """Rows of very different sizes, one of zeros."""
    rng = np.random.default_rng(6)
    return (rng.normal(size=(12, 90)) * scale * 10.0 ** np.arange(-9, 3)[:, None]).astype(np.float32) * (
        np.arange(12) != 4
    )[:, None].astype(np.float32)


def stored(digits, backend, count=301, used=2):
    """The first training digits, laid out as the backend multiplies them."""
    packed = products.pack(digits.train.images[:count].reshape(count, -1), backend)
    mesh = devices.make_mesh(jax.devices()[:used])
    return devices.place(packed, digits.train.labels[:count], mesh, dtype=packed.dtype)


def errors(found, expected):
    """Each row's error, relative to its largest value."""
    largest = np.abs(expected).max(axis=1, keepdims=True)
    return np.abs(np.asarray(found, np.float64) - expected) / np.where(largest, largest, 1)


@pytest.mark.parametrize("backend", EXACT)
def test_both_products_are_those_of_float64_to_float32_rounding(backend):
    x = jnp.asarray(products.pack(PIXELS, backend))
    weight, cotangent = jnp.asarray(weights()), jnp.asarray(RNG.normal(size=(12, 70)).astype(np.float32))
    value, pull_back = jax.vjp(lambda w: products.product(w, x), weight)
    wide = PIXELS.astype(np.float64)
    # Half a unit of the 24th bit of the largest weight, times the pixels' sum, and the last sum's rounding.
    assert errors(value, np.float64(weight) @ wide.T).max() < 5e-7
    assert errors(pull_back(cotangent)[0], np.float64(cotangent) @ wide).max() < 5e-7
    assert not np.asarray(value)[4].any()


def test_three_parts_of_any_float_add_up_to_it():
    values = jnp.asarray(np.concatenate([weights().ravel(), np.float32([0, -1, 255, 1e30, -1e-30])]))
    parts = jax.jit(products._thirds)(values)
    assert parts.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(parts, np.float64).sum(axis=0), np.float64(values))


def test_digits_are_signed_bytes_of_the_rounded_value():
    values = weights().astype(np.float64)
    digits, scale = jax.jit(products._digits)(values.astype(np.float32))
    assert digits.dtype == jnp.int8
    whole = np.einsum("k,khd->hd", [65536.0, 256.0, 1.0], np.asarray(digits, np.float64))
    largest = np.abs(values).max(axis=1, keepdims=True)
    # Half an integer.
    assert (np.abs(whole * np.asarray(scale, np.float64) - values) <= 1.21e-7 * largest).all()
    assert (np.abs(whole).max(axis=1)[np.arange(12) != 4] > 0.49 * products._TOP).all()
    assert (np.frexp(scale)[0] == 0.5).all()  # powers of two
    assert np.abs(whole).max() <= products._TOP + 1


def test_what_rounding_adds_to_a_weight_it_takes_from_its_neighbours():
    """In groups of eight, the sum of the first of them, however many, is off by half an integer at most."""
    # A row's largest value gives its scale, and the others have four bits beyond integers, so nothing else rounds.
    weight = np.random.default_rng(8).integers(-(2**23), 2**23, (12, 128)) / 16
    weight[:, 3], weight[:, 90:] = np.linspace(0.6, 1, 12) * products._TOP // 1, 0
    scales = 2.0 ** np.arange(-20, -8)[:, None]
    digits, scale = jax.jit(products._weight_digits)((weight * scales).astype(np.float32))
    whole = np.einsum("k,khd->hd", [65536.0, 256.0, 1.0], np.asarray(digits, np.float64))
    np.testing.assert_array_equal(scale, scales)
    off = (whole - weight).reshape(12, -1, 8)
    assert np.abs(off.cumsum(axis=2)).max() == 0.5
    assert 0.5 < np.abs(off).max() <= 1
    assert not whole[:, 90:].any()


@pytest.mark.parametrize("name", ["noise", "mnist", "fashion_mnist"])
def test_neighbours_that_round_together_shift_preactivations_less(name, request):
    """Rounding shifts a unit's preactivations in all images alike: less than where each weight rounds by itself."""
    if name == "noise":
        pixels = RNG.integers(0, 256, (2000, 784), np.uint8)
    else:
        folder = str(request.getfixturevalue("shared") / "data" / name)
        pixels = data.load(DataConfig(name=name, dir=folder)).train.images[:2000].reshape(2000, -1)
    # Rows of all sizes between two powers of two, as their scale is rounded.
    weight = np.random.default_rng(8).uniform(-1, 1, (256, 832)) * np.geomspace(0.02, 0.04, 256)[:, None]
    weight[:, 784:] = 0
    weight = weight.astype(np.float32)
    shift = {}
    for cut in (products._digits, products._weight_digits):
        digits, scale = cut(jnp.asarray(weight))
        rounded = np.einsum("k,khd->hd", [65536.0, 256.0, 1.0], np.asarray(digits, np.float64)) * np.asarray(scale)
        shift[cut] = np.linalg.norm((rounded - weight)[:, :784] @ pixels.mean(axis=0))
    assert shift[products._weight_digits] < 0.85 * shift[products._digits]


def test_the_largest_sums_that_can_be_are_exact():
    """All pixels 255 and all weights at their row's largest, of either sign, where the digits' sums are largest."""
    x = jnp.asarray(products.pack(np.full((400, 900), 255, np.uint8), "digits"))
    weight = jnp.asarray(np.repeat(np.float32([[1.0], [-1.0]]), 900, axis=1))
    value, pull_back = jax.vjp(lambda w: products.product(w, x), weight)
    np.testing.assert_allclose(value, np.repeat([[900 * 255.0], [-900 * 255.0]], 400, axis=1), rtol=2e-7)
    gradient = pull_back(jnp.asarray(np.repeat(np.float32([[-3.0], [3.0]]), 400, axis=1)))[0]
    np.testing.assert_allclose(gradient, np.repeat([[-1200 * 255.0], [1200 * 255.0]], 900, axis=1), rtol=2e-7)


@pytest.mark.parametrize("backend", EXACT)
def test_what_is_not_finite_stays_so_and_tiny_values_do_not_become_so(backend):
    x = jnp.asarray(products.pack(PIXELS, backend))
    # NaN comes with any bits below its exponent; accelerators' own has all of them set.
    nans = np.array([0x7FC00000, 0x7FFFFFFF, 0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    cotangent = jnp.asarray(RNG.normal(size=(12, 70)).astype(np.float32))
    for bad in (*nans, np.float32(np.inf)):
        weight = jnp.asarray(weights()).at[2, 3].set(bad)
        value, pull_back = jax.vjp(lambda w: products.product(w, x), weight)
        gradient = pull_back(cotangent.at[2, 3].set(bad))[0]
        for found in (value, gradient):
            assert not np.isfinite(np.asarray(found)[2]).all()
            assert np.isfinite(np.asarray(found)[3]).all()
    assert np.isfinite(products.product(jnp.asarray(weights(1e-36)), x)).all()


def test_what_follows_digits_in_a_program_does_not_change_their_bits(trained):
    """A bias may be added in one instruction with the scaling before it, or apart."""
    x = jnp.asarray(products.pack(RNG.integers(0, 256, (301, 64), np.uint8), "digits"))
    weight, bias = (jnp.asarray(trained["relu"]["dense0"][name][0]) for name in ("weight", "bias"))
    product = jax.jit(products.product)
    together = jax.jit(lambda w, x, b: products.product(w, x) + b[:, None])(weight, x, bias)
    np.testing.assert_array_equal(together, np.asarray(product(weight, x)) + np.asarray(bias)[:, None])


def test_neighbours_are_whole_groups_whose_sums_fit_in_32_bits():
    assert products.TILE % products.NEIGHBOURS == 0
    assert products.NEIGHBOURS * 2**products._FRACTION_BITS * (products._TOP + 1) < 2**31


def test_preactivations_by_digits_are_the_same_bits_on_any_devices_in_any_blocks(trained, digits):
    model, params = mlp.model("relu"), jax.tree.map(lambda leaf: np.asarray(leaf[0]), trained["relu"])

    def values(used, size):
        examples = stored(digits, "digits", 300, used)
        size = size or 300 // used

        def run(params, x):
            def block(x):
                return networks_model.read(model, params, x, (SITE,))[1][SITE]

            return jax.lax.map(block, x.reshape(-1, size, x.shape[1]))

        spec = PartitionSpec(devices.DATA)
        mesh = devices.mesh_of(examples)
        mapped = jax.shard_map(run, mesh=mesh, in_specs=(PartitionSpec(), spec), out_specs=spec)
        found = np.asarray(jax.jit(mapped)(params, examples.x))
        return found.transpose(0, 2, 1).reshape(300, -1)

    whole = values(1, None)
    for used, size in ((2, None), (2, 50), (1, 1), (1, 7 * 6 + 18), (2, 3)):
        np.testing.assert_array_equal(values(used, size), whole)


@pytest.mark.parametrize("backend", EXACT)
def test_training_follows_float32s(backend, digits):
    params = mlp.init_ensemble(jax.random.key(11), range(3), (64, 24, 10))

    def train(name):
        examples = stored(digits, name)
        model, optimizer = mlp.model("relu"), training.optimizer("sgd", 0.01)
        return training.train(model, params, examples, examples, steps=20, optimizer=optimizer, block=100)[:2]

    (ours, metrics), (theirs, expected) = train(backend), train("float32")
    np.testing.assert_allclose(metrics.loss, expected.loss, rtol=2e-4)
    np.testing.assert_allclose(metrics.train_accuracy, expected.train_accuracy, atol=1.5 / 301)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=2e-5), ours, theirs)


def counted(model, params, examples, sweep_config=None):
    measured = ranges.measure(model, params, examples, (SITE,))[SITE]
    made = [families.build(f, measured, families.get(f).grid(), sweep_config or SweepConfig()) for f in families.PAPER]
    return ensemble_sweep.sweep(model, params, {SITE: edits.concatenate(made)}, examples)


@pytest.mark.slow
def test_a_sweep_counts_as_float32s_does(trained, digits):
    activation = "relu"
    model, params = mlp.model(activation), jax.tree.map(np.asarray, trained[activation])
    expected = counted(model, params, stored(digits, "float32"))
    for backend in EXACT:
        found = counted(model, params, stored(digits, backend))
        assert max(int(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True)) <= 2
    alone = counted(model, params, stored(digits, "digits", used=1))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), found, alone)


def papers_network(shared):
    """The real training images, their labels, and a network that the paper's code trained on them."""
    with np.load(shared / "reference" / "relu_seed0_weights.npz") as weights_of:
        params = {f"dense{k}": {"weight": weights_of[f"w{k}"][None], "bias": weights_of[f"b{k}"][None]} for k in (0, 1)}
    train = data.load(DataConfig(name="mnist", dir=str(shared / "data" / "mnist"))).train
    return train.images.reshape(60_000, -1), train.labels, params


@pytest.mark.slow
def test_the_papers_network_counts_as_its_code_does(shared):
    reference = json.loads((shared / "reference" / "relu_seed0_sweep_counts.json").read_text())["PerturbationReLU"][0]
    x, y, params = papers_network(shared)
    packed = products.pack(x, "digits")
    examples = devices.place(packed, y, devices.make_mesh(), dtype=packed.dtype)
    counts = counted(mlp.model("relu"), params, examples, SweepConfig(dead_units="nan"))
    expected = np.concatenate([reference[f"{name}_accuracies"] for name in families.PAPER])
    assert np.abs(np.asarray(counts.correct[0]) - expected).max() <= 2


def test_inputs_that_are_no_pixels_are_refused_with_the_reason():
    for wrong in (0.5, -1.0, 256.0, np.nan):
        with pytest.raises(InputError, match=r"needs inputs that are integers from 0 to 255") as found:
            products.as_pixels(np.array([[0.0, 255.0], [1.0, wrong]], np.float32))
        assert f"got {wrong:g}; use data.normalisation 'raw', or compute.precision 'float32'" in str(found.value)
    for normalisation in ("unit", "standard"):
        with pytest.raises(InputError, match=r"^compute.precision: 'exact' needs"):
            running.load_inputs(
                config.from_dict({"data": {"normalisation": normalisation}, "compute": {"precision": "exact"}})
            )


def test_inputs_that_do_not_fit_are_refused():
    x = jnp.asarray(products.pack(PIXELS, "digits"))
    with pytest.raises(ValueError, match=r"expected int8 inputs \[n, 64\] for weights \(2, 50\), got \(70, 128\)"):
        products.product(jnp.ones((2, 50)), x)
    with pytest.raises(ValueError, match=r"expected float32 inputs \[n, 50\] for weights \(2, 50\), got \(3, 49\)"):
        products.product(jnp.ones((2, 50)), jnp.ones((3, 49)))
    many = jax.ShapeDtypeStruct((products.MOST_TERMS + 1, 64), jnp.int8)
    with pytest.raises(ValueError, match=r"at most 65,793 inputs, and examples a block, got \(65794, 64\)"):
        jax.eval_shape(products.product, jax.ShapeDtypeStruct((2, 50), jnp.float32), many)


def test_the_choice_is_the_fastest_of_what_was_measured(digits):
    choice = backends.choose(digits.train.images[:90].reshape(90, -1), 24, devices.make_mesh())
    assert set(choice.seconds) == set(choice.error) == set(products.BACKENDS)
    assert choice.seconds[choice.backend] == min(choice.seconds.values())
    assert max(choice.error.values()) < 1e-6


@pytest.mark.slow
def test_a_run_notes_the_backend_of_each_stage(monkeypatch, tmp_path):
    chosen = backends.BackendChoice("digits", {"digits": 0.1}, {"digits": 1e-7})
    monkeypatch.setattr(backends, "choose", lambda *_: chosen)
    tree = {
        "out": str(tmp_path / "run"),
        "model": {"hidden": [8], "activations": ["relu"]},
        "train": {"seeds": 2, "steps": 2},
        "sweep": {"families": ["scale"], "splits": ["test"]},
        "compute": {"precision": "exact"},
    }
    wanted: Config = config.from_dict(tree)
    assert running.load_inputs(wanted).splits["train"].x.dtype == jnp.int8
    running.train(wanted)
    result = running.sweep_folder(tmp_path / "run")
    noted = json.loads(result.attrs["products"])
    assert noted == {stage: json.loads(json.dumps(chosen._asdict())) for stage in ("train", "sweep")}
    assert result.attrs["precision"] == "exact"


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("backend", products.BACKENDS)
def test_the_training_step_and_the_sweep_lower_for_accelerators(backend, platform):
    """No accelerator is needed to lower; one device stands for it."""
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), (devices.SEED, devices.DATA))
    sharding = NamedSharding(mesh, PartitionSpec(devices.DATA))
    packed = products.pack(np.zeros((1, 784), np.uint8), backend)

    def split(count):
        x = jax.ShapeDtypeStruct((count, packed.shape[1]), packed.dtype, sharding=sharding)
        y = jax.ShapeDtypeStruct((count,), jnp.int32, sharding=sharding)
        return devices.Examples(x, y, *[jax.ShapeDtypeStruct((), jnp.int32)] * 2, count)

    params = jax.eval_shape(lambda: mlp.init_ensemble(jax.random.key(0), range(10), (784, 128, 10)))
    optimizer = training.optimizer("sgd", 0.001)
    state = training.State(
        jax.ShapeDtypeStruct((), jnp.int32), params, jax.eval_shape(lambda p: jax.vmap(optimizer.init)(p), params)
    )
    model, chosen = mlp.model("relu"), tuning.ACCELERATOR
    static = {"precision": "float32", "size": 500, "mesh": mesh, "chosen": chosen}
    made = {SITE: edits.Affine(*(jax.ShapeDtypeStruct((10, 325, 128), jnp.float32) for _ in range(4)))}
    noise = edits.Noise(
        jax.ShapeDtypeStruct((10, 40, 128), jnp.float32),
        jax.ShapeDtypeStruct((10, 40, 2), jnp.uint32),
        jax.ShapeDtypeStruct((10, 40), jnp.int32),
        draws=8,
    )
    watch = kernel.Watch(SITE, jnp.abs)
    programs = (
        (
            training._steps,
            (state, split(60_000), split(10_000), jax.ShapeDtypeStruct((), jnp.int32)),
            {"model": model, "update": optimizer.update, "length": 1},
        ),
        *(
            (
                ensemble._run,
                (params, ensemble_sweep.Given(given, None), split(60_000)),
                {"measure": ensemble_sweep.Counting(model, (SITE,), at, 32)},
            )
            for given, at in ((made, None), ({SITE: noise}, watch))
        ),
    )
    operand = {"float32": "f32", "bfloat16": "bf16", "digits": "i8"}[backend]
    for program, arguments, more in programs:
        exported = jax.export.export(program, platforms=[platform])(*arguments, **static, **more)
        assert exported.platforms == (platform,)
        products_of_pixels = [line for line in exported.mlir_module().splitlines() if "dot_general" in line]
        assert any(f"x{operand}>" in line for line in products_of_pixels)
