"""Edits of some units, positions or channels alone, and of units on other axes: like sites of their own, by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdist
from jaxdist.errors import InputError
from jaxdist.networks import Model, rows, site_parts
from jaxdist.networks import model as networks_model
from jaxdist.networks.site_programs import Key
from tests.experiment.test_patching import points, probed, real
from tests.experiment.test_probe_of_loops import PARAMS, X, Y, scanned, shared

FAMILIES = ("offset", "noise", "mean", "mean_position", "patch", "resample")
TOKENS = np.asarray(jax.random.normal(jax.random.key(8), (37, 4, 5)))


def plain(params, x):
    h = jaxdist.site("h", x @ params["in"])
    return jaxdist.site("a", jax.nn.relu(h)) @ params["out"]


def with_own_site(params, x):
    """The same with a site where the part of some units is."""
    h = x @ params["in"]
    part = jaxdist.site("h[:, [1, 4:6]]", h[:, np.array([1, 4, 5])])
    h = h.at[:, np.array([1, 4, 5])].set(part)
    return jax.nn.relu(h) @ params["out"]


def attending(params, x):
    """Two layers of three heads of two units, over four tokens."""
    h = x @ params["in"]
    for _, weight in zip(range(2), params["layers"], strict=False):
        heads = (h @ weight).reshape(*h.shape[:2], 3, 2)
        scores = jax.nn.softmax(jnp.einsum("nthd,nshd->nhts", heads, heads), -1)
        mixed = jaxdist.site("heads", jnp.einsum("nhts,nshd->nthd", scores, heads))
        h = h + jnp.tanh(mixed.reshape(h.shape))
    return h[:, -1] @ params["out"]


def of_tokens(**options):
    options = {"train": (TOKENS, Y), "source": TOKENS[::-1], "sites": ["heads"], "layers": "each"} | options
    return probed(attending, **options)


def test_a_part_is_as_a_site_of_its_own():
    options = {"families": FAMILIES, "post": {"h": jax.nn.relu}, "dose": True, "sites": None, "block": 10}
    parted = probed(plain, only={"h": {-1: [4, 5, 1]}}, **options)
    named = probed(with_own_site, **options | {"post": {"h[:, [1, 4:6]]": jax.nn.relu}})
    assert list(parted["ranges"].site.to_numpy()) == ["h[:, [1, 4:6]]"]
    assert parted["ranges"].sizes["unit"] == 3
    for group in ("ranges", *FAMILIES):
        for name, values in named[group].data_vars.items():
            np.testing.assert_allclose(parted[group][name], values, rtol=2e-5, atol=2e-5, err_msg=f"{group} {name}")
    assert bool(parted["offset"].weighted.all())
    assert np.ptp(parted["offset"].agree.to_numpy()) > 3


def test_a_part_that_is_followed_by_a_site_is_measured_in_the_same_part_of_that():
    parts = {"h": {1: (2, 3)}}
    by_site = probed(plain, sites=None, post={"h": "a"}, only=parts, families=("clip", "dead_zone"))
    by_function = probed(plain, sites=None, post={"h": jax.nn.relu}, only=parts, families=("clip", "dead_zone"))
    for name in ("low", "high"):
        np.testing.assert_array_equal(by_site["ranges"][name], by_function["ranges"][name])
    np.testing.assert_array_equal(by_site["clip"].agree, by_function["clip"].agree)
    np.testing.assert_array_equal(by_site["dead_zone"].agree, by_function["dead_zone"].agree)


def test_ranges_counts_and_what_stays_of_heads_and_tokens_are_as_by_hand():
    where = {-2: [0, 2], 1: 3}
    result = of_tokens(families=("zero", "offset", "patch"), only={"heads#1": where}, sites=["heads#1"], block=9)
    (site,) = result["ranges"].site.to_numpy()
    assert site == "heads#1[:, 3, [0, 2]]"
    _, values = jaxdist.read(attending, PARAMS, TOKENS, ["heads#1"])
    part = np.asarray(values["heads#1"])[:, 3, [0, 2]]
    np.testing.assert_allclose(result["ranges"].low.squeeze(), part.min((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(result["ranges"].high.squeeze(), part.max((0, 1)), rtol=1e-5)
    classes = np.asarray(attending(PARAMS, TOKENS)).argmax(-1)
    low, high = part.min((0, 1)), part.max((0, 1))
    other = np.asarray(jaxdist.read(attending, PARAMS, TOKENS[::-1], ["heads#1"])[1]["heads#1"])[:, 3, [0, 2]]
    edits = {
        "zero": lambda v, p: (1 - p) * v,
        "offset": lambda v, p: (high - p * (high - low)) / high * v + p * (high - low),
        "patch": lambda v, p: (1 - p) * v + p * other,
    }
    for family, edit in edits.items():
        for p in (0.0, 0.35, 1.0):
            whole = np.array(values["heads#1"])
            whole[:, 3, [0, 2]] = edit(part, np.float32(p))
            expected = np.asarray(jaxdist.edit(attending, PARAMS, TOKENS, {"heads#1": whole})).argmax(-1)
            agree = int(points(result, family, site, fraction=p).agree)
            assert abs(agree - (expected == classes).sum()) <= 1, (family, p)


def test_units_of_some_sites_are_on_another_axis():
    result = of_tokens(families=("offset",), unit_axis={"heads": -2}, dose=True)
    _, values = jaxdist.read(attending, PARAMS, TOKENS, ["heads"])
    each = np.stack(values["heads"])
    np.testing.assert_allclose(result["ranges"].high.squeeze(), each.max((0, 1, 2, 4)), rtol=1e-5)

    same = probed(attending, train=(TOKENS, Y), source=None, sites=["heads"], families=("offset",), unit_axis=-2)
    np.testing.assert_array_equal(result["offset"].agree, same["offset"].agree)
    alone = of_tokens(families=("zero",), unit_axis={"he*": -2}, only={"heads": [{-2: k} for k in range(3)]})
    assert list(alone["zero"].site.to_numpy()) == [f"heads[:, :, {k}]" for k in range(3)]
    assert alone["ranges"].sizes["unit"] == 1


@pytest.mark.parametrize(("apply", "key"), [(scanned, "up@1"), (scanned, "up"), (shared, "up#1"), (shared, "up")])
def test_parts_lie_in_calls_and_iterations_too(apply, key):
    name, where = key.partition("#")[0].partition("@")[0], key.partition("@")[2]
    result = probed(apply, sites=[key], only={name: {1: [0, 5]}}, families=("zero", "patch"), dose=True, block=10)
    (site,) = result["zero"].site.to_numpy()
    assert site == f"{key.partition('@')[0]}[:, [0, 5]]" + (f"@{where}" if where else "")

    def edit(value, p):
        return value.at[:, jnp.array([0, 5])].multiply(1 - p)

    classes = np.asarray(apply(PARAMS, X)).argmax(-1)
    for p in (0.35, 1.0):
        edited = jaxdist.edit(apply, PARAMS, X, {key: lambda value, p=p: edit(value, jnp.float32(p))})
        point = points(result, "zero", site, fraction=p)
        assert abs(int(point.agree) - (np.asarray(edited).argmax(-1) == classes).sum()) <= 1
        # The dose is of what is edited, of which a share p is lost; later calls follow earlier ones.
        assert float(point.rms) == pytest.approx(p, abs=1e-5) or key == "up"


def test_entries_elsewhere_stay_as_they_are_bit_for_bit():
    def watched(params, x):
        h = jaxdist.site("h", x @ params["in"])
        return jaxdist.site("next", 1 * h) @ params["out"]

    listed = networks_model.trace(Model(watched), PARAMS, X[:1])
    made, (part, _) = site_parts.with_parts(Model(watched), ["h", "next"], {"h": {1: [2, 4]}}, listed, together=True)
    before, after = (
        np.asarray(networks_model.read(made, PARAMS, X, ["next"], edits)[1]["next"])
        for edits in ({}, {part: lambda value: value + jnp.inf})
    )
    assert np.isinf(after[:, [2, 4]]).all()
    np.testing.assert_array_equal(after[:, [0, 1, 3, 5]], before[:, [0, 1, 3, 5]])
    assert rows.examine(made.logits, PARAMS, X[:1]).independent is True  # no numbers need to be compared


@pytest.mark.parametrize("kind", ["transformer", "gru", "cnn"])
def test_parts_of_real_networks_are_edited_as_by_hand(kind):
    apply, params, x, _ = real(kind)
    y = np.arange(len(x)) % 3
    site, where = {
        "transformer": ("blocks/0/attention/value", {1: [1, 2], -2: 1}),
        "gru": ("rnn/cell[0]@3", {1: [0, 1, 4]}),
        "cnn": ("conv", {-1: [1, 3], 2: range(1, 4)}),
    }[kind]
    result = probed(
        apply, params, train=(x, y), source=None, sites=[site], only={site: where}, families=("zero", "mean"), block=8
    )
    (named,) = result["zero"].site.to_numpy()
    values = np.asarray(jaxdist.read(apply, params, x, [site])[1][site])
    index = np.ix_(
        *[
            np.atleast_1d(np.arange(n)[list(where[k]) if not isinstance(where.get(k), int) else [where[k]]])
            if (k := axis if axis in where else axis - values.ndim) in where
            else np.arange(n)
            for axis, n in enumerate(values.shape)
        ]
    )
    part = values[index]
    mean = part.mean(tuple(range(part.ndim - 1)))
    classes, changed = np.asarray(apply(params, x)).argmax(-1), 0
    for family, target in (("zero", np.float32(0)), ("mean", mean)):
        for p in (0.0, 0.35, 1.0):
            whole = values.copy()
            whole[index] = (1 - np.float32(p)) * part + np.float32(p) * target
            expected = (np.asarray(jaxdist.edit(apply, params, x, {site: whole})).argmax(-1) == classes).sum()
            agree = int(points(result, family, named, fraction=p).agree)
            assert abs(agree - expected) <= 1, (family, p)
            changed += agree < len(x)
    assert changed


@pytest.mark.parametrize(
    ("only", "sentence"),
    [
        ({"heads": {1: 4}}, r"only: site 'heads' has 4 entries along axis 1 of shape .* indices from 0 to 3, got 4"),
        ({"heads": {0: 1}}, r"only: site 'heads' .* of which axis 0 is that of examples, got axis 0"),
        ({"heads": {4: 1}}, r"only: site 'heads' .* got axis 4; choose another axis, from -4 to 3"),
        ({"heads": {1: 0, -3: 1}}, r"only: axis 1 of site 'heads' is named twice"),
        ({"heads": {1: [0, 0]}}, r"only: indices along axis 1 of 'heads': expected each entry once, got \[0, 0\]"),
        ({"heads": {1: [3, -1]}}, r"expected each entry once, got \[3, -1\]"),
        ({"heads": {1: []}}, r"expected at least one, got none"),
        ({"heads": {1: [True]}}, r"only: indices along axis 1 of 'heads': expected integers, got True"),
        ({"heads": {1: 0.5}}, r"expected integers, got 0\.5"),
        ({"heads": {}}, r"only: expected \{axis: indices\} for 'heads', got \{\}"),
        ({"heads": []}, r"only: expected \{axis: indices\} for 'heads', or a list of these, got \[\]"),
        ({"heads": 3}, r"only: expected \{axis: indices\} for 'heads', or a list of these, got 3"),
        (["heads"], r"only: expected parts of sites, as \{site: \{axis: indices\}\}, got \['heads'\]"),
        ({"head": {1: 1}}, r"site 'head': the network has no such site; did you mean 'heads'"),
        ({"heads": [{1: 0}, {2: 0}]}, r"'heads\[:, 0\]' and 'heads\[:, :, 0\]' have entries in common"),
    ],
)
def test_what_is_no_part_is_refused(only, sentence):
    with pytest.raises(InputError, match=sentence):
        of_tokens(only=only, families=("zero",), layers="both")


def test_parts_of_many_entries_have_names_of_their_own():
    names = set()
    for shift in (0, 1):
        where = tuple(range(0, 40, 2)) if not shift else (0, 2, 4, 6, 8, 12, *range(13, 26), 38)
        names.add(site_parts.Part(Key("h", None, None), ((1, where),)).name)
    assert len(names) == 2
    assert all(name.startswith("h[:, [0, 2, 4, 6, 8, ... 38, 20 in all") for name in names)
    assert site_parts.Part(Key("h", 1, (2, 3)), ((1, (-2, -1)), (2, (0, 1, 2, 7)))).text == "h#1[:, -2:, [0:3, 7]]@2,3"


def test_a_part_of_a_site_that_is_not_edited_or_whose_activation_mixes_units_is_refused():
    with pytest.raises(InputError, match=r"only: 'a' is not one of the sites that are edited, h; add it to sites"):
        probed(plain, sites=["h"], only={"a": {1: 1}})
    with pytest.raises(InputError, match=r"post: what follows 'h' computes something else for 'h\[:, 1\]' alone"):
        probed(plain, post={"h": jax.nn.softmax}, sites=None, only={"h": {1: 1}}, measured_on="pre")


def test_one_part_at_two_iterations_is_edited_in_each_by_itself():
    """Half of the way to 0: what would be done twice is seen, as it is not at 0 itself."""

    def loss_by_hand(iteration, factor):
        h, weights = X @ np.asarray(PARAMS["in"]), np.asarray(PARAMS["layers"])
        for k, weight in enumerate(weights):
            value = h @ weight
            value[:, 0] *= factor if k == iteration else 1
            h = np.tanh(value) + np.float32(0.3) * h
        logits = np.float64(h @ np.asarray(PARAMS["out"]))
        shifted = logits - logits.max(1, keepdims=True)
        return (np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(Y)), Y]).mean()

    keys = ["up@0", "up@2"]
    options = {"families": ("zero",), "sites": keys, "layers": "each", "metrics": ("cross_entropy",)}
    result = jaxdist.probe(
        scanned, PARAMS, train=(X, Y), only={key: {1: 0} for key in keys}, fractions={"zero": [0, 0.5, 1]}, **options
    )
    means = result["zero"].metric_mean.squeeze()
    for iteration in (0, 2):
        expected = [loss_by_hand(iteration, factor) for factor in (1, 0.5, 0)]
        np.testing.assert_allclose(means.sel(site=f"up[:, 0]@{iteration}"), expected, rtol=1e-5)


def test_inputs_may_be_of_half_precision():
    def widened(params, x):
        return scanned(params, x.astype(jnp.float32))

    options = {"sites": ["up"], "families": ("zero",)}
    halves = X.astype(jnp.bfloat16)
    results = [jaxdist.probe(widened, PARAMS, train=(x, Y), **options) for x in (halves, np.float32(halves), X)]
    np.testing.assert_array_equal(results[0]["zero"].agree, results[1]["zero"].agree)
    assert len({result.attrs["data_digest"] for result in results}) == 3
