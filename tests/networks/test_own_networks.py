"""What a user's function returns, where its sites have units, what its parameters are: right, or one sentence."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdist
from jaxdist.errors import InputError
from jaxdist.networks import own_networks
from jaxdist.networks.model import Model

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 16)).astype(np.float32)
PARAMS = {name: RNG.normal(size=shape).astype(np.float32) / 4 for name, shape in {"w": (16, 8), "v": (8, 4)}.items()}
Y = (np.maximum(X @ PARAMS["w"], 0) @ PARAMS["v"]).argmax(1)


def hidden(params, x, tap):
    return jax.nn.relu(tap("h", x @ params["w"]))


def logits(params, x, tap):
    return hidden(params, x, tap) @ params["v"]


@dataclasses.dataclass
class Output:
    loss: float
    logits: Any


@dataclasses.dataclass
class Scores:
    scores: Any


Named = collections.namedtuple("Named", "loss logits")

PICK = r"apply: expected logits .* as one array, got an? {}; pick them with output={}$"
OUTPUTS = {
    "a dictionary": (lambda z: {"loss": 0.0, "logits": z}, PICK.format("dict with 'loss', 'logits'", "'logits'")),
    "other names": (lambda z: {"out": z, "aux": z}, PICK.format("dict with 'out', 'aux'", "'out'")),
    "a tuple": (lambda z: (z, 0.0), PICK.format("tuple of 2", "0")),
    "a list": (lambda z: [z], PICK.format("list of 1", "0")),
    "a dataclass": (lambda z: Output(0.0, z), PICK.format("Output", "'logits'")),
    "another dataclass": (lambda z: Scores(z), PICK.format("Scores", "'scores'")),
    "a named tuple": (lambda z: Named(0.0, z), PICK.format("Named", "'logits'")),
    "nothing": (lambda z: None, "as one array, got None; return them as one array$"),
    "a number": (lambda z: 3.0, "as one array, got a float; return them as one array$"),
    "an empty tuple": (lambda z: (), r"as one array, got a tuple; return them as one array$"),
    "integers": (
        lambda z: z.astype(jnp.int32),
        r"of floating-point numbers of 16 bits or more, got int32; convert them",
    ),
    "truth values": (lambda z: z > 0, r"of floating-point numbers of 16 bits or more, got bool; convert them"),
    "complex": (
        lambda z: jax.lax.complex(z, z),
        r"of floating-point numbers of 16 bits or more, got complex64; convert them",
    ),
    "one class": (
        lambda z: z[:, :1],
        "integers from 0 to 3, but the network returns one number for each example; use labels 0 and 1 for",
    ),
    "no class": (lambda z: z[:, :0], "at least two classes, got 0, of which"),
    "no axis of classes": (
        lambda z: z[:, 0],
        "integers from 0 to 3, but the network returns one number for each example; use labels 0 and 1 for",
    ),
    "a class a token": (lambda z: jnp.stack([z] * 3, 1), r"got shape \(2, 3, 4\) for two .* such as logits\[:, -1\]$"),
    "an axis too few for one": (lambda z: z.squeeze(), r"got shape \(4,\) for one example$"),
    "classes first": (
        lambda z: z.T,
        r"got shape \(4, 2\) for two .* if the classes are on the other axis, .*class_axis=0$",
    ),
    "as many as examples": (lambda z: z @ z.T, r"the same number of classes for any .* \(1, 1\) for one"),
}


@pytest.mark.parametrize(("output", "sentence"), OUTPUTS.values(), ids=OUTPUTS)
def test_what_is_no_array_of_logits_is_refused_with_the_way_to_it(output, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        jaxdist.probe(lambda p, x, tap: output(logits(p, x, tap)), PARAMS, train=(X, Y), sites=["h"], measured_on="pre")
    assert "\n" not in str(caught.value)


def scale(apply, params=PARAMS, y=Y, **given):
    """Counts of a small sweep."""
    arguments = {"train": (X, y), "sites": ["h"], "measured_on": "pre", "families": ("scale",), **given}
    return jaxdist.probe(apply, params, **arguments)["scale"].correct.squeeze().to_numpy()


def test_the_ways_to_logits_that_are_named_work():
    """One logit of two classes: the larger of 0 and z."""

    def joined(p, x, tap):
        z = logits(p, x, tap)[:, :1]
        return jnp.concatenate([jnp.zeros_like(z), z], -1)

    def stacked(p, x, tap):
        z = logits(p, x, tap)[:, 0]
        return jnp.stack([jnp.zeros_like(z), z], -1)

    y = (np.maximum(X @ PARAMS["w"], 0) @ PARAMS["v"][:, 0] > 0).astype(int)
    for apply in (joined, stacked):
        np.testing.assert_array_equal(scale(apply, y=y), 70)  # a factor leaves the sign
    np.testing.assert_array_equal(scale(lambda p, x, tap: Output(0.0, logits(p, x, tap)).logits), scale(logits))


SITES = {
    "truth values": (
        lambda h, tap: tap("h", h > 0).astype(h.dtype),
        "'h': its value has type bool, but edits need floating",
    ),
    "integers": (
        lambda h, tap: tap("h", h.astype(jnp.int32)).astype(h.dtype),
        "'h': its value has type int32, but edits",
    ),
    "complex": (
        lambda h, tap: tap("h", jax.lax.complex(h, h)).real,
        "'h': its value has type complex64, but edits need",
    ),
    "no units": (
        lambda h, tap: h + tap("h", h[:, :0]).sum(1, keepdims=True),
        r"'h': its value has shape \(1, 0\), so there",
    ),
    "no axis of units": (
        lambda h, tap: tap("h", h.sum(1))[:, None] * h,
        r"'h': .* \(2,\) .* name value\[:, None\]",
    ),
    "no axis at all": (
        lambda h, tap: tap("h", h.sum()) * h,
        r"'h': .* shape \(\) for two .* an axis of examples and one",
    ),
    "examples and positions in one": (
        lambda h, tap: tap("h", h.reshape(-1, 4)).reshape(len(h), 8),
        r"'h': its value has shape \(4, 4\) for two examples; with unit_axis -1, axis 0 must be that of examples",
    ),
    "a sum over examples": (
        lambda h, tap: h + tap("h", h.sum(0, keepdims=True)),
        r"'h': its value has shape \(1, 8\) for two examples; with unit_axis -1, axis 0 must be that of examples",
    ),
    "a loop over the examples": (
        lambda h, tap: jax.lax.map(lambda row: tap("h", row), h),
        r"site 'h': it is inside a loop over the examples, such as jax.lax.map, .*; use jax.vmap instead",
    ),
    "a pair": (
        lambda h, tap: tap("h", (h, h))[0],
        r"site 'h': the network has no such site; its sites are h\[0\], h\[1\]",
    ),
    "no name": (lambda h, tap: tap(1, h), r"site: expected a site's name, as in site\('hidden', value\), got 1"),
}


@pytest.mark.parametrize(("site", "sentence"), SITES.values(), ids=SITES)
def test_sites_that_cannot_be_edited_are_refused(site, sentence):
    def apply(params, x, tap):
        return site(x @ params["w"], tap) @ params["v"]

    with pytest.raises(InputError, match=sentence) as caught:
        scale(apply)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("families", [("scale",), ("restored_offset",)])
@pytest.mark.parametrize("axis", [0, -2, -3, 2, 5, 1.0, "last", True, None, 1, -1, np.int32(1)])
def test_an_axis_of_units_is_right_or_refused(axis, families):
    given = {"train": (X, Y), "sites": ["h"], "measured_on": "pre", "families": families, "unit_axis": axis}
    if axis is None or (not isinstance(axis, (float, str, bool)) and axis in (1, -1)):
        assert families[0] in jaxdist.probe(logits, PARAMS, **given).children
        return
    sentence = (
        "unit_axis: expected an integer, got" if isinstance(axis, (float, str, bool)) else "site 'h': its value has"
    )
    with pytest.raises(InputError, match=sentence):
        jaxdist.probe(logits, PARAMS, **given)


def test_axes_counted_from_either_end_give_the_same_also_where_logits_have_fewer():
    """A site [n, 2, 8] beside logits [n, 4], whose mean is restored."""

    def apply(params, x, tap):
        h = tap("h", x.reshape(len(x), 2, 8) @ params["w"][:8])
        return jax.nn.relu(h).mean(1) @ params["v"]

    def counts(axis):
        given = {"train": (X, Y), "sites": ["h"], "measured_on": "pre", "unit_axis": axis, "offset_formula": "intended"}
        result = jaxdist.probe(apply, PARAMS, families=("restored_offset", "clip"), **given)
        return {name: result[name].correct.to_numpy() for name in ("restored_offset", "clip")}

    for first, second in ((2, -1), (1, -2)):
        positive, negative = counts(first), counts(second)
        for name, values in positive.items():
            np.testing.assert_array_equal(values, negative[name])
    with pytest.raises(InputError, match=r"'h': its value has shape \(2, 2, 8\) for two .* with unit_axis -3, axis 1"):
        counts(-3)


@pytest.mark.parametrize(
    ("axis", "sentence"),
    [
        (0, r"logits \[C, n\] .* got shape \(2, 4\) for two .* pass class_axis=-1$"),
        (2, "class_axis: expected one of the logits' two axes, from -2 to 1, got 2"),
        (-3, "class_axis: expected one of the logits' two axes, from -2 to 1, got -3"),
        (0.0, "class_axis: expected an integer, got 0.0"),
        (False, "class_axis: expected an integer, got False"),
    ],
)
def test_an_axis_of_classes_that_is_none_is_refused(axis, sentence):
    with pytest.raises(InputError, match=sentence):
        scale(logits, class_axis=axis)
    with pytest.raises(InputError, match=sentence):
        scale(Model(logits, class_axis=axis))


def test_classes_first_are_counted_as_classes_last():
    expected = scale(logits)
    for axis in (0, -2):
        np.testing.assert_array_equal(scale(lambda p, x, tap: logits(p, x, tap).T, class_axis=axis), expected)


POST = {
    "half the units": (
        jax.nn.glu,
        r"post: what follows 'h' turns its values of shape \(2, 8\) into float32 of shape \(2, 4\)",
    ),
    "a sum": (lambda h: h.sum(), r"post: what follows 'h' turns its values .* into float32 of shape \(\)"),
    "complex": (lambda h: jax.lax.complex(h, h), "post: what follows 'h' turns its values .* into complex64"),
    "a pair": (lambda h: (h, h), "post: what follows 'h' turns its values"),
    "a number": (3, "post: expected the name of a site with a function, or the name of the site after it, got 'h': 3"),
    "nothing": (None, "post: expected the name of a site with a function, .* got 'h': None"),
}


@pytest.mark.parametrize(("follows", "sentence"), POST.values(), ids=POST)
def test_what_follows_a_site_is_an_activation_or_refused(follows, sentence):
    with pytest.raises(InputError, match=sentence):
        scale(logits, post={"h": follows})


@pytest.mark.parametrize("apply", [None, "logits", 3, PARAMS])
def test_what_is_no_function_is_refused(apply):
    with pytest.raises(InputError, match=r"apply: expected a function apply\(params, x\) or a jaxdist.Model, got"):
        scale(apply)


@pytest.mark.parametrize("kind", [">f4", np.float64, ">f8", list, jnp.asarray])
def test_parameters_of_any_kind_that_loses_nothing_are_the_same(kind):
    made = {
        name: values.astype(kind) if kind in (">f4", np.float64, ">f8") else kind(values)
        for name, values in PARAMS.items()
    }

    def apply(params, x, tap):
        """Lists of rows are pytrees, of a leaf each."""
        return logits({name: jnp.asarray(values) for name, values in params.items()}, x, tap)

    np.testing.assert_array_equal(scale(apply, made), scale(logits))


def test_whole_and_single_numbers_among_the_parameters_are_taken():
    whole = {"w": PARAMS["w"], "v": np.round(8 * PARAMS["v"]).astype(int), "times": 2, "none": None}

    def apply(p, x, tap):
        return hidden(p, x, tap) @ p["v"].astype(jnp.float32) * p["times"].astype(jnp.float32)

    floats = {"w": PARAMS["w"], "v": np.round(8 * PARAMS["v"])}
    np.testing.assert_array_equal(scale(apply, whole), scale(logits, floats))


LEAVES = {
    "text": ("relu", r"params: the values at params\['more'\] have type <U4; expected numbers of a type"),
    "a random key": (
        jax.random.key(0),
        r"params: the values at params\['more'\] cannot be read as an array from PRNGKey",
    ),
    "a large integer": (
        2**40,
        r"params: the values at params\['more'\] hold 1099511627776, which does not fit into int32",
    ),
    "a function": (jax.nn.relu, r"params: the values at params\['more'\] are a function; expected only arrays"),
    "an object": (object(), r"params: the values at params\['more'\] have type object"),
}


@pytest.mark.parametrize(("leaf", "sentence"), LEAVES.values(), ids=LEAVES)
def test_parameters_that_are_no_numbers_are_named(leaf, sentence):
    with pytest.raises(InputError, match=sentence):
        scale(logits, {**PARAMS, "more": leaf})


def test_a_list_of_seeds_is_stacked():
    networks = [PARAMS, jax.tree.map(lambda leaf: 2 * leaf, PARAMS)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *networks)
    counts = scale(logits, stacked, stacked=True)
    np.testing.assert_array_equal(counts[0], scale(logits))
    np.testing.assert_array_equal(scale(logits, networks, stacked=True), counts)
    with pytest.raises(InputError, match="leading seed axis, got leading sizes 0; for one network, leave out stacked"):
        scale(logits, jax.tree.map(lambda leaf: leaf[None][:0], PARAMS), stacked=True)
    assert own_networks.stacked(stacked, several=True)[1] == 2


def test_a_list_of_one_networks_layers_is_no_list_of_networks():
    layers = [RNG.normal(size=(16, 16)).astype(np.float32) / 4 for _ in range(2)]
    stacked = [np.stack([layer, -layer, 2 * layer]) for layer in layers]

    def apply(params, x):
        first, second = params
        return jaxdist.site("h", jnp.tanh(x @ first)) @ second[:, :4]

    counts = scale(apply, stacked, stacked=True)
    assert counts.shape[0] == 3
    np.testing.assert_array_equal(counts[0], scale(apply, layers))
    # With as many networks as layers either could be meant.
    two = [layer[:2] for layer in stacked]
    with pytest.raises(
        InputError, match="could be a list of several networks' parameters or a list of one network's lay"
    ):
        scale(apply, two, stacked=True)
    np.testing.assert_array_equal(scale(apply, tuple(two), stacked=True), counts[:2])


@pytest.mark.parametrize("block", [None, 1, 7, 10**30, np.int64(16)])
def test_a_block_of_any_size_and_the_default_given_count_the_same(block):
    np.testing.assert_array_equal(scale(logits, block=block), scale(logits))


@pytest.mark.parametrize("block", [0, -1, 1.5, True, "8"])
def test_a_block_that_is_no_size_is_refused(block):
    with pytest.raises(InputError, match=r"probe: compute\.block: expected an integer at least 1, got"):
        scale(logits, block=block)


def test_progress_is_shown_where_it_is_asked_for(capsys):
    told = []
    for show in (None, False, lambda *what: told.append(what)):
        scale(logits, show=show)
    assert told
    assert capsys.readouterr() == ("", "")
    scale(logits, show=True)
    assert "sweep network" in capsys.readouterr().err
    for show in ("yes", 3, print()):
        if show is not None:
            with pytest.raises(InputError, match="show: expected true, false, or a function"):
                scale(logits, show=show)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_examples_and_more_classes_than_examples_are_counted(count):
    wide = {"w": PARAMS["w"], "v": np.tile(PARAMS["v"], 20)}
    np.testing.assert_array_equal(scale(logits, wide, train=(X[:count], Y[:count])), count)


HALF = {"bfloat16": jnp.bfloat16, "float16": np.float16}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALF.values(), ids=HALF)
def test_half_precision_is_measured_in_every_way(dtype):
    """Against the same network in float32, of weights that both have; each in its own rounding."""
    half = jax.tree.map(lambda leaf: np.asarray(jnp.asarray(leaf, dtype)), PARAMS)
    single = jax.tree.map(lambda leaf: leaf.astype(np.float32), half)
    options = {
        "post": {"h": jax.nn.relu},
        "families": ("offset", "restored_offset"),
        "offset_formula": "intended",
        "dose": True,
        "units": True,
        "sensitivity": True,
    }

    def apply(params, x, tap):
        return logits(params, x.astype(params["w"].dtype), tap)

    halved, expected = (jaxdist.probe(apply, params, train=(X, Y), **options) for params in (half, single))
    for name in ("offset", "restored_offset", "units_offset"):
        assert abs(halved[name].agree - expected[name].agree).mean() < 1, name
    for name in ("offset", "log_scale", "margin"):
        values = expected["sensitivity"][name].to_numpy()
        np.testing.assert_allclose(halved["sensitivity"][name], values, atol=0.02 * abs(values).max())
    np.testing.assert_allclose(halved["ranges"].high, expected["ranges"].high, rtol=0.01)
