"""What of the pictures the networks see: inputs that are zero everywhere are left out, which changes nothing."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdist import config as configs
from jaxdist.data import inputs
from jaxdist.experiment import running
from jaxdist.networks import models
from jaxdist.storage import weights
from tests.data.support import put


@pytest.mark.parametrize(
    ("used", "of", "filled"), [(0, 40, 0), (1, 40, 16), (16, 40, 16), (17, 40, 32), (35, 40, 40), (3, 10, 10)]
)
def test_rows_are_filled_to_whole_cache_lines_or_with_all_there_is(used, of, filled):
    rng = np.random.default_rng(used)
    first, second = np.zeros((2, 5, of), np.float32)
    places = rng.permutation(of)[:used]
    # An input may be zero throughout one split only, or have values that cancel.
    first[0, places[::2]] = 1
    second[:2, places[1::2]] = [[-3], [3]]
    nonzero = inputs.nonzero([first, second])
    assert np.flatnonzero(nonzero).tolist() == sorted(places)
    found = inputs.in_cache_lines(nonzero)
    assert found.shape == (of,)
    assert found[nonzero].all()
    assert found.sum() == filled


@pytest.fixture(scope="module")
def framed(digits, tmp_path_factory):
    """A folder of digits in a frame, and which pixels are zero in every image."""
    parts = []
    for split in (digits.train, digits.test):
        parts += [np.pad(split.images[:300], ((0, 0), (2, 2), (2, 2))), split.labels[:300].astype(np.uint8)]
    never = ~np.any([parts[k].any(axis=0) for k in (0, 2)], axis=0).ravel()
    return put(tmp_path_factory.mktemp("framed"), parts), never


def test_a_run_without_empty_pixels_is_that_with_all(framed, tmp_path, monkeypatch):
    """Of 144 pixels 56 are not zero everywhere, and 64 are kept."""
    folder, never = framed
    runs = []
    for kept in (64, 144):
        monkeypatch.setattr(inputs, "CACHE_LINE", kept)
        config = configs.from_dict(
            {
                "out": str(tmp_path / str(kept)),
                "data": {"name": "mnist", "dir": str(folder)},
                "model": {"activations": ["abs"], "hidden": [8]},
                "train": {"seeds": 2, "steps": 4},
                "sweep": {"families": ["clip"]},
            }
        )
        seen = inputs.load_inputs(config)
        assert seen.splits["train"].x.shape[1] == len(seen.used) == kept
        running.train(config)
        result = running.sweep_folder(Path(config.out))
        params = weights.load(Path(config.out) / "weights" / "abs.safetensors")
        initial = models.initial(config, seen, range(2), "abs")["dense0"]["weight"]
        np.testing.assert_array_equal(params["dense0"]["weight"][..., never], initial[..., never])
        runs.append((result, params))
    (kept, trained), (whole, others) = runs
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), trained, others)
    assert np.abs(kept["clip"]["correct"] - whole["clip"]["correct"]).max() <= 1


@pytest.mark.parametrize(("backend", "kept", "stored"), [("float32", 64, 64), ("bfloat16", 56, 56), ("digits", 56, 64)])
def test_only_rows_of_float32_are_filled(framed, backend, kept, stored):
    """Rows of exact products have their own width."""
    config = configs.from_dict(
        {
            "data": {"name": "mnist", "dir": str(framed[0]), "normalisation": "raw"},
            "compute": {"precision": "exact"},
        }
    )
    seen = inputs.load_inputs(config, backend)
    assert (len(seen.used), seen.splits["train"].x.shape[1]) == (kept, stored)
