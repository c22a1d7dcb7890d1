"""A user's own network through one call: counts, labels, intervals over images or seeds, files, and what is refused."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdist
from jaxdist import cli
from jaxdist.analysis import tables
from jaxdist.config import StatisticsConfig
from jaxdist.errors import InputError
from jaxdist.networks import mlp
from jaxdist.perturbations import families
from jaxdist.sweep import results
from tests import oracle
from tests.conftest import to_numpy

FEW = {"families": ("clip", "offset"), "layers": "each"}


@pytest.fixture(scope="module")
def images(digits):
    """Training and test images [N, 64] and labels, a few of each."""
    x, y = digits.train.images.reshape(-1, 64).astype(np.float32), digits.train.labels
    return (x[:301], y[:301]), (x[301:400], y[301:400])


def plain(params, x, tap):
    """A user's own function, sample-major, with a site in front of its activation."""
    h = tap("hidden", x @ params["dense0"]["weight"].T + params["dense0"]["bias"][None])
    return tap("logits", jax.nn.relu(h) @ params["dense1"]["weight"].T + params["dense1"]["bias"][None])


class Unhashable:
    """An activation with a field that has no hash."""

    __hash__ = None

    def __call__(self, value):
        return jax.nn.relu(value)


@pytest.fixture(scope="module")
def network(trained):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[1], trained["relu"])


@pytest.fixture(scope="module")
def result(network, images):
    """One network, measured in every way."""
    return jaxdist.probe(
        plain,
        network,
        train=images[0],
        test=images[1],
        post={"hidden": jax.nn.relu},
        grid=True,
        units=True,
        sensitivity=True,
    )


def test_counts_of_one_network_equal_the_oracle_on_both_splits(result, network, images):
    one = to_numpy(network)
    for split, (x, y) in zip(("train", "test"), images, strict=True):
        expected = oracle.sweep(one, "relu", x.astype(np.float64), y, ranges_x=images[0][0].astype(np.float64))
        for family, counts in expected.items():
            group = result[family].sel(network="network", seed=0, site="hidden", split=split)
            for name, values in zip(("correct", "agree", "kept"), counts, strict=True):
                assert np.abs(group[name].to_numpy() - values).max() <= 2, (split, family, name)
            assert int(group.total) == len(y)


def test_the_grid_of_two_edits_is_the_second_after_the_first(result, network, images):
    """Where one of the two edits nothing the grid holds the other's own counts; elsewhere both, by the oracle."""
    group = result["grid_scale_offset"].sel(network="network", seed=0, site="hidden", split="train")
    for family, other, unedited in (("scale", "second", 0.0), ("offset", "first", 1.0)):
        alone = result[family].sel(network="network", seed=0, site="hidden", split="train")
        along = group.correct.sel({other: unedited})
        own = "first" if family == "scale" else "second"
        np.testing.assert_array_equal(along, alone.correct.sel(fraction=group[own].to_numpy()))
    one, (x, y) = to_numpy(network), images[0]
    h = oracle.preactivations(one, "relu", x.astype(np.float64), 0)
    high = np.maximum(h, 0).max(axis=0)
    low, dead = np.maximum(h, 0).min(axis=0), high == 0
    for scale, offset in ((group.first[5], group.second[3]), (group.first[-1], group.second[-2])):
        p, q = float(scale), float(offset)
        edited = oracle.edited("offset", q, oracle.edited("scale", p, h, low, high, dead), low, high, dead)
        expected = (oracle.predict(one, "relu", edited, 0) == y).sum()
        assert abs(int(group.correct.sel(first=scale, second=offset)) - expected) <= 2


def test_one_network_gets_intervals_over_its_images_and_says_so(result, capsys):
    frame = tables.points(result, StatisticsConfig())
    assert set(frame.over) == {"images"}
    edited = frame[~frame.unedited & (frame.accuracy < 1)]
    assert (edited.low < edited.accuracy).all()
    assert (edited.accuracy < edited.high).all()
    jaxdist.show(result)
    shown = capsys.readouterr().out
    assert "This network only" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_group_is_not_shown_as_nothing(result):
    """Neither as it lies in its result nor by itself."""
    for name in result.children:
        with pytest.raises(InputError, match=f"show: expected a whole result, got one group, '{name}'; pass the"):
            jaxdist.show(result[name])
        with pytest.raises(InputError, match="show: expected a whole result, got one group"):
            jaxdist.show(result[name].copy())
        with pytest.raises(InputError, match="show: expected a result, as run, probe and load return it, got <xarray"):
            jaxdist.show(result[name].to_dataset())


