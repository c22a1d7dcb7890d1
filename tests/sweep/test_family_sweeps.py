"""Every family with its counts and doses, against float64 and by what must not change them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist.analysis import breakdowns
from jaxdist.compute import devices, mesh_of, to_host
from jaxdist.config import Options, RangesConfig, SweepConfig
from jaxdist.errors import InputError
from jaxdist.networks import mlp
from jaxdist.perturbations import edits, families
from jaxdist.sweep import counting, family_sweeps, labels, matched, results
from jaxdist.sweep.counting import Context
from jaxdist.sweep.waves import Subject
from jaxdist.types import Ranges
from tests import oracle
from tests.conftest import place, to_numpy

pytestmark = pytest.mark.usefixtures("optimised")  # what the oracle is held against is what users run

SITE = "dense0/pre"
CONTROLS = tuple(name for name in families.ALL if name not in families.PAPER)
DRAWS = 3


def with_source(digits, devices_used=2):
    """The first 301 training digits, whose sources are the same in the opposite order."""
    examples = place(digits, 301, devices_used)
    x, mesh = np.asarray(to_host(examples.x))[:301], mesh_of(examples)
    return dataclasses.replace(examples, source=devices.place(x[::-1], np.zeros(301), mesh).x)


@pytest.fixture(scope="module")
def sourced(digits):
    return with_source(digits)


def at_once(name, compute):
    return compute()


def silent(*_):
    pass


def context(examples, names=tuple(families.ALL), seeds=3, **options):
    """A context whose training images are also those counted on."""
    sweep = {"families": names, "dose": True, "draws": DRAWS, "splits": ("train",)} | options
    ranges = RangesConfig(measured_on=sweep.pop("measured_on", "post"))
    chosen = Options(ranges=ranges, sweep=SweepConfig(**sweep))
    return Context({"train": examples}, {SITE: (SITE,)}, chosen, range(seeds), silent, at_once)


def swept(subjects, given, *, job="sweep"):
    """Ranges and the families' sweeps, by family."""
    measured = {name: counting.measure_ranges(subject, given, name) for name, subject in subjects.items()}
    dosings = counting.dosings(subjects, given) if given.options.sweep.dose else {}
    every = family_sweeps.sweep(subjects, measured, given, dosings, job=job)
    return measured, {name: labels.over_draws(each) for name, each in every.items()}


@pytest.fixture(scope="module")
def subjects(trained):
    """Both networks."""
    return {name: Subject(mlp.model(name), params) for name, params in trained.items()}


@pytest.fixture(scope="module")
def both(subjects, sourced):
    """Both networks under every family; tests that sweep others under all of them compile nothing more."""
    return swept(subjects, context(sourced))[1]


def unit_ranges(network, h):
    a = oracle.activate(network, {}, h)
    return a.min(0), a.max(0), ~a.any(0)


def edited(network, family, p, h, draw, images):
    """Preactivations, or activations behind an edit of those, in float64: the formulas once more."""
    low, high, dead = unit_ranges(network, h)
    r, a = high - low, oracle.activate(network, {}, h)
    purpose = family if family == "resample" else f"{family} {SITE}"
    key = families.keys(purpose, [draw["seed"]], DRAWS)[0, draw["draw"]] if draw else None
    if family in ("floor", "dead_zone"):
        tau = low + p * r
        small = (a <= tau) & (p > 0) & ~dead
        return np.where(small, tau if family == "floor" else 0.0, a), "post"
    if family in ("collapse_small", "collapse_large"):
        return np.stack([collapsed(unit, p, family == "collapse_large") for unit in a.T], axis=1), "post"
    new = {
        "shift": lambda: h + p * r,
        "restored_offset": lambda: h * (high - p * r) / np.where(dead, 1, high) + p * r,
        "clip_both": lambda: np.clip(h, -p * high, p * high),
        "random_offset": lambda: h * (high - sign(key, h) * p * r) / np.where(dead, 1, high) + sign(key, h) * p * r,
        "random_scale": lambda: h * np.exp(p * np.float64(jax.random.normal(wrapped(key), h.shape[1:]))),
        "noise": lambda: h + p * r * normal(key, images, h.shape[1]),
        "zero": lambda: (1 - p) * h,
        "mean": lambda: h + p * (h.mean(0) - h),
        "mean_position": lambda: h + p * (h.mean(0) - h),
        "resample": lambda: h + p * (h[edits.other_examples(key, count=len(h))] - h),
        "patch": lambda: h + p * (h[::-1] - h),
    }[family]()
    return np.where(dead, h, new), "pre"


