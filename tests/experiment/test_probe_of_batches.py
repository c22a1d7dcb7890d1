"""Examples in batches are measured as the same ones in two arrays, whatever the batches; what cannot be is refused."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdist
from jaxdist.compute import devices, streams
from jaxdist.data import batches
from jaxdist.errors import InputError

CUTS = (0, 10, 130, 131, 260, 301)
OPTIONS = {
    "post": {"hidden": jax.nn.relu},
    "families": ("offset", "noise", "mean"),
    "metrics": ("kl",),
    "sensitivity": True,
}
EXACT = ("correct", "agree", "kept", "unperturbed", "total", "predicted", "labels", "dead", "not_finite")


def network(params, x):
    return jax.nn.relu(jaxdist.site("hidden", x @ params["w"] + params["b"][None])) @ params["v"]


@pytest.fixture(scope="module")
def params(trained):
    first, last = (
        jax.tree.map(lambda leaf: np.asarray(leaf)[1], trained["relu"][name]) for name in ("dense0", "dense1")
    )
    return {"w": first["weight"].T.copy(), "b": first["bias"], "v": last["weight"].T.copy()}


@pytest.fixture(scope="module")
def images(digits):
    x, y = digits.train.images.reshape(-1, 64).astype(np.float32), digits.train.labels
    return (x[:301], y[:301]), (x[301:400], y[301:400])


def cut(pair, cuts=CUTS):
    return [devices.rows(pair, slice(*ends)) for ends in itertools.pairwise(cuts)]


class Loader:
    """What a loader of another library is: it begins anew each time, and gives no arrays of NumPy."""

    def __init__(self, given):
        self.given, self.passes = given, 0

    def __iter__(self):
        self.passes += 1
        for x, y in self.given:
            yield jnp.asarray(x), y.tolist()


@pytest.fixture(scope="module")
def whole(params, images):
    return jaxdist.probe(network, params, train=images[0], test=images[1], **OPTIONS)


def test_batches_are_measured_as_their_examples_in_two_arrays(whole, params, images, monkeypatch):
    """In five chunks, of which the last is not full."""
    monkeypatch.setattr(streams, "VALUES", 64 * 70)
    result = jaxdist.probe(
        network, params, train=lambda: iter(cut(images[0])), test=Loader(cut(images[1], (0, 50, 99))), **OPTIONS
    )
    assert set(result.children) == set(whole.children)
    for name, group in whole.children.items():
        for variable, expected in group.data_vars.items():
            found = result[name][variable].to_numpy()
            if variable in EXACT:
                np.testing.assert_array_equal(found, expected, err_msg=f"{name} {variable}")
            else:
                np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5, err_msg=f"{name} {variable}")
    assert result.attrs["data_digest"] == whole.attrs["data_digest"]
    assert result.attrs["data_source"] == whole.attrs["data_source"]


def test_extremes_are_those_of_all_batches(whole, params, images):
    result = jaxdist.probe(network, params, train=cut(images[0]), post=OPTIONS["post"], families=("clip",))
    for name in ("low", "high"):
        np.testing.assert_array_equal(result["ranges"][name], whole["ranges"][name])


def test_several_networks_and_moments_of_batches(params, images):
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, 0.9 * leaf, 1.1 * leaf]).astype(np.float32), params)
    given = {"stacked": True, "post": OPTIONS["post"], "families": ("offset",), "rule": "sd"}
    one, two = (jaxdist.probe(network, stacked, train=train, **given) for train in (images[0], cut(images[0])))
    np.testing.assert_array_equal(one["offset"].correct, two["offset"].correct)
    np.testing.assert_allclose(one["ranges"].high, two["ranges"].high, rtol=1e-5)


def test_inputs_by_name_and_tokens_in_batches():
    """As a language model's: ids with their mask, a label a token."""
    rng = np.random.default_rng(0)
    ids, lengths = rng.integers(0, 9, (83, 5)), rng.integers(1, 6, 83)
    mask = (np.arange(5) < lengths[:, None]).astype(np.int32)
    weights = {"embed": rng.normal(size=(9, 8)), "head": rng.normal(size=(8, 9))}

    def model(params, x):
        values = params["embed"][x["input_ids"]] * x["attention_mask"][..., None].astype(jnp.float32)
        values = jaxdist.site("mixed", jnp.cumsum(values, 1))
        return jnp.tanh(values) @ params["head"]

    x = {"input_ids": ids, "attention_mask": mask}
    y = np.where(mask == 1, rng.integers(0, 9, ids.shape), -100)
    given = {"sites": ["mixed"], "families": ("zero",), "metrics": ("cross_entropy",)}
    weights = jax.tree.map(np.float32, weights)
    one, two = (jaxdist.probe(model, weights, train=t, **given) for t in ((x, y), cut((x, y), (0, 3, 50, 83))))
    for name in ("correct", "agree", "total"):
        np.testing.assert_array_equal(one["zero"][name], two["zero"][name])
    np.testing.assert_allclose(one["zero"].metric_mean, two["zero"].metric_mean, rtol=1e-5)
    np.testing.assert_allclose(one["zero"].metric_error, two["zero"].metric_error, rtol=1e-4, atol=1e-7)


