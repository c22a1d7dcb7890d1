"""A decoder's tokens, a single logit, one-hot labels, a regression: against NumPy in float64, and what is refused."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import jaxdist
from jaxdist.config import StatisticsConfig
from jaxdist.errors import InputError
from jaxdist.experiment import finished
from jaxdist.storage import overview
from jaxdist.sweep import results
from jaxdist.types import Params

VOCABULARY, LENGTH, WIDTH = 7, 6, 8
FRACTIONS = {"zero": [0.0, 0.3, 0.6, 1.0]}
SPLITS = {"train": 90, "test": 41}


def decoder(xp, params: Params, tokens, edit):
    """A causal transformer of one block, in NumPy or in JAX; `edit` is applied to the MLP's output."""
    x = params["embed"][tokens] + params["place"][None]
    scores = xp.einsum("ntd,nsd->nts", x @ params["q"], x @ params["k"]) / WIDTH**0.5
    scores = xp.where(np.tril(np.ones((LENGTH, LENGTH), bool))[None], scores, -1e9)
    weights = xp.exp(scores - scores.max(-1, keepdims=True))
    x = x + (weights / weights.sum(-1, keepdims=True)) @ (x @ params["v"])
    x = x + edit(xp.tanh(x @ params["up"]) @ params["down"])
    return x @ params["head"]