def collapsed(unit, share, large):
    """A unit's activations [N] with those of one side averaged: the least of all sides whose mean erases the share."""
    for end in sorted(set(unit), reverse=large):
        side = unit >= end if large else unit <= end
        if unit.any() and share > 0 and side.sum() * unit[side].var() >= share * len(unit) * unit.var() * (1 - 1e-12):
            return np.where(side, unit[side].mean(), unit)
    return unit


def wrapped(key):
    return jax.random.wrap_key_data(jnp.asarray(key))


def sign(key, h):
    return np.float64(families.random_signs(key[None, None], h.shape[1])[0, 0])


def normal(key, images, units):
    """The noise of each image: by its number alone."""
    one = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(wrapped(key), i), (units,)))
    return np.float64(one(jnp.arange(images)))


@pytest.mark.parametrize("network", ["relu", "abs"])
@pytest.mark.parametrize("family", CONTROLS)
def test_counts_and_doses_equal_the_float64_oracle(family, network, both, trained, digits):
    x, y = digits.train.images[:301].astype(np.float64), digits.train.labels[:301]
    k, found = ["relu", "abs"].index(network), both[family]
    draws = families.draws_of(family, DRAWS)
    for seed in range(3):
        params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], to_numpy(trained[network]))
        h = oracle.hidden(params, x)
        out = params["dense1"]["weight"]
        v = ((out - out.mean(0)) ** 2).sum(0)
        a = oracle.activate(network, {}, h)
        unedited = oracle.logits(params, network, h)
        for j in range(0, len(found.fraction), 3):
            p = np.float64(np.float32(found.fraction[j]))
            sums = np.zeros(6)
            for d in range(draws):
                drawn = {"seed": seed, "draw": d} if families.get(family).random else None
                new, side = edited(network, family, p, h, drawn, len(y))
                after = new if side == "post" else oracle.activate(network, {}, new)
                logits = oracle.linear(params["dense1"], after)
                if family == "restored_offset":
                    logits = logits - logits.mean(0) + unedited.mean(0)
                classes, same = logits.argmax(1), unedited.argmax(1)
                counts = [(classes == y).sum(), (classes == same).sum(), ((classes == y) & (same == y)).sum()]
                sums += np.array([*counts, *oracle_doses(a, after, v)]) / draws
            here = [found[name][k, seed, 0, 0, j] for name in ("correct", "agree", "kept")]
            np.testing.assert_allclose(here, sums[:3], atol=2 / draws, err_msg=f"{p}")
            here = [found[name][k, seed, 0, 0, j] for name in ("dose", "rms", "rms_plain")]
            np.testing.assert_allclose(here, sums[3:], atol=1e-5, rtol=1e-5, err_msg=f"{p}")


def oracle_doses(a, after, v):
    def inner(b, c, weights):
        return (weights * (b * c).mean(0)).sum()

    # Of nothing, no direction is left.
    cos = inner(after, a, v) / np.sqrt(inner(a, a, v) * inner(after, after, v)) if after.any() else 0
    rms = [np.sqrt(inner(after - a, after - a, w) / inner(a, a, w)) for w in (v, np.ones_like(v))]
    return np.sqrt(max(0.0, 1 - cos**2)), *rms


def test_a_common_scale_has_no_angular_dose(both):
    found = both["scale"]
    assert np.abs(found.dose).max() < 1e-6
    expected = np.broadcast_to(np.abs(found.fraction - 1), found.rms.shape)
    np.testing.assert_allclose(found.rms, expected, atol=1e-5, rtol=1e-5)


def test_no_edit_has_no_dose_and_no_flip(both):
    for name, found in both.items():
        here = found.fraction == families.get(name).identity
        assert here.sum() == 1, name
        assert np.abs(found.dose[..., here]).max() < 1e-5, name
        assert (found.agree[..., here] == 301).all(), name


@pytest.mark.slow
def test_doses_do_not_depend_on_devices(both, trained, digits):
    alone = {"relu": Subject(mlp.model("relu"), trained["relu"])}
    names = ("noise", "floor", "clip", "resample", "patch", "mean_position")
    single = swept(alone, context(with_source(digits, devices_used=1), names))[1]
    for name, found in single.items():
        np.testing.assert_allclose(found.dose[0], both[name].dose[0], atol=2e-6)
        np.testing.assert_allclose(found.agree[0], both[name].agree[0], atol=1)


def times(layer, factors):
    """A layer whose units [S, H] are multiplied."""
    return {name: leaf * (factors[..., None] if leaf.ndim == 3 else factors) for name, leaf in layer.items()}


