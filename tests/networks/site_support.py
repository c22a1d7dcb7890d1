"""What several tests of sites share: an edit made in every way is the same as one written by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxdist.networks import site_splits, site_values

X = jax.random.normal(jax.random.key(7), (12, 64))


def twice(value):
    return 2 * value


def assert_same(got: Any, expected: Any, tolerance: float = 0.0) -> None:
    """Two outputs are equal, or differ by at most `tolerance` of the largest of the expected values."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    if not tolerance:
        np.testing.assert_array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1e-30))


def assert_edits(
    apply: Callable[..., Any],
    params: Any,
    x: Any,
    edits: Mapping[str, site_values.Edit],
    by_hand: Callable[[Any, Any], Any],
    tolerance: float = 0.0,
) -> site_splits.CutProgram:
    """The edit by evaluation and by the split are what is computed by hand, and differ from the unedited output.

    All of them are one program, since compiling takes longest.
    """
    split = site_splits.split(site_values.trace(apply, params, x), list(edits))

    @jax.jit
    def computed(params: Any, x: Any) -> dict[str, Any]:
        residuals = split.before(params, x)
        return {
            "by hand": by_hand(params, x),
            "edited": site_values.edit(apply, params, x, edits),
            "edited by the split": split.after(residuals, edits),
            "unedited by hand": apply(params, x) if not site_values.takes_tap(apply) else split.after(residuals, {}),
            "unedited": site_values.edit(apply, params, x, {}),
            "unedited by the split": split.after(residuals, {}),
        }

    got = computed(params, x)
    assert_same(got["edited"], got["by hand"], tolerance)
    assert_same(got["edited by the split"], got["by hand"], tolerance)
    assert_same(got["unedited"], got["unedited by hand"], tolerance)
    assert_same(got["unedited by the split"], got["unedited by hand"], tolerance)
    assert not np.allclose(got["unedited"], got["by hand"], rtol=1e-3)
    return split


def listed(apply: Callable[..., Any], params: Any, x: Any) -> list[str]:
    """The keys of a network's sites."""
    return [each.key for each in site_values.sites(apply, params, x)]
