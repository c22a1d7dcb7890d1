"""Values led to those of other inputs and to each position's mean, by hand and where nothing must change them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxdist
from jaxdist import cli
from jaxdist.compute import devices
from jaxdist.config import SweepConfig
from jaxdist.errors import InputError
from jaxdist.networks import Model
from jaxdist.perturbations import edits, families, toward_families
from jaxdist.sweep import ensemble_sweep
from jaxdist.types import Ranges
from tests.experiment.test_probe_of_loops import PARAMS, UNITS, X, Y, by_hand, scanned, shared

OTHER = np.float32(2) * X[::-1]
POINTS = (0.0, 0.35, 1.0)
TOWARD = ("patch", "resample", "mean_position")


def probed(apply, params=PARAMS, families=TOWARD, **options):
    options = {"train": (X, Y), "source": OTHER, "sites": ["up"]} | options
    return jaxdist.probe(apply, params, families=families, fractions=dict.fromkeys(families, POINTS), **options)


def points(result, family, site, **where):
    group = result[family].to_dataset().squeeze("network").sel(site=site, split="train", **where)
    return group.isel(seed=0) if "seed" in group.dims else group


def other_of(draw, count, seed=0):
    key = families.keys("resample", [seed], families.draws_of("resample", 8))[0, draw]
    return np.asarray(edits.other_examples(key, count=count))


def values_of(x):
    """Each layer's values without an edit, [n, LAYERS, UNITS], float64."""
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), PARAMS)
    h, values = x @ weights["in"], []
    for weight in weights["layers"]:
        values.append(h @ weight)
        h = np.tanh(values[-1]) + 0.3 * h
    return np.stack(values, 1)


def led(targets, p, layers):
    """The logits with the values of some layers led a fraction of the way to targets [n or 1, LAYERS, UNITS]."""
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), PARAMS)
    h = X @ weights["in"]
    for k, weight in enumerate(weights["layers"]):
        value = h @ weight
        if k in layers:
            value = value + p * (targets[:, k] - value)
        h = np.tanh(value) + 0.3 * h
    return h @ weights["out"]


@pytest.mark.parametrize("count", [2, 3, 37, 1000])
def test_each_example_is_given_another_one_and_none_is_given_twice(count):
    keys = families.keys("resample", [0, 5], 3)
    drawn = np.asarray(edits.other_examples(keys, count=count))
    assert drawn.shape == (2, 3, count)
    np.testing.assert_array_equal(np.sort(drawn, -1), np.broadcast_to(np.arange(count), drawn.shape))
    assert (drawn != np.arange(count)).all()
    if count == 37:
        assert len({row.tobytes() for row in drawn.reshape(6, -1)}) == 6


@pytest.mark.parametrize("apply", [scanned, shared])
@pytest.mark.parametrize(
    ("sites", "layers"),
    [(["up"], {"up": (0, 1, 2)}), (["#1"], {"#1": (1,)}), (["#0", "#2"], {"#0": (0,), "#2": (2,), "all": (0, 2)})],
)
def test_calls_and_iterations_are_led_to_what_the_other_input_has_there(apply, sites, layers):
    mark = "@" if apply is scanned else "#"
    sites = [site if site == "up" else f"up{mark}{site[1:]}" for site in sites]
    layers = {name if "#" not in name else f"up{mark}{name[1:]}": of for name, of in layers.items()}
    result = probed(apply, sites=sites, block=10)
    classes, values = led(0, 0, ()).argmax(-1), values_of(X)
    for site, of in layers.items():
        for p in POINTS:
            draws = points(result, "resample", site, fraction=p)
            cases = {
                "patch": [(values_of(OTHER), points(result, "patch", site, fraction=p))],
                "mean_position": [(values.mean(0, keepdims=True), points(result, "mean_position", site, fraction=p))],
                "resample": [(values[other_of(k, len(X))], draws.isel(draw=k)) for k in range(4)],
            }
            for family, several in cases.items():
                for targets, point in several:
                    expected = led(targets, p, of).argmax(-1)
                    assert abs(int(point.agree) - (expected == classes).sum()) <= 1, (family, site, p)
                    assert abs(int(point.correct) - (expected == Y).sum()) <= 1, (family, site, p)