def test_rescaling_a_relu_unit_changes_no_dose_and_no_flip(both, trained, sourced):
    """(w, b) -> c(w, b), v -> v/c leaves a ReLU network as it is, and every edit by its own units' ranges too."""
    factors = jnp.asarray(np.random.default_rng(0).uniform(0.3, 3, (3, 24)), jnp.float32)
    params = trained["relu"]
    first = {
        name: leaf * (factors[..., None] if leaf.ndim == 3 else factors) for name, leaf in params["dense0"].items()
    }
    rescaled = {"dense0": first, "dense1": params["dense1"] | {"weight": params["dense1"]["weight"] / factors[:, None]}}
    found = swept({"relu": Subject(mlp.model("relu"), rescaled)}, context(sourced))[1]
    for name, family in both.items():
        np.testing.assert_allclose(found[name].dose[0], family.dose[0], atol=1e-5, err_msg=name)
        np.testing.assert_allclose(found[name].agree[0], family.agree[0], atol=2, err_msg=name)


def flipped(params, seed=1):
    """The same Abs network with the signs of some units changed."""
    signs = jnp.asarray(np.random.default_rng(seed).choice([-1.0, 1.0], (3, 24)), jnp.float32)
    return params | {"dense0": times(params["dense0"], signs)}


GAUGED = ("clip", "offset", "shift")


@pytest.fixture(scope="module")
def gauged(trained, sourced):
    """The gauges of the networks as trained, and of the Abs network with some units' signs changed."""
    given = context(sourced, GAUGED, gauges=("as_is", "averaged", "absolute"), draws=24, dose=False)
    every = context(sourced)
    found = []
    for params in (trained["abs"], flipped(trained["abs"])):
        subjects = {"relu": Subject(mlp.model("relu"), trained["relu"]), "abs": Subject(mlp.model("abs"), params)}
        measured, as_is = swept(subjects, every)
        turned = family_sweeps.gauges(subjects, measured, given)
        assert all(list(each.network) == ["abs"] for each in turned.values())
        found.append((as_is, {key: labels.over_draws(each) for key, each in turned.items()}))
    return found


@pytest.mark.slow
def test_signs_of_abs_units_change_what_edits_do_but_no_averaged_result_beyond_its_error(gauged):
    (as_is, turned), (as_is_flipped, turned_flipped) = gauged
    for family in GAUGED:
        here, there = (each["averaged", family] for each in (turned, turned_flipped))
        # Two means over draws of signs, each with its own standard error; nothing else differs.
        error = np.hypot(here.agree_sd, there.agree_sd) / np.sqrt(24)
        apart = np.abs(here.agree - there.agree)
        assert (apart <= 5 * error + 1).all(), family
        assert np.abs(as_is[family].agree[1] - as_is_flipped[family].agree[1]).max() > 20, family


def test_editing_magnitudes_does_not_depend_on_signs(gauged):
    (_, turned), (_, turned_flipped) = gauged
    for family in GAUGED:
        here, there = (each["absolute", family] for each in (turned, turned_flipped))
        np.testing.assert_allclose(here.agree, there.agree, atol=1)


def test_a_clip_of_magnitudes_is_a_clip_on_both_sides(trained, sourced):
    """Where the clip is a fraction of the largest value, as the paper's caption has it."""
    subjects = {"abs": Subject(mlp.model("abs"), trained["abs"])}
    measured, as_is = swept(subjects, context(sourced, clip_formula="caption"))
    given = context(sourced, GAUGED, gauges=("absolute",), clip_formula="caption", dose=False)
    clip = family_sweeps.gauges(subjects, measured, given)["absolute", "clip"]
    shared = np.isin(as_is["clip_both"].fraction, clip.fraction)
    assert shared.sum() >= 4
    here = np.isin(clip.fraction, as_is["clip_both"].fraction)
    np.testing.assert_array_equal(clip.agree[..., here], as_is["clip_both"].agree[..., shared])


def test_random_families_depend_on_the_seeds_number_alone(both, trained, sourced):
    """Not on its place among the others."""
    order = [2, 0, 1]
    params = jax.tree.map(lambda leaf: leaf[np.array(order)], trained["relu"])
    moved = swept({"relu": Subject(mlp.model("relu"), params)}, context(sourced)._replace(seeds=order))[1]
    for name in ("random_scale", "random_offset", "noise", "resample"):
        np.testing.assert_array_equal(both[name].agree[0][order], moved[name].agree[0])
        assert both[name].agree_sd.max() > 0


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ("relu", {"names": ("floor",), "measured_on": "pre"}, "their fractions refer to ranges after the activation"),
        ("gelu", {"names": ("floor",)}, "that needs an activation which leaves 0 and positive values unchanged"),
        ("elu", {"names": ("dead_zone",)}, "that needs an activation which leaves 0 and positive values unchanged"),
        ("leaky_relu", {"names": ("floor",)}, "that needs an activation which leaves 0 and positive values unchanged"),
        ("relu", {"names": ("clip", "patch")}, "family 'patch': there is no source .* pass source=x to probe"),
        ("abs", {"names": ("clip",), "gauges": ("absolute",), "measured_on": "pre"}, "'absolute' edits magnitudes"),
    ],
)
def test_what_means_nothing_for_a_model_is_refused_in_a_sentence(network, options, message, sourced):
    given = context(sourced, **options)
    with pytest.raises(InputError, match=message):
        family_sweeps.check_options(mlp.model(network), given.targets, given.options)