def test_stacked_parameters_get_intervals_over_seeds_and_the_same_counts(trained, network, images, result):
    params = jax.tree.map(np.asarray, trained["relu"])
    stacked = jaxdist.probe(
        plain, params, train=images[0], test=images[1], post={"hidden": jax.nn.relu}, stacked=True, name="mine"
    )
    assert list(stacked["clip"].seed.values) == [0, 1, 2]
    assert list(stacked["clip"].network.values) == ["mine"]
    assert set(tables.points(stacked, StatisticsConfig()).over) == {"seeds"}
    for family in families.PAPER:
        alone, among = result[family].sel(seed=0), stacked[family].sel(seed=1)
        assert np.abs(alone.correct.to_numpy() - among.correct.to_numpy()).max() <= 2


def test_a_models_own_axes_and_activation_are_taken(network, images, result):
    found = jaxdist.probe(mlp.model("relu"), network, train=images[0], layers="each")
    assert list(found["clip"].site.values) == ["dense0/pre"]
    assert list(found["clip"].split.values) == ["train"]
    for family in families.PAPER:
        theirs = result[family].sel(split="train", site="hidden")
        assert np.abs(found[family].sel(split="train", site="dense0/pre").correct - theirs.correct).max() <= 2


def test_positions_are_edited_together_and_ranges_cover_them(images):
    """A site [n, positions, channels]: the range of a channel is over all its positions."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=(3, 10)).astype(np.float32)

    def rows(params, x, tap):
        h = tap("channels", x.reshape(len(x), 8, 8) @ params[0])
        return jax.nn.relu(h).mean(1) @ params[1]

    x, y = images[0]
    found = jaxdist.probe(rows, weights, train=(x, y), post={"channels": jax.nn.relu}, **FEW)
    h = x.reshape(-1, 8, 8).astype(np.float64) @ weights[0].astype(np.float64)
    a = np.maximum(h, 0)
    np.testing.assert_allclose(found["ranges"].high[0, 0, 0], a.max((0, 1)), rtol=1e-5)
    p = 0.30538555088334157
    expected = (np.maximum(np.minimum(h, p * a.max((0, 1))), 0).mean(1) @ weights[1]).argmax(1)
    group = found["clip"].sel(fraction=p, method="nearest").isel(network=0, seed=0, site=0, split=0)
    assert abs(int(group.correct) - (expected == y).sum()) <= 2


def test_integer_inputs_stay_integers(images):
    """Token numbers index an embedding, which floats cannot."""
    rng = np.random.default_rng(1)
    table, head = rng.normal(size=(17, 6)).astype(np.float32), rng.normal(size=(6, 10)).astype(np.float32)

    def embed(params, x, tap):
        return jax.nn.relu(tap("embedded", params[0][x])).mean(1) @ params[1]

    x, y = images[0]
    found = jaxdist.probe(
        embed, (table, head), train=(x.astype(np.int64), y), sites=["embedded"], measured_on="pre", **FEW
    )
    assert not found["ranges"].dead.any()
    np.testing.assert_allclose(found["ranges"].high[0, 0, 0], table[np.unique(x.astype(int))].max(0), rtol=1e-6)


@pytest.mark.slow
def test_the_files_of_a_probe_are_read_and_reported_again(network, images, tmp_path, capsys):
    folder = tmp_path / "own"
    probed = jaxdist.probe(
        plain, network, train=images[0], post={"hidden": jax.nn.relu}, out=folder, margin=0.02, **FEW
    )
    again = jaxdist.load(folder)
    assert again.attrs["options"] == probed.attrs["options"]
    assert results.options_of(again).statistics.margin == 0.02
    assert json.loads(again.attrs["options"])["sweep"]["splits"] == ["train"]
    assert (folder / "tables" / "points.csv").exists()
    assert (folder / "figures" / "figure1.png").exists()
    assert cli.main(["report", str(folder)]) == 0
    assert "2.0 points" in capsys.readouterr().out
    with pytest.raises(InputError, match="already holds a result or a run"):
        jaxdist.probe(plain, network, train=images[0], post={"hidden": jax.nn.relu}, out=folder, **FEW)
    assert cli.main(["sweep", str(folder)]) == 2
    assert cli.main(["compare", str(folder), "published"]) == 2
    assert "has no config" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sites": ["nowhere"]}, "site 'nowhere': the network has no such site; its sites are hidden, logits"),
        ({"sites": "hidden"}, "sites: expected a list of the model's sites, which are hidden, logits, got"),
        ({"post": {}}, "sites: expected a list of the model's sites, which are hidden, logits, got"),
        (
            {"sites": ["hidden"], "post": {}, "measured_on": "post"},
            "site 'hidden': ranges after the activation need post=",
        ),
        ({"post": {"hidden": jnp.tanh}}, "its activation changes large values.*use measured_on 'pre'"),
        ({"familys": ("clip",)}, "probe: unknown option 'familys'; did you mean 'families'"),
        ({"margin": -1}, "statistics.margin: expected a number above 0"),
        ({"ranges": "iqr"}, "ranges.rule: expected one of minmax, quantile, sd"),
        ({"precision": "exact"}, "precision 'exact' works only for the perceptrons"),
        ({"stacked": True}, "params: expected arrays that share a leading seed axis"),
        ({"splits": ("test",)}, r"splits names 'test', but there are no test images; pass test=\(x, y\)"),
        ({"sites": ["hidden", "hidden"]}, "sites: 'hidden' is named twice; name each site once"),
        ({"post": {"hidden": Unhashable()}}, "apply and the functions in post must be hashable"),
        (
            {"post": {"hidden": "logits"}},
            r"post: 'logits' has shape \(1, 10\) for one example, but 'hidden' has \(1, 24\)",
        ),
        ({"train": (np.zeros((5, 64)), np.full(5, 2**32))}, "train: expected labels from 0 to 9, .* got 4294967296"),
        ({"train": (np.zeros((5, 64)), np.zeros(4, int))}, "train: expected one integer label for each of 5 inputs"),
        ({"train": (np.zeros((5, 64)), np.full(5, 0.5))}, "train: the labels are float64 and not all whole"),
        ({"train": (np.full((5, 64), np.nan), np.zeros(5, int))}, "train: the inputs hold values that are not finite"),
        ({"train": (np.zeros((5, 64)), np.full(5, 10))}, "train: expected labels from 0 to 9, .* got 10 to 10"),
        ({"train": np.zeros((5, 64))}, r"train: expected inputs and labels, as \(train_x, train_y\)"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(change, sentence, network, images):
    arguments = {"train": images[0], "post": {"hidden": jax.nn.relu}, **FEW, **change}
    with pytest.raises(InputError, match=sentence) as caught:
        jaxdist.probe(plain, network, **arguments)
    assert "\n" not in str(caught.value)


def test_logits_that_are_none_are_refused(network, images):
    for logits in (lambda h: h.sum(), lambda h: h[:1, :10], lambda h: h[:, :10].T):
        with pytest.raises(InputError, match=r"apply: expected logits \[n, C\] for x\[n, ...\], got shape"):
            jaxdist.probe(lambda p, x, tap, f=logits: f(tap("h", x)), network, train=images[0], sites=["h"])


def test_an_error_of_the_users_own_function_keeps_its_words(network, images):
    """It is theirs to read; a note adds what it was called with."""
    with pytest.raises(TypeError, match="dot_general") as caught:
        jaxdist.probe(plain, network, train=(images[0][0][:, :60], images[0][1]), sites=["hidden"], **FEW)
    assert any(
        "on train x of shape (2, 60) float32; for several seeds, pass stacked=True" in n for n in caught.value.__notes__
    )
    with pytest.raises(TypeError, match="dot_general") as caught:
        jaxdist.probe(
            plain, network, train=images[0], test=(images[0][0][:, :60], images[0][1]), sites=["hidden"], **FEW
        )
    assert any("on test x of shape (2, 60) float32" in n for n in caught.value.__notes__)


def test_weights_that_apply_holds_itself_are_asked_for(images):
    with pytest.raises(InputError, match="params: expected a pytree of at least one array, got none"):
        jaxdist.probe(lambda p, x, tap: tap("h", x)[:, :10], {}, train=images[0], sites=["h"], measured_on="pre")


def test_examples_that_depend_on_each_other_are_refused(network, images):
    def normalised(params, x, tap):
        return plain(params, x - x.mean(0, keepdims=True), tap)

    sentence = "depend on the other examples of its block, .* reduce_sum works along the batch axis, in .*test_probe.py"
    with pytest.raises(InputError, match=sentence):
        jaxdist.probe(normalised, network, train=images[0], post={"hidden": jax.nn.relu})


def test_no_edit_is_no_edit_in_half_precision_and_behind_gelu(network, images):
    """What follows a site computes as without an edit; a clip at 100 % behind gelu cuts small values, and says so."""
    few = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16) / 64, network)

    def half(params, x, tap):
        h = tap("hidden", x.astype(jnp.bfloat16) @ params["dense0"]["weight"].T)
        return jax.nn.gelu(h) @ params["dense1"]["weight"].T

    found = jaxdist.probe(half, few, train=images[0], post={"hidden": jax.nn.gelu}, offset_formula="intended")
    for family, unedited in (("scale", 1.0), ("offset", 0.0)):
        group = found[family].sel(split="train", site="hidden")
        assert group.attrs["identity"] == unedited
        assert (group.agree.sel(fraction=unedited, method="nearest") == 301).all()
    clip = found["clip"].sel(split="train", site="hidden")
    assert clip.attrs["identity"] == 10.0
    assert (clip.agree.sel(fraction=10.0, method="nearest") == 301).all()


def test_every_formula_in_use_is_checked_and_what_has_no_edge_has_no_radius(network, images):
    down = jax.tree.map(np.array, network)
    down["dense0"]["bias"] = down["dense0"]["bias"] - 1e6
    arguments = {"train": images[0], "sites": ["hidden"], "measured_on": "pre", "families": ("clip",)}
    assert "clip" in jaxdist.probe(plain, down, **arguments).children
    with pytest.raises(
        InputError, match="offset_formula 'code' needs units whose largest value is positive, and there are none"
    ):
        jaxdist.probe(plain, down, **arguments, grid=True)
    literal = jaxdist.probe(
        plain,
        network,
        train=images[0],
        post={"hidden": jax.nn.relu},
        families=("offset",),
        offset_formula="literal",
        grid=True,
    )
    assert "identity_second" not in literal["grid_scale_offset"].attrs
    assert literal["grid_scale_offset"].attrs["identity_first"] == 1.0


ERASING = ("restored_offset", "floor", "dead_zone", "clip_both")


@pytest.mark.slow
def test_doses_of_a_function_in_flax_layout_are_those_of_the_perceptron(network, images):
    options = {"families": ERASING, "dose": True, "layers": "each", "splits": ("test",)}
    given = {"train": images[0], "test": images[1], **options}
    theirs = jaxdist.probe(plain, network, post={"hidden": jax.nn.relu}, **given)
    ours = jaxdist.probe(mlp.model("relu"), network, **given)
    for family in ERASING:
        one, other = theirs[family].sel(site="hidden"), ours[family].sel(site="dense0/pre")
        assert bool(one.weighted.all())
        assert bool(other.weighted.all())
        assert np.abs(one.agree - other.agree).max() <= 2
        for name in ("dose", "rms", "rms_plain"):
            np.testing.assert_allclose(one[name], other[name], atol=1e-5, rtol=1e-5)


def test_where_a_site_has_positions_doses_are_unweighted_and_over_all_of_them(images):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=(3, 10)).astype(np.float32)

    def rows(params, x, tap):
        h = tap("channels", x.reshape(len(x), 8, 8) @ params[0])
        return jnp.tanh(jax.nn.relu(h).mean(1) @ params[1])

    x, y = images[0]
    result = jaxdist.probe(
        rows, weights, train=(x, y), post={"channels": jax.nn.relu}, families=("floor", "noise"), dose=True
    )
    assert not result["floor"].weighted.any()
    a = np.maximum(x.reshape(len(x), 8, 8).astype(np.float64) @ weights[0].astype(np.float64), 0)
    low, high = a.min((0, 1)), a.max((0, 1))
    found = result["floor"].dose.squeeze()
    for k in range(0, len(found), 5):
        after = np.maximum(a, low + float(found.fraction[k]) * (high - low))
        cos = (a * after).sum() / np.sqrt((a * a).sum() * (after * after).sum())
        np.testing.assert_allclose(found[k], np.sqrt(max(0, 1 - cos**2)), atol=1e-5)
    noise = results.over_draws(result["noise"].to_dataset()).dose.squeeze().to_numpy()
    assert (np.diff(noise) > 0).all()
    assert 0.5 < noise[-1] < 1


def test_a_verdict_on_one_network_says_that_tests_are_over_seeds(network, images, capsys):
    families_wanted = ("clip", "offset", "noise", "floor", "dead_zone", "clip_both")
    post = {"hidden": jax.nn.relu}
    result = jaxdist.probe(plain, network, train=images[0], post=post, families=families_wanted, dose=True)
    jaxdist.show(result)
    shown = capsys.readouterr().out
    assert "one seed, and tests are over seeds" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


# Sites, families, metrics and fractions as a user gives them.


def mlp_of(params, x):
    h = jaxdist.site("layers/0", x @ params["w"])
    h = jaxdist.site("layers/1", jax.nn.relu(h) @ params["u"])
    return {"logits": jax.nn.relu(h) @ params["v"], "hidden": h}


def squared(value, fraction):
    """The value goes to its square."""
    return value + fraction * (value**2 - value)


def margin(outputs, labels):
    """The largest output of another class than the label's."""
    return jnp.where(jnp.arange(outputs.shape[1])[None] == labels[:, None], -jnp.inf, outputs).max(1)


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(3)
    sizes = {"w": (6, 8), "u": (8, 8), "v": (8, 3)}
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in sizes.items()}
    return params, rng.normal(size=(200, 6)).astype(np.float32), np.arange(200) % 3


