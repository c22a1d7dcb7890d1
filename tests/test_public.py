"""The names of the package itself: what completion offers, and what can be imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

import jaxdist

PUBLIC = (
    "Config", "Family", "InputError", "Metric", "Model", "edit", "from_equinox", "from_haiku", "from_linen", "from_nnx",
    "load", "plot", "probe", "read", "register", "run", "show", "site", "sites",
    "thresholds",
)  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_offered_and_can_be_imported(name):
    assert name in dir(jaxdist)
    assert name in jaxdist.__all__
    assert callable(getattr(jaxdist, name))


def test_public_names_are_all_that_is_exported():
    assert sorted(jaxdist.__all__) == sorted(["__version__", *PUBLIC])
    with pytest.raises(AttributeError, match="No jaxdist attribute nothing"):
        _ = jaxdist.nothing


def test_names_are_offered_before_jax_has_loaded():
    code = "import sys, jaxdist; assert {*jaxdist.__all__} <= {*dir(jaxdist)}; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