def weights(seed: int) -> Params:
    rng = np.random.default_rng(seed)
    shapes = {"embed": (VOCABULARY, WIDTH), "place": (LENGTH, WIDTH), "up": (WIDTH, 12), "down": (12, WIDTH)}
    shapes |= dict.fromkeys("qkv", (WIDTH, WIDTH)) | {"head": (WIDTH, VOCABULARY)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


PARAMS = weights(0)


def applied(params: Params, tokens):
    return decoder(jnp, params, tokens, functools.partial(jaxdist.site, "mlp"))


@pytest.fixture(scope="module")
def sequences():
    """Tokens, and labels that the network mostly gives; some count for nothing, one example has none that counts."""
    rng, splits = np.random.default_rng(1), {}
    for name, count in SPLITS.items():
        x = rng.integers(0, VOCABULARY, (count, LENGTH))
        y = np.asarray(applied(PARAMS, x).argmax(-1)).copy()
        wrong = rng.random(y.shape) < 0.3
        y[wrong] = rng.integers(0, VOCABULARY, int(wrong.sum()))
        for row, length in enumerate(rng.integers(2, LENGTH + 1, count)):
            y[row, length:] = -100
        y[3] = -100
        splits[name] = x, y
    return splits


def exact(tokens, fraction: float) -> np.ndarray:
    """The decoder's logits with an edit, in float64."""
    params = jax.tree.map(lambda leaf: leaf.astype(np.float64), PARAMS)
    return decoder(np, params, tokens, lambda value: (1 - fraction) * value)


@pytest.fixture(scope="module")
def of_tokens(sequences):
    return jaxdist.probe(
        applied,
        PARAMS,
        **sequences,
        sites=["mlp"],
        families=("zero",),
        fractions=FRACTIONS,
        metrics=("cross_entropy", "kl", "logit_difference", "top_5", "squared_error"),
    )


def test_tokens_are_counted_as_the_oracle_counts_them(of_tokens, sequences):
    for split, (x, y) in sequences.items():
        group = of_tokens["zero"].to_dataset().sel(split=split).squeeze()
        there = y != -100
        assert int(group.total) == there.sum()
        unedited = exact(x, 0).argmax(-1)
        for k, fraction in enumerate(FRACTIONS["zero"]):
            named = exact(x, fraction).argmax(-1)
            assert int(group.correct[k]) == (there & (named == y)).sum()
            assert int(group.agree[k]) == (there & (named == unedited)).sum()
            assert int(group.kept[k]) == (there & (named == y) & (unedited == y)).sum()
        assert int(group.unperturbed) == (there & (unedited == y)).sum()
    unedited = of_tokens["unedited"].to_dataset().sel(split="train").squeeze()
    x, y = sequences["train"]
    np.testing.assert_array_equal(unedited.labels, np.bincount(y[y != -100], minlength=VOCABULARY))
    assert int(unedited.predicted.sum()) == (y != -100).sum()


def numbers(metric: str, x, y, fraction: float) -> np.ndarray:
    """A metric of every token, in float64."""
    logits, unedited, safe = exact(x, fraction), exact(x, 0), np.where(y < 0, 0, y)
    own = np.take_along_axis(logits, safe[..., None], -1)[..., 0]
    one_hot = np.eye(VOCABULARY)[safe]
    if metric == "accuracy":
        return (logits.argmax(-1) == y).astype(float)
    if metric == "flips":
        return (logits.argmax(-1) != unedited.argmax(-1)).astype(float)
    if metric == "cross_entropy":
        return special.logsumexp(logits, -1) - own
    if metric == "kl":
        p, q = special.log_softmax(unedited, -1), special.log_softmax(logits, -1)
        return (np.exp(p) * (p - q)).sum(-1)
    if metric == "logit_difference":
        return own - np.where(one_hot == 1, -np.inf, logits).max(-1)
    if metric == "top_5":
        return ((logits > own[..., None]).sum(-1) < 5).astype(float)
    assert metric == "squared_error"
    return ((logits - one_hot) ** 2).mean(-1)


METRICS = ("accuracy", "flips", "cross_entropy", "kl", "logit_difference", "top_5", "squared_error")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("split", SPLITS)
def test_means_are_over_all_tokens_that_count_with_errors_by_examples(metric, split, of_tokens, sequences):
    x, y = sequences[split]
    there = (y != -100).astype(float)
    group = of_tokens["zero"].to_dataset().sel(split=split, metric=metric).squeeze()
    assert float(group.metric_weight) == there.sum()
    assert float(group.metric_examples) == len(y) - 1
    before = numbers(metric, x, y, 0)
    for k, fraction in enumerate(FRACTIONS["zero"]):
        after = numbers(metric, x, y, fraction)
        for name, values in (("metric", after), ("metric_change", after - before)):
            mean = (values * there).sum() / there.sum()
            measured = group["metric_mean" if name == "metric" else name][k]
            np.testing.assert_allclose(measured, mean, rtol=2e-5, atol=2e-6, err_msg=f"{name} {fraction}")
            # The jackknife's delta of a ratio of sums: examples, not their tokens, are independent.
            sums = ((values - mean) * there).sum(1)
            count = len(y) - 1
            error = np.sqrt((sums**2).sum() * count / (count - 1)) / there.sum()
            np.testing.assert_allclose(group[f"{name}_error"][k], error, rtol=1e-4, atol=1e-6)


def test_averaged_accuracy_and_flips_of_tokens_are_the_counts(of_tokens):
    group = of_tokens["zero"].to_dataset()
    means = group.metric_mean
    np.testing.assert_allclose(means.sel(metric="accuracy"), group.correct / group.total, rtol=1e-6)
    np.testing.assert_allclose(means.sel(metric="flips"), 1 - group.agree / group.total, rtol=1e-6, atol=1e-7)


def test_tokens_do_not_depend_on_blocks(of_tokens, sequences):
    again = jaxdist.probe(
        applied, PARAMS, **sequences, sites=["mlp"], families=("zero",), fractions=FRACTIONS, block=7, units=True
    )
    for name in ("correct", "agree", "kept", "unperturbed", "total"):
        np.testing.assert_array_equal(again["zero"][name], of_tokens["zero"][name])
    units = again["units_zero"].to_dataset().squeeze()
    x, y = sequences["train"]
    alone = jaxdist.edit(applied, PARAMS, x, {"mlp": lambda value: value.at[..., 2].set(0)}).argmax(-1)
    assert int(units.correct.sel(split="train", unit=2).isel(fraction=-1)) == int((np.asarray(alone) == y).sum())


def test_a_network_of_tokens_has_no_interval_that_takes_tokens_apart(of_tokens, capsys):
    from jaxdist.analysis import metric_tables, tables

    options = StatisticsConfig()
    points = tables.points(of_tokens, options)
    assert points.low.isna().all()
    measured = metric_tables.points(of_tokens, options)
    accuracy = measured[(measured.metric == "accuracy") & (measured.fraction > 0)]
    assert (accuracy.low < accuracy["mean"]).all()
    jaxdist.show(of_tokens)
    assert "train accuracy" in capsys.readouterr().out


def test_a_metric_of_ones_own_has_a_number_a_token_or_weights(sequences):
    def loss(outputs, labels):
        return -jax.nn.log_softmax(outputs)[..., 0]

    def last(outputs, labels):
        return outputs[..., 1], (jnp.arange(labels.shape[1])[None] == 1) & (labels >= 0)

    def longest(outputs, labels):
        return outputs[..., 0].max(-1)

    result = jaxdist.probe(
        applied, PARAMS, train=sequences["train"], sites=["mlp"], families=("zero",), metrics=(loss, last, longest)
    )
    (x, y), group = sequences["train"], result["zero"].to_dataset().squeeze().isel(fraction=-1)
    logits, there = exact(x, 1), y != -100
    np.testing.assert_allclose(
        group.metric_mean.sel(metric="loss"), -special.log_softmax(logits, -1)[..., 0][there].mean(), rtol=1e-5
    )
    np.testing.assert_allclose(group.metric_mean.sel(metric="last"), logits[there[:, 1], 1, 1].mean(), rtol=1e-5)
    np.testing.assert_allclose(group.metric_mean.sel(metric="longest"), logits[..., 0].max(-1).mean(), rtol=1e-5)
    assert float(group.metric_weight.sel(metric="longest")) == len(y)


# A perceptron of one output


X = np.random.default_rng(2).normal(size=(203, 5)).astype(np.float32)
MLP = {
    "w": np.random.default_rng(3).normal(size=(5, 9)).astype(np.float32),
    "v": np.random.default_rng(4).normal(size=(9, 3)).astype(np.float32),
}


def mlp(params, x, outputs=1):
    hidden = jaxdist.site("hidden", x @ params["w"])
    return jnp.tanh(hidden) @ params["v"][:, :outputs]


def exact_mlp(fraction, outputs=1):
    w, v = (MLP[name].astype(np.float64) for name in "wv")
    return np.tanh((1 - fraction) * (X.astype(np.float64) @ w)) @ v[:, :outputs]


Z = exact_mlp(0)[:, 0]
HALVES = (Z + np.random.default_rng(5).normal(size=len(Z)) > 0).astype(int)
SHORT = {"sites": ["hidden"], "families": ("zero",), "fractions": FRACTIONS}


@pytest.mark.parametrize(
    "labels",
    [HALVES, HALVES.astype(bool), HALVES[:, None], HALVES.astype(np.uint8)],
    ids=["integers", "truth values", "a column", "bytes"],
)
@pytest.mark.parametrize("shape", ["[n]", "[n, 1]"])
def test_a_single_logit_is_counted_by_its_sign(labels, shape):
    def network(params, x):
        return mlp(params, x) if shape == "[n, 1]" else mlp(params, x)[:, 0]

    names = ("cross_entropy", "kl", "logit_difference", "squared_error")
    result = jaxdist.probe(network, MLP, train=(X, labels), **SHORT, metrics=names)
    group = result["zero"].to_dataset().squeeze()
    for k, fraction in enumerate(FRACTIONS["zero"]):
        z = exact_mlp(fraction)[:, 0]
        assert int(group.correct[k]) == ((z > 0) == HALVES).sum()
        assert int(group.agree[k]) == ((z > 0) == (Z > 0)).sum()
        p, q = special.expit(Z), special.expit(z)
        with np.errstate(divide="ignore", invalid="ignore"):
            kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
        expected = [
            np.logaddexp(0, -z * (2 * HALVES - 1)).mean(),
            kl.mean(),
            (z * (2 * HALVES - 1)).mean(),
            ((z - HALVES) ** 2).mean(),
        ]
        np.testing.assert_allclose(group.metric_mean[k], expected, rtol=1e-5, atol=1e-6)


def test_a_single_logit_is_that_of_two_classes():
    """Everything that is measured of two logits, 0 and z, is measured of z."""

    def both(params, x):
        z = mlp(params, x)
        return jnp.concatenate([jnp.zeros_like(z), z], -1)

    options = {"sites": ["hidden"], "families": ("offset", "restored_offset"), "grid": True, "units": True}
    options |= {"sensitivity": True, "dose": True, "train": (X, HALVES)}
    one, two = (jaxdist.probe(network, MLP, **options) for network in (mlp, both))
    for name, group in two.children.items():
        for variable, values in group.data_vars.items():
            np.testing.assert_allclose(one[name][variable], values, rtol=1e-5, atol=1e-6, err_msg=f"{name} {variable}")


@pytest.mark.parametrize("kind", [np.float32, int, bool])
def test_one_hot_labels_are_classes(kind):
    y = exact_mlp(0, 3).argmax(-1)
    network = functools.partial(mlp, outputs=3)
    one, two = (jaxdist.probe(network, MLP, train=(X, each), **SHORT) for each in (y, np.eye(3)[y].astype(kind)))
    np.testing.assert_array_equal(one["zero"].correct, two["zero"].correct)
    assert one.attrs["data_digest"] == two.attrs["data_digest"]


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_squared_error_of_a_regression(outputs, tmp_path, capsys):
    targets = exact_mlp(0, outputs) + np.random.default_rng(6).normal(size=(len(X), outputs))

    def largest(outputs, labels):
        """The largest error of an example."""
        errors = jnp.abs(outputs - labels)
        return errors if errors.ndim == 1 else errors.max(-1)

    result = jaxdist.probe(
        functools.partial(mlp, outputs=outputs),
        MLP,
        train=(X, targets),
        test=(X[:50], targets[:50]),
        **SHORT,
        metrics=("squared_error", largest),
        thresholds={"largest": 0.5},
        out=tmp_path / "run",
    )
    group = result["zero"].to_dataset().sel(split="train").squeeze()
    assert not {"correct", "agree", "kept", "unperturbed"} & set(group)
    for k, fraction in enumerate(FRACTIONS["zero"]):
        errors = exact_mlp(fraction, outputs) - targets
        expected = [(errors**2).mean(), abs(errors).max(-1).mean()]
        np.testing.assert_allclose(group.metric_mean[k], expected, rtol=1e-5)
    written = {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert {"metrics.csv", "metrics.md", "thresholds.csv", "thresholds.md", "report.html"} <= written
    assert {"metric_squared_error.svg", "metric_largest.svg"} <= written
    assert not {"points.csv", "tolerance.csv", "figure1.svg"} & written
    assert overview.read(tmp_path / "run").state == "swept"
    with pytest.raises(InputError, match=r"holds no doses of .*; a verdict compares the class of each example, but"):
        finished.verdict_folder(tmp_path / "run")
    jaxdist.show(jaxdist.load(tmp_path / "run"))
    shown = capsys.readouterr().out
    assert "squared error" in shown
    assert "accuracy" not in shown
    assert jaxdist.plot(result).axes[0].get_ylabel() == "Squared error"
    with pytest.raises(
        InputError, match="plot: expected a metric of the result, which are squared_error, largest, got"
    ):
        jaxdist.plot(result, "accuracy")


def test_a_regression_that_is_not_finite_is_left_out():
    targets = exact_mlp(0)[:, 0]
    params = {"w": np.stack([MLP["w"]] * 2), "v": np.stack([MLP["v"], MLP["v"] * np.float32(np.nan)])}
    result = jaxdist.probe(mlp, params, train=(X, targets), stacked=True, **SHORT)
    assert result["zero"].sizes["seed"] == 1
    assert results.MISSING not in result["unedited"].not_finite


REFUSED = {
    "0 and 1 as real numbers": (
        1,
        HALVES.astype(np.float32),
        {},
        "0 and 1 as float32, which may be classes or targets; pass task",
    ),
    "classes of one number": (1, HALVES + 1, {}, "integers from 1 to 2, but the network returns one number"),
    "soft labels": (3, np.full((203, 3), 1 / 3), {}, r"shares of classes, .* pass labels.argmax\(1\), or task='reg"),
    "several classes": (3, np.ones((203, 3), int), {}, "but not one-hot; pass the class of each example, or"),
    "targets of three": (3, np.full((203, 2), 0.5), {}, "expected one integer label for each of 203 inputs"),
    "another task": (
        3,
        HALVES,
        {"task": "binary"},
        r"expected one logit \[n\] or \[n, 1\] .* got shape \(2, 3\) for two",
    ),
    "tokens of none": (3, HALVES, {"task": "tokens"}, r"expected logits \[n, T, C\] .* got shape \(2, 3\) for two"),
    "no task": (
        3,
        HALVES,
        {"task": "ranking"},
        "task: expected one of classes, tokens, binary, regression, got 'ranking'",
    ),
    "targets that are none": (1, np.full(203, np.nan), {"task": "regression"}, "numbers that are not finite"),
    "units of a regression": (
        1,
        Z,
        {"units": True},
        "units: it counts predictions that change, but these outputs are re",
    ),
    "doses of a regression": (1, Z, {"dose": True}, "dose: doses are compared by the class"),
    "a loss of classes": (1, Z, {"metrics": ("cross_entropy",)}, "metric 'cross_entropy': needs classes, but these"),
    "accuracy": (
        1,
        Z,
        {"thresholds": {"accuracy": 0.1}},
        "metric 'accuracy': needs classes, but these outputs are real",
    ),
    "no metric": (3, HALVES, {"thresholds": {"losses": 0.1}}, "unknown metric 'losses'"),
    "several amounts": (3, HALVES, {"thresholds": {"kl": np.ones(2)}}, "thresholds: expected how far 'kl' rises"),
    "words": (3, HALVES, {"thresholds": {"kl": np.array("x")}}, "thresholds: expected how far 'kl' rises"),
    "no amount": (3, HALVES, {"thresholds": {"kl": 0}}, r"thresholds: expected how far 'kl' rises \(above 0\)"),
}


@pytest.mark.parametrize(("outputs", "labels", "given", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_ambiguous_or_means_nothing_is_refused(outputs, labels, given, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        jaxdist.probe(functools.partial(mlp, outputs=outputs), MLP, train=(X, labels), **{**SHORT, **given})
    assert "\n" not in str(caught.value)


def test_what_is_refused_of_tokens(sequences):
    x, y = sequences["train"]
    given = {"sites": ["mlp"], "families": ("zero",)}
    cases: list[tuple[object, dict, str]] = [
        (y, {"sensitivity": True}, "sensitivity: it measures the margin"),
        (y, {"families": ("restored_offset",)}, "family 'restored_offset': it restores the mean logits"),
        (np.full_like(y, -100), {}, "train: expected 1 to .* tokens with a label that counts, got 0"),
        (np.where(y == -100, -1, y), {}, "train: expected labels from 0 to 6, .* got -1 to 6"),
        (y[:, :-1], {}, r"apply: expected logits \[n, C\] .* pass a label per token, or return the logits"),
        (y[:, 0], {"task": "tokens"}, r"train: expected a label for each token, \[90, 6\] for 90 inputs"),
    ]
    for labels, more, sentence in cases:
        with pytest.raises(InputError, match=sentence):
            jaxdist.probe(applied, PARAMS, train=(x, labels), **{**given, **more})


def test_the_ways_out_that_are_named_work():
    for task in ("binary", "regression"):
        result = jaxdist.probe(mlp, MLP, train=(X, HALVES.astype(np.float32)), task=task, **SHORT)
        assert ("correct" in result["zero"]) == (task == "binary")
    shares = np.full((203, 3), 1 / 3)
    assert (
        "correct"
        not in jaxdist.probe(functools.partial(mlp, outputs=3), MLP, train=(X, shares), task="regression", **SHORT)[
            "zero"
        ]
    )
