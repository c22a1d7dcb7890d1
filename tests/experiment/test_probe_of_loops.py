"""A probe at sites in loops, branches and of several calls: its numbers by hand, or one sentence that refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdist
from jaxdist.errors import InputError

KEYS = jax.random.split(jax.random.key(0), 4)
LAYERS, UNITS = 3, 6
PARAMS = {
    "in": jax.random.normal(KEYS[0], (5, UNITS)),
    "layers": jax.random.normal(KEYS[1], (LAYERS, UNITS, UNITS)) / 1.6,
    "out": jax.random.normal(KEYS[2], (UNITS, 3)),
}
X = np.asarray(jax.random.normal(KEYS[3], (37, 5)))
Y = np.arange(37) % 3
FRACTIONS = {"scale": (0.25, 1.0, 3.0), "offset": (-0.5, 0.0, 0.5)}


def scanned(params, x):
    def layer(h, weight):
        return jnp.tanh(jaxdist.site("up", h @ weight)) + 0.3 * h, None

    return jax.lax.scan(layer, x @ params["in"], params["layers"])[0] @ params["out"]


def shared(params, x):
    h = x @ params["in"]
    for weight in params["layers"]:
        h = jnp.tanh(jaxdist.site("up", h @ weight)) + 0.3 * h
    return h @ params["out"]


def by_hand(edit):
    """The logits with every layer's values edited, and these, [n, LAYERS, UNITS]."""
    weights = jax.tree.map(np.asarray, PARAMS)
    h, values = X @ weights["in"], []
    for weight in weights["layers"]:
        values.append(edit(h @ weight))
        h = np.tanh(values[-1]) + np.float32(0.3) * h
    return h @ weights["out"], np.stack(values, 1)


def probed(apply, unit_axis=-1, **options):
    options = {"families": ("scale", "offset"), "sites": ["up"], "params": PARAMS} | options
    wanted = {name: FRACTIONS[name] for name in options["families"] if name in FRACTIONS}
    return jaxdist.probe(apply, options.pop("params"), train=(X, Y), fractions=wanted, unit_axis=unit_axis, **options)


def the_same(value):
    return value


@pytest.mark.slow
@pytest.mark.parametrize(("apply", "unit_axis"), [(scanned, -1), (scanned, 1), (shared, -1)])
def test_ranges_counts_and_doses_are_of_all_calls_and_iterations(apply, unit_axis):
    result = probed(apply, dose=True, unit_axis=unit_axis, block=10)
    logits, values = by_hand(the_same)
    low, high = values.min((0, 1)), values.max((0, 1))
    ranges = result["ranges"].sel(network="network", seed=0, site="up")
    np.testing.assert_allclose(ranges.low, low, rtol=1e-5)
    np.testing.assert_allclose(ranges.high, high, rtol=1e-5)

    def offset(value, p):
        moved = p * (high - low)
        return (high - moved) / high * value + moved

    for family, edit in (("scale", lambda value, p: p * value), ("offset", offset)):
        group = result[family].sel(network="network", seed=0, site="up", split="train")
        for p in FRACTIONS[family]:
            edited, after = by_hand(lambda value, p=p, edit=edit: edit(value, np.float32(p)))
            point = group.sel(fraction=p)
            assert int(point.agree) == (edited.argmax(-1) == logits.argmax(-1)).sum()
            assert int(point.correct) == (edited.argmax(-1) == Y).sum()
            a, b = values.ravel().astype(np.float64), after.ravel().astype(np.float64)
            cosine = a @ b / np.sqrt((a @ a) * (b @ b))
            assert float(point.dose) == pytest.approx(np.sqrt(max(0, 1 - cosine**2)), abs=2e-3)
            assert float(point.rms_plain) == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), abs=1e-4)


def test_units_on_the_first_of_two_axes_in_a_loop_are_counted_from_the_first():
    def turned(params, x):
        def layer(h, weight):
            return jnp.tanh(jaxdist.site("up", weight.T @ h)) + 0.3 * h, None

        return (params["out"].T @ jax.lax.scan(layer, params["in"].T @ x.T, params["layers"])[0]).T

    counts = [probed(*of)["offset"].correct.to_numpy() for of in ((turned, 0), (scanned, -1))]
    np.testing.assert_array_equal(*counts)
    with pytest.raises(InputError, match=r"site 'up': unit_axis -2 is the first of its axes, .* pass unit_axis 0"):
        probed(turned, unit_axis=-2)


@pytest.mark.parametrize("rule", ["minmax", "quantile", "sd"])
def test_branches_that_are_not_taken_have_no_ranges(rule):
    params = {**PARAMS, "first": jnp.float32(1)}

    def branched(params, x):
        first, second, _ = params["layers"]
        h = jax.lax.cond(
            params["first"] > 0,
            lambda h: jnp.tanh(jaxdist.site("up", h @ first)),
            lambda h: jnp.sin(jaxdist.site("up", h @ second)),
            x @ params["in"],
        )
        return h @ params["out"]

    with pytest.raises(InputError, match=r"site 'up': it is in a branch of jax\.lax\.cond .* name a call \('#1'\)"):
        probed(branched, params=params, rule=rule)
    # The branch for false comes first.
    group = probed(branched, params=params, rule=rule, sites=["up#1"])["offset"].sel(seed=0, fraction=0.0)
    assert int(group.agree.squeeze()) == len(X)


