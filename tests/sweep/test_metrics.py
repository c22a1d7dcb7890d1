"""Metrics: against NumPy in float64, whatever the blocks and devices, and records that cannot be used."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from jaxdist import registry
from jaxdist.config import SweepConfig
from jaxdist.errors import InputError
from jaxdist.networks import mlp
from jaxdist.perturbations import edits, families, ranges
from jaxdist.sweep import Metric, averages, ensemble_sweep, metrics
from tests import oracle
from tests.conftest import place, to_numpy

pytestmark = pytest.mark.usefixtures("optimised")  # what the oracle is held against is what users run

SITE = "dense0/pre"
FAMILIES = ("scale", "offset")
BUILT_IN = tuple(metrics.REGISTER.records[name] for name in metrics.REGISTER.built_in)


def margin_of_ones(outputs, labels):
    """Numbers that count for images of a one alone."""
    return outputs[:, 1].astype(jnp.float32), (labels == 1).astype(jnp.float32)


OWN = Metric(name="ones", text="the logit of class 1, of images of a one", of=margin_of_ones)


def swept(activation, params, examples, chosen, **options):
    model = mlp.model(activation)
    measured = ranges.measure(model, params, examples, (SITE,))[SITE]
    made = [families.build(f, measured, families.get(f).grid()[::7], SweepConfig()) for f in FAMILIES]
    both = {SITE: edits.concatenate(made)}
    return ensemble_sweep.sweep_sums(model, params, both, examples, metrics=chosen, **options), measured


def expected(metric, logits, unedited, y):
    """A built-in metric of every image, in float64."""
    n = np.arange(len(y))
    if metric == "cross_entropy":
        return -log_softmax(logits, -1)[n, y]
    if metric == "kl":
        p, q = log_softmax(unedited, -1), log_softmax(logits, -1)
        return (np.exp(p) * (p - q)).sum(-1)
    if metric == "logit_difference":
        others = logits.copy()
        others[n, y] = -np.inf
        return logits[n, y] - others.max(-1)
    if metric == "top_5":
        return (np.argsort(-logits, -1, kind="stable")[:, :5] == y[:, None]).any(-1).astype(float)
    if metric == "squared_error":
        return ((logits - np.eye(logits.shape[1])[y]) ** 2).mean(-1)
    raise AssertionError(metric)


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_built_in_metrics_equal_the_float64_oracle(activation, trained, train_set, digits):
    sums, _ = swept(activation, trained[activation], train_set, BUILT_IN)
    x, y = digits.train.images[:301].astype(np.float64), digits.train.labels[:301]
    seed = 1
    params = jax.tree.map(lambda leaf: leaf[seed], to_numpy(trained[activation]))
    h = oracle.hidden(params, x)
    a = oracle.activate(activation, {}, h)
    low, high, dead = a.min(0), a.max(0), ~a.any(0)
    unedited = oracle.logits(params, activation, h)
    point = 0
    for family in FAMILIES:
        for fraction in families.get(family).grid()[::7]:
            p = np.float64(np.float32(fraction))
            r = high - low
            new = h * p if family == "scale" else h * (high - p * r) / np.where(dead, 1, high) + p * r
            logits = oracle.logits(params, activation, np.where(dead, h, new))
            for k, metric in enumerate(BUILT_IN):
                before = expected(metric.name, unedited, unedited, y)
                after = expected(metric.name, logits, unedited, y)
                wanted = [after.mean(), after.std(), (after - before).mean(), (after - before).std()]
                edited, change = sums.measures.edited, sums.measures.change
                here = [of[seed, point, k] for of in (edited.mean, edited.sd, change.mean, change.sd)]
                # In float32 each image's number is off by some last places of the largest logit.
                off = 4e-7 * np.abs(logits).max() * (np.abs(logits).max() if metric.name == "squared_error" else 1)
                if metric.name != "top_5":  # of which an image may be at a tie
                    np.testing.assert_allclose(
                        here, wanted, rtol=2e-5, atol=max(off, 1e-6), err_msg=f"{metric.name} {p}"
                    )
                else:
                    assert abs(here[0] - wanted[0]) <= 1 / 301
                np.testing.assert_allclose(sums.measures.unedited.mean[seed, k], before.mean(), rtol=1e-5, atol=1e-5)
            point += 1
    assert point == sums.measures.edited.mean.shape[1]


def test_counts_are_the_same_with_metrics(trained, train_set):
    with_metrics, _ = swept("relu", trained["relu"], train_set, (*BUILT_IN, OWN))
    without, _ = swept("relu", trained["relu"], train_set, ())
    assert without.measures is None
    for name, counts in without.counts._asdict().items():
        np.testing.assert_array_equal(getattr(with_metrics.counts, name), counts, err_msg=name)


@pytest.mark.parametrize(("devices_used", "block"), [(1, 301), (2, 7), (4, None)])
def test_metrics_do_not_depend_on_blocks_or_devices(devices_used, block, trained, train_set, digits):
    here, _ = swept("abs", trained["abs"], train_set, (*BUILT_IN, OWN))
    there, _ = swept(
        "abs", trained["abs"], place(digits, 301, devices_used=devices_used), (*BUILT_IN, OWN), block=block
    )
    for name in ("edited", "change", "unedited"):
        for part in ("weight", "mean", "sd"):
            one, other = (np.asarray(getattr(getattr(of.measures, name), part)) for of in (here, there))
            scale = np.abs(one).max(axis=tuple(range(one.ndim - 1)))
            assert (np.abs(one - other) <= 1e-6 * scale + 1e-7).all(), (name, part)


def test_numbers_with_weights_are_averaged_by_them(trained, train_set, digits):
    sums, _ = swept("relu", trained["relu"], train_set, (OWN,))
    ones = digits.train.labels[:301] == 1
    np.testing.assert_array_equal(sums.measures.edited.weight, ones.sum())
    params = jax.tree.map(lambda leaf: leaf[0], to_numpy(trained["relu"]))
    h = oracle.hidden(params, digits.train.images[:301][ones].astype(np.float64))
    logits = oracle.logits(params, "relu", h)[:, 1]
    np.testing.assert_allclose(sums.measures.unedited.mean[0, 0], logits.mean(), rtol=1e-6)
    np.testing.assert_allclose(sums.measures.unedited.sd[0, 0], logits.std(), rtol=1e-5)


@pytest.mark.parametrize("sizes", [[1000], [1] * 1000, [7] * 142 + [6], [999, 1]])
def test_averages_lose_no_digits_however_values_are_cut(sizes):
    values = (1e4 + np.random.default_rng(0).normal(size=1000) * 0.1).astype(np.float32)
    state = averages.none(())
    for part in np.split(values, np.cumsum(sizes)[:-1]):
        state = averages.merged(state, averages.of_values(jnp.asarray(part), jnp.ones(len(part), jnp.float32)))
    exact = values.astype(np.float64)
    assert float(state.weight) == 1000
    mean = np.float64(state.mean) + np.float64(state.rest)
    np.testing.assert_allclose(mean, exact.mean(), rtol=1e-9)
    # What is reported is the nearest float32.
    assert float(state.value) == np.float32(exact.mean())
    np.testing.assert_allclose(state.sd, exact.std(), rtol=2e-6)


def test_nothing_that_does_not_count_is_averaged():
    values, weights = jnp.asarray([1.0, jnp.nan, 3.0]), jnp.asarray([1.0, 0.0, 1.0])
    part = averages.of_values(values, weights)
    assert (float(part.mean), float(part.weight)) == (2.0, 2.0)
    whole = averages.merged(averages.none(()), part)
    assert float(averages.merged(whole, averages.none(())).mean) == 2.0


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_so_in_any_order(odd):
    whole, one = (averages.of_values(jnp.asarray(values), jnp.ones(2)) for values in ([1.0, 2.0], [3.0, odd]))
    for parts in ((whole, one), (one, whole), (one, one)):
        np.testing.assert_array_equal(averages.merged(*parts).value, np.float32(odd))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Of mine"}, "expected a name of at most 32 lowercase letters"),
        ({"name": "accuracy"}, "this name is that of a metric that every sweep counts"),
        ({"text": ""}, "text: expected one sentence"),
        ({"better": "more"}, "better: expected 'higher', 'lower' or ''"),
        ({"of": 3}, "of: expected a function, got an int"),
        ({"chance": 0.1}, "chance: expected a function, got a float"),
        (
            {"of": lambda outputs, labels: outputs[None]},
            r"of: expected a number per example, \[5\] for outputs \[5, 3\]",
        ),
        ({"of": lambda outputs, labels: outputs.mean()}, "of: expected a number per example"),
        ({"of": lambda outputs, labels: (outputs[:, 0],) * 3}, "expected numbers, or a pair of numbers and weights"),
        ({"of": lambda outputs: outputs[:, 0]}, "of: raises TypeError for outputs"),
        ({"compares": True}, "of: raises TypeError"),
        ({"of": lambda outputs, labels: (outputs[:, 0], outputs[:, 1] > 0)}, "of: its weights depend on the outputs"),
    ],
)
def test_records_that_cannot_be_used_are_refused_in_a_sentence(change, message):
    with pytest.raises(InputError, match=message) as error:
        metrics.REGISTER.add(dataclasses.replace(OWN, **change))
    assert "\n" not in str(error.value)
    assert "ones" not in metrics.REGISTER.records


def test_the_names_of_configs_are_those_of_the_records():
    assert list(registry.METRICS) == [*registry.COUNTED, *metrics.REGISTER.records]
    for name, record in metrics.REGISTER.records.items():
        metrics.check_record(record)
        assert registry.METRICS[name] == record.text


def test_a_class_that_both_networks_rule_out_has_no_divergence():
    outputs = jnp.asarray([[0.0, -jnp.inf, 1.0]])
    assert float(metrics.REGISTER.get("kl").of(outputs, jnp.asarray([0]), outputs)[0]) == 0
