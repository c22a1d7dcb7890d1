"""Each unit edited alone, and which sites have a linear head: against brute force, and against each other."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist.compute import devices, ensemble, tuning
from jaxdist.config import SweepConfig
from jaxdist.errors import InputError
from jaxdist.networks import heads, mlp
from jaxdist.networks.model import Model
from jaxdist.perturbations import edits, families
from jaxdist.sweep import metrics, units
from jaxdist.types import Ranges
from tests import oracle
from tests.conftest import to_numpy

SITE = "dense0/pre"
SCALE, SHIFT, CEILING = (0.2, 1.0, -1.0), (0.0, 90.0, 20.0), (np.inf, 60.0, np.inf)


def some_edits(hidden, seeds=3):
    """Three points: a smaller scale, an offset with a clip, a mirrored unit."""
    leaves = (np.array(v, np.float32)[None, :, None] for v in (SCALE, SHIFT, [-np.inf] * 3, CEILING))
    return edits.Affine(*(np.broadcast_to(leaf, (seeds, 3, hidden)) for leaf in leaves))


def edited(h, p):
    return np.minimum(SCALE[p] * h + SHIFT[p], CEILING[p])


def brute_force(logits_of, h, y):
    """Counts [P, H] in float64: one unit edited, everything behind it computed anew; logits_of maps h[N, H]."""
    base = logits_of(h).argmax(axis=1)
    counts = np.zeros((3, 3, h.shape[1]), int)
    for p in range(3):
        for j in range(h.shape[1]):
            alone = h.copy()
            alone[:, j] = edited(h[:, j], p)
            found = logits_of(alone).argmax(axis=1)
            right = found == y
            counts[:, p, j] = right.sum(), (found == base).sum(), (right & (base == y)).sum()
    return counts


@pytest.mark.parametrize(("activation", "tried"), [("relu", ("auto", "linear", "full")), ("abs", ("auto", "linear"))])
def test_rank_one_equals_the_full_head_and_brute_force(activation, tried, trained, train_set):
    model, params = mlp.model(activation), trained[activation]
    made = some_edits(24)
    found = {head: units.sweep(model, params, SITE, made, train_set, head=head).counts for head in tried}
    x, y = np.asarray(train_set.x, np.float64)[:301], np.asarray(train_set.y)[:301]
    for seed in range(3):
        one = jax.tree.map(lambda leaf, k=seed: leaf[k], to_numpy(params))

        def logits_of(h, one=one):
            return oracle.ACTIVATIONS[activation](h) @ one["dense1"]["weight"].T + one["dense1"]["bias"]

        expected = brute_force(logits_of, oracle.hidden(one, x), y)
        for counts in found.values():
            counted = np.stack([counts.correct[seed], counts.agree[seed], counts.kept[seed]])
            np.testing.assert_allclose(counted, expected, atol=2)
        assert expected[0].min() < expected[0].max() - 5, "the edits do something"
    jax.tree.map(np.testing.assert_array_equal, found["auto"], found["linear"])


@pytest.mark.parametrize("head", ["linear", "full"])
def test_changes_of_metrics_are_those_of_brute_force(head, trained, train_set):
    measured = metrics.chosen(["cross_entropy", "kl"])
    found = units.sweep(
        mlp.model("relu"), trained["relu"], SITE, some_edits(24), train_set, head=head, measured=measured
    )
    x, y = np.asarray(train_set.x, np.float64)[:301], np.asarray(train_set.y)[:301]
    one = jax.tree.map(lambda leaf: leaf[1], to_numpy(trained["relu"]))
    h = oracle.hidden(one, x)

    def log_probabilities(h):
        logits = np.maximum(h, 0) @ one["dense1"]["weight"].T + one["dense1"]["bias"]
        shifted = logits - logits.max(1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))

    before = log_probabilities(h)
    expected = np.zeros((3, 24, 2))
    for p in range(3):
        for j in range(24):
            alone = h.copy()
            alone[:, j] = edited(h[:, j], p)
            after = log_probabilities(alone)
            moved = (before - after)[np.arange(301), y].mean()
            expected[p, j] = moved, (np.exp(before) * (before - after)).sum(1).mean()
    change = np.asarray(found.change.value, np.float64)
    assert abs(expected).max() > 0.5, "the edits do something"
    np.testing.assert_allclose(change[1], expected, rtol=2e-4, atol=2e-5)


def test_blocks_change_no_count_and_no_edit_changes_nothing(trained, train_set):
    model, params = mlp.model("relu"), trained["relu"]
    made = some_edits(24)
    for head in ("linear", "full"):
        default = units.sweep(model, params, SITE, made, train_set, head=head).counts
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1),
            default,
            units.sweep(model, params, SITE, made, train_set, head=head, block=100).counts,
        )
        none = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (3, 3, 24)), edits.unedited(24))
        counts = units.sweep(model, params, SITE, none, train_set, head=head).counts
        assert (counts.agree == 301).all()
        assert (counts.correct == counts.unperturbed[:, None, None]).all()
        assert (counts.kept == counts.unperturbed[:, None, None]).all()


def test_only_the_last_hidden_layer_of_a_deep_network_has_a_linear_head(train_set):
    params = jax.tree.map(np.asarray, mlp.init_ensemble(jax.random.key(0), range(2), (64, 12, 9, 10)))
    model = mlp.model("relu", 2)
    assert not heads.is_linear(model, params, "dense0/pre", train_set)
    assert heads.is_linear(model, params, "dense1/pre", train_set)
    found = heads.weights(model, params, "dense1/pre", train_set)
    np.testing.assert_allclose(found, np.swapaxes(params["dense2"]["weight"], 1, 2), rtol=1e-5, atol=1e-6)
    made = some_edits(12, seeds=2)
    with pytest.raises(InputError, match=r"'dense0/pre': what follows it is not an activation.*use head 'full'"):
        units.sweep(model, params, "dense0/pre", made, train_set, head="linear")
    with pytest.raises(InputError, match="its units have no outgoing weights"):
        heads.weights(model, params, "dense0/pre", train_set)
    counts = units.sweep(model, params, "dense0/pre", made, train_set).counts
    one = jax.tree.map(lambda leaf: leaf[1], to_numpy(params))
    x, y = np.asarray(train_set.x, np.float64)[:301], np.asarray(train_set.y)[:301]

    def logits_of(h):
        late = np.maximum(h, 0) @ one["dense1"]["weight"].T + one["dense1"]["bias"]
        return np.maximum(late, 0) @ one["dense2"]["weight"].T + one["dense2"]["bias"]

    found = np.stack([counts.correct[1], counts.agree[1], counts.kept[1]])
    np.testing.assert_allclose(found, brute_force(logits_of, oracle.hidden(one, x), y), atol=2)


def around(params, x, tap, head=lambda logits, x: logits, activation=jax.nn.softplus):
    """Flax's layout, with a bent path from the input around the site, and something on the logits."""
    x = x.reshape(len(x), -1)
    h = tap("h", x @ params["in"])
    a = tap("a", activation(h))
    return head(a @ params["out"] + jnp.tanh(x @ params["skip"]), x)