def by_hand(params, x, change, layer):
    h = x @ params["w"]
    h = change(h) if layer == 0 else h
    h = np.maximum(h, 0) @ params["u"]
    h = change(h) if layer == 1 else h
    return np.maximum(h, 0) @ params["v"]


def test_sites_alone_families_of_functions_and_metrics_of_functions_are_measured(given):
    params, x, y = given
    result = jaxdist.probe(
        mlp_of,
        params,
        train=(x, y),
        sites=["layers/*"],
        families=("zero", "mean", squared),
        metrics=(margin, "cross_entropy"),
        fractions={"zero": [0, 0.25, 1]},
        output="logits",
        layers="each",
    )
    assert list(result["zero"].site.data) == ["layers/0", "layers/1"]
    assert list(result["zero"].fraction.data) == [0, 0.25, 1]
    changes = {
        "zero": lambda p: lambda h: (1 - p) * h,
        "mean": lambda p: lambda h: h + p * (h.mean(0) - h),
        "squared": lambda p: lambda h: h + p * (h**2 - h),
    }
    for family, change in changes.items():
        group = result[family].to_dataset().squeeze(["network", "seed", "split"])
        for p in group.fraction.to_numpy():
            for layer in (0, 1):
                logits = by_hand(params, x, change(np.float32(p)), layer)
                here = group.sel(fraction=p, site=f"layers/{layer}")
                assert abs(int(here.correct) - int((logits.argmax(1) == y).sum())) <= 1, (family, p, layer)
                other = np.where(np.arange(3)[None] == y[:, None], -np.inf, logits).max(1)
                np.testing.assert_allclose(
                    here.metric_mean.sel(metric="margin"), other.mean(), rtol=1e-4, atol=1e-4, err_msg=f"{family} {p}"
                )
    # A unit that is nothing but its mean is the same for all examples.
    last = result["mean"].to_dataset().squeeze().sel(site="layers/1", fraction=1)
    assert float(last.metric_sd.sel(metric="margin")) < 5