def test_a_dose_is_of_the_change_in_all_iterations():
    point = points(probed(scanned, dose=True, block=10), "patch", "up", fraction=0.35)
    before, target = values_of(X), values_of(OTHER)
    values = []

    def edit(value):
        k = len(values)
        values.append(np.float32(0.65) * value + np.float32(0.35) * np.float32(target[:, k]))
        return values[-1]

    by_hand(edit)
    a, b = before.ravel(), np.stack(values, 1).ravel().astype(np.float64)
    cosine = a @ b / np.sqrt((a @ a) * (b @ b))
    assert float(point.dose) == pytest.approx(np.sqrt(1 - cosine**2), abs=1e-4)
    assert float(point.rms) == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), abs=1e-4)


def test_all_that_is_patched_is_the_source_itself_with_one_for_all_or_one_for_each():
    def plain(params, x):
        return jnp.tanh(jaxdist.site("up", x @ params["in"])) @ params["out"]

    logits = np.asarray(plain(PARAMS, OTHER))
    unedited = np.asarray(plain(PARAMS, X)).argmax(-1)
    for source, expected in ((OTHER, logits), (OTHER[4:5], logits[4:5])):
        point = points(probed(plain, source=source), "patch", "up", fraction=1.0)
        assert int(point.agree) == (expected.argmax(-1) == unedited).sum()
    point = points(probed(plain), "resample", "up", fraction=1.0)
    for k in range(4):
        assert int(point.agree.isel(draw=k)) == (unedited[other_of(k, len(X))] == unedited).sum()


def test_a_test_split_has_sources_and_other_examples_of_its_own():
    x, y = X[:12] + 1, Y[:12]
    result = probed(scanned, test=(x, y), source={"train": OTHER, "test": -x})
    alone = probed(scanned, test=(x, y), source=OTHER[:1])
    direct = np.asarray(
        jaxdist.edit(scanned, PARAMS, x, {"up@1": jaxdist.read(scanned, PARAMS, -x, ["up@1"])[1]["up@1"]})
    )
    one = probed(scanned, test=(x, y), source={"train": OTHER, "test": -x}, sites=["up@1"], families=("patch",))
    group = one["patch"].to_dataset().sel(site="up@1", split="test", fraction=1.0).squeeze()
    assert int(group.agree) == (direct.argmax(-1) == np.asarray(scanned(PARAMS, x)).argmax(-1)).sum()
    assert not np.array_equal(result["patch"].agree, alone["patch"].agree)
    np.testing.assert_array_equal(result["resample"].agree, alone["resample"].agree)


def test_counts_do_not_depend_on_blocks_devices_or_other_seeds():
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.7 * leaf, leaf[..., ::-1]]), PARAMS)
    found = {}
    for count in (1, 2):
        mesh = devices.make_mesh(jax.devices()[:count])
        examples = devices.place((X, OTHER), Y, mesh)
        examples = dataclasses.replace(examples, x=examples.x[0], source=examples.x[1])
        ranges = Ranges(np.zeros((3, UNITS)), np.ones((3, UNITS)), np.zeros((3, UNITS), bool))
        for family, keys in (("resample", families.keys("resample", range(3), 4)), ("patch", None)):
            made = families.build(family, ranges, np.array(POINTS), SweepConfig(), keys)
            for block in (3, 10, 64):
                swept = ensemble_sweep.sweep(Model(scanned), params, {"up": made}, examples, block=block)
                found.setdefault(family, []).append(np.stack(swept[:3]))
    for several in found.values():
        for other in several[1:]:
            np.testing.assert_array_equal(several[0], other)
        assert np.ptp(several[0][1]) > 5
    stacked = probed(scanned, params, stacked=True)
    for seed in (0, 2):
        alone = probed(scanned, jax.tree.map(lambda leaf, k=seed: leaf[k], params))
        np.testing.assert_array_equal(stacked["patch"].agree.sel(seed=seed), alone["patch"].agree.sel(seed=0))
    np.testing.assert_array_equal(stacked["resample"].agree.sel(seed=0), probed(scanned)["resample"].agree.sel(seed=0))


