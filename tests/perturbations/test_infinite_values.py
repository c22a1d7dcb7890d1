"""Sites some of whose values are infinite, as scores that a mask rules out: right, or refused in a sentence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdist
from jaxdist.errors import InputError
from jaxdist.perturbations import edits, toward_families
from jaxdist.types import Ranges

X = np.asarray(jax.random.normal(jax.random.key(0), (96, 5, 4)))
Y = np.arange(96) % 3
PARAMS = {"k": jnp.eye(4) / 2, "v": jax.random.normal(jax.random.key(1), (4, 3))}


def masked(params, x):
    scores = jnp.einsum("nqd,de,nke->nqk", x, params["k"], x)
    scores = jnp.where(jnp.tril(jnp.ones((5, 5), bool))[None], scores, -jnp.inf)
    weights = jax.nn.softmax(jaxdist.site("scores", scores), -1)
    return (weights @ (x @ params["v"])).mean(1)


def counts(family, **options):
    result = jaxdist.probe(masked, PARAMS, train=(X, Y), sites=["scores"], families=(family,), **options)
    return result[family]


def test_patching_with_the_same_inputs_changes_nothing():
    patched = counts("patch", source=X)
    assert (patched.agree == len(Y)).all()
    assert (patched.correct == patched.unperturbed.item()).all()


def test_scaling_and_another_example_are_right():
    assert int(counts("scale").agree.sel(fraction=1, method="nearest").squeeze()) == len(Y)
    resampled = counts("resample")
    assert (resampled.agree.sel(fraction=0) == len(Y)).all()
    # NaN logits would count as class 0 everywhere.
    logits = masked(PARAMS, X)
    assert len(np.unique(np.argmax(logits, -1))) == 3
    assert resampled.agree.sel(fraction=1).min() > 0


@pytest.mark.parametrize("family", ["offset", "clip", "noise", "zero", "mean", "shift", "random_offset"])
def test_what_would_be_no_number_is_refused(family):
    with pytest.raises(InputError, match=f"some values are infinite.*which {family} would turn into NaN"):
        counts(family)


def some_nan(params, x):
    """NaN at a site, of which the logits know nothing."""
    hidden = jnp.where(x[:, 0, :1] > 2, jnp.nan, x[:, 0] @ params["k"])
    return jnp.nan_to_num(jaxdist.site("hidden", hidden)) @ params["v"]


@pytest.mark.parametrize(
    "family", ["offset", "clip", "noise", "floor", "mean", "mean_position", "restored_offset", "random_offset"]
)
def test_units_with_nan_have_no_range_to_go_by(family):
    post = {"hidden": jax.nn.relu}
    with pytest.raises(InputError, match=f"site 'hidden': some values are NaN, so that units have no.*that {family} "):
        jaxdist.probe(some_nan, PARAMS, train=(X, Y), sites=["hidden"], families=(family,), post=post)


@pytest.mark.parametrize("family", ["scale", "zero", "random_scale", "resample"])
def test_families_that_need_no_range_edit_units_with_nan(family):
    result = jaxdist.probe(some_nan, PARAMS, train=(X, Y), sites=["hidden"], families=(family,))
    group = result[family]
    identity = {"scale": 1.0}.get(family, 0.0)
    assert (group.agree.sel(fraction=identity, method="nearest") == len(Y)).all()


def test_both_ends_of_the_way_to_a_target_are_exact():
    ranges = Ranges(jnp.zeros(3), jnp.ones(3), jnp.zeros(3, bool))
    value = jnp.asarray([[1.5, -jnp.inf, -0.0]])
    target = jnp.asarray([[jnp.inf, 2.0, 0.0]])

    def led(fraction):
        edit = toward_families.toward("source", ranges, jnp.float32(fraction))
        assert isinstance(edit, edits.Toward)
        return np.asarray(edit.toward(value, target, -1))

    for found, expected in ((led(0), value), (led(1), target)):
        np.testing.assert_array_equal(found.view(np.uint32), np.asarray(expected).view(np.uint32))