@pytest.mark.parametrize(
    ("families", "words"),
    [
        (("scale", "clip"), "in % of the value (scale) or of each unit's range"),
        (("clip",), "in % of each unit's range"),
        (("zero", "mean"), "in % of the way (zero, mean)"),
        (("zero", "clip", squared), "in % of each unit's range, of the way (zero) or of p (squared)"),
    ],
)
def test_the_summary_says_of_what_its_per_cent_are(families, words, given, capsys):
    params, x, y = given
    options = {"sites": ["layers/0"], "output": "logits", "families": families}
    jaxdist.show(jaxdist.probe(mlp_of, params, train=(x, y), **options))
    assert words in " ".join(capsys.readouterr().out.split())


def test_a_result_is_drawn_in_one_call(given):
    params, x, y = given
    options = {"train": (x, y), "sites": ["layers/0"], "output": "logits", "metrics": ("cross_entropy",)}
    result = jaxdist.probe(mlp_of, params, families=("scale", "zero"), **options)
    for metric, label in (("accuracy", "Accuracy (%)"), ("cross_entropy", "Cross entropy (nats)")):
        axes = jaxdist.plot(result, metric).axes
        assert [ax.get_title(loc="left") for ax in axes] == ["Scale", "Zero"]
        assert axes[0].get_ylabel() == label
    for wrong, message in (
        ({"metric": "kl"}, "plot: expected a metric of the result, which are accuracy, cross_entropy, got 'kl'"),
        ({"site": "layers/1"}, "plot: expected a site of the result, layers/0, got 'layers/1'"),
    ):
        with pytest.raises(InputError, match=message):
            jaxdist.plot(result, **wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": {"clip": [0.1, 0.2]}}, "fractions: expected families that are swept, zero, got 'clip'"),
        ({"fractions": {"zero": [0.2, 0.1]}}, "fractions: expected increasing numbers for 'zero'"),
        ({"fractions": [0.1, 0.2]}, "fractions: expected a dict of increasing numbers by family, got"),
        ({"fractions": {"zero": [10**400]}}, "fractions: expected increasing numbers for 'zero'"),
        ({"fractions": {"zero": ["a"]}}, "fractions: expected increasing numbers for 'zero'"),
        (
            {"families": ("scale",), "fractions": {"scale": [0, 0.5, 1]}},
            "fractions: expected numbers above 0 for 'scale', a factor",
        ),
        ({"output": "scores"}, "output: apply returns a dict .* which has no 'scores'"),
        ({"sites": ["layers/*/up"]}, r"site 'layers/\*/up'"),
        ({"families": ("zeroo",)}, 'sweep.families: expected one of .*got "zeroo"'),
    ],
)
def test_what_a_user_gives_wrongly_is_refused_in_a_sentence(options, message, given):
    params, x, y = given
    arguments = {"train": (x, y), "sites": ["layers/0"], "families": ("zero",), "output": "logits", **options}
    with pytest.raises(InputError, match=message) as error:
        jaxdist.probe(mlp_of, params, **arguments)
    assert "\n" not in str(error.value)