class Block(nnx.Module):
    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.mlp = nnx.Sequential(nnx.Linear(8, 16, rngs=rngs), nnx.gelu, nnx.Linear(16, 8, rngs=rngs))

    def __call__(self, x):
        x = x + self.attention(x)
        return x + self.mlp(x)


class Transformer(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(11, 8, rngs=rngs)
        self.place = nnx.Param(jax.random.normal(rngs.params(), (5, 8)))
        self.blocks = nnx.List([Block(rngs) for _ in range(2)])
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens) + self.place[None]
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, -1])


class GRU(nnx.Module):
    def __init__(self, rngs):
        self.rnn = nnx.RNN(nnx.GRUCell(4, 6, rngs=rngs))
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.rnn(x)[:, -1])


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
        return nn.Dense(3, name="head")(x.reshape(len(x), -1))


def real(kind):
    """A network, inputs, and sites."""
    key = jax.random.key(3)
    if kind == "transformer":
        x = np.asarray(jax.random.randint(key, (41, 5), 0, 11))
        return *jaxdist.from_nnx(Transformer(nnx.Rngs(0))), x, ["blocks/0/attention", "blocks/1/mlp"]
    if kind == "gru":
        x = np.asarray(jax.random.normal(key, (41, 7, 4)))
        return *jaxdist.from_nnx(GRU(nnx.Rngs(0))), x, ["rnn/cell[0]@3", "rnn"]
    x = np.asarray(jax.random.normal(key, (41, 5, 5, 1)))
    module = CNN()
    return *jaxdist.from_linen(module, module.init(key, x[:1])), x, ["conv"]


@pytest.mark.parametrize("kind", ["transformer", "gru", "cnn"])
def test_real_networks_are_patched_as_by_hand(kind):
    apply, params, x, sites = real(kind)
    y, other = np.arange(len(x)) % 3, x[::-1]
    options = {"train": (x, y), "sites": sites, "layers": "each", "block": 9, "source": other}
    result = probed(apply, params, **options)
    classes = np.asarray(apply(params, x)).argmax(-1)
    _, own = jaxdist.read(apply, params, x, sites)
    _, others = jaxdist.read(apply, params, other, sites)

    def counted(site, target, p):
        def edit(value):
            return ((1 - p) * value + p * target).astype(value.dtype)

        return (np.asarray(jaxdist.edit(apply, params, x, {site: edit})).argmax(-1) == classes).sum()

    changed = 0
    for site in sites:
        for p in POINTS:
            mean = np.asarray(own[site], np.float64).mean(0, keepdims=True).astype(np.float32)
            for family, target in (("patch", others[site]), ("mean_position", mean)):
                agree = int(points(result, family, site, fraction=p).agree)
                assert abs(agree - counted(site, target, p)) <= 1, (family, site, p)
                changed += agree < len(x)
            for k in range(4):
                agree = int(points(result, "resample", site, fraction=p).agree.isel(draw=k))
                assert abs(agree - counted(site, own[site][other_of(k, len(x))], p)) <= 1
    assert changed > 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"source": None}, r"family 'patch': there is no source to take values from; pass source=x to probe"),
        ({"source": X[:, :4]}, r"source: expected inputs like those of train, float32 of shape \(37, 5\), or 1"),
        ({"source": X[:5]}, r"source: .* got float32 of shape \(5, 5\)"),
        ({"source": np.ones(X.shape, int)}, r"source: .* got int32 of shape \(37, 5\)"),
        (
            {"test": (X[:8], Y[:8])},
            r"source: .* those of test, .* pass source=\{'train': \.\.\., 'test': \.\.\.\}",
        ),
        ({"test": (X[:8], Y[:8]), "source": {"train": X}}, r"source: expected inputs for train and test, got none for"),
        ({"train": (X[:1], Y[:1]), "families": ("resample",), "source": None}, "two examples, but this one has 1"),
    ],
)
def test_what_there_is_no_other_input_for_is_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        probed(scanned, **options)