@pytest.fixture(scope="module")
def around_params():
    rng = np.random.default_rng(5)
    shapes = {"in": (64, 24), "out": (24, 10), "skip": (64, 10)}
    return {name: (rng.normal(size=(3, *shape)) / 8).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("follows", [jax.nn.softplus, "a"], ids=["function", "site"])
def test_a_path_around_the_site_leaves_the_head_linear(follows, around_params, train_set):
    model = Model(around, (("h", follows),))
    np.testing.assert_allclose(
        heads.weights(model, around_params, "h", train_set), around_params["out"], rtol=1e-5, atol=1e-6
    )
    made = some_edits(24)
    linear, full = (
        units.sweep(model, around_params, "h", made, train_set, head=head).counts for head in ("linear", "full")
    )
    one = {name: leaf[2].astype(np.float64) for name, leaf in around_params.items()}
    x, y = np.asarray(train_set.x, np.float64)[:301].reshape(301, -1), np.asarray(train_set.y)[:301]

    def logits_of(h):
        return np.logaddexp(h, 0) @ one["out"] + np.tanh(x @ one["skip"])

    expected = brute_force(logits_of, x @ one["in"], y)
    for counts in (linear, full):
        np.testing.assert_allclose(np.stack([counts.correct[2], counts.agree[2], counts.kept[2]]), expected, atol=2)


@pytest.mark.parametrize(
    "head",
    [
        lambda logits, x: jnp.abs(logits),
        lambda logits, x: 30 * jnp.tanh(logits / 30),
        lambda logits, x: logits / (1e-3 + jnp.abs(logits).max(axis=1, keepdims=True)),
        lambda logits, x: logits * (1 + x[:, 20:21]),
        lambda logits, x: logits - 1e-3 * logits**2,
    ],
    ids=["activation on the logits", "soft cap", "normalised", "gated by the input", "slightly bent"],
)
def test_what_is_not_one_linear_map_is_found_out(head, around_params, train_set):
    model = Model(functools.partial(around, head=head), (("h", jax.nn.softplus),))
    assert not heads.is_linear(model, around_params, "h", train_set)


def test_an_activation_that_mixes_units_or_is_not_the_models_has_no_linear_head(around_params, train_set):
    softmax = functools.partial(around, activation=jax.nn.softmax)
    for follows in (jax.nn.softmax, "a"):
        assert not heads.is_linear(Model(softmax, (("h", follows),)), around_params, "h", train_set)
    assert not heads.is_linear(Model(around, (("h", jax.nn.relu),)), around_params, "h", train_set)
    assert not heads.is_linear(Model(around), around_params, "h", train_set)
    with pytest.raises(InputError, match="does not say what follows it"):
        units.sweep(Model(around), around_params, "h", some_edits(24), train_set, head="linear")
    with pytest.raises(InputError, match="'g': the network has no such site; its sites are h, a"):
        heads.is_linear(Model(around), around_params, "g", train_set)


def test_units_follow_the_policy_of_dead_ones(trained, train_set):
    """NaN logits predict class 0 on both paths."""
    zero = np.zeros((3, 24), np.float32)
    measured = Ranges(zero, zero, np.ones((3, 24), bool))
    made = families.build("offset", jax.tree.map(jnp.asarray, measured), np.array([0.5]), SweepConfig(dead_units="nan"))
    zeros = int((np.asarray(train_set.y)[:301] == 0).sum())
    for head in ("linear", "full"):
        counts = units.sweep(mlp.model("relu"), trained["relu"], SITE, made, train_set, head=head).counts
        assert (counts.correct == zeros).all()


def test_edits_that_do_not_fit_are_refused(trained, train_set):
    with pytest.raises(ValueError, match=r"expected leaves \[3, P, 24\], got \[3, 3, 7\]"):
        units.sweep(mlp.model("relu"), trained["relu"], SITE, some_edits(7), train_set)


def test_memory_grows_neither_with_points_nor_with_examples():
    """N x H x P would be 130 MB here, and N x H x H even more."""
    mesh = devices.make_mesh()
    params = jax.eval_shape(lambda: mlp.init_ensemble(jax.random.key(0), range(2), (64, 64, 10)))

    def temporary(examples, points):
        shapes = devices.Examples(
            jax.ShapeDtypeStruct((examples, 64), jnp.float32),
            jax.ShapeDtypeStruct((examples,), jnp.int32),
            jax.ShapeDtypeStruct((), jnp.int32),
            jax.ShapeDtypeStruct((), jnp.int32),
            examples // mesh.size,
        )
        made = edits.Affine(*(jax.ShapeDtypeStruct((2, points, 64), jnp.float32) for _ in range(4)))
        static = {"precision": "float32", "size": 512, "mesh": mesh, "chosen": tuning.current()}
        measure = units.SingleUnits(mlp.model("relu"), SITE, linear=True)
        lowered = ensemble._run.lower(params, made, shapes, measure=measure, **static)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    base = temporary(10_240, 10)
    assert temporary(40_960, 10) <= base * 1.01
    # The edits and counts of a network are copied as the seeds are walked.
    assert temporary(10_240, 50) <= base + 16 * 40 * 64 * 4