def test_no_more_than_a_chunk_and_a_batch_is_held():
    """Of a stream of arrays that are counted while they live."""
    alive = most = 0

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def batch(rows):
        nonlocal alive, most
        alive, most = alive + 1, max(most, alive + 1)
        return np.zeros((rows, 4), np.float32).view(Counted)

    def made():
        for _ in range(50):
            yield batch(10), np.zeros(10, int)

    sizes = [len(y) for _, y in streams.chunked(made(), 25)]
    assert sizes == [25] * 20
    assert most <= 6


def test_a_chunk_has_as_many_examples_as_its_values_allow():
    mesh = devices.make_mesh(jax.devices()[:2])
    x = jax.ShapeDtypeStruct((10**6, 100), np.float32)
    y = jax.ShapeDtypeStruct((10**6,), np.int32)
    assert streams.rows_of(x, y, 10**6, mesh) == streams.VALUES // 101
    assert streams.rows_of(x, y, 30, mesh) == 30
    wide = jax.ShapeDtypeStruct((9, streams.VALUES), np.int8)
    assert streams.rows_of(wide, y, 9, mesh) == 2


def once(pairs):
    yield from pairs


class Other:
    """Gives other examples in each pass."""

    def __init__(self, pair):
        self.pair, self.passes = pair, 0

    def __iter__(self):
        self.passes += 1
        x, y = self.pair
        yield x + (0.001 if self.passes > 3 else 0), y


REFUSED = {
    "a generator": (
        lambda p: once(cut(p)),
        "train: a generator can be read only once, .* pass a function that returns a new one$",
    ),
    "an iterator": (lambda p: iter(cut(p)), "train: a list_iterator can be read only once"),
    "no batch": (lambda p: lambda: iter([]), "train: expected at least one batch of examples, got none"),
    "a function of none": (
        lambda p: lambda: None,
        r"train: expected a function that returns batches \(x, y\), got one that returns",
    ),
    "a function of an argument": (
        lambda p: lambda n: cut(p),
        "expected a function without arguments that",
    ),
    "no pairs": (
        lambda p: lambda: iter([p[0]]),
        r"train: expected batches of inputs and labels, \(x, y\), got ndarray",
    ),
    "an empty batch": (lambda p: [*cut(p), (p[0][:0], p[1][:0])], "train, batch 5: expected at least one example"),
    "another width": (
        lambda p: [*cut(p), (p[0][:, :5], p[1])],
        r"batch 5 has inputs of float32\[5\], labels of \[\] per example, but batch 0 has inputs of float32\[64\], l",
    ),
    "another type": (lambda p: [*cut(p), (p[0].astype(np.int32), p[1])], r"batch 5 has inputs of int32\[64\]"),
    "a label too few": (lambda p: [*cut(p), (p[0], p[1][1:])], "expected a label for each of 301 inputs of batch 5"),
    "another label": (lambda p: [*cut(p), (p[0], p[1] + 5)], "train, batch 5: expected labels from 0 to 9"),
    "not finite": (lambda p: [*cut(p), (p[0] * np.nan, p[1])], "train, batch 5: the inputs hold values that are not"),
    "all the same": (
        lambda p: [(np.ones((5, 64), np.float32), p[1][k : k + 5]) for k in range(3)],
        "train: all 15 examples are identical, so there is nothing to tell apart",
    ),
    "others each time": (Other, r"train: the batches differ when they are read again \(301 examples, 301 the"),
}


@pytest.mark.parametrize(("made", "sentence"), REFUSED.values(), ids=REFUSED)
def test_batches_that_cannot_be_used_are_refused(made, sentence, params, images):
    with pytest.raises(InputError, match=sentence) as caught:
        jaxdist.probe(network, params, train=made(images[0]), post=OPTIONS["post"], families=("clip",))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rule": "quantile"}, "rule 'quantile': needs all examples in memory; pass arrays"),
        ({"units": True}, "units: needs all examples in memory"),
        ({"dose": True}, "dose: needs all examples in memory"),
        ({"matched": (0.1,)}, "matched: needs all examples in memory"),
    ],
)
def test_what_walks_more_than_once_is_refused_of_batches(options, sentence, params, images):
    with pytest.raises(InputError, match=sentence):
        jaxdist.probe(network, params, train=cut(images[0]), post=OPTIONS["post"], **options)


def test_two_arrays_in_a_list_are_no_batches():
    """Nor lists of numbers; two tuples of arrays are."""
    x, y = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1])
    for given in ([x, y], (x, y), [x.tolist(), y.tolist()], [[(1, 2), (3, 4)], [0, 1]], (x.tolist(), y.tolist())):
        assert batches.batches_of(given, "train") is None
    for given in ([(x, y), (x, y)], [(x, y)], [[x, y]] * 3, [({"a": x}, y), ({"a": x}, y)], lambda: [(x, y)]):
        assert batches.batches_of(given, "train") is not None


def test_examples_may_come_in_another_order_each_time(params, images):
    """As a loader that shuffles gives them."""
    rng = np.random.default_rng(0)

    def shuffled():
        order = rng.permutation(301)
        return iter(cut((images[0][0][order], images[0][1][order])))

    given = {"post": OPTIONS["post"], "families": ("clip",)}
    one, two = (jaxdist.probe(network, params, train=train, **given) for train in (images[0], shuffled))
    np.testing.assert_array_equal(one["clip"].agree, two["clip"].agree)
