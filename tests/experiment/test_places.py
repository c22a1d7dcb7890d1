"""Networks whose outputs depend on an example's place in the block: measured as a call with the whole split is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdist
from jaxdist.errors import InputError
from jaxdist.networks import rows

KEYS = jax.random.split(jax.random.key(0), 3)
PARAMS = {"w": jax.random.normal(KEYS[0], (8, 16)) / 3, "v": jax.random.normal(KEYS[1], (16, 10))}
X = np.asarray(jax.random.normal(KEYS[2], (701, 8)))
Y = np.arange(701) % 10


def gamma(params, x):
    h = jaxdist.site("h", x @ params["w"])
    return jax.random.gamma(jax.random.key(0), 1 + jax.nn.softplus(h)) @ params["v"]


def noisy(params, x):
    h = jaxdist.site("h", x @ params["w"])
    return (h + jax.random.normal(jax.random.key(1), h.shape)) @ params["v"]


def normalised(params, x):
    h = noisy(params, x)
    return h - h.mean(0, keepdims=True)


@pytest.mark.parametrize("network", [gamma, noisy])
def test_counts_are_those_of_a_call_with_the_whole_split(network):
    result = jaxdist.probe(
        network, PARAMS, train=(X, Y), test=(X[:97], Y[:97]), sites=["h"], families=("scale", "zero")
    )
    for split, count in (("train", 701), ("test", 97)):
        for family, fraction, factor in (("scale", 1, 1), ("scale", 10, 10), ("zero", 0.5, 0.5), ("zero", 1, 0)):
            edit = {"h": lambda value, factor=factor: value * factor}
            logits = jaxdist.edit(network, PARAMS, X[:count], edit)
            expected = int((jnp.argmax(logits, -1) == Y[:count]).sum())
            found = result[family].correct.sel(split=split, fraction=fraction, method=None).squeeze()
            assert abs(int(found) - expected) <= 1
    assert "each split is computed as one block, since" in str(result.attrs["data_notes"])


def test_the_place_alone_is_told_from_other_examples():
    assert [rows.examine(network, PARAMS, X)[::4] for network in (gamma, noisy)] == [(False, True)] * 2
    assert rows.examine(normalised, PARAMS, X)[::4] == (False, False)
    with pytest.raises(InputError, match=r"depend on .* block"):
        jaxdist.probe(normalised, PARAMS, train=(X, Y), sites=["h"], families=("zero",))


@pytest.mark.parametrize(("options", "what"), [({"dose": True}, "dose"), ({"families": ("resample",)}, "resample")])
def test_what_would_change_places_is_refused(options, what):
    with pytest.raises(InputError, match=f"depend on its place in the block.*which .*{what}.* would change"):
        jaxdist.probe(noisy, PARAMS, train=(X, Y), sites=["h"], **{"families": ("offset", "clip"), **options})