def test_a_function_that_edits_at_fraction_0_is_no_family(given):
    def halved(value, fraction):
        return value / 2 + fraction

    params, x, y = given
    with pytest.raises(InputError, match="family 'halved': changes values at fraction 0"):
        jaxdist.probe(mlp_of, params, train=(x, y), sites=["layers/0"], families=(halved,), output="logits")


def test_inputs_may_be_several_arrays_by_name(given):
    params, x, y = given
    mask = np.arange(200) % 2

    def masked(params, inputs):
        kept = inputs["values"] * inputs["mask"][:, None].astype(jnp.float32)
        return mlp_of(params, kept)["logits"]

    options = {"sites": ["layers/0"], "families": ("scale", "zero", "noise"), "test": None}
    several = jaxdist.probe(masked, params, train=({"values": x, "mask": mask}, y), **options)
    single = jaxdist.probe(
        lambda params, x: mlp_of(params, x)["logits"],
        params,
        train=(x * mask[:, None].astype(np.float32), y),
        **options,
    )
    for family in ("scale", "zero", "noise"):
        np.testing.assert_array_equal(several[family].correct, single[family].correct)
    with pytest.raises(InputError, match="the same number of examples of each input, got 200 of 'values', 199 of"):
        jaxdist.probe(masked, params, train=({"values": x, "mask": mask[1:]}, y), sites=["layers/0"])


def test_single_units_are_edited_at_given_fractions_by_families_that_can(given):
    params, x, y = given
    options = {"train": (x, y), "sites": ["layers/0"], "output": "logits", "units": True}
    result = jaxdist.probe(mlp_of, params, families=("zero", "mean"), fractions={"zero": [0, 0.3, 1]}, **options)
    assert result["units_zero"].fraction.values.tolist() == [0, 0.3, 1]
    assert (result["units_zero"].agree.sel(fraction=0) == len(y)).all()
    with pytest.raises(InputError, match="units: single units are edited by families such as zero"):
        jaxdist.probe(mlp_of, params, families=("mean", "resample"), **options)