def test_inputs_by_name_have_sources_by_name():
    def masked(params, x):
        return scanned(params, x["values"] * x["mask"][:, None])

    x, other = ({"values": values, "mask": (np.arange(37) % 4 > 0).astype(np.float32)} for values in (X, OTHER))
    found, same = probed(masked, train=(x, Y), source=other), x["mask"][:, None]
    expected = probed(scanned, train=(X * same, Y), source=OTHER * same)
    for family in TOWARD:
        np.testing.assert_array_equal(found[family].agree, expected[family].agree)
    with pytest.raises(InputError, match=r"source: .* the same names as those of train, values, mask, got values$"):
        probed(masked, train=(x, Y), source={"values": OTHER})


def test_a_family_of_ones_own_may_lead_some_units_to_the_source():
    def half(ranges, fraction):
        made = toward_families.toward("source", ranges, fraction)
        return dataclasses.replace(made, fraction=made.fraction.at[::2].set(0))

    family = jaxdist.Family(
        name="half",
        text="every other unit is patched",
        edit=half,
        grid=toward_families.grid,
        above="half",
        kind="toward",
    )
    result = jaxdist.probe(scanned, PARAMS, train=(X, Y), source=OTHER, sites=["up@1"], families=(family,))
    target = values_of(X)
    target[:, :, 1::2] = values_of(OTHER)[:, :, 1::2]
    group = points(result, "half", "up@1", fraction=1.0)
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), PARAMS)
    h = X @ weights["in"]
    for k, weight in enumerate(weights["layers"]):
        h = np.tanh(target[:, 1] if k == 1 else h @ weight) + 0.3 * h
    expected = (h @ weights["out"]).argmax(-1)
    assert abs(int(group.agree) - (expected == led(0, 0, ()).argmax(-1)).sum()) <= 1


def test_means_of_positions_are_of_inputs_of_one_size():
    def pooled(params, x):
        return jnp.tanh(jaxdist.site("up", x @ params["in"])).mean(1) @ params["out"]

    train, test = X.reshape(37, 1, 5).repeat(3, 1), X.reshape(37, 1, 5).repeat(2, 1)
    result = probed(pooled, train=(train, Y), test=(test, Y), families=("mean", "resample"), source=None)
    assert result["resample"].split.size == 2
    with pytest.raises(InputError, match=r"means of each position .* shape \(1, 3, 6\), but these have \(1, 2, 6\)"):
        probed(pooled, train=(train, Y), test=(test, Y), families=("mean_position",), source=None)


def test_a_site_of_several_calls_through_which_a_network_differentiates_itself_is_refused():
    def forces(params, x):
        def energy(x):
            h = jnp.tanh(jaxdist.site("up", x @ params["in"]))
            return jnp.tanh(jaxdist.site("up", h @ params["layers"][0])).sum()

        return jax.vmap(jax.grad(energy))(x)[:, :3]

    with pytest.raises(InputError, match="takes derivatives through it and calls it several times"):
        probed(forces, families=("patch",))


@pytest.mark.slow
def test_a_config_has_other_examples_and_no_source(tmp_path, capsys):
    small = ["--train.seeds=2", "--train.steps=20", "--model.hidden=16", "-q", "--out", str(tmp_path / "run")]
    assert cli.main(["run", *small, "--sweep.families=scale,patch"]) == 2
    assert "family 'patch': there is no source" in capsys.readouterr().err
    assert not (tmp_path / "run" / "result.nc").exists()
    assert cli.main(["run", *small, "--sweep.families=scale,resample,mean_position,mean", "--sweep.dose=true"]) == 0
    result = jaxdist.load(tmp_path / "run")
    assert result["resample"].sizes["draw"] == 4
    assert (result["resample"].agree[..., 0] == result["resample"].total).all()
    # Where there are no positions, the means are the same.
    np.testing.assert_allclose(result["mean_position"].agree, result["mean"].agree, atol=1)
    assert "resampled by" in (tmp_path / "run" / "tables" / "tolerance.md").read_text(encoding="utf-8")