def test_doses_of_sites_that_are_only_edited_together_are_refused(sourced):
    given = context(sourced, ("clip",))
    with pytest.raises(InputError, match=r"doses are defined only for edits of a single site; use sweep.layers 'each'"):
        family_sweeps.check_options(mlp.model("relu", 2), {"all": (SITE, "dense1/pre")}, given.options)


def test_activations_that_are_negative_are_not_erased_as_small(sourced):
    low, high = np.array([-0.5, 0.0]), np.array([1.0, 1.0])
    with pytest.raises(InputError, match=r"needs ranges that are never negative.*use rule .minmax. or .quantile."):
        families.check_meaning("floor", Ranges(low, high, np.array([False, False])), SweepConfig())
    families.check_meaning("floor", Ranges(low, high, np.array([True, False])), SweepConfig())


def test_offsets_with_draws_or_restored_means_depend_on_units_signs_too(both, trained, sourced):
    """They are not taken in other gauges. Noise, whose sign is as likely as not, depends on them by chance alone."""
    found = swept({"abs": Subject(mlp.model("abs"), flipped(trained["abs"]))}, context(sourced))[1]
    for name, family in ((name, family) for name, family in both.items() if name != "noise"):
        apart = np.abs(found[name].agree[0] - family.agree[1])
        assert (apart.max() > 5) == families.get(name).signed, (name, apart.max())


WANTED, MATCHED = (0.05, 0.2, 0.5), ("scale", "offset", "clip_both", "dead_zone", "random_scale")


def match(network, params, examples, names, **options):
    """The groups of a network's edits at the wanted doses, and what its families found on their grids."""
    subjects = {network: Subject(mlp.model(network), params)}
    measured, swept_all = swept(subjects, context(examples, **options))
    given = context(examples, names, matched=WANTED, **options)
    found = {name: swept_all[name] for name in names}
    dosings, unedited = counting.dosings(subjects, given), counting.identities(subjects, given)
    groups = matched.match_dose(subjects, measured, found, unedited, given, dosings)
    return {name: labels.over_draws(group) for name, group in groups.items()}, found


def test_nothing_is_matched_where_nothing_can_be(trained, sourced):
    for names, options in ((("scale",), {}), (("offset",), {"offset_formula": "literal"})):
        assert match("relu", trained["relu"], sourced, names, **options)[0] == {}


@pytest.mark.slow
def test_networks_without_a_dose_are_never_matched(trained, sourced):
    params = jax.tree.map(jnp.array, trained["abs"])
    params["dense0"]["weight"] = params["dense0"]["weight"].at[0, 5].set(0.0)
    params["dense0"]["bias"] = params["dense0"]["bias"].at[0, 5].set(0.0)
    group = match("abs", params, sourced, ("offset",), dead_units="nan")[0]["matched_offset"]
    assert group.fraction.isel(seed=0).isnull().all()
    assert group.fraction.sel(level=0.2).isel(seed=slice(1, 3)).notnull().any("side").all()


@pytest.mark.slow
def test_matched_doses_are_met_on_both_sides_and_never_where_they_are_not_reached(trained, sourced):
    groups, found = match("relu", trained["relu"], sourced, MATCHED)
    assert set(groups) == {"matched_offset", "matched_clip_both", "matched_dead_zone", "matched_random_scale"}
    met = 0
    for family, group in groups.items():
        largest = found[family.removeprefix("matched_")].dose.max(axis=(0, 2, 3, 4))
        for level in WANTED:
            one = group.sel(level=level)
            known = one.fraction.notnull()
            assert not (known.any("side").to_numpy()[0, :, 0] & (largest < level)).any()
            apart = np.abs(one.dose - level).where(known)
            assert float(apart.max()) < 2e-3, (family, level)
            assert ((one.correct == -1).squeeze("split") == ~known).all()
            met += int(known.sum())
    assert met > 40
    frame = breakdowns.matched(results.tree(groups, {}))
    assert len(frame) == met
    assert (frame.dose - frame.level).abs().max() < 2e-3
    assert frame.flips.between(0, 1).all()