@pytest.mark.parametrize("post", [{"up": lambda value: jnp.where(value > 0, value, 0)}, {"up": "behind"}])
def test_a_branch_that_is_not_taken_is_refused_whatever_follows_its_site(post):
    """An activation may make numbers of what is not there, and a site behind the branch has values of the other."""

    def branched(params, x):
        h = jax.lax.cond(
            params["first"] > 0,
            lambda h: jnp.tanh(h @ params["layers"][0]),
            lambda h: jax.nn.relu(jaxdist.site("up", h @ params["layers"][1])),
            x @ params["in"],
        )
        return jaxdist.site("behind", h) @ params["out"]

    for first in (1, -1):
        params = {**PARAMS, "first": jnp.float32(first)}
        if first > 0:
            with pytest.raises(InputError, match=r"site 'up': it is in a branch of jax\.lax\.cond"):
                probed(branched, params=params, sites=None, post=post, families=("scale",))
        else:
            assert np.isfinite(probed(branched, params=params, sites=None, post=post)["ranges"].high).all()


def test_sensitivity_is_refused_where_there_are_no_derivatives():
    def looping(params, x):
        def layer(state):
            return state[0] + 1, jnp.tanh(state[1] @ params["layers"][0])

        h = jaxdist.site("up", x @ params["in"])
        return jax.lax.while_loop(lambda state: state[0] < 3, layer, (0, h))[1] @ params["out"]

    with pytest.raises(InputError, match=r"site 'up': the sensitivity needs derivatives .* leave sensitivity out"):
        probed(looping, sensitivity=True)


def test_post_of_several_sites_by_one_key():
    def layered(params, x):
        h = x @ params["in"]
        for k, weight in enumerate(params["layers"]):
            h = jax.nn.relu(jaxdist.site(f"layers/{k}/up", h @ weight))
        return h @ params["out"]

    result = probed(layered, families=("scale",), sites=None, post={"layers/*/up": jax.nn.relu}, layers="each")
    assert list(result["scale"].site.to_numpy()) == [f"layers/{k}/up" for k in range(LAYERS)]
    assert (result["ranges"].low >= 0).all()  # of relu
    with pytest.raises(InputError, match=r"post: 'layers/\*/up' matches 3 sites, .* 'layers/0/up' cannot follow"):
        probed(layered, sites=None, post={"layers/*/up": "layers/0/up"})


@pytest.mark.parametrize(("apply", "key"), [(shared, "up#1"), (scanned, "up@1")])
def test_post_of_a_site_is_that_of_each_of_its_calls_and_iterations(apply, key):
    options = {"sites": [key], "families": ("clip",)}
    by_name = probed(apply, post={"up": jax.nn.relu}, **options)
    by_key = probed(apply, post={key: jax.nn.relu}, **options)
    for name in ("low", "high", "dead"):
        np.testing.assert_array_equal(by_name["ranges"][name], by_key["ranges"][name])
    np.testing.assert_array_equal(by_name["clip"].agree, by_key["clip"].agree)
    assert (by_name["ranges"].low >= 0).all()
    assert by_name["ranges"].attrs["measured_on"] == "post"


def test_a_site_that_follows_another_does_so_in_the_same_call():
    def relus(params, x):
        h = x @ params["in"]
        for weight in params["layers"]:
            h = jaxdist.site("act", jax.nn.relu(jaxdist.site("up", h @ weight))) + 0.3 * h
        return h @ params["out"]

    by_site = probed(relus, sites=["up#1"], post={"up": "act"}, families=("clip",))
    by_function = probed(relus, sites=["up#1"], post={"up": jax.nn.relu}, families=("clip",))
    np.testing.assert_array_equal(by_site["ranges"].high, by_function["ranges"].high)
    np.testing.assert_array_equal(by_site["clip"].agree, by_function["clip"].agree)


@pytest.mark.parametrize(
    ("apply", "keys"), [(shared, ["up", "up#1"]), (scanned, ["up", "up@1"]), (scanned, ["up#0", "up"])]
)
def test_sites_that_share_a_value_are_refused_before_anything_is_measured(apply, keys):
    with pytest.raises(InputError, match=f"site '{keys[1]}': names a value that another key also names"):
        probed(apply, sites=keys)


def test_networks_that_take_blocks_apart_are_refused():
    def mapped(params, x):
        return jax.lax.map(
            lambda one: jnp.tanh(jaxdist.site("up", one @ params["in"])) @ params["out"], x, batch_size=2
        )

    def chunked(params, x):
        parts = [jnp.tanh(jaxdist.site("up", x[k : k + 2] @ params["in"])) for k in range(0, len(x), 2)]
        return jnp.concatenate(parts) @ params["out"]

    sentences = {
        mapped: "site 'up': it is inside a loop over the examples, such as jax.lax.map, .* use jax.vmap instead",
        chunked: "site 'up': its values have shape .* so the network splits the block",
    }
    for apply, sentence in sentences.items():
        with pytest.raises(InputError, match=sentence):
            probed(apply)
