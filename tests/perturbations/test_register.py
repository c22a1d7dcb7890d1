"""Families of one's own: what makes a record, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from jaxdist import config as configs
from jaxdist import registry
from jaxdist.config import SweepConfig
from jaxdist.errors import InputError
from jaxdist.perturbations import Family, edits, families, moving_families, register, toward_families, traits
from jaxdist.sweep import results
from jaxdist.types import PRNG, Ranges

RANGES = Ranges(jnp.array([0.0, 1.0, 0.0]), jnp.array([4.0, 3.0, 0.0]), jnp.array([False, False, True]))


def squeezed(ranges, fraction):
    middle = (ranges.low + ranges.high) / 2
    return edits.unedited(ranges.low.size)._replace(scale=1 - fraction, offset=fraction * middle)


def drawn(ranges, fraction, key):
    return edits.unedited(ranges.low.size)._replace(scale=jax.random.bits(key, (3,)).astype(jnp.float32))


class Rounded(NamedTuple):
    step: jax.Array

    def apply(self, value, example_index, unit_axis):
        step = edits.beside(self.step, value, unit_axis)
        return step * jnp.round(value / step)


def rounded(ranges, fraction):
    return Rounded(jnp.full_like(ranges.low, fraction))


SQUEEZE = Family(
    name="squeeze",
    text="every unit is pulled to the middle of its range",
    edit=squeezed,
    grid=lambda: np.linspace(0, 1, 5),
    above="squeezed by",
)


def changed(**fields):
    return dataclasses.replace(SQUEEZE, **fields)


def test_every_built_in_family_is_a_record_that_could_be_registered():
    for family in families.ALL.values():
        families.check_record(family)
    assert {name: family.text for name, family in families.ALL.items()} == registry.FAMILIES
    assert tuple(families.ALL) == families.BUILT_IN


# By family: the points, the ends, and the fraction nearest to no edit.
GRIDS = {
    **dict.fromkeys(("scale", "clip", "clip_both"), (100, 0.01, 10, 0.01)),
    "offset": (125, -2, 1, 0.01),
    **dict.fromkeys(("shift", "restored_offset"), (26, -2, 1, 0.005)),
    "random_offset": (13, 0, 2, 0.01),
    "random_scale": (11, 0, 3, 0.03),
    "noise": (16, 0, 3, 0.005),
    **dict.fromkeys(("floor", "dead_zone"), (25, 0, 0.98, 0.005)),
    **dict.fromkeys(("collapse_small", "collapse_large"), (34, 0, 1, 2e-4)),
    **dict.fromkeys(("zero", "mean", "mean_position", "resample", "patch"), (21, 0, 1, 0.05)),
}


def test_grids_stay_since_results_at_other_fractions_do_not_compare():
    assert GRIDS.keys() == families.ALL.keys()
    for name, (count, first, last, nearest) in GRIDS.items():
        grid = families.ALL[name].grid()
        apart = np.abs(grid[np.abs(grid) > 1e-9])
        np.testing.assert_allclose(
            [len(grid), grid[0], grid[-1], apart.min()], [count, first, last, nearest], rtol=1e-9
        )
        assert all(grid[0] <= fraction <= max(grid[-1], 1) for fraction in families.ALL[name].few)


def test_doses_are_compared_at_the_fractions_that_the_docs_name():
    near = (-0.5, -0.1, 0.1, 0.5)
    compared = {name: family.compared_at for name, family in families.ALL.items() if family.compared_at}
    assert compared == {"clip": (0.75, 0.5, 0.25, 0.1), "offset": near, "shift": near}


def test_random_signs_are_one_up_or_down_as_often():
    drawn = np.stack([moving_families.signs(jax.random.key_data(jax.random.key(k, impl=PRNG)), 1000) for k in range(8)])
    np.testing.assert_array_equal(np.unique(drawn), [-1, 1])
    assert abs(drawn.mean()) < 4 / drawn.size**0.5


def test_axes_are_labelled_in_percent_of_what_fractions_are_of():
    labels = {name: traits.Traits.axis_label.fget(family) for name, family in families.ALL.items()}
    assert labels["shift"] == "Shift (% of range)"
    assert labels["zero"] == "Zero (% of the way)"
    assert all("%" in label for label in labels.values())


def test_a_function_is_a_family_whose_edits_are_mapped_over_networks_and_points():
    family = toward_families.of_function(lambda value, fraction: value * (1 - fraction))
    edit = jax.vmap(lambda p: family.edit(RANGES, p))(jnp.array([0.0, 0.5, 1.0]))
    values = jnp.arange(6, dtype=jnp.float32).reshape(2, 3)
    edited = jax.jit(jax.vmap(lambda each: each.apply(values, jnp.arange(2), -1)))(edit)
    np.testing.assert_allclose(edited, np.stack([values, values / 2, 0 * values]))
    assert family.grid().tolist() == pytest.approx(np.linspace(0, 1, 21).tolist())
    assert family.few == (0.5, 1.0)


def test_a_registered_family_is_known_to_configs_by_its_name():
    with pytest.raises(InputError, match="expected one of scale, clip"):
        configs.from_dict({"sweep": {"families": ["squeeze"]}})
    assert register(SQUEEZE) is SQUEEZE
    assert configs.from_dict({"sweep": {"families": ["squeeze"]}}).sweep.families == ("squeeze",)
    with pytest.raises(InputError, match=r"resample, patch, squeeze, or 'package.module:name', got \"squeze\""):
        configs.from_dict({"sweep": {"families": ["squeze"]}})
    assert families.get("squeeze") is SQUEEZE


def test_its_edit_has_the_numbers_of_its_function_and_spares_dead_units():
    register(SQUEEZE)
    made = families.build("squeeze", RANGES, np.array([0.25]), SweepConfig())
    np.testing.assert_allclose(made.scale, [[0.75, 0.75, 1.0]])
    np.testing.assert_allclose(made.offset, [[0.5, 0.5, 0.0]])
    made = families.build("squeeze", RANGES, np.array([0.25]), SweepConfig(dead_units="nan"))
    np.testing.assert_allclose(made.scale, [[0.75, 0.75, 0.75]])
    assert families.identity("squeeze", SweepConfig()) == 0


def test_an_edit_of_another_kind_spares_dead_units_too():
    register(changed(name="levels", edit=rounded, kind="other"))
    made = families.build("levels", RANGES, np.array([2.0]), SweepConfig())
    one = jax.tree.map(lambda leaf: leaf[0], made)
    value = jnp.array([[1.2, 2.9, 1.2]])
    np.testing.assert_allclose(one.apply(value, jnp.arange(1), -1), [[2.0, 2.0, 1.2]])


def test_a_family_registered_again_replaces_itself():
    register(SQUEEZE)
    register(changed(text="otherwise"))
    assert registry.FAMILIES["squeeze"] == families.get("squeeze").text == "otherwise"


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (squeezed, "expected a jaxdist.perturbations.Family, got a function"),
        (changed(name="Squeeze"), "expected a name of at most 24 lowercase letters"),
        (changed(name="a:b"), "expected a name of at most 24 lowercase letters"),
        (changed(name="training"), "family 'training': another group of a result has this name"),
        (changed(name="units_clip"), "family 'units_clip': another group of a result has this name"),
        (changed(name="clip"), "family 'clip': this name is built in"),
        (changed(text=""), "text: expected one sentence, got ''"),
        (changed(above=""), "below, above: expected words for the sides on which it edits"),
        (changed(above="squeezed to the middle by"), "above: expected at most 16 letters"),
        (changed(below="widened by"), "grid: expected fractions below 0, where it edits too"),
        (changed(spacing="log"), "grid: expected positive fractions and identity for spacing 'log'"),
        (changed(spacing="even"), "spacing: expected one of linear, log, got 'even'"),
        (changed(effect="big"), "effect: expected one of small, large"),
        (changed(few=[0.1]), "few: expected a tuple of numbers, got [0.1]"),
        (changed(few=()), "few: expected a tuple of numbers, got ()"),
        (changed(few=(0.1, np.nan)), "few: expected a tuple of numbers, got (0.1, nan)"),
        (changed(grid=lambda: np.array([1.0, 0.0])), "grid: expected a function that gives increasing numbers"),
        (changed(edit=rounded), "edit: expected a Affine for kind 'affine', got a Rounded; use kind='other'"),
        (changed(edit=lambda ranges, p: p), "edit: expected a Affine for kind 'affine', got a "),
        (changed(edit=lambda ranges, p: p, kind="other"), "edit: expected a pytree with a method apply"),
        (changed(edit=lambda ranges: None), "edit: raises TypeError for ranges of 3 units"),
        (changed(edit=drawn), "edit: raises TypeError for ranges of 3 units"),
    ],
)
def test_what_is_wrong_with_a_record_is_said_in_one_sentence(family, message):
    with pytest.raises(InputError) as caught:
        register(family)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "squeeze" not in families.ALL


def test_two_families_of_one_name_are_refused():
    register(SQUEEZE)
    with pytest.raises(InputError, match=r"family 'squeeze': tests\.\S+ has already registered this name"):
        register(changed(edit=lambda ranges, fraction: squeezed(ranges, fraction)))
    assert families.get("squeeze") is SQUEEZE


MODULE = """
from tests.perturbations.test_register import SQUEEZE, squeezed
family = SQUEEZE
number = 3
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Modules in the working directory, which Python looks into for references alone."""
    (tmp_path / "own_edits.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "broken_edits.py").write_text("import nothing_of_that_name", encoding="utf-8")
    (tmp_path / "failing_edits.py").write_text("raise RuntimeError('on purpose')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("modules")
def test_a_reference_leads_to_the_record_that_it_names():
    assert families.REGISTER.named("own_edits:family", "x") == "squeeze"
    assert families.REGISTER.named("clip", "x") == "clip"
    assert families.REGISTER.knows("own_edits:family")
    assert not families.REGISTER.knows("own_edits:other")


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_edits:family", "x: 'no_edits:family' cannot be imported; put a module no_edits in the working"),
        ("broken_edits:family", "cannot be imported, since it imports nothing_of_that_name, which was not found"),
        ("failing_edits:family", "cannot be imported: failing_edits raises RuntimeError: on purpose"),
        ("own_edits:famly", "x: the module own_edits has no 'famly'"),
        ("own_edits:number", "x: 'own_edits:number' is an int; expected a jaxdist.perturbations.Family"),
        ("own_edits:squeezed", "x: 'own_edits:squeezed' is a function; expected a jaxdist.perturbations.Family"),
    ],
)
def test_what_is_wrong_with_a_reference_is_said_in_one_sentence(reference, message):
    with pytest.raises(InputError) as caught:
        families.REGISTER.named(reference, "x")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_traits_come_back_from_the_attributes_of_a_group_and_only_from_a_familys_own():
    for family in [*families.ALL.values(), changed(compared_at=(0.5,))]:
        told = traits.read(traits.attributes(family), family.name)
        assert told == traits.Traits(**{f.name: getattr(family, f.name) for f in dataclasses.fields(traits.Traits)})
        assert traits.read(traits.attributes(family), f"averaged_{family.name}") is None
    assert traits.read({"name": "clip"}, "clip") is None


def test_what_a_result_tells_of_its_families_needs_no_registration():
    groups = {
        "squeeze": xr.Dataset(attrs=traits.attributes(SQUEEZE)),
        "training": xr.Dataset(),
        "clip": xr.Dataset(),
        "averaged_squeeze": xr.Dataset(attrs=traits.attributes(SQUEEZE)),
    }
    told = results.families_of(results.tree(groups, {}))
    assert list(told) == ["clip", "squeeze"]
    assert told["squeeze"].outward("above") == "squeezed by"
    assert told["clip"] is families.get("clip")
    assert "squeeze" not in families.ALL
